"""Written music (MusicXML, **kern, ABC) on the metre's grid, and bad scores as one clear line."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.music.abc import read_abc
from zoo.music.bars import align
from zoo.music.io import from_note_sequence, read, read_pieces
from zoo.music.kern import read_kern
from zoo.music.musicxml import read_musicxml, read_mxl
from zoo.music.score import Score


@pytest.mark.parametrize(
    ("lengths", "meter", "expected"),
    [
        pytest.param([4, 4, 4], (4, 4), [0, 4, 8], id="no pickup"),
        pytest.param([1, 4, 4, 3], (4, 4), [3, 4, 8, 12], id="pickup ends on a bar line"),
        pytest.param([1, 2, 2], (2, 4), [3, 4, 6], id="pickup in 2/4 ends on a bar line of 4/4"),
        pytest.param([1, 3, 3], (3, 4), [2, 3, 6], id="pickup in 3/4"),
        pytest.param([4, 3, 1, 4], (4, 4), [0, 4, 7, 8], id="bar split at a repeat"),
        pytest.param([4, 3, 4], (4, 4), [0, 4, 8], id="bar cut short"),
        pytest.param([4, 1, 4], (4, 4), [0, 7, 8], id="pickup in the middle"),
        pytest.param([4, 3, 3, 4], (4, 4), [0, 4, 8, 12], id="halves that do not fit"),
        pytest.param([4, 5, 4], (4, 4), [0, 4, 12], id="cadenza"),
        pytest.param([2], (4, 4), [0], id="one short measure"),
        pytest.param([5, 4, 4], None, [0, 5, 9], id="free metre"),
    ],
)
def test_align(lengths: list[float], meter: tuple[int, int] | None, expected: list[float]) -> None:
    starts, _ = align(lengths, [meter] * len(lengths))
    assert starts == expected


def test_align_metre_changes() -> None:
    starts, changes = align([3, 2, 4, 5.5, 4], [(3, 4), (3, 4), (4, 4), None, (4, 4)])
    assert starts == [0, 3, 6, 10, 15.5]
    assert changes.tolist() == [[0, 3, 4], [6, 4, 4], [10, 22, 16], [15.5, 4, 4]]


KERN = """!! a comment
**kern\t**dynam\t**kern
*I"Voice\t*\t*I"Bass
*M4/4\t*\t*M4/4
*MM90\t*\t*
4g\tp\t4GG
=1\t=1\t=1
4.cc#\t.\t2C 2E- 2G
8dd-\t.\t.
12ee\tf\t4r
12ff\t.\t.
12gg\t.\t.
[4aa\t.\t4BB--
=2\t=2\t=2
*^\t*\t*
4aa_\t4f\t.\t1CC
qb\t.\t.\t.
2.aa]\t2.d\t.\t.
*v\t*v\t*\t*
=3\t=3\t=3
3%2cc\t.\t1r
*-\t*-\t*-
"""


def test_kern() -> None:
    score = read_kern(KERN)
    voice = score.select(score.track == 0)
    third = 1 / 3
    expected = [
        (3, 4, 67),
        (4, 5.5, 73),
        (5.5, 6, 73),
        (6, 6 + third, 76),
        (6 + third, 6 + 2 * third, 77),
        (6 + 2 * third, 7, 79),
        (8, 9, 65),
        (9, 12, 62),
        (12, 12 + 8 * third, 72),
        (7, 12, 81),
    ]
    np.testing.assert_allclose(
        sorted(zip(voice.start, voice.end, voice.pitch, strict=True)), sorted(expected), atol=1e-9
    )
    bass = score.select(score.track == 1)
    assert bass.pitch.tolist() == [43, 48, 51, 55, 45, 36]
    assert score.meters.tolist() == [[0, 4, 4]]
    assert score.tempos.tolist() == [[3, 90]]
    assert score.track_names == ("Voice", "Bass")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("**kern\n4c\t4d\n*-\n", "line 2 has 2 columns instead of 1"),
        ("**text\nla\n*-\n", r"no \*\*kern spine"),
        ("**kern\n[c\n*-\n", "no duration"),
        ("**kern\t**kern\n*x\t*x\n*-\t*-\n", "exchanged"),
    ],
)
def test_kern_errors(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_kern(text)


def measure(*children: str, **attributes: str) -> str:
    return "<measure " + " ".join(f'{k}="{v}"' for k, v in attributes.items()) + ">" + "".join(children) + "</measure>"


def note(step: str, octave: int, duration: int, inner: str = "", before: str = "", alter: int = 0) -> str:
    pitch = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
    return f"<note>{before}{pitch}<duration>{duration}</duration>{inner}</note>"


def musicxml(*parts: str, head: str = "") -> bytes:
    ids = [f"P{i}" for i in range(len(parts))]
    names = "".join(
        f'<score-part id="{id}"><part-name>Part {id}</part-name>'
        f"<midi-instrument><midi-program>{25 + i}</midi-program></midi-instrument></score-part>"
        for i, id in enumerate(ids)
    )
    bodies = "".join(f'<part id="{id}">{part}</part>' for id, part in zip(ids, parts, strict=True))
    document = f"<score-partwise><part-list>{names}</part-list>{bodies}</score-partwise>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{head}{document}'.encode()


ATTRIBUTES = "<attributes><divisions>{}</divisions><time><beats>3</beats><beat-type>4</beat-type></time>{}</attributes>"
HARMONY = (
    "<harmony><root><root-step>B</root-step><root-alter>-1</root-alter></root><kind>dominant</kind>"
    "<bass><bass-step>D</bass-step></bass><degree><degree-value>9</degree-value><degree-alter>-1</degree-alter>"
    "<degree-type>add</degree-type></degree></harmony>"
)


def two_parts() -> bytes:
    """A quarter's pickup, then 3/4: ties over the bar line, two voices, a chord, grace and cue notes, a clarinet."""
    transpose = "<transpose><chromatic>-2</chromatic></transpose>"
    tie = '<tie type="start"/>'
    first = measure(
        ATTRIBUTES.format(2, transpose), '<direction><sound tempo="96"/></direction>', note("D", 5, 2), number="0"
    )
    first += measure(
        HARMONY,
        note("E", 5, 4, tie),
        "<forward><duration>2</duration></forward><backup><duration>2</duration></backup>",
        note("E", 5, 2, '<tie type="stop"/>' + tie),
    )
    first += measure(note("E", 5, 6, '<tie type="stop"/>'))
    second = measure(ATTRIBUTES.format(4, ""), "<note><rest/><duration>4</duration></note>")
    second += measure(
        note("C", 3, 12),
        "<backup><duration>12</duration></backup>",
        note("G", 3, 0, before="<grace/>").replace("<duration>0</duration>", ""),
        note("C", 4, 4),
        note("E", 4, 4, before="<chord/>", alter=-1),
        note("G", 4, 8, before="<cue/>"),
    )
    second += measure("<note><rest/><duration>12</duration></note>")
    return musicxml(first, second)


