"""Phrases for a band: the codec, and what is counted in them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.errors import InputError
from zoo.music.codecs import get_codec
from zoo.music.phrases import LOWEST, PARTS, PITCHES, PhrasesCodec, parts
from zoo.music.score import Score
from zoo.nn import phrases

CODEC = PhrasesCodec(bars=1)


def score(*notes: tuple[float, float, int, int], names: tuple[str, ...] = ("Melody", "Bridge", "Piano")) -> Score:
    """Notes as (start, end, pitch, track), in quarters."""
    start, end, pitch, track = zip(*notes, strict=True)
    return Score.of(start, end, pitch, track=track, track_names=names, source="song.mid")


def random_rolls(seed: int, shape: tuple[int, ...], share: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.int8)


def test_windows_are_what_is_played():
    found = CODEC.windows(score((0, 1, 60, 0), (1, 1.5, 62, 0), (0, 4, 48, 2)))
    assert found.shape == (1, 16, 3, PITCHES)
    assert found.dtype == np.int8
    where = {(t, k, p + LOWEST) for t, k, p in np.argwhere(found[0])}
    melody = {(t, 0, 60) for t in range(4)} | {(t, 0, 62) for t in range(4, 6)}
    assert where == melody | {(t, 2, 48) for t in range(16)}


def test_a_note_struck_again_is_two_notes():
    again = CODEC.decode(CODEC.roll(score((0, 1, 60, 0), (1, 2, 60, 0), (2, 4, 60, 2), (3, 4, 60, 2)))[:16])
    notes = sorted(zip(again.track.tolist(), again.start.tolist(), again.end.tolist(), strict=True))
    assert notes == [(0, 0, 0.75), (0, 1, 2), (2, 2, 2.75), (2, 3, 4)]  # the third is cut short by the fourth


@pytest.mark.parametrize("bars", [1, 4])
def test_any_roll_comes_back(bars):
    codec = get_codec("phrases", bars=bars)
    roll = random_rolls(bars, (codec.steps, 3, PITCHES))
    roll[0, 2, 7] = 1  # so that the first bar is played in
    decoded = codec.decode(roll, qpm=90)
    np.testing.assert_array_equal(codec.roll(decoded), roll)
    assert decoded.qpm == 90
    assert decoded.track_names == tuple(part.name for part in PARTS)


def test_a_piece_in_phrases_ends_in_silence():
    codec = PhrasesCodec(bars=2)
    roll = codec.roll(score((9, 10, 60, 0), (9, 18, 40, 2)))  # from the third bar into the fifth
    assert len(roll) == 4 * 16
    assert not roll[10 * 4 :].any()
    assert roll[4:40].any(axis=(1, 2)).all()


def test_phrases_of_a_band_have_no_silent_bar_and_two_parts():
    codec = PhrasesCodec(bars=2)
    silent = score((0, 1, 60, 0), (0, 1, 40, 2), (8, 16, 60, 0), (8, 16, 40, 2))
    assert len(codec.windows(silent)) == 1  # bars 3 and 4 alone
    assert len(codec.windows(silent, pad=True)) == 2  # the second begins with silence
    with pytest.raises(InputError, match=r"song\.mid: .*two parts"):
        codec.windows(score((0, 16, 60, 0)))
    assert len(codec.windows(score((0, 16, 60, 0)), hop_bars=2, pad=True)) == 2
    with pytest.raises(InputError, match=r"song\.mid"):
        codec.windows(score((0, 1, 60, 0)).select([False]))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Piano left", "LEAD VOCAL", "Strings"), [2, 0, 2]),
        (("", "", ""), [2, 2, 0]),  # the highest is the melody
        (("Bridge", "x", "Piano"), [1, 2, 2]),
        ((), [2, 2, 0]),
    ],
)
def test_parts_by_the_names_of_tracks(names, expected):
    assert parts(score((0, 1, 40, 0), (0, 1, 50, 1), (0, 1, 70, 2), names=names)).tolist() == expected


def test_what_is_out_of_range_is_moved_by_octaves():
    roll = CODEC.roll(score((0, 1, 21, 2), (0, 1, 108, 0)))
    assert {(k, p + LOWEST) for _, k, p in np.argwhere(roll)} == {(2, 45), (0, 84)}


def test_transposition_stops_at_the_edge():
    windows = np.zeros((3, 16, 3, PITCHES), np.int8)
    windows[:, :4, 0, 10] = windows[:, 4:, 2, 57] = 1
    up, down, same = CODEC.transpose(windows, [5, -4, 0])
    assert sorted(set(np.argwhere(up)[:, 2].tolist())) == [12, 59]  # by two alone
    assert sorted(set(np.argwhere(down)[:, 2].tolist())) == [6, 53]
    np.testing.assert_array_equal(same, windows[2])
    there = CODEC.transpose(windows, 2)
    np.testing.assert_array_equal(CODEC.transpose(there, -2), windows)
    assert not CODEC.transpose(np.zeros_like(windows), 7).any()


def band() -> jnp.ndarray:
    """A bar of 8 steps for two tracks: C E G held, then a splinter; C held against F sharp."""
    x = np.zeros((1, 8, 2, 24), np.float32)
    x[0, :4, 0, [0, 4, 7]] = 1
    x[0, 5, 0, 14] = 1
    x[0, :4, 1, 12] = 1
    x[0, 4:, 1, 6] = 1
    return jnp.asarray(x)


def test_measures_by_hand():
    found = phrases.measures(band(), bar=4)
    assert float(found["empty_bars"]) == 0
    assert found["used_pitch_classes"].tolist() == [3 + 1 + 1 + 1, 4]
    assert found["qualified_notes"].tolist() == [3 + 2, 4 + 2]  # of F sharp and the C all is long
    assert phrases.empty_bars(band().at[:, 4:, 0].set(0), 4).tolist() == [[0.5, 0.0]]
    assert phrases.onsets(band()).sum() == 6


def test_tonal_distance_is_harte():
    """Of C against a C major triad, and D against F sharp: equations 1 and 2 written out."""
    total, beats = phrases.tonal_distance(band())
    assert beats.tolist() == [[2.0]]
    circles = np.array([(1, 7 * np.pi / 6), (1, 3 * np.pi / 2), (0.5, 2 * np.pi / 3)])

    def centroid(*pitches: int) -> np.ndarray:
        each = [[(r * np.sin(p * step), r * np.cos(p * step)) for r, step in circles] for p in pitches]
        return np.mean(each, axis=0).ravel()

    expected = np.linalg.norm(centroid(0, 4, 7) - centroid(0)) + np.linalg.norm(centroid(2) - centroid(6))
    assert float(total[0, 0]) == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(centroid(0) - centroid(7)) < np.linalg.norm(centroid(0) - centroid(6))  # a fifth is near


def test_features_are_bounded_and_tell_phrases_apart():
    x = jnp.asarray(random_rolls(0, (6, 32, 3, PITCHES), 0.02), jnp.float32)
    found = phrases.features(x, 16)
    assert found.shape[0] == 6
    assert np.isfinite(found).all()
    assert float(jnp.abs(found).max()) < 3
    assert np.isfinite(phrases.features(jnp.zeros_like(x), 16)).all()


def test_energy_distance_is_zero_for_the_same_and_grows():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(400, 5)), jnp.float32) for _ in range(2))
    same, near, far = (float(phrases.energy_distance(a, b + shift)) for shift in (0.0, 0.5, 2.0))
    narrow = float(phrases.energy_distance(a, 0.1 * b))  # good, but all alike
    assert abs(same) < 0.03
    assert 0.1 < near < far
    assert narrow > 0.1
