"""Sound → constant-Q magnitudes in decibels, at several harmonics: what McFee & Bello's chord recogniser hears.

The transform is librosa's `cqt` (0.10 and later; Schörkhuber & Klapuri 2010): one octave of filters at a time from the
highest down, between two octaves the signal is resampled to half its rate by soxr, so that all octaves use the same
short filters. It takes the signal piece by piece; what is kept, on disk, is one magnitude a frame, bin and harmonic,
70 MB for an hour as the defaults have it.

Shapes: `N` samples, `T` frames, `F` bins, `C` harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse

from zoo.music.audio import AudioSource, Counted, Samples
from zoo.nn.rows import Rows

Magnitudes = npt.NDArray[np.float32]
Basis: TypeAlias = "scipy.sparse.csr_array"

_HANN_BANDWIDTH = 1.50018310546875  # bins, the equivalent noise bandwidth that librosa gives for a Hann window
_SPARSITY = 0.01  # share of a filter's spectrum, in sum of magnitudes, that is taken for zero
_AMIN = 1e-5  # magnitudes below it count as this
_RANGE = 80.0  # dB below the loudest bin of the recording at which all is cut off
_AT_ONCE = 1024  # frames


class Features(NamedTuple):
    """`frames` float32 [T, F, C] in dB, none above 0, on disk; `seconds`, the recording's length."""

    frames: Rows
    seconds: float


