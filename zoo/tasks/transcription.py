"""Transcription: sound of any number of notes at once → notes, with their pitch bends.

The architecture's configuration says how long a window is (`samples`, `hop`, `steps` and `overlap`), which pitches
there are (`lowest`, `pitches`, `bins_per_semitone`) and at what `times` the frames lie; its kernel "posteriorgrams"
gives `note`, `onset` and `contour` for windows [B, samples]. The rest is here and the same for all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from zoo.data.archives import is_archive, unpack
from zoo.errors import InputError
from zoo.music import audio, note_metrics, posteriorgram
from zoo.music.audio import AudioSource, Samples
from zoo.music.io import to_note_sequence
from zoo.music.score import Score
from zoo.nn.chunks import in_chunks
from zoo.nn.rows import on_disk
from zoo.show.layout import pitch_name
from zoo.show.timeline import Heat, Lane, Notes
from zoo.tasks.model import Description, Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

BATCH = 16  # windows of one compiled call
CHUNK = 4  # of which so many at a time, on a CPU
PROGRAM = 4  # General MIDI's first electric piano


class Posteriorgrams(NamedTuple):
    """Probabilities for each frame: `note` and `onset` float32 [T, P], `contour` float32 [T, P · bins a semitone]."""

    note: npt.NDArray[np.float32]
    onset: npt.NDArray[np.float32]
    contour: npt.NDArray[np.float32]


class Options(TypedDict, total=False):
    """What may be said of how posteriorgrams become notes; the defaults are Basic Pitch's.

    Attributes:
      onset_threshold: probability from which on an onset counts, 0.5 by default; lower gives more notes.
      frame_threshold: probability above which a note lasts, 0.3 by default; lower gives longer notes.
      shortest: seconds that a note lasts at the least, 0.1277 by default.
      fmin, fmax: Hz; pitches outside are left out.
      infer_onsets: notes also begin where their probability rises suddenly; True by default.
      melodia: notes are also found without an onset; True by default.
      bends: find pitch bends; True by default.
      separate: every pitch is a part of its own, so that notes which overlap keep their bends; False by default.
      qpm: the tempo of the grid that the notes are written on, 120 by default; it changes no time in seconds.
    """

    onset_threshold: float
    frame_threshold: float
    shortest: float
    fmin: float
    fmax: float
    infer_onsets: bool
    melodia: bool
    bends: bool
    separate: bool
    qpm: float


class Transcription(Model):
    """A transcriber of polyphonic sound. A source is an audio file, at any rate, or a pair (samples, rate)."""

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        kernel = self.architecture.kernels["posteriorgrams"]

        def program(model: nnx.Module, x: jax.Array, count: jax.Array, prepared: Any) -> Any:
            return in_chunks(
                lambda x: kernel(model, {"audio": x, "prepared": prepared}, jax.random.key(0)), x, count, CHUNK
            )

        compiled = self.jit(program)
        self._posteriors = lambda x, count: compiled(jnp.asarray(x), np.int32(count), self.prepared)

    def transcribe(self, source: AudioSource, **options: Unpack[Options]) -> NoteSequence:
        """The notes of a whole source. Raises InputError if it can't be read, or for an option that makes no sense."""
        return to_note_sequence(self.score(source, **options))

    def score(self, source: AudioSource, **options: Unpack[Options]) -> Score:
        """As `transcribe`, as a Score, which needs no note_seq."""
        check_options(**options)
        name = "" if isinstance(source, tuple) else os.fspath(source)
        return self.decode(self.hear(source), source=name, **options)

    def posteriorgrams(self, source: AudioSource) -> Posteriorgrams:
        """The network's output for a whole source: overlapping windows, joined where both are far from their ends.

        The arrays stay on disk, half a gigabyte for an hour.
        """
        return Posteriorgrams(*map(np.asarray, self.hear(source)))

    def hear(self, source: AudioSource) -> Posteriorgrams:
        """The same as `Rows`, which `decode` takes as well and reads piece by piece."""
        return on_disk(self.stream(source))

    def stream(self, source: AudioSource) -> Iterator[Posteriorgrams]:
        """The same piece by piece, as the source is read; memory does not grow with its length.

        Its latency is that of a window: frames come once the window that holds them is full, two seconds in
        Basic Pitch. To be read live, the source is a pair (iterator of samples, rate).

        Basic Pitch's package joins its windows alike, but then keeps 86 frames for each second, where there are 86.6:
        it loses the end, 24 s of an hour. Here all frames are kept.
        """
        live = isinstance(source, tuple) and not hasattr(source[0], "__array__")
        windows = self._windows(source)
        while batch := list(islice(windows, 1 if live else BATCH)):
            yield self._frames(batch)

    def decode(
        self,
        found: Posteriorgrams,
        *,
        onset_threshold: float = 0.5,
        frame_threshold: float = 0.3,
        shortest: float = 0.1277,
        fmin: float = 0.0,
        fmax: float = math.inf,
        infer_onsets: bool = True,
        melodia: bool = True,
        bends: bool = True,
        separate: bool = False,
        qpm: float = 120.0,
        source: str = "",
    ) -> Score:
        """Posteriorgrams → notes; see `Options`. `source` is what messages call them.

        Memory grows by some 40 MB an hour (`benchmarks/memory.csv`).
        """
        check_options(onset_threshold, frame_threshold, shortest, fmin, fmax, qpm)
        config = self.config
        pitches = config.lowest + np.arange(config.pitches)
        low, high = (round(69 + 12 * math.log2(hz / 440)) if 0 < hz < math.inf else hz for hz in (fmin, fmax))
        within = ((pitches >= low) & (pitches < high)).astype(np.float32)
        notes = posteriorgram.find_notes(
            found.note,
            found.onset,
            onset_threshold=onset_threshold,
            frame_threshold=frame_threshold,
            shortest=round(shortest * config.sample_rate / config.hop),
            infer_onsets=infer_onsets,
            melodia=melodia,
            within=within,
        )
        return posteriorgram.to_score(
            notes,
            posteriorgram.find_bends(found.contour, notes, config.bins_per_semitone) if bends else None,
            config.times(len(found.note)),
            lowest=config.lowest,
            per_semitone=config.bins_per_semitone,
            separate=separate,
            program=PROGRAM,
            qpm=qpm,
            source=source,
        )

    def describe(self, source: AudioSource) -> Description:
        """For `zoo.analyze`."""
        score = self.score(source)
        return Description({"notes": self.table(score)}, self.lanes(score))

    def table(self, score: Score) -> list[dict[str, float]]:
        """The notes as rows for JSON: start and end in seconds, MIDI pitch, velocity."""
        start, end = score.seconds_at(score.start).round(4).tolist(), score.seconds_at(score.end).round(4).tolist()
        rows = zip(start, end, score.pitch.tolist(), score.velocity.tolist(), strict=True)
        return [dict(zip(("start", "end", "pitch", "velocity"), row, strict=True)) for row in rows]

    def lanes(self, score: Score, heard: Posteriorgrams | None = None) -> list[Lane]:
        """The notes to be drawn on a time line, and below them what the network heard, if it is given."""
        if heard is None:
            return [Notes("notes", score)]
        config = self.config
        pitches = config.lowest + np.arange(config.pitches)
        names = [pitch_name(pitch) if pitch % 12 == 0 else "" for pitch in pitches.tolist()]
        bins = [name * (i == 0) for name in names for i in range(config.bins_per_semitone)]
        every = self.seconds(heard) / max(1, len(heard.note))
        rows = zip(Posteriorgrams._fields, heard, (names, names, bins), strict=True)
        return [Notes("notes", score), *(Heat(name, values, every, named) for name, values, named in rows)]

    def seconds(self, heard: Posteriorgrams) -> float:
        """How long the recording is, to a frame."""
        return float(self.config.times(len(heard.note) + 1)[-1])

    def _windows(self, source: AudioSource) -> Iterator[tuple[Samples, int]]:
        """Windows of a source, [samples], zeros before its beginning and after its end, and how many frames to keep.

        Of each the `overlap` is cut off, half at either end; the rest of one begins where that of the one before ends.
        """
        config = self.config
        before = config.overlap // 2 * config.hop
        most = config.steps - config.overlap // 2 * 2
        advance = config.samples - 2 * before
        held = np.zeros(before, np.float32)
        for block in audio.blocks(source, config.sample_rate):
            held = np.concatenate([held, block])
            while len(held) >= config.samples:
                yield held[: config.samples], most
                held = held[advance:]
        while len(held) > before:
            padded = np.zeros(config.samples, np.float32)
            padded[: len(held)] = held[: config.samples]
            yield padded, min(most, -(-(len(held) - before) // config.hop))
            held = held[advance:]

    def _frames(self, batch: Sequence[tuple[Samples, int]]) -> Posteriorgrams:
        """The frames that are kept of some windows."""
        x = np.zeros((BATCH, self.config.samples), np.float32)
        for row, (window, _) in zip(x, batch, strict=False):
            row[:] = window
        trim = self.config.overlap // 2
        found = self._posteriors(x, len(batch))

        def joined(name: str) -> npt.NDArray[np.float32]:
            part = np.asarray(getattr(found, name))
            return np.concatenate([part[i, trim : trim + kept] for i, (_, kept) in enumerate(batch)])

        return Posteriorgrams(*map(joined, Posteriorgrams._fields))


Task = Transcription


def check_options(
    onset_threshold: float = 0.5,
    frame_threshold: float = 0.3,
    shortest: float = 0.0,
    fmin: float = 0.0,
    fmax: float = math.inf,
    qpm: float = 120.0,
    **_: Any,
) -> None:
    """InputError for `Options` that make no sense, before any work is done."""
    for name, value in (("onset_threshold", onset_threshold), ("frame_threshold", frame_threshold)):
        if not 0 < value <= 1:
            raise InputError(f"{name}={value:g}: is a probability, above 0 and at most 1")
    if not (shortest >= 0 and qpm > 0 and fmin < fmax):
        raise InputError("shortest is seconds, qpm above 0, and fmin below fmax; correct what is not so")


def evaluate(model: Transcription, data: str | os.PathLike[str], limit: int | None = None) -> dict[str, float]:
    """How near a model's notes are to those played, averaged over recordings; see `zoo.music.note_metrics.compare`.

    Args:
      data: a folder or an archive of recordings, each with its notes beside it under the same name, as .tsv or MIDI.
      limit: at most so many recordings, the first by name.

    Raises:
      InputError: no such folder, no recording with notes, or one that can't be read.
    """
    folder = Path(data)
    if is_archive(folder):
        folder = unpack(folder, audio.SUFFIXES | set(note_metrics.REFERENCES))
    if not folder.is_dir():
        raise InputError(f"{data}: no such folder; pass a folder of recordings with their notes beside them")
    found = ((path, note_metrics.reference(path)) for path in audio.find([folder]))
    pairs = list(islice(((path, played) for path, played in found if played is not None), limit))
    if not pairs:
        endings = " or ".join(note_metrics.REFERENCES)
        raise InputError(f"{data}: no recording has its notes beside it; they are files of the same name in {endings}")
    bar = tqdm(pairs, desc="transcribing", unit="recording", delay=2, disable=None)
    measured = [note_metrics.compare(played, model.score(path)) for path, played in bar]
    return {name: float(np.mean([one[name] for one in measured])) for name in measured[0]} | {"recordings": len(pairs)}
