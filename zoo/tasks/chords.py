"""Chord recognition: a recording → chords with their beginnings and ends.

A model of this task needs

- `codec.features(source)` → (frames [T, …], seconds), and `codec.sample_rate` and `codec.hop`, whose quotient is the
  time from one frame to the next;
- `config.labels`, the chords its network tells apart, and `config.stay`, how likely one lasts to the next frame;
- `module.by_pieces(jit)` → a function from frames of any length to arrays with a `chord` [T, K] that sums to 1 in each
  frame. `bass` [T, 13] turns chords into inversions; `state` [T, E] is what `embed` gives. Both may be missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.music.harte import NAMES, NO_CHORD, OTHER, ChordSpan, root, to_lab, with_bass
from zoo.show.files import write
from zoo.tasks.model import Description, Found, Model

if TYPE_CHECKING:
    from flax import nnx

    from zoo.music.audio import AudioSource
    from zoo.show.timeline import Lane

Floats = npt.NDArray[np.float32]

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Progression:
    """The chords of a recording.

    Attributes:
      chords: one after another without gaps, to the recording's end.
      seconds: its length.
      labels: the model's vocabulary, K chords.
      frame_seconds: from one frame of the arrays to the next.
      frames: the network's outputs by name, float32 [T, …]: `chord` [T, K], and what else it says.
    """

    chords: tuple[ChordSpan, ...]
    seconds: float
    labels: tuple[str, ...]
    frame_seconds: float
    frames: dict[str, Floats]

    def __iter__(self) -> Iterator[ChordSpan]:
        return iter(self.chords)

    def __len__(self) -> int:
        return len(self.chords)

    def to_lab(self, path: str | os.PathLike[str] | None = None) -> str:
        """Lines of start, end and label, also written to `path`."""
        text = to_lab(self.chords)
        if path is not None:
            write(path, text.encode())
        return text

    def table(self) -> dict[str, Any]:
        """The length and the chords as plain lists."""
        return {"seconds": self.seconds, "chords": [asdict(chord) for chord in self.chords]}

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`table` as JSON, also written to `path`."""
        text = json.dumps(self.table(), indent=1)
        if path is not None:
            write(path, text.encode())
        return text

    def lanes(self) -> list[Lane]:
        """What a timeline shows: the chords, and how strongly each pitch class sounds where the network says so."""
        from zoo.show.timeline import Heat, Spans

        spans = [(chord.start, chord.end, chord.label, root(chord.label)) for chord in self.chords]
        lanes: list[Lane] = [Spans("chords", spans)]
        if "pitch" in self.frames:
            lanes.append(Heat("pitch classes", self.frames["pitch"], self.frame_seconds, NAMES))
        return lanes

    def plot(self, path: str | os.PathLike[str], title: str = "") -> Path:
        """A PNG of the chords above the pitch classes. Raises InputError if `path` can't be written."""
        from zoo.show.timeline import draw

        return draw(self.lanes(), self.seconds, path, title)


class Chords(Model):
    """A chord recogniser. A source is a path of an audio file, or samples and their rate.

    The published network hears all of a recording before it says anything of its beginning (bidirectional, and scaled
    by the loudest moment), so a stream has to end first: latency is the recording's length. Work goes piece by piece,
    and memory grows by 0.4 GB an hour: features, states and outputs.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        network: Any = module
        self.codec: Any
        self._recognise = network.by_pieces(self.jit)

    def chords(self, source: AudioSource) -> Progression:
        """The chords of a recording.

        Raises:
          InputError: no audio, or too short for a single frame.
        """
        frames, seconds = self.codec.features(source)
        found = {name: array for name, array in self._recognise(frames)._asdict().items() if array is not None}
        spans = decode(found, seconds, self.config, self.codec.sample_rate, self.codec.hop)
        return Progression(tuple(spans), seconds, self.config.labels, self.codec.hop / self.codec.sample_rate, found)

    def describe(self, source: AudioSource) -> Description:
        """For `zoo.analyze`."""
        found = self.chords(source)
        return Description({"chords": found.table()["chords"]}, found.lanes())

    def embed(self, source: AudioSource) -> Floats:
        """What the network makes of each frame in its song, float32 [T, E]; its mean says what the song is like."""
        frames, _ = self.codec.features(source)
        state: Floats = self._recognise(frames).state
        return state


def smooth(probabilities: Floats, stay: float) -> npt.NDArray[np.int64]:
    """The likeliest sequence of chords [T] where each lasts with `stay` and all changes are alike (Viterbi).

    `probabilities` [T, K]. With one cost for all changes the best way into any chord is to stay or to come from the
    best of all, so a frame costs K comparisons instead of K².
    """
    log = np.log(probabilities + _TINY).astype(np.float64)
    frames, chords = log.shape
    last, change = np.log(stay), np.log((1 - stay) / (chords - 1))
    score, came_from = log[0], np.empty((frames, chords), np.int16)
    itself = np.arange(chords)
    for t in range(1, frames):
        best = score.argmax()
        moves = score[best] + change > score + last
        came_from[t] = np.where(moves, best, itself)
        score = np.where(moves, score[best] + change, score + last) + log[t]
    path = np.empty(frames, np.int64)
    path[-1] = score.argmax()
    for t in range(frames - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def decode(frames: dict[str, Floats], seconds: float, config: Any, rate: float, hop: int) -> list[ChordSpan]:
    """The chords of a recording of `seconds`, from what the network says of its frames.

    Confidence is the mean probability over the chord's frames and the one after them; the bass is the one of the
    highest geometric mean there. These frames are counted back from seconds as crema does, whose rounding takes one
    frame in fourteen for the one before.
    """
    path = smooth(frames["chord"], config.stay)
    changes = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    spans = []
    for first, after in pairwise(changes):
        start, end = first * hop / rate, after * hop / rate
        low, high = (int(at * rate) // hop for at in (start, start + (end - start)))
        label, around = config.labels[path[first]], slice(low, high + 1)
        if "bass" in frames and label not in (NO_CHORD, OTHER):
            with np.errstate(divide="ignore"):  # a bass that is ruled out in one frame is ruled out
                label = with_bass(label, int(np.log(frames["bass"][around]).mean(axis=0).argmax()))
        confidence = float(frames["chord"][around, path[first]].mean())
        spans.append(ChordSpan(start, seconds if after == len(path) else end, label, confidence))
    return spans


Task = Chords
