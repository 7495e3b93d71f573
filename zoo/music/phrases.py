"""Phrases of a band: piano rolls of some bars for melody, bridge and piano side by side, as MuseGAN has them.

A roll is 0 or 1 (Dong et al. 2018), so a note struck again would be one long note. Therefore a note that another of its
pitch and part follows at once ends a step early, if it is longer than a step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER, beginning, quantize, sections, source, track_name
from zoo.music.score import Score

Roll: TypeAlias = npt.NDArray[np.int8]

LOWEST, PITCHES = 36, 60  # five octaves from C2; of POP909's notes 4 in 1000 lie beyond and are moved by octaves


class Part(NamedTuple):
    """One of the band: how it is called, what the names of its tracks match, and how it is decoded."""

    name: str
    tracks: str
    program: int
    velocity: int


PARTS = (
    Part("Melody", "melody|vocal|voice|sing|lead", 73, 92),
    Part("Bridge", "bridge|counter|second", 24, 76),
    Part("Piano", "piano|accomp|chord", 0, 68),
)


@dataclass(frozen=True)
class PhrasesCodec:
    """Score ⇄ phrases, int8 [T, 3, 60]: 1 where a part sounds a pitch at a sixteenth.

    Parts are told apart by the names of tracks; a track of another name belongs to the piano. In a file without such
    names the highest track is the melody and all others are the piano. Drums are left out.

    Attributes:
      bars: length of a phrase; T is 16 times that.
    """

    bars: int = 4

    name: ClassVar[str] = "phrases"
    kind: ClassVar[str] = "phrases"
    classes: ClassVar[int] = len(PARTS) * PITCHES
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def roll(self, score: Score) -> Roll:
        """The piece in 4/4 from its first bar that is played in, in whole phrases: int8 [S, 3, 60]; the end is silent.

        Raises:
          InputError: no pitched notes in 4/4.
        """
        return np.concatenate([self._roll(part, whole=True) for part in self._sections(score)])

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Roll:
        """Phrases [W, T, 3, 60] of a band: two parts or more play, and no bar is silent.

        With `pad` also those where one part plays, if it does in their first half, and the last is filled up.

        Raises:
          InputError: there are none.
        """
        found = []
        for part in self._sections(score):
            roll = self._roll(part, whole=pad)
            first = np.arange(0, len(roll) - self.steps + 1, hop_bars * STEPS_PER_BAR)
            windows = roll[first[:, None] + np.arange(self.steps)]  # [W, T, 3, 60]
            bars = windows.reshape(len(windows), self.bars, STEPS_PER_BAR * self.classes).any(axis=2)
            parts = windows.any(axis=(1, 3))
            whole = bars.all(axis=1) & (parts.sum(axis=1) > 1)
            found.append(windows[bars[:, : -(-self.bars // 2)].any(axis=1) if pad else whole])
        if not any(map(len, found)):
            need = "a bar to begin with" if pad else f"{self.bars} bars in which two parts play"
            raise InputError(f"{source(score)}: has not {need}; pass a longer piece, or one for several tracks")
        return np.concatenate(found)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The notes of a roll [T, 3, 60] of any length, each part a track."""
        down = np.pad(np.asarray(window) > 0, ((1, 1), (0, 0), (0, 0))).astype(np.int8)
        changes = np.diff(np.moveaxis(down, 0, 2), axis=2)  # [3, 60, T + 1]
        track, pitch, start = np.nonzero(changes == 1)
        end = np.nonzero(changes == -1)[2]
        return Score.of(
            start / STEPS_PER_QUARTER,
            end / STEPS_PER_QUARTER,
            pitch + LOWEST,
            np.array([part.velocity for part in PARTS])[track],
            track,
            np.array([part.program for part in PARTS])[track],
            tempos=np.array([[0.0, qpm]]),
            meters=np.array([[0.0, 4, 4]]),
            track_names=tuple(part.name for part in PARTS),
        )

    def transpose(self, windows: Roll, semitones: npt.ArrayLike) -> Roll:
        """Phrases [W, T, 3, 60] moved up by `semitones`, int or int [W], as far as no note leaves the range."""
        used: npt.NDArray[np.bool_] = np.any(windows, axis=(1, 2))  # [W, 60]
        below, above = used.argmax(axis=1), used[:, ::-1].argmax(axis=1)  # 0 where nothing sounds
        shifts = np.clip(np.broadcast_to(semitones, len(windows)), -below, above)
        moved = np.zeros_like(windows)
        for window, shift, out in zip(windows, shifts.tolist(), moved, strict=True):
            low, high = max(0, shift), PITCHES + min(0, shift)
            out[..., low:high] = window[..., low - shift : high - shift]
        return moved

    def _sections(self, score: Score) -> list[Score]:
        notes = score.select(~score.is_drum)
        if not len(notes):
            raise InputError(f"{source(score)}: no pitched notes; pass a piece that has some")
        return [beginning(part) for part in sections(notes)]

    def _roll(self, score: Score, whole: bool) -> Roll:
        """One stretch of 4/4 from its first bar with a note on, [S, 3, 60]; `whole`: filled up to whole phrases."""
        part = parts(score)
        pitch = LOWEST + _folded(score.pitch - LOWEST, PITCHES)
        start = quantize(score.start)
        start -= start.min() // STEPS_PER_BAR * STEPS_PER_BAR
        end = np.maximum(start + quantize(score.end) - quantize(score.start), start + 1)

        order = np.lexsort((end, start, pitch, part))
        part, pitch, start, end = part[order], pitch[order], start[order], end[order]
        same = (part[1:] == part[:-1]) & (pitch[1:] == pitch[:-1])
        until = np.append(np.where(same, start[1:], end.max() + 2), end.max() + 2)  # when it is struck again
        end = np.minimum(end, np.where(until - start > 1, until - 1, until))

        unit = self.steps if whole else STEPS_PER_BAR
        length = -(-int(end.max()) // unit) * unit
        edges = np.zeros((length + 1, len(PARTS), PITCHES), np.int32)
        np.add.at(edges, (start, part, pitch - LOWEST), 1)
        np.add.at(edges, (end, part, pitch - LOWEST), -1)
        return (np.cumsum(edges, axis=0)[:-1] > 0).astype(np.int8)


def parts(score: Score) -> npt.NDArray[np.intp]:
    """For each note the number of its part in PARTS, int [N]."""
    tracks = np.unique(score.track)
    names = [track_name(score, int(track)) for track in tracks]
    named = [
        next((i for i, part in enumerate(PARTS) if re.search(part.tracks, name, re.IGNORECASE)), -1) for name in names
    ]
    if max(named, default=-1) < 0:
        heights = [score.pitch[score.track == track].mean() for track in tracks]
        named[int(np.argmax(heights))] = 0
    part_of = np.array([len(PARTS) - 1 if part < 0 else part for part in named], np.intp)
    return part_of[np.searchsorted(tracks, score.track)]


def _folded(height: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int32]:
    """Heights moved by octaves into 0 … size − 1, a multiple of 12."""
    octave = np.clip(height // 12, 0, size // 12 - 1)
    return octave * 12 + height % 12
