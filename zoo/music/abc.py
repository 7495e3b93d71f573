"""ABC tunebooks → `Score`: keys and accidentals, broken rhythm, tuplets, chords, rests, ties, voices, chord symbols.

Format: Walshaw et al., The abc music standard 2.1 (2011). Repeats are not unfolded, grace notes and decorations are
dropped. note_seq has an ABC parser too, but it knows neither rests nor chords, tuplets, voices or variant endings.
Measures are put on the metre's grid by `bars.align`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from zoo.errors import InputError
from zoo.music.bars import Measures
from zoo.music.score import Score

_TUNE = re.compile(r"^(?=X:)", re.MULTILINE)
_FIELD = re.compile(r"([A-Za-z+]):(.*)")
_COMMENT = re.compile(r"(?<!\\)%.*")
_NOTE = r"(?:\^\^|\^|=|__|_)?[A-Ga-g][,']{0,6}"
_LENGTH = r"(?P<{0}top>\d{{0,6}})(?P<{0}bottom>(?:/\d{{0,6}}){{0,6}})"
_TOKEN = re.compile(  # every repetition is bounded, so that no text takes more than linear time
    r"\[(?P<field>[A-Za-z]):(?P<value>[^\]]{0,200})\]"
    r'|"(?P<symbol>[^"]{0,200})"'
    rf"|(?P<note>{_NOTE}){_LENGTH.format('note_')}(?P<tie>-?)"
    rf"|\[(?P<chord>(?:{_NOTE}[\d/]{{0,9}}-?|\s|\"[^\"]{{0,200}}\"){{1,50}})\]{_LENGTH.format('chord_')}(?P<chord_tie>-?)"
    rf"|(?P<rest>[zx]){_LENGTH.format('rest_')}"
    r"|(?P<bars>[ZX])(?P<bar_count>\d{0,3})"
    r"|\((?P<tuplet>\d)(?::(?P<time_of>\d?))?(?::(?P<tuplet_notes>\d?))?"
    r"|(?P<broken>>{1,8}|<{1,8})"
    r"|(?P<bar_line>[:|\]\[]{0,4}\|[:|\]]{0,4}|::)(?:\[?\d[\d,\-.]{0,9})?"
    r"|(?P<overlay>&)"
    r"|\{[^}]{0,200}\}|![^!\s]{0,40}!|\+[^+\s]{0,40}\+|\[\d[\d,\-.]{0,9}|.",  # grace notes, decorations, endings, …
    re.DOTALL,
)
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
_SHARPS = "FCGDAEB"  # in the order key signatures add them
_KEY = re.compile(r"\s*(?P<tonic>[A-G])(?P<sign>[#b]?)\s*(?P<mode>[A-Za-z]*)(?P<more>.*)")
_MODES = {
    "": 0,
    "maj": 0,
    "ion": 0,
    "mix": -1,
    "dor": -2,
    "m": -3,
    "min": -3,
    "aeo": -3,
    "phr": -4,
    "loc": -5,
    "lyd": 1,
}
_TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # so many in the time of; the others depend on the metre


def read_abc(text: str, source: str = "ABC data") -> tuple[list[Score], list[InputError]]:
    """The tunes of a tunebook, and the errors of those left out."""
    header, *tunes = _TUNE.split(text.replace("\r\n", "\n").replace("\r", "\n"))
    scores: list[Score] = []
    errors: list[InputError] = []
    for number, tune in enumerate(tunes, 1):
        name = source if len(tunes) == 1 else f"{source}, tune {number}"
        try:
            scores.append(_read_tune(header + "\n" + tune, name))
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            errors.append(InputError(f"{name}: damaged ABC ({error}); mend the tune"))
        except InputError as error:
            errors.append(error)
    return scores, errors


def _read_tune(tune: str, source: str) -> Score:
    """One tune: the fields before the first `K:` hold for all voices, what follows is read voice by voice."""
    header: list[tuple[str, str]] = []
    voices: dict[str, list[str]] = {}
    voice, in_body = "", False
    for line in tune.split("\n"):
        line = _COMMENT.sub("", line).strip()
        field = _FIELD.fullmatch(line)
        if field and in_body and field[1] in "ABCDEFGabcdefgxyz":
            field = None  # a note before a repeat sign
        if field and field[1] == "V":
            voice = field[2].split()[0] if field[2].split() else ""
            voices.setdefault(voice, [])
        elif not in_body:
            if field:
                header.append((field[1], field[2].strip()))
                in_body = field[1] == "K"
        elif not field:
            voices.setdefault(voice, []).append(line.removesuffix("\\"))
        elif field[1] in "KLMQ":
            voices.setdefault(voice, []).append(f"[{line}]")
    measures = Measures()
    for track, lines in enumerate(lines for lines in voices.values() if lines):
        _Voice(track, measures, header).read("\n".join(lines))
    if not len(measures):
        raise InputError(f"{source}: no notes after the key (K:); mend the tune")
    return measures.score(source)


class _Sounding(NamedTuple):
    start: Fraction
    length: Fraction
    pitch: int
    tied_on: bool
    tied_from: bool


class _Voice:
    """A voice and what holds in it: key, unit length, accidentals of the bar, position in quarter notes."""

    def __init__(self, track: int, out: Measures, header: list[tuple[str, str]]) -> None:
        self.out, self.track = out, track
        self.now = self.bar_began = Fraction(0)
        self.bar = Fraction(4)
        self.compound = False
        self.unit: Fraction | None = None
        self.key: dict[str, int] = {}
        self.accidentals: dict[str, int] = {}
        self.tied: dict[str, int] = {}  # note as written → its pitch, which holds beyond a bar line
        self.scale = Fraction(1)  # of the next note, from a broken rhythm before it
        self.tuplet, self.tuplet_left = Fraction(1), 0
        self.last: list[_Sounding] = []  # the notes at the last onset, not yet out
        self.last_length = Fraction(0)
        for name, value in header:
            self._field(name, value)

    def read(self, text: str) -> None:
        """Adds all notes of the voice; the first voice also sets the bar lines."""
        voice = re.compile(r"\[V:\s*(\S+?)\s*\]")
        for token in _TOKEN.finditer(voice.sub("", text)):
            self._token(token)
        self._flush()
        self._bar_line()

    def _token(self, token: re.Match[str]) -> None:
        get = token.groupdict().get
        if note := get("note"):
            self._sound([(note, Fraction(1), bool(get("tie")))], _length(get("note_top"), get("note_bottom")))
        elif chord := get("chord"):
            notes = [
                (inner[1], _length(inner["top"], inner["bottom"]), bool(inner["tie"] or get("chord_tie")))
                for inner in re.finditer(rf"({_NOTE}){_LENGTH.format('')}(?P<tie>-?)", re.sub(r'"[^"]*"', "", chord))
            ]
            self._sound(notes, _length(get("chord_top"), get("chord_bottom")))
        elif get("rest"):
            self._sound([], _length(get("rest_top"), get("rest_bottom")))
        elif get("bars"):
            self._flush()
            for _ in range(int(get("bar_count") or 1)):
                self.now += self.bar
                self._bar_line()
        elif get("bar_line"):
            self._flush()
            self._bar_line()
        elif broken := get("broken"):
            self._break(broken)
        elif number := get("tuplet"):
            self._begin_tuplet(int(number), int(get("time_of") or 0), int(get("tuplet_notes") or 0))
        elif get("overlay"):
            self._flush()
            self.now = self.bar_began
        elif field := get("field"):
            self._flush()
            self._field(field, get("value") or "")
        elif (symbol := get("symbol")) and symbol[0] not in "^_<>@":
            self._flush()
            self.out.add_chord(float(self.now), symbol.strip())

    def _sound(self, notes: list[tuple[str, Fraction, bool]], length: Fraction) -> None:
        """Notes that begin together (none for a rest), as (written, length within the chord, tied on)."""
        self._flush()
        factor = length * self._unit_quarters() * self.scale
        self.scale = Fraction(1)
        if self.tuplet_left:
            factor *= self.tuplet
            self.tuplet_left -= 1
        self.last_length = factor * (notes[0][1] if notes else 1)
        for written, own, tied_on in notes:
            name = written.lstrip("^=_")
            tied_from = name in self.tied
            pitch = self._pitch(written)
            self.last.append(_Sounding(self.now, factor * own, pitch, tied_on, tied_from))
            if tied_on:
                self.tied[name] = pitch
            else:
                self.tied.pop(name, None)
        self.now += self.last_length

    def _pitch(self, written: str) -> int:
        name = written.lstrip("^=_")
        letter = name[0].upper()
        if sign := written[: -len(name)]:
            self.accidentals[letter] = _ACCIDENTALS[sign]
        elif name in self.tied:
            return self.tied[name]
        octave = name[0].islower() + name.count("'") - name.count(",")
        return 60 + 12 * octave + _STEPS[letter] + self.accidentals.get(letter, self.key.get(letter, 0))

    def _break(self, signs: str) -> None:
        """`a>b` dots the first and halves the second; each further sign does so again."""
        short = Fraction(1, 2 ** len(signs))
        first, self.scale = (2 - short, short) if signs[0] == ">" else (short, 2 - short)
        self.now += self.last_length * (first - 1)
        self.last = [note._replace(length=note.length * first) for note in self.last]
        self.last_length *= first

    def _begin_tuplet(self, number: int, time_of: int, notes: int) -> None:
        if number < 2:
            return
        self.tuplet = Fraction(time_of or _TUPLETS.get(number, 3 if self.compound else 2), number)
        self.tuplet_left = notes or number

    def _flush(self) -> None:
        """Hands on the notes at the last onset: their lengths can't change any more."""
        for note in self.last:
            start, end = float(note.start), float(note.start + note.length)
            self.out.add_note(start, end, note.pitch, self.track, note.tied_on, note.tied_from)
        self.last = []

    def _bar_line(self) -> None:
        self.accidentals = {}
        self.bar_began = self.now
        if self.track == 0:
            self.out.bar_line(float(self.now))

    def _unit_quarters(self) -> Fraction:
        """The unit length (L:) in quarters; by default a sixteenth in metres below 3/4, else an eighth."""
        return 4 * (self.unit or (Fraction(1, 16) if self.bar < 3 else Fraction(1, 8)))

    def _field(self, name: str, value: str) -> None:
        if name == "L" and (fraction := re.match(r"\s*(\d+)\s*/\s*(\d+)", value)):
            self.unit = Fraction(int(fraction[1]), int(fraction[2]))
        elif name == "M":
            self._meter(value.strip())
        elif name == "Q" and self.track == 0:
            self._tempo(value)
        elif name == "K":
            self.key = _key_signature(value)
            self.accidentals = {}

    def _meter(self, value: str) -> None:
        known = {"C": (4, 4), "C|": (2, 2)}
        fraction = re.match(r"\(?([\d+\s]+)\)?\s*/\s*(\d+)", value)
        if fraction:
            meter = (sum(int(part) for part in fraction[1].split("+") if part.strip()), int(fraction[2]))
        else:
            meter = known.get(value, (0, 0))
        usable = meter[0] > 0 and meter[1] > 0
        self.bar = Fraction(4 * meter[0], meter[1]) if usable else Fraction(4)
        self.compound = meter[1] == 8 and meter[0] % 3 == 0
        if self.track == 0:
            self.out.meter = meter if usable else None

    def _tempo(self, value: str) -> None:
        value = re.sub(r'"[^"]*"', "", value)
        if beat := re.match(r"\s*((?:\d+/\d+\s*)+)=\s*(\d+(?:\.\d+)?)", value):
            quarters = 4 * sum(Fraction(part) for part in beat[1].split())
            qpm = float(quarters) * float(beat[2])
        elif count := re.match(r"\s*(\d+(?:\.\d+)?)\s*$", value):
            qpm = float(self._unit_quarters()) * float(count[1])
        else:
            return
        if qpm > 0:
            self.out.add_tempo(float(self.now), qpm)


