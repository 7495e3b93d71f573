"""Chord recognition: a recording, or notes, → chords with their beginnings and ends.

A model of this task needs

- `codec.features(source)` → (frames [T, …], seconds), and `codec.sample_rate` and `codec.hop`, whose quotient is the
  time from one frame to the next;
- `config.labels`, the chords its network tells apart, and `config.stay`, how likely one lasts to the next frame;
- `config.pool` where the network's frames are longer than the codec's, by so many times;
- `module.by_pieces(jit)` → a function from frames of any length to `Rows` with a `chord` [T, K] that sums to 1 in each
  frame. `bass` [T, 13] turns chords into inversions; `state` [T, E] is what `embed` gives. Both may be missing.

To learn from songs it also needs `config.features_of(codec's frames)` and `config.steps`, see `examples`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from zoo.data import Song, read_songs
from zoo.errors import InputError
from zoo.music import chord_metrics
from zoo.music.harte import NAMES, NO_CHORD, OTHER, ChordSpan, root, simplified, to_lab, with_bass
from zoo.nn.rows import Rows
from zoo.tasks.model import Description, Found, Model
from zoo.tasks.spans import Spans

if TYPE_CHECKING:
    from flax import nnx

    from zoo.music.audio import AudioSource
    from zoo.show.attention import Attention
    from zoo.show.timeline import Lane

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

AT_ONCE = 1024  # frames
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Progression(Spans):
    """The chords of a recording.

    Attributes:
      chords: one after another without gaps, to the recording's end.
      seconds: its length.
      labels: the model's vocabulary, K chords.
      frame_seconds: from one frame of the arrays to the next.
      frames: the network's outputs by name, float32 [T, …]: `chord` [T, K], and what else it says. They stay on disk.
    """

    of: ClassVar[str] = "chords"
    chords: tuple[ChordSpan, ...]
    seconds: float
    labels: tuple[str, ...]
    frame_seconds: float
    frames: dict[str, Floats]

    def __iter__(self) -> Iterator[ChordSpan]:
        return iter(self.chords)

    def __len__(self) -> int:
        return len(self.chords)

    def lab(self) -> str:
        """Lines of start, end and label."""
        return to_lab(self.chords)

    def table(self) -> dict[str, Any]:
        """The length and the chords as plain lists."""
        return {"seconds": self.seconds, "chords": [asdict(chord) for chord in self.chords]}

    def lanes(self) -> list[Lane]:
        """What a timeline shows: the chords, and how strongly each pitch class sounds where the network says so."""
        from zoo.show import timeline

        spans = [(chord.start, chord.end, chord.label, root(chord.label)) for chord in self.chords]
        lanes: list[Lane] = [timeline.Spans("chords", spans)]
        if "pitch" in self.frames:
            lanes.append(timeline.Heat("pitch classes", self.frames["pitch"], self.frame_seconds, NAMES))
        return lanes


class Chords(Model):
    """A chord recogniser. A source is a path of an audio file, or samples and their rate; for a model of notes, a path
    of a file of notes or a `Score`.

    The networks hear all of a recording before they say anything of its beginning (they read it both ways, and what
    they read is scaled or tuned by all of it), so a stream has to end first: latency is the recording's length. Work
    goes piece by piece, and features, states and outputs wait on disk: an hour takes 12 MB of memory more than ten
    minutes (`benchmarks/memory.csv`).
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        network: Any = module
        self.codec: Any
        self._recognise = network.by_pieces(self.jit)
        self._attend = self.jit(type(network).attend) if hasattr(network, "attend") else None
        self.hop = self.codec.hop * getattr(self.config, "pool", 1)  # samples, of the network's frames

    def chords(self, source: AudioSource) -> Progression:
        """The chords of a recording.

        Raises:
          InputError: no audio or notes, or too short for a single frame.
        """
        return self.decode(*self.codec.features(source))

    def decode(self, frames: Floats | Rows, seconds: float) -> Progression:
        """The chords of what the codec makes of a recording of `seconds`."""
        found = {name: array for name, array in self._recognise(frames)._asdict().items() if array is not None}
        spans = decode(found, seconds, self.config, self.codec.sample_rate, self.hop)
        arrays = {name: np.asarray(rows) for name, rows in found.items()}
        return Progression(tuple(spans), seconds, self.config.labels, self.hop / self.codec.sample_rate, arrays)

    def describe(self, source: AudioSource) -> Description:
        """For `zoo.analyze`."""
        found = self.chords(source)
        return Description({"chords": found.table()["chords"]}, found.lanes())

    def embed(self, source: AudioSource) -> Floats:
        """What the network makes of each frame in its song, float32 [T, E]; its mean says what the song is like."""
        frames, _ = self.codec.features(source)
        return np.asarray(self._recognise(frames).state)

    def attention(self, source: AudioSource, start: float | None = None) -> Attention:
        """Which frames each frame looks at, in the window that begins at `start` seconds, by default in the middle.

        Of each layer the first half of the heads look back, the others ahead.

        Raises:
          InputError: the model has no attention, or as `chords`.
        """
        from zoo.show.attention import Attention

        if self._attend is None:
            raise InputError(f"{self.name}: has no attention to look at")
        frames = self.config.features_of(self.codec.features(source).frames)
        last = max(0, len(frames) - self.config.steps)
        first = last // 2 if start is None else min(max(0, int(start * self.codec.sample_rate / self.hop)), last)
        window = frames[first : first + self.config.steps]
        weights = np.asarray(self._attend(window[None]))[0]
        times = (first + np.arange(len(window))) * self.hop / self.codec.sample_rate
        return Attention(weights, times, times)


