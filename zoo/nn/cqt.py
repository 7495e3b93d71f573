"""The constant-Q transform: a spectrum whose bins are a fixed share of a semitone apart, as notes are.

Bin k has the frequency f_k = f_min · 2^(k/b), b bins to the octave, and a window of Q periods of it,
Q = 1 / (2^(1/b) − 1): long for low notes and short for high ones (Brown 1991). `kernels` are those windows as sampled
sinusoids. `octave_cqt` applies the kernels of the top octave alone, to the sound and then to the sound at a half, a
quarter, … of its rate (Schörkhuber and Klapuri 2010); the numbers are those of nnAudio's CQT2010v2 (Cheuk et al. 2020),
by which the models of the zoo were trained.

Shapes: `B` batch, `N` samples, `T` frames, `K` bins, `W` samples of the longest window, a power of two.
"""

from __future__ import annotations

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

LOWPASS = 256  # taps of the filter before the rate is halved
BLOCK = 64  # samples that one row of a matrix product filters


@lru_cache(maxsize=32)
def kernels(
    sample_rate: float, fmin: float, bins: int, per_octave: int, gamma: float = 0.0
) -> npt.NDArray[np.complex64]:
    """Windowed sinusoids [K, W], each in the middle of its row, its absolute values adding up to 1.

    `gamma` (Hz) widens every bin by as much, so that low notes get shorter windows.
    """
    from scipy.signal import get_window

    sizes = lengths(sample_rate, fmin, bins, per_octave, gamma).astype(int)
    width = 2 ** math.ceil(math.log2(sizes.max()))
    found = np.zeros((bins, width), np.complex64)
    for k, size in enumerate(sizes):
        start = math.ceil((width - size) / 2) - size % 2
        time = np.arange(-size // 2, size // 2)  # for an odd size too: −3 … 1 for 5
        frequency = fmin * 2.0 ** (k / per_octave)
        wave = get_window("hann", size) * np.exp(2j * np.pi * frequency / sample_rate * time)
        found[k, start : start + size] = wave / np.abs(wave).sum()
    return found


def lengths(sample_rate: float, fmin: float, bins: int, per_octave: int, gamma: float = 0.0) -> npt.NDArray[np.float64]:
    """Samples that each bin's window lasts, whole numbers [K]."""
    q = 1.0 / (2.0 ** (1.0 / per_octave) - 1.0)
    frequencies = fmin * 2.0 ** (np.arange(bins) / per_octave)
    return np.ceil(q * sample_rate / (frequencies + gamma * q))


def octave_cqt(x: jax.Array, sample_rate: float, hop: int, fmin: float, bins: int, per_octave: int) -> jax.Array:
    """Magnitudes of the transform, `x` [B, N] → [B, T, K], a frame every `hop` samples from the first on.

    Each is scaled by the root of its window's length, as librosa does. Below the top, the octaves are seen through
    7 or so halvings of the rate: `hop` must be divisible by as many twos.
    """
    octaves = math.ceil(bins / per_octave)
    top = fmin * 2.0 ** ((bins - 1) / per_octave)  # the highest bin; the kernels end there and begin an octave lower
    lowest = top / 2.0 ** (1.0 - 1.0 / per_octave)
    bank = kernels(sample_rate, lowest, per_octave, per_octave)
    found = [magnitudes(x, bank, hop)]
    for k in range(1, octaves):
        x = halve(x)
        found.insert(0, magnitudes(x, bank, hop >> k))
    scale = np.sqrt(lengths(sample_rate, fmin, bins, per_octave)).astype(np.float32)
    return jnp.concatenate(found, axis=-1)[..., -bins:] * scale


def magnitudes(x: jax.Array, bank: npt.NDArray[np.complex64], hop: int) -> jax.Array:
    """|⟨frame, kernel⟩| for each frame of `x` [B, N] and each of the kernels [K, W]: [B, T, K].

    Frames are centred on every `hop`-th sample; the sound is mirrored at its ends.
    """
    count, width = bank.shape
    x = jnp.pad(x, ((0, 0), (width // 2, width // 2)), mode="reflect")
    both = np.concatenate([bank.real, bank.imag]).T  # [W, 2K]
    parts = frames(x, width, hop) @ both
    return jnp.sqrt(parts[..., :count] ** 2 + parts[..., count:] ** 2)


def halve(x: jax.Array) -> jax.Array:
    """`x` [B, N] at half its rate, [B, N/2]: a filter that passes the lower half of the band, then every other sample.

    A filter of one channel is a product of a vector with a vector for each sample, the slowest there is. Blocks of it
    are a product of matrices: the rows of a band matrix hold the filter, each two samples further on.
    """
    batch, samples = x.shape
    out = (samples - 2) // 2 + 1  # with LOWPASS / 2 − 1 zeros on either side
    blocks = -(-out // BLOCK)
    width = 2 * BLOCK + LOWPASS  # two samples more than needed, so that frames are whole blocks
    left = LOWPASS // 2 - 1
    x = jnp.pad(x, ((0, 0), (left, blocks * 2 * BLOCK + LOWPASS - left - samples)))
    return (frames(x, width, 2 * BLOCK) @ _band()).reshape(batch, -1)[:, :out]


@lru_cache(maxsize=1)
def _band() -> npt.NDArray[np.float32]:
    """The half-band filter as a matrix [2 · BLOCK + LOWPASS, BLOCK]."""
    from scipy.signal import firwin2

    edge = 0.5 * np.array([1 / 1.001, 1.001])  # of the new Nyquist frequency, a narrow transition
    taps = firwin2(LOWPASS, [0.0, *edge, 1.0], [1.0, 1.0, 0.0, 0.0])
    matrix = np.zeros((2 * BLOCK + LOWPASS, BLOCK), np.float32)
    for j in range(BLOCK):
        matrix[2 * j : 2 * j + LOWPASS, j] = taps
    return matrix


def frames(x: jax.Array, width: int, hop: int) -> jax.Array:
    """Overlapping frames of `x` [B, N]: [B, T, width], one every `hop` samples, as many as are whole."""
    count = (x.shape[1] - width) // hop + 1
    if hop >= 16 and width % hop == 0:  # a few slices side by side are faster than a gather
        blocks = x[:, : (count - 1) * hop + width].reshape(x.shape[0], -1, hop)
        return jnp.concatenate([blocks[:, i : i + count] for i in range(width // hop)], axis=-1)
    return x[:, np.arange(count)[:, None] * hop + np.arange(width)]
