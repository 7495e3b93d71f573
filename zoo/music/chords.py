"""Chord symbols as numbers, as Improv RNN is given them (note_seq's `PitchChordsEncoderDecoder`)."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import numpy.typing as npt

from zoo.music import harte
from zoo.music.score import Score

NO_CHORD = 0
_THERE = 1 << 20


@cache
def pack_chord(symbol: str) -> int:
    """A symbol as 1 << 20 | bass << 16 | root << 12 | a bit for each pitch class; 0 for none and what can't be read."""
    with warnings.catch_warnings():  # note_seq imports what is deprecated
        warnings.simplefilter("ignore")
        from note_seq import chord_symbols_lib

    try:
        pitches = chord_symbols_lib.chord_symbol_pitches(symbol)
        root, bass = chord_symbols_lib.chord_symbol_root(symbol), chord_symbols_lib.chord_symbol_bass(symbol)
    except chord_symbols_lib.ChordSymbolError:
        return NO_CHORD
    return _THERE | bass << 16 | root << 12 | sum(1 << pitch for pitch in set(pitches))


def move_chords(chords: npt.NDArray[np.int32], semitones: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Packed chords [...] moved up; `semitones` broadcasts to them."""
    up = np.asarray(semitones) % 12
    root, bass = ((chords >> shift & 15) + up for shift in (12, 16))
    pitches = chords & 4095
    pitches = (pitches << up | pitches >> (12 - up)) & 4095
    moved = _THERE | bass % 12 << 16 | root % 12 << 12 | pitches
    return np.where(chords == NO_CHORD, NO_CHORD, moved).astype(np.int32)


def from_symbol(symbol: str) -> str:
    """A chord symbol in Harte's notation without its bass, of the kinds in `QUALITIES`: "F#m9/B" → "F#:min7".

    Of a chord that is none of them the largest in it counts; "X" where there is none, "N" for "N.C." and "".
    """
    if symbol in ("N.C.", "NC", ""):
        return harte.NO_CHORD
    chord = pack_chord(symbol)
    root = chord >> 12 & 15
    there = {semitone for semitone in range(12) if chord >> (root + semitone) % 12 & 1}
    inside = [quality for quality, semitones in harte.QUALITIES.items() if there.issuperset(semitones)]
    if chord == NO_CHORD or not inside:
        return harte.OTHER
    return f"{harte.NAMES[root]}:{max(inside, key=lambda quality: len(harte.QUALITIES[quality]))}"


def symbols_in_time(score: Score) -> tuple[harte.ChordSpan, ...]:
    """A score's chord symbols in Harte's notation, in seconds, each until the next; none if it has none."""
    begins = score.seconds_at([at for at, _ in score.chords]).tolist()
    ends = [*begins[1:], max([float(score.seconds_at(score.quarters)), *begins])]
    spans = zip(begins, ends, score.chords, strict=False)
    return tuple(harte.ChordSpan(start, end, from_symbol(symbol)) for start, end, (_, symbol) in spans if end > start)
