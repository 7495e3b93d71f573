"""The sections of a song: what each is for ("verse", "chorus"), which are alike (their letters), and .lab files.

Annotators of SALAMI (Smith et al., ISMIR 2011) and of the McGill Billboard (Burgoyne et al., ISMIR 2011) choose the
words freely; `function_of` brings them down to `FUNCTIONS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from zoo.errors import InputError

FUNCTIONS = (
    "silence", "intro", "verse", "prechorus", "chorus", "bridge", "solo", "instrumental", "outro", "other"
)  # fmt: skip

SHORTEST = 1.0  # s of a silence at a song's end that counts as a section

_WORDS = {  # the first that is part of a label decides
    "silence": "silence",
    "end": "silence",
    "pre-intro": "intro",
    "intro": "intro",
    "prechorus": "prechorus",
    "pre-chorus": "prechorus",
    "pre chorus": "prechorus",
    "refrain": "chorus",
    "chorus": "chorus",
    "hook": "chorus",
    "pre-verse": "instrumental",
    "verse": "verse",
    "bridge": "bridge",
    "middle": "bridge",
    "solo": "solo",
    "interlude": "instrumental",
    "instrumental": "instrumental",
    "break": "instrumental",
    "trans": "instrumental",
    "theme": "instrumental",
    "outro": "outro",
    "coda": "outro",
    "ending": "outro",
    "fade": "outro",
}
_LETTER = re.compile(r"[A-Z]'*")


@dataclass(frozen=True)
class Section:
    """A part of a song from `start` to `end` (s); `confidence` 0–1 is of the boundary at its start.

    `label` says what it is for, in the annotator's word or one of `FUNCTIONS`, "" for nothing; sections that sound
    alike share a `letter`, "" where nobody said.
    """

    start: float
    end: float
    label: str
    letter: str = ""
    confidence: float = 1.0

    @property
    def function(self) -> str:
        """The label as one of `FUNCTIONS`."""
        return function_of(self.label)


def function_of(label: str) -> str:
    """An annotator's word as one of `FUNCTIONS`: "pre chorus" is "prechorus", "fade out" is "outro"."""
    text = label.strip().lower()
    if text == "end" or text in FUNCTIONS:
        return _WORDS.get(text, text)
    return next((function for word, function in _WORDS.items() if word != "end" and word in text), "other")


def likeness(section: Section) -> str:
    """What sections that sound alike share: the letter without its primes, "silence", or "" where nobody said."""
    return "silence" if section.function == "silence" else section.letter.rstrip("'")


def tidy(sections: Iterable[Section], seconds: float) -> tuple[Section, ...]:
    """One section after another from 0 to `seconds`; less than `SHORTEST` of silence at an end joins its neighbour."""
    kept = [part for part in sections if part.start < seconds]
    if len(kept) > 1 and kept[0].function == "silence" and kept[0].end - kept[0].start < SHORTEST:
        kept = kept[1:]
    if len(kept) > 1 and kept[-1].function == "silence" and seconds - kept[-1].start < SHORTEST:
        kept = kept[:-1]
    if not kept:
        return (Section(0.0, seconds, ""),)
    starts = [0.0, *(part.start for part in kept[1:]), seconds]
    return tuple(replace(part, start=a, end=b) for part, (a, b) in zip(kept, pairwise(starts), strict=True))


def parse(text: str) -> tuple[str, str]:
    """(letter, label) of "A, verse", "verse" or "A"."""
    letter, comma, label = (part.strip() for part in text.partition(","))
    if _LETTER.fullmatch(letter):
        return letter, label
    return "", f"{letter}{comma} {label}".strip()


def to_lab(sections: Iterable[Section]) -> str:
    """Lines of start, end and "letter, label", separated by tabs."""
    told = ((s.start, s.end, ", ".join(filter(None, (s.letter, s.label)))) for s in sections)
    return "".join(f"{start:.6f}\t{end:.6f}\t{text}\n" for start, end, text in told)


def read_lab(path: str | os.PathLike[str]) -> list[Section]:
    """The sections of a .lab file, in order. Raises InputError if it is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        cells = [line.split(None, 2) for line in lines if line.strip()]
        parsed = [(float(start), float(end), *parse(text)) for start, end, text in cells]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no sections can be read ({error}); give lines of start, end and label") from error
    return [Section(start, end, label, letter) for start, end, letter, label in parsed]
