"""Codecs of one long sequence: performance events as note_seq has them, and chorales voice by voice."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest

from tests import shared
from zoo.errors import InputError
from zoo.music import chorale, performance
from zoo.music.codecs import get_codec
from zoo.music.io import to_note_sequence
from zoo.music.performance import PerformanceCodec
from zoo.music.score import Score
from zoo.music.serial import SerialCodec

with warnings.catch_warnings():  # importing note_seq warns, and warnings are errors in the tests
    warnings.simplefilter("ignore")
    from note_seq import performance_encoder_decoder, performance_lib, sequences_lib


def random_performance(seed: int, count: int = 60) -> Score:
    """Overlapping notes of all dynamics, some at once, some repeated while they sound, one rest of seconds."""
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(0, 1200, count)) / 100.0
    start[count // 2 :] += 3.21
    length = rng.integers(1, 250, count) / 100.0
    return Score.of(2 * start, 2 * (start + length), rng.integers(21, 100, count) // 3 * 3, rng.integers(1, 128, count))


@pytest.mark.parametrize("seed", range(4))
def test_performance_events_are_those_of_note_seq(seed: int) -> None:
    score = random_performance(seed)
    quantized = sequences_lib.quantize_note_sequence_absolute(to_note_sequence(score), 100)
    theirs = performance_lib.Performance(quantized, num_velocity_bins=32)
    encoding = performance_encoder_decoder.PerformanceOneHotEncoding(32, min_pitch=21, max_pitch=108)
    tokens = PerformanceCodec().tokens(score)
    assert encoding.num_classes == performance.CLASSES == 308
    np.testing.assert_array_equal(tokens, [encoding.encode_event(event) for event in theirs])
    ours = to_note_sequence(PerformanceCodec().decode(tokens))
    columns = lambda ns: sorted((round(n.start_time, 6), round(n.end_time, 6), n.pitch, n.velocity) for n in ns.notes)  # noqa: E731
    assert columns(ours) == columns(theirs.to_sequence())


@pytest.mark.parametrize("seed", range(4))
def test_performances_round_trip(seed: int) -> None:
    codec = PerformanceCodec()
    tokens = codec.tokens(random_performance(seed))
    again = codec.tokens(codec.decode(tokens, qpm=77.0))
    np.testing.assert_array_equal(codec.tokens(codec.decode(again)), again)
    assert codec.seconds(tokens)[-1] == pytest.approx(codec.decode(tokens).quarters / 2)


def test_any_events_are_music() -> None:
    """Whatever a model draws can be decoded, and is the same music after a round."""
    codec = PerformanceCodec()
    tokens = np.random.default_rng(0).integers(0, performance.CLASSES + 1, 2000)
    score = codec.decode(tokens)
    assert len(score) > 100
    assert (score.end > score.start).all()
    assert len(codec.decode([performance.NOTE_OFF, performance.CLASSES])) == 0


def test_performance_windows_and_transposition() -> None:
    codec = get_codec("performance", steps=100)
    score = random_performance(0)
    windows = codec.windows(score)
    flat = windows.reshape(-1)
    tokens = PerformanceCodec().tokens(score)
    np.testing.assert_array_equal(flat[: len(tokens)], tokens)
    assert (flat[len(tokens) :] == performance.CLASSES).all()
    assert len(flat) - len(tokens) < 100
    up = codec.transpose(windows, np.full(len(windows), 2))
    for before, after in zip(windows, up, strict=True):
        keys = before < performance.SHIFT
        shift = min(2, performance.PITCHES - 1 - int((before[keys] % performance.PITCHES).max()))
        np.testing.assert_array_equal(after, before + shift * keys)
    assert (up != windows).any()


def test_performance_takes_the_named_track() -> None:
    score = Score.of([0, 1], [1, 2], [60, 64], track=[0, 1], track_names=("MELODY", "PIANO"))
    assert [t for t in PerformanceCodec(track="PIANO").tokens(score) if t < 88] == [64 - 21]
    assert len([t for t in PerformanceCodec(track="VIOLIN").tokens(score) if t < 88]) == 2
    with pytest.raises(InputError, match="no pitched note"):
        PerformanceCodec().tokens(Score.of([0], [1], [36], is_drum=True))


def four_voices(steps: int = 40, seed: int = 0) -> Score:
    """Four voices that move now and then, the tenor silent for a while."""
    rng = np.random.default_rng(seed)
    grid = np.repeat(rng.integers([60, 55, 48, 38], [80, 70, 65, 60], (steps // 4, 4)), 4, axis=0) - 35
    grid[8:12, 2] = chorale.REST
    return SerialCodec().decode(grid.reshape(-1))


def test_chorales_round_trip() -> None:
    codec = SerialCodec()
    score = four_voices()
    tokens = codec.tokens(score)
    assert tokens.shape == (160,)
    assert (tokens.reshape(-1, 4)[8:12, 2] == chorale.REST).all()
    np.testing.assert_array_equal(codec.tokens(codec.decode(tokens)), tokens)
    at_zero = [score.pitch[(score.start == 0) & (score.track == voice)][0] for voice in range(4)]
    np.testing.assert_array_equal(tokens[:4] - 1 + 36, at_zero)
    assert codec.seconds(tokens, qpm=30)[-1] == 2 * score.quarters == 20.0


def test_voices_are_told_by_their_height() -> None:
    score = four_voices()
    upside_down = Score.of(score.start, score.end, score.pitch, track=3 - score.track)
    np.testing.assert_array_equal(SerialCodec().tokens(upside_down), SerialCodec().tokens(score))


def test_chorale_windows_cover_the_piece() -> None:
    codec = get_codec("chorale-tokens", bars=2)
    tokens = codec.tokens(four_voices())
    windows = codec.windows(four_voices())
    assert windows.shape == (2, codec.steps) == (2, 128)
    np.testing.assert_array_equal(windows[0], tokens[:128])
    np.testing.assert_array_equal(windows[1, :96], tokens[64:])
    assert (windows[1, 96:] == chorale.CLASSES).all()
    short = get_codec("chorale-tokens", bars=4).windows(four_voices())
    assert short.shape == (1, 256)
    np.testing.assert_array_equal(codec.transpose(windows, 1)[0], windows[0] + (windows[0] > 0))
    high = codec.transpose(windows, 99)
    assert ((high < chorale.CLASSES) == (windows < chorale.CLASSES)).all()
    assert high[high < chorale.CLASSES].max() == chorale.CLASSES - 1


def test_chorales_vary_by_repeats() -> None:
    """Some say quarters again, as they were, and go on where they were; the rest are as they were."""
    codec = get_codec("chorale-tokens", bars=8)
    piece = np.arange(10, 38).repeat(16)  # each quarter on a pitch of its own, which tells where it came from
    windows = np.tile(np.r_[piece, np.full(codec.steps - len(piece), chorale.CLASSES)].astype(np.int32), (300, 1))
    varied = codec.vary(windows, np.random.default_rng(0))
    np.testing.assert_array_equal(varied, codec.vary(windows, np.random.default_rng(0)))
    repeats = 0
    for window in varied:
        pitches = window[window < chorale.CLASSES].reshape(-1, 16)
        assert (pitches == pitches[:, :1]).all()  # quarters stay whole
        steps = np.diff(pitches[:, 0])
        assert pitches[0, 0] == 10
        assert (steps != 1).sum() <= 1  # one way back, if any
        if (steps != 1).any():
            repeats += 1
            assert len(pitches) == min(32, 28 + 1 - steps.min())
        else:
            assert len(pitches) == 28
    assert 20 < repeats < 60  # of a third, those whose piece is twice as long as what it would say again


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (Score.of([0] * 5, [1] * 5, [60, 62, 64, 65, 67]), "5 notes at once"),
        (Score.of([0] * 4, [1] * 4, [90, 60, 50, 40], track=[0, 1, 2, 3]), "pitches 40 to 90"),
    ],
)
def test_what_is_no_chorale(score: Score, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SerialCodec().tokens(score)


def test_bachs_own_chorales_round_trip() -> None:
    path = shared.path("data/jsb-chorales.tar.gz")
    pieces: dict[str, Any] = json.loads(member(path, "Jsb16thSeparated.json"))
    codec = SerialCodec()
    for piece in pieces["test"][:20]:
        tokens = (np.array(piece) - chorale.MIN_PITCH + 1).clip(0).reshape(-1)
        np.testing.assert_array_equal(codec.tokens(codec.decode(tokens)), tokens)


def member(path: Any, name: str) -> bytes:
    """A file in a tar archive."""
    import tarfile

    with tarfile.open(path) as archive:
        found = archive.extractfile(name)
        assert found is not None
        return found.read()
