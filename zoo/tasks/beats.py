"""Beats: a recording → when its beats are, which of them begin bars, and its tempo.

A model of this task needs

- `codec.features(source)` → (frames [T, F], seconds), and `codec.sample_rate` and `codec.hop`;
- a kernel "activations": "x" [B, T, F] → probabilities of a beat and of a bar's beginning, [B, T, 2];
- `config.reach`, frames on either side of one that the network hears; `config.slowest`, `fastest`, `meters`, `steady`
  and `quiet`, by which beats are made of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
import numpy.typing as npt

from zoo.data import Song, read_songs
from zoo.errors import InputError
from zoo.music import beat_metrics, beats
from zoo.music.beats import Beat
from zoo.nn import bar_pointer
from zoo.tasks.model import Description, Found, Model
from zoo.tasks.spans import Spans

if TYPE_CHECKING:
    from flax import nnx

    from zoo.music.audio import AudioSource
    from zoo.show.timeline import Lane

Floats = npt.NDArray[np.float32]

PIECE = 3000  # frames that the network gives at once, a minute


@dataclass(frozen=True)
class Rhythm(Spans):
    """The beats of a recording.

    Attributes:
      beats: in order; none of silence.
      seconds: the recording's length.
      meter: beats of a bar.
      frame_seconds: from one row of `activations` to the next.
      activations: float32 [T, 2], how likely a beat, and the beginning of a bar, falls on each frame.
    """

    of: ClassVar[str] = "beats"
    beats: tuple[Beat, ...]
    seconds: float
    meter: int
    frame_seconds: float
    activations: Floats

    def __iter__(self) -> Iterator[Beat]:
        return iter(self.beats)

    def __len__(self) -> int:
        return len(self.beats)

    @property
    def bars(self) -> list[float]:
        """When bars begin, in seconds."""
        return [beat.time for beat in self.beats if beat.place == 1]

    @property
    def tempo(self) -> float | None:
        """Beats a minute, by the median; None where there are fewer than two."""
        times = [beat.time for beat in self.beats]
        return float(60 / np.median(np.diff(times))) if len(times) > 1 else None

    def lab(self) -> str:
        """Lines of a time and a place in the bar, as data sets have them in `.beats` files."""
        return beats.to_text(self.beats)

    def table(self) -> dict[str, Any]:
        """The length, the tempo, the metre, when bars begin, and the beats as plain lists."""
        rows = [[round(beat.time, 4), beat.place, round(beat.confidence, 4)] for beat in self.beats]
        tempo = None if self.tempo is None else round(self.tempo, 2)
        bars = {"starts": [round(bar, 4) for bar in self.bars], "beats": self.meter}
        return {"seconds": round(self.seconds, 4), "tempo": tempo, "bars": bars, "beats": rows}

    def lanes(self) -> list[Lane]:
        """What a timeline shows: numbered bars, and how likely beats are."""
        from zoo.show import timeline

        return [
            timeline.Spans.numbered("bars", self.bars, self.seconds),
            timeline.Heat("beats", self.activations, self.frame_seconds, ("beat", "bar")),
        ]


class BeatTracker(Model):
    """A model that finds beats. A source is a path of sound, or samples and their rate.

    It needs the whole recording before it says where bars begin; the network goes over it minute by minute.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.codec: Any
        self._activations = self.jit(found.architecture.kernels["activations"])

    def beats(self, source: AudioSource) -> Rhythm:
        """The beats of a recording.

        Raises:
          InputError: no audio, or shorter than a frame.
        """
        return self.of_frames(*self.codec.features(source))

    def of_frames(self, frames: Floats, seconds: float) -> Rhythm:
        """The beats of what the codec makes of a recording of `seconds`."""
        heard = self.hear(frames)
        frame = self.codec.hop / self.codec.sample_rate
        meter, found = decode(heard, self.config, frame)
        return Rhythm(tuple(beat for beat in found if beat.time < seconds), seconds, meter, frame, heard)

    def describe(self, source: AudioSource) -> Description:
        """For `zoo.analyze`."""
        found = self.beats(source)
        table = found.table()
        return Description({key: table[key] for key in ("tempo", "bars", "beats")}, found.lanes())

    def hear(self, frames: Floats) -> Floats:
        """What the network says of each frame, [T, F] → float32 [T, 2]: as of the whole, but a minute at a time."""
        reach = self.config.reach
        padded = np.pad(frames, ((reach, reach + -len(frames) % PIECE), (0, 0)))
        found = []
        for at in range(0, len(frames), PIECE):
            x = padded[at : at + PIECE + 2 * reach]
            y = self._activations({"x": x[None]}, jax.random.key(0))
            found.append(np.asarray(y)[0, reach : reach + PIECE])
        return np.concatenate(found)[: len(frames)]


