"""A scale and a shift for each channel: what a trained batch norm comes to once its statistics are fixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class Affine(nnx.Module):
    """y = x · scale + shift over the last axis, of `channels` numbers."""

    def __init__(self, channels: int) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.shift = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale[...] + self.shift[...]
