"""Beam search: of all sequences of tokens the likeliest, as far as a beam of a given width finds them.

`B` batch, `W` width of the beam, `T` steps, `V` classes. At each step every one of W prefixes is continued by every
token, and the W likeliest of these W · V stay. A beam of 1 is greedy; one of V^(T − 1) is exhaustive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Step = Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]


def beam_search(
    step: Step, state: Any, token: jax.Array, counts: jax.Array, context: Any = None
) -> tuple[jax.Array, jax.Array]:
    """The W likeliest sequences, best first: tokens int32 [B, W, T], their log p float32 [B, W] in nats.

    Args:
      step: (state, previous token int32 [B · W], this step's context) → (logits [B · W, V], new state).
      state: before the first token, a pytree of arrays with B · W rows, the beam of a batch's row in a block. Where a
        beam goes on with another's prefix, its rows are gathered.
      token: int32 [B, W], the token before the first.
      counts: bool [B, T], False behind a sequence's end, where tokens are 0 and cost nothing.
      context: what the model is given beside its own tokens, a pytree of [B · W, T, ...]; None for nothing.
    """
    batch, width = token.shape
    length = counts.shape[1]
    rows = jnp.arange(batch)[:, None]
    first = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)  # all prefixes are the same yet: one of them counts

    def body(carry: tuple[Any, ...], at: Any) -> tuple[tuple[Any, ...], None]:
        (state, token, written, score), (t, counted, given) = carry, at
        logits, state = step(state, token.reshape(-1), given)
        own = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1).reshape(batch, width, -1)
        ended = jnp.where(jnp.arange(own.shape[-1]) == 0, 0.0, -jnp.inf)
        total = score[..., None] + jnp.where(counted[:, None, None], own, ended)  # [B, W, V]
        score, chosen = jax.lax.top_k(total.reshape(batch, -1), width)
        parent, token = jnp.divmod(chosen, own.shape[-1])  # [B, W]
        flat = (rows * width + parent).reshape(-1)
        state = jax.tree.map(lambda leaf: leaf[flat], state)
        token = token.astype(jnp.int32)
        written = written[rows, parent].at[:, :, t].set(token)
        return (state, token, written, score), None

    given = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), context)
    start = state, token, jnp.zeros((batch, width, length), jnp.int32), jnp.broadcast_to(first, token.shape)
    (_, _, written, score), _ = jax.lax.scan(body, start, (jnp.arange(length), counts.T, given))
    return written, score
