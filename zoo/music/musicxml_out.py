"""`Score` → MusicXML: a part for each monophonic track, chord symbols above the first; what notation programs open.

Notes come on a grid of sixteenths, tied over bar lines and wherever one note can't be written as one. A chord symbol
that falls into a note stands before it with an offset.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from zoo.music.grid import STEPS_PER_QUARTER, metres, quantize, track_name
from zoo.music.harte import FLAT_NAMES, NAMES
from zoo.music.melody import Line
from zoo.music.musicxml import ACCIDENTALS, KINDS
from zoo.music.score import Score

FIFTHS = (0, -5, 2, -3, 4, -1, 6, 1, -4, 3, -2, 5)  # of the major scale on each pitch class: sharps, or flats below 0
_WRITTEN = {16: "whole", 12: "half.", 8: "half", 6: "quarter.", 4: "quarter", 3: "eighth.", 2: "eighth", 1: "16th"}
_ALTERS = {sign: alter for alter, sign in ACCIDENTALS.items()}
_KIND_OF = {suffix: kind for kind, suffix in reversed(KINDS.items())}
_SYMBOL = re.compile(r"([A-G])(bb|##|b|#)?([^/]*)(?:/([A-G])(bb|##|b|#)?)?")

Element = ElementTree.Element


def musicxml_bytes(score: Score, tracks: Sequence[int], key: int = 0, title: str = "") -> bytes:
    """The `tracks` of a score, from the top, as a partwise MusicXML document; `key` is its major scale, 0 for C.

    Of notes that begin together in a track the highest is written.
    """
    root = Element("score-partwise", version="4.0")
    if title:
        _text(_sub(root, "work"), "work-title", title)
    listed = _sub(root, "part-list")
    lines = [Line.of_notes(score.select(score.track == track)) for track in tracks]
    bars = _bars(score, max((int(line.end[-1]) for line in lines if len(line.end)), default=0))
    for i, (track, line) in enumerate(zip(tracks, lines, strict=True)):
        name = track_name(score, track) or f"Part {i + 1}"
        _text(_sub(listed, "score-part", id=f"P{i + 1}"), "part-name", name)
        part = _sub(root, "part", id=f"P{i + 1}")
        symbols = [(int(quantize(at)), symbol) for at, symbol in score.chords] if i == 0 else []
        _write_part(part, line, bars, symbols, key, score.qpm if i == 0 else None)
    ElementTree.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return (head + ElementTree.tostring(root, encoding="unicode") + "\n").encode()


def _bars(score: Score, last: int) -> list[tuple[int, int, tuple[int, int]]]:
    """(first step, steps, metre) of each bar up to step `last`."""
    bars = []
    for begin, end, (numerator, denominator) in metres(score):
        at, length = int(quantize(begin)), max(1, round(16 * numerator / denominator))
        while at < last and at < end * STEPS_PER_QUARTER:
            until = min(at + length, int(quantize(end))) if np.isfinite(end) else at + length
            bars.append((at, until - at, (int(numerator), int(denominator))))
            at = until
    return bars


def _write_part(
    part: Element,
    line: Line,
    bars: Sequence[tuple[int, int, tuple[int, int]]],
    symbols: Sequence[tuple[int, str]],
    key: int,
    qpm: float | None,
) -> None:
    names = FLAT_NAMES if FIFTHS[key % 12] < 0 else NAMES
    low = len(line.pitch) > 0 and float(np.mean(line.pitch)) < 57  # a bass clef for what lies under middle C
    metre = None
    for number, (begin, steps, bar_metre) in enumerate(bars, 1):
        measure = _sub(part, "measure", number=str(number))
        if number == 1 or bar_metre != metre:
            _write_attributes(measure, bar_metre, key if number == 1 else None, low)
            metre = bar_metre
        if number == 1 and qpm is not None:
            direction = _sub(measure, "direction", placement="above")
            metronome = _sub(_sub(direction, "direction-type"), "metronome")
            _text(metronome, "beat-unit", "quarter")
            _text(metronome, "per-minute", f"{qpm:g}")
            _sub(direction, "sound", tempo=f"{qpm:g}")
        for at, length, pitch, tied_from, tied_on in _pieces(line, begin, begin + steps):
            for when, symbol in symbols:
                if at <= when < at + length:
                    _write_symbol(measure, symbol, when - at)
            _write_note(measure, length, pitch, names, tied_from, tied_on)


def _pieces(line: Line, begin: int, end: int) -> list[tuple[int, int, int | None, bool, bool]]:
    """What is written from step `begin` to `end`: (step, steps, pitch or None for a rest, tied from, tied on)."""
    found: list[tuple[int, int, int | None, bool, bool]] = []
    at = begin
    for start, stop, pitch in zip(line.start.tolist(), line.end.tolist(), line.pitch.tolist(), strict=True):
        if stop <= begin or start >= end:
            continue
        found += [(*piece, None, False, False) for piece in _writable(at, start)]
        at = max(start, begin)
        found += [(a, n, pitch, a > start, a + n < stop) for a, n in _writable(at, min(stop, end))]
        at = min(stop, end)
    return found + [(*piece, None, False, False) for piece in _writable(at, end)]


def _writable(begin: int, end: int) -> list[tuple[int, int]]:
    """Stretches (step, steps) of one written length each."""
    found = []
    while begin < end:
        length = next(n for n in _WRITTEN if n <= end - begin)
        found.append((begin, length))
        begin += length
    return found


def _write_attributes(measure: Element, metre: tuple[int, int], key: int | None, low: bool) -> None:
    attributes = _sub(measure, "attributes")
    if key is not None:
        _text(attributes, "divisions", str(STEPS_PER_QUARTER))
        _text(_sub(attributes, "key"), "fifths", str(FIFTHS[key % 12]))
    time = _sub(attributes, "time")
    _text(time, "beats", str(metre[0]))
    _text(time, "beat-type", str(metre[1]))
    if key is not None:
        clef = _sub(attributes, "clef")
        _text(clef, "sign", "F" if low else "G")
        _text(clef, "line", "4" if low else "2")


def _write_note(
    measure: Element, steps: int, pitch: int | None, names: Sequence[str], tied_from: bool, tied_on: bool
) -> None:
    note = _sub(measure, "note")
    if pitch is None:
        _sub(note, "rest")
    else:
        name = names[pitch % 12]
        written = _sub(note, "pitch")
        _text(written, "step", name[0])
        if name[1:]:
            _text(written, "alter", str(_ALTERS[name[1:]]))
        _text(written, "octave", str(pitch // 12 - 1))
    _text(note, "duration", str(steps))
    ties = ["stop"] * tied_from + ["start"] * tied_on
    for tie in ties:
        _sub(note, "tie", type=tie)
    _text(note, "type", _WRITTEN[steps].rstrip("."))
    if _WRITTEN[steps].endswith("."):
        _sub(note, "dot")
    if ties:
        notations = _sub(note, "notations")
        for tie in ties:
            _sub(notations, "tied", type=tie)


def _write_symbol(measure: Element, symbol: str, offset: int) -> None:
    """A chord symbol; one that isn't understood is written as its text over no root."""
    harmony = _sub(measure, "harmony")
    found = _SYMBOL.fullmatch(symbol)
    if found is None:
        _text(_sub(harmony, "root"), "root-step", "C").set("text", "")
        _text(harmony, "kind", "none").set("text", symbol)
    else:
        step, sign, suffix, bass, bass_sign = found.groups()
        _write_name(harmony, "root", step, sign)
        _text(harmony, "kind", _KIND_OF.get(suffix, "other")).set("text", suffix)
        if bass:
            _write_name(harmony, "bass", bass, bass_sign)
    if offset:
        _text(harmony, "offset", str(offset))


def _write_name(harmony: Element, which: str, step: str, sign: str | None) -> None:
    name = _sub(harmony, which)
    _text(name, f"{which}-step", step)
    if sign:
        _text(name, f"{which}-alter", str(_ALTERS[sign]))


def _sub(parent: Element, tag: str, **attributes: str) -> Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _text(parent: Element, tag: str, text: str) -> Element:
    element = _sub(parent, tag)
    element.text = text
    return element
