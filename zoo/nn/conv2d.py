"""Convolutions over time and frequency, with zeros around: `x` [B, T, F, I] → [B, T, F, O].

`B` batch, `T` frames, `F` bins, `I` input and `O` output channels. A kernel is [time, frequency, I, O] as TensorFlow
has it, in float32.

On a CPU XLA's own convolution is slow where channels are few, the vectors of its inner products being short. There:

- A long kernel over few channels is a product with a band matrix, block by block of the bins (`banded`): Basic Pitch's
  3 × 39 from 8 to 8 channels takes a quarter of the time, although a third of the matrix is zeros.
- A kernel of one output channel is a product over the channels alone, [F, I] · [I, taps], and then a sum of its shifted
  columns (`tap_sum`): a third to a half of the time from 32 channels on. Fewer are better off banded.

Both are exact up to the order of sums. On other devices all is `lax.conv_general_dilated`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

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
    if jax.default_backend() == "cpu" and stride == 1 and outputs == 1:
        return tap_sum(x, kernel) if inputs >= MANY else banded(x, [(0, kernel)], x.shape[2])
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, stride), "SAME", dimension_numbers=layout)


def harmonic_conv(x: jax.Array, kernel: jax.Array, shifts: Sequence[int], count: int, stride: int = 1) -> jax.Array:
    """`conv2d` over a harmonic stack of the spectrum `x` [B, T, K], a kernel [time, frequency, H, O] → [B, T, F, O].

    On a CPU a long kernel acts on the spectrum itself: the stack's channels are one and the same, moved.
    """
    if jax.default_backend() == "cpu" and stride == 1 and kernel.shape[1] >= LONG:
        return banded(x[..., None], [(s, kernel[:, :, h : h + 1]) for h, s in enumerate(shifts)], count)
    return conv2d(stack_harmonics(x, shifts, count), kernel, stride)


def stack_harmonics(x: jax.Array, shifts: Sequence[int], count: int) -> jax.Array:
    """Harmonic stacking (Bittner et al. 2017): `x` [B, T, K] → [B, T, F, H], channel h at bin f is x at f + shift_h.

    Zeros where the spectrum has no such bin; F is `count`.
    """
    below, above = max(0, -min(shifts)), max(0, max(shifts) + count - x.shape[-1])
    x = jnp.pad(x, ((0, 0), (0, 0), (below, above)))
    return jnp.stack([x[..., below + shift : below + shift + count] for shift in shifts], axis=-1)


def banded(x: jax.Array, parts: Sequence[tuple[int, jax.Array]], count: int) -> jax.Array:
    """The sum of convolutions (shift, kernel), each of the `count` bins of `x` [B, T, K, I] from its shift on.

    Beyond those bins each sees zeros, as it would see beyond the edges of an array of them. [B, T, count, O].
    """
    times, taps, _, outputs = parts[0][1].shape
    low, high = min(shift for shift, _ in parts) - (taps - 1) // 2, max(shift for shift, _ in parts) + taps // 2
    frames = x.shape[1]
    x = jnp.pad(x, ((0, 0), ((times - 1) // 2, times // 2), (0, 0), (0, 0)))
    found = []
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        seen = range(max(0, first + low), min(x.shape[2], last + high))
        bands = [_band(kernel, shift, seen, range(first, last), count) for shift, kernel in parts]
        matrix = functools.reduce(jnp.add, bands)
        rows = [x[:, t : t + frames, seen.start : seen.stop] for t in range(times)]
        rows = jnp.stack(rows, axis=2).reshape(*x.shape[:1], frames, -1)  # [B, T, time · seen · I]
        found.append((rows @ matrix.reshape(rows.shape[-1], -1)).reshape(*rows.shape[:2], -1, outputs))
    return jnp.concatenate(found, axis=2)


def _band(kernel: jax.Array, shift: int, seen: range, given: range, count: int) -> jax.Array:
    """What each of the bins `seen` of the input contributes to each of the bins `given`: [time, seen, I, given, O]."""
    taps = kernel.shape[1]
    place = np.arange(seen.start, seen.stop)[:, None] - shift  # within the part's own bins
    tap = place - np.arange(given.start, given.stop) + (taps - 1) // 2
    within = (tap >= 0) & (tap < taps) & (place >= 0) & (place < count)
    padded = jnp.pad(kernel, ((0, 0), (0, 1), (0, 0), (0, 0)))  # the last tap is zero
    return jnp.moveaxis(padded[:, np.where(within, tap, taps)], 3, 2)


def tap_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of one output channel: [B, T, F, I] → [B, T, F, 1]."""
    times, taps, inputs, _ = kernel.shape
    frames, bins = x.shape[1:3]
    products = x @ jnp.moveaxis(kernel[..., 0], 2, 0).reshape(inputs, -1)  # [B, T, F, time · frequency]
    around = [((size - 1) // 2, size // 2) for size in (times, taps)]
    products = jnp.pad(products, ((0, 0), *around, (0, 0)))
    shifts = ((t, f) for t in range(times) for f in range(taps))
    shifted = [products[:, t : t + frames, f : f + bins, t * taps + f] for t, f in shifts]
    return functools.reduce(jnp.add, shifted)[..., None]
