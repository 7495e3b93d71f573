"""What PESTO alone promises: transposition, its objectives, and what the package computes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.golden.make_pesto import RATE, STEP, sound
from tests.networks import drawn
from zoo.errors import WeightsError
from zoo.models.pesto import Config, Pesto, activations, equivariance
from zoo.music import audio

EVERYTHING = {"fmin": 9.0, "fmax": 13000.0}


@cache
def model() -> Any:
    """The published model; skips, saying so, where its weights can't be had."""
    try:
        return zoo.load("pesto")
    except WeightsError as error:
        pytest.skip(f"needs the published weights: {error}")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """What the original computes; see tests/golden/make_pesto.py."""
    return dict(np.load(Path(__file__).parent / "golden" / "pesto.npz"))


@pytest.fixture(autouse=True)
def _exact() -> Any:
    with jax.default_matmul_precision("highest"):
        yield


def test_transposed_in_transposed_out() -> None:
    """The Toeplitz layer: what moves up by three bins does so in the output, as far as both have bins."""
    config = Config.tiny()
    network = drawn(Pesto, config)
    x = np.zeros((1, config.seen * config.channels[-1]), np.float32)
    x[0, 20:30] = np.random.default_rng(0).standard_normal(10)
    plain, moved = (np.asarray(network.transposed(jnp.asarray(each)))[0] for each in (x, np.roll(x, 3, axis=1)))
    np.testing.assert_allclose(moved[3:], plain[:-3], atol=1e-6)
    assert np.abs(plain).max() > 0.01


def test_equivariance_measures_the_interval() -> None:
    config = Config()
    one, same, next_, far = (jax.nn.one_hot(jnp.array([at]), config.pitches) for at in (180, 180, 181, 216))
    bin_ = 2 ** (1 / 36) - 1
    assert float(equivariance(one, same, config)) == pytest.approx(0.0, abs=1e-10)
    assert float(equivariance(next_, one, config)) == pytest.approx(0.5 * bin_**2, rel=1e-3)
    assert float(equivariance(far, one, config)) == pytest.approx(bin_ * (1.0 - bin_ / 2), rel=1e-3)


@pytest.mark.parametrize("cuts", [(1000,), (5, 40, 300), tuple(range(1, 1000, 7))])
@pytest.mark.parametrize("samples", [1000, 30, 1])
def test_mirrored_windows(cuts: tuple[int, ...], samples: int) -> None:
    """In whatever pieces: those of the whole, continued backwards at both ends."""
    x = np.arange(1.0, samples + 1, dtype=np.float32)
    found = np.concatenate(list(audio.windows(np.split(x, [c for c in cuts if c < samples]), 64, 10, mirror=True)))
    padded = np.pad(x, 32, mode="reflect") if samples > 32 else None
    assert len(found) == 1 + samples // 10
    if padded is not None:
        np.testing.assert_array_equal(found, np.lib.stride_tricks.sliding_window_view(padded, 64)[::10])


def test_features(golden: dict[str, np.ndarray]) -> None:
    """From the raw sound: the transform 5e-3 of a range of 25, pitches and confidence 1e-3."""
    network = model().module
    np.testing.assert_array_equal(sound()[:64], golden["sound"])
    frames = np.concatenate(list(audio.windows([sound()], network.config.window, RATE // 100, mirror=True)))
    margin = network.config.margin
    logs = jax.jit(network.logs)(frames[::STEP])[:, margin:-margin]
    np.testing.assert_allclose(logs, golden["features"], atol=5e-3)
    found = jax.jit(lambda x: activations(network, x))(frames)
    np.testing.assert_allclose(found[::STEP, :-1], golden["activations"], atol=1e-3)
    np.testing.assert_allclose(found[:, -1], golden["confidence"], atol=1e-3)


def test_network(golden: dict[str, np.ndarray]) -> None:
    """Given the same features: pitches 1e-4, hidden activations 1e-4 of their largest."""
    network = model().module
    margin = network.config.margin
    features = np.pad(golden["features"], ((0, 0), (margin, margin)))
    found = jax.nn.softmax(jax.jit(network.logits)(features))
    np.testing.assert_allclose(found, golden["activations"], atol=1e-4)
    hidden = np.asarray(jax.jit(network.filtered)(features[::8])).transpose(1, 0, 2)
    np.testing.assert_allclose(hidden, golden["hidden"], atol=1e-4 * np.abs(golden["hidden"]).max())
    assert golden["activations"].max() > 0.3


def test_track(golden: dict[str, np.ndarray]) -> None:
    """From sound to pitch: within a cent where there is a voice, whole and as a stream."""
    track = model().track((sound(), RATE), **EVERYTHING)
    np.testing.assert_allclose(track.confidence, golden["confidence"], atol=1e-3)
    cents = 1200 * np.log2(track.hz / 440) - 100 * (golden["semitones"] - 69)
    voiced = golden["confidence"] > 0.5
    assert voiced.mean() > 0.5
    assert np.abs(cents[voiced]).max() < 1.0
    pieces = list(model().stream(np.split(sound(), 40), RATE, **EVERYTHING))
    assert len(pieces) > 10
    np.testing.assert_allclose(np.concatenate([piece.hz for piece in pieces]), track.hz, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([p.confidence for p in pieces]), track.confidence, atol=1e-5)
    slow = model().track((sound(), RATE), decoder="viterbi", fmin=80.0, fmax=500.0)
    np.testing.assert_allclose(slow.confidence, track.confidence, atol=1e-6)


def test_no_notes_without_a_voice() -> None:
    """Where the sound has none, between two phrases, the track's notes have a gap."""
    notes = model().track((sound(), RATE)).to_score()
    start, end = notes.seconds_at(notes.start), notes.seconds_at(notes.end)
    assert len(notes) > 2
    assert not ((start < 2.1) & (end > 2.1)).any()
