"""What Music Transformer promises: attention that sees relations as the paper defines them, and never the future."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.networks import drawn
from zoo.models.music_transformer import (
    ARCHITECTURE,
    Config,
    MusicTransformer,
    Network,
    example,
    generate,
    pitch_of,
    shift,
    start,
)
from zoo.nn.attention import Attention, skew
from zoo.nn.likelihood import surprise
from zoo.nn.sampling import Sampling


def brute_force(attention: Attention, x: jax.Array, pitch: jax.Array) -> jax.Array:
    """Attention with the L · L · D array of every pair's vectors (Shaw et al. 2018)."""
    length = x.shape[1]
    q, k, v = (
        part.reshape(*part.shape[:-1], attention.heads, attention.width).swapaxes(1, 2)
        for part in jnp.split(attention.qkv(x), 3, axis=-1)
    )
    i, j = jnp.arange(length)[:, None], jnp.arange(length)
    scores = jnp.einsum("bhid,bhjd->bhij", q, k)
    for name in attention.relations:
        table = attention.tables[name][...]
        if name == "pitch":
            interval = pitch[:, None, :] - pitch[:, :, None] + attention.pitches
            both = (pitch[:, None, :] >= 0) & (pitch[:, :, None] >= 0)
            scores += jnp.einsum("bhid,bijhd->bhij", q, table[interval]) * both[:, None]
        else:
            group = attention.voices if name == "time" else 1
            distance = jnp.clip(i // group - j // group, 0, len(table) - 1)
            scores += jnp.einsum("bhid,ijhd->bhij", q, table[distance])
    scores = jnp.where(i >= j, scores / np.sqrt(attention.width), -jnp.inf)
    mixed = jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(scores, axis=-1), v)
    return attention.out(jnp.moveaxis(mixed, 1, 2).reshape(x.shape))


@pytest.mark.parametrize("block", [10, 256])
@pytest.mark.parametrize("relations", [(), ("index",), ("time",), ("pitch",), ("index", "time", "pitch")])
def test_relations_are_those_of_every_pair(
    relations: tuple[str, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 21 tokens, which fill no whole number of time steps, and distances past the farthest that is told apart."""
    monkeypatch.setattr("zoo.nn.attention.BLOCK", block)
    sizes = {"index": 9, "time": 3, "pitch": 21}
    attention = drawn(Attention, 16, 2, {name: sizes[name] for name in relations}, voices=4)
    for name in relations:
        attention.tables[name][...] = jax.random.normal(jax.random.key(1), attention.tables[name].shape)
    x = jax.random.normal(jax.random.key(2), (3, 21, 16))
    pitch = jax.random.randint(jax.random.key(3), (3, 21), -1, 10)
    np.testing.assert_allclose(attention(x, pitch), brute_force(attention, x, pitch), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("rows", "keys", "voices"), [(5, 5, 1), (4, 7, 1), (2, 6, 3), (3, 12, 3)])
def test_skewing(rows: int, keys: int, voices: int) -> None:
    """As its definition by a gather, and so is its gradient, up to the last key of each row's step."""
    x = jax.random.normal(jax.random.key(0), (2, 3, rows, keys + voices))
    steps_left = rows - jnp.arange(rows)[:, None]
    column = jnp.arange(keys) + voices * steps_left - 1
    heard = jnp.arange(keys) < keys - voices * (steps_left - 1)

    def gathered(x: jax.Array, voices: int) -> jax.Array:
        return jnp.take_along_axis(x, jnp.where(heard, column, 0)[None, None], axis=-1)

    def weighed(x: jax.Array, move: Callable[[jax.Array, int], jax.Array]) -> jax.Array:
        return jnp.sum(jnp.where(heard, move(x, voices), 0.0) ** 2)

    one, other = (jax.value_and_grad(weighed)(x, move) for move in (skew, gathered))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, other)


def test_no_array_of_pairs_and_widths() -> None:
    """Nothing in forward or backward pass has L · L · D numbers for a head (section 3.4.1)."""
    attention = drawn(Attention, 64, 1, {"index": 96, "time": 24, "pitch": 21}, voices=4)
    graph, state = nnx.split(attention)
    x, pitch = jnp.zeros((1, 96, 64)), jnp.zeros((1, 96), jnp.int32)

    def total(state: nnx.State, x: jax.Array) -> jax.Array:
        return jnp.sum(nnx.merge(graph, state)(x, pitch))

    jaxpr = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(state, x)
    sizes = [var.aval.size for eqn in jaxpr.jaxpr.eqns for var in eqn.outvars]
    assert 96 * 96 <= max(sizes) < 96 * 96 * 64 / 16


@pytest.mark.parametrize("kind", list(ARCHITECTURE.tiny))
def test_causality_by_gradient(kind: str) -> None:
    """The logits at t have no gradient in the inputs after t, and one in each input up to it."""
    config = ARCHITECTURE.tiny[kind]
    model = drawn(MusicTransformer, config)
    inputs = shift(config, jnp.asarray(example(config, 1, np.random.default_rng(0))["x"]))
    pitch = pitch_of(config, inputs)
    network = model.networks[-1]
    embedded = network.embed(inputs, jnp.arange(config.steps), pitch)
    at = config.steps // 2

    def logit(embedded: jax.Array) -> jax.Array:
        h = embedded
        for block in network.blocks:
            h = block(h, pitch, lambda x: x)  # type: ignore[arg-type]
        return jnp.sum(network.output(network.norm(h))[0, at] ** 2)

    reach = jnp.abs(jax.grad(logit)(embedded)[0]).max(axis=-1)
    assert (reach[at + 1 :] == 0).all()
    assert (reach[: at + 1] > 0).all()


@pytest.mark.parametrize("kind", list(ARCHITECTURE.tiny))
def test_attention_is_what_the_forward_pass_uses(kind: str) -> None:
    """Rows sum to one, nothing looks ahead, and where a token doesn't look, what stands there doesn't matter."""
    config = ARCHITECTURE.tiny[kind]
    model = drawn(MusicTransformer, config)
    x = jnp.asarray(example(config, 2, np.random.default_rng(0))["x"])
    weights = ARCHITECTURE.kernels["attention"](model, {"x": x}, jax.random.key(0))
    assert weights.shape == (2, config.layers * len(config.intervals), config.heads, config.steps, config.steps)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)
    assert (weights * ~np.tri(config.steps, dtype=bool) == 0).all()
    block = model.networks[0].blocks[0]
    inputs = shift(config, x)
    pitch = pitch_of(config, inputs)
    heard = block.before_attention(model.networks[0].embed(inputs, jnp.arange(config.steps), pitch))
    _, v = block.attention.look(heard, pitch)
    mixed = jnp.einsum("bhij,hbjd->bihd", weights[:, 0], v[:, :, : config.steps]).reshape(heard.shape)
    expected = block.attention(heard, pitch_of(config, inputs))
    np.testing.assert_allclose(block.attention.out(mixed), expected, rtol=1e-5, atol=1e-6)


