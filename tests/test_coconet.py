"""Coconet: the laws of its paper, parity with the published PyTorch network, and what a user asks of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import shared
from tests.networks import drawn
from zoo.models import coconet
from zoo.models.coconet import Coconet, Config
from zoo.music import io
from zoo.music.score import Score
from zoo.nn.likelihood import surprise
from zoo.tasks.infill import Infill
from zoo.weights.formats import safetensors

GOLDEN = Path(__file__).parent / "golden" / "coconet.npz"
SMALL = Config(steps=6, voices=2, pitches=3, filters=4, dilations=(1, 2), gibbs=4)


@pytest.fixture(scope="module")
def small() -> Coconet:
    """Random weights, none of them zero."""
    graph, state = nnx.split(drawn(Coconet, SMALL))
    rng = np.random.default_rng(0)
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), state))


def music(steps: int = 6, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 4, (1, steps, 2)), jnp.int32)


# --- the paper's laws -------------------------------------------------------------------------------------------------


def test_every_number_of_hidden_notes_and_every_note_is_as_likely():
    masks = np.asarray(coconet.orderless_mask(jax.random.key(0), (20_000, 3, 2)))
    counts = np.bincount(masks.sum(axis=(1, 2)), minlength=7)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / 20_000, 1 / 6, atol=0.01)
    np.testing.assert_allclose(masks.mean(axis=0), 3.5 / 6, atol=0.015)


def test_the_loss_is_the_mean_over_the_hidden_notes(small):
    x, key = music(), jax.random.key(3)
    value, _ = coconet.loss(small, {"x": x}, key, jnp.int32(0))
    mask_key, coin_key = jax.random.split(key)
    hidden = coconet.orderless_mask(mask_key, x.shape)
    nll = surprise(small.logits(x, hidden, coin_key), x)
    assert value == pytest.approx(float(nll[hidden].mean()), rel=1e-5)


def test_hidden_notes_are_not_seen(small):
    hidden = jnp.zeros((1, 6, 2), bool).at[0, 2:4, 1].set(True)
    x = music()
    other = jnp.where(hidden, (x + 1) % 4, x)
    logits = jax.jit(lambda music, hidden: small.logits(music, hidden, jax.random.key(0)))
    np.testing.assert_array_equal(logits(x, hidden), logits(other, hidden))
    assert np.abs(logits(x, ~hidden) - logits(other, ~hidden)).max() > 1e-3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_likelihood_of_all_chords_sums_to_one(small, order):
    """In either order of the voices, given any other frames."""
    chords = list(itertools.product(range(4), repeat=2))
    frame_log_likelihood = jax.jit(partial(coconet.frame_log_likelihood, small))
    x = jnp.repeat(music(), len(chords), axis=0).at[:, 3].set(jnp.array(chords))
    rows = len(chords)
    known = jnp.zeros((rows, 6), bool).at[:, jnp.array([0, 4])].set(True)
    total = frame_log_likelihood(
        x, jnp.full(rows, 3), known, jnp.tile(jnp.array(order), (rows, 1)), jax.random.key(0),
        jnp.ones((rows, 6), bool), jnp.bool_(False),
    )  # fmt: skip
    assert float(jnp.exp(total).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("config", [SMALL, coconet.ARCHITECTURE.tiny["torch"]], ids=["paper", "torch"])
def test_padding_behind_a_piece_changes_nothing(config):
    """What is beyond its end is as the border of a roll of its length."""
    graph, state = nnx.split(drawn(Coconet, config))
    rng = np.random.default_rng(0)
    model = nnx.merge(graph, jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape), state))
    x = jnp.asarray(rng.integers(0, 4, (1, 8, config.voices)), jnp.int32)
    seen = jnp.zeros(x.shape, bool)
    padded = [jnp.pad(a, ((0, 0), (0, 5), (0, 0))) for a in (x, seen)]
    logits = jax.jit(model.logits)
    exact = logits(x, seen, jax.random.key(0))
    valid = jnp.arange(13)[None]
    np.testing.assert_allclose(logits(*padded, jax.random.key(0), valid < 8)[:, :8], exact, rtol=1e-5, atol=1e-5)
    assert np.abs(logits(*padded, jax.random.key(0), valid < 13)[:, :8] - exact).max() > 1e-3


def test_gibbs_keeps_what_is_given_and_goes_on_from_its_parts(small):
    x, free = music(), jnp.zeros((1, 6, 2), bool).at[:, :, 1].set(True)
    key, tau = jax.random.key(1), jnp.float32(1)
    part = jax.jit(lambda x, first: coconet.gibbs(small, x, free, key, tau, 6, first, 3))
    whole = coconet.gibbs(small, x, free, key, tau, 6, 0, 6)
    np.testing.assert_array_equal(part(part(x, 0), 3), whole)
    np.testing.assert_array_equal(whole[..., 0], x[..., 0])
    other = part(part(x.at[..., 1].set(0), 0), 3)
    np.testing.assert_array_equal(other, whole)  # what the free notes were before doesn't matter


def test_the_masking_is_annealed():
    config = Config()
    shares = [float(coconet.hidden_share(config, jnp.int32(n), 100)) for n in (0, 35, 70, 99)]
    assert shares == pytest.approx([0.9, 0.5, 0.1, 0.1])


# --- the published network --------------------------------------------------------------------------------------------


def published(monkeypatch: pytest.MonkeyPatch) -> Infill:
    """George Ogden's weights, from the cache or a mirror; skips the test where there are none."""
    if (mirror := shared.ROOT / "weights").is_dir():
        monkeypatch.setenv("ZOO_MIRROR", str(mirror))
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    try:
        return zoo.load("coconet/jsb-torch")  # type: ignore[return-value]
    except zoo.WeightsError as error:
        pytest.skip(f"no published weights: {error}")


