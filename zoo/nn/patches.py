"""Convolutions over time and pitch whose stride is as long as their kernel, and their transposes: matrix products.

Patches that don't overlap are rows of a matrix once the array is reshaped, so neither direction needs a convolution,
which XLA does slowly on a CPU where channels are few. A product is fast where patches are large and few.
Arrays are `x` [N, T, P, C]: `T` steps, `P` pitches, `C` channels.
"""

from __future__ import annotations

import jax
from flax import nnx

from zoo.nn.recurrent import Dense


class Grow(nnx.Module):
    """A transposed convolution: each place becomes a patch of `times` × `pitches`, each of them with its bias."""

    def __init__(self, times: int, pitches: int, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.dense = Dense(inputs, times * pitches * outputs, rngs=rngs)
        self.patch = (times, pitches)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, T, P, I] → [N, T · times, P · pitches, O]."""
        rows, across, up, _ = x.shape
        times, pitches = self.patch
        x = self.dense(x).reshape(rows, across, up, times, pitches, -1)
        return x.swapaxes(2, 3).reshape(rows, across * times, up * pitches, -1)


class Shrink(nnx.Module):
    """A convolution: each patch of `times` × `pitches` becomes one place."""

    def __init__(self, times: int, pitches: int, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.dense = Dense(times * pitches * inputs, outputs, rngs=rngs)
        self.patch = (times, pitches)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, T, P, I] → [N, T / times, P / pitches, O]."""
        rows, across, up, channels = x.shape
        times, pitches = self.patch
        x = x.reshape(rows, across // times, times, up // pitches, pitches, channels).swapaxes(2, 3)
        return self.dense(x.reshape(rows, across // times, up // pitches, -1))
