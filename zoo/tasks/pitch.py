"""The pitch of one voice: sound → a contour in Hz with its confidence → notes.

A pitch model's configuration says how many samples it looks at (`window`) and which `frequencies` it tells apart; its
kernel "activations" gives how much of each is in windows float32 [B, window]. The rest is here and the same for all.

It may say more: a model with `voicing` gives one number more for each frame, the probability of a voice, which is then
the confidence. `reach` is how many pitches on either side of the likeliest an average takes, by default CREPE's four.
With `mirrored`, the sound is continued backwards at its ends, else with zeros.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import audio, contour
from zoo.music.audio import AudioSource, Samples
from zoo.music.io import to_note_sequence
from zoo.music.score import Score
from zoo.show.files import write
from zoo.tasks.model import Description, Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.show.timeline import Lane

BATCH = 128  # frames of one compiled call
LIVE = 16  # the same for a stream, which can't wait for so many


@dataclass(frozen=True)
class Track:
    """The pitch of one voice over time.

    Attributes:
      times: float64 [T], seconds from the beginning, equally spaced: each is the middle of what the model looked at.
      hz: float64 [T], the pitch, also where nothing has one: see `confidence`.
      confidence: float32 [T], the activation of that pitch, 0 to 1; below about 0.5 there is hardly a voice.
      source: what it was read from.
    """

    times: npt.NDArray[np.float64]
    hz: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float32]
    source: str = ""

    def __len__(self) -> int:
        return len(self.times)

    def to_score(self, threshold: float = 0.5) -> Score:
        """The notes as a Score at 120 quarters a minute, which needs no note_seq; see `zoo.music.contour.notes`."""
        return contour.notes(self.times, self.hz, self.confidence, threshold, self.source)

    def to_notes(self, threshold: float = 0.5) -> NoteSequence:
        """The notes: where the confidence is at least `threshold`, the nearest pitches in the voice's own tuning."""
        return to_note_sequence(self.to_score(threshold))

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Lines of time, frequency and confidence under a head of these names, as CREPE has them; also into a file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("time", "frequency", "confidence"))
        for time, hz, confidence in zip(self.times, self.hz, self.confidence, strict=True):
            writer.writerow((f"{time:.3f}", f"{hz:.3f}", f"{confidence:.4f}"))
        if path is not None:
            write(path, text.getvalue().encode())
        return text.getvalue()

    def table(self) -> dict[str, list[float]]:
        """The lists `times`, `hz` and `confidence`, for JSON."""
        return {
            "times": np.round(self.times, 4).tolist(),
            "hz": np.round(self.hz, 3).tolist(),
            "confidence": np.round(self.confidence.astype(np.float64), 4).tolist(),
        }

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The same and the source as JSON, also written to `path`."""
        text = json.dumps({"source": self.source, **self.table()})
        if path is not None:
            write(path, text.encode(errors="replace"))
        return text

    def lanes(self, threshold: float = 0.5) -> list[Lane]:
        """What a time line shows: the pitch where it is sure, the notes, the confidence."""
        from zoo.show.timeline import Curve, Heat, Notes

        semitones = 69 + 12 * np.log2(np.maximum(self.hz, 1e-3) / 440.0)
        pitch = np.where(self.confidence >= threshold, semitones, np.nan)
        hop = float(self.times[1]) if len(self) > 1 else 0.01
        sure = Heat("confidence", self.confidence[:, None], hop, [""])
        return [Curve("pitch", self.times, pitch), Notes("one voice", self.to_score(threshold)), sure]

    def plot(self, path: str | os.PathLike[str], title: str = "", threshold: float = 0.5) -> Path:
        """A PNG of the pitch, the notes and the confidence. Raises InputError if `path` can't be written."""
        from zoo.show.timeline import draw

        return draw(self.lanes(threshold), float(self.times[-1]), path, title)


class Options(TypedDict, total=False):
    """What may be said of the tracking.

    Attributes:
      hop: seconds from one frame to the next; 0.01 by default.
      decoder: each frame by itself: the average around its likeliest pitch as the CREPE paper has it ("average", the
        default), or as torchcrepe has it ("weighted"), or just the likeliest ("argmax"). Or "viterbi", torchcrepe's
        likeliest path, where small steps are likelier than large ones: choose `fmin` and `fmax` close to the voice, for
        the ends of the pitches' range attract it.
      fmin, fmax: pitches outside are not considered; 50 and 2006 Hz by default.
    """

    hop: float
    decoder: str
    fmin: float
    fmax: float