@dataclass(frozen=True)
class HarmonicCqtCodec:
    """Constant-Q magnitudes of a recording, in dB below its loudest bin, at most 80.

    Attributes:
      sample_rate: Hz; recordings at other rates are resampled.
      hop: samples from one frame to the next.
      lowest: Hz, the first bin of harmonic 1 (C1).
      octaves, bins_per_octave: the filters of each harmonic; harmonic c begins at `c · lowest`.
      harmonics: which there are, each scaled by its own loudest bin.
    """

    sample_rate: int = 44100
    hop: int = 4096
    lowest: float = 32.70319566257483
    octaves: int = 6
    bins_per_octave: int = 36
    harmonics: tuple[int, ...] = (1, 2)

    name: ClassVar[str] = "harmonic-cqt"
    kind: ClassVar[str] = "audio"

    def __post_init__(self) -> None:
        object.__setattr__(self, "harmonics", tuple(self.harmonics))  # a card gives a list

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop / self.sample_rate

    def features(self, source: AudioSource) -> Features:
        """The frames of a whole recording: frame t is centred on its sample t · hop.

        The scale is the loudest bin of the whole, so nothing can be said of a stream before its end.

        Raises:
          InputError: no audio, or less than one hop of it.
        """
        transforms = [
            ConstantQ(self.sample_rate, self.hop, self.lowest * c, self.octaves, self.bins_per_octave)
            for c in self.harmonics
        ]
        pieces = Counted(source, self.sample_rate)
        magnitudes = [Rows((self.octaves * self.bins_per_octave,)) for _ in transforms]
        for samples in pieces:
            for transform, kept in zip(transforms, magnitudes, strict=True):
                kept.append(transform.push(samples))
        pieces.check(self.hop, "chords")
        for transform, kept in zip(transforms, magnitudes, strict=True):
            kept.append(transform.finish())
        return Features(_in_decibels(magnitudes, pieces.count // self.hop), pieces.seconds)


def _in_decibels(magnitudes: list[Rows], count: int) -> Rows:
    """The first `count` frames of all harmonics, [T, F] each, in dB below the loudest bin of each: [T, F, C]."""
    cuts = [slice(at, min(at + _AT_ONCE, count)) for at in range(0, count, _AT_ONCE)]
    loudest = [max(float(kept[cut].max()) for cut in cuts) for kept in magnitudes]
    frames = Rows((*magnitudes[0].shape[1:], len(magnitudes)))
    for cut in cuts:
        parts = [decibels(kept[cut], most) for kept, most in zip(magnitudes, loudest, strict=True)]
        frames.append(np.stack(parts, axis=-1))
    return frames


class ConstantQ:
    """librosa's `cqt`, magnitudes only, of a signal that comes in pieces."""

    def __init__(self, rate: float, hop: int, lowest: float, octaves: int, per_octave: int) -> None:
        ratio = 2.0 ** (2.0 / per_octave)
        q = (ratio + 1) / (ratio - 1)  # of every bin, the inverse of its relative bandwidth
        highest = lowest * 2.0 ** (octaves - 1 / per_octave)
        factor = _early_factor(rate, hop, octaves, highest * (1 + 0.5 * _HANN_BANDWIDTH / q))
        basis = _filters(lowest * 2.0 ** (octaves - 1) * factor / rate, per_octave, q)
        hop //= factor
        self._steps: list[tuple[_Decimator | None, _Octave]] = []
        for _ in range(octaves):
            self._steps.append((_Decimator(factor) if factor > 1 else None, _Octave(basis, hop)))
            hop, factor = hop // 2, 2
        self._waiting = [np.zeros((0, per_octave), np.float32)] * octaves  # for the slower octaves, the lower ones

    def push(self, samples: Samples) -> Magnitudes:
        """The signal's next samples, float32 [N]: the magnitudes of the frames now complete, the lowest bin first."""
        return self._push(samples, last=False)

    def finish(self) -> Magnitudes:
        """The signal has ended: the rest of its magnitudes, float32 [T, F]."""
        return self._push(np.zeros(0, np.float32), last=True)

    def _push(self, samples: Samples, last: bool) -> Magnitudes:
        for i, (decimator, octave) in enumerate(self._steps):
            samples = decimator(samples, last) if decimator else samples
            found = octave.finish(samples) if last else octave.push(samples)
            self._waiting[i] = np.concatenate([self._waiting[i], found])
        ready = min(map(len, self._waiting))
        frames = np.concatenate([found[:ready] for found in reversed(self._waiting)], axis=1)
        self._waiting = [found[ready:] for found in self._waiting]
        return frames


def _early_factor(rate: float, hop: int, octaves: int, highest: float) -> int:
    """How much lower a rate the highest octave can do with, a power of two: its own frequencies must fit twice."""
    twos = (hop & -hop).bit_length() - 1
    if twos < octaves - 1:
        raise ValueError(f"hop={hop} can't be halved {octaves - 1} times")
    room = int(np.ceil(np.log2(rate / 2 / highest))) - 2
    return 1 << max(0, min(room, twos - octaves + 1))


class _Decimator:
    """A signal at `1 / factor` of its rate, of the same energy."""

    def __init__(self, factor: int) -> None:
        import soxr

        self._factor, self._taken, self._given = factor, 0, 0
        self._stream = soxr.ResampleStream(factor, 1, 1, dtype="float32", quality="HQ")

    def __call__(self, samples: Samples, last: bool) -> Samples:
        self._taken += len(samples)
        out = self._stream.resample_chunk(samples, last=last)
        if last:  # ⌈N / factor⌉ samples in all
            left = -(-self._taken // self._factor) - self._given
            out = np.pad(out[:left], (0, max(0, left - len(out))))
        self._given += len(out)
        return out * np.float32(np.sqrt(self._factor))


class _Octave:
    """The filters of one octave: `basis` [bins, window // 2 + 1], applied to spectra of whole windows."""

    def __init__(self, basis: Basis, hop: int) -> None:
        self._basis, self._hop, self._window = basis, hop, 2 * (basis.shape[1] - 1)
        self._held = np.zeros(self._window // 2, np.float32)  # silence before the first sample, as after the last
        self._skip = 0  # samples still to come that no window has: a hop may be longer than a window

    def push(self, samples: Samples) -> Magnitudes:
        """The next samples: the frames that they complete, [T, bins]."""
        frames = np.zeros((0, self._basis.shape[0]), np.float32)
        held = np.concatenate([self._held, samples])
        held, self._skip = held[self._skip :], max(0, self._skip - len(held))
        if len(held) >= self._window:
            windows = np.lib.stride_tricks.sliding_window_view(held, self._window)[:: self._hop]
            spectra = scipy.fft.rfft(windows.astype(np.float64), axis=1).astype(np.complex64)
            frames = np.abs(self._basis @ spectra.T).T
            used = len(windows) * self._hop
            held, self._skip = held[used:], max(0, used - len(held))
        self._held = held
        return frames

    def finish(self, samples: Samples) -> Magnitudes:
        """The last samples: the frames that they complete, and those that reach past the end."""
        return self.push(np.concatenate([samples, np.zeros(self._window // 2, np.float32)]))


@cache
def _filters(lowest: float, per_octave: int, q: float) -> Basis:
    """Spectra [bins, window // 2 + 1] of an octave's filters: windowed complex waves of Q periods, in the middle.

    `lowest` is the first one's frequency in periods a sample: the same for all octaves, each at half the rate of the
    one above. A filter of L samples has the norm √L, which makes up for the lower rates.
    """
    window = int(2 ** np.ceil(np.log2(q / lowest)))
    basis = []
    for frequency in lowest * 2.0 ** (np.arange(per_octave) / per_octave):
        length = q / frequency
        n = np.arange(np.floor(-length / 2), np.floor(length / 2))
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(len(n)) / len(n))
        before = (window - len(n)) // 2
        wave = np.pad(hann * np.exp(2j * np.pi * frequency * n), (before, window - len(n) - before))
        spectrum = scipy.fft.fft(wave / hann.sum()) * (np.sqrt(length) / window)
        basis.append(_sparse(spectrum[: window // 2 + 1]))
    return scipy.sparse.csr_array(np.stack(basis).astype(np.complex64))  # one value in thirty; and no threads


def _sparse(spectrum: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """The spectrum without its least values, as many as make up `_SPARSITY` of its sum."""
    size = np.abs(spectrum)
    ascending = np.sort(size)
    least = ascending[np.argmin(np.cumsum(ascending / size.sum()) < _SPARSITY)]
    return np.where(size >= least, spectrum, 0)


def decibels(magnitudes: Magnitudes, loudest: float) -> Magnitudes:
    """Magnitudes in dB below the `loudest` of a recording, no lower than −80; a silent recording is −80 throughout.

    There librosa gives 0, from which the network hears chords.
    """
    least = np.float32(_AMIN**2)
    power, most = np.maximum(np.square(magnitudes), least), np.square(np.float32(loudest))
    most = most if most > least else np.float32(1)
    return np.maximum(10 * np.log10(power) - 10 * np.log10(most), -_RANGE, dtype=np.float32)
