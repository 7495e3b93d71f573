"""MusicXML (partwise, timewise, compressed .mxl) → `Score`.

Parts become tracks, the voices and staves of a part are merged, tied notes joined, transposing instruments sound at
concert pitch, chord symbols are kept. Repeats are not unfolded; grace and cue notes are dropped. Measures are put on
the metre's grid by `bars.align`, which neither note_seq's parser nor music21 do (and music21 takes seconds a file).

Files are not trusted: archives are read in memory and only up to `_MAX_BYTES`, documents that declare entities are
refused, and no external entity is ever fetched (expat does not).
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

from zoo.errors import InputError
from zoo.music.bars import Measures
from zoo.music.score import Score

_MAX_BYTES = 64 << 20
_CONTAINER = "META-INF/container.xml"
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTALS = {-2: "bb", -1: "b", 0: "", 1: "#", 2: "##"}
KINDS = {  # MusicXML's names of chord qualities as suffixes of chord symbols
    "major": "",
    "minor": "m",
    "augmented": "+",
    "diminished": "dim",
    "dominant": "7",
    "major-seventh": "maj7",
    "minor-seventh": "m7",
    "diminished-seventh": "dim7",
    "augmented-seventh": "+7",
    "half-diminished": "m7b5",
    "major-minor": "m(maj7)",
    "minor-major": "m(maj7)",
    "major-sixth": "6",
    "minor-sixth": "m6",
    "maj69": "6/9",
    "dominant-ninth": "9",
    "augmented-ninth": "+9",
    "major-ninth": "maj9",
    "minor-ninth": "m9",
    "dominant-11th": "11",
    "major-11th": "maj11",
    "minor-11th": "m11",
    "dominant-13th": "13",
    "major-13th": "maj13",
    "minor-13th": "m13",
    "suspended-second": "sus2",
    "suspended-fourth": "sus4",
    "power": "5",
    "pedal": "ped",
}

_UNZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)

Element = ElementTree.Element


def read_mxl(data: bytes, source: str = "MXL data") -> Score:
    """A compressed MusicXML file: a zip archive whose container names the score.

    Raises:
      InputError: a broken or encrypted archive, no score in it, or one that unpacks to more than 64 MiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = _score_name(archive, source)
            return read_musicxml(_member(archive, name, source), source)
    except _UNZIP_ERRORS as error:
        raise InputError(f"{source}: can't be unpacked ({error}); export or download it again") from None


def read_musicxml(data: bytes, source: str = "MusicXML data") -> Score:
    """An uncompressed MusicXML document, partwise or timewise.

    Raises:
      InputError: not well-formed XML, or not MusicXML.
    """
    root = _parse(data, source)
    if root.tag not in ("score-partwise", "score-timewise"):
        raise InputError(f"{source}: XML, but not MusicXML (its root is <{root.tag}>); export it as MusicXML")
    try:
        return _score(root, source)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError) as error:
        raise InputError(f"{source}: damaged MusicXML ({error}); export it again") from None


def _score_name(archive: zipfile.ZipFile, source: str) -> str:
    """The member the container names or, where the container is broken (as some programs write it), the first score."""
    names = archive.namelist()
    try:
        root = _parse(_member(archive, _CONTAINER, source), source).find(".//{*}rootfile")
        if root is not None and root.get("full-path") in names:
            return root.get("full-path", "")
    except (KeyError, InputError):
        pass
    for name in names:
        if name.endswith((".xml", ".musicxml")) and not name.startswith("META-INF/"):
            return name
    raise InputError(f"{source}: a zip archive without a MusicXML score; export it again as .mxl")


