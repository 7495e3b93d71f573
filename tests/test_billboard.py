"""The McGill Billboard and folders of songs with labels: chroma from C on, chords and sections, splits by song."""

from __future__ import annotations

import tarfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from tests import shared
from zoo.data import Song, billboard, load_songs, read_songs
from zoo.errors import InputError
from zoo.music import sections
from zoo.music.chroma import NnlsChromaCodec
from zoo.music.harte import ChordSpan
from zoo.music.sections import FUNCTIONS, Section, function_of, parse

SALAMI = """# title: A Song
# artist: Nobody & Co.
# metre: 4/4

0.0\tsilence
1.0\tA, verse, | C:sus4(b7,9) | G:7 . . F:maj/3 | x2, (voice
9.0\t| A:min | A:min |, voice)
13.0\tfadeout, | N |
14.0\tB', pre chorus, fade out, | D:maj |
16.0\tsilence
17.0\tend
"""
REDUCED = [
    (0, 1, "N"), (1, 3, "X"), (3, 4, "G:7"), (4, 5, "F:maj"), (5, 7, "X"), (7, 8, "G:7"), (8, 9, "F:maj"),
    (9, 11, "A:min"), (11, 13, "A:min"), (13, 14, "N"), (14, 15.9, "D:maj"), (15.9, 16, "N"), (16, 17, "N"),
]  # fmt: skip


CODEC = NnlsChromaCodec()


def write_song(folder: Path, text: str = SALAMI) -> Path:
    """The labels of one entry."""
    folder.mkdir(parents=True)
    (folder / "salami_chords.txt").write_text(text)
    for level in ("majmin", "majmin7"):
        (folder / f"{level}.lab").write_text("".join(f"{a}\t{b}\t{label}\n" for a, b, label in REDUCED))
    return folder


def packed(folder: Path, texts: dict[str, str], chroma: dict[str, np.ndarray] | None = None) -> Path:
    """The data set as two files."""
    folder.mkdir()
    for name, text in texts.items():
        write_song(folder / "labels" / name, text)
    with tarfile.open(folder / "billboard-labels.tar.gz", "w:gz") as tar:
        tar.add(folder / "labels", ".")
    (folder / "labels").rename(folder.with_name("labels"))
    given = {name: np.zeros((400, 24), np.uint8) for name in texts} | (chroma or {})
    np.savez(folder / "billboard-chroma.npz", **given)  # type: ignore[arg-type]
    return folder


def test_an_entry_of_the_packed_data(tmp_path: Path) -> None:
    chroma = np.zeros((400, 24), np.uint8)
    chroma[:, 0] = 255  # the bass's A
    chroma[:, 12 + 3] = 51  # the treble's C
    (entry,) = billboard.find(packed(tmp_path / "data", {"0003": SALAMI}, {"0003": chroma}))
    x = entry.chroma()
    assert (x.shape, x.dtype) == ((400, 24), np.float32)
    np.testing.assert_allclose([x[0, 9], x[0, 12]], [5, 0.2], rtol=1e-6)
    assert np.count_nonzero(x[0]) == 2
    assert entry.work == "nobody co|a song"


def test_full_chords_take_the_times_of_the_reduced(tmp_path: Path) -> None:
    chords = billboard.Entry("1", write_song(tmp_path / "1")).chords()
    assert [span.label for span in chords["majmin7"]] == [label for *_, label in REDUCED]
    full = [
        "N", "C:sus4(b7,9)", "G:7", "F:maj/3", "C:sus4(b7,9)", "G:7", "F:maj/3", "A:min", "A:min", "N", "D:maj", "N",
        "N",
    ]  # fmt: skip
    assert [span.label for span in chords["full"]] == full
    assert [(span.start, span.end) for span in chords["full"]] == [(a, b) for a, b, _ in REDUCED]


def test_a_phrase_whose_chords_do_not_fit_keeps_the_reduced(tmp_path: Path) -> None:
    folder = write_song(
        tmp_path / "1", SALAMI.replace("| G:7 . . F:maj/3 | x2", "| G:7 | A:dim | B:7 | C:7 | D:7 | x2")
    )
    full = billboard.Entry("1", folder).chords()["full"]
    assert [span.label for span in full[1:4]] == ["X", "G:7", "F:maj"]
    (folder / "full.lab").write_text("0 17 E:min11\n")
    assert billboard.Entry("1", folder).chords()["full"] == (ChordSpan(0.0, 17.0, "E:min11"),)


def test_sections_follow_one_another(tmp_path: Path) -> None:
    found = billboard.Entry("1", write_song(tmp_path / "1")).sections()
    assert found == (
        Section(0.0, 1.0, "silence"),
        Section(1.0, 14.0, "verse", "A"),
        Section(14.0, 16.0, "pre chorus", "B'"),
        Section(16.0, 17.0, "silence"),
    )
    assert [section.function for section in found] == ["silence", "verse", "prechorus", "silence"]


def test_the_layout_of_mcgill(tmp_path: Path) -> None:
    folder = write_song(tmp_path / "McGill-Billboard/0003")
    rows = [
        f"{'' if i else chr(34) + 'a.wav' + chr(34)},{i * 0.04644}," + ",".join(map(str, range(24))) for i in range(9)
    ]
    (folder / "bothchroma.csv").write_text("\n".join(rows))
    (entry,) = billboard.find(tmp_path)
    np.testing.assert_array_equal(entry.chroma()[8], np.r_[np.roll(np.arange(12), -3), np.roll(np.arange(12, 24), -3)])