def test_parity_with_pytorch(monkeypatch):
    """Of its logits within 1e-4 of their size, and of two layers on the way."""
    model = published(monkeypatch)
    golden = np.load(GOLDEN)
    x = np.unpackbits(golden["x"], count=np.prod(golden["shape"])).reshape(golden["shape"])
    layers: list[jax.Array] = []
    through = coconet.Convolution.__call__

    def recorded(layer: coconet.Convolution, x: jax.Array) -> jax.Array:
        layers.append(through(layer, x))
        return layers[-1]

    monkeypatch.setattr(coconet.Convolution, "__call__", recorded)
    with jax.default_matmul_precision("highest"):
        logits = model.module(jnp.asarray(x, jnp.float32))  # type: ignore[operator]
    for i, hidden in zip(golden["layers"], golden["hidden"], strict=True):
        np.testing.assert_allclose(layers[i][:, golden["step"]], hidden, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)


# --- what a user asks -------------------------------------------------------------------------------------------------


CARD = """
id = "coconet/tiny"
summary = "Random weights, for tests."
task = "infill"
parameters = 2952
intended_use = "Tests."
limits = "It has learnt nothing."
[config]
steps = 32
filters = 8
dilations = [1, 2]
gibbs = 8
[codec]
name = "chorale"
options = {bars = 2}
[licences]
code = {name = "Apache-2.0", stated_at = "LICENSE"}
weights = {name = "Apache-2.0", stated_at = "LICENSE"}
[citation]
bibtex = "@inproceedings{tiny}"
paper = "https://arxiv.org/abs/1903.07227"
[[sources]]
kind = "bundled"
file = "weights.safetensors"
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Infill:
    folder = tmp_path_factory.mktemp("coconet")
    config = Config(steps=32, filters=8, dilations=(1, 2), gibbs=8)
    _, state = nnx.split(drawn(Coconet, config))
    flat = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
    safetensors.write(folder / "weights.safetensors", flat, {})
    (folder / "card.toml").write_text(CARD)
    return zoo.load(folder)  # type: ignore[return-value]


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    """Nine quarters of a melody an octave too low, as ABC."""
    path = tmp_path / "tune.abc"
    path.write_text("X:1\nT:tune\nM:4/4\nL:1/4\nK:C\nC D E F|G A B, C|C|\n")
    return path


def test_a_melody_gets_three_more_voices(tiny, tune):
    """From a file to four voices; the soprano is the melody, in a soprano's range."""
    first, second = tiny.harmonize_windows(tune, 2, key=1)
    assert first.shape == (36, 4)
    melody = [60, 62, 64, 65, 67, 69, 59, 60, 60]
    lifted = np.repeat(np.array(melody) + 12 - 35, 4)
    np.testing.assert_array_equal(first[:, 0], lifted)
    assert (first[:, 1:] != second[:, 1:]).any()
    np.testing.assert_array_equal(tiny.harmonize_windows(tune, 2, key=1)[0], first)
    late = io.read(tune)
    rested = tiny.harmonize_windows(replace(late, start=late.start + 1, end=late.end + 1))[0]
    assert not rested[:4].any()
    assert len(tiny.harmonize(tune)) == 1
    assert tiny.harmonize(tune)[0].tempos[0].qpm > 0


