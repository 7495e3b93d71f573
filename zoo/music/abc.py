"""ABC tunebooks → `Score`, through note_seq's parser, which knows no chords, tuplets, voices or variant endings."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

from zoo.errors import InputError
from zoo.music.bars import align
from zoo.music.note_sequence import from_note_sequence
from zoo.music.score import Score

_TUNE = re.compile(r"^(?=X:)", re.MULTILINE)
_KEY = re.compile(r"^K:.*\n?", re.MULTILINE)  # the last line of a tune's header
_BAR_LINE = re.compile(r"[|\[\]:]*\|[|\[\]:]*")


def read_abc(text: str, source: str = "ABC data") -> tuple[list[Score], list[InputError]]:
    """The tunes of a tunebook, each with a pickup moved as `bars.align` has it, and the errors of those left out."""
    header, *tunes = _TUNE.split(text.replace("\r\n", "\n"))
    scores: list[Score] = []
    errors: list[InputError] = []
    for number, tune in enumerate(tunes, 1):
        name = source if len(tunes) == 1 else f"{source}, tune {number}"
        try:
            scores.append(_read_tune(header + tune, name))
        except InputError as error:
            errors.append(error)
    return scores, errors


def _read_tune(tune: str, source: str) -> Score:
    score = _parse(tune, source)
    key = _KEY.search(tune)
    if not key or not len(score):
        raise InputError(f"{source}: no notes after the key (K:); mend the tune")
    lines = [segment for segment in _BAR_LINE.split(tune[key.end() :]) if segment.strip()]
    pickup = _parse(tune[: key.end()] + lines[0], source).quarters
    numerator, denominator = (int(x) for x in score.meters[0, 1:]) if len(score.meters) else (4, 4)
    bar = 4 * numerator / denominator
    (shift, _), _ = align([pickup, bar], [(numerator, denominator)] * 2)
    chords = tuple((at + shift, symbol) for at, symbol in score.chords)
    return replace(score, start=score.start + shift, end=score.end + shift, chords=chords)


def _parse(tune: str, source: str) -> Score:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydub, which note_seq imports, looks for ffmpeg and has stale escapes
        from note_seq import abc_parser
    try:
        tunes, errors = abc_parser.parse_abc_tunebook(tune)
    except Exception as error:  # the parser raises KeyError, ValueError, … on what it does not expect
        tunes, errors = {}, [error]
    if not tunes:
        reason = " ".join(str(error) or type(error).__name__ for error in errors)
        raise InputError(f"{source}: note_seq can't read this ABC ({reason}); export it as MusicXML")
    return from_note_sequence(next(iter(tunes.values())), source)
