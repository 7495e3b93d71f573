"""Four voices judged by rule: what a teacher of counterpoint would mark, counted, and what was copied.

Music is int [T, 4], MIDI pitches in sixteenths, soprano first, below 0 for a rest (see `zoo.music.chorale`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

Music = npt.NDArray[np.int32]

RANGES = ((60, 81), (53, 74), (48, 69), (36, 64))  # of a choir's soprano, alto, tenor and bass, generously
DISSONANT = (1, 2, 6, 10, 11)  # seconds, the tritone and sevenths, in semitones within an octave; fourths are left out
BEAT, BAR = 4, 16


def faults(pieces: Sequence[Music]) -> dict[str, float]:
    """Of all pieces together:

    `parallel_fifths`, `parallel_octaves`: a hundred beats have so many; two voices that both move, from one such
    interval (or an octave more) to another. `crossing`: share of sixteenths at which a voice is above its upper
    neighbour. `out_of_range`: share of a voice's sixteenths outside RANGES. `dissonant_beats`: share of beats on which
    two voices are a second, a tritone or a seventh apart, octaves more or less.
    """
    beats = sum(len(piece) for piece in pieces) / BEAT
    sounding = sum(int((piece >= 0).sum()) for piece in pieces)
    low, high = np.array(RANGES).T
    return {
        "parallel_fifths": 100 * sum(parallels(piece, 7) for piece in pieces) / beats,
        "parallel_octaves": 100 * sum(parallels(piece, 0) for piece in pieces) / beats,
        "crossing": float(np.mean(np.concatenate([crossings(piece) for piece in pieces]))),
        "out_of_range": sum(int(((p >= 0) & ((p < low) | (p > high))).sum()) for p in pieces) / max(1, sounding),
        "dissonant_beats": float(np.mean(np.concatenate([dissonances(piece[::BEAT]) for piece in pieces]))),
    }


def parallels(piece: Music, interval: int) -> int:
    """How often two voices move both, and are `interval` semitones (and octaves) apart before and after."""
    count = 0
    for upper, lower in combinations(piece.T, 2):
        both = (upper >= 0) & (lower >= 0)
        apart = both & ((upper - lower) % 12 == interval)
        moved = (np.diff(upper) != 0) & (np.diff(lower) != 0)
        count += int((apart[1:] & apart[:-1] & moved).sum())
    return count


def crossings(piece: Music) -> npt.NDArray[np.bool_]:
    """At which steps some voice is above its upper neighbour, bool [T]."""
    upper, lower = piece[:, :-1], piece[:, 1:]
    return np.asarray(((upper >= 0) & (lower > upper)).any(axis=1))


def dissonances(chords: Music) -> npt.NDArray[np.bool_]:
    """Which chords int [N, 4] hold a dissonance, bool [N]."""
    found = np.zeros(len(chords), np.bool_)
    for upper, lower in combinations(chords.T, 2):
        found |= (upper >= 0) & (lower >= 0) & np.isin(np.abs(upper - lower) % 12, DISSONANT)
    return found


def copied_bars(pieces: Iterable[Music], originals: Iterable[Music]) -> float:
    """Share of the bars of `pieces` that stand in `originals`, from any beat on and in any transposition."""
    known = {print_ for piece in originals for print_ in bars(piece, BEAT)}
    found = [print_ in known for piece in pieces for print_ in bars(piece, BAR)]
    return float(np.mean(found)) if found else 0.0


def bars(piece: Music, hop: int) -> list[bytes]:
    """A value for each stretch of 16 sixteenths, every `hop`, the same for its transpositions."""
    prints = []
    for at in range(0, len(piece) - BAR + 1, hop):
        bar = piece[at : at + BAR]
        first = bar[bar >= 0][:1]
        prints.append(np.where(bar >= 0, bar - (first[0] if len(first) else 0), -1000).astype(np.int16).tobytes())
    return prints
