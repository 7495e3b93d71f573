"""Audio files → float32 samples at the rate a model wants.

read(source, rate) → samples [N]            the whole of a file, mono
blocks(source, rate) → samples [n], …       the same samples piece by piece, in constant memory

A source is a path (WAV, FLAC, OGG, MP3 and whatever else libsndfile reads, at any rate, width and number of channels)
or a pair (samples, rate) with samples [N] or [N, channels]. Channels are averaged, then resampled by soxr at its high
quality: what librosa does, and so what most published models were fed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

Samples: TypeAlias = npt.NDArray[np.float32]
AudioSource: TypeAlias = str | os.PathLike[str] | tuple[npt.NDArray[Any], int]

SUFFIXES = frozenset([".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"])
_BLOCK_SECONDS = 30.0


@dataclass(frozen=True)
class AudioCodec:
    """What the card of a model of sound says of its input: mono samples at `sample_rate` (Hz)."""

    sample_rate: int

    name: ClassVar[str] = "audio"
    kind: ClassVar[str] = "audio"

    def read(self, source: AudioSource) -> Samples:
        """The whole of a source, [N]."""
        return read(source, self.sample_rate)


def read(source: AudioSource, rate: int) -> Samples:
    """The whole of a source as mono samples at `rate` (Hz): float32 [N].

    Raises:
      InputError: no such file, no audio, no samples, or samples that are not finite.
    """
    parts = list(blocks(source, rate))
    if not parts:
        name = "the samples" if isinstance(source, tuple) else os.fspath(source)
        raise InputError(f"{name}: shorter than one sample at {rate} Hz; record or export it again")
    return np.concatenate(parts)


def blocks(source: AudioSource, rate: int, seconds: float = _BLOCK_SECONDS) -> Iterator[Samples]:
    """The samples of `read`, to the bit, in pieces of about `seconds`: memory does not grow with the file."""
    import soxr

    with _opened(source) as (name, native, pieces):
        resampler = soxr.ResampleStream(native, rate, 1, dtype="float32", quality="HQ") if native != rate else None
        for piece, last in _with_last(pieces(int(seconds * native))):
            mono = piece.mean(axis=1, dtype=np.float32) if piece.ndim == 2 else piece
            if not np.isfinite(mono).all():
                raise InputError(f"{name}: has samples that are not finite numbers; export it again")
            out = resampler.resample_chunk(np.ascontiguousarray(mono), last=last) if resampler else mono
            if len(out):
                yield out


@contextmanager
def _opened(source: AudioSource) -> Iterator[tuple[str, int, Any]]:
    """A source's name, its rate, and a function from a number of frames to an iterator of pieces of that many."""
    if isinstance(source, tuple):
        samples, native = np.asarray(source[0], np.float32), int(source[1])
        if not samples.size:
            raise InputError("the samples given are empty; give at least one")
        yield "the samples", native, lambda n: (samples[at : at + n] for at in range(0, len(samples), n))
        return

    import soundfile

    path = Path(source)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        with soundfile.SoundFile(path) as file:
            if not file.frames:
                raise InputError(f"{path}: has no samples; record or export it again")
            yield str(path), file.samplerate, lambda n: file.blocks(n, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"{path}: can't be read as audio ({reason}); use WAV, FLAC, OGG or MP3") from error


def _with_last(pieces: Iterator[npt.NDArray[Any]]) -> Iterator[tuple[npt.NDArray[Any], bool]]:
    """Each piece, and whether it is the last."""
    held = next(pieces)
    for piece in pieces:
        yield held, False
        held = piece
    yield held, True
