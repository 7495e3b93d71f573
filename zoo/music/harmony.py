"""Lead sheets for learning to harmonise: a melody in sixteenths, and a chord for each slot of half a bar.

A slot is two quarters, in compound metres a dotted quarter: 4/4 and 6/8 have two to the bar, 9/8 has three; the last
of a bar may be shorter, so 3/4 has a long and a short one and its chords can change on the third beat. One chord a slot
is right for 97 % of the time in OpenEWLD, 99 % in Nottingham and 96 % in POP909; 88, 98 and 84 % of their chords begin
on a slot. A slot has eight cells, of which a short one leaves the last empty. So all metres share one grid, and a token
is told which slot of its bar it is in.

A cell of the melody says what sounds, and whether it begins there:

    0 silence, 1 + i a note of pitch 48 + i begins, 37 + i it goes on; 73 there is no such cell

and a chord is one of 109, root by root within each quality:

    0 no chord, 1 + 12 · quality + root; 109 not known

The qualities are nine: 89 % of OpenEWLD's symbols are exactly one of them but for the bass, 94 % of POP909's and all of
Nottingham's. The others, with sixths, ninths and what else is added, are read as the one that shares their third, fifth
and seventh (see `quality_of`). Pieces are moved to C, or rather to the major scale that most of their notes fit to that
of C, as for Improv RNN: what is a cadence in one key is one in all, and a small network need learn it only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import chords as packed
from zoo.music.grid import (
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    beginning,
    cut_whole,
    length,
    metres,
    quantize,
    source,
    track_name,
)
from zoo.music.harte import FLAT_NAMES, NAMES
from zoo.music.melody import Line, is_melody_name
from zoo.music.melody_events import HIGH, LOW, shift_to_c, wrap
from zoo.music.score import Score

SLOT, PLACES = 8, 4  # cells of a slot; slots of a bar that are told apart
SILENT, ONSET = 0, 1
HELD = ONSET + HIGH - LOW
MELODY = HELD + HIGH - LOW  # number of the melody's tokens, and the empty cell
QUALITIES = {  # suffix of a chord symbol: semitones above the root
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "m7": (0, 3, 7, 10),
    "dim": (0, 3, 6),
    "m7b5": (0, 3, 6, 10),
    "+": (0, 4, 8),
    "sus4": (0, 5, 7),
}
NO_CHORD = 0
CHORDS = 1 + 12 * len(QUALITIES)  # number of chords, and the one that isn't known

Tokens = npt.NDArray[np.int32]


class Piece(NamedTuple):
    """A melody on the grid of slots.

    Attributes:
      tokens: int32 [8 · S, 3]: melody, chord, slot of the bar.
      begins: float64 [S + 1], where the slots begin, in quarters of the score; the last is where the piece ends.
      shift: semitones that it was moved up.
    """

    tokens: Tokens
    begins: npt.NDArray[np.float64]
    shift: int


@dataclass(frozen=True)
class HarmonyCodec:
    """Score with chord symbols ⇄ windows int32 [T, 3] of melody, chords and places in the bar.

    The melody is the track so named, or else the first that has no more than a few chords, or else the highest notes.

    Attributes:
      bars: of the longest window, counted in 4/4; `steps`, cells, is 16 times that. A shorter piece comes whole.
    """

    bars: int = 16

    name: ClassVar[str] = "harmony"
    kind: ClassVar[str] = "multitrack"
    classes: ClassVar[tuple[int, ...]] = (MELODY, CHORDS, PLACES)
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER
    any_meter: ClassVar[bool] = True

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def windows(self, score: Score, hop_bars: int = 8, pad: bool = False) -> Tokens:
        """The piece in windows every `hop_bars` bars, int32 [W, T, 3].

        Behind the end of a piece cells are empty and chords unknown.

        Raises:
          InputError: nothing usable; the message says why.
        """
        if not score.chords:
            raise InputError(f"{source(score)}: has no chord symbols; pass a lead sheet, in MusicXML or ABC say")
        return cut_whole(self.encode(score).tokens, self.steps, hop_bars, (MELODY, CHORDS, 0))

    def encode(self, score: Score) -> Piece:
        """The piece from the slot where its melody begins to that where it ends.

        Chords are unknown where the score has no symbols.

        Raises:
          InputError: no melody.
        """
        line = Line.of_notes(beginning(melody_of(score)))
        shift = int(shift_to_c(line.pitch[None], np.ones((1, len(line.pitch)), bool))[0])
        begins, place = slots(score, int(line.end[-1]))
        total = int(begins[-1])
        slot = np.repeat(np.arange(len(place)), np.diff(begins))
        cell = slot * SLOT + np.arange(total) - begins[slot]
        tokens = np.full((len(place) * SLOT, 3), MELODY, np.int32)
        tokens[cell, 0] = _sounding(line, shift, total)
        tokens[:, 1] = np.repeat(_chords(score, begins, shift), SLOT)
        tokens[:, 2] = np.repeat(place, SLOT)
        sounding = np.flatnonzero((tokens[:, 0] > SILENT) & (tokens[:, 0] < MELODY)) // SLOT
        first, last = int(sounding[0]), int(sounding[-1]) + 1
        return Piece(tokens[first * SLOT : last * SLOT], begins[first : last + 1] / STEPS_PER_QUARTER, shift)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The notes and chord symbols of a window [T, 3], as many quarters to a slot as it has cells; in C."""
        tokens = np.asarray(window)
        tokens = tokens[tokens[:, 0] < MELODY]
        cells = tokens[:, 0]
        start = np.flatnonzero((cells >= ONSET) & (cells < HELD))
        stops = np.append(np.flatnonzero(cells < HELD), len(cells))
        end = stops[np.searchsorted(stops, start, side="right")]
        changes = np.flatnonzero(np.diff(tokens[:, 1], prepend=-1))
        symbols = [(at / STEPS_PER_QUARTER, symbol_of(int(tokens[at, 1]))) for at in changes if tokens[at, 1] < CHORDS]
        return Score.of(
            start / STEPS_PER_QUARTER, end / STEPS_PER_QUARTER, cells[start] - ONSET + LOW, velocity,
            tempos=np.array([[0.0, qpm]]), chords=tuple(symbols), track_names=("Melody",),
        )  # fmt: skip

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, T, 3] moved up by `semitones`, int or int [W]; notes out of range by octaves."""
        up = np.broadcast_to(semitones, len(windows))[:, None]
        cells, chord = windows[..., 0], windows[..., 1]
        held = cells >= HELD
        pitch = wrap(cells - np.where(held, HELD, ONSET) + LOW + up) - LOW + np.where(held, HELD, ONSET)
        moved = np.where((cells > SILENT) & (cells < MELODY), pitch, cells)
        rooted = (chord > NO_CHORD) & (chord < CHORDS)
        chord = np.where(rooted, (chord - 1) // 12 * 12 + ((chord - 1) % 12 + up) % 12 + 1, chord)
        return np.stack([moved, chord, windows[..., 2]], axis=-1).astype(np.int32)

    def lengths(self, windows: Tokens) -> npt.NDArray[np.int64]:
        """Cells of each window [W, T, 3] before its end, int64 [W]."""
        return length(windows[..., 0] < MELODY)


def melody_of(score: Score) -> Score:
    """The notes of the melody. Raises InputError where there are none."""
    pitched = score.select(~score.is_drum)
    if not len(pitched):
        raise InputError(f"{source(score)}: {'only drums' if len(score) else 'no notes'}; pass a file with a melody")
    tracks = [pitched.select(pitched.track == track) for track in np.unique(pitched.track)]
    named = [part for part in tracks if is_melody_name(track_name(score, int(part.track[0])))]
    single = [part for part in tracks if (np.diff(quantize(part.start)) == 0).mean() < 0.1 or len(part) == 1]
    return (named or single or [pitched])[0]


def slots(score: Score, last: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where slots begin, in steps, up to the end of the bar with step `last`: int64 [S + 1], and places int64 [S]."""
    sizes, place = [], []
    for begin, end, (numerator, denominator) in metres(score):
        at, stop = int(quantize(begin)), min(last, int(quantize(min(end, 1e9))))
        bar = _bar(int(numerator), int(denominator))
        while at < stop:
            for i, size in enumerate(bar):
                if end < np.inf and at >= stop:
                    break
                sizes.append(min(size, int(quantize(end)) - at) if end < np.inf else size)
                place.append(min(i, PLACES - 1))
                at += size
    return np.cumsum([0, *sizes]), np.array(place, np.int64)


