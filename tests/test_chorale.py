"""Four voices on a grid: what is encoded is decoded, how voices are found, and the JSB chorales' official split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import shared
from zoo.data import jsb, load_corpus
from zoo.errors import InputError
from zoo.music import io
from zoo.music.chorale import CLASSES, VOICES, ChoraleCodec
from zoo.music.score import Score

SCORE = """<score-partwise><part-list><score-part id="P1"><part-name>Soprano</part-name></score-part></part-list>
<part id="P1"><measure number="1"><attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type>
</time></attributes>{}</measure></part></score-partwise>"""
NOTE = "<note><pitch><step>{}</step><octave>{}</octave></pitch><duration>1</duration></note>"


def chorale(seed: int = 0, steps: int = 64) -> np.ndarray:
    """Four random lines int32 [steps, 4], each higher than the next, with rests, that end together with a note."""
    rng = np.random.default_rng(seed)
    lines = [np.repeat(rng.integers(low, low + 8, steps // 4), 4) for low in (36, 25, 13, 2)]
    tokens = np.stack(lines, axis=1).astype(np.int32)
    tokens[:-4][np.repeat(rng.random((steps // 4 - 1, 4)) < 0.1, 4, axis=0)] = 0
    return tokens


def test_what_is_encoded_is_decoded(tmp_path: Path) -> None:
    """Through a Score and through a MIDI file, to the last token."""
    codec, tokens = ChoraleCodec(bars=4), chorale()
    score = codec.decode(tokens, qpm=90)
    assert score.track_names == VOICES
    assert score.seconds_at(score.quarters) == pytest.approx(16 * 60 / 90)
    np.testing.assert_array_equal(codec.encode(score), tokens)
    io.write_midi(score, tmp_path / "chorale.mid")
    np.testing.assert_array_equal(codec.encode(io.read(tmp_path / "chorale.mid")), tokens)
    np.testing.assert_array_equal(codec.melody(score), tokens[:, 0])
    assert codec.windows(score).tolist() == [tokens.tolist()]


def test_the_voices_of_a_reduction_are_told_apart_by_height() -> None:
    """All notes on one track: chords of four, three, two and one."""
    pitches = [72, 67, 64, 48, 72, 67, 48, 72, 48, 72]
    start = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    tokens = ChoraleCodec().encode(Score.of(start, np.add(start, 1), pitches))
    want = [[37, 32, 29, 13], [37, 32, 0, 13], [37, 0, 0, 13], [37, 0, 0, 0]]
    np.testing.assert_array_equal(tokens, np.repeat(want, 4, axis=0))


def test_windows_cover_a_piece_to_its_end() -> None:
    codec = ChoraleCodec(bars=2)
    tokens = chorale(steps=72)
    windows = codec.windows(codec.decode(tokens))
    np.testing.assert_array_equal(windows, [tokens[at : at + 32] for at in (0, 16, 32, 40)])
    assert len(codec.windows(codec.decode(tokens), hop_bars=2)) == 3
    with pytest.raises(InputError, match="too short to fill a window of 2 bars"):
        codec.windows(codec.decode(tokens[:20]))
    np.testing.assert_array_equal(codec.windows(codec.decode(tokens[:20]), pad=True)[0, :20], tokens[:20])


def test_transposed_within_the_range() -> None:
    codec, windows = ChoraleCodec(bars=4), np.stack([chorale(0), chorale(1)])
    up = codec.transpose(windows, np.array([1, 2]))
    np.testing.assert_array_equal(up, np.where(windows > 0, windows + np.array([1, 2])[:, None, None], 0))
    far = codec.transpose(windows, 50)
    assert (far.max(axis=(1, 2)) == CLASSES - 1).all()
    assert ((far == 0) == (windows == 0)).all()
    low = codec.transpose(windows, -50)
    assert all(window[window > 0].min() == 1 for window in low)


def test_the_melody_of_a_musicxml_file(tmp_path: Path) -> None:
    file = tmp_path / "tune.musicxml"
    file.write_text(SCORE.format("".join(NOTE.format(*note) for note in [("C", 5), ("D", 5), ("E", 5), ("C", 5)])))
    np.testing.assert_array_equal(ChoraleCodec().melody(io.read(file)), np.repeat([37, 39, 41, 37], 4))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (Score.of([], [], [], source="a.mid"), "a.mid: no notes"),
        (Score.of([0], [1], [36], is_drum=True, source="a.mid"), "a.mid: only drums"),
        (Score.of([0], [1], [95], source="a.mid"), r"a.mid: pitches 95 to 95, and the four voices have 36 \(C2\)"),
        (Score.of([0] * 5, [1] * 5, range(50, 55), source="a.mid"), "a.mid: 5 notes at once"),
    ],
)
def test_what_is_no_chorale(score: Score, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChoraleCodec().encode(score)


def test_the_data_set_has_its_official_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file of the same form: each list is a split, a rest is -1."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    pieces = [np.where(chorale(i) > 0, chorale(i) + 35, -1).tolist() for i in range(4)]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / jsb.NAME).write_text(json.dumps({"train": pieces[:2], "valid": pieces[2:3], "test": pieces[3:]}))
    corpus = load_corpus(folder, ChoraleCodec(bars=4))
    np.testing.assert_array_equal(corpus.train, [chorale(0), chorale(1)])
    np.testing.assert_array_equal(corpus.valid, [chorale(2)])
    np.testing.assert_array_equal(corpus.test, [chorale(3)])
    assert corpus.names[-1] == f"{jsb.NAME}#test/0"


@pytest.mark.parametrize("text", ["[]", '{"train": 1}', '{"train": [[[1, 2]]], "valid": [], "test": []}', "nonsense"])
def test_another_file_of_that_name(text: str, tmp_path: Path) -> None:
    (tmp_path / jsb.NAME).write_text(text)
    with pytest.raises(InputError, match="unpack or download it again"):
        jsb.read(tmp_path / jsb.NAME)


def test_the_real_chorales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    codec = ChoraleCodec(bars=4)
    corpus = load_corpus(shared.path("data/jsb-chorales.tar.gz"), codec)
    counts = {split: len(np.unique(corpus.pieces[split])) for split in jsb.SPLITS}
    assert counts == {"train": 229, "valid": 76, "test": 77}
    file = next(tmp_path.rglob(jsb.NAME))
    pieces = [piece for split in jsb.read(file).values() for piece in split]
    for (_, score), piece in zip(jsb.read_scores(file), pieces, strict=True):
        np.testing.assert_array_equal(codec.encode(score), np.where(piece < 0, 0, piece - 35))
