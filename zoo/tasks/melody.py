"""Melody: which notes of a piece of any number of tracks, or of none, are its melody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from zoo.errors import InputError
from zoo.music import io
from zoo.music.melody_notes import LABEL, PAST, Sequence, skyline
from zoo.music.score import Bools, Score
from zoo.tasks.model import Description, Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.show.attention import Attention
    from zoo.show.timeline import Lane

    Source: TypeAlias = str | os.PathLike[str] | NoteSequence | Score

Floats: TypeAlias = npt.NDArray[np.float64]
Table: TypeAlias = list[dict[str, float | int]]

ROWS = 8  # windows at once
AS_LIKELY_AS_NOT = 0.5


@dataclass(frozen=True)
class Melody:
    """A piece taken apart.

    Attributes:
      score: the piece.
      chosen: bool [N], which of its notes are the melody.
      probability: float64 [N], how likely each is; of notes of one onset and pitch only the longest is asked about, and
        the others have 0, as drums do.
    """

    score: Score
    chosen: Bools
    probability: Floats

    @property
    def melody(self) -> Score:
        """Its notes alone."""
        return self.score.select(self.chosen)

    @property
    def accompaniment(self) -> Score:
        """All other notes."""
        return self.score.select(~self.chosen)

    def table(self) -> Table:
        """The melody for JSON: start and end in seconds, pitch, velocity, and how sure it is."""
        notes, sure = self.melody, self.probability[self.chosen]
        columns = (notes.seconds_at(notes.start), notes.seconds_at(notes.end), notes.pitch, notes.velocity, sure)
        return [
            {"start": round(float(a), 4), "end": round(float(b), 4), "pitch": int(p), "velocity": int(v),
             "probability": round(float(s), 4)}
            for a, b, p, v, s in zip(*columns, strict=True)
        ]  # fmt: skip

    def lanes(self) -> list[Lane]:
        """All notes, the melody standing out."""
        from zoo.show.timeline import Notes

        return [Notes("melody", self.score, self.chosen)]

    def plot(self, path: str | os.PathLike[str], title: str = "") -> Path:
        """A PNG of all notes, the melody standing out. Raises InputError if `path` can't be written."""
        from zoo.show.timeline import draw

        return draw(self.lanes(), float(self.score.seconds_at(self.score.quarters)), path, title)


class MelodyFinder(Model):
    """A model that tells melody from accompaniment. A source is a path, a NoteSequence or a Score."""

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.codec: Any
        kernels = self.architecture.kernels
        self._probabilities = self.jit(lambda model, x: kernels["probabilities"](model, {"x": x}, jax.random.key(0)))
        self._attention = self.jit(lambda model, x: kernels["attention"](model, {"x": x}, jax.random.key(0)))

    def melody(self, source: Source, threshold: float = AS_LIKELY_AS_NOT) -> Score:
        """The notes of the melody. As `find`."""
        return self.find(source, threshold).melody

    def find(self, source: Source, threshold: float = AS_LIKELY_AS_NOT) -> Melody:
        """Which notes are the melody: those likelier than `threshold`, of one onset the likeliest alone.

        Raises:
          InputError: no such file, none of notes, or no pitched note in it.
        """
        score = io.read(source)
        sequence = self.codec.sequence(score)
        found = self.probabilities(sequence)
        chosen, probability = np.zeros(len(score), np.bool_), np.zeros(len(score))
        chosen[sequence.which] = decide(sequence, found, threshold)
        probability[sequence.which] = found
        return Melody(score, chosen, probability)

    def probabilities(self, sequence: Sequence) -> Floats:
        """How likely each note of a sequence is the melody's, float64 [N]."""
        windows = self.codec.cut(unlabelled(sequence.notes))
        rows = len(windows)
        padded = np.concatenate([windows, np.repeat(windows[:1], -rows % ROWS, axis=0)])
        parts = [np.asarray(self._probabilities(jnp.asarray(padded[i : i + ROWS]))) for i in range(0, rows, ROWS)]
        found: Floats = self.codec.joined(np.concatenate(parts)[:rows], len(sequence.notes))
        return found

    def measure(self, pieces: Iterable[Score]) -> dict[str, float]:
        """How well the melody is told from the rest, over all notes of all pieces that have a track so named.

        `f1`, `precision`, `recall` and `accuracy`, beside the skyline's: the highest of the notes that begin together.
        `skyline_held_`: only where no note that began before still sounds above. Empty if there is no such piece.
        """
        counts: dict[str, Floats] = {}
        for score in tqdm(pieces, "telling melodies", unit=" pieces", delay=2, disable=None, file=sys.stderr):
            sequence = self.codec.sequence(score)
            true = sequence.notes[:, LABEL]
            if (true == PAST).any():
                continue
            verdicts = {
                "": decide(sequence, self.probabilities(sequence)),
                "skyline_": skyline(sequence),
                "skyline_held_": skyline(sequence, held=True),
            }
            for name, found in verdicts.items():
                judged = [np.sum(found & (true == 1)), found.sum(), true.sum(), np.sum(found == true), len(true)]
                counts[name] = counts.get(name, np.zeros(len(judged))) + judged
        return {f"{name}{key}": value for name, sums in counts.items() for key, value in rates(sums).items()}

    def describe(self, source: Source) -> Description:
        """For `zoo.analyze`."""
        found = self.find(source)
        return Description({"melody": found.table()}, found.lanes())

    def attention(self, source: Source, window: int = 0) -> Attention:
        """What each note of a window looks at, the first unless said otherwise; a window is `codec.notes` long."""
        from zoo.show.attention import Attention
        from zoo.show.layout import pitch_name

        score = io.read(source)
        sequence = self.codec.sequence(score)
        windows = self.codec.cut(unlabelled(sequence.notes))
        if not 0 <= window < len(windows):
            raise InputError(f"no window {window}: the piece has {len(windows)}, counted from 0")
        first = window * max(1, self.codec.notes // 2)
        index = sequence.which[first : first + self.codec.notes]
        weights = np.asarray(self._attention(jnp.asarray(windows[window : window + 1])))[0]
        at = score.seconds_at(score.start[index])
        names = [pitch_name(int(pitch)) for pitch in score.pitch[index]]
        return Attention(weights[..., : len(index), : len(index)], at, at, "s", names, names)


def unlabelled(notes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The notes of a piece without the truth: that they are there is all that is left of it."""
    notes = notes.copy()
    notes[:, LABEL] = 0
    return notes


def decide(sequence: Sequence, probability: Floats, threshold: float = AS_LIKELY_AS_NOT) -> Bools:
    """Which notes of a sequence are the melody, bool [N]: likelier than `threshold`, and the likeliest of its onset."""
    onset = np.cumsum(sequence.notes[:, 2] > 0)
    best = np.zeros(int(onset[-1]) + 1)
    np.maximum.at(best, onset, probability)
    chosen: Bools = (probability > threshold) & (probability == best[onset])
    return chosen


def rates(counts: Floats) -> dict[str, float]:
    """F1 and its kin, of (right ones found, found, true, notes judged rightly, notes)."""
    right, found, true, same, notes = counts.tolist()
    return {
        "f1": 2 * right / max(1, found + true),
        "precision": right / max(1, found),
        "recall": right / max(1, true),
        "accuracy": same / max(1, notes),
    }


Task = MelodyFinder
