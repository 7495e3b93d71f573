"""Performances as one sequence of events, in real time and with dynamics (Oore et al. 2018, arXiv:1808.03715).

    0 … 87 a note begins, A0 to C8 (pitch 21 to 108)
    88 … 175 a note ends
    176 … 275 time passes: 10 ms to 1 s
    276 … 307 from here on notes are struck this hard: 32 bins of 4 MIDI velocities

The definitions are Magenta's (`Performance` and `PerformanceOneHotEncoding` of note_seq with these 88 pitches).
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import source, track_name
from zoo.music.score import Score

MIN_PITCH, MAX_PITCH = 21, 108
PITCHES = MAX_PITCH - MIN_PITCH + 1
STEPS_PER_SECOND = MAX_SHIFT = 100
VELOCITY_BINS, BIN = 32, 4
NOTE_ON, NOTE_OFF, SHIFT, VELOCITY = 0, PITCHES, 2 * PITCHES, 2 * PITCHES + MAX_SHIFT
CLASSES = VELOCITY + VELOCITY_BINS

Tokens: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PerformanceCodec:
    """Score ⇄ windows of events, int32 [T]; past the end of the piece they are `classes`.

    Attributes:
      steps: T, events of a window.
      track: of a score that has tracks whose names match this regular expression, only those; "" for all.
    """

    steps: int = 512
    track: str = ""

    name: ClassVar[str] = "performance"
    kind: ClassVar[str] = "sequence"
    classes: ClassVar[int] = CLASSES
    steps_per_quarter: ClassVar[int] = STEPS_PER_SECOND // 2  # at 120 quarter notes a minute

    def tokens(self, score: Score) -> Tokens:
        """The whole piece from its first moment, int32 [T]. Notes off the 88 keys and drums are left out.

        Raises:
          InputError: no note is left.
        """
        named = [t for t in np.unique(score.track) if self.track and re.search(self.track, track_name(score, t))]
        wanted = ~score.is_drum & (score.pitch >= MIN_PITCH) & (score.pitch <= MAX_PITCH)
        notes = score.select(wanted & np.isin(score.track, named) if named else wanted)
        if not len(notes):
            raise InputError(f"{source(score)}: no pitched note from A0 to C8; pass a file with a piano, say")
        start, end = (to_steps(notes.seconds_at(times)) for times in (notes.start, notes.end))
        end = np.maximum(end, start + 1)
        strength = (notes.velocity - 1) // BIN
        # In each step by the notes' order of time and pitch, a note that begins before one of the same number that ends
        at, note = np.concatenate([start, end]), np.tile(np.arange(len(notes)), 2)
        ends = np.repeat([False, True], len(notes))
        events: list[int] = []
        now, struck = 0, -1
        for i in np.lexsort((ends, note, at)):
            gap = int(at[i]) - now
            now += gap
            events += [SHIFT + MAX_SHIFT - 1] * ((gap - 1) // MAX_SHIFT) if gap else []
            events += [SHIFT + (gap - 1) % MAX_SHIFT] if gap else []
            if ends[i]:
                events.append(NOTE_OFF + int(notes.pitch[note[i]]) - MIN_PITCH)
                continue
            if strength[note[i]] != struck:
                struck = int(strength[note[i]])
                events.append(VELOCITY + struck)
            events.append(NOTE_ON + int(notes.pitch[note[i]]) - MIN_PITCH)
        return np.array(events, np.int32)

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """Windows one after another, int32 [W, T], the last one padded; there are no bars, so `hop_bars` is no matter.

        Raises:
          InputError: as for `tokens`.
        """
        tokens = self.tokens(score)
        padded = np.full(-(-len(tokens) // self.steps) * self.steps, CLASSES, np.int32)
        padded[: len(tokens)] = tokens
        return padded.reshape(-1, self.steps)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, program: int = 0) -> Score:
        """The notes of events [n]; what still sounds at the end stops there.

        Of notes of one pitch the one struck first ends first. Notes of no length, ends of notes that don't sound and
        padding are left out. `qpm` is only what is written into the score: time is real.
        """
        sounding: dict[int, deque[tuple[int, int]]] = defaultdict(deque)
        columns: list[tuple[int, int, int, int]] = []
        now, velocity = 0, 80
        for event in np.asarray(window).tolist():
            if event < NOTE_OFF:
                sounding[event].append((now, velocity))
            elif event < SHIFT:
                if sounding[event - NOTE_OFF]:
                    begun, struck = sounding[event - NOTE_OFF].popleft()
                    columns.append((begun, now, event - NOTE_OFF, struck))
            elif event < VELOCITY:
                now += event - SHIFT + 1
            elif event < CLASSES:
                velocity = 1 + (event - VELOCITY) * BIN
        columns += [(begun, now, pitch, struck) for pitch, notes in sounding.items() for begun, struck in notes]
        table = np.array([c for c in columns if c[1] > c[0]], np.int64).reshape(-1, 4)
        start, end = table[:, :2].T / STEPS_PER_SECOND * qpm / 60
        tempos = np.array([[0.0, qpm]])
        return Score.of(start, end, table[:, 2] + MIN_PITCH, table[:, 3], program=program, tempos=tempos)

    def seconds(self, tokens: npt.ArrayLike, qpm: float = 120.0) -> npt.NDArray[np.float64]:
        """When each event is, float64 [n + 1]; the last is where the sequence ends. Time is real, whatever `qpm`."""
        tokens = np.asarray(tokens)
        shift = np.where((tokens >= SHIFT) & (tokens < VELOCITY), tokens - SHIFT + 1, 0)
        return np.concatenate([[0], np.cumsum(shift)]) / STEPS_PER_SECOND

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, T] moved up by `semitones`, int or int [W], cut back to what keeps a window on the keys."""
        pitched = windows < SHIFT
        pitch = windows % PITCHES
        lowest = np.where(pitched, pitch, PITCHES).min(axis=1)
        highest = np.where(pitched, pitch, 0).max(axis=1)
        shift = np.clip(semitones, np.minimum(-lowest, 0), np.maximum(PITCHES - 1 - highest, 0))
        return (windows + pitched * shift[:, None]).astype(windows.dtype)


def to_steps(seconds: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Nearest 10 ms; halves go up."""
    return np.floor(np.asarray(seconds) * STEPS_PER_SECOND + 0.5).astype(np.int64)
