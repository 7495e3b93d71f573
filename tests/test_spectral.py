"""Spectrograms: librosa's values, and the laws of Fourier and mel."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.sounds import RATE, chords
from zoo.nn import spectral

GOLDEN = np.load(Path(__file__).parent / "golden" / "spectral.npz")
SOUND = chords(0.25)


def test_stft_is_librosas() -> None:
    ours = jax.jit(lambda x: spectral.stft(spectral.frames(x, 512, 256)))(SOUND)
    np.testing.assert_allclose(ours, GOLDEN["stft"], atol=2e-6 * np.abs(GOLDEN["stft"]).max())


def test_mel_spectrogram_is_librosas() -> None:
    filters = spectral.mel_filters(RATE, 512, 96)
    ours = jax.jit(lambda x: spectral.power(spectral.frames(x, 512, 256)) @ filters)(SOUND)
    np.testing.assert_allclose(ours, GOLDEN["mel"], rtol=1e-4, atol=1e-6 * GOLDEN["mel"].max())


def test_filters_are_librosas() -> None:
    np.testing.assert_allclose(spectral.mel_filters(RATE, 512, 96), GOLDEN["filters"], rtol=1e-5, atol=1e-9)
    between = spectral.mel_filters(22050, 1024, 40, 30, 8000)
    np.testing.assert_allclose(between, GOLDEN["filters_between"], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 255, 256, 1000])
def test_frames(samples: int) -> None:
    """Frame t is around sample t · hop; outside the sound there are zeros."""
    x = 1.0 + jnp.arange(samples, dtype=jnp.float32)
    frames = spectral.frames(jnp.stack([x, -x]), 8, 4)
    assert frames.shape == (2, 1 + samples // 4, 8)
    np.testing.assert_array_equal(frames[0], -frames[1])
    for t, frame in enumerate(np.asarray(frames[0])):
        at = 4 * t - 4 + np.arange(8)
        np.testing.assert_array_equal(frame, np.where((at >= 0) & (at < samples), at + 1, 0))


def test_parseval() -> None:
    """The power of all frequencies, those between the first and the last twice, is that of the windowed samples."""
    frames = np.random.default_rng(0).standard_normal((3, 64), dtype=np.float32)
    power = np.array(spectral.power(frames))
    power[:, 1:-1] *= 2
    windowed = frames * spectral.hann(64)
    np.testing.assert_allclose(power.sum(axis=1) / 64, (windowed**2).sum(axis=1), rtol=1e-5)


def test_a_sine_is_where_it_should_be() -> None:
    """One of 1 kHz falls on bin 32 of 512 at 16 kHz, a quarter of the window's length high, with two neighbours."""
    spectrum = np.abs(spectral.stft(np.cos(2 * np.pi * 1000 * np.arange(512, dtype=np.float32) / RATE)))
    np.testing.assert_allclose(spectrum[[31, 32, 33]], [64, 128, 64], rtol=1e-4)
    assert np.delete(spectrum, [31, 32, 33]).max() < 0.01


def test_mel_is_invertible_and_rises() -> None:
    hz = np.linspace(0, 8000, 500)
    np.testing.assert_allclose(spectral.mel_to_hz(spectral.hz_to_mel(hz)), hz, atol=1e-9)
    assert (np.diff(spectral.hz_to_mel(hz)) > 0).all()
    assert spectral.hz_to_mel(1000.0) == pytest.approx(15)


def test_filters_have_area_one_and_join() -> None:
    """With enough frequencies each filter's area is 1, and next to each other they leave no gap."""
    filters = spectral.mel_filters(RATE, 1 << 16, 40)
    np.testing.assert_allclose(filters.sum(axis=0) * RATE / (1 << 16), 1, rtol=1e-3)
    assert (filters.sum(axis=1)[1:-1] > 0).all()


def test_log_compression() -> None:
    x = spectral.log_compressed(jnp.array([0.0, 9e-4, 1.0]), 1e4)
    np.testing.assert_allclose(x, [0, 1, 4], atol=1e-4)