def rows_of(score: Score) -> list[tuple]:
    return list(zip(score.start, score.end, score.pitch, score.track, score.program, strict=True))


TWO_PARTS = [(2, 3, 72, 0, 24), (3, 6, 48, 1, 25), (3, 4, 60, 1, 25), (3, 4, 63, 1, 25), (3, 9, 74, 0, 24)]


def test_musicxml() -> None:
    score = read_musicxml(two_parts())
    assert rows_of(score) == TWO_PARTS
    assert score.meters.tolist() == [[0, 3, 4]]
    assert score.tempos.tolist() == [[2, 96]]
    assert score.chords == ((3.0, "Bb7(addb9)/D"),)
    assert score.track_names == ("Part P0", "Part P1")


def test_musicxml_timewise() -> None:
    part = measure(ATTRIBUTES.format(1, ""), note("C", 4, 3)) + measure(note("D", 4, 3))
    partwise = musicxml(part)
    document = partwise.decode().replace("score-partwise", "score-timewise").replace('<part id="P0">', "")
    document = document.replace("</part></score-timewise>", "</score-timewise>")
    document = document.replace("<measure >", '<measure><part id="P0">').replace("</measure>", "</part></measure>")
    assert rows_of(read_musicxml(document.encode())) == rows_of(read_musicxml(partwise))


def test_musicxml_drums_and_free_metre() -> None:
    unpitched = "<note><unpitched/><duration>{}</duration><instrument id='i'/></note>"
    free = "<attributes><divisions>1</divisions><time><senza-misura/></time></attributes>"
    document = musicxml(measure(free, unpitched.format(5)) + measure(unpitched.format(4)))
    instrument = b'<midi-instrument id="i"><midi-unpitched>37</midi-unpitched>'
    score = read_musicxml(document.replace(b"<midi-instrument>", instrument))
    assert score.pitch.tolist() == [36, 36]
    assert score.is_drum.all()
    assert score.meters.tolist() == [[0, 20, 16], [5, 16, 16]]


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


