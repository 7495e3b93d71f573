"""Chord labels in Harte's notation ("A:min7/b3"; Harte et al., ISMIR 2005), and chords in time: .lab files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import InputError

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
FLAT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
DEGREES = ("1", "b2", "2", "b3", "3", "4", "b5", "5", "b6", "6", "b7", "7")  # by semitones above the root
NO_CHORD, OTHER = "N", "X"  # silence or no harmony; a chord that the vocabulary lacks

# Semitones above the root.
QUALITIES: dict[str, tuple[int, ...]] = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "maj6": (0, 4, 7, 9),
    "min6": (0, 3, 7, 9),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "7": (0, 4, 7, 10),
    "dim7": (0, 3, 6, 9),
    "hdim7": (0, 3, 6, 10),
    "minmaj7": (0, 3, 7, 11),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
}


@dataclass(frozen=True)
class ChordSpan:
    """A chord and when it sounds, in seconds; `confidence` 0–1."""

    start: float
    end: float
    label: str
    confidence: float = 1.0


def root(label: str) -> int | None:
    """The pitch class (0 is C) of a chord's root; None for "N" and "X"."""
    return None if label in (NO_CHORD, OTHER) else NAMES.index(label.split(":")[0])


def pitch_classes(label: str) -> frozenset[int]:
    """The pitch classes (0 is C) of a chord of `QUALITIES`; none for "N" and "X"."""
    lowest = root(label)
    if lowest is None:
        return frozenset()
    quality = label.split("/")[0].split(":")[1]
    return frozenset((lowest + semitone) % 12 for semitone in QUALITIES[quality])


EXTENSIONS = {"9": "7", "11": "7", "13": "7", "maj9": "maj7", "maj11": "maj7", "maj13": "maj7"} | {
    "min9": "min7", "min11": "min7", "min13": "min7", "min7b5": "hdim7", "aug7": "aug", "6": "maj6", "": "maj"
}  # fmt: skip


def simplified(label: str) -> str:
    """Any label as a root out of `NAMES` and one of `QUALITIES`, "N" or "X": "Bb:min9(*5)/b3" → "A#:min7".

    The bass and added notes are left out, ninths and what lies beyond count as sevenths. "X" is what has no third and
    isn't suspended, and whatever can't be read.
    """
    if label in (NO_CHORD, OTHER):
        return label
    name, _, rest = label.partition("/")[0].partition(":")
    quality = rest.partition("(")[0]
    quality = EXTENSIONS.get(quality, quality)
    letter, signs = name[:1], name[1:]
    if letter not in NAMES or signs.strip("#b") or quality not in QUALITIES or rest.startswith("("):
        return OTHER
    return f"{NAMES[(NAMES.index(letter) + signs.count('#') - signs.count('b')) % 12]}:{quality}"


SUFFIXES = {  # of chord symbols, where a quality is written otherwise there
    "maj": "", "min": "m", "aug": "+", "maj6": "6", "min6": "m6", "min7": "m7", "hdim7": "m7b5", "minmaj7": "m(maj7)",
}  # fmt: skip


def to_symbol(label: str) -> str:
    """A label as a chord symbol: "Bb:min7/b3" is "Bbm7/Db", "N" and "X" are "N.C.".

    Raises ValueError for what is no label.
    """
    if label in (NO_CHORD, OTHER):
        return "N.C."
    name, _, rest = label.partition(":")
    quality, _, degree = (rest or "maj").partition("/")
    quality, _, added = quality.partition("(")
    symbol = name + SUFFIXES.get(quality, quality) + {"b7)": "(add7)"}.get(added, "")
    if not degree or degree == "1":
        return symbol
    lowest = "C D EF G A B".index(name[0]) + name.count("#") - name.count("b")
    number = degree.lstrip("#b")
    semitones = (0, 2, 4, 5, 7, 9, 11)[(int(number) - 1) % 7] + degree.count("#") - degree.count("b")
    return f"{symbol}/{(FLAT_NAMES if 'b' in name + degree else NAMES)[(lowest + semitones) % 12]}"


def with_bass(label: str, bass: int) -> str:
    """The chord over a bass note (0 is C): as an inversion where that is another note of the chord, else as it is."""
    lowest = root(label)
    if lowest is None or bass == lowest or bass not in pitch_classes(label):
        return label
    return f"{label}/{DEGREES[(bass - lowest) % 12]}"


def to_lab(chords: Iterable[ChordSpan]) -> str:
    """Lines of start, end and label, separated by tabs: what MIREX and Sonic Visualiser read."""
    return "".join(f"{chord.start:.6f}\t{chord.end:.6f}\t{chord.label}\n" for chord in chords)


def read_lab(path: str | os.PathLike[str]) -> list[ChordSpan]:
    """The chords of a .lab file, in order. Raises InputError if it is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        cells = [line.split() for line in lines if line.strip()]
        return [ChordSpan(float(start), float(end), label) for start, end, label in cells]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no chords can be read ({error}); give lines of start, end and label") from error
