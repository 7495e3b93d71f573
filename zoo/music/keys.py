"""Notes as Piano Genie has them (Donahue et al. 2019): one after another, a piano key and the time since the last.

Of notes that begin together the lowest comes first. Times are in seconds and in bins of 1 / 31.25 s, of which the 33rd
holds all that is longer; the first note has that one. Velocities and where notes end are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import source
from zoo.music.score import Score

LOWEST, KEYS = 21, 88
RATE, BINS = 31.25, 33  # bins a second
_LAST, _LONGEST = 0.5, 2.0  # seconds that the last note lasts, and that any does at most

Notes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class KeysCodec:
    """Score ⇄ windows of notes, int32 [T, 2]: key 0 to 87, bin 0 to 32.

    Attributes:
      steps: T, notes a window.
    """

    steps: int = 128

    name: ClassVar[str] = "keys"
    kind: ClassVar[str] = "keys"
    classes: ClassVar[tuple[int, ...]] = (KEYS, BINS)

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Notes:
        """Windows that overlap by half, and one that ends with the piece: int32 [W, T, 2].

        Raises:
          InputError: fewer notes than a window has.
        """
        notes, _ = self.encode(score)
        if len(notes) < self.steps:
            raise InputError(f"{source(score)}: {len(notes)} notes, a window has {self.steps}; pass a longer piece")
        last = len(notes) - self.steps
        starts = sorted({*range(0, last, max(1, self.steps // 2)), last})
        return np.stack([notes[start : start + self.steps] for start in starts])

    def encode(self, score: Score) -> tuple[Notes, npt.NDArray[np.float64]]:
        """All notes of a piece, int32 [T, 2], and when they begin, float64 [T], in seconds.

        Raises:
          InputError: no notes of a piano's keys.
        """
        notes = score.select(~score.is_drum & (score.pitch >= LOWEST) & (score.pitch < LOWEST + KEYS))
        if not len(notes):
            raise InputError(f"{source(score)}: no notes from A0 to C8; pass a file with some")
        onset = notes.seconds_at(notes.start)
        return np.stack([notes.pitch - LOWEST, bins(onset)], axis=1).astype(np.int32), onset

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The notes of [T, 2], as long apart as their bins say."""
        notes = np.asarray(window)
        onset = np.cumsum(np.r_[0, notes[1:, 1]]) / RATE
        return self.played(notes[:, 0], onset, qpm)

    def played(self, keys: npt.ArrayLike, onset: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """Keys struck at `onset` seconds, ascending; each sounds until the next later one, two seconds at most."""
        onset = np.asarray(onset, np.float64)
        later = np.append(np.unique(onset), onset[-1] + _LAST)
        end = np.minimum(later[np.searchsorted(later, onset, side="right")], onset + _LONGEST)
        quarters = qpm / 60
        return Score.of(onset * quarters, end * quarters, np.asarray(keys) + LOWEST, tempos=np.array([[0.0, qpm]]))

    def transpose(self, windows: Notes, semitones: npt.ArrayLike) -> Notes:
        """Windows [W, T, 2] moved up by `semitones`, int or int [W], cut back to what fits, window by window."""
        keys = windows[..., 0]
        shift = np.clip(semitones, -keys.min(axis=1), KEYS - 1 - keys.max(axis=1))
        out = windows.copy()
        out[..., 0] += shift[:, None].astype(windows.dtype)
        return out


def bins(onset: npt.ArrayLike) -> Notes:
    """The time since the note before in bins, int32 [T], from onsets in seconds, ascending."""
    since = np.diff(np.asarray(onset, np.float64), prepend=-np.inf)
    return np.rint(np.minimum(since * RATE, BINS - 1)).astype(np.int32)
