"""Lead sheets for learning to harmonise: chords from all sources, the grid of slots, MusicXML, batches by length."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests import shared
from zoo.data import bucketed, load_corpus, nottingham
from zoo.errors import InputError
from zoo.music import harmony
from zoo.music.chorale import CLASSES, ChoraleCodec
from zoo.music.codecs import get_codec
from zoo.music.harmony import CHORDS, HELD, LOW, MELODY, ONSET, SILENT, SLOT, HarmonyCodec
from zoo.music.harte import to_symbol
from zoo.music.musicxml import read_musicxml
from zoo.music.musicxml_out import musicxml_bytes
from zoo.music.score import Score

CODEC = HarmonyCodec(bars=4)


def sheet(meters: list[tuple[float, int, int]] | None = None, **options: object) -> Score:
    """Eight quarters of a melody in C, with four chords."""
    facts = {"chords": ((0.0, "C"), (2.0, "Am7"), (4.0, "G7/B"), (6.0, "N.C."))}
    if meters:
        facts["meters"] = np.array(meters, np.float64)  # type: ignore[assignment]
    return Score.of(range(8), range(1, 9), [60, 64, 65, 69, 71, 67, 64, 60], **(facts | options))


# --- chords -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", range(0, CHORDS, 7))
def test_symbols_there_and_back(token: int) -> None:
    for shift in (0, 5):
        for flats in (False, True):
            symbol = harmony.symbol_of(token, shift, flats)
            assert harmony.token_of(symbol, -shift) == token
    sounding = {pitch % 12 for pitch in harmony.voiced(token)}
    assert sounding == harmony.pitch_classes(token)
    assert {pitch % 12 for pitch in harmony.voiced(token, 5)} == {(pitch + 5) % 12 for pitch in sounding}


@pytest.mark.parametrize(
    ("symbol", "kind"),
    [
        ("C6", "C"), ("C6/9", "C"), ("Cmaj9", "Cmaj7"), ("C9", "C7"), ("C13", "C7"), ("C7(addb9)", "C7"), ("C+7", "C7"),
        ("Cm6", "Cm"), ("Cm9", "Cm7"), ("Cm(maj7)", "Cm"), ("Cdim7", "Cdim"), ("Cm7b5", "Cm7b5"), ("C7sus", "Csus4"),
        ("Csus2", "Csus4"), ("C5", "C"), ("C(add9)", "C"), ("C/G", "C"), ("nonsense", "N.C."), ("N.C.", "N.C."),
    ],
)  # fmt: skip
def test_what_other_chords_are_read_as(symbol: str, kind: str) -> None:
    assert harmony.symbol_of(harmony.token_of(symbol)) == kind


@pytest.mark.parametrize(
    ("label", "symbol"),
    [
        ("C:maj", "C"), ("Bb:min7/b3", "Bbm7/Db"), ("F#:maj7/5", "F#maj7/C#"), ("E:hdim7", "Em7b5"), ("N", "N.C."),
        ("G:sus4(b7)", "Gsus4(add7)"), ("A:aug", "A+"), ("Eb:maj/2", "Eb/F"), ("D", "D"), ("B:dim7/b7", "Bdim7/A"),
    ],
)  # fmt: skip
def test_harte_labels_as_symbols(label: str, symbol: str) -> None:
    assert to_symbol(label) == symbol


def test_blocks_as_symbols() -> None:
    blocks = [
        (0, 2, (48, 52, 55)),
        (2, 4, (48, 52, 55)),
        (4, 6, (45, 48, 52, 55)),
        (8, 10, (47, 50, 53)),
        (10, 12, (40, 41)),
    ]
    notes = [(start, end, pitch) for start, end, pitches in blocks for pitch in pitches]
    found = nottingham.symbols(Score.of(*np.array(notes, float).T))
    assert found == ((0, "C"), (4, "Am7"), (6, "N.C."), (8, "Bdim"), (10, "N.C."))


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_a_melody_with_its_chords() -> None:
    piece = CODEC.encode(sheet())
    assert piece.tokens.shape == (4 * SLOT, 3)
    np.testing.assert_array_equal(piece.begins, [0, 2, 4, 6, 8])
    assert piece.shift == 0
    up = 60 - LOW
    assert piece.tokens[:8, 0].tolist() == [ONSET + up, *[HELD + up] * 3, ONSET + up + 4, *[HELD + up + 4] * 3]
    assert [harmony.symbol_of(int(token)) for token in piece.tokens[::SLOT, 1]] == ["C", "Am7", "G7", "N.C."]
    assert piece.tokens[::SLOT, 2].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("metre", "begins", "places"),
    [
        ((4, 4), [0, 2, 4, 6, 8], [0, 1, 0, 1]),
        ((2, 4), [0, 2, 4, 6, 8], [0, 1, 0, 1]),
        ((3, 4), [0, 2, 3, 5, 6, 8, 9], [0, 1, 0, 1, 0, 1]),
        ((6, 8), [0, 1.5, 3, 4.5, 6, 7.5, 9], [0, 1, 0, 1, 0, 1]),
        ((9, 8), [0, 1.5, 3, 4.5, 6, 7.5, 9], [0, 1, 2, 0, 1, 2]),
        ((5, 4), [0, 2, 4, 5, 7, 9], [0, 1, 2, 0, 1]),
    ],
)
def test_slots_of_a_metre(metre: tuple[int, int], begins: list[float], places: list[int]) -> None:
    piece = CODEC.encode(sheet([(0, *metre)]))
    count = int(np.searchsorted(begins, 8))  # it ends with the slot in which the melody does
    np.testing.assert_allclose(piece.begins, begins[: count + 1])
    assert piece.tokens[::SLOT, 2].tolist() == places[:count]
    for slot, size in zip(piece.tokens[:, 0].reshape(-1, SLOT), np.diff(piece.begins), strict=True):
        assert ((slot < MELODY) == (np.arange(SLOT) < 4 * size)).all()
    played = CODEC.decode(piece.tokens)
    np.testing.assert_array_equal(played.pitch, sheet().pitch)
    np.testing.assert_array_equal(played.start, sheet().start)


def test_a_change_of_metre_and_a_silent_beginning() -> None:
    score = sheet([(0, 4, 4), (8, 3, 4)])
    late = replace(score, start=score.start + 6, end=score.end + 6, chords=((0.0, "F"), (10.0, "G")))
    piece = CODEC.encode(late)
    np.testing.assert_array_equal(piece.begins, [6, 8, 10, 11, 13, 14])
    assert [harmony.symbol_of(int(token)) for token in piece.tokens[::SLOT, 1]] == ["F", "F", "G", "G", "G"]
    assert piece.tokens[0, 0] > SILENT


def test_all_keys_are_c() -> None:
    one = CODEC.encode(sheet())
    for up in (3, -4, 7):
        symbols = tuple((at, harmony.symbol_of(harmony.token_of(symbol), up)) for at, symbol in sheet().chords)
        other = CODEC.encode(replace(sheet(), pitch=sheet().pitch + up, chords=symbols))
        np.testing.assert_array_equal(other.tokens[:, 1:], one.tokens[:, 1:])
        pitched = one.tokens[:, 0] > SILENT
        np.testing.assert_array_equal((other.tokens[:, 0] - one.tokens[:, 0])[pitched] % 12, 0)
        assert (one.shift - other.shift) % 12 == up % 12


def test_windows_are_padded_and_transposed() -> None:
    windows = CODEC.windows(sheet())
    assert windows.shape == (1, 64, 3)
    assert CODEC.lengths(windows).tolist() == [32]
    assert (windows[0, 32:] == [MELODY, CHORDS, 0]).all()
    up = CODEC.transpose(windows, [2])
    assert harmony.symbol_of(int(up[0, 0, 1])) == "D"
    np.testing.assert_array_equal(up[0, 32:], windows[0, 32:])
    np.testing.assert_array_equal(CODEC.decode(up[0]).pitch, sheet().pitch + 2)
    np.testing.assert_array_equal(CODEC.transpose(up, [-2]), windows)
    long = Score.of(range(40), range(1, 41), [60] * 40, chords=sheet().chords)
    cut = CODEC.windows(long, hop_bars=2)
    assert CODEC.lengths(cut).tolist() == [64] * len(cut)
    np.testing.assert_array_equal(cut[0, 32:], cut[1, :32])


def test_the_melody_of_many_tracks() -> None:
    tune = sheet()
    chords = Score.of([0, 0, 4, 4], [4, 4, 8, 8], [48, 52, 48, 55], track=1)
    columns = {
        name: np.concatenate([getattr(tune, name), getattr(chords, name)])
        for name in ("start", "end", "pitch", "track")
    }
    both = Score.of(**columns, chords=tune.chords)
    np.testing.assert_array_equal(CODEC.encode(both).tokens, CODEC.encode(tune).tokens)
    named = replace(both, track_names=("Flute", "Melody"))
    assert harmony.melody_of(named).track.tolist() == [1] * 4


@pytest.mark.parametrize(
    ("score", "error"),
    [
        (sheet(chords=()), "has no chord symbols"),
        (sheet(is_drum=True), "only drums"),
        (Score.of([], [], [], chords=((0.0, "C"),)), "no notes"),
    ],
)
def test_what_has_no_windows(score: Score, error: str) -> None:
    with pytest.raises(InputError, match=error):
        CODEC.windows(score)


def test_whole_chorales() -> None:
    """Padding is not transposed, and pieces come back without it."""
    codec = ChoraleCodec(bars=4, whole=True)
    rng = np.random.default_rng(0)
    tokens = rng.integers(10, 30, (20, 4)).astype(np.int32)
    windows = codec.windows(codec.decode(tokens))
    assert windows.shape == (1, 64, 4)
    assert codec.lengths(windows).tolist() == [20]
    assert (windows[0, 20:] == CLASSES).all()
    np.testing.assert_array_equal(codec.transpose(windows, [3])[0, :20], windows[0, :20] + 3)
    np.testing.assert_array_equal(codec.transpose(windows, [3])[0, 20:], windows[0, 20:])
    assert get_codec("chorale", bars=4, whole=True) == codec


# --- MusicXML ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metre", [(4, 4), (3, 4), (6, 8), (5, 4)])
def test_musicxml_there_and_back(metre: tuple[int, int]) -> None:
    """Notes over bar lines, of any length in sixteenths, with symbols within a note."""
    rng = np.random.default_rng(sum(metre))
    onset = np.cumsum(rng.integers(1, 11, 40)) / 4
    end = np.minimum(onset + rng.integers(1, 11, 40) / 4, np.append(onset[1:], onset[-1] + 2))
    symbols = (
        (0.0, "N.C."),
        (1.25, "Bbm7"),
        (4.0, "F#m7b5/C#"),
        (7.75, "Ebmaj7"),
        (9.0, "C+"),
        (12.0, "Gsus4"),
        (14.0, "A6"),
    )
    score = Score.of(
        onset, end, rng.integers(50, 90, 40), tempos=np.array([[0.0, 96.0]]), meters=np.array([[0.0, *metre]]),
        chords=symbols, track_names=("Air",),
    )  # fmt: skip
    read = read_musicxml(musicxml_bytes(score, (0,), 5, "Tune & <more>"))
    np.testing.assert_allclose(read.start, score.start)
    np.testing.assert_allclose(read.end, score.end)
    np.testing.assert_array_equal(read.pitch, score.pitch)
    assert read.chords == symbols
    np.testing.assert_array_equal(read.meters, score.meters)
    assert read.track_names == ("Air",)
    assert read.qpm == 96


def test_musicxml_of_four_voices() -> None:
    codec = ChoraleCodec()
    score = codec.decode(np.random.default_rng(0).integers(0, 40, (32, 4)))
    read = read_musicxml(musicxml_bytes(score, range(4)))
    np.testing.assert_array_equal(codec.encode(read)[:32], codec.encode(score))


# --- data -------------------------------------------------------------------------------------------------------------


def test_batches_by_length() -> None:
    lengths = np.array([3, 8, 5, 8, 2, 4, 7, 6, 8, 1])
    windows = np.where(np.arange(8) < lengths[:, None], np.arange(10)[:, None] + 1, 0)
    batches = list(islice(bucketed(windows, lengths, [4, 8], 2, seed=1), 20))
    assert {batch["x"].shape for batch in batches} == {(4, 4), (2, 8)}
    for batch in batches:
        rows = batch["x"].max(axis=1) - 1
        assert ((batch["x"] > 0).sum(axis=1) == lengths[rows]).all()
        assert (lengths[rows] > 4).all() == (batch["x"].shape[1] == 8)
    epoch = np.concatenate([batch["x"].max(axis=1) - 1 for batch in batches[:4]])  # 4 short in 1 batch, 6 long in 3
    assert sorted(set(epoch.tolist())) == list(range(10))
    later = list(islice(bucketed(windows, lengths, [4, 8], 2, seed=1, start_step=7), 13))
    for one, other in zip(batches[7:], later, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])
    with pytest.raises(InputError, match="is 8 long"):
        bucketed(windows, lengths, [4, 6], 2)
    with pytest.raises(InputError, match="no windows"):
        bucketed(windows[:0], lengths[:0], [8], 2)


def test_chords_of_the_data_sets(tmp_path: Path) -> None:
    """Of each a few pieces: chords beside the melody, most of whose notes they hold."""
    for archive, folders in (("pop909", ["00*"]), ("nottingham", ["jigs1?.mid"]), ("openewld", ["*A*"])):
        data = shared.path(f"data/{archive}.tar.gz").parent
        patterns = [f"{archive}.tar.gz/{part}" for part in folders]
        corpus = load_corpus(data, HarmonyCodec(), hop_bars=16, patterns=[*patterns, "!*/melody/*", "!*/chords/*"])
        windows = np.concatenate([corpus.train, corpus.valid, corpus.test])
        assert len(windows) > 5
        cells, chords = windows[..., 0].ravel(), windows[..., 1].ravel()
        sounding = (cells >= ONSET) & (cells < MELODY) & (chords > 0)
        pitch = (np.where(cells >= HELD, cells - HELD, cells - ONSET) + LOW) % 12
        rows = zip(chords[sounding].tolist(), pitch[sounding].tolist(), strict=True)
        inside = [pitch in harmony.pitch_classes(chord) for chord, pitch in rows]
        assert np.mean(inside) > 0.6, archive  # 0.37 by chance
