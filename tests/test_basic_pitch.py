"""What Basic Pitch alone promises: the transform, the forms of its convolutions, and what ONNX Runtime computes."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.golden.make_basic_pitch import STEP, sound, spectrum
from zoo.errors import WeightsError
from zoo.models.basic_pitch import Config, normalised_log
from zoo.nn import conv2d, cqt

RATE = 22050


@cache
def model() -> Any:
    """The published model; skips, saying so, where its weights can't be had."""
    try:
        return zoo.load("basic-pitch")
    except WeightsError as error:
        pytest.skip(f"needs the published weights: {error}")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    """What the original computes; see tests/golden/make_basic_pitch.py."""
    return dict(np.load(Path(__file__).parent / "golden" / "basic_pitch.npz"))


@pytest.fixture(autouse=True)
def _exact() -> Any:
    with jax.default_matmul_precision("highest"):
        yield


# --- the transform ----------------------------------------------------------------------------------------------------


def test_a_tone_is_in_its_bin() -> None:
    """A sinusoid of each of four octaves peaks at its own bin, and is as strong in all."""
    pitches = np.array([45, 57, 69, 93])
    time = np.arange(RATE * 2) / RATE
    tones = np.sin(2 * np.pi * 440 * 2.0 ** ((pitches[:, None] - 69) / 12) * time)
    found = np.asarray(cqt.octave_cqt(jnp.asarray(tones, jnp.float32), RATE, 256, 27.5, 309, 36))[:, 60:100]
    assert (found.mean(axis=1).argmax(axis=1) == 3 * (pitches - 21)).all()
    lengths = cqt.lengths(RATE, 27.5, 309, 36)[3 * (pitches - 21)]
    np.testing.assert_allclose(found.mean(axis=1).max(axis=1) / np.sqrt(lengths), 0.5, rtol=0.02)


def test_halving_keeps_the_lower_half() -> None:
    """Below a quarter of the rate tones pass as they are; above they vanish."""
    time = np.arange(8192)
    low, high = (jnp.asarray(np.sin(2 * np.pi * f * time)[None], jnp.float32) for f in (0.11, 0.37))
    between = np.sin(2 * np.pi * 0.11 * (time[::2] + 0.5))  # the filter has no middle sample
    np.testing.assert_allclose(cqt.halve(low)[0, 200:-200], between[200:-200], atol=2e-3)
    assert np.abs(cqt.halve(high)[0, 200:-200]).max() < 0.01
    assert cqt.halve(low).shape == (1, 4096)


@pytest.mark.parametrize("hop", [1, 8, 16, 100, 256])
def test_frames(hop: int) -> None:
    x = jnp.arange(1000.0)[None]
    found = np.asarray(cqt.frames(x, 256, hop))
    want = np.stack([np.arange(at, at + 256) for at in range(0, 1000 - 255, hop)])
    np.testing.assert_array_equal(found[0], want)


def test_silence_is_zero() -> None:
    quiet = normalised_log(jnp.zeros((2, 5, 7)).at[1, 2, 3].set(1.0))
    assert not quiet[0].any()
    assert float(quiet[1].max()) == 1.0


# --- the forms of its convolutions ------------------------------------------------------------------------------------


def test_forms_of_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU prefers is what every other device computes, values and gradients."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 6, 130)), jnp.float32)
    long = jnp.asarray(rng.standard_normal((3, 39, 3, 4)), jnp.float32)
    many = jnp.asarray(rng.standard_normal((5, 3, 20, 1)), jnp.float32)
    deep = jnp.asarray(rng.standard_normal((2, 6, 50, 20)), jnp.float32)

    def forms(long: jax.Array, many: jax.Array) -> tuple[jax.Array, jax.Array]:
        return conv2d.harmonic_conv(x, long, (-36, 0, 57), 100), conv2d.conv2d(deep, many)

    def total(*kernels: jax.Array) -> jax.Array:
        return sum(jnp.sum(jnp.sin(y)) for y in forms(*kernels))

    ours = forms(long, many), jax.grad(total, (0, 1))(long, many)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    theirs = forms(long, many), jax.grad(total, (0, 1))(long, many)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), ours, theirs)


def test_numbers_of_the_paper() -> None:
    config = Config()
    assert (config.steps, config.bins, config.contours, config.lowest) == (172, 309, 264, 21)
    assert config.shifts == (-36, 0, 36, 57, 72, 84, 93, 101)
    assert dataclasses.replace(config, samples=2 * RATE).steps == 173


# --- the original -----------------------------------------------------------------------------------------------------


def test_heads(golden: dict[str, np.ndarray]) -> None:
    """Given the same features: hidden activations and logits, 1e-4."""
    network = model().module
    hidden, logits = jax.jit(lambda x: (jax.nn.relu(network.contour_hidden(x)), network.heads(x)))(spectrum())
    np.testing.assert_allclose(hidden[0, :: STEP["hidden"]], golden["hidden"], atol=1e-4)
    for name in ("note", "onset", "contour"):
        found = jax.nn.sigmoid(getattr(logits, name))[0, :: STEP["heads"]]
        np.testing.assert_allclose(found, golden[f"heads_{name}"], atol=1e-4, err_msg=name)
        assert golden[f"heads_{name}"].max() > 0.1


def test_features(golden: dict[str, np.ndarray]) -> None:
    """The transform of the first window, from the raw sound: 5e-4 of a range of 2.5."""
    np.testing.assert_array_equal(sound()[:64], golden["audio_head"])
    features = jax.jit(model().module.features)(sound()[None, :43844])
    np.testing.assert_allclose(features[0, :: STEP["features"]], golden["features"], atol=5e-4)


def test_from_sound_to_notes(golden: dict[str, np.ndarray]) -> None:
    """From the raw sound: posteriorgrams 1e-3, then the same notes, times, velocities and bends as the package's.

    The package drops the last frames (see `Transcription.stream`), so the last notes may be another.
    """
    found = model().posteriorgrams((sound(), RATE))
    frames = int(golden["frames"])
    assert frames <= len(found.note) <= 1.01 * frames + 1
    for name in ("note", "onset", "contour"):
        ours = getattr(found, name)[:frames][:: STEP["audio"]]
        np.testing.assert_allclose(ours, golden[f"audio_{name}"], atol=1e-3, err_msg=name)
    score = model().decode(type(found)(*(part[:frames] for part in found)), separate=True)
    events = golden["events"]
    assert len(score) == len(events) > 50
    order = np.lexsort((events[:, 2], events[:, 0]))
    np.testing.assert_array_equal(score.pitch, events[order, 2])
    np.testing.assert_allclose(score.seconds_at(score.start), events[order, 0], atol=1e-6)
    np.testing.assert_allclose(score.seconds_at(score.end), events[order, 1], atol=1e-6)
    np.testing.assert_allclose(score.velocity, np.round(127 * events[order, 3]), atol=1)
    bends = golden["midi_bends"]
    lowest = {int(pitch) for pitch in bends[:, 1]}
    pitch_of = dict(zip(score.track.tolist(), score.pitch.tolist(), strict=True))
    ours = [(score.seconds_at(t), pitch_of[int(k)], b) for t, k, b in score.bends if pitch_of[int(k)] in lowest]
    ours, bends = (rows[np.lexsort(rows[:, [2, 0, 1]].T)] for rows in (np.array(ours, np.float32), bends))
    np.testing.assert_allclose(ours[:, 0], bends[:, 0], atol=1e-5)
    np.testing.assert_array_equal(ours[:, 1:], bends[:, 1:])
