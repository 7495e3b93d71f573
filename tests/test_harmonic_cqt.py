"""The constant-Q transform: laws that hold of any sound, and pieces that give what the whole gives."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.music.codecs import get_codec
from zoo.music.harmonic_cqt import ConstantQ, HarmonicCqtCodec, decibels

RATE = 44100
CODEC = HarmonicCqtCodec()
RNG = np.random.default_rng(0)


def tone(hz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("semitone", [0, 7, 19, 40, 59])
def test_a_tone_is_loudest_in_its_bin(semitone: int) -> None:
    """A semitone is three bins; the second harmonic's filters begin an octave higher."""
    frames, seconds = CODEC.features((tone(CODEC.lowest * 2 ** (semitone / 12)), RATE))
    assert seconds == 2.0
    assert frames.shape == (2 * RATE // 4096, 216, 2)
    middle = np.asarray(frames)[len(frames) // 2]
    assert middle[:, 0].argmax() == 3 * semitone
    if semitone >= 12:
        assert middle[:, 1].argmax() == 3 * (semitone - 12)


def test_equal_tones_are_equally_loud() -> None:
    """Whatever the octave, at whatever rate it is heard: within a tenth of a decibel once the filters are full."""
    transform = ConstantQ(RATE, 4096, CODEC.lowest, 6, 36)
    pieces = [transform.push(tone(CODEC.lowest * 2**octave, 4096 * 40 / RATE)) for octave in range(6)]
    levels = np.concatenate([*pieces, transform.finish()])
    found = [20 * np.log10(levels[40 * octave + 20, 36 * octave] * 2 ** (octave / 2)) for octave in range(6)]
    assert np.ptp(found) < 0.1  # a filter an octave lower is twice as long, and √2 times as loud


def test_decibels() -> None:
    x = np.array([[1.0, 0.1], [1e-3, 0.0]], np.float32)
    np.testing.assert_allclose(decibels(3 * x, 3.0), [[0, -20], [-60, -80]], atol=1e-5)
    assert (decibels(np.zeros((2, 3), np.float32), 0.0) == -80).all()


@pytest.mark.parametrize("size", [1, 333, 4096, 50_001])
def test_pieces_give_what_the_whole_gives(size: int) -> None:
    """To the last bits of float32, however the signal is cut; it is shorter than the longest filter, or longer."""
    signal = RNG.standard_normal(1_500 if size == 1 else 120_000).astype(np.float32)
    whole, pieces = (ConstantQ(RATE, 4096, CODEC.lowest, 6, 36) for _ in range(2))
    expected = np.concatenate([whole.push(signal), whole.finish()])
    found = [pieces.push(signal[at : at + size]) for at in range(0, len(signal), size)]
    assert len(expected) >= 1 + len(signal) // 4096
    np.testing.assert_allclose(np.concatenate([*found, pieces.finish()]), expected, rtol=1e-4, atol=1e-6)


def test_a_rate_of_its_own() -> None:
    """Another rate is resampled to the model's: the same frames, near enough."""
    low = tone(220, 3)[::2]  # 22.05 kHz; nothing of it is near the new Nyquist frequency
    near, given = (np.asarray(CODEC.features(source).frames) for source in ((low, RATE // 2), (tone(220, 3), RATE)))
    assert near.shape == given.shape
    loud = given > -50
    np.testing.assert_allclose(near[loud], given[loud], atol=0.05)


def test_too_short() -> None:
    with pytest.raises(InputError, match=r"the samples: 0\.000 s are too short for chords; give at least 0\.093 s"):
        CODEC.features((np.zeros(1, np.float32), RATE))
    assert CODEC.features((np.zeros(4096, np.float32), RATE)).frames.shape == (1, 216, 2)


def test_options() -> None:
    codec = get_codec("harmonic-cqt", octaves=2, harmonics=[1], hop=512)
    assert codec.features((tone(65.4), RATE)).frames.shape[1:] == (72, 1)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="hop=100 can't be halved 5 times"):
        ConstantQ(RATE, 100, 32.7, 6, 36)
