"""Humdrum **kern → `Score`: notes, rests, dots, tuplets, chords, ties, metre, and spines that split and join.

Format: Huron, The Humdrum Toolkit (1994), representation **kern. Grace notes are dropped, repeats are not unfolded.
Measures are put on the metre's grid by `bars.align`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from zoo.errors import InputError
from zoo.music.bars import Measures
from zoo.music.score import Score

_LENGTH = re.compile(r"(\d{1,4})(?:%(\d{1,4}))?(\.{0,4})")
_PITCH = re.compile(r"([a-g]+|[A-G]+)([#-]*)")
_METER = re.compile(r"\*M(\d{1,3})/(\d{1,3})$")
_TEMPO = re.compile(r"\*MM(\d{1,4}(?:\.\d{1,4})?)$")
_MAX_SPINES = 1000
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass
class _Spine:
    """A column of the file: its part (None if it holds no notes), and when its last event ends, in quarters."""

    track: int | None
    until: float


def read_kern(text: str, source: str = "kern data") -> Score:
    """The notes of all **kern spines; each such spine of the first line is a track.

    Raises:
      InputError: no **kern spine, or a line that does not fit the spines.
    """
    measures = Measures()
    try:
        now = _read_lines(text, measures, source)
        measures.bar_line(now)
    except ValueError as error:
        raise InputError(f"{source}: damaged **kern ({error}); mend the file") from None
    return measures.score(source)


def _read_lines(text: str, measures: Measures, source: str) -> float:
    """Adds all notes to `measures`; returns where the music ends."""
    spines: list[_Spine] = []
    now = 0.0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("!"):
            continue
        tokens = line.split("\t")
        if not spines:
            spines = _opened(tokens, source)
        elif len(tokens) != len(spines):
            raise ValueError(f"line {number} has {len(tokens)} columns instead of {len(spines)}")
        elif line.startswith("="):
            measures.bar_line(now)
        elif line.startswith("*"):
            _interpret(tokens, spines, measures, now)
            spines = _rearranged(tokens, spines, number)
            if not spines:
                break
        else:
            for token, spine in zip(tokens, spines, strict=True):
                if spine.track is not None and token != ".":
                    spine.until = now + _add(token, spine.track, now, measures, number)
            now = min((spine.until for spine in spines if spine.track is not None), default=now)
    if not len(measures):
        raise ValueError("no notes")
    return now


def _opened(tokens: list[str], source: str) -> list[_Spine]:
    """The spines that the exclusive interpretations of the first line open."""
    tracks = iter(range(len(tokens)))
    spines = [_Spine(next(tracks) if token == "**kern" else None, 0.0) for token in tokens]
    if all(spine.track is None for spine in spines):
        raise InputError(f"{source}: no **kern spine; of Humdrum's representations only **kern is read")
    return spines


def _interpret(tokens: list[str], spines: list[_Spine], measures: Measures, now: float) -> None:
    """Takes metre, tempo and part names from a line of interpretations."""
    for token, spine in zip(tokens, spines, strict=True):
        if spine.track is None:
            continue
        if meter := _METER.match(token):
            measures.meter = (int(meter[1]), int(meter[2])) if int(meter[1]) and int(meter[2]) else None
        elif tempo := _TEMPO.match(token):
            measures.add_tempo(now, max(1.0, float(tempo[1])))
        elif re.match(r"\*M(X|FREI|\d)", token):  # irregular, free ("frei"), or a sum of metres
            measures.meter = None
        elif token.startswith('*I"'):
            measures.names[spine.track] = token[3:]


def _rearranged(tokens: list[str], spines: list[_Spine], number: int) -> list[_Spine]:
    """The spines after a line of interpretations: `*^` splits one, neighbouring `*v` join, `*-` ends one."""
    after: list[_Spine] = []
    previous = ""
    for token, spine in zip(tokens, spines, strict=True):
        if token in ("*+", "*x"):
            raise ValueError(f"line {number}: spines that are added or exchanged ({token}) can't be read")
        if token == "*v" and previous == "*v":
            after[-1].until = max(after[-1].until, spine.until)
        elif token != "*-":
            if len(after) > _MAX_SPINES:
                raise ValueError(f"line {number}: more than {_MAX_SPINES} spines")
            after += [spine, replace(spine)] if token == "*^" else [spine]
        previous = token
    return after


def _add(token: str, track: int, now: float, measures: Measures, number: int) -> float:
    """Adds the notes of a token (several, with spaces between, for a chord); returns its length in quarters."""
    length = 0.0
    for note in token.split():
        if "q" in note or "Q" in note:  # grace note
            continue
        duration = _LENGTH.search(note)
        if not duration:
            raise ValueError(f"line {number}: {note!r} has no duration")
        length = _quarters(duration)
        pitch = _PITCH.search(note)
        if pitch and "r" not in note:
            tie = ("[" in note or "_" in note, "]" in note or "_" in note)
            measures.add_note(now, now + length, _midi_pitch(pitch[1], pitch[2]), track, *tie)
    return length


def _quarters(match: re.Match[str]) -> float:
    """Reciprocal durations: 4 is a quarter, 12 a triplet eighth, 3%2 two thirds of a whole, 0 a breve, 00 a longa."""
    number, divisor, dots = match.groups()
    whole = 2.0 ** len(number) if int(number) == 0 else int(divisor or 1) / int(number)
    return 4 * whole * (2 - 0.5 ** len(dots))


def _midi_pitch(letters: str, accidental: str) -> int:
    """`c` is middle C (60), `cc` the octave above, `C` the octave below, `CC` two below."""
    octave = len(letters) - 1 if letters.islower() else -len(letters)
    return 60 + 12 * octave + _STEPS[letters[0].upper()] + accidental.count("#") - accidental.count("-")