Task = BeatTracker


def decode(heard: Floats, config: Any, frame_seconds: float) -> tuple[int, list[Beat]]:
    """(beats of a bar, beats) of a recording, from the network's probabilities [T, 2].

    The likeliest path through the bars of `config.meters`, of the likeliest of these; a beat that falls where the
    network hears nothing, before the first or after the last that it hears, is none.
    """
    shortest, longest = (max(2, round(60 / tempo / frame_seconds)) for tempo in (config.fastest, config.slowest))
    loud = np.flatnonzero(heard[:, 0] >= config.quiet)
    if not len(loud):
        return config.meters[-1], []
    paths = {m: bar_pointer.track(heard[:, 0], heard[:, 1], m, shortest, longest, config.steady) for m in config.meters}
    meter = max(paths, key=lambda m: paths[m].likelihood)
    path = paths[meter]
    within = (path.frames >= loud[0] - 1) & (path.frames <= loud[-1] + 1)
    rows = zip(path.frames[within].tolist(), path.places[within].tolist(), strict=True)
    sure = [float(heard[max(0, at - 1) : at + 3, 0].max()) for at in path.frames[within]]
    return meter, [Beat(at * frame_seconds, place + 1, p) for (at, place), p in zip(rows, sure, strict=True)]


def examples(song: Song, config: Any) -> dict[str, npt.NDArray[Any]]:
    """Windows of a song for training, one after another: "x" float16 [W, T, F], "beat", "downbeat", "mask" [W, T].

    Raises InputError if nobody said where its beats are.
    """
    if not song.beats:
        raise InputError(f"{song.name}: no beats beside it; put lines of a time and a place in the bar there")
    windows = max(1, round(len(song.frames) / config.steps))  # less than half a window at the end is left out
    x = np.asarray(song.frames)[: windows * config.steps]
    missing = windows * config.steps - len(x)
    truth = np.zeros((2, len(x) + missing), np.float16)
    for beat in song.beats:
        at = round(beat.time / song.frame_seconds)
        if at < len(x):
            truth[: 2 if beat.place == 1 else 1, at] = 1
    shape = (-1, config.steps)
    return {
        "x": np.pad(x, ((0, missing), (0, 0))).astype(np.float16).reshape(*shape, x.shape[-1]),
        "beat": truth[0].reshape(shape),
        "downbeat": truth[1].reshape(shape),
        "mask": (np.arange(len(x) + missing) < len(x)).reshape(shape),
    }


def evaluate(model: BeatTracker, data: str | os.PathLike[str], limit: int | None = None) -> dict[str, float]:
    """How near a model's beats are to the annotated ones, averaged over the recordings of the test split.

    See `zoo.music.beat_metrics.compare` for the measures.

    Args:
      data: a folder of sound with `.beats`, or of notes, which are played; see `zoo.data.songs`.
      limit: at most so many.

    Raises:
      InputError: no such folder, or nothing with beats in the test split.
    """
    songs = (song for song in read_songs(Path(data), model.codec, "test", limit) if beat_metrics.measurable(song.beats))
    measured = [
        beat_metrics.compare(song.beats, model.of_frames(np.asarray(song.frames), song.seconds).beats) for song in songs
    ]
    if not measured:
        raise InputError(f"{data}: nothing of it with beats after 5 s falls into test; add songs")
    means = {name: float(np.mean([one[name] for one in measured])) for name in measured[0]}
    return means | {"songs": len(measured)}
