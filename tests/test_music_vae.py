"""MusicVAE's laws, each checked against its formula in NumPy, and parity with Magenta's own weights in TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import shared
from tests.test_recurrent import reference
from zoo.models import music_vae
from zoo.models.music_vae import ARCHITECTURE, PUBLISHED, Config, Dropout, MusicVAE
from zoo.nn import native, recurrent
from zoo.nn.gaussian import Posterior
from zoo.nn.precision import products
from zoo.tasks.model import fill
from zoo.training.params import flatten
from zoo.weights.convert import convert
from zoo.weights.formats import read_weights

KINDS = ("flat", "hierarchical", "trio", "groove")
GOLDEN = Path(__file__).parent / "golden" / "music_vae.npz"


@pytest.fixture(scope="module", autouse=True)
def _fast_to_compile() -> Iterator[None]:
    """As in the conformance tests: XLA spends no time on making the small models fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.default_matmul_precision("highest"):
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def random_weights(config: Config, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Weights by name, large enough that every input matters and no output wins always."""
    rng = np.random.default_rng(0)
    shapes = flatten(nnx.state(nnx.eval_shape(lambda: MusicVAE(config, rngs=nnx.Rngs(0)))))
    return {name: scale * rng.standard_normal(leaf.shape).astype(np.float32) for name, leaf in shapes.items()}


@cache
def network(config: Config, scale: float = 1.0) -> MusicVAE:
    return fill(MusicVAE, config, random_weights(config, scale), "random")  # type: ignore[return-value]


def batch(config: Config, rows: int | None = None) -> dict[str, Any]:
    """A row more than there are steps, which the test of causality needs."""
    example = ARCHITECTURE.example(config, rows or config.steps + 1, np.random.default_rng(0))
    return {name: jnp.asarray(array) for name, array in example.items()}


@cache
def forced(kind: str) -> Any:
    """Compiled (z, previous) → logits of each track, for the tiny network of this kind."""
    return jax.jit(network(ARCHITECTURE.tiny[kind]).logits)


# ---- the whole network, once more in NumPy ----


def dense(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.kernel"] + w[f"{name}.bias"]


def run_stack(w: dict[str, np.ndarray], name: str, layers: int, embedding: np.ndarray, x: np.ndarray) -> np.ndarray:
    """LSTM layers from state tanh(dense(embedding)) = c0, h0, c1, h1, …; `x` [T, B, X] → h [T, B, H]."""
    state = np.split(np.tanh(dense(w, f"{name}.initial", embedding)), 2 * layers, axis=-1)
    for k in range(layers):
        cell = f"{name}.cells.{k}"
        x, _, _ = reference(x, w[f"{cell}.kernel"], w[f"{cell}.bias"], state[2 * k], state[2 * k + 1])
    return x


def both_ways(
    w: dict[str, np.ndarray], name: str, layers: tuple[int, ...], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bidirectional LSTM layers over `x` [T, B, X]: h of both directions [T, B, 2H], and the last of each [B, 2H]."""
    for layer, units in enumerate(layers):
        zeros, names = np.zeros((x.shape[1], units)), [f"{name}.{way}.{layer}" for way in ("forward", "backward")]
        (ahead, _, last_ahead), (back, _, last_back) = (
            reference(x, w[f"{name}.kernel"], w[f"{name}.bias"], zeros, zeros, reverse)
            for name, reverse in zip(names, (False, True), strict=True)
        )
        x = np.concatenate([ahead, back], axis=-1)
    return x, np.concatenate([last_ahead, last_back], axis=-1)


@pytest.mark.parametrize("kind", ["trio", "deep", "hierarchical", "coded"])
def test_the_encoder_in_numpy(kind: str) -> None:
    """The tracks side by side, segment by segment and then as a whole; μ and softplus(σ) of what is left."""
    config = ARCHITECTURE.tiny[kind]
    model, w, data = network(config), random_weights(config), batch(config)
    rows = len(data["x"])
    tokens = np.asarray(data["x"]).reshape(rows, config.steps, -1)
    x = np.concatenate([np.eye(v)[tokens[..., k]] for k, v in enumerate(config.classes)], axis=-1).swapaxes(0, 1)
    if config.encoder_segments > 1:
        parts = np.split(x, config.encoder_segments)
        x = np.stack([both_ways(w, "encoder.segment", config.encoder, part)[1] for part in parts])
    context, last = both_ways(w, "encoder", config.encoder, x)
    if config.code:
        codes = dense(w, "encoder.code", np.concatenate([x, context], axis=-1))
        last = np.concatenate(list(codes), axis=-1)
    mean, scale = jax.jit(lambda x: music_vae.encode(model, x))(data["x"])
    np.testing.assert_allclose(mean, dense(w, "encoder.mu", last), atol=1e-5)
    np.testing.assert_allclose(scale, config.spread * np.log1p(np.exp(dense(w, "encoder.sigma", last))), atol=1e-5)


@pytest.mark.parametrize("kind", ["flat", "trio", "coded"])
def test_the_decoder_in_numpy(kind: str) -> None:
    """Teacher forcing segment by segment; z, or the conductor's embedding, stands beside every input."""
    config = ARCHITECTURE.tiny[kind]
    w, data = random_weights(config), batch(config)
    z, layers, rows = np.asarray(data["z"]), len(config.decoder), len(data["z"])
    tokens = np.asarray(data["x"]).reshape(rows, config.steps, -1)
    embeddings = [z]
    if config.segments > 1:
        x = np.zeros((config.segments, rows, 1))
        if config.code:
            x = np.stack(np.split(dense(w, "code", z), config.segments, axis=-1))
        embeddings = list(run_stack(w, "conductor", layers, z, x))
    logits = forced(kind)(data["z"], music_vae.shift(config, data["x"]))
    for k, classes in enumerate(config.classes):
        given = np.eye(classes)[tokens[:, :-1, k]]
        previous = np.concatenate([np.zeros((rows, 1, classes)), given], axis=1).swapaxes(0, 1)
        segments = np.split(previous, config.segments), np.split(logits[k], config.segments, axis=1)
        for embedding, x, found in zip(embeddings, *segments, strict=True):
            x = np.concatenate([x, np.broadcast_to(embedding, (len(x), *embedding.shape))], axis=-1)
            hidden = run_stack(w, f"decoders.{k}", layers, embedding, x)
            np.testing.assert_allclose(found, dense(w, f"decoders.{k}.output", hidden).swapaxes(0, 1), atol=3e-5)


# ---- the decoder's laws ----


@pytest.mark.parametrize("kind", ["flat", "hierarchical", "trio"])
def test_causality_and_independent_segments(kind: str) -> None:
    """A step sees all earlier tokens of its segment, the last one before it, its own track's, and nothing else.

    Row n of the batch has token n changed, so that one pass shows every token's influence on every step.
    """
    config = ARCHITECTURE.tiny[kind]
    steps, length = config.steps, config.steps // config.segments
    data = {name: np.asarray(array) for name, array in batch(config).items()}
    x, z = (np.repeat(data[name][:1], steps + 1, axis=0) for name in ("x", "z"))
    tokens = x if x.ndim == 3 else x[..., None]
    at = np.arange(steps)
    tokens[at, at, 0] = (tokens[at, at, 0] + 1) % config.classes[0]
    logits = forced(kind)(z, music_vae.shift(config, jnp.asarray(x)))
    changed = np.abs(logits[0][:-1] - logits[0][-1]).max(axis=-1)  # [token, step]
    token, step = np.meshgrid(at, at, indexing="ij")
    sees = (token < step) & ((token + 1) // length == step // length)
    assert changed[~sees].max() <= 1e-6
    assert changed[sees].min() > 1e-4
    for other in logits[1:]:
        np.testing.assert_allclose(other, other[-1:].repeat(steps + 1, axis=0), atol=1e-6)


def test_stepwise_is_teacher_forcing() -> None:
    config = ARCHITECTURE.tiny["trio"]
    model, data = network(config), batch(config)
    previous = music_vae.shift(config, data["x"])
    logits = forced("trio")(data["z"], previous)
    embeddings = model.embeddings(data["z"])
    steps = music_vae.prepare(model)
    for k, decoder in enumerate(model.decoders):
        for t in range(config.steps):
            at, within = divmod(t, config.steps // config.segments)
            if within == 0:
                state = jax.tree.map(jnp.transpose, decoder.start(embeddings[at]))
                gates = decoder.cells[0].constant_gates(embeddings[at]).T
            token = music_vae.tracks(config, previous)[k][:, t]
            found, state = steps[k](token, state, gates)
            np.testing.assert_allclose(found.T, logits[k][:, t], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_decoding(kind: str) -> None:
    """At temperature 0 the key is of no account, and every step is the likeliest given the steps before it.

    Across the segments too: each begins from the last output of the one before.
    """
    config = ARCHITECTURE.tiny[kind]
    model, z = network(config), batch(config)["z"]
    decode = jax.jit(lambda key, temperature: music_vae.decode(model, z, jax.random.key(key), temperature))
    found, again, warm, other = (decode(key, jnp.float32(tau)) for key, tau in ((0, 0), (1, 0), (0, 1), (1, 1)))
    np.testing.assert_array_equal(found, again)
    assert not np.array_equal(warm, other)
    assert not np.array_equal(found, warm)
    logits = forced(kind)(z, music_vae.shift(config, found))
    expected = music_vae.stack(config, [music_vae.predict(config, track) for track in logits])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == (jnp.float32 if config.head == "groove" else jnp.int32)


@pytest.mark.parametrize("kind", ["flat", "trio"])
def test_a_part_of_the_rows_at_a_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows decoded in parts are those decoded together."""
    config = ARCHITECTURE.tiny[kind]
    model, data = network(config), batch(config, 4)
    cold = (jax.random.key(0), jnp.zeros(()))
    together = jax.jit(lambda: music_vae.decode(model, data["z"], *cold))()
    monkeypatch.setattr(music_vae, "PART", 2)
    in_parts = jax.jit(lambda: music_vae.decode(model, data["z"], *cold))()
    np.testing.assert_allclose(in_parts, together, atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "groove"])
def test_draws_follow_the_tempered_distribution(kind: str) -> None:
    """The first step of 20 000 windows from one z: softmax(logits / τ), or σ(logits / τ) for the hits of a groove."""
    rows = 20_000
    config = replace(ARCHITECTURE.tiny[kind], steps=1)
    model, z = network(config, 0.5), batch(config)["z"][:1]
    logits = model.logits(z, music_vae.nothing(config, 1)[:, None])[0]
    decode = jax.jit(lambda tau: music_vae.decode(model, jnp.tile(z, (rows, 1)), jax.random.key(0), tau))
    for temperature in (0.5, 1.0):
        found = np.asarray(decode(jnp.float32(temperature)))[:, 0]
        scores = np.exp(np.asarray(logits, np.float64)[0, 0] / temperature)
        if config.head == "groove":
            expected, frequency = (scores / (1 + scores))[:9], found[:, :9].mean(axis=0)
            assert np.ptp(found[:, 9:], axis=0).max() < 1e-5  # only hits are drawn
        else:
            expected, frequency = scores / scores.sum(), np.bincount(found, minlength=len(scores)) / rows
        deviation = np.sqrt(expected * (1 - expected) / rows) + 1e-4
        assert np.abs((frequency - expected) / deviation).max() < 5


# ---- the loss ----


def test_kl_is_the_expected_log_ratio() -> None:
    """The closed form against 200 000 draws of log q(z) − log p(z), and zero for the prior itself."""
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=(4, 3)), rng.uniform(0.2, 2.0, size=(4, 3))
    noise = rng.standard_normal((200_000, 4, 3))
    ratio = (-(noise**2) / 2 - np.log(scale) + (mean + scale * noise) ** 2 / 2).sum(axis=-1)
    standard_error = ratio.std(axis=0) / np.sqrt(len(ratio))
    found = Posterior(jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)).kl()
    assert (np.abs(found - ratio.mean(axis=0)) < 5 * standard_error).all()
    assert standard_error.max() < 0.02
    np.testing.assert_array_equal(Posterior(jnp.zeros((2, 3)), jnp.ones((2, 3))).kl(), np.zeros(2))


def test_posterior_draws() -> None:
    mean, scale = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]])
    draws = np.asarray(Posterior(mean.repeat(50_000, 0), scale.repeat(50_000, 0)).sample(jax.random.key(0)))
    np.testing.assert_allclose(draws.mean(axis=0), mean[0], atol=0.07)
    np.testing.assert_allclose(draws.std(axis=0), scale[0], rtol=0.02)


@cache
def elbo() -> Any:
    """Compiled (step, free_bits, max_beta, beta_rate) → ((loss, metrics), gradients) on one batch."""
    config = replace(ARCHITECTURE.tiny["teacher-forced"], steps=4)
    graph, state = nnx.split(network(config, 0.5))
    data = batch(config)

    def objective(state: Any, step: jax.Array, **numbers: jax.Array) -> Any:
        model = nnx.merge(graph, state)
        model.config = replace(config, **numbers)
        return music_vae.loss(model, data, jax.random.key(0), step)

    gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))

    def call(step: int, **numbers: float) -> Any:
        numbers = {"free_bits": 0.0, "max_beta": 0.0, "beta_rate": 0.0, **numbers}
        return jax.device_get(
            gradient(state, jnp.int32(step), **{name: jnp.float32(number) for name, number in numbers.items()})
        )

    return call


def test_free_bits() -> None:
    """Below the floor the KL costs nothing and pulls at nothing; above it, β a nat."""
    (nll, metrics), without = elbo()(1)
    np.testing.assert_allclose(nll, metrics["nll"], rtol=1e-6)
    (value, _), below = elbo()(1, max_beta=5.0, free_bits=1e6)
    assert value == nll
    jax.tree.map(np.testing.assert_array_equal, without, below)
    (whole, _), above = elbo()(1, max_beta=5.0)
    np.testing.assert_allclose(whole, nll + 5 * metrics["kl"], rtol=1e-5)
    (value, _), less = elbo()(1, max_beta=5.0, free_bits=0.01)  # less than any window's KL
    np.testing.assert_allclose(value, nll + 5 * (metrics["kl"] - 0.01 * math.log(2)), rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), above, less)
    assert np.abs(flatten(above)["encoder.mu.kernel"] - flatten(without)["encoder.mu.kernel"]).max() > 1e-3
    np.testing.assert_array_equal(
        flatten(above)["decoders.0.output.kernel"], flatten(without)["decoders.0.output.kernel"]
    )


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.99999])
def test_beta_grows_towards_its_maximum(rate: float) -> None:
    for step in (0, 1, 10, 1_000, 100_000):
        (_, metrics), _ = elbo()(step, max_beta=0.2, beta_rate=rate)
        assert metrics["beta"] == pytest.approx((1 - rate**step) * 0.2, abs=2e-4)  # rate is a float32, as in Magenta


def test_inverse_sigmoid_schedule() -> None:
    k = 1000.0
    config = Config(sampling="inverse_sigmoid", sampling_rate=k)
    found = [float(music_vae.sampling_probability(config, jnp.int32(step))) for step in (0, 1000, 6908, 20_000, 10**6)]
    expected = [1 / (k + 1), 1 - k / (k + math.e), 1 - k / (k + math.exp(6.908)), 1 - k / (k + math.exp(20)), 1.0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[2] == pytest.approx(0.5, abs=1e-3)  # exp(step / k) = k
    assert music_vae.sampling_probability(replace(config, sampling="none"), jnp.int32(10**6)) == 0


def test_settled() -> None:
    """The same weights; β at its end and teacher forcing from the first step."""
    config = ARCHITECTURE.tiny["flat"]
    model = nnx.merge(*nnx.split(network(config)))
    settled = ARCHITECTURE.settle(model)
    assert settled.config == replace(config, beta_rate=0.0, sampling="none")
    jax.tree.map(np.testing.assert_array_equal, nnx.state(settled), nnx.state(network(config)))


@pytest.mark.parametrize("kind", ["hierarchical", "groove"])
def test_scheduled_sampling(kind: str) -> None:
    """At probability 0 teacher forcing; at 1 the model's own draws, from the truth at each segment's start."""
    config = ARCHITECTURE.tiny[kind]
    model, data, key = network(config), batch(config), jax.random.key(5)
    previous = music_vae.shift(config, data["x"])
    mixed = jax.jit(lambda probability: music_vae.own_outputs(model, data["z"], previous, probability, key)[0])
    np.testing.assert_array_equal(mixed(jnp.zeros(())), previous)
    segments, length = config.segments, config.steps // config.segments
    truth = music_vae.into_segments(previous, segments)
    embedding = model.embeddings(data["z"]).reshape(truth.shape[1], -1)
    drawn = jax.jit(
        lambda: music_vae.rollout(model, music_vae.prepare(model), embedding, truth[0], length, key, jnp.ones(()))
    )()
    expected = music_vae.from_segments(jnp.concatenate([truth[:1], drawn[:-1]]), segments)
    np.testing.assert_array_equal(mixed(jnp.ones(())), expected)
    half = np.asarray(mixed(jnp.full((), 0.5))).reshape(
        -1, segments, length, config.width if config.head == "groove" else 1
    )
    np.testing.assert_array_equal(half[:, :, 0], np.asarray(previous).reshape(half.shape)[:, :, 0])
    own = (half != np.asarray(previous).reshape(half.shape)).any(axis=-1)[:, :, 1:]
    assert 0.2 < own.mean() < 0.7  # half of the steps, less the draws that are right by chance


@pytest.mark.parametrize("by", ["xla", "native"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["flat", "hierarchical", "groove", "two tracks"])
def test_drawing_is_the_way_forward(kind: str, precision: str, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of scheduled sampling gives the logits and the gradients of teacher forcing on the same inputs."""
    monkeypatch.setattr(native, "cores", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(recurrent, "ROUNDED_FROM", 0)
    tiny = ARCHITECTURE.tiny
    config = replace(tiny["flat"], classes=(12, 10)) if kind == "two tracks" else tiny[kind]
    graph, state = nnx.split(network(config, 0.3))
    data = batch(config, 16)

    def total(params: Any, z: jax.Array, probability: float, keep: bool) -> tuple[jax.Array, Any]:
        model, previous = nnx.merge(graph, params), music_vae.shift(config, data["x"])
        mixed, kept = music_vae.own_outputs(model, z, previous, jnp.full((), probability), jax.random.key(3))
        logits = model.logits(z, mixed, kept=kept if keep else None)
        return sum(jnp.sum(jnp.sin(part)) for part in logits), (logits, mixed)

    way = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), static_argnums=(2, 3))
    with products(precision), native.left_to_xla() if by == "xla" else nullcontext():
        found, expected = way(state, data["z"], 0.5, True), way(state, data["z"], 0.5, False)
        assert ("zoo_lstm_feed" in way.lower(state, data["z"], 0.5, True).as_text()) == (by == "native")
    assert np.any(found[0][1][1] != music_vae.shift(config, data["x"]))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        tolerance = (1e-5 if precision == "float32" else 2e-2) * max(1.0, float(jnp.abs(other).max()))
        np.testing.assert_allclose(one, other, atol=tolerance)


def test_dropped_inputs_go_forward_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout what drawing met are not the states of the inputs that teacher forcing sees."""
    config = replace(ARCHITECTURE.tiny["flat"], keep=0.5)
    graph, state = nnx.split(network(config, 0.3))
    data, key, late = batch(config, 16), jax.random.key(0), jnp.int32(9000)  # when most outputs are its own

    def gradients() -> list[jax.Array]:
        loss = lambda state: music_vae.loss(nnx.merge(graph, state), data, key, late)[0]  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss))(state))

    found, own_outputs = gradients(), music_vae.own_outputs
    monkeypatch.setattr(music_vae, "own_outputs", lambda *args: (own_outputs(*args)[0], None))
    for one, other in zip(found, gradients(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_the_fitted_prior() -> None:
    """Its mean and covariance are those of z drawn from the posteriors of all windows; the rest stays as it was."""
    config = replace(ARCHITECTURE.tiny["drums"], prior="fitted")
    model = network(config)
    windows = np.asarray(batch(config, rows=300)["x"])
    noise = jnp.asarray(np.random.default_rng(0).standard_normal((50_000, config.latent)), jnp.float32)
    concluded = music_vae.conclude(model, windows)
    mean, scale = music_vae.encode(model, jnp.asarray(windows))
    keys = jax.random.split(jax.random.key(1), 100)
    drawn = np.concatenate([Posterior(mean, scale).sample(key) for key in keys])
    z = np.asarray(concluded.draw(noise))
    np.testing.assert_allclose(z.mean(axis=0), drawn.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(z.T), np.cov(drawn.T), atol=0.3)
    before, after = flatten(nnx.state(network(config))), flatten(nnx.state(concluded))
    for name in before:
        assert np.array_equal(before[name], after[name]) != name.startswith("prior."), name


def test_one_window_makes_a_prior() -> None:
    config = replace(ARCHITECTURE.tiny["drums"], prior="fitted")
    model = network(config)
    window = batch(config, rows=1)["x"]
    concluded = music_vae.conclude(model, np.asarray(window))
    mean, scale = music_vae.encode(model, window)
    np.testing.assert_allclose(concluded.draw(jnp.ones((1, config.latent))), mean + scale, rtol=1e-5)


def test_the_usual_prior() -> None:
    model = network(ARCHITECTURE.tiny["flat"])
    noise = jnp.ones((2, 6))
    assert model.draw(noise) is noise
    assert music_vae.conclude(model, np.zeros((1, 8), np.int32)) is model
    with pytest.raises(ValueError, match="prior 'gaussian' is neither"):
        Config(prior="gaussian")


def test_scheduled_sampling_carries_no_gradient() -> None:
    config = ARCHITECTURE.tiny["groove"]  # its outputs are floats, through which a gradient could flow
    graph, state = nnx.split(network(config))
    data = batch(config)

    def total(state: Any, z: jax.Array) -> jax.Array:
        model = nnx.merge(graph, state)
        previous = music_vae.shift(config, data["x"])
        return jnp.sum(music_vae.own_outputs(model, z, previous, jnp.ones(()), jax.random.key(0))[0])

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(state, data["z"])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_likelihood_of_tokens() -> None:
    config = ARCHITECTURE.tiny["trio"]
    rng = np.random.default_rng(0)
    x = np.asarray(batch(config)["x"])
    logits = [3 * rng.standard_normal((*x.shape[:2], v)) for v in config.classes]
    expected = np.zeros(len(x))
    for (row, step, track), token in np.ndenumerate(x):
        scores = np.exp(logits[track][row, step])
        expected[row] -= np.log(scores[token] / scores.sum())
    found = music_vae.negative_log_likelihood(config, jnp.asarray(x), [jnp.float32(track) for track in logits])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_loss_of_grooves() -> None:
    """Cross-entropy of the hits, squared errors of the velocities' sigmoid and the offsets' tanh, summed."""
    config = ARCHITECTURE.tiny["groove"]
    x = np.asarray(batch(config)["x"], np.float64)
    logits = np.random.default_rng(0).standard_normal(x.shape)
    chance = 1 / (1 + np.exp(-logits[..., :18]))
    hit, velocity = chance[..., :9], chance[..., 9:]
    expected = -(x[..., :9] * np.log(hit) + (1 - x[..., :9]) * np.log(1 - hit))
    expected = expected + (velocity - x[..., 9:18]) ** 2 + (np.tanh(logits[..., 18:]) - x[..., 18:]) ** 2
    found = music_vae.negative_log_likelihood(config, jnp.asarray(x, jnp.float32), [jnp.asarray(logits, jnp.float32)])
    np.testing.assert_allclose(found, expected.sum(axis=(1, 2)), rtol=1e-5)


def test_accuracy() -> None:
    flat, groove = ARCHITECTURE.tiny["flat"], ARCHITECTURE.tiny["groove"]
    assert music_vae.accuracy(flat, jnp.array([[1, 2], [3, 4]]), jnp.array([[1, 2], [3, 5]])) == 0.75
    x = jnp.zeros((1, 1, 27))
    assert music_vae.accuracy(groove, x, x.at[0, 0, 9:].set(0.7)) == 1.0  # hits alone count
    assert music_vae.accuracy(groove, x, x.at[0, 0, 0].set(1.0)) == pytest.approx(8 / 9)


# ---- the window, as the networks see it ----


def test_segments() -> None:
    x = np.arange(2 * 12 * 3).reshape(2, 12, 3)  # [B, T, K]
    found = np.asarray(music_vae.into_segments(jnp.asarray(x), 4))
    assert found.shape == (3, 8, 3)
    for segment in range(4):
        for row in range(2):
            np.testing.assert_array_equal(found[:, 2 * segment + row], x[row, 3 * segment : 3 * segment + 3])
    np.testing.assert_array_equal(music_vae.from_segments(jnp.asarray(found), 4), x)
    with pytest.raises(ValueError, match="steps=10 can't be cut into 4 equal segments"):
        Config(steps=10, segments=4)


def test_shift() -> None:
    """The first step's previous output is nothing: zeros, which for tokens is the class that isn't."""
    flat = replace(ARCHITECTURE.tiny["flat"], classes=(5,))
    shifted = music_vae.shift(flat, jnp.array([[4, 0, 2]]))
    np.testing.assert_array_equal(shifted, [[5, 4, 0]])
    np.testing.assert_array_equal(music_vae.dense(shifted, 5)[0], np.eye(6)[[5, 4, 0], :5])
    trio = ARCHITECTURE.tiny["trio"]
    np.testing.assert_array_equal(
        music_vae.shift(trio, jnp.array([[[1, 2, 3], [4, 5, 6]]])), [[[12, 10, 32], [1, 2, 3]]]
    )
    groove = ARCHITECTURE.tiny["groove"]
    x = np.random.default_rng(0).random((2, 3, 27), np.float32)
    expected = np.concatenate([np.zeros((2, 1, 27)), x[:, :-1]], axis=1)
    np.testing.assert_array_equal(music_vae.shift(groove, jnp.asarray(x)), expected)


def test_views_of_the_encoder() -> None:
    """A roll is a drum token's nine bits and a flag for silence; hits are a groove without all else."""
    drums, groove = ARCHITECTURE.tiny["drums"], ARCHITECTURE.tiny["groove"]
    roll = np.asarray(music_vae.encoder_view(drums, jnp.arange(512)[None]))[0]
    assert roll.shape == (512, drums.encoder_width)
    np.testing.assert_array_equal(roll[:, :9] @ 2 ** np.arange(9), np.arange(512))
    assert set(np.unique(roll)) == {0.0, 1.0}
    np.testing.assert_array_equal(roll[:, 9], np.arange(512) == 0)
    x = np.random.default_rng(0).random((2, 3, 27), np.float32)
    hits = np.asarray(music_vae.encoder_view(groove, jnp.asarray(x)))
    np.testing.assert_array_equal(hits[..., :9], x[..., :9])
    assert not hits[..., 9:].any()


def test_dropout() -> None:
    x = jnp.ones((200, 100))
    assert Dropout()(x) is x
    assert Dropout(0.5)(x) is x
    assert Dropout(1.0, jax.random.key(0))(x) is x
    drop = Dropout(0.3, jax.random.key(0))
    first, second = np.asarray(drop(x)), np.asarray(drop(x))
    np.testing.assert_allclose(np.unique(first), [0.0, 1 / 0.3], rtol=1e-6)
    assert np.mean(first > 0) == pytest.approx(0.3, abs=0.02)
    assert not np.array_equal(first, second)


# ---- Magenta's own ----


def parameters(config: Config) -> int:
    """What Magenta's variables hold: an LSTM (inputs + units + 1) · 4 units, a dense layer (inputs + 1) · outputs."""

    def stack(inputs: int, units: tuple[int, ...]) -> int:
        return sum((x + h + 1) * 4 * h for x, h in zip((inputs, *units), units, strict=False))

    def initial(inputs: int) -> int:
        return (inputs + 1) * 2 * sum(config.decoder)

    last, embedding = 2 * config.encoder[-1], config.latent
    widths = (config.encoder_width, *(2 * units for units in config.encoder))
    total = sum(2 * (x + h + 1) * 4 * h for x, h in zip(widths, config.encoder, strict=False))
    total += 2 * (last + 1) * config.latent
    if config.segments > 1:
        total += initial(config.latent) + stack(1, config.decoder)
        embedding = config.decoder[-1]
    for classes in config.classes:
        total += initial(embedding) + stack(classes + embedding, config.decoder) + (config.decoder[-1] + 1) * classes
    return total


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    """Every published configuration has Magenta's number of parameters; nothing is allocated to count them."""
    config = PUBLISHED[name]
    state = nnx.state(nnx.eval_shape(lambda: MusicVAE(config, rngs=nnx.Rngs(0))))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state)) == parameters(config)


def test_published_numbers() -> None:
    small, trio = PUBLISHED["cat-mel_2bar_small"], PUBLISHED["hierdec-trio_16bar"]
    assert parameters(small) == 4_423_770
    assert small == Config()
    assert (trio.steps, trio.segments, trio.classes, trio.latent) == (256, 16, (90, 90, 512), 512)
    assert trio.free_bits * math.log(2) == pytest.approx(177.4, abs=0.1)


@pytest.fixture(scope="module")
def magenta() -> MusicVAE:
    """Magenta's decoder. The encoder's kernels are not published with it and stay zero."""
    folder = shared.path("weights/magenta-musicvae-mel-2bar-small")
    tensors = convert(read_weights({path.name: path for path in folder.iterdir()}), "music-vae", "magenta")
    shapes = flatten(nnx.state(nnx.eval_shape(lambda: MusicVAE(Config(), rngs=nnx.Rngs(0)))))
    missing = shapes.keys() - tensors.keys()
    assert missing == {"encoder.forward.0.kernel", "encoder.backward.0.kernel"}
    tensors |= {name: np.zeros(shapes[name].shape, np.float32) for name in missing}
    return fill(MusicVAE, Config(), tensors, "magenta")  # type: ignore[return-value]


@pytest.mark.shared
def test_magenta_as_in_tensorflow(magenta: MusicVAE) -> None:
    """Initial state, hidden state, logits, and melodies, all to 1e-4, on two tunes of Nottingham's, each with two z."""
    golden = np.load(GOLDEN)
    z, previous = jnp.asarray(golden["z"]), music_vae.shift(magenta.config, jnp.asarray(golden["tokens"]))
    decoder = magenta.decoders[0]
    state = decoder.start(z)
    np.testing.assert_allclose(np.concatenate(jax.tree.leaves(state), axis=-1), golden["initial"], atol=1e-4)
    gates, hidden = decoder.gates(z), []
    x = music_vae.into_segments(music_vae.dense(previous, 90), 1)
    for cell, gate, carry in zip(decoder.cells, gates, state, strict=True):
        x, _ = cell(x, gate, carry)
        hidden.append(x[int(golden["step"])])
    np.testing.assert_allclose(np.stack(hidden), golden["hidden"], atol=1e-4)
    logits = jax.jit(magenta.logits)(z, previous)[0]
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
    assert np.abs(golden["logits"]).max() > 10
    greedy = jax.jit(lambda z: music_vae.decode(magenta, z, jax.random.key(0), jnp.zeros(())))(z)
    np.testing.assert_array_equal(greedy, golden["greedy"])