@cache
def _bar(numerator: int, denominator: int) -> tuple[int, ...]:
    """Steps of the slots of a bar; 1/4 and 2/4 are joined to four quarters, as elsewhere."""
    steps = max(1, round(16 * numerator / denominator))
    steps = STEPS_PER_BAR if steps in (4, 8) else steps
    unit = 6 if denominator >= 8 and numerator % 3 == 0 else SLOT
    return (unit,) * (steps // unit) + ((steps % unit,) if steps % unit else ())


def _sounding(line: Line, shift: int, total: int) -> Tokens:
    """What sounds at each step, int32 [total]."""
    tokens = np.zeros(total, np.int32)
    for start, end, pitch in zip(line.start, line.end, wrap(line.pitch + shift) - LOW, strict=True):
        tokens[start:end] = HELD + pitch
        tokens[start] = ONSET + pitch
    return tokens


def _chords(score: Score, begins: npt.NDArray[np.int64], shift: int) -> Tokens:
    """The chord of each slot, the one that fills most of it; int32 [S]."""
    if not score.chords:
        return np.full(len(begins) - 1, CHORDS, np.int32)
    at = quantize([time for time, _ in score.chords])
    named = np.array([NO_CHORD, *(token_of(symbol, shift) for _, symbol in score.chords)], np.int32)
    steps = named[np.searchsorted(at, np.arange(begins[-1]), side="right")]
    parts = [steps[a:b] for a, b in pairwise(begins)]
    return np.array([max(part.tolist(), key=part.tolist().count) for part in parts], np.int32)


def token_of(symbol: str, shift: int = 0) -> int:
    """The token of a chord symbol moved up by `shift` semitones; 0 for none and what can't be read."""
    chord = packed.pack_chord(symbol)
    if chord == packed.NO_CHORD:
        return NO_CHORD
    root = chord >> 12 & 15
    pitches = frozenset((pitch - root) % 12 for pitch in range(12) if chord >> pitch & 1)
    return 1 + 12 * list(QUALITIES).index(quality_of(pitches)) + (root + shift) % 12


def quality_of(pitches: frozenset[int]) -> str:
    """Of `QUALITIES` the one that shares third, fifth and seventh with a chord, semitones above its root."""
    if 4 in pitches:
        if 8 in pitches and 7 not in pitches and 10 not in pitches:
            return "+"
        return "7" if 10 in pitches else "maj7" if 11 in pitches else ""
    if 3 in pitches:
        if 6 in pitches and 7 not in pitches:
            return "m7b5" if 10 in pitches else "dim"
        return "m7" if 10 in pitches else "m"
    return "sus4" if 5 in pitches or 2 in pitches else ""


def symbol_of(token: int, shift: int = 0, flats: bool = False) -> str:
    """The chord symbol of a token, moved up by `shift` semitones; "N.C." for none."""
    if token == NO_CHORD:
        return "N.C."
    quality, root = divmod(token - 1, 12)
    return (FLAT_NAMES if flats else NAMES)[(root + shift) % 12] + list(QUALITIES)[quality]


def pitch_classes(token: int) -> frozenset[int]:
    """The pitch classes of a chord; none for no chord."""
    if token == NO_CHORD:
        return frozenset()
    quality, root = divmod(token - 1, 12)
    return frozenset((root + semitone) % 12 for semitone in list(QUALITIES.values())[quality])


def voiced(token: int, shift: int = 0) -> tuple[int, ...]:
    """A chord, moved up by `shift` semitones, as a pianist's left hand might play it; () for none.

    That is its root from E2 up, and all of it from E3 up.
    """
    if token == NO_CHORD:
        return ()
    root = (token - 1) % 12 + shift
    return (40 + (root - 40) % 12, *sorted(52 + (pitch + shift - 52) % 12 for pitch in pitch_classes(token)))


def prefers_flats(key: int) -> bool:
    """Whether a major key (0 is C) is written with flats."""
    return key in (1, 3, 5, 8, 10)
