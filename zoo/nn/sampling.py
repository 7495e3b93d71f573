"""Drawing the next token: temperature, top-k, nucleus; and the loop that all sequence models generate by.

`B` batch, `V` classes, `T` steps. All settings are arrays, so that another temperature needs no other program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Sampling(NamedTuple):
    """How tokens are drawn.

    Attributes:
      temperature: float32 [], divides the logits; at 0 the likeliest token is taken.
      top_k: int32 [], only so many of the likeliest tokens; 0 means all.
      top_p: float32 [], only the likeliest tokens that together have this probability, at the given temperature
        (nucleus; Holtzman et al. 2020); 1 means all.
    """

    temperature: jax.Array | float = 1.0
    top_k: jax.Array | int = 0
    top_p: jax.Array | float = 1.0


def draw(logits: jax.Array, key: jax.Array, sampling: Sampling) -> jax.Array:
    """One token for each row of `logits` [B, V]: int32 [B]. Tokens whose logit is −inf never come."""
    narrow = (sampling.top_k > 0) | (sampling.top_p < 1.0)
    logits = jax.lax.cond(narrow, keep_likely, lambda logits, _: logits, logits, sampling)
    noise = jax.random.gumbel(key, logits.shape)  # the likeliest of logits / τ + noise: a draw from softmax(logits / τ)
    return likeliest(logits + sampling.temperature * noise)


def likeliest(logits: jax.Array, axis: int = -1) -> jax.Array:
    """The class with the highest of `logits` [..., V], the first of several: int32 [...]. V may be another `axis`.

    `jnp.argmax` gives the same, but XLA's CPU backend compares number by number there, and works out the logits as
    slowly: a draw of 64 tokens of 90 takes 189 µs with it and 58 as two reductions, which it takes in vectors.
    """
    axis %= logits.ndim
    classes = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis)
    highest = jnp.max(logits, axis=axis, keepdims=True)
    return jnp.min(jnp.where(logits == highest, classes, logits.shape[axis] - 1), axis=axis)


def keep_likely(logits: jax.Array, sampling: Sampling) -> jax.Array:
    """`logits` [B, V] with −inf where top-k or the nucleus leaves a token out; one token at least stays.

    Tokens as likely as the last that stays, stay too.
    """
    ranked = jnp.sort(logits, axis=-1, descending=True)
    probability = jax.nn.softmax(ranked / jnp.maximum(sampling.temperature, 1e-6), axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability  # of the tokens likelier than each
    rank = jnp.arange(logits.shape[-1])
    stays = ((sampling.top_k <= 0) | (rank < sampling.top_k)) & ((before < sampling.top_p) | (rank == 0))
    least = jnp.min(jnp.where(stays, ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


def rollout(
    step: Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]],
    state: Any,
    token: jax.Array,
    key: jax.Array,
    first: jax.Array | int,
    steps: int,
    sampling: Sampling,
    context: Any = None,
    given: jax.Array | None = None,
) -> tuple[jax.Array, tuple[Any, jax.Array]]:
    """`steps` tokens drawn one after another in one compiled loop.

    Args:
      step: (state, previous token int32 [B], this step's context) → (logits [B, V], new state).
      state: from the model's `start`, or from an earlier rollout.
      token: int32 [B], the token before the first one drawn.
      key: of the whole piece; token t is drawn with `fold_in(key, t)`, so that parts make the same piece as one call.
      first: t of the first token drawn.
      context: what the model is given beside its own tokens, a pytree of [B, steps, ...]; None for nothing.
      given: int32 [B, steps], tokens that are not drawn but set, −1 where they are drawn; None where all are.

    Returns tokens int32 [B, steps], and (state, last token) to go on from.
    """

    def body(carry: tuple[Any, jax.Array], at: Any) -> tuple[tuple[Any, jax.Array], jax.Array]:
        (state, token), (t, beside, fixed) = carry, at
        logits, state = step(state, token, beside)
        token = draw(logits, jax.random.fold_in(key, t), sampling)
        token = token if fixed is None else jnp.where(fixed >= 0, fixed, token)
        return (state, token), token

    beside, fixed = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (context, given))
    carry, tokens = jax.lax.scan(body, (state, token), (first + jnp.arange(steps), beside, fixed))
    return jnp.moveaxis(tokens, 0, 1), carry


def follow(
    step: Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]], state: Any, tokens: jax.Array, context: Any = None
) -> tuple[jax.Array, Any]:
    """Given tokens, one step each: `tokens` int32 [B, T] are the inputs. Returns logits [B, T, V] and the new state."""

    def body(state: Any, at: Any) -> tuple[Any, jax.Array]:
        logits, state = step(state, *at)
        return state, logits

    given = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), context)
    state, logits = jax.lax.scan(body, state, (tokens.T, given))
    return jnp.moveaxis(logits, 0, 1), state