def smooth(probabilities: Floats | Rows, stay: float) -> npt.NDArray[np.int64]:
    """The likeliest sequence of chords [T] where each lasts with `stay` and all changes are alike (Viterbi).

    `probabilities` [T, K]. With one cost for all changes the best way into any chord is to stay or to come from the
    best of all, so a frame costs K comparisons instead of K².
    """
    frames, chords = probabilities.shape
    last, change = np.log(stay), np.log((1 - stay) / (chords - 1))
    score = np.full(chords, 0.0)
    moved, best = np.zeros((frames, chords), bool), np.zeros(frames, np.intp)  # from where each chord was come to
    for t, log in enumerate(_logarithms(probabilities)):
        if t:
            best[t] = score.argmax()
            moved[t] = score[best[t]] + change > score + last
            score = np.where(moved[t], score[best[t]] + change, score + last)
        score = score + log
    path = np.empty(frames, np.int64)
    path[-1] = score.argmax()
    for t in range(frames - 1, 0, -1):
        path[t - 1] = best[t] if moved[t, path[t]] else path[t]
    return path


def _logarithms(probabilities: Floats | Rows) -> Iterator[npt.NDArray[np.float64]]:
    """Of each frame, [K]."""
    for at in range(0, len(probabilities), AT_ONCE):
        yield from np.log(probabilities[at : at + AT_ONCE] + _TINY).astype(np.float64)


def decode(frames: Mapping[str, Floats | Rows], seconds: float, config: Any, rate: float, hop: int) -> list[ChordSpan]:
    """The chords of a recording of `seconds`, from what the network says of its frames, arrays or `Rows`.

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
        confidence = float(frames["chord"][around][:, path[first]].mean())
        spans.append(ChordSpan(start, seconds if after == len(path) else end, label, confidence))
    return spans


def examples(song: Song, config: Any) -> dict[str, Array]:
    """Windows of a song for training, one every half window: "x" [W, T, F], and chords "y" int32 [W, T].

    Chords are simplified to the vocabulary; −1 stands beyond the song's end. Raises InputError if it has no chords.
    """
    if not song.chords:
        raise InputError(f"{song.name}: has no chords")
    x = config.features_of(song.frames)
    y = frame_chords(song.chords["full"], len(x), song.frame_seconds * config.pool, config.labels)
    hop = config.steps // 2
    begins = np.arange(0, max(1, len(x) - hop), hop)
    missing = begins[-1] + config.steps - len(x)
    x, y = np.pad(x, ((0, missing), (0, 0))), np.pad(y, (0, missing), constant_values=-1)
    at = begins[:, None] + np.arange(config.steps)
    return {"x": x[at], "y": y[at]}


def frame_chords(
    chords: Sequence[ChordSpan], count: int, frame_seconds: float, labels: Sequence[str]
) -> npt.NDArray[np.int32]:
    """The number in `labels` of the chord in the middle of each of `count` frames, int32 [count]; "N" where none is."""
    number = {label: i for i, label in enumerate(labels)}
    names = [simplified(chord.label) for chord in chords]
    numbers = np.array([number.get(name, number[OTHER]) for name in names] + [number[NO_CHORD]], np.int32)
    starts, ends = (np.array([getattr(chord, name) for chord in chords]) for name in ("start", "end"))
    middles = (np.arange(count) + 0.5) * frame_seconds
    at = np.searchsorted(starts, middles, side="right") - 1
    found: npt.NDArray[np.int32] = numbers[np.where((at >= 0) & (middles < ends[at]), at, -1)]
    return found


def evaluate(
    model: Chords, data: str | os.PathLike[str], limit: int | None = None, split: str = "test"
) -> dict[str, float]:
    """Weighted chord symbol recall over all songs of a split together; see `zoo.music.chord_metrics`.

    Args:
      data: a folder of songs with chords, see `zoo.data.songs`.
      limit: at most so many songs.

    Raises:
      InputError: no such folder, or no song with chords in it.
    """
    songs = read_songs(Path(data), model.codec, split, limit)
    scores = [
        chord_metrics.compare(song.chords["full"], list(model.decode(song.frames, song.seconds)))
        for song in songs
        if song.chords
    ]
    if not scores:
        raise InputError(f"{data}: no song with chords falls into {split}; add some")
    return chord_metrics.recall(scores) | {"songs": len(scores)}


Task = Chords
