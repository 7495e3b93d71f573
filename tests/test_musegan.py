"""What only MuseGAN promises: its kinds, its games, its neurons, and that it plays to what is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zoo.cli import main
from zoo.errors import InputError
from zoo.models import musegan
from zoo.models.musegan import ARCHITECTURE, OBJECTIVES, Config, MuseGAN
from zoo.music import io
from zoo.music.codecs import get_codec
from zoo.music.midi import midi_bytes
from zoo.music.score import Score
from zoo.nn.patches import Grow, Shrink
from zoo.tasks import load
from zoo.tasks.model import Found
from zoo.tasks.phrases import Phrases
from zoo.tasks.statistics import fingerprints, of_parts
from zoo.training import TrainState, make_optimizer, make_train_step
from zoo.training.params import flatten

TINY = Config.tiny()
BAND = replace(TINY, bars=1, bar_steps=16, pitches=60, tracks=3)  # as the codec has phrases


@pytest.fixture(scope="module", autouse=True)
def _fast_to_compile() -> Iterator[None]:
    """Compiling is most of what these tests cost."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@jax.jit
def logits(model: MuseGAN, z: jax.Array, x: jax.Array | None = None, given: jax.Array | None = None) -> jax.Array:
    return model.generator(z, x, given)


def made(config: Config) -> MuseGAN:
    """Random weights, drawn here, since JAX would compile an initialiser for each shape."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: MuseGAN(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype)  # noqa: E731
    return nnx.merge(graph, jax.tree.map(draw, shapes))


def inputs(config: Config, rows: int = 4) -> dict[str, jax.Array]:
    return {k: jnp.asarray(v) for k, v in ARCHITECTURE.example(config, rows, np.random.default_rng(0)).items()}


# --- layers -----------------------------------------------------------------------------------------------------------


def test_patches_are_convolutions():
    """As XLA's own convolution and transposed convolution with kernels as long as their strides."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    layout = ("NHWC", "HWIO", "NHWC")
    shrink, grow = Shrink(2, 3, 3, 5, rngs=nnx.Rngs(0)), Grow(2, 3, 3, 5, rngs=nnx.Rngs(0))
    kernel = shrink.dense.kernel[...].reshape(2, 3, 3, 5)
    expected = jax.lax.conv_general_dilated(x, kernel, (2, 3), "VALID", dimension_numbers=layout)
    np.testing.assert_allclose(shrink(x), expected, atol=1e-5)
    kernel = jnp.moveaxis(grow.dense.kernel[...].reshape(3, 2, 3, 5), 0, 2)
    expected = jax.lax.conv_transpose(x, kernel[::-1, ::-1], (2, 3), "VALID", dimension_numbers=layout)
    np.testing.assert_allclose(grow(x), expected, atol=1e-5)


def test_binary_neurons():
    """0 or 1 going forward; the sigmoid's slope coming back; drawn as often as their probability says."""
    logits = jnp.array([-3.0, -0.1, 0.1, 3.0])
    hard = replace(TINY, neurons="deterministic")
    fired, slope = jax.value_and_grad(lambda x: musegan.fire(hard, x, jax.random.key(0), True)[1])(logits)
    assert float(fired) == 0.0
    p = jax.nn.sigmoid(logits)
    np.testing.assert_allclose(slope, jnp.array([0, p[1] * (1 - p[1]), 0, 0]), atol=1e-6)
    assert musegan.fire(hard, logits, jax.random.key(0)).tolist() == [0, 0, 1, 1]
    many = jnp.broadcast_to(logits, (4000, 4))
    drawn = musegan.fire(replace(TINY, neurons="stochastic"), many, jax.random.key(0))
    np.testing.assert_allclose(drawn.mean(axis=0), p, atol=0.03)
    real = replace(TINY, neurons="real")
    np.testing.assert_allclose(musegan.fire(real, logits, jax.random.key(0), True), p, atol=1e-6)
    assert musegan.fire(real, logits, jax.random.key(0)).tolist() == [0, 0, 1, 1]


