"""Rules of counterpoint, each on a case that breaks it and one that doesn't."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.music import counterpoint

CHORDS = np.array([[72, 67, 64, 48], [71, 67, 62, 55], [72, 67, 64, 48]])  # I V I


def held(chords) -> np.ndarray:
    """Each chord for a quarter, int [T, 4]."""
    return np.repeat(np.asarray(chords, np.int32), 4, axis=0)


@pytest.mark.parametrize(
    ("chords", "fifths", "octaves"),
    [
        (
            [[67, 64, 60, 48], [69, 65, 62, 50]],
            2,
            1,
        ),  # soprano over tenor and over bass in fifths, tenor and bass in 8ves
        ([[67, 64, 60, 48], [67, 64, 60, 48]], 0, 0),  # nothing moves
        ([[67, 64, 60, 48], [65, 65, 62, 50]], 0, 1),  # a fifth to a third, the octave is parallel
        ([[67, 64, 60, -1], [69, 65, 62, -1]], 1, 0),  # a voice that rests is in no interval
    ],
)
def test_parallels(chords, fifths, octaves):
    music = held(chords)
    assert counterpoint.parallels(music, 7) == fifths
    assert counterpoint.parallels(music, 0) == octaves
    found = counterpoint.faults([music])
    assert found["parallel_fifths"] == pytest.approx(100 * fifths / 2)


def test_crossing_range_and_dissonance():
    good = counterpoint.faults([held(CHORDS)])
    assert (good["crossing"], good["out_of_range"], good["dissonant_beats"]) == (0, 0, 0)
    bad = CHORDS.copy()
    bad[1] = [65, 67, 62, 55]  # the soprano under the alto, a seventh over the bass, a second between alto and soprano
    bad[2, 0] = 84  # above a soprano
    found = counterpoint.faults([held(bad)])
    assert found["crossing"] == pytest.approx(1 / 3)
    assert found["dissonant_beats"] == pytest.approx(1 / 3)
    assert found["out_of_range"] == pytest.approx(1 / 12)


def test_a_bar_is_found_in_any_key_and_from_any_beat():
    rng = np.random.default_rng(0)
    original = held(rng.integers(50, 70, (12, 4)))
    assert counterpoint.copied_bars([original[4:20] + 3], [original]) == 1
    assert counterpoint.copied_bars([original[2:18]], [original]) == 0  # between the beats
    changed = original[4:20].copy()
    changed[7, 2] += 1
    assert counterpoint.copied_bars([np.concatenate([changed, original[:16]])], [original]) == 0.5
