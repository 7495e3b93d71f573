"""Which notes sound in each frame: an approximate transcription by non-negative least squares.

Mauch and Dixon, "Approximate note transcription for the improved identification of difficult chords", ISMIR 2010; the
numbers are those of the authors' Vamp plugin NNLS Chroma as it is set by default.

1. Spectrum: Hann window of 16384 samples, magnitudes brought onto a logarithmic axis of three bins a semitone, a
   semitone wider than A0 to G#7 on either side (`log_spectra`).
2. Tuning: the phase of the mean spectrum over the three bins of a semitone; the axis is moved by as much.
3. Whitening: of every bin the mean of its surroundings (half an octave under a Hamming window) is taken away, what is
   left above 0 is divided by the standard deviation there.
4. Notes: x ≥ 0 that minimise ‖E x − y‖, where the columns of E are notes whose 20 partials decay by 0.7 each. A note
   at whose fundamental nothing is left is 0.

Shapes: `T` frames, `N` samples of a frame, `S` bins of the spectrum, `F` = 256 bins of the logarithmic axis, `K` = 84
notes from A0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.nn.rows import Rows
from zoo.nn.spectral import hann

Floats = npt.NDArray[np.float32]

SIZE = 16384  # N, at 44.1 kHz
PER_SEMITONE, NOTES, LOWEST = 3, 84, 21
BINS = PER_SEMITONE * NOTES + 4  # F: half a semitone and a bit more on either side
PARTIALS, DECAY = 20, 0.7
SILENT = 2.0  # the largest magnitude of a frame that counts as silent
TUNED = 0.62  # share of the axis, from below, by which the tuning is judged
ITERATIONS = 150
AT_ONCE = 256  # frames of one call


def log_spectra(frames: npt.ArrayLike, rate: float) -> Floats:
    """Frames of sound [T, N] → magnitudes on the logarithmic axis, float32 [T, F]."""
    given = np.asarray(frames, np.float32)
    kernel = log_kernel(rate)
    return np.concatenate(list(_in_blocks(lambda block: _log_spectra(block, kernel), given)))


@jax.jit
def _log_spectra(frames: jax.Array, kernel: Floats) -> jax.Array:
    magnitudes = jnp.abs(jnp.fft.rfft(frames * hann(SIZE)))[:, :-1]
    loud = magnitudes.max(axis=-1, keepdims=True) >= SILENT
    return jnp.where(loud, magnitudes, 0.0)[:, : len(kernel)] @ kernel


def transcribe(spectra: Floats | Rows) -> Iterator[Floats]:
    """Logarithmic spectra [T, F] of a whole recording → how strongly each note sounds, float32 [T, K], in pieces."""
    shift = np.float32(PER_SEMITONE * tuning(spectra))
    return _in_blocks(lambda block: _notes(block, shift), spectra)


@jax.jit
def _notes(spectra: jax.Array, shift: jax.Array) -> jax.Array:
    y = _whitened(_tuned(spectra, shift))
    near = y[:, PER_SEMITONE - 1 : -PER_SEMITONE + 1].reshape(len(y), NOTES, PER_SEMITONE)  # bins around each note
    return nnls(note_profiles(), y, near.sum(axis=-1) > 0, ITERATIONS)


def tuning(spectra: Floats | Rows) -> float:
    """How far the recording is above 440 Hz, in semitones, −½ … ½; by all its frames [T, F] together."""
    octaves = round(BINS * TUNED / PER_SEMITONE) + 1
    total = np.zeros(octaves * PER_SEMITONE)
    for at in range(0, len(spectra), AT_ONCE):
        total += spectra[at : at + AT_ONCE][:, : len(total)].sum(axis=0, dtype=np.float64)
    mean = (total / len(spectra)).reshape(octaves, PER_SEMITONE).sum(axis=0)
    return float(np.angle(mean @ np.exp(2j * np.pi * np.arange(PER_SEMITONE) / PER_SEMITONE)) / (2 * np.pi))


def _tuned(spectra: jax.Array, shift: jax.Array) -> jax.Array:
    """Spectra [T, F] moved down by `shift` bins, between two bins linearly; two bins below and three above are 0."""
    at = jnp.arange(2, BINS - 3)
    whole = jnp.floor(shift).astype(jnp.int32)
    part = shift - whole
    moved = spectra[:, at + whole] * (1 - part) + spectra[:, at + whole + 1] * part
    return jnp.pad(moved, ((0, 0), (2, 3)))


def _whitened(spectra: jax.Array) -> jax.Array:
    """(y − mean) / deviation where y is above the mean of its surroundings, else 0: [T, F] → [T, F]."""
    around = surroundings()
    over = spectra - spectra @ around
    deviation = jnp.sqrt(over**2 @ around)
    return jnp.where((over > 0) & (deviation > 0), over / jnp.where(deviation > 0, deviation, 1.0), 0.0)


def nnls(dictionary: Floats, y: jax.Array, allowed: jax.Array, iterations: int) -> jax.Array:
    """The x ≥ 0 [T, K] that minimises ‖dictionary · x − y‖² for each row of `y` [T, F]; `dictionary` [F, K].

    Where `allowed` (bool [T, K]) isn't, x is 0.

    Accelerated projected gradients (Beck and Teboulle 2009) that begin anew where they lead upwards (O'Donoghue and
    Candès 2015), a fixed number of them, so that all frames go through the same matrix products together.
    """
    gram = dictionary.T @ dictionary
    step = np.float32(1.0 / np.linalg.eigvalsh(gram)[-1])
    target = y @ dictionary

    def iterate(_: jax.Array, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, ahead, t = state
        new = jnp.where(allowed, jnp.maximum(ahead - step * (ahead @ gram - target), 0.0), 0.0)
        upwards = jnp.sum((ahead - new) * (new - x), axis=-1, keepdims=True) > 0
        t = jnp.where(upwards, 1.0, t)
        t_new = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return new, new + jnp.where(upwards, 0.0, (t - 1) / t_new) * (new - x), t_new

    start = jnp.zeros_like(target)
    return jax.lax.fori_loop(0, iterations, iterate, (start, start, jnp.ones((len(y), 1))))[0]


def _in_blocks(function: Callable[[Floats], jax.Array], rows: Floats | Rows) -> Iterator[Floats]:
    """`function` of rows [T, …], `AT_ONCE` at a time, so that one program does for any number of them."""
    for at in range(0, len(rows), AT_ONCE):
        part = rows[at : at + AT_ONCE]
        padded = np.concatenate([part, np.zeros((AT_ONCE - len(part), *part.shape[1:]), part.dtype)])
        yield np.asarray(function(padded))[: len(part)]


# --- constants --------------------------------------------------------------------------------------------------------


def frequencies() -> npt.NDArray[np.float64]:
    """Of the F bins, in Hz: the first is a semitone below A0."""
    return 440.0 * 2.0 ** ((LOWEST - 1 + np.arange(BINS) / PER_SEMITONE - 69) / 12)


@lru_cache(maxsize=4)
def log_kernel(rate: float, grid: int = 80) -> Floats:
    """The map from magnitudes to the logarithmic axis, [S, F], as far up as it isn't 0.

    A bin of the spectrum counts as a raised cosine two bins wide, one of the axis as a raised cosine two of its own
    bins wide over its frequency; their product is summed over `grid` points a bin of the spectrum.
    """
    per_octave, spacing = 12 * PER_SEMITONE, rate / SIZE / grid
    height = _raised_cosine(
        np.arange(2 * grid) / grid - 1, 2.0
    )  # of a spectrum's bin, from the one below to that above
    kernel = np.zeros((SIZE // 2 + 1, BINS))
    for column, centre in enumerate(frequencies()):
        low, high = (math.ceil(centre * 2.0 ** (side / per_octave) / spacing) for side in (-1, 1))
        points = np.arange(low, min(high, SIZE // 2 * grid))
        hz = points * spacing
        density = _raised_cosine(per_octave * np.log2(hz / centre), 2.0) * per_octave / (np.log(2.0) * hz)
        bin_, within = np.divmod(points, grid)
        np.add.at(kernel[:, column], bin_ + 1, density * height[within])
        np.add.at(kernel[:, column], bin_, density * height[within + grid])
    kernel[0] = 0.0
    return kernel[: np.flatnonzero(kernel.any(axis=1))[-1] + 1].astype(np.float32)


@lru_cache(maxsize=1)
def note_profiles() -> Floats:
    """E [F, K]: of each note its partials h = 1 … 20, of height 0.7^(h − 1), as raised cosines three bins wide."""
    bins = np.arange(BINS)
    found = np.zeros((BINS, NOTES))
    for h in range(1, PARTIALS + 1):
        at = (np.arange(NOTES) + 1) * PER_SEMITONE + 12 * PER_SEMITONE * np.log2(h)
        found += _raised_cosine(bins[:, None] - at, float(PER_SEMITONE)) * DECAY ** (h - 1)
    return found.astype(np.float32)


@lru_cache(maxsize=1)
def surroundings() -> Floats:
    """The moving average over half an octave, as a matrix [F, F] for rows; near the ends the nearest whole one."""
    side = 3 * PER_SEMITONE
    window = np.hamming(2 * side + 1)
    found = np.zeros((BINS, BINS))
    for i in range(BINS):
        middle = min(max(i, side), BINS - 1 - side)
        found[middle - side : middle + side + 1, i] = window / window.sum()
    return found.astype(np.float32)


def _raised_cosine(x: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    return np.where(np.abs(x) <= width / 2, 0.5 + 0.5 * np.cos(2 * np.pi * x / width), 0.0)