def test_decoding_copies_no_cache() -> None:
    """Keys and values are updated in place: what a token costs must not grow by copies of all tokens before it."""
    if jax.default_backend() != "cpu":
        pytest.skip("what the CPU backend compiles to")
    config = Config.tiny()
    graph, params = nnx.split(drawn(MusicTransformer, config))
    for size in (1, 3):
        compiled = jax.jit(lambda params, key, size=size: generate(nnx.merge(graph, params), size, key, Sampling()))
        text = compiled.lower(params, jax.random.key(0)).compile().as_text()
        assert f"f32[{size * config.heads},{config.steps},8]" in text
        loops = [part for part in text.split("\n}") if "ENTRY" not in part]
        copies = [line for part in loops for line in part.splitlines() if " copy(" in line]
        assert not [line for line in copies if f"{config.steps},8]" in line]


def test_padding_counts_for_nothing() -> None:
    config = Config.tiny()
    model = drawn(MusicTransformer, config)
    x = jnp.asarray(example(config, 2, np.random.default_rng(0))["x"])
    padded = x.at[:, 10:].set(config.classes)
    measured = ARCHITECTURE.evaluate(model, {"x": padded}, jax.random.key(0))
    shorter = ARCHITECTURE.evaluate(model, {"x": x[:, :10]}, jax.random.key(0))
    np.testing.assert_allclose(measured["loss"], shorter["loss"], rtol=1e-5)
    assert measured["loss"][1] == 20
    value, _ = ARCHITECTURE.loss(model, {"x": padded}, jax.random.key(0), jnp.int32(0))
    np.testing.assert_allclose(value, measured["loss"][0] / 20, rtol=1e-5)


def test_transposed_music_has_transposed_attention() -> None:
    """With intervals as the only sight of pitch in attention, its pattern does not change with the key."""
    attention = drawn(Attention, 16, 2, {"pitch": 41})
    attention.tables["pitch"][...] = jax.random.normal(jax.random.key(1), (41, 2, 8))
    x = jax.random.normal(jax.random.key(2), (1, 12, 16))
    pitch = jax.random.randint(jax.random.key(3), (1, 12), 0, 12)
    np.testing.assert_allclose(attention(x, pitch), attention(x, pitch + 7), rtol=1e-4, atol=1e-5)
    assert np.abs(attention(x, pitch) - attention(x, pitch.at[0, 3].add(1))).max() > 1e-3