def _member(archive: zipfile.ZipFile, name: str, source: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_BYTES:
        raise InputError(f"{source}: unpacks to more than {_MAX_BYTES >> 20} MiB; is it a score?")
    return archive.read(name)


def _parse(data: bytes, source: str) -> Element:
    if len(data) > _MAX_BYTES:
        raise InputError(f"{source}: larger than {_MAX_BYTES >> 20} MiB; is it a score?")
    if b"<!ENTITY" in data.replace(b"\0", b""):  # without the zeros of UTF-16
        raise InputError(f"{source}: declares XML entities, which scores don't need; export it again")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{source}: not well-formed XML ({error}); export or download it again") from None


def _score(root: Element, source: str) -> Score:
    parts = [_Part(part, track) for track, part in enumerate(root.iterfind("part-list/score-part"))]
    by_id = {part.id: part for part in parts}
    measures = Measures()
    at = 0.0
    for column in _columns(root):
        ends = [by_id[id].read(measure, at, measures) for id, measure in column if id in by_id]
        at = max(ends, default=at)
        measures.bar_line(at)
    for part in parts:
        measures.names[part.track], measures.programs[part.track] = part.name, part.program
    return measures.score(source)


def _columns(root: Element) -> Iterator[list[tuple[str, Element]]]:
    """For each measure of the score: the part ids and their contents."""
    if root.tag == "score-timewise":
        for measure in root.iterfind("measure"):
            yield [(part.get("id", ""), part) for part in measure.iterfind("part")]
        return
    parts = [(part.get("id", ""), part.findall("measure")) for part in root.iterfind("part")]
    for i in range(max((len(measures) for _, measures in parts), default=0)):
        yield [(id, measures[i]) for id, measures in parts if i < len(measures)]


class _Part:
    """A part and what holds in it from one measure to the next: divisions of the quarter, transposition."""

    def __init__(self, score_part: Element, track: int) -> None:
        self.track = track
        self.id = score_part.get("id", "")
        self.name = " ".join(score_part.findtext("part-name", "").split())
        programs = [int(program.text or 1) - 1 for program in score_part.iter("midi-program")]
        self.program = min(max(programs[0], 0), 127) if programs else 0
        self.unpitched = {
            instrument.get("id", ""): int(instrument.findtext("midi-unpitched", "1")) - 1
            for instrument in score_part.iter("midi-instrument")
        }
        self.is_drum = any(channel.text == "10" for channel in score_part.iter("midi-channel"))
        self.divisions = 1.0
        self.transposition = 0

    def read(self, measure: Element, begin: float, out: Measures) -> float:
        """Adds a measure that begins at `begin` quarters to `out`; returns where it ends."""
        at = end = onset = begin
        for element in measure:
            length = _finite(element.findtext("duration", "0")) / self.divisions
            match element.tag:
                case "note" if element.find("grace") is None:
                    if element.find("chord") is None:
                        onset, at = at, at + length
                    self._add_note(element, onset, length, out)
                case "backup":
                    at = max(begin, at - length)
                case "forward":
                    at += length
                case "attributes":
                    self._read_attributes(element, out)
                case "harmony":
                    out.add_chord(at + self._offset(element), _symbol(element))
                case "direction" | "sound":
                    for sound in element.iter("sound"):
                        if _finite(sound.get("tempo", "0")) > 0:
                            out.add_tempo(max(begin, at + self._offset(element)), _finite(sound.get("tempo", "0")))
            end = max(end, at)
        return end

    def _offset(self, element: Element) -> float:
        return _finite(element.findtext("offset", "0")) / self.divisions

    def _read_attributes(self, element: Element, out: Measures) -> None:
        self.divisions = _finite(element.findtext("divisions", "0")) or self.divisions
        transpose = element.find("transpose")
        if transpose is not None:
            octaves = float(transpose.findtext("octave-change", "0"))
            self.transposition = round(float(transpose.findtext("chromatic", "0")) + 12 * octaves)
        time = element.find("time")
        if time is not None:
            beats, unit = time.findtext("beats", ""), time.findtext("beat-type", "")
            numerator = sum(int(beat) for beat in beats.split("+")) if beats else 0  # 3+2 over 8
            out.meter = (numerator, int(unit)) if numerator > 0 and unit and int(unit) > 0 else None

    def _add_note(self, element: Element, onset: float, length: float, out: Measures) -> None:
        if length <= 0 or element.find("rest") is not None or element.find("cue") is not None:
            return
        pitch = element.find("pitch")
        if pitch is not None:
            alter = round(float(pitch.findtext("alter", "0")))
            octave = int(pitch.findtext("octave", ""))
            number = 12 * (octave + 1) + _step(pitch, "step") + alter + self.transposition
        else:  # unpitched percussion
            instrument = element.find("instrument")
            number = self.unpitched.get(instrument.get("id", "") if instrument is not None else "", -1)
        ties = {tie.get("type") for tie in element.iterfind("tie")}
        drum = self.is_drum or pitch is None
        out.add_note(onset, onset + length, number, self.track, "start" in ties, "stop" in ties, drum)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text.strip()} where a number is needed")
    return number


def _step(element: Element, tag: str) -> int:
    step = element.findtext(tag, "").strip()
    if step not in _STEPS:
        raise ValueError(f"no pitch named {step!r}")
    return _STEPS[step]


def _symbol(harmony: Element) -> str:
    """The chord symbol of a <harmony>: root, quality, altered degrees, bass; "N.C." for none."""
    kind = (harmony.findtext("kind") or "").strip()
    root = _note_name(harmony, "root")
    if kind == "none" or not root:
        return "N.C."
    degrees = "".join(_degree(degree) for degree in harmony.iterfind("degree"))
    bass = _note_name(harmony, "bass")
    return root + KINDS.get(kind, "") + (f"({degrees})" if degrees else "") + (f"/{bass}" if bass else "")


def _degree(degree: Element) -> str:
    """An altered degree: b5, add9, no3."""
    verb = {"add": "add", "subtract": "no"}.get(degree.findtext("degree-type", ""), "")
    alter = round(float(degree.findtext("degree-alter") or 0))
    return verb + ACCIDENTALS.get(alter, "") + degree.findtext("degree-value", "")


def _note_name(harmony: Element, which: str) -> str:
    step = harmony.findtext(f"{which}/{which}-step")
    alter = round(float(harmony.findtext(f"{which}/{which}-alter") or 0))
    return step.strip() + ACCIDENTALS.get(alter, "") if step else ""
