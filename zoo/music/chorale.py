"""Chorales as Coconet and Music Transformer have them (Huang et al. 2017, 2018): four voices, a token a sixteenth each.

    0 the voice rests
    1 + (pitch - 36) it sounds, pitch 36 to 81 (C2 to A5, what Bach's chorales need)

A token says what sounds, not what begins: a note struck again can't be told from one held, as in the published data
(Boulanger-Lewandowski et al. 2012, in sixteenths), so `decode` joins equal neighbours to one note. The voices stand in
the order soprano, alto, tenor, bass. There are no bars here, for chorales begin with upbeats and come in any metre: 16
steps count as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER, cut_whole, length, quantize, source, track_name
from zoo.music.score import Score

REST, FIRST_PITCH = 0, 1
MIN_PITCH, MAX_PITCH = 36, 81
CLASSES = FIRST_PITCH + MAX_PITCH - MIN_PITCH + 1
SOPRANO_FROM = 60  # the lowest pitch that Bach gives a soprano
VOICES = ("Soprano", "Alto", "Tenor", "Bass")

Tokens: TypeAlias = npt.NDArray[np.int32]

_MAX_STEPS = 1024 * STEPS_PER_BAR  # of a piece; what follows is left out
_PLACES = {0: (), 1: (0,), 2: (0, 3), 3: (0, 1, 3), 4: (0, 1, 2, 3)}  # which voices sing, of so many notes in a chord
_MELODY_NAME = re.compile(r"sopran|melod|\bvoice\b|\bvocals?\b|\blead\b", re.IGNORECASE)


@dataclass(frozen=True)
class ChoraleCodec:
    """Score ⇄ windows of four voices, int32 [T, 4] in 0..46.

    Of a file with four pitched tracks each is a voice, by their names or else by their mean height; of any other the
    notes that sound together are dealt out by their height, provided there are never more than four.

    Attributes:
      bars: length of a window; `steps` is 16 times that.
      whole: a shorter piece comes whole, followed by padding, 47.
    """

    bars: int = 8
    whole: bool = False

    name: ClassVar[str] = "chorale"
    kind: ClassVar[str] = "multitrack"
    classes: ClassVar[tuple[int, ...]] = (CLASSES,) * len(VOICES)
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """Windows every `hop_bars` bars, and one that ends with the piece, int32 [W, T, 4]; none that rests throughout.

        With `pad` a piece that fills half a window is followed by rests.

        Raises:
          InputError: nothing usable; the message says why.
        """
        tokens = self.encode(score)
        if self.whole:
            return cut_whole(tokens, self.steps, hop_bars, self.classes)
        if len(tokens) < self.steps // 2 or (len(tokens) < self.steps and not pad):
            need = "half of a window" if pad else "a window"
            raise InputError(f"{source(score)}: too short to fill {need} of {self.bars} bars; pass a longer piece")
        tokens = np.pad(tokens, ((0, max(0, self.steps - len(tokens))), (0, 0)))
        last = len(tokens) - self.steps
        starts = sorted({*range(0, last, hop_bars * STEPS_PER_BAR), last})
        windows = np.stack([tokens[start : start + self.steps] for start in starts])
        return windows[windows.any(axis=(1, 2))]

    def encode(self, score: Score) -> Tokens:
        """A whole piece, int32 [T, 4], to the end of its last note.

        Raises:
          InputError: no notes, too many at once, or some out of range.
        """
        notes = _in_range(_pitched(score))
        tracks = np.unique(notes.track)
        if len(tracks) == len(VOICES):
            lines = [_line(notes.select(notes.track == track), notes.quarters) for track in tracks]
            names = [track_name(score, int(track)).capitalize() for track in tracks]
            heights = [-line.mean(where=line >= 0) for line in lines]
            order = map(names.index, VOICES) if sorted(names) == sorted(VOICES) else np.argsort(heights)
            return _tokens(np.stack([lines[i] for i in order], axis=1))
        roll = np.zeros((_steps(notes.quarters), 128), np.bool_)
        for begin, end, pitch in _on_grid(notes):
            roll[begin:end, pitch] = True
        together = roll.sum(axis=1)
        if together.max() > len(VOICES):
            at = int(together.argmax()) / STEPS_PER_QUARTER
            raise InputError(
                f"{source(score)}: {together.max()} notes at once (at quarter {at:g}); pass a piece for four voices"
            )
        pitches = np.full((len(roll), len(VOICES)), -1, np.int32)
        for step, chord in enumerate(roll):
            pitches[step, _PLACES[together[step]]] = np.flatnonzero(chord)[::-1]
        return _tokens(pitches)

    def melody(self, score: Score) -> Tokens:
        """A melody as a soprano, int32 [T]: the track so named, else the highest note at each step.

        It is moved by octaves to where all of it is in a soprano's range, or as near as it gets.

        Raises:
          InputError: no notes, or they span more than any voice.
        """
        notes = _pitched(score)
        named = [track for track in np.unique(notes.track) if _MELODY_NAME.search(track_name(score, int(track)))]
        line = _line(notes.select(notes.track == named[0]) if named else notes, notes.quarters)
        low, high = int(line[line >= 0].min()), int(line.max())
        octaves = [k for k in range(-8, 9) if low + 12 * k >= MIN_PITCH and high + 12 * k <= MAX_PITCH]
        if not octaves:
            raise InputError(f"{source(score)}: spans {high - low} semitones; pass a melody for one voice")
        nearest = min(octaves, key=lambda k: (max(0, SOPRANO_FROM - low - 12 * k), abs(k)))
        return _tokens(np.where(line >= 0, line + 12 * nearest, -1))

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The notes of tokens [T, 4] of any length T, each voice a track."""
        tokens = np.asarray(window)
        return score_of(np.where(tokens == REST, -1, tokens - FIRST_PITCH + MIN_PITCH), qpm, velocity)

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, T, 4] moved up by `semitones`, int or int [W], cut back to what fits, window by window."""
        flat = windows.reshape(len(windows), -1)
        sounding = (flat > REST) & (flat < CLASSES)
        lowest = flat.min(axis=1, initial=CLASSES - 1, where=sounding)
        highest = flat.max(axis=1, initial=FIRST_PITCH, where=sounding)
        shift = np.clip(semitones, FIRST_PITCH - lowest, CLASSES - 1 - highest).astype(windows.dtype)
        return (flat + sounding * shift[:, None]).reshape(windows.shape)

    def lengths(self, windows: Tokens) -> npt.NDArray[np.int64]:
        """Steps of each window [W, T, 4] before its padding, int64 [W]."""
        return length(windows[..., 0] < CLASSES)


def score_of(pitches: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
    """The notes of MIDI pitches int [T, 4], -1 for a rest; equal neighbours are one note."""
    columns = []
    for track, line in enumerate(np.asarray(pitches).T):
        start = np.flatnonzero(np.diff(line, prepend=-2))
        end = np.append(start[1:], len(line))
        pitch = line[start]
        rows = np.stack([start / STEPS_PER_QUARTER, end / STEPS_PER_QUARTER, pitch, np.full(len(start), track)])
        columns.append(rows[:, pitch >= 0])
    start, end, pitch, track = np.hstack(columns)
    return Score.of(
        start, end, pitch, velocity, track, tempos=np.array([[0.0, qpm]]), meters=np.zeros((0, 3)), track_names=VOICES
    )


def _pitched(score: Score) -> Score:
    notes = score.select(~score.is_drum)
    if not len(notes):
        raise InputError(f"{source(score)}: {'only drums' if len(score) else 'no notes'}; pass a file with a melody")
    return notes


def _in_range(notes: Score) -> Score:
    """`notes`, unless some are out of the four voices' range. Raises InputError."""
    low, high = int(notes.pitch.min()), int(notes.pitch.max())
    if low < MIN_PITCH or high > MAX_PITCH:
        raise InputError(
            f"{source(notes)}: pitches {low} to {high}, and the four voices have {MIN_PITCH} (C2) to {MAX_PITCH} (A5); "
            "transpose it"
        )
    return notes


def _on_grid(notes: Score) -> list[tuple[int, int, int]]:
    """(first step, step after the last, pitch) of each note, every one a step long at least, in order of onset."""
    start = quantize(notes.start)
    end = np.maximum(quantize(notes.end), start + 1)
    return list(zip(start.tolist(), end.tolist(), notes.pitch.tolist(), strict=True))


def _steps(quarters: float) -> int:
    return min(max(1, int(quantize(quarters))), _MAX_STEPS)


def _line(notes: Score, quarters: float) -> npt.NDArray[np.int32]:
    """The highest pitch that begins or sounds on at each step, -1 for none, int32 [T]; a note ends where one begins."""
    line = np.full(_steps(quarters), -1, np.int32)
    for begin, end, pitch in _on_grid(notes):  # notes that begin together come from low to high
        line[begin:] = -1
        line[begin:end] = pitch
    return line


def _tokens(pitches: npt.NDArray[np.int32]) -> Tokens:
    return np.where(pitches < 0, REST, pitches - MIN_PITCH + FIRST_PITCH).astype(np.int32)