CONTAINER = '<container><rootfiles><rootfile full-path="{}"/></rootfiles></container>'


def test_mxl() -> None:
    members = {"META-INF/container.xml": CONTAINER.format("b.xml").encode(), "a.xml": b"<no/>", "b.xml": two_parts()}
    assert rows_of(read_mxl(zipped(members))) == TWO_PARTS
    members["META-INF/container.xml"] = b"<container full-path='It's broken'>"
    assert rows_of(read_mxl(zipped({**members, "a.xml": two_parts()}))) == TWO_PARTS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(zipped({"a.txt": b"hi"}), "without a MusicXML score", id="no score"),
        pytest.param(zipped({"a.xml": two_parts()})[:-30], "can't be unpacked", id="truncated"),
        pytest.param(zipped({"a.xml": b" " * (65 << 20)}), "unpacks to more than 64 MiB", id="zip bomb"),
        pytest.param(zipped({"a.xml": two_parts()}).replace(b"Part", b"Pxrt", 1), "can't be|well-formed", id="corrupt"),
    ],
)
def test_mxl_errors(data: bytes, message: str) -> None:
    if message == "can't be|well-formed":
        half = len(data) // 3
        data = data[:half] + bytes(20) + data[half + 20 :]
    with pytest.raises(InputError, match=message) as error:
        read_mxl(data, "x.mxl")
    assert str(error.value).startswith("x.mxl: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"<html></html>", "its root is <html>", id="not music"),
        pytest.param(two_parts()[:-9], "not well-formed", id="truncated"),
        pytest.param(b"\xff\xfe<\x00a\x00", "not well-formed", id="UTF-16 cut"),
        pytest.param(
            musicxml(head='<!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]>'), "entities", id="external entity"
        ),
        pytest.param(
            musicxml(head='<!DOCTYPE s [<!ENTITY a "b">]>').decode().replace("UTF-8", "UTF-16").encode("utf-16"),
            "entities",
            id="entity in UTF-16",
        ),
        pytest.param(two_parts().replace(b"<octave>5", b"<octave>x"), "damaged", id="octave"),
        pytest.param(two_parts().replace(b"<duration>2<", b"<duration>nan<"), "damaged", id="duration"),
        pytest.param(two_parts().replace(b"<duration>2<", b"<duration>1e400<"), "damaged", id="infinite"),
        pytest.param(two_parts().replace(b"<step>D", b"<step>H"), "no pitch named 'H'", id="step"),
    ],
)
def test_musicxml_errors(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_musicxml(data)


def test_musicxml_nested_deeply() -> None:
    with pytest.raises(InputError):
        read_musicxml(b"<a>" * 50_000 + b"</a>" * 50_000)


ABC = """X:1
T:First
M:2/4
L:1/8
Q:1/4=100
K:G
"Em"GA|B2 B2|BAGA|:B2 G2|"D"d4:|

X:2
T:Nothing in it
K:C

X:1
T:No pickup
M:4/4
L:1/4
K:C
CDEF|G4|
"""


def test_abc_book(tmp_path: Path) -> None:
    path = tmp_path / "book.abc"
    path.write_text(ABC)
    (first, third), (error,) = read_pieces(path)
    np.testing.assert_allclose(first.start[:5], [3, 3.5, 4, 5, 6], atol=1e-9)
    assert first.pitch[:4].tolist() == [67, 69, 71, 71]
    assert first.meters.tolist() == [[0, 2, 4]]
    assert first.tempos[0, 1] == 100
    assert first.chords == ((3.0, "Em"), (10.0, "D"))
    assert third.start.tolist() == [0, 1, 2, 3, 4]
    assert "book.abc, tune 2: no notes" in str(error)
    with pytest.raises(InputError, match="holds 3 tunes"):
        read(path)


def abc(body: str, key: str = "C", meter: str = "4/4", extra: str = "") -> list[tuple[float, float, int]]:
    """(start, end, pitch) of the notes of a tune with eighths as its unit."""
    (score,), errors = read_abc(f"X:1\nM:{meter}\nL:1/8\n{extra}K:{key}\n{body}\n")
    assert not errors
    return [(round(s, 6), round(e, 6), p) for s, e, p in zip(score.start, score.end, score.pitch.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            "C2 z D/E// F3/2", [(0, 1, 60), (1.5, 1.75, 62), (1.75, 1.875, 64), (1.875, 2.625, 65)], id="length"
        ),
        pytest.param("C, c' =B_B", [(0, 0.5, 48), (0.5, 1, 84), (1, 1.5, 71), (1.5, 2, 70)], id="octaves"),
        pytest.param("^C4 C4|C8", [(0, 2, 61), (2, 4, 61), (4, 8, 60)], id="accidentals last for a bar"),
        pytest.param("C>D E<<F", [(0, 0.75, 60), (0.75, 1, 62), (1, 1.125, 64), (1.125, 2, 65)], id="broken rhythm"),
        pytest.param("[CE2G]2 D", [(0, 1, 60), (0, 2, 64), (0, 1, 67), (1, 1.5, 62)], id="chord"),
        pytest.param("G8-|G2-G2", [(0, 6, 67)], id="tie over a bar line"),
        pytest.param("^G8-|G2 G2", [(0, 5, 68), (5, 6, 67)], id="tie keeps its accidental"),
        pytest.param("{ab}C !trill!~D (EF)", [(0, 0.5, 60), (0.5, 1, 62), (1, 1.5, 64), (1.5, 2, 65)], id="ornaments"),
        pytest.param("C8|Z2|D8", [(0, 4, 60), (12, 16, 62)], id="bars of rest"),
        pytest.param("C8|1 D8:|2 E8|]", [(0, 4, 60), (4, 8, 62), (8, 12, 64)], id="endings"),
        pytest.param("C4 D4 & E8|F8", [(0, 2, 60), (0, 4, 64), (2, 4, 62), (4, 8, 65)], id="overlay"),
        pytest.param("C8|[K:D][L:1/4]F4", [(0, 4, 60), (4, 8, 66)], id="inline fields"),
        pytest.param("C8|\nw:la\nK:D\nF8", [(0, 4, 60), (4, 8, 66)], id="field lines"),
        pytest.param("C8|D7\nA:|B8", [(0, 4, 60), (4, 7.5, 62), (7.5, 8, 69), (8, 12, 71)], id="no field but a note"),
    ],
)
def test_abc_notation(body: str, expected: list[tuple[float, float, int]]) -> None:
    assert abc(body) == sorted(expected, key=lambda row: (row[0], row[2]))


