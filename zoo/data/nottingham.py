"""The Nottingham tunes: MIDI of two tracks, a melody and its chords, which were printed as symbols and come as blocks.

Every block is one chord in root position, of six kinds, so that the symbols can be read back exactly.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np

from zoo.music.harmony import QUALITIES
from zoo.music.harte import NAMES
from zoo.music.io import read
from zoo.music.score import Score

_REST = 0.5  # quarters without a chord before the next that count as no chord


def is_song(path: Path) -> bool:
    """Whether `path` is a tune of the data set: MIDI with its two parts in folders beside it."""
    return path.suffix == ".mid" and all((path.parent / part / path.name).is_file() for part in ("chords", "melody"))


def read_song(path: Path) -> Score:
    """The tune as it is, both tracks, and the second's chords as symbols. Errors as for `zoo.music.io.read`."""
    score = read(path)
    return replace(score, chords=symbols(score.select(score.track == 1)))


def symbols(blocks: Score) -> tuple[tuple[float, str], ...]:
    """Chord symbols of notes that begin in blocks; blocks of other kinds are "N.C."."""
    kinds = {semitones: suffix for suffix, semitones in QUALITIES.items()}
    found: list[tuple[float, str]] = []
    until = np.inf
    for at, group in groupby(range(len(blocks)), key=lambda i: round(float(blocks.start[i]), 3)):
        rows = list(group)
        if at - until >= _REST:
            found.append((until, "N.C."))
        lowest = int(blocks.pitch[rows].min())
        kind = kinds.get(tuple(sorted({int(pitch) - lowest for pitch in blocks.pitch[rows]})))
        symbol = "N.C." if kind is None else NAMES[lowest % 12] + kind
        if not found or found[-1][1] != symbol:
            found.append((at, symbol))
        until = float(blocks.end[rows].max())
    return tuple(found)