def test_recordings_of_one_song_stay_together(tmp_path: Path) -> None:
    texts = {
        f"{i:04}": SALAMI.replace("A Song", f"Song {i // 2}").replace("Nobody", "nobody" if i % 2 else "NOBODY")
        for i in range(60)
    }
    songs = load_songs(packed(tmp_path / "data", texts), CODEC, lambda song: {"i": np.array([int(song.name)])})
    assert all(len(songs.names[split]) for split in ("train", "valid", "test"))
    for split, names in songs.names.items():
        assert np.bincount([int(name) // 2 for name in names]).max() == 2
        np.testing.assert_array_equal(getattr(songs, split)["i"], [int(name) for name in names])
    assert [song.name for song in read_songs(tmp_path / "data", CODEC, "test", 2)] == list(songs.names["test"][:2])


def test_what_is_broken_is_told_in_a_line(tmp_path: Path) -> None:
    data = packed(
        tmp_path / "data",
        {"1": SALAMI, "2": "nonsense\n", "3": SALAMI.replace("13.0", "3.0"), "4": SALAMI},
        {"4": np.zeros((4, 23), np.uint8)},
    )
    songs = load_songs(data, CODEC, lambda song: {"x": np.zeros((1, 2))})
    assert songs.names["train"] == ("1",)
    reasons = dict(songs.skipped)
    assert set(reasons) == {"2", "3", "4"}
    assert "salami_chords.txt: no annotation can be read" in reasons["2"]
    assert "don't ascend" in reasons["3"]
    assert "no rows of 24 numbers" in reasons["4"]
    assert not any("\n" in reason for reason in reasons.values())
    (data / "billboard-labels.tar.gz").unlink()
    with pytest.raises(InputError, match="no labels beside it"):
        billboard.find(data)
    (data / "billboard-chroma.npz").write_bytes(b"PK no archive")
    write_song(data / "1")
    with pytest.raises(InputError, match=r"billboard-chroma\.npz: can't be read"):
        billboard.find(data)


def test_sound_of_ones_own(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(8000), 8000)
    (tmp_path / "a.lab").write_text("0 1 C:maj\n")
    (tmp_path / "a.sections.lab").write_text("0\t0.5\tA, first verse\n0.5\t1\tchorus\n")
    (tmp_path / "b.sections.lab").write_text("0 half verse\n")
    zeros = np.zeros((10, 24), np.float32)
    codec = SimpleNamespace(sample_rate=8000, hop=800, kind="audio", features=lambda path: (zeros, 1.0))
    kept: list[Song] = []
    songs = load_songs(tmp_path, codec, lambda song: (kept.append(song), {"x": np.zeros((2, 3))})[1])
    assert songs.names["train"] == ("a.wav",)
    assert len(songs.train["x"]) == 2
    assert len(songs.valid["x"]) == 0
    assert kept[0].chords == {"full": (ChordSpan(0.0, 1.0, "C:maj"),)}
    assert kept[0].sections == (Section(0.0, 0.5, "first verse", "A"), Section(0.5, 1.0, "chorus"))
    assert kept[0].frame_seconds == 0.1
    assert "b.sections.lab: no sections can be read" in dict(songs.skipped)["b.wav"]
    assert "no labels beside it" in dict(songs.skipped)["c.wav"]
    assert "2 examples of 1 songs" in str(songs)
    with pytest.raises(InputError, match="no such folder"):
        load_songs(tmp_path / "nothing", codec, lambda song: {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither the Billboard's"):
        load_songs(tmp_path / "empty", codec, lambda song: {})


@pytest.mark.parametrize(
    ("label", "function"),
    [
        ("verse two", "verse"), ("pre-chorus", "prechorus"), ("Pre Chorus", "prechorus"), ("refrain", "chorus"),
        ("fadeout", "outro"), ("ending", "outro"), ("end", "silence"), ("legend", "other"), ("", "other"),
        ("interlude", "instrumental"), ("pre-intro", "intro"), ("applause", "other"), ("solo", "solo"),
    ],
)  # fmt: skip
def test_words_come_down_to_functions(label: str, function: str) -> None:
    assert function_of(label) == function
    assert function_of(function) == function
    assert function in FUNCTIONS


def test_sections_round_trip(tmp_path: Path) -> None:
    given = [Section(0.0, 1.5, "verse", "A"), Section(1.5, 2.0, "", "B''"), Section(2.0, 3.25, "middle eight")]
    (tmp_path / "x.lab").write_text(sections.to_lab(given))
    assert sections.read_lab(tmp_path / "x.lab") == given
    assert parse("B, pre chorus, fade out") == ("B", "pre chorus, fade out")
    assert parse("main theme, loud") == ("", "main theme, loud")


@pytest.mark.slow
def test_the_data_set() -> None:
    entries = billboard.find(shared.path("data/billboard-chroma.npz").parent)
    assert (len(entries), len({entry.work for entry in entries})) == (833, 701)
    left = total = 0
    for entry in entries[::10]:
        chords = entry.chords()
        left += sum(span.label == "X" for span in chords["full"])
        total += len(chords["full"])
        parts = entry.sections()
        assert all(a.end == b.start for a, b in pairwise(parts))
        assert abs(parts[-1].end - len(entry.chroma()) * billboard.HOP / billboard.RATE) < 15
    assert left / total < 0.005  # of phrases whose bars could not be told from the reduced labels
