"""Melodies as MusicVAE has them (Roberts et al. 2018): one token a sixteenth.

    0 no event: what sounds goes on, so does silence
    1 note off
    2 + (pitch - 21) a note begins, pitch 21 to 108 (the piano's 88 keys)

The definitions are Magenta's (`OneHotMelodyConverter`, `extract_melodies`, note_seq's `Melody`): of notes that begin in
one step the highest stays, a note ends at the latest where the next begins, a melody ends where a rest of a bar or more
follows, and a window shows no note-off before its first note, so one that begins inside a held note begins silent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER, Array, cut, quantize, sections
from zoo.music.score import Score

NO_EVENT, NOTE_OFF, FIRST_PITCH = 0, 1, 2
MIN_PITCH, MAX_PITCH = 21, 108
CLASSES = FIRST_PITCH + MAX_PITCH - MIN_PITCH + 1

Tokens = npt.NDArray[np.int32]

_MELODY_NAME = re.compile(r"melod|\blead\b|\bvoice\b|\bvocals?\b|\bvox\b|gesang|chant", re.IGNORECASE)
_MAX_CHORDS = 0.1  # share of onsets with more than one note that still counts as a melody (ornaments, a stray third)


class Line(NamedTuple):
    """A monophonic line on the grid: int64 [N] columns, sorted by `start`, in steps; `end <= start` of the next."""

    start: Array
    end: Array
    pitch: Array


@dataclass(frozen=True)
class MelodyCodec:
    """Score ⇄ windows of melody tokens, int32 [T] in 0..89.

    Attributes:
      bars: length of a window; `steps` is 16 times that.
      gap_bars: a rest this long ends a melody; windows lie within one melody.
      skyline: take the highest notes of polyphonic tracks (Magenta's choice) instead of leaving such tracks out.
      every_track: use all pitched tracks even if some are named as melody ("MELODY", "Lead", "Voice", …).
    """

    bars: int = 2
    gap_bars: float = 1.0
    skyline: bool = False
    every_track: bool = False

    name: ClassVar[str] = "melody"
    kind: ClassVar[str] = "categorical"
    classes: ClassVar[int] = CLASSES
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def windows(self, score: Score, hop_bars: int = 1) -> Tokens:
        """All windows of the score's melodies that have an onset, every `hop_bars` bars, int32 [W, T].

        Where no melody is as long as a window (and only there) rests of any length are allowed and the end is padded
        with no-events, provided the music fills at least half the window.

        Raises:
          InputError: nothing usable; the message says why.
        """
        lines = self._lines(score)
        found = [self._cut(line, hop_bars) for line in lines]
        if not any(map(len, found)):
            found = [self._cut(line, hop_bars, whole=True) for line in lines]
        if not any(map(len, found)):
            raise InputError(
                f"{_source(score)}: too short: a window is {self.bars} bars of 4/4 and the music must fill half of it; "
                "pass a longer piece"
            )
        return np.concatenate(found)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80, program: int = 0) -> Score:
        """The notes of one window [T]; what still sounds at the end stops there. Note-offs in silence do nothing."""
        window = np.asarray(window)
        start, end, pitch = line_of(window)
        return Score.of(
            start / STEPS_PER_QUARTER,
            end / STEPS_PER_QUARTER,
            pitch,
            velocity,
            program=program,
            tempos=np.array([[0.0, qpm]]),
            meters=np.array([[0.0, 4, 4]]),
            track_names=("Melody",),
        )

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, T] moved up by `semitones`, int or int [W]; see `transpose`."""
        return transpose(windows, semitones)

    def _lines(self, score: Score) -> list[Line]:
        """The monophonic lines of the score, best track first."""
        pitched = score.select(~score.is_drum & (score.velocity > 0))
        if not len(pitched):
            what = "only drums, no pitched notes" if len(score) else "no notes"
            raise InputError(f"{_source(score)}: {what}; pass a file with a melody")
        pitched = pitched.select((pitched.pitch >= MIN_PITCH) & (pitched.pitch <= MAX_PITCH))
        if not len(pitched):
            raise InputError(f"{_source(score)}: no note between A0 and C8 (MIDI pitch 21 to 108); transpose it")
        parts = sections(pitched)
        polyphonic = []
        lines = []
        for track in self._tracks(pitched):
            notes = [part.select(part.track == track) for part in parts]
            notes = [part for part in notes if len(part)]
            if self.skyline or _chords(notes) <= _MAX_CHORDS:
                lines += [monophonic(part) for part in notes]
            else:
                polyphonic.append(_track_name(score, track))
        if not lines:
            raise InputError(
                f"{_source(score)}: polyphonic where a melody is needed: {', '.join(polyphonic[:3])}; "
                "pass a file with a melody track, or use skyline=True to take the highest notes"
            )
        return lines

    def _tracks(self, score: Score) -> list[int]:
        tracks = [int(track) for track in np.unique(score.track)]
        named = [track for track in tracks if _MELODY_NAME.search(_name(score, track))]
        return tracks if self.every_track or not named else named

    def _cut(self, line: Line, hop_bars: int, whole: bool = False) -> Tokens:
        """Windows of one line; `whole` ignores rests and pads the end."""
        gap = np.inf if whole else self.gap_bars * STEPS_PER_BAR
        breaks = np.flatnonzero(line.start[1:] - line.end[:-1] >= gap) + 1
        starts, stops = np.r_[0, breaks], np.r_[breaks, len(line.start)] - 1
        first = line.start[starts] // STEPS_PER_BAR  # [M], bar where each melody begins
        last = -(-line.end[stops] // STEPS_PER_BAR)  # [M], bar before which it has ended
        if whole:
            last = np.where(2 * (last - first) >= self.bars, np.maximum(last, first + self.bars), last)

        melody = np.repeat(np.arange(len(starts)), stops - starts + 1)[:, None]  # [N, 1]
        bar = (line.start // STEPS_PER_BAR)[:, None] - np.arange(self.bars)  # [N, bars], the windows an onset is in
        valid = (bar >= first[melody]) & (bar + self.bars <= last[melody]) & ((bar - first[melody]) % hop_bars == 0)
        return cut_line(line, np.unique(bar[valid]) * STEPS_PER_BAR, self.steps)


def monophonic(notes: Score) -> Line:
    """One line out of a track: of notes that begin in one step the highest, each cut off where the next begins."""
    start, end = quantize(notes.start), quantize(notes.end)
    end = np.maximum(end, start + 1)
    order = np.lexsort((-notes.pitch, start))
    start, keep = np.unique(start[order], return_index=True)
    end, pitch = end[order][keep], notes.pitch[order][keep].astype(np.int64)
    end[:-1] = np.minimum(end[:-1], start[1:])
    return Line(start, end, pitch)


def cut_line(line: Line, first: Array, steps: int) -> Tokens:
    """Token windows [W, steps] of a line that begin at steps `first` [W]."""
    off = np.setdiff1d(line.end, line.start)
    position = np.r_[line.start, off]
    token = np.r_[line.pitch - MIN_PITCH + FIRST_PITCH, np.full(len(off), NOTE_OFF)].astype(np.int32)
    order = np.argsort(position)
    windows = cut(position[order], token[order], first, steps)
    begun = np.maximum.accumulate(windows >= FIRST_PITCH, axis=1)
    return np.where(begun, windows, NO_EVENT).astype(np.int32)


def line_of(window: Array) -> Line:
    """The line that tokens [T] stand for, the inverse of `cut_line`."""
    event = np.flatnonzero(window != NO_EVENT)
    end = np.r_[event[1:], len(window)]
    onset = window[event] >= FIRST_PITCH
    start = event[onset]
    return Line(start, end[onset], window[start].astype(np.int64) - FIRST_PITCH + MIN_PITCH)


def transpose(windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
    """Melody tokens [W, ...] moved up by `semitones`, int or int [W].

    A shift that would leave the 88 keys is cut back to what fits, window by window, so that a batch keeps its shape
    and no note is lost (Magenta, which transposes by -5 to 5, drops the notes that fall out).
    """
    flat = windows.reshape(len(windows), -1)
    pitched = flat >= FIRST_PITCH
    lowest = np.where(pitched, flat, CLASSES).min(axis=1, initial=CLASSES)
    highest = np.where(pitched, flat, 0).max(axis=1, initial=0)
    shift = np.clip(semitones, np.minimum(FIRST_PITCH - lowest, 0), np.maximum(CLASSES - 1 - highest, 0))
    return (flat + pitched * shift[:, None]).astype(windows.dtype).reshape(windows.shape)


def _chords(parts: list[Score]) -> float:
    """Share of the steps with an onset that have more than one."""
    counts = [np.unique(quantize(part.start), return_counts=True)[1] for part in parts]
    every = np.concatenate([*counts, np.zeros(1)])
    return float((every > 1).sum() / max(1, (every > 0).sum()))


def _name(score: Score, track: int) -> str:
    return score.track_names[track] if track < len(score.track_names) else ""


def _track_name(score: Score, track: int) -> str:
    name = _name(score, track)
    return f"track {track} ({name})" if name else f"track {track}"


def _source(score: Score) -> str:
    return score.source or "the score"
