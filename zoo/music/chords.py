"""Chord symbols as numbers, as Improv RNN is given them (note_seq's `PitchChordsEncoderDecoder`)."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import numpy.typing as npt

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
