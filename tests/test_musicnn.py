"""musicnn: the same as the original package on the same weights, and what its architecture promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests.sounds import RATE, SOUNDS
from zoo.errors import WeightsError
from zoo.models import musicnn
from zoo.models.musicnn import Config
from zoo.tasks.tags import Tags

GOLDEN = np.load(Path(__file__).parent / "golden" / "musicnn.npz")
MODELS = {
    "musicnn/mtt": "MTT_musicnn",
    "musicnn/msd": "MSD_musicnn",
    "musicnn/mtt-vgg": "MTT_vgg",
    "musicnn/msd-vgg": "MSD_vgg",
}


@pytest.fixture(scope="module", params=MODELS)
def published(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """A model with its published weights, and what the package calls it."""
    try:
        return zoo.load(request.param), MODELS[request.param]
    except WeightsError as error:
        pytest.skip(f"no weights of {request.param}: {error}")


@pytest.mark.parametrize("sound", SOUNDS)
def test_the_original_on_the_same_patches(published: tuple[Tags, str], sound: str) -> None:
    """Probabilities to 1e-4; two layers to 1e-4 of their largest value."""
    model, original = published
    patches = jnp.asarray(GOLDEN[f"{sound}/patches"], jnp.float32)
    layers = jax.jit(lambda state, x: _all(nnx.merge(model.graph, state), x))(model.state, patches)
    np.testing.assert_allclose(layers["tags"], GOLDEN[f"{sound}/{original}/tags"], atol=1e-4)
    for name in ("pool4", "pool5") if original.endswith("vgg") else ("max_pool", "penultimate"):
        ours, theirs = np.asarray(layers[name])[0].ravel(), GOLDEN[f"{sound}/{original}/{name}"]
        ours = ours[:: max(1, len(ours) // 200)]
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


def _all(module: Any, patches: jax.Array) -> dict[str, jax.Array]:
    found = module.layers(patches)
    return found | {"tags": jax.nn.sigmoid(module.output(found[module.embedding]))}


@pytest.mark.parametrize("sound", SOUNDS)
def test_the_original_from_sound(published: tuple[Tags, str], sound: str) -> None:
    """The taggram to 1e-3 (step of a second, as there), and so the same five tags in the same order."""
    model, original = published
    theirs = GOLDEN[f"{sound}/{original}/tags"]
    taggram = model.taggram((SOUNDS[sound](), RATE), hop=1.0)
    np.testing.assert_allclose(taggram.values, theirs, atol=1e-3)
    mean = theirs.mean(axis=0)
    best = [model.config.tags[k] for k in np.argsort(-mean, kind="stable")[:5]]
    assert [tag for tag, _ in taggram.top(5)] == best


def test_float16_is_numpys() -> None:
    """`half` rounds as NumPy's float16 does, below its smallest normal number too, and goes on above its largest."""
    x = np.exp(np.random.default_rng(0).uniform(np.log(1e-9), np.log(65000), 20000)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(musicnn.half)(x), x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(musicnn.half(jnp.array([0.0, 65504.0, 1e6])), [0, 65504, 999936])


def test_log_mel_of_the_package() -> None:
    """A patch is the package's to float16's last digit, which the last digit of float32 may turn."""
    config = Config(tags=("any",))
    for name, sound in SOUNDS.items():
        patch = np.pad(sound(), config.size // 2)[: config.window]
        ours = jax.jit(lambda x: musicnn.log_mel(config, x))(patch[None])[0]
        difference = np.abs(ours - GOLDEN[f"{name}/patches"][0].astype(np.float32))
        assert difference.max() <= 2e-3, name
        assert (difference > 0).mean() < 1e-3, name


def test_loud_sound_gives_finite_tags() -> None:
    """The package's float16 overflows where 10⁴ · mel power passes 65504; here the number goes on growing."""
    config = Config(tags=("any",))
    tone = np.sin(2 * np.pi * 110 * np.arange(config.window) / RATE).astype(np.float32)
    quiet, loud = (np.asarray(musicnn.log_mel(config, jnp.asarray(gain * tone[None]))) for gain in (0.05, 1.0))
    assert np.isfinite(loud).all()
    assert loud.max() > np.log10(65504)
    strongest = quiet > quiet.max() - 1
    np.testing.assert_allclose((loud - quiet)[strongest], 2 * np.log10(20), atol=0.01)


def drawn(config: Config) -> Any:
    """A network with weights drawn by NumPy: JAX would compile an initialiser for each shape."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: musicnn.build(config, rngs=nnx.Rngs(0))))
    rng, flat = np.random.default_rng(0), []
    for path, leaf in nnx.to_flat_state(shapes):
        drawn = rng.standard_normal(leaf.shape) * (0.1 if leaf.ndim < 2 else 2 * np.prod(leaf.shape[:-1]) ** -0.5)
        flat.append((path, leaf.replace(jnp.asarray(drawn + (path[-1] == "scale"), jnp.float32))))
    return nnx.merge(graph, nnx.from_flat_state(flat))


def test_a_sound_that_begins_later() -> None:
    """The back end pools over time: in the middle of silence it does not matter when something sounds."""
    config = replace(Config.tiny(), frames=80)
    module = drawn(config)
    burst = np.random.default_rng(0).standard_normal((1, 10, config.bands), dtype=np.float32)
    early, late = (jnp.zeros((1, 80, config.bands)).at[:, at : at + 10].set(burst) for at in (30, 38))
    layers = jax.jit(module.layers)
    a, b = layers(early), layers(late)
    np.testing.assert_allclose(a["penultimate"], b["penultimate"], atol=1e-5)
    assert not np.allclose(a["cnn3"], b["cnn3"], atol=1e-3)


def test_a_timbre_at_another_pitch() -> None:
    """The tall filters' answer does not change when a spectrum is moved along frequency, away from the edges."""
    config = replace(Config.tiny(), bands=60, heights=(0.2, 0.3))
    module = drawn(config)
    shape = np.random.default_rng(0).random((1, config.frames, 6), dtype=np.float32)
    low, high = (jnp.zeros((1, config.frames, 60)).at[:, :, at : at + 6].set(shape) for at in (20, 31))
    layers = jax.jit(module.layers)
    np.testing.assert_allclose(layers(low)["timbral"], layers(high)["timbral"], atol=1e-5)


def test_the_gradient_of_the_largest() -> None:
    """It goes to the first of the largest, once."""
    x = jnp.array([[1.0, 3.0, 3.0], [0.0, -1.0, 0.0]])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(musicnn.largest(x, 1) * jnp.array([2.0, 5.0]))))(x)
    np.testing.assert_array_equal(gradient, [[0, 2, 0], [5, 0, 0]])


@pytest.mark.parametrize("head", ["tags", "classes"])
def test_cross_entropy(head: str) -> None:
    """It is −log of the probabilities that `probabilities` gives to what is right."""
    config = replace(Config.tiny(), head=head)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((5, 3)))
    y = np.eye(3)[rng.integers(3, size=5)]
    p = np.asarray(musicnn.probabilities(config, logits))
    expected = -np.log(p[y == 1]) if head == "classes" else -np.log(np.where(y == 1, p, 1 - p)).mean(axis=1)
    np.testing.assert_allclose(musicnn.cross_entropy(config, logits, jnp.asarray(y)), expected, rtol=1e-5)


def test_configurations_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="there are musicnn and vgg"):
        Config(tags=("a",), kind="resnet")
    with pytest.raises(ValueError, match="too few to be pooled"):
        nnx.eval_shape(lambda: musicnn.build(replace(Config.tiny(), kind="vgg", frames=20), rngs=nnx.Rngs(0)))
