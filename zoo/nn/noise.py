"""Random numbers for the loops that need millions: the same generator as `jax.random`, which throws half of it away."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32


def words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint32 words, each with a counter's half of a Threefry block (Salmon et al. 2011).

    `jax.random.bits` makes a block for each word, so that devices can make their own: a million words take it 3.0 ms on
    one core of an EPYC, and 1.4 here. For a key of another generator this is `jax.random.bits`.
    """
    data = jax.random.key_data(key)
    if data.shape != (2,):
        return jax.random.bits(key, shape, jnp.uint32)
    return threefry_2x32(data, jnp.arange(math.prod(shape), dtype=jnp.uint32)).reshape(shape)


def octets(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bytes, uint8: four of every word, for words are what takes the time."""
    count = math.prod(shape)
    found = words(key, (-(-count // 4),))
    return jax.lax.bitcast_convert_type(found, jnp.uint8).reshape(-1)[:count].reshape(shape)


def gumbel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """−log(−log u), u uniform in (0, 1), float32: the class with the highest logit + noise is a draw from softmax."""
    uniform = (words(key, shape) >> 9).astype(jnp.float32) * 2.0**-23 + 2.0**-24  # up to 1 − 2⁻²⁴, never 1
    return -jnp.log(-jnp.log(uniform))
