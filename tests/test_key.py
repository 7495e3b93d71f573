"""Keys and bars of notes, found without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from zoo.music.key import correlations, durations, find_key, find_keys, key_name
from zoo.music.metre import estimate_bars, find_beats, keeps_grid, onset_strength
from zoo.music.score import Score

SCALE = {"major": (0, 2, 4, 5, 7, 9, 11, 12), "minor": (0, 2, 3, 5, 7, 8, 11, 12)}


def scale(tonic: int, mode: str, start: float = 0.0, times: int = 4) -> Score:
    """A scale up and its tonic chord, again and again, at 120 a minute."""
    up = [tonic + step for step in SCALE[mode]] * times
    at = start + np.arange(len(up))
    third = 4 if mode == "major" else 3
    chords = [(a, p) for a in start + 8.0 * np.arange(times) for p in (tonic, tonic + third, tonic + 7)]
    begin = np.concatenate([at, [a for a, _ in chords]])
    length = np.repeat([1.0, 8.0], [len(up), len(chords)])
    return Score.of(begin, begin + length, [*up, *(p for _, p in chords)])


def joined(a: Score, b: Score) -> Score:
    return Score.of(*(np.concatenate([getattr(s, name) for s in (a, b)]) for name in ("start", "end", "pitch")))


@pytest.mark.parametrize("mode", ["major", "minor"])
def test_every_key(mode: str) -> None:
    for tonic in range(12):
        found = find_key(scale(60 + tonic, mode))
        assert found is not None
        assert found.key == 2 * tonic + (mode == "minor")
        assert found.name == key_name(found.key)
        assert found.name.endswith(mode)
        assert 0.5 < found.fit <= 1


def test_a_change_of_key() -> None:
    """Two keys far apart, half a minute each: one change near the middle. A short visit is none."""
    piece = joined(scale(60, "major", 0.0, 8), scale(66, "major", 64.0, 8))
    spans = find_keys(piece)
    assert [span.name for span in spans] == ["C major", "F# major"]
    assert spans[0].end == spans[1].start == pytest.approx(32, abs=2)
    assert (spans[0].start, spans[1].end) == (0, 64)
    visit = joined(piece, scale(61, "minor", 128.0, 1))
    assert [span.name for span in find_keys(visit)] == ["C major", "F# major"]


def test_nothing_has_no_key() -> None:
    for score in (Score.of([], [], []), Score.of([0], [1], [36], is_drum=True)):
        assert find_key(score) is None
        assert find_keys(score) == []
    assert correlations(np.zeros(12)).max() == 0


def test_durations_are_seconds() -> None:
    """However notes lie across seconds, and whatever the tempo, their lengths are what is counted."""
    rng = np.random.default_rng(0)
    start = rng.random(50) * 30
    score = Score.of(
        start, start + rng.random(50) * 5, rng.integers(0, 128, 50), tempos=np.array([[0, 90.0], [9, 150]])
    )
    found = durations(score)
    seconds = score.seconds_at(score.end) - score.seconds_at(score.start)
    np.testing.assert_allclose(found.sum(axis=0), np.bincount(score.pitch % 12, seconds, 12), atol=1e-9)
    one = durations(Score.of([0.5], [5.0], [60]))  # 0.25 s to 2.5 s
    np.testing.assert_allclose(one[:, 0], [0.75, 1, 0.5])


def march(bars: int, beats: int, qpm: float) -> Score:
    """A bass note and a chord at each bar, a chord at its other beats, eighths above."""
    quarters = np.arange(bars * beats, dtype=np.float64)
    bass, eighths = quarters[::beats], np.arange(0, bars * beats, 0.5)
    start = np.concatenate([bass, quarters, quarters, eighths])
    length = np.repeat([beats - 0.1, 0.8, 0.8, 0.3], [len(bass), len(quarters), len(quarters), len(eighths)])
    pitch = np.repeat([40, 60, 64, 79], [len(bass), len(quarters), len(quarters), len(eighths)])
    return Score.of(start, start + length, pitch, tempos=np.array([[0.0, qpm]]))


@pytest.mark.parametrize(("beats", "qpm"), [(4, 100.0), (4, 132.0), (3, 110.0)])
def test_bars_of_a_march_and_a_waltz(beats: int, qpm: float) -> None:
    found = estimate_bars(march(16, beats, qpm))
    assert found is not None
    assert (found.beats, found.known_by) == (beats, "estimated")
    true = np.arange(16) * beats * 60 / qpm
    distance = np.abs(found.starts[:, None] - true).min(axis=0)
    assert np.median(distance) < 0.05
    assert abs(len(found.starts) - 16) <= 1


def test_beats_follow_a_tempo_that_changes() -> None:
    score = march(24, 4, 100.0)
    score = replace(score, tempos=np.array([[0.0, 100.0], [32.0, 108.0], [64.0, 116.0]]))
    beats = find_beats(onset_strength(score)) / 50
    true = score.seconds_at(np.arange(96))
    assert np.median(np.abs(beats[:, None] - true).min(axis=0)) < 0.05
    assert len(beats) == pytest.approx(96, abs=3)


def test_too_little_for_bars() -> None:
    for score in (Score.of([], [], []), Score.of([0], [1], [60]), Score.of([0, 1], [1, 90], [60, 61])):
        assert estimate_bars(score) is None


def test_grid() -> None:
    score = march(4, 4, 100.0)
    assert keeps_grid(score)
    assert not keeps_grid(replace(score, start=score.start * 1.037))
