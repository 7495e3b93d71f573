"""Piano rolls: which of the piano's 88 keys sound at each step of a grid, as in Boulanger-Lewandowski et al. (2012).

A roll says nothing of velocities or voices, nor whether a note is repeated or held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import QUARTERS_PER_BAR, source
from zoo.music.key import KRUMHANSL_KESSLER, correlations
from zoo.music.score import Score

LOWEST, KEYS = 21, 88
PAST = -1  # marks the steps after the end of a piece

Roll: TypeAlias = npt.NDArray[np.int8]

_SLACK = 1e-3  # quarters, by which a note may come late and still sound at its step: ticks are not exact


@dataclass(frozen=True)
class PianorollCodec:
    """Score ⇄ windows of a piano roll, int8 [T, 88]: 1 sounds, 0 does not, −1 throughout a step past the end.

    A piece is cut into windows one after another from its first note on, each step counted once.

    Attributes:
      steps: T, the length of a window.
      steps_per_quarter: the grid.
      polyphony: pieces with more keys down at once are refused; models allow for so many.
      in_c: move every piece to C major or C minor, whichever it is nearer to; see `tonic`.
    """

    steps: int = 128
    steps_per_quarter: int = 1
    polyphony: int = 15
    in_c: bool = False

    name: ClassVar[str] = "pianoroll"
    kind: ClassVar[str] = "pianoroll"
    classes: ClassVar[int] = KEYS

    @property
    def bars(self) -> int:
        """Whole bars of four quarters in a window, at least one."""
        return max(1, self.steps // (self.steps_per_quarter * QUARTERS_PER_BAR))

    def roll(self, score: Score) -> Roll:
        """The whole piece from its first note to its last, int8 [S, 88]; drums are left out.

        Raises:
          InputError: it has no note on the 88 keys, or more at once than `polyphony`.
        """
        notes = score.select(~score.is_drum & (score.pitch >= LOWEST) & (score.pitch < LOWEST + KEYS))
        if not len(notes):
            raise InputError(f"{source(score)}: no pitched note from A0 to C8; pass a piece that has some")
        if self.in_c:
            shift = (6 - tonic(notes)) % 12 - 6  # −6 to 5 semitones
            notes = replace(notes, pitch=notes.pitch + shift)
            return replace(self, in_c=False).roll(notes)
        first = np.floor((notes.start.min() + _SLACK) * self.steps_per_quarter) / self.steps_per_quarter
        # a key is down at step t if start ≤ t < end
        start, end = (
            np.ceil((times - first - _SLACK) * self.steps_per_quarter).astype(np.int64)
            for times in (notes.start, notes.end)
        )
        edges = np.zeros((max(end.max(), 1) + 1, KEYS), np.int32)
        np.add.at(edges, (start, notes.pitch - LOWEST), 1)
        np.add.at(edges, (np.maximum(end, start), notes.pitch - LOWEST), -1)
        roll: Roll = (np.cumsum(edges, axis=0)[:-1] > 0).astype(np.int8)
        if (most := int(roll.sum(axis=1).max())) > self.polyphony:
            raise InputError(f"{source(score)}: {most} keys at once, and the model knows {self.polyphony}; thin it out")
        return roll

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Roll:
        """The piece as windows [W, T, 88], one after another whatever `hop_bars` is, the last filled up with −1."""
        roll = self.roll(score)
        count = -(-len(roll) // self.steps)
        windows = np.full((count * self.steps, KEYS), PAST, np.int8)
        windows[: len(roll)] = roll
        return windows.reshape(count, self.steps, KEYS)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The notes of one window [T, 88], each as long as its key goes on."""
        down = np.pad(np.asarray(window) > 0, ((1, 1), (0, 0))).T.astype(np.int8)  # [88, T + 2]
        changes = np.diff(down, axis=1)
        key, start = np.nonzero(changes == 1)
        end = np.nonzero(changes == -1)[1]
        return Score.of(
            start / self.steps_per_quarter,
            end / self.steps_per_quarter,
            key + LOWEST,
            velocity,
            tempos=np.array([[0.0, qpm]]),
            meters=np.array([[0.0, 4, 4]]),
        )

    def transpose(self, windows: Roll, semitones: npt.ArrayLike) -> Roll:
        """Windows [W, T, 88] moved up by `semitones`, int or int [W], as far as no note leaves the keyboard."""
        used = windows.max(axis=1) > 0  # [W, 88]
        room_below, room_above = used.argmax(axis=1), used[:, ::-1].argmax(axis=1)  # 0 where nothing sounds
        shift = np.clip(np.broadcast_to(semitones, len(windows)), -room_below, room_above)
        from_key = (np.arange(KEYS) - shift[:, None]) % KEYS  # what wraps around is silent
        return np.take_along_axis(windows, from_key[:, None, :], axis=2)


def tonic(score: Score) -> int:
    """Pitch class of the tonic of the major or minor key whose profile the durations correlate with best."""
    lengths = np.bincount(score.pitch % 12, score.end - score.start, 12).astype(np.float64)
    return int(np.argmax(correlations(lengths, KRUMHANSL_KESSLER))) // 2
