"""How likely a model finds what is there: −log p in nats, of tokens and of classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def surprise(logits: jax.Array, chosen: jax.Array) -> jax.Array:
    """−log p in nats of the classes `chosen` int [...] under `logits` [..., V].

    A number that is no class, as padding is, counts as the nearest; what is found there means nothing.
    """
    chosen = jnp.clip(chosen, 0, logits.shape[-1] - 1)
    return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, chosen[..., None], axis=-1)[..., 0]


def over_tokens(logits: jax.Array, tokens: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(how many `tokens` int [B, L] there are, sums over them), those from V on being padding.

    The sums are "loss", −log p in nats under `logits` [B, L, V], and "accuracy", how often the likeliest is right.
    """
    there = tokens < logits.shape[-1]
    nats = jnp.where(there, surprise(logits, tokens), 0.0)
    right = there & (jnp.argmax(logits, axis=-1) == tokens)
    return jnp.sum(there.astype(jnp.float32)), {"loss": jnp.sum(nats), "accuracy": jnp.sum(right.astype(jnp.float32))}