# --- the three generators ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "generators", "critics", "vectors"), [("composer", 1, 1, 2), ("jamming", 2, 2, 4), ("hybrid", 2, 1, 6)]
)
def test_kinds(kind, generators, critics, vectors):
    config = replace(TINY, kind=kind, given=0)
    model = made(config)
    assert (len(model.generator.bars), len(model.critics)) == (generators, critics)
    assert config.z == vectors * config.latent
    assert jax.eval_shape(model.scores, jnp.zeros((3, 16, 2, 24))).shape == (3, critics)


def changed(kind: str, which: int) -> np.ndarray:
    """Where logits move if one latent vector does: bool [bars, tracks]."""
    model = made(replace(TINY, kind=kind, given=0))
    z = jax.random.normal(jax.random.key(1), (1, model.config.z))
    other = z.at[:, which * TINY.latent : (which + 1) * TINY.latent].add(1.0)
    apart = jnp.abs(logits(model, z) - logits(model, other)) > 1e-6
    return np.asarray(apart.reshape(TINY.bars, -1, TINY.tracks, TINY.pitches).any(axis=(1, 3)))


def test_a_vector_of_a_track_moves_that_track_alone():
    assert changed("hybrid", 0).all()
    assert changed("hybrid", 1).all()
    for which, track in ((2, 0), (3, 0), (4, 1), (5, 1)):
        assert changed("hybrid", which)[:, track].all()
        assert not changed("hybrid", which)[:, 1 - track].any()
    assert not changed("jamming", 0)[:, 1].any()


def test_bars_differ_by_the_temporal_vectors_alone():
    model = made(replace(TINY, given=0))
    z = jax.random.normal(jax.random.key(0), (1, model.config.z))
    bars = logits(model, z).reshape(TINY.bars, -1)
    assert float(jnp.abs(bars[0] - bars[1]).max()) > 1e-3
    for temporal in [model.generator.shared, *model.generator.own]:
        temporal.out.kernel[...] *= 0
    bars = logits(model, z).reshape(TINY.bars, -1)
    np.testing.assert_allclose(bars[0], bars[1], atol=1e-6)


def test_what_is_given_stays_and_is_heard():
    model, batch = made(TINY), inputs(TINY)
    x = batch["x"].astype(jnp.float32)
    given = jnp.array([[1.0, 0.0]] * 4)
    play = jax.jit(lambda x: musegan.generate(model, batch["z"], jax.random.key(0), x, given))
    first = play(x)
    np.testing.assert_array_equal(first[:, :, 0], x[:, :, 0])
    hidden = x.at[:, :, 1].set(1 - x[:, :, 1])  # what is not given can't be heard
    np.testing.assert_array_equal(first, play(hidden))
    heard, silent = (logits(model, batch["z"], music, given) for music in (x, x.at[:, :, 0].set(0)))
    assert float(jnp.abs(heard - silent).max()) > 1e-4
    assert musegan.given_tracks(TINY, 6, jax.random.key(0)).sum(axis=1).tolist() == [0, 1, 0, 1, 0, 1]


# --- the games --------------------------------------------------------------------------------------------------------


def test_objectives_are_their_equations():
    real, drawn = jnp.array([[0.3], [2.0], [-1.0]]), jnp.array([[-0.2], [1.5], [4.0]])
    d_real, d_drawn = jax.nn.sigmoid(real), jax.nn.sigmoid(drawn)
    value = jnp.log(d_real) + jnp.log(1 - d_drawn)
    for name in ("minimax", "non-saturating"):
        np.testing.assert_allclose(OBJECTIVES[name].critic(real, drawn), -value, rtol=1e-5)
    np.testing.assert_allclose(OBJECTIVES["minimax"].generator(drawn), jnp.log(1 - d_drawn), rtol=1e-5)
    np.testing.assert_allclose(OBJECTIVES["non-saturating"].generator(drawn), -jnp.log(d_drawn), rtol=1e-5)
    np.testing.assert_allclose(OBJECTIVES["wgan-gp"].critic(real, drawn), drawn - real)
    np.testing.assert_allclose(OBJECTIVES["wgan-gp"].generator(drawn), -drawn)
    assert [name for name, game in OBJECTIVES.items() if game.penalised] == ["wgan-gp"]


