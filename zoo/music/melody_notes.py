"""All notes of a piece as one sequence, tracks put together, and which of them are the melody.

A note is seven small numbers, none of which tells what track it came from or how hard it was struck:

    pitch      MIDI pitch
    length     how long it is        ┐ on a scale of ratios, four to an octave, from a 12th of a quarter on
    since      after the onset before ┘ 0 where it begins with it
    position   sixteenth of the bar; BARLESS where the notes don't keep to a grid
    above, below   semitones to the next note that sounds when it begins; 0 where there is none
    higher     how many such notes sound above it

and an eighth, the label: 1 melody, 0 not. Past the end of the piece all are 0 and the label is PAST.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import source, track_name
from zoo.music.metre import keeps_grid
from zoo.music.score import Bools, Floats, Score

Tokens: TypeAlias = npt.NDArray[np.int32]

FEATURES = ("pitch", "length", "since", "position", "above", "below", "higher")
SIZES = (128, 32, 32, 65, 26, 26, 8)  # numbers that each can be
LABEL = len(FEATURES)  # its column
PAST = -1
BARLESS = 64
POSITIONS = 64  # sixteenths of the longest bar told apart
FINEST = 12  # parts of a quarter: notes that begin in the same one begin together


class Sequence(NamedTuple):
    """A piece as a model sees it.

    Attributes:
      notes: int32 [N, 8], in order of onset and pitch.
      which: int64 [N], which note of the score each is: of several with the same onset and pitch the longest.
    """

    notes: Tokens
    which: npt.NDArray[np.int64]


@dataclass(frozen=True)
class MelodyNotesCodec:
    """Score ⇄ windows of notes, int32 [L, 8].

    Attributes:
      notes: L, of a window.
      track: the melody's tracks, to learn from, are those whose names match this regular expression, in any case.
    """

    notes: int = 128
    track: str = "melody|vocal|voice|lead"

    name: ClassVar[str] = "melody-notes"
    kind: ClassVar[str] = "notes"
    classes: ClassVar[int] = 2
    steps_per_quarter: ClassVar[int] = 4

    @property
    def steps(self) -> int:
        """L."""
        return self.notes

    def sequence(self, score: Score) -> Sequence:
        """The whole piece; labels are PAST where no track is called a melody.

        Raises:
          InputError: it has no pitched note.
        """
        pitched = np.flatnonzero(~score.is_drum)
        if not len(pitched):
            raise InputError(f"{source(score)}: no pitched note; pass a piece that has some")
        labels = self.labels(score)
        cell = np.floor(score.start[pitched] * FINEST + 0.5).astype(np.int64)
        length = score.end[pitched] - score.start[pitched]
        order = np.lexsort((-length, score.pitch[pitched], cell))  # not by track: that would give it away
        cell, pitch, index = cell[order], score.pitch[pitched][order], pitched[order]
        first = np.flatnonzero(np.diff(cell, prepend=-1) | np.diff(pitch, prepend=-1))
        melody = np.maximum.reduceat(labels[index], first)
        cell, pitch, index = cell[first], pitch[first], index[first]
        length = np.maximum(score.end[index] * FINEST - cell, 1)
        columns: list[npt.NDArray[Any]] = [
            pitch,
            ratio_scale(length),
            ratio_scale(np.diff(cell, prepend=cell[0])),
            position_in_bar(score, cell / FINEST),
            *neighbours(cell, cell + length, pitch),
            melody,
        ]
        return Sequence(np.stack(columns, axis=1).astype(np.int32), index)

    def labels(self, score: Score) -> Tokens:
        """1 for each note of a track that is called a melody, 0 for others, int32 [N]; PAST if there is no such."""
        named = [t for t in np.unique(score.track) if re.search(self.track, track_name(score, t), re.IGNORECASE)]
        if not named:
            return np.full(len(score), PAST, np.int32)
        return np.isin(score.track, named).astype(np.int32)

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """Windows to learn from, int32 [W, L, 8], each half of the one before; there are notes, not bars.

        Raises:
          InputError: no pitched note, or no track that is called a melody, or none besides it.
        """
        notes = self.sequence(score).notes
        if (notes[:, LABEL] == PAST).any():
            raise InputError(f"{source(score)}: no track is called a melody ({self.track}); name the melody's so")
        if notes[:, LABEL].all():
            raise InputError(f"{source(score)}: no track but the melody; pass pieces with accompaniment")
        return self.cut(notes)

    def cut(self, notes: Tokens) -> Tokens:
        """All notes of a piece [N, 8] → [W, L, 8]: windows every L/2 notes, as few as hold them all."""
        hop = max(1, self.notes // 2)
        count = max(1, -(-(len(notes) - self.notes) // hop) + 1)
        padded = np.zeros(((count - 1) * hop + self.notes, notes.shape[1]), np.int32)
        padded[:, LABEL] = PAST
        padded[: len(notes)] = notes
        return np.stack([padded[i * hop : i * hop + self.notes] for i in range(count)])

    def joined(self, windows: npt.NDArray[np.floating], count: int) -> Floats:
        """What was found of the notes of each window [W, L] → of the piece's notes, float64 [count].

        Where two windows overlap both count, each the more the nearer a note is to its middle.
        """
        hop = max(1, self.notes // 2)
        weight = np.minimum(np.arange(1, self.notes + 1), np.arange(self.notes, 0, -1)).astype(np.float64)
        total = np.zeros((2, (len(windows) - 1) * hop + self.notes))
        for i, window in enumerate(windows):
            total[:, i * hop : i * hop + self.notes] += weight * window, weight
        found: Floats = (total[0] / total[1])[:count]
        return found

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The notes of a window [L, 8], as far as its numbers tell: lengths are rounded. The melody is track 0."""
        notes = np.asarray(window)
        notes = notes[notes[:, LABEL] != PAST]
        length, since = (of_ratio_scale(notes[:, i]) / FINEST for i in (1, 2))
        start = np.cumsum(since)
        melody = notes[:, LABEL] == 1
        names = ("MELODY", "ACCOMPANIMENT")
        tempos = np.array([[0.0, qpm]])
        return Score.of(
            start, start + length, notes[:, 0], track=np.where(melody, 0, 1), tempos=tempos, track_names=names
        )

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, L, 8] moved up by `semitones`, int or int [W], as far as no note leaves MIDI's pitches."""
        there = windows[..., LABEL] != PAST
        lowest = np.where(there, windows[..., 0], 127).min(axis=1)
        highest = np.where(there, windows[..., 0], 0).max(axis=1)
        shift = np.clip(semitones, -lowest, 127 - highest)
        moved = windows.copy()
        moved[..., 0] += there * shift[:, None]
        return moved