def _length(top: str | None, bottom: str | None) -> Fraction:
    """`3`, `3/2`, `/` (a half), `//` (a quarter) as a multiple of the unit."""
    length = Fraction(int(top or 1))
    for divisor in (bottom or "").split("/")[1:]:
        length /= int(divisor or 2)
    return length


def _key_signature(value: str) -> dict[str, int]:
    """The alteration of each letter, by tonic, mode and explicit accidentals (`D`, `Ador`, `Bb mix`, `D exp ^f`)."""
    key = _KEY.match(value)
    if value.strip().startswith(("HP", "Hp")):  # the Highland bagpipe
        return {"F": 1, "C": 1}
    if not key:
        return {}
    mode = key["mode"].lower()
    alterations: dict[str, int] = {}
    if mode != "exp":
        fifths = _SHARPS.index(key["tonic"]) - 1 + 7 * ((key["sign"] == "#") - (key["sign"] == "b"))
        fifths += _MODES.get("m" if mode == "m" else mode[:3], 0)
        letters, alteration = (_SHARPS, 1) if fifths > 0 else (_SHARPS[::-1], -1)
        for i in range(min(abs(fifths), 14)):
            alterations[letters[i % 7]] = alterations.get(letters[i % 7], 0) + alteration
    for sign, letter in re.findall(r"(?<![=\w])(\^\^|\^|=|__|_)([A-Ga-g])(?![\w=])", key["more"]):
        alterations[letter.upper()] = _ACCIDENTALS[sign]
    return alterations
