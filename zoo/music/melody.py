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
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import (
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    Array,
    cut,
    exchange_bars,
    quantize,
    sections,
    source,
    track_name,
    window_starts,
)
from zoo.music.score import Score

NO_EVENT, NOTE_OFF, FIRST_PITCH = 0, 1, 2
MIN_PITCH, MAX_PITCH = 21, 108
CLASSES = FIRST_PITCH + MAX_PITCH - MIN_PITCH + 1

Tokens: TypeAlias = npt.NDArray[np.int32]

_MELODY_NAME = re.compile(r"melod|\blead\b|\bvoice\b|\bvocals?\b|\bvox\b|gesang|chant", re.IGNORECASE)
_MAX_CHORDS = 0.1  # share of onsets with more than one note in what still counts as a melody (ornaments, a stray third)


@dataclass(frozen=True)
class MelodyCodec:
    """Score ⇄ windows of melody tokens, int32 [T] in 0..89.

    Every pitched track is a melody if it is monophonic, but where some are named so ("MELODY", "Lead", "Voice", …)
    only those are.

    Attributes:
      bars: length of a window; `steps` is 16 times that.
      gap_bars: a rest this long ends a melody; windows lie within one melody.
      skyline: take the highest notes of polyphonic tracks (Magenta's choice) instead of leaving such tracks out.
      every_track: use all tracks, whatever their names (Magenta's choice).
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

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """All windows of the score's melodies that have an onset, every `hop_bars` bars, int32 [W, T].

        They come track by track in order of time; `window_starts` tells what becomes of a short piece.

        Raises:
          InputError: nothing usable; the message says why.
        """
        lines = self.lines(score)
        spans = [(line.start, line.end) for line in lines]
        starts = window_starts(spans, self.bars, hop_bars, self.gap_bars, pad, source(score))
        windows = np.concatenate([line.cut(first, self.steps) for line, first in zip(lines, starts, strict=True)])
        return _from_the_first_note(windows)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80, program: int = 0) -> Score:
        """The notes of one window [T]; what still sounds at the end stops there. Note-offs in silence do nothing."""
        line = Line.of_tokens(np.asarray(window))
        return Score.of(
            line.start / STEPS_PER_QUARTER,
            line.end / STEPS_PER_QUARTER,
            line.pitch,
            velocity,
            program=program,
            tempos=np.array([[0.0, qpm]]),
            meters=np.array([[0.0, 4, 4]]),
            track_names=("Melody",),
        )

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, T] moved up by `semitones`, int or int [W]; see `transpose`."""
        return transpose(windows, semitones)

    def vary(self, windows: Tokens, rng: np.random.Generator) -> Tokens:
        """Windows [W, T] of other bars, for training; see `exchange_bars`."""
        return _from_the_first_note(exchange_bars(windows, rng))

    def lines(self, score: Score) -> list[Line]:
        """The melodies of the score, one a track and stretch of 4/4."""
        pitched = score.select(~score.is_drum)
        if not len(pitched):
            what = "only drums" if len(score) else "no notes"
            raise InputError(f"{source(score)}: {what}; pass a file with a melody")
        pitched = pitched.select((pitched.pitch >= MIN_PITCH) & (pitched.pitch <= MAX_PITCH))
        if not len(pitched):
            raise InputError(f"{source(score)}: no note from A0 to C8 (MIDI pitch 21 to 108); transpose it")
        parts = sections(pitched)
        lines, polyphonic = [], []
        for track in self._tracks(parts):
            of_track = [part.select(part.track == track) for part in parts]
            of_track = [part for part in of_track if len(part)]
            if self.skyline or _chords(of_track) <= _MAX_CHORDS:
                lines += [Line.of_notes(part) for part in of_track]
            else:
                polyphonic.append(f"track {track} {track_name(score, track)}".rstrip())
        if not lines:
            raise InputError(
                f"{source(score)}: polyphonic where a melody is needed ({', '.join(polyphonic[:3])}); "
                "pass a file with a melody track, or skyline=True to take the highest notes"
            )
        return lines

    def _tracks(self, parts: list[Score]) -> list[int]:
        tracks = sorted({int(track) for part in parts for track in part.track})
        named = [track for track in tracks if is_melody_name(track_name(parts[0], track))]
        return tracks if self.every_track or not named else named


class Line(NamedTuple):
    """A monophonic line on the grid: int64 [N] columns, sorted by `start`; each note ends before or at the next."""

    start: Array
    end: Array
    pitch: Array

    @classmethod
    def of_notes(cls, notes: Score, lowest: bool = False) -> Line:
        """Of notes that begin in one step the highest (or lowest), each cut off where the next begins."""
        start, end = quantize(notes.start), quantize(notes.end)
        order = np.lexsort((notes.pitch if lowest else -notes.pitch, start))
        start, keep = np.unique(start[order], return_index=True)
        end, pitch = end[order][keep], notes.pitch[order][keep].astype(np.int64)
        end = np.maximum(end, start + 1)
        end[:-1] = np.minimum(end[:-1], start[1:])
        return cls(start, end, pitch)

    @classmethod
    def of_tokens(cls, tokens: Array) -> Line:
        """The line that tokens [T] stand for."""
        event = np.flatnonzero(tokens != NO_EVENT)
        end = np.r_[event[1:], len(tokens)]
        onset = tokens[event] >= FIRST_PITCH
        start = event[onset]
        return cls(start, end[onset], tokens[start].astype(np.int64) - FIRST_PITCH + MIN_PITCH)

    def cut(self, first: Array, steps: int) -> Tokens:
        """Tokens of the windows [W, steps] that begin at steps `first` [W]."""
        off = np.setdiff1d(self.end, self.start)
        position = np.r_[self.start, off]
        token = np.r_[self.pitch - MIN_PITCH + FIRST_PITCH, np.full(len(off), NOTE_OFF)].astype(np.int32)
        order = np.argsort(position)
        return cut(position[order], token[order], first, steps)


def is_melody_name(name: str) -> bool:
    """Whether a track so called is the melody."""
    return _MELODY_NAME.search(name) is not None


def transpose(windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
    """Melody tokens [W, ...] moved up by `semitones`, int or int [W].

    A shift that would leave the 88 keys is cut back to what fits, window by window, so that a batch keeps its shape
    and no note is lost (Magenta, which transposes by -5 to 5, drops the notes that fall out).
    """
    flat = windows.reshape(len(windows), -1)
    pitched = flat >= FIRST_PITCH
    lowest = np.where(pitched, flat, FIRST_PITCH).min(axis=1, initial=CLASSES, where=pitched)
    highest = flat.max(axis=1, initial=FIRST_PITCH)
    shift = np.clip(semitones, np.minimum(FIRST_PITCH - lowest, 0), CLASSES - 1 - highest).astype(windows.dtype)
    return (flat + pitched * shift[:, None]).reshape(windows.shape)


def _from_the_first_note(windows: Tokens) -> Tokens:
    """Windows [W, T] without a note-off before their first note."""
    begun = np.maximum.accumulate(windows >= FIRST_PITCH, axis=1)
    return windows * begun


def _chords(parts: list[Score]) -> float:
    """Share of the steps with an onset that have more than one."""
    counts = np.concatenate([np.unique(quantize(part.start), return_counts=True)[1] for part in parts])
    return float((counts > 1).mean())