def ratio_scale(cells: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Times in 12ths of a quarter → 0 … 31: 0 for none, then four numbers to an octave, 1 being a 12th."""
    cells = np.asarray(cells, np.float64)
    scale = 1 + np.round(4 * np.log2(np.maximum(cells, 1)))
    return np.where(cells < 0.5, 0, np.minimum(scale, 31)).astype(np.int64)


def of_ratio_scale(scale: npt.ArrayLike) -> Floats:
    """The middle of each number's times, in 12ths of a quarter."""
    scale = np.asarray(scale)
    times: Floats = np.where(scale > 0, 2.0 ** ((scale - 1) / 4), 0.0)
    return times


def position_in_bar(score: Score, quarters: Floats) -> npt.NDArray[np.int64]:
    """The sixteenth of its bar that each time [N] falls on; BARLESS for all if the score's notes keep to no grid."""
    if not keeps_grid(score):
        return np.full(len(quarters), BARLESS)
    meters = score.meters[(score.meters[:, 1:] > 0).all(axis=1)]
    meters = np.vstack([[0.0, 4.0, 4.0], meters])
    at = meters[np.searchsorted(meters[:, 0], quarters + 1e-6, side="right") - 1]
    sixteenths = np.round(4 * ((quarters - at[:, 0]) % (4 * at[:, 1] / at[:, 2])))
    return np.minimum(sixteenths % np.round(16 * at[:, 1] / at[:, 2]).clip(1), POSITIONS - 1).astype(np.int64)


def neighbours(start: npt.NDArray[np.int64], end: Floats, pitch: npt.NDArray[np.int32]) -> list[Tokens]:
    """Of notes [N] in order of onset: semitones to the next that sounds above and below as it begins, and how many
    sound above; at most 25 and 7.
    """
    above, below, higher = (np.zeros(len(start), np.int32) for _ in range(3))
    sounding: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    begins = np.flatnonzero(np.diff(start, prepend=start[0] - 1))
    for first, after in zip(begins, [*begins[1:], len(start)], strict=True):
        sounding = np.append(sounding[end[sounding] > start[first] + 0.5], np.arange(first, after))
        distance = pitch[sounding] - pitch[first:after, None]  # [notes that begin, notes that sound]
        over, under = np.where(distance > 0, distance, 128), np.where(distance < 0, -distance, 128)
        higher[first:after] = np.minimum((distance > 0).sum(axis=1), 7)
        for column, nearest in ((above, over.min(axis=1)), (below, under.min(axis=1))):
            column[first:after] = np.where(nearest == 128, 0, np.minimum(nearest, 25))
    return [above, below, higher]


def skyline(sequence: Sequence, held: bool = False) -> Bools:
    """The baseline: of the notes that begin together the highest is the melody (Uitdenbogerd & Zobel 1998), bool [N].

    With `held` only if none that began before still sounds above it.
    """
    notes = sequence.notes
    begins = np.flatnonzero((np.arange(len(notes)) == 0) | (notes[:, FEATURES.index("since")] > 0))
    last = np.append(begins[1:], len(notes)) - 1  # they are in order of pitch
    highest = np.zeros(len(notes), np.bool_)
    highest[last] = True
    return highest & (notes[:, FEATURES.index("higher")] == 0) if held else highest
