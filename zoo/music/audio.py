"""Audio files → float32 samples at the rate a model wants.

read(source, rate) → samples [N]            the whole of a file, mono
blocks(source, rate) → samples [n], …       the same samples piece by piece, in constant memory
windows(blocks, width, hop) → [n, width], … windows around every hop-th sample
find(paths) → paths                         the files of sound among files and folders

A source is a path (WAV, FLAC, OGG, MP3 and whatever else libsndfile reads, at any rate, width and number of channels),
or a pair (samples, rate) with samples [N] or [N, channels], or with an iterator of such pieces: a stream. Channels are
averaged, then resampled by soxr at its high quality: what librosa does, and so what most published models were fed; or
by what another model was fed with, see `RESAMPLERS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.resampling import SincResampler

Samples: TypeAlias = npt.NDArray[np.float32]
AudioSource: TypeAlias = str | os.PathLike[str] | tuple[npt.NDArray[Any] | Iterable[npt.NDArray[Any]], int]

SUFFIXES = frozenset([".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"])
FILES = "sound in it; WAV, FLAC, OGG and MP3 are"  # for messages
_BLOCK_SECONDS = 30.0


class Resampler(Protocol):
    """What brings a sound to another rate, piece by piece."""

    def resample_chunk(self, samples: Samples, last: bool = False) -> Samples:
        """The samples that the next ones complete; all that are left with the `last`."""
        ...


def _soxr(native: int, rate: int) -> Resampler:
    import soxr

    stream: Resampler = soxr.ResampleStream(native, rate, 1, dtype="float32", quality="HQ")
    return stream


RESAMPLERS: dict[str, Callable[[int, int], Resampler]] = {"soxr": _soxr, "resampy": SincResampler}


@dataclass(frozen=True)
class AudioCodec:
    """What the card of a model of sound says of its input: mono samples at `sample_rate` (Hz), by which `resampler`."""

    sample_rate: int
    resampler: str = "soxr"

    name: ClassVar[str] = "audio"
    kind: ClassVar[str] = "audio"

    def __post_init__(self) -> None:
        if self.resampler not in RESAMPLERS:
            raise ValueError(f"resampler {self.resampler!r}: there are {', '.join(RESAMPLERS)}")

    def read(self, source: AudioSource) -> Samples:
        """The whole of a source, [N]."""
        return read(source, self.sample_rate, self.resampler)

    def blocks(self, source: AudioSource, seconds: float = _BLOCK_SECONDS) -> Iterator[Samples]:
        """The same in pieces."""
        return blocks(source, self.sample_rate, seconds, self.resampler)


def read(source: AudioSource, rate: int, resampler: str = "soxr") -> Samples:
    """The whole of a source as mono samples at `rate` (Hz): float32 [N].

    Raises:
      InputError: no such file, no audio, no samples, or samples that are not finite.
    """
    return np.concatenate(list(blocks(source, rate, resampler=resampler)))


def blocks(
    source: AudioSource, rate: int, seconds: float = _BLOCK_SECONDS, resampler: str = "soxr"
) -> Iterator[Samples]:
    """The samples of `read`, to the bit, in pieces of about `seconds`: memory does not grow with the file.

    Of a stream each piece is handed on as soon as it comes, less what the resampler's filter holds back (some 30 ms).
    """
    with _opened(source) as (name, native, pieces):
        resample = RESAMPLERS[resampler](native, rate).resample_chunk if native != rate else None
        nothing = True
        for piece in pieces(int(seconds * native)):
            mono = piece.mean(axis=1, dtype=np.float32) if piece.ndim == 2 else piece
            if not np.isfinite(mono).all():
                raise InputError(f"{name}: has samples that are not finite numbers; export it again")
            out = resample(np.ascontiguousarray(mono)) if resample else mono
            if len(out):
                yield out
                nothing = False
        empty = np.zeros(0, np.float32)
        rest = resample(empty, last=True) if resample else empty
        if len(rest):
            yield rest
        elif nothing:
            raise InputError(f"{name}: shorter than one sample at {rate} Hz; record or export it again")


class Counted:
    """The pieces of `blocks`, counted as they go by: `count` samples so far, `seconds` of them."""

    def __init__(self, source: AudioSource, rate: int, seconds: float = 10.0) -> None:
        self.count, self._source, self._rate = 0, source, rate
        self._pieces = blocks(source, rate, seconds)

    def __iter__(self) -> Iterator[Samples]:
        for piece in self._pieces:
            self.count += len(piece)
            yield piece

    @property
    def seconds(self) -> float:
        return self.count / self._rate

    def check(self, least: int, wanted: str) -> None:
        """InputError if there were less than `least` samples, too short for what is `wanted`."""
        if self.count < least:
            named = "the samples" if isinstance(self._source, tuple) else self._source
            needed = f"{least / self._rate:.3f} s"
            raise InputError(f"{named}: {self.seconds:.3f} s are too short for {wanted}; give at least {needed}")


def windows(
    pieces: Iterable[Samples], width: int, hop: int, *, margin: int | None = None, mirror: bool = False
) -> Iterator[Samples]:
    """Windows of `width` samples around the samples 0, `hop`, 2 `hop`, … of what the pieces make, zeros around it.

    N samples give 1 + N // hop windows, float32 [n, width] for each piece, as soon as they are full. With a `margin` of
    so many zeros before and after, in place of half a window, the first begins with these. With `mirror`, not zeros but
    the sound itself goes on backwards at its ends.
    """
    before, after = (width // 2, width - width // 2) if margin is None else (margin, margin)
    pieces = (_mirrored if mirror else _padded)(iter(pieces), before, after)
    held, skip = np.zeros(0, np.float32), 0  # `skip`: samples still to come before the next window begins
    for piece in pieces:
        found, held, skip = _cut(np.concatenate([held, piece]), width, hop, skip)
        if len(found):
            yield found


def _padded(pieces: Iterator[Samples], before: int, after: int) -> Iterator[Samples]:
    yield np.zeros(before, np.float32)
    yield from pieces
    yield np.zeros(after, np.float32)


def _mirrored(pieces: Iterator[Samples], before: int, after: int) -> Iterator[Samples]:
    """The pieces, after the first samples but one in reverse and before the last but one; both are not repeated."""
    head = np.zeros(0, np.float32)
    for piece in pieces:
        head = np.concatenate([head, piece])
        if len(head) > before:
            break
    if not len(head):
        return
    yield np.pad(head, (before, 0), mode="reflect")
    tail = head[-after - 1 :]
    for piece in pieces:
        yield piece
        tail = np.concatenate([tail, piece])[-after - 1 :]
    yield np.pad(tail, (0, after), mode="reflect")[len(tail) :]


def _cut(samples: Samples, width: int, hop: int, skip: int) -> tuple[Samples, Samples, int]:
    """All full windows, the samples that those after them need, and how many to skip before these."""
    samples, skip = samples[skip:], max(0, skip - len(samples))
    if len(samples) < width:
        return np.zeros((0, width), np.float32), samples, skip
    found = np.lib.stride_tricks.sliding_window_view(samples, width)[::hop]
    after = hop * len(found)
    return found, samples[after:], max(0, after - len(samples))


def duration(path: Path) -> float | None:
    """Seconds of sound in a file by its own account, as progress needs it; None where it can't be told."""
    import soundfile

    try:
        return float(soundfile.info(path).duration)
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return None