def test_gradient_penalty_of_a_known_slope():
    """D(x) = a · x has the slope ‖a‖ everywhere; with a critic a track it is that of each."""
    a = jax.random.normal(jax.random.key(0), (8, 2, 24))
    real, drawn = (jax.random.normal(jax.random.key(i), (3, 8, 2, 24)) for i in (1, 2))
    joint: Any = SimpleNamespace(critics=[0], scores=lambda x: jnp.sum(x * a, axis=(1, 2, 3))[:, None])
    alone: Any = SimpleNamespace(critics=[0, 1], scores=lambda x: jnp.sum(x * a, axis=(1, 3)))
    found = musegan.gradient_penalty(joint, real, drawn, jax.random.key(3))
    np.testing.assert_allclose(found, np.full((3, 1), (np.linalg.norm(a) - 1) ** 2), rtol=1e-4)
    found = musegan.gradient_penalty(alone, real, drawn, jax.random.key(3))
    each = [(np.linalg.norm(a[:, k]) - 1) ** 2 for k in range(2)]
    np.testing.assert_allclose(found, np.tile(each, (3, 1)), rtol=1e-4)


@pytest.mark.slow
def test_the_generator_has_its_turn_after_critic_steps():
    tx = make_optimizer({"learning_rate": 1e-2, "players": ARCHITECTURE.players(TINY)})
    graph, params = nnx.split(made(TINY))
    state, seen = TrainState.create(params, tx, jax.random.key(0), ema=True), []
    step = make_train_step(graph, ARCHITECTURE.loss, tx, ema=0.9)
    for _ in range(4):
        before = {name: np.array(leaf) for name, leaf in flatten(state.params).items()}
        state, _ = step(state, inputs(TINY))
        moved = [name for name, leaf in flatten(state.params).items() if np.any(leaf != before[name])]
        seen.append({name.split(".")[0] for name in moved})
    assert seen == [{"critics", "generator"}, {"critics"}] * 2
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (state.ema, state.params)), strict=True))


def test_critics_get_no_gradient_from_the_generators_loss():
    model = made(TINY)
    graph, params = nnx.split(model)

    def scores(params: Any) -> jax.Array:
        return musegan.with_fixed_critics(nnx.merge(graph, params)).scores(inputs(TINY)["x"].astype(jnp.float32)).sum()

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(scores))(params)))


def test_settings_that_are_not():
    with pytest.raises(ValueError, match="kind='duo'"):
        replace(TINY, kind="duo")
    with pytest.raises(ValueError, match="multiple of 12"):
        replace(TINY, pitches=50)