def test_generation_is_within_the_vocabulary() -> None:
    config = Config.tiny()
    model = drawn(MusicTransformer, config)
    tokens = generate(model, 3, jax.random.key(0), Sampling(temperature=9.0))
    assert tokens.shape == (3, config.steps)
    assert tokens.min() >= 0
    assert tokens.max() < config.classes
    assert len(set(np.asarray(tokens).ravel().tolist())) == config.classes


def test_a_config_with_an_unknown_relation() -> None:
    with pytest.raises(ValueError, match="no relation 'colour'"):
        Config(relations=("index", "colour"))
    with pytest.raises(ValueError, match="makes no network"):
        Config(intervals=())
    assert start(drawn(MusicTransformer, Config.tiny()), 2, 7).pitches.shape == (2, 7)


def test_intervals_hold_in_every_key() -> None:
    """A model that tells pitches apart by intervals alone: music three semitones higher has its logits there."""
    config = ARCHITECTURE.tiny["related"]
    model = drawn(Network, config, config.intervals[-1])
    first, count = config.pitch_tokens
    for param in (model.embedding, model.output.bias):
        param[...] = param[...].at[first:].set(param[first])
    model.output.kernel[...] = model.output.kernel[...].at[:, first:].set(model.output.kernel[:, first : first + 1])
    x = jax.random.randint(jax.random.key(0), (2, config.steps), 0, first + count - 3)
    higher = jnp.where(x < first, x, x + 3)
    expected, found = (model.logits(each) for each in (x, higher))
    np.testing.assert_allclose(found[..., first + 3 :], expected[..., first:-3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[..., :first], expected[..., :first], rtol=1e-4, atol=1e-5)
    assert np.ptp(expected[:, 4:, first:], axis=-1).min() > 1e-3


def test_intervals_are_to_the_tokens_before() -> None:
    """As their definition, pitch by pitch: in the embedding to those before a token, in the logits to those known."""
    config = ARCHITECTURE.tiny["related"]
    model, plain = (drawn(Network, config, each) for each in (config.intervals[-1], ()))
    (first, count), span = config.pitch_tokens, 2 * config.pitch_tokens[1] + 1
    x = jax.random.randint(jax.random.key(0), (1, config.steps), 0, config.classes)
    inputs, position = shift(config, x), jnp.arange(config.steps)
    tables = np.asarray(model.interval[...]).reshape(-1, span, config.units)
    leaps = np.arange(len(model.intervals) * span, dtype=np.float32)
    pitches = [int(token) - first if token >= first else None for token in x[0]]
    told, added = np.zeros((config.steps, config.units)), np.zeros((config.steps, config.classes))
    for at in range(config.steps):
        for table, leap, back in zip(tables, leaps.reshape(-1, span), model.intervals, strict=True):
            before = pitches[at - back] if at >= back else None
            if before is None:
                continue
            added[at, first:] += leap[np.arange(count) - before + count]
            if at + 1 < config.steps and pitches[at] is not None:  # the token's own embedding, an input later
                told[at + 1] += table[pitches[at] - before + count]
    pitch, plain = pitch_of(config, inputs), without_intervals(model, plain)
    embedded = model.embed(inputs, position, pitch) - plain.embed(inputs, position, pitch)
    np.testing.assert_allclose(embedded[0], told, rtol=1e-4, atol=1e-6)
    nothing = jnp.zeros((1, config.steps, config.classes))
    logits = model.with_leaps(nothing, jnp.broadcast_to(leaps, (1, config.steps, len(leaps))), position, pitch)
    np.testing.assert_allclose(logits[0], added, rtol=1e-6)


def without_intervals(model: Network, plain: Network) -> Network:
    """The plain network with the embeddings of the other."""
    for name in ("embedding", "start", "voice", "place"):
        getattr(plain, name)[...] = getattr(model, name)[...]
    return plain


def test_networks_learn_apart_and_answer_together() -> None:
    """Logits are the mean of theirs; the loss is the mean of their losses, and neither sees the other."""
    config = ARCHITECTURE.tiny["related"]
    model = drawn(MusicTransformer, config)
    batch = example(config, 2, np.random.default_rng(0))
    x = jnp.asarray(batch["x"])
    apart = [network.logits(x) for network in model.networks]
    assert len(apart) == 2
    np.testing.assert_allclose(model.logits(x), (apart[0] + apart[1]) / 2, rtol=1e-5, atol=1e-6)
    value, _ = ARCHITECTURE.loss(model, {"x": x}, jax.random.key(0), jnp.int32(0))
    each = [float(jnp.mean(surprise(logits, x))) for logits in apart]
    assert each[0] != pytest.approx(each[1], rel=1e-3)
    assert float(value) == pytest.approx(np.mean(each), rel=1e-5)
