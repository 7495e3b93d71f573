"""Dropout whose randomness is a key that is given."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from zoo.nn.noise import octets


class Dropout:
    """Dropout with a fresh key at each call; without a key it does nothing."""

    def __init__(self, keep: float = 1.0, key: jax.Array | None = None) -> None:
        self.keep, self.key = keep, key

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.key is None or self.keep >= 1.0:
            return x
        self.key, key = jax.random.split(self.key)
        return jnp.where(octets(key, x.shape) < round(256 * self.keep), x / self.keep, 0.0)