# --- the task ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Phrases:
    """Random weights that draw phrases of one bar."""
    facts = {"architecture": "musegan", "config": asdict(BAND), "codec": {"name": "phrases", "bars": 1}}
    found = Found("tiny", ARCHITECTURE, BAND, get_codec("phrases", bars=1), facts, dict)
    path = Phrases(made(BAND), found).save(tmp_path_factory.mktemp("musegan") / "tiny.safetensors")
    loaded = load(path)
    assert isinstance(loaded, Phrases)
    return loaded


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Three bars of melody and piano, as a MIDI file."""
    notes = [(q, q + 1, 60 + q, 0) for q in range(10)] + [(4 * bar, 4 * bar + 4, 48, 1) for bar in range(3)]
    start, end, pitch, track = zip(*notes, strict=True)
    tempos = np.array([[0.0, 90.0]])
    score = Score.of(start, end, pitch, track=track, track_names=("Melody", "Piano"), tempos=tempos)
    path = tmp_path / "song.mid"
    path.write_bytes(midi_bytes(score))
    return path


def test_samples_are_one_for_a_key(model):
    first, again, other = (model.sample_windows(3, key=key) for key in (0, 0, 1))
    assert first.shape == (3, 16, 3, 60)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len(model.sample(2)) == 2
    with pytest.raises(InputError, match="at least one"):
        model.sample(0)
    with pytest.raises(InputError, match="negative"):
        model.sample(1, temperature=-1)
    with pytest.raises(InputError, match=r"needs \[n, "):
        model.decode_windows(np.zeros((2, 5)))


def test_an_interpolation_begins_and_ends_with_its_draws(model):
    z = model.latents(2, key=5)
    way = model.interpolate_windows(5, key=5)
    assert len(way) == 5
    np.testing.assert_array_equal(way[[0, -1]], model.decode_windows(z))
    assert (way[0] != way[-1]).any()
    with pytest.raises(InputError, match="two ends"):
        model.interpolate(1)


def test_accompaniment_keeps_the_part_and_the_length(model, song):
    rolls = model.accompany_rolls(song, "melody", 2, key=1)
    given = model.phrases.roll(io.read(song))
    assert rolls.shape == (2, 48, 3, 60)
    for roll in rolls:
        np.testing.assert_array_equal(roll[:, 0], given[:, 0])
    assert (rolls[0, :, 1:] != rolls[1, :, 1:]).any()
    sequence = model.accompany(song)[0]
    assert sequence.tempos[0].qpm == pytest.approx(90)
    with pytest.raises(InputError, match=r"song\.mid: has no bridge; it has melody and piano"):
        model.accompany(song, "bridge")
    with pytest.raises(InputError, match=r"no part named 'tuba'; there are melody, bridge, piano"):
        model.accompany(song, "tuba")


def test_statistics_of_parts(model):
    windows = np.zeros((2, 16, 3, 60), np.int8)
    windows[:, :8, 0, 24] = windows[:, :, 2, 12] = 1
    found = of_parts(windows, model.codec)
    assert (found["empty_bars_melody"], found["empty_bars_bridge"]) == (0.0, 1.0)
    assert found["used_pitch_classes_piano"] == 1.0
    assert found["qualified_notes_melody"] == 1.0
    assert found["tonal_distance_melody_piano"] == pytest.approx(0.0, abs=1e-6)
    moved = model.codec.transpose(windows, 5)
    assert fingerprints(model.codec, windows) == fingerprints(model.codec, moved)
    moved[:, 0, 0] = 0
    assert fingerprints(model.codec, windows) != fingerprints(model.codec, moved)


def test_command_line(model, song, tmp_path, capsys):
    name = model.name
    for command in (
        ["generate", name, "-n", "2", "--midi-only"],
        ["interpolate", name, "--steps", "3", "--seed", "4", "--midi-only"],
        ["accompany", name, str(song), "-n", "2", "--midi-only"],
    ):
        assert main([*command, "--out", str(tmp_path / command[0])]) == 0
    written = {path.name for path in tmp_path.rglob("*.mid")}
    assert {"sample-1.mid", "interpolation-3.mid", "song-accompanied-2.mid", "song-given.mid"} <= written
    heard = io.read(tmp_path / "accompany" / "song-accompanied-1.mid")
    melody = heard.pitch[heard.track == 0]
    assert melody.tolist() == list(range(60, 70))
    capsys.readouterr()
    for command, message in (
        (["interpolate", name, str(song), str(song)], "has no encoder"),
        (["accompany", name, str(song), "--part", "drums"], "no part named 'drums'"),
        (["generate", name, "--interpolate", "3"], "zoo interpolate"),
        (["accompany", "music-vae", str(song)], "does not play along"),
        (["interpolate", "music-vae", str(song)], "name both"),
        (["accompany", name, str(tmp_path / "none.mid")], "none.mid"),
    ):
        assert main(command) == 1
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_recipe_and_card_agree():
    """The card's configuration is what the recipe trains, and the recipe's players are those of the architecture."""
    from zoo import info

    card = info("musegan")
    config = ARCHITECTURE.make_config(json.loads(json.dumps(dict(card.config))), "card.toml")
    players = ARCHITECTURE.players(config)
    assert players["generator"]["every"] == config.critic_steps == 5
    shapes = nnx.state(nnx.eval_shape(lambda: MuseGAN(config, rngs=nnx.Rngs(0))))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == card.parameters