def test_infilling_leaves_the_rest_alone(tiny):
    before = tiny.scores(tiny.sample_windows(1, key=5))[0]
    music = tiny.chorale.encode(before)
    free = tiny.free(music, ["alto", "Bass"], (2.0, 4.0))
    assert free.sum() == 2 * 8
    (after,) = tiny.fill(music, free, key=2)
    np.testing.assert_array_equal(after[~free], music[~free])
    assert (after != music).any()
    assert len(tiny.infill(before, free, 2)) == 2


def test_the_score_of_a_piece(tiny):
    """Framewise: one number a sixteenth, of few frames the same as among all; in time none depends on what follows."""
    piece = tiny.scores(tiny.sample_windows(1, key=5))[0]
    nats = tiny.score(piece, orders=2)
    music = tiny.chorale.encode(piece)
    assert nats.shape == (len(music),)
    assert (nats > 0).all()
    few = tiny.score(piece, orders=2, frames=5)
    assert np.isfinite(few).sum() == 5
    changed = music.copy()
    changed[20:] = 0
    before, after = (tiny.nats(m, orders=2, chronological=True) for m in (music, changed))
    np.testing.assert_allclose(before[:20], after[:20], rtol=1e-4)
    assert np.abs(before[20:] - after[20:]).max() > 1e-2


def test_a_long_piece_is_scored_by_what_a_frame_sees_of_it(tiny, monkeypatch):
    """Cut to the network's reach a frame gets the same likelihood as in the whole piece, short pieces beside long."""
    long, short = tiny.sample_windows(2, key=5)
    pieces = [np.tile(long, (3, 1)), short[:7], short]
    assert 2 * tiny.config.reach + 1 < 32
    cut = tiny.nats_of(pieces, orders=2, frames=6)
    monkeypatch.setattr(Config, "reach", 1000)
    whole = tiny.nats_of(pieces, orders=2, frames=6)
    for one, other in zip(cut, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    monkeypatch.setattr(Config, "reach", 2)
    assert np.nanmax(np.abs(tiny.nats_of(pieces, orders=2, frames=6)[0] - whole[0])) > 1e-3


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda m: m.infill(m.scores(m.sample_windows(1))[0], voices=["altus"]),
            "no voice named 'altus'; there are sop",
        ),
        (lambda m: m.infill(m.scores(m.sample_windows(1))[0], span=(50, 60)), "nothing to fill in: the piece ends at"),
        (lambda m: m.infill(m.scores(m.sample_windows(1))[0], np.ones((3, 4))), r"mask has shape \(3, 4\), the music"),
        (lambda m: m.sample(0), "n=0, steps=8: ask for at least one"),
        (lambda m: m.sample(1, temperature=-1.0), "temperature -1.0 is negative"),
        (lambda m: m.harmonize(Score.of([0, 1], [1, 2], [30, 100], source="a.mid")), "a.mid: spans 70 semitones"),
        (lambda m: m.harmonize("missing.mid"), "missing.mid: no such file"),
    ],
)
def test_nonsense_gets_a_line(tiny, ask, message):
    with pytest.raises(zoo.InputError, match=message):
        ask(tiny)


def test_what_is_written_is_read_again(tiny, tmp_path):
    (sequence,) = tiny.sample(1, key=5)
    io.write_midi(sequence, tmp_path / "sample.mid")
    again, window = tiny.chorale.encode(io.read(tmp_path / "sample.mid")), tiny.sample_windows(1, key=5)[0]
    np.testing.assert_array_equal(again, window[: len(again)])
