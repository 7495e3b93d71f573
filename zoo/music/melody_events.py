"""Melodies as Magenta's Melody RNN has them: 38 events, all in C.

    0 no event, 1 note off, 2 + (pitch - 48) a note begins, pitch 48 to 83

Melodies are extracted as for MusicVAE (`zoo.music.melody`). Then each is moved to the major key of C by the key that
most of its notes fit, and by octaves to the middle of the three; what still falls out is moved by octaves (note_seq's
`Melody.squash` with its default of C). Here a window is a melody of its own, and `for_piece` keeps one shift for a
whole piece, which decoding takes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER, Array, source
from zoo.music.melody import FIRST_PITCH, MIN_PITCH, MelodyCodec, Tokens
from zoo.music.score import Score

LOW, HIGH = 48, 84  # pitches from LOW on, below HIGH
CLASSES = FIRST_PITCH + HIGH - LOW
MAJOR = (0, 2, 4, 5, 7, 9, 11)


@dataclass(frozen=True)
class MelodyEventsCodec:
    """Score ⇄ windows of melody events, int32 [T] in 0..37.

    Attributes:
      bars, gap_bars, skyline, every_track: as for the melody codec.
      shift: semitones that notes are moved up; −128, no shift there could be, means to C, each window for itself.
    """

    bars: int = 8
    gap_bars: float = 1.0
    skyline: bool = False
    every_track: bool = False
    shift: int = -128

    name: ClassVar[str] = "melody-events"
    kind: ClassVar[str] = "categorical"
    classes: ClassVar[int] = CLASSES
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """All windows of the score's melodies that have an onset, every `hop_bars` bars, int32 [W, T].

        Raises:
          InputError: nothing usable; the message says why.
        """
        return self._fitted(self._melody(self.bars).windows(score, hop_bars, pad))

    def tokens(self, score: Score) -> Tokens:
        """The first melody of the score from the bar where it begins to its end, int32 [S].

        Raises:
          InputError: nothing usable; the message says why.
        """
        line = self._melody(self.bars).lines(score)[0]
        if not len(line.start):
            raise InputError(f"{source(score)}: no notes; pass a file with a melody")
        first = int(line.start[0]) // STEPS_PER_BAR * STEPS_PER_BAR
        return self._fitted(line.cut(np.array([first]), int(line.end[-1]) - first))[0]

    def for_piece(self, score: Score) -> MelodyEventsCodec:
        """The same codec with the shift that moves this piece's melody to C."""
        line = self._melody(self.bars).lines(score)[0]
        return replace(self, shift=int(shift_to_c(line.pitch[None], np.ones((1, len(line.pitch)), bool))[0]))

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The notes of events [T], where they were if the codec has a shift; else in C."""
        tokens = np.asarray(window)
        down = 0 if self.shift == -128 else self.shift
        pitched = tokens >= FIRST_PITCH
        wide = np.where(pitched, np.clip(tokens + LOW - down - MIN_PITCH, FIRST_PITCH, FIRST_PITCH + 87), tokens)
        return self._melody(self.bars).decode(wide, qpm, velocity)

    def seconds(self, tokens: npt.ArrayLike, qpm: float = 120.0) -> npt.NDArray[np.float64]:
        """When each event is, float64 [T + 1]; the last is where the sequence ends."""
        return np.arange(len(np.asarray(tokens)) + 1) / STEPS_PER_QUARTER * (60.0 / qpm)

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """The windows as they are: all are in C."""
        return windows

    def _melody(self, bars: int) -> MelodyCodec:
        return MelodyCodec(bars, self.gap_bars, self.skyline, self.every_track)

    def _fitted(self, windows: Tokens) -> Tokens:
        """Tokens of the piano's 88 keys [W, T] as events."""
        pitched = windows >= FIRST_PITCH
        pitch = windows - FIRST_PITCH + MIN_PITCH
        shift = shift_to_c(pitch, pitched) if self.shift == -128 else np.full(len(windows), self.shift)
        moved = wrap(pitch + shift[:, None])
        return np.where(pitched, moved - LOW + FIRST_PITCH, windows).astype(np.int32)


def shift_to_c(pitch: Array, counts: Array) -> Array:
    """Semitones that move each row of pitches [W, N] to C and near the middle of the range, int64 [W].

    `counts` [W, N] says which of them are notes.
    """
    scales = np.zeros((12, 12))  # pitch class, key
    for key in range(12):
        scales[[(key + degree) % 12 for degree in MAJOR], key] = 1
    histogram = np.stack([((pitch % 12 == degree) & counts).sum(axis=1) for degree in range(12)], axis=1)
    to_c = -np.argmax(histogram @ scales, axis=1)
    lowest = np.where(counts, pitch, 128).min(axis=1, initial=128)
    highest = np.where(counts, pitch, -1).max(axis=1, initial=-1)
    away = (LOW + HIGH - 1) / 2 - ((lowest + highest) / 2 + to_c)
    shift: Array = np.where(counts.any(axis=1), to_c + 12 * np.rint(away / 12).astype(np.int64), 0)
    return shift


def wrap(pitch: Array) -> Array:
    """Pitches out of the range, moved by octaves to its nearer end."""
    low, high = LOW + (pitch - LOW) % 12, HIGH - 12 + (pitch - HIGH) % 12
    return np.where(pitch < LOW, low, np.where(pitch >= HIGH, high, pitch))
