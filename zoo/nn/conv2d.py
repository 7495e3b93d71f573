"""Convolutions over time and frequency, with zeros around: `x` [B, T, F, I] → [B, T, F, O].

`B` batch, `T` frames, `F` bins, `I` input and `O` output channels. A kernel is [time, frequency, I, O] as TensorFlow
has it, in float32.

On a CPU XLA's own convolution is slow where channels are few, the vectors of its inner products being short. There:

- A long kernel over a harmonic stack is a product of the spectrum with a band matrix, block by block of the bins
  (`banded`): Basic Pitch's 3 × 39 from 8 to 8 channels takes a quarter of the time.
- A kernel from many channels to one is a product over the channels alone, [F, I] · [I, taps], and then a sum of its
  shifted columns (`tap_sum`): a third to a half of the time. From 8 channels it is slower.

Both are exact up to the order of sums. On other devices all is `lax.conv_general_dilated`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.nn.precision import dot, rounded

Bands = list[jax.Array]

BLOCK = 44  # bins that one band matrix of a block gives; 24 to 88 are as fast
LONG = 24  # taps in frequency from which on a kernel is long
MANY = 16  # input channels


class Conv2d(nnx.Module):
    """A convolution with bias, same-padded; every `stride`-th bin of its outputs is kept.

    `kernel` [time, frequency, I, O], `bias` [O], float32. Batch normalisation that follows in a published model is
    folded into both.
    """

    def __init__(self, size: tuple[int, int], inputs: int, outputs: int, *, stride: int = 1, rngs: nnx.Rngs) -> None:
        initial = jax.nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
        self.kernel = nnx.Param(initial(rngs.params(), (*size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` [B, T, F, I] → [B, T, F / stride, O]."""
        return conv2d(x, self.kernel[...], self.stride) + self.bias[...]


def conv2d(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """The convolution, in the form that this device prefers."""
    _, _, inputs, outputs = kernel.shape
    if jax.default_backend() == "cpu" and stride == 1 and outputs == 1 and inputs >= MANY:
        return tap_sum(x, kernel)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, stride), "SAME", dimension_numbers=layout)


def harmonic_conv(
    x: jax.Array,
    kernel: jax.Array,
    shifts: Sequence[int],
    count: int,
    stride: int = 1,
    bands: Bands | None = None,
) -> jax.Array:
    """`conv2d` over a harmonic stack of the spectrum `x` [B, T, K], a kernel [time, frequency, H, O] → [B, T, F, O].

    On a CPU a long kernel acts on the spectrum itself: the stack's channels are one and the same, moved. `bands` are
    then its matrices, if they are at hand.
    """
    if bands or prefers_bands(kernel.shape, stride):
        bands = bands or make_bands(kernel, shifts, count, x.shape[-1])
        return banded(x, kernel.shape, bands, shifts, count)
    return conv2d(stack_harmonics(x, shifts, count), kernel, stride)


def prefers_bands(shape: tuple[int, ...], stride: int) -> bool:
    """Whether a harmonic convolution with a kernel of this shape is to be a product with band matrices."""
    return jax.default_backend() == "cpu" and stride == 1 and shape[1] >= LONG


def stack_harmonics(x: jax.Array, shifts: Sequence[int], count: int) -> jax.Array:
    """Harmonic stacking (Bittner et al. 2017): `x` [B, T, K] → [B, T, F, H], channel h at bin f is x at f + shift_h.

    Zeros where the spectrum has no such bin; F is `count`.
    """
    below, above = max(0, -min(shifts)), max(0, max(shifts) + count - x.shape[-1])
    x = jnp.pad(x, ((0, 0), (0, 0), (below, above)))
    return jnp.stack([x[..., below + shift : below + shift + count] for shift in shifts], axis=-1)


def make_bands(kernel: jax.Array, shifts: Sequence[int], count: int, bins: int) -> Bands:
    """The band matrices of a kernel [time, frequency, H, O] over a stack of `count` out of `bins` bins, block by block.

    Each is [time, seen, given, O]: what it makes of the bins it sees in those it gives.
    """
    taps = kernel.shape[1]
    matrices = []
    for given, seen in _blocks(taps, shifts, count, bins):
        bands = [_band(kernel[:, :, h], shift, seen, given, count) for h, shift in enumerate(shifts)]
        matrices.append(functools.reduce(jnp.add, bands))
    return matrices


def banded(x: jax.Array, kernel_shape: tuple[int, ...], bands: Bands, shifts: Sequence[int], count: int) -> jax.Array:
    """`harmonic_conv` without the stack, by the matrices of `make_bands`: `x` [B, T, K] → [B, T, F, O]."""
    times, taps, _, outputs = kernel_shape
    frames, bins = x.shape[1:]
    x = jnp.pad(x, ((0, 0), ((times - 1) // 2, times // 2), (0, 0)))
    found = []
    for (given, seen), matrix in zip(_blocks(taps, shifts, count, bins), bands, strict=True):
        rows = jnp.concatenate([x[:, t : t + frames, seen[0] : seen[-1] + 1] for t in range(times)], axis=-1)
        product = dot(rows, rounded(matrix.reshape(rows.shape[-1], -1)))
        found.append(product.reshape(-1, frames, len(given), outputs))
    return jnp.concatenate(found, axis=2)


def _blocks(taps: int, shifts: Sequence[int], count: int, bins: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The bins that each matrix gives, and those of the spectrum that it sees."""
    low, high = min(shifts) - (taps - 1) // 2, max(shifts) + taps // 2
    for first in range(0, count, BLOCK):
        given = np.arange(first, min(first + BLOCK, count))
        yield given, np.arange(max(0, first + low), min(bins, given[-1] + 1 + high))


def _band(kernel: jax.Array, shift: int, seen: np.ndarray, given: np.ndarray, count: int) -> jax.Array:
    """What one channel, [time, frequency, O], makes of the bins `seen` in the bins `given`: [time, seen, given, O].

    The channel has `count` bins, from `shift` on; beyond them it is zero, though the spectrum may not be.
    """
    taps = kernel.shape[1]
    place = seen[:, None] - shift
    tap = place - given + (taps - 1) // 2
    within = (tap >= 0) & (tap < taps) & (place >= 0) & (place < count)
    return jnp.pad(kernel, ((0, 0), (0, 1), (0, 0)))[:, np.where(within, tap, taps)]  # the last tap is zero


def tap_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of one output channel: [B, T, F, I] → [B, T, F, 1]."""
    times, taps, inputs, _ = kernel.shape
    frames, bins = x.shape[1:3]
    taps_of_channels = jnp.moveaxis(kernel[..., 0], 2, 0).reshape(inputs, -1)
    products = dot(x, rounded(taps_of_channels))  # [B, T, F, time · frequency]
    around = [((size - 1) // 2, size // 2) for size in (times, taps)]
    products = jnp.pad(products, ((0, 0), *around, (0, 0)))
    shifts = ((t, f) for t in range(times) for f in range(taps))
    shifted = [products[:, t : t + frames, f : f + bins, t * taps + f] for t, f in shifts]
    return functools.reduce(jnp.add, shifted)[..., None]
