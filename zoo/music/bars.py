"""From written measures to the metre's grid, for the readers of notation (MusicXML, **kern).

Models count bars from a bar line, but written measures may be short or long: a pickup, a bar split at a repeat sign,
a cadenza. `align` puts rests in so that every full measure begins on a bar line.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from zoo.music.score import Floats, Score

Meter = tuple[int, int]
_SLACK = 1e-6  # quarters; sums of triplets are not exact
_LONGEST = 1e6  # quarters


def align(lengths: Sequence[float], meters: Sequence[Meter | None]) -> tuple[list[float], Floats]:
    """Places measures on the grid.

    - A pickup (the first measure, if short) ends on a bar line. Where whole bars make four quarters (2/4, 1/4) that is
      the fourth quarter, so that bar 1 also begins a bar of 4/4.
    - A short measure later on stays where it is if it fits into the bar, as the halves of a bar split at a repeat do.
      Otherwise, or before a full measure, rests fill the bar: ahead of it if it is less than half a bar (a pickup),
      else behind it.
    - A change of metre begins on a bar line of the metre before.

    Args:
      lengths: of each measure, in quarter notes.
      meters: of each measure; None where it is free, then a measure is its own bar, counted in sixteenths.

    Returns:
      The start of each measure in quarter notes, and the metre changes [K, 3] as in `Score.meters`.
    """
    known = [meter or (max(1, round(4 * length)), 16) for length, meter in zip(lengths, meters, strict=True)]
    bars = [4 * numerator / denominator for numerator, denominator in known]
    full = [length > bar - _SLACK for length, bar in zip(lengths, bars, strict=True)]
    starts: list[float] = []
    changes: list[tuple[float, int, int]] = []
    at = origin = 0.0
    for i, (length, meter, bar) in enumerate(zip(lengths, known, bars, strict=True)):
        if not i or meter != known[i - 1]:
            at = origin = _bar_line(at, origin, bars[i - 1]) if i else 0.0
            changes.append((at, *meter))
        before_full = full[i + 1 : i + 2] == [True]
        if at + length > _bar_line(at + _SLACK, origin, bar) + _SLACK:  # does not fit into the rest of the bar
            at = _bar_line(at, origin, bar)
        if i == 0 and len(lengths) > 1 and not full[0]:
            at += (4 if 4 % bar == 0 else bar) - length
        elif before_full and length < bar / 2 and at == _bar_line(at, origin, bar):
            at += bar - length
        starts.append(at)
        at += length
    return starts, np.array(changes, np.float64).reshape(-1, 3)


def _bar_line(at: float, origin: float, bar: float) -> float:
    """The first bar line at or after `at`; within rounding, `at` lies on it."""
    return origin + bar * ceil((at - origin) / bar - _SLACK)


class _Note(NamedTuple):
    start: float
    end: float
    pitch: int
    track: int
    tied_on: bool
    tied_from: bool
    is_drum: bool


class Measures:
    """Collects what a reader meets, at positions in written quarter notes; `score` puts it on the grid.

    Attributes:
      meter: in force for the measure that `bar_line` closes next; None for free metre.
      names, programs: by track.
    """

    def __init__(self) -> None:
        self.meter: Meter | None = (4, 4)
        self.names: dict[int, str] = {}
        self.programs: dict[int, int] = {}
        self._lines = [0.0]  # written position of each bar line
        self._meters: list[Meter | None] = []
        self._notes: list[_Note] = []
        self._tempos: list[tuple[float, float]] = []
        self._chords: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._notes)

    def bar_line(self, at: float) -> None:
        """Closes the measure that ends at `at`, unless it is empty. Raises ValueError far beyond any music."""
        if at > _LONGEST:
            raise ValueError(f"more than {_LONGEST:.0f} quarter notes")
        if at > self._lines[-1] + _SLACK:
            self._lines.append(at)
            self._meters.append(self.meter)

    def add_note(
        self,
        start: float,
        end: float,
        pitch: int,
        track: int,
        tied_on: bool = False,
        tied_from: bool = False,
        is_drum: bool = False,
    ) -> None:
        """A note; `tied_on` if it goes on in the next of its pitch and track, `tied_from` if it continues the last."""
        if end > start:
            self._notes.append(_Note(start, end, pitch, track, tied_on, tied_from, is_drum))

    def add_tempo(self, at: float, qpm: float) -> None:
        """A tempo in quarter notes a minute, from `at` on."""
        self._tempos.append((at, qpm))

    def add_chord(self, at: float, symbol: str) -> None:
        """A chord symbol, e.g. "Am7"."""
        self._chords.append((at, symbol))

    def score(self, source: str) -> Score:
        """All of it as a `Score`, measures aligned and tied notes joined; notes off MIDI's 128 pitches are dropped."""
        lengths = np.diff(self._lines).tolist()
        starts, meters = align(lengths, self._meters)
        shifts = [start - line for start, line in zip(starts, self._lines, strict=False)] or [0.0]

        def moved(at: float) -> float:
            return at + shifts[min(max(bisect_right(self._lines, at + _SLACK) - 1, 0), len(shifts) - 1)]

        notes: list[_Note] = []
        open_ties: dict[tuple[int, int], tuple[int, float]] = {}  # (track, pitch): index in `notes`, written end
        for note in sorted(note for note in self._notes if 0 <= note.pitch < 128):
            start, key = moved(note.start), (note.track, note.pitch)
            end = start + note.end - note.start
            index, until = open_ties.pop(key, (0, -1.0))
            if note.tied_from and abs(until - note.start) < _SLACK:
                notes[index] = notes[index]._replace(end=end)
            else:
                index = len(notes)
                notes.append(note._replace(start=start, end=end))
            if note.tied_on:
                open_ties[key] = index, note.end
        rows = [(note.start, note.end, note.pitch, note.track, note.is_drum) for note in notes]
        onsets, ends, pitch, track, is_drum = np.array(rows, np.float64).reshape(-1, 5).T
        tracks = range(max([*self.names, *(note.track for note in notes)], default=-1) + 1)
        return Score.of(
            onsets,
            ends,
            pitch,
            track=track,
            program=[self.programs.get(note.track, 0) for note in notes],
            is_drum=is_drum,
            tempos=np.array([(moved(at), qpm) for at, qpm in sorted(self._tempos)]).reshape(-1, 2),
            meters=meters,
            chords=tuple((moved(at), symbol) for at, symbol in sorted(self._chords)),
            track_names=tuple(self.names.get(i, "") for i in tracks),
            source=source,
        )