def find(
    paths: Iterable[str | os.PathLike[str]], suffixes: Collection[str] = SUFFIXES, what: str = FILES
) -> list[Path]:
    """Files as they are, and all files of sound in folders, at any depth, sorted; none that are hidden.

    So it is with files of other `suffixes`, of which messages say `what` they are.

    Raises:
      InputError: a folder without any. A file that isn't there is for its reader to report.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = [
            file
            for file in path.rglob("*")
            if file.suffix.lower() in suffixes
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not inside:
            raise InputError(f"{path}: no files of {what}")
        found += sorted(inside)
    return found


@contextmanager
def _opened(source: AudioSource) -> Iterator[tuple[str, int, Any]]:
    """A source's name, its rate, and a function from a number of frames to an iterator of pieces of that many."""
    if isinstance(source, tuple):
        given: Any = source[0]
        native = source[1]
        if not isinstance(native, int | np.integer) or native < 1:
            raise InputError(f"a sample rate of {native!r}; give a whole number of Hz")
        if not hasattr(given, "__array__"):
            yield "the stream", int(native), lambda n: (_floats(piece) for piece in given if len(piece))
            return
        samples = _floats(given)
        if not samples.size:
            raise InputError("the samples given are empty; give at least one")
        yield "the samples", int(native), lambda n: (samples[at : at + n] for at in range(0, len(samples), n))
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
            yield str(path), file.samplerate, lambda n: _pieces(file, n)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        reason = "it is empty or cut off" if reason.startswith("File does not exist") else reason  # it does
        raise InputError(f"{path}: can't be read as audio ({reason}); use WAV, FLAC, OGG or MP3") from error


def _pieces(file: Any, frames: int) -> Iterator[Samples]:
    """All that an open file gives, [n, channels]; soundfile's own `blocks` repeats old samples where one is cut off."""
    while len(piece := file.read(frames, dtype="float32", always_2d=True)):
        yield piece


def _floats(samples: npt.ArrayLike) -> Samples:
    """Samples [n] or [n, channels] as float32; whole numbers, as 16-bit files hold them, are brought to ±1."""
    given = np.asarray(samples)
    if given.ndim not in (1, 2):
        raise InputError(f"samples of shape {given.shape}; give [samples] or [samples, channels]")
    if np.issubdtype(given.dtype, np.signedinteger):
        return given.astype(np.float32) / np.float32(2.0 ** (8 * given.dtype.itemsize - 1))
    return given.astype(np.float32)