class Pitch(Model):
    """A tracker of the pitch of one voice. A source is an audio file, at any rate, or a pair (samples, rate)."""

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.codec: Any
        kernel = self.architecture.kernels["activations"]
        compiled = self.jit(lambda model, inputs: kernel(model, inputs, jax.random.key(0)))
        self._compiled = lambda x: compiled({"x": x, "prepared": self.prepared})

    def track(self, source: AudioSource, **options: Unpack[Options]) -> Track:
        """The pitch of a whole source; memory grows with the track alone. Raises InputError if it can't be read."""
        return next(self.tracks([source], **options))

    def tracks(self, sources: Iterable[AudioSource], **options: Unpack[Options]) -> Iterator[Track]:
        """The tracks of many sources, in order; they share batches, so many short files are as fast as a long one."""
        readings: deque[_Reading] = deque()
        waiting: list[tuple[_Reading, Samples]] = []  # frames [n, window] for the next batch, and whose they are
        for source in sources:
            readings.append(_Reading(self, source, **options))
            for frames in readings[-1].frames():
                waiting = self._pass([*waiting, (readings[-1], frames)], least=BATCH)
            readings[-1].read = True
            while readings[0].read and all(reading is not readings[0] for reading, _ in waiting):
                yield readings.popleft().track()
                if not readings:
                    break
        self._pass(waiting, least=1)
        yield from (reading.track() for reading in readings)

    def describe(self, source: AudioSource) -> Description:
        """For `zoo.analyze`."""
        track = self.track(source)
        return Description({"pitch": track.table()}, track.lanes())

    def stream(self, chunks: Iterable[npt.NDArray[Any]], rate: int, **options: Unpack[Options]) -> Iterator[Track]:
        """The track of a stream of samples [n] or [n, channels], piece by piece; together the track of the whole.

        A frame needs sound until half a window after its time (32 ms for CREPE, and 30 more if it is resampled). With a
        decoder that looks at one frame at a time it comes with the chunk that completes it; "viterbi" waits until all
        paths agree on it, which depends on the sound: often a few tenths of a second, longer where no pitch stands out.
        """
        reading = _Reading(self, (chunks, rate), **options)
        for frames in reading.frames():
            for at in range(0, len(frames), LIVE):
                if len(piece := reading.take(self.activations(frames[at : at + LIVE], LIVE))):
                    yield piece
        yield reading.finish()

    def activations(self, frames: Samples, batch: int = BATCH) -> npt.NDArray[np.float32]:
        """How much of each pitch of `config.frequencies` is in windows [n, window]: [n, P]; `batch` a call.

        A model with `voicing` gives [n, P + 1].
        """
        parts = []
        for at in range(0, len(frames), batch):
            part = frames[at : at + batch]
            padded = np.zeros((batch, frames.shape[1]), np.float32)
            padded[: len(part)] = part
            parts.append(np.asarray(self._compiled(jnp.asarray(padded)))[: len(part)])
        return np.concatenate(parts)

    def _pass(self, waiting: list[tuple[_Reading, Samples]], least: int) -> list[tuple[_Reading, Samples]]:
        """Gives whole batches of the waiting frames to their readings, all if `least` is 1; returns the rest."""
        frames = np.concatenate([frames for _, frames in waiting]) if waiting else np.zeros((0, 1), np.float32)
        if len(frames) < least:
            return waiting
        done = len(frames) if least == 1 else len(frames) - len(frames) % least
        activations = self.activations(frames[:done])
        at, rest = 0, []
        for reading, part in waiting:
            reading.pieces.append(reading.take(activations[at : at + len(part)]))
            at += len(part)
            if at > done:
                rest.append((reading, part[len(part) - min(at - done, len(part)) :]))
        return rest


Task = Pitch


class _Reading:
    """A source on its way to a track: its frames, its decoder, and what is decided so far."""

    def __init__(
        self,
        model: Pitch,
        source: AudioSource,
        *,
        hop: float = 0.01,
        decoder: str = "average",
        fmin: float = 50.0,
        fmax: float = 2006.0,
    ) -> None:
        self.source, self.codec = source, model.codec
        self.rate, self.window = model.codec.sample_rate, model.config.window
        if not 1 / self.rate <= hop <= 60:
            raise InputError(f"hop={hop}: not between a sample at {self.rate} Hz and a minute; 0.01 s is usual")
        self.hop = round(hop * self.rate)
        self.frequencies = model.config.frequencies
        octaves = np.log2(self.frequencies)
        self.octaves = octaves[1] - octaves[0]  # from one pitch to the next
        lowest, highest = self.frequencies[[0, -1]]
        if not max(fmin, lowest) < min(fmax, highest):
            known = f"{lowest:.0f} to {highest:.0f} Hz"
            raise InputError(f"fmin={fmin:g}, fmax={fmax:g}: no pitch between them; the model knows {known}")
        ends = (np.log2([max(fmin, lowest), min(fmax, 2 * highest)]) - octaves[0]) / self.octaves
        self.first, self.last = math.floor(ends[0]), math.ceil(ends[1])  # the last is left out
        self.decoder = contour.make_decoder(decoder, getattr(model.config, "reach", contour.REACH))
        self.mirrored, self.voicing = getattr(model.config, "mirrored", False), hasattr(model.config, "voicing")
        self.voices = np.zeros(0, np.float32)  # of frames that are not decided yet, where the model gives them
        self.pieces: list[Track] = []
        self.count, self.read = 0, False

    def frames(self) -> Iterator[Samples]:
        """The windows around every frame's time, [n, window]."""
        pieces = self.codec.blocks(self.source, seconds=5.0)
        return audio.windows(pieces, self.window, self.hop, mirror=self.mirrored)

    def take(self, activations: npt.NDArray[np.float32]) -> Track:
        """Decodes the next frames [n, P]; what is new of the track."""
        if self.voicing:
            self.voices = np.concatenate([self.voices, activations[:, -1]])
            activations = activations[:, :-1]
        inside = np.full_like(activations, -np.inf)
        inside[:, self.first : self.last] = activations[:, self.first : self.last]
        return self._next(self.decoder(inside))

    def finish(self) -> Track:
        """The last of the track."""
        return self._next(self.decoder.finish())

    def track(self) -> Track:
        """The whole track, once all frames are taken."""
        pieces = [*self.pieces, self.finish()]
        times, hz, confidence = (
            np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("times", "hz", "confidence")
        )
        return Track(times, hz, confidence, pieces[0].source)

    def _next(self, decoded: contour.Decoded) -> Track:
        times = (self.count + np.arange(len(decoded.places))) * self.hop / self.rate
        hz = self.frequencies[0] * 2.0 ** (decoded.places * self.octaves)
        name = "" if isinstance(self.source, tuple) else os.fspath(self.source)
        confidence = decoded.confidence
        if self.voicing:
            confidence, self.voices = self.voices[: len(times)], self.voices[len(times) :]
        self.count += len(times)
        return Track(times, hz, confidence, name)