def test_abc_tuplets() -> None:
    assert [row[0] for row in abc("(3CDE (5:4:5CDEFG z2 A")] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1, 1.4, 1.8, 2.2, 2.6, 4], abs=1e-5
    )
    assert abc("(2CD E4", meter="6/8")[1][0] == 0.75


@pytest.mark.parametrize(
    ("key", "sounding"),
    [
        ("G", {"F": 1}),
        ("Bb", {"B": -1, "E": -1}),
        ("F#m", {"F": 1, "C": 1, "G": 1}),
        ("A minor", {}),
        ("Ador", {"F": 1}),
        ("E mix", {"F": 1, "C": 1, "G": 1}),
        ("D lydian", {"F": 1, "C": 1, "G": 1}),
        ("D exp ^f _b", {"F": 1, "B": -1}),
        ("C ^g clef=bass", {"G": 1}),
        ("HP", {"F": 1, "C": 1}),
        ("none", {}),
    ],
)
def test_abc_keys(key: str, sounding: dict[str, int]) -> None:
    natural = {"C": 60, "D": 62, "E": 64, "F": 65, "G": 67, "A": 69, "B": 71}
    pitches = [pitch for _, _, pitch in abc("CDEFGAB", key)]
    assert pitches == [pitch + sounding.get(letter, 0) for letter, pitch in natural.items()]


def test_abc_voices() -> None:
    score = read_abc("X:1\nM:4/4\nL:1/4\nK:G\nV:1\nGABc|d4|\nV:2\nG,4|D,4|\n")[0][0]
    lower = score.select(score.track == 1)
    assert (lower.start.tolist(), lower.pitch.tolist()) == ([0, 4], [55, 50])
    assert score.meters.tolist() == [[0, 4, 4]]


def test_abc_equals_note_seq() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from note_seq import abc_parser
    tune = "X:1\nM:4/4\nL:1/8\nQ:1/4=90\nK:Ador\nA2AB cdef|g>a^ge a,2E'2|_B2B2 =F4|\n"
    theirs = from_note_sequence(abc_parser.parse_abc_tunebook(tune)[0][1])
    ours = read_abc(tune)[0][0]
    np.testing.assert_allclose(ours.start, theirs.start, atol=1e-9)
    np.testing.assert_allclose(ours.end, theirs.end, atol=1e-9)
    np.testing.assert_array_equal(ours.pitch, theirs.pitch)
