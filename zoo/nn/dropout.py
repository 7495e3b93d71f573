"""Dropout whose randomness is a key that is given."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


class Dropout:
    """Dropout with a fresh key at each call; without a key it does nothing."""

    def __init__(self, keep: float = 1.0, key: jax.Array | None = None) -> None:
        self.keep, self.key = keep, key

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.key is None or self.keep >= 1.0:
            return x
        self.key, key = jax.random.split(self.key)
        return jnp.where(octets(key, x.shape) < round(256 * self.keep), x / self.keep, 0.0)


def octets(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bytes, uint8: four of every word, for words are what takes the time (a fifth of a training step here)."""
    count = math.prod(shape)
    words = jax.random.bits(key, (-(-count // 4),), jnp.uint32)
    return jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:count].reshape(shape)
