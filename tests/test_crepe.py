"""CREPE beside torchcrepe, from the sound to the track, and what only its network promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from zoo import registry
from zoo.models import crepe
from zoo.music.codecs import get_codec
from zoo.tasks.pitch import Pitch

GOLDEN = Path(__file__).parent / "golden" / "crepe.npz"


@pytest.fixture(scope="module", params=["tiny", pytest.param("full", marks=pytest.mark.slow)])
def size(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def golden(size: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return {name.removeprefix(f"{size}_"): archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def model(size: str) -> Pitch:
    """The published weights; skips where they can't be had."""
    try:
        return zoo.load(f"crepe/{size}")
    except zoo.WeightsError as error:
        pytest.skip(f"needs the published weights: {error}")


def frames(golden: dict[str, np.ndarray]) -> np.ndarray:
    """Every frame of the golden sound, [T, 1024], cut here in another way than the task does."""
    padded = np.pad(golden["sound"].astype(np.float32) / 32768, 512)
    return np.stack([padded[160 * k : 160 * k + 1024] for k in range(1 + len(golden["sound"]) // 160)])


def test_activations_of_frames_are_those_of_torchcrepe(model: Pitch, golden: dict[str, np.ndarray]) -> None:
    ours = model.activations(frames(golden)[:: golden["stride"]])
    np.testing.assert_allclose(ours, golden["sound_activations"], atol=1e-5)  # asked: 1e-4


def test_intermediates_are_those_of_torchcrepe(model: Pitch, golden: dict[str, np.ndarray]) -> None:
    few = jnp.asarray(frames(golden)[[40, 90, 200]])
    network: Any = model.module
    first = network.embed(few, 1).swapaxes(0, 1)[:, ::8, ::16]
    fifth = network.embed(few, 5).swapaxes(0, 1)[:, :, ::2]
    np.testing.assert_allclose(first, golden["first"], atol=1e-4)  # of values up to 29
    np.testing.assert_allclose(fifth, golden["fifth"], atol=1e-4)


def test_sound_is_resampled_as_by_torchcrepe(golden: dict[str, np.ndarray]) -> None:
    """To the last sample: its resampler rings at both ends, and how many samples there are tells how many frames."""
    card = registry.info("crepe")
    samples = get_codec(card.codec.name, **card.codec.options).read((golden["raw"], 44100))  # type: ignore[attr-defined]
    edge = len(golden["raw_ends"]) // 2
    assert len(samples) == len(golden["raw"]) * 16000 // 44100
    np.testing.assert_allclose(np.concatenate([samples[:edge], samples[-edge:]]), golden["raw_ends"], atol=1e-6)


def test_activations_of_raw_sound_are_those_of_torchcrepe(model: Pitch, golden: dict[str, np.ndarray]) -> None:
    """44.1 kHz, in every frame: resampled as torchcrepe does, whose filter rings at both ends."""
    samples = model.codec.read((golden["raw"], 44100))
    padded = np.pad(samples, 512)
    ours = np.stack([padded[160 * k : 160 * k + 1024] for k in range(1 + len(samples) // 160)])[:: golden["stride"]]
    found, theirs = model.activations(ours), golden["raw_activations"]
    np.testing.assert_allclose(found, theirs, atol=2e-4)  # asked: 1e-3


@pytest.mark.parametrize("decoder", ["viterbi", "weighted", "argmax"])
def test_tracks_are_those_of_torchcrepe(model: Pitch, golden: dict[str, np.ndarray], decoder: str) -> None:
    """Within 1 cent wherever both are confident; from 16 kHz, which needs no resampling, in every frame."""
    for name, rate in (("sound", 16000), ("raw", 44100)):
        options: Any = {"decoder": decoder} | ({"fmin": 80.0, "fmax": 1000.0} if decoder == "viterbi" else {})
        track = model.track((golden[name], rate), **options)
        hz, periodicity = golden[f"{name}_{decoder}_hz"], golden[f"{name}_{decoder}_periodicity"]
        assert len(track) == len(hz)
        off = 1200 * np.abs(np.log2(track.hz / hz))
        confident = (track.confidence > 0.5) & (periodicity > 0.5)
        assert confident.mean() > 0.4
        assert off[confident].max() < 1
        if name == "sound":
            assert off.max() < 1
            np.testing.assert_allclose(track.confidence, periodicity, atol=1e-5)


def test_frames_are_centred_and_scaled_and_silence_stays_silent() -> None:
    x = np.random.default_rng(0).normal(3.0, 0.2, (2, 64)).astype(np.float32)
    x[1] = 0.7
    y = np.asarray(crepe.normalised(jnp.asarray(x)))
    np.testing.assert_allclose(y[0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(y[0].std(ddof=1), 1, rtol=1e-5)
    assert np.isfinite(y).all()


def test_targets_are_a_gaussian_around_the_pitch() -> None:
    """Eq. 3: 1 at the pitch, e^(−1/2) at 25 cents, and zeros for a frame without one."""
    config = crepe.Config()
    hz = np.array([config.frequencies[100] * 2 ** (5 / 1200), 0.0], np.float32)
    found = np.asarray(crepe.targets(config, jnp.asarray(hz)))
    assert found.shape == (2, 360)
    np.testing.assert_allclose(found[0, 99:102], np.exp(-0.5 * (np.array([25, 5, 15]) / 25) ** 2), rtol=1e-3)
    assert not found[1].any()


def test_evaluation_counts_frames_with_a_pitch_alone() -> None:
    """A frame within 50 cents, one an octave off, one 80 cents off, one without a pitch."""
    config = crepe.Config()
    place = np.array([100, 160, 104, 50])
    logits = -20.0 + 40.0 * (np.arange(360) == place[:, None])

    class Fixed:
        config = crepe.Config()

        def logits(self, x: Any) -> Any:
            return jnp.asarray(logits)

    hz = np.array([*np.repeat(config.frequencies[100], 3), 0.0], np.float32)
    found = crepe.evaluate(Fixed(), {"x": None, "y": jnp.asarray(hz)}, jax.random.key(0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found["pitch_accuracy"], [1, 3])
    np.testing.assert_array_equal(found["chroma_accuracy"], [2, 3])
