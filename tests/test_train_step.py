"""The training step: gradient, guard, moving average, frozen parameters, LoRA, optimisers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.train_toy import TX, batch, identical, loss, new_state, split, train_step
from zoo.errors import TrainingError
from zoo.training import TrainState, lora_init, lora_merge, make_optimizer, make_schedule, make_train_step
from zoo.training.params import flatten

LINE_GRAPH = nnx.split(nnx.eval_shape(lambda: nnx.Linear(4, 1, rngs=nnx.Rngs(0))))[0]
LINE = {"kernel": np.full((4, 1), 0.5, np.float32), "bias": np.zeros(1, np.float32)}


def line_loss(model, batch, key, step):
    return jnp.mean((model(batch["x"])[:, 0] - batch["y"]) ** 2), {}


def steps(state: TrainState, count: int, step=None, **metrics) -> tuple[TrainState, dict]:
    for k in range(int(state.step), int(state.step) + count):
        state, metrics = (step or train_step())(state, batch(k))
    return state, metrics


def test_loss_falls_and_metrics_are_those_of_the_loss():
    state, first = train_step()(new_state(), batch(0))
    state, last = steps(state, 60)
    assert float(last["loss"]) < 0.5 * float(first["loss"])
    assert set(first) == {"loss", "mae", "grad_norm", "bad_steps"}
    assert (int(state.step), int(state.bad_steps)) == (61, 0)


def test_one_step_is_one_optax_update_with_the_folded_key():
    graphdef, params = split()

    @jax.jit
    def by_hand(params):
        key = jax.random.fold_in(jax.random.key(1), 0)
        value, grads = jax.value_and_grad(lambda p: loss(nnx.merge(graphdef, p), batch(0), key, 0)[0])(params)
        updates, _ = TX["alone"].update(grads, TX["alone"].init(params), params)
        return value, optax.tree.norm(grads), optax.apply_updates(params, updates)

    value, norm, expected = by_hand(params)
    state, metrics = train_step()(new_state(), batch(0))
    for name, leaf in flatten(state.params).items():
        np.testing.assert_allclose(leaf, flatten(expected)[name], atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(value), abs=1e-6)
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), abs=1e-6)


def test_creating_a_state_leaves_the_model_usable():
    graphdef, params = split()
    steps(new_state(), 1)
    assert np.isfinite(nnx.merge(graphdef, params)(batch(0)["x"])).all()


def test_names_are_dotted():
    assert set(flatten(split()[1])) == {
        f"{layer}.{kind}" for layer in ("encoder", "layers.0", "head") for kind in ("kernel", "bias")
    }


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(poison):
    good, _ = steps(new_state(), 3)
    kept = jax.tree.map(jnp.copy, good)
    bad = batch(3) | {"y": np.full(16, poison, np.float32)}  # (1e30)² overflows
    state, metrics = train_step()(good, bad)
    assert int(metrics["bad_steps"]) == 1
    state, metrics = steps(state, 2)  # good batches later do not hide it
    assert int(metrics["bad_steps"]) == 3
    assert identical(dataclasses.replace(state, bad_steps=kept.bad_steps), kept)


def test_moving_average_is_the_recurrence():
    decay, state = 0.9, new_state(ema=True)
    step = train_step(decay)
    expected = jax.tree.map(np.asarray, state.ema)
    for k in range(90):
        state, _ = step(state, batch(k))
        d = min(decay, (1 + k) / (10 + k))
        expected = jax.tree.map(lambda e, p, d=d: d * e + (1 - d) * np.asarray(p), expected, state.params)
    assert (1 + 89) / (10 + 89) > decay > 1 / 10  # both branches were taken
    for mean, truth in zip(jax.tree.leaves(state.weights), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mean, truth, atol=1e-6)
    assert not identical(state.weights, state.params)


def test_a_moving_average_needs_decay_and_room():
    with pytest.raises(TrainingError, match="ema"):
        train_step(0.9)(new_state(), batch(0))
    with pytest.raises(TrainingError, match="ema"):
        train_step()(new_state(ema=True), batch(0))


def test_frozen_parameters_do_not_move_and_take_no_moments():
    state = new_state(freeze=["encoder.*", "*.bias"])
    before = {name: np.asarray(leaf) for name, leaf in flatten(state.weights).items()}
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) == 2 * (64 + 8) + 2
    )  # two moments of two kernels, two counts
    state, metrics = steps(state, 5)
    for name, leaf in flatten(state.weights).items():
        frozen = name.startswith("encoder.") or name.endswith(".bias")
        assert np.array_equal(leaf, before[name]) == frozen, name
    assert float(metrics["grad_norm"]) > 0


def test_patterns_that_match_nothing_or_everything_are_errors():
    with pytest.raises(TrainingError, match=r"'encodr\.\*'.*encoder\.kernel"):
        new_state(freeze=["encodr.*"])
    with pytest.raises(TrainingError, match="no parameter to train"):
        new_state(freeze=["*"])
    with pytest.raises(TrainingError, match=r"'\*\.bias'"):  # only kernels of two dimensions can be adapted
        lora_init(split()[1], ["*.bias"], rank=2, key=jax.random.key(0))


def test_lora_starts_as_the_base_and_trains_adapters_only():
    graphdef, params = split()
    adapters = lora_init(params, ["encoder.*", "layers.*"], rank=2, key=jax.random.key(5), alpha=8)
    assert {name: a.shape for name, a in adapters.a.items()} == {"encoder.kernel": (4, 2), "layers.0.kernel": (8, 2)}
    assert adapters.scale == 4
    x = batch(0)["x"]
    base = nnx.merge(graphdef, params)(x)
    assert np.array_equal(nnx.merge(graphdef, lora_merge(params, adapters))(x), base)

    state, first = train_step()(new_state(adapters=adapters), batch(0))
    state, last = steps(state, 60)
    assert float(last["loss"]) < float(first["loss"])
    assert identical(state.frozen, nnx.to_pure_dict(params))
    old, new = flatten(params), flatten(state.weights)
    assert {name for name in old if not np.array_equal(old[name], new[name])} == set(adapters.a)
    change = np.asarray(new["encoder.kernel"] - old["encoder.kernel"])
    assert np.linalg.matrix_rank(change, tol=1e-5) == 2
    a, b = state.params.a["encoder.kernel"], state.params.b["encoder.kernel"]
    np.testing.assert_allclose(change, 4 * np.asarray(a) @ np.asarray(b), atol=1e-5)


def test_lora_merged_equals_the_low_rank_path():
    _, params = split()
    adapters = lora_init(params, ["encoder.kernel"], rank=2, key=jax.random.key(5), alpha=1)
    b = jax.random.normal(jax.random.key(6), (2, 8))
    adapters = dataclasses.replace(adapters, b={"encoder.kernel": b})
    x = batch(0)["x"]
    merged = x @ flatten(lora_merge(params, adapters))["encoder.kernel"]
    path = x @ flatten(params)["encoder.kernel"] + 0.5 * (x @ adapters.a["encoder.kernel"]) @ b
    np.testing.assert_allclose(merged, path, atol=1e-5)


def test_accumulation_equals_one_large_batch():
    table = {"learning_rate": 1e-2, "clip_norm": 0.5}
    large, small = make_optimizer(table), make_optimizer(table | {"accumulate": 4})
    big, parts = batch(0, 64), [batch(0, 64)] * 4
    parts = [{name: array[16 * k : 16 * (k + 1)] for name, array in part.items()} for k, part in enumerate(parts)]
    one, _ = make_train_step(LINE_GRAPH, line_loss, large)(TrainState.create(LINE, large, jax.random.key(0)), big)
    four, step = TrainState.create(LINE, small, jax.random.key(0)), make_train_step(LINE_GRAPH, line_loss, small)
    for k, part in enumerate(parts):
        assert identical(four.params, LINE), f"moved before part {k}"
        four, _ = step(four, part)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(four.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_schedules():
    at = lambda table, *counts: [float(make_schedule(table)(count)) for count in counts]  # noqa: E731
    assert at({"learning_rate": 0.5}, 0, 10**6) == [0.5, 0.5]
    vae = {"learning_rate": 1e-3, "schedule": "exponential", "decay_rate": 0.9999, "end_learning_rate": 1e-5}
    expected = [1e-3, 9.9e-4 * 0.9999**10_000 + 1e-5, 1e-5]
    np.testing.assert_allclose(at(vae, 0, 10_000, 10**6), expected, rtol=1e-5)
    cosine = {"learning_rate": 1.0, "schedule": "cosine", "warmup_steps": 10, "steps": 110, "end_learning_rate": 0.1}
    np.testing.assert_allclose(at(cosine, 0, 5, 10, 60, 110, 200), [0, 0.5, 1, 0.55, 0.1, 0.1], atol=1e-6)


def test_weight_decay_spares_biases():
    tx = make_optimizer({"name": "adamw", "learning_rate": 1.0, "weight_decay": 0.1})
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], 0)


def test_muon_orthogonalises_kernels_and_leaves_the_rest_to_adam():
    tx = make_optimizer({"name": "muon", "learning_rate": 0.1})
    rng = np.random.default_rng(0)
    shapes = {"kernel": (6, 4), "bias": (4,), "table": (5, 4)}
    params = {
        "layer": {name: jnp.zeros(shape) for name, shape in shapes.items()},
        "conv": {"kernel": jnp.zeros((3, 2, 4))},
    }
    grads = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    updates = jax.tree.map(np.asarray, tx.update(grads, tx.init(params), params)[0])
    for kernel in (updates["layer"]["kernel"], updates["conv"]["kernel"].reshape(6, 4)):
        # 0.2 √6 · learning rate on every singular value, but for what five Newton-Schulz steps leave (0.7 to 1.2)
        values = np.linalg.svd(kernel, compute_uv=False) / (0.1 * 0.2 * 6**0.5)
        assert 0.6 < values.min() <= values.max() < 1.3, values
    for name in ("bias", "table"):  # the first step of Adam (Nesterov's) is a multiple of the gradient's sign
        step = -updates["layer"][name] * np.sign(grads["layer"][name])
        np.testing.assert_allclose(step, step.flat[0], rtol=1e-3)
        assert step.flat[0] > 0.05


def test_clipping():
    grads = {"a": jnp.array([30.0, -40.0])}
    for table, expected in (({"clip_norm": 1.0}, [0.6, -0.8]), ({"clip_value": 2.0}, [2.0, -2.0])):
        tx = make_optimizer({"learning_rate": 1.0, "b1": 0.0, "b2": 0.0, "eps": 1e6} | table)  # update ∝ gradient
        updates, _ = tx.update(grads, tx.init(grads))
        np.testing.assert_allclose(-updates["a"] * 1e6, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"learning_rat": 1}, "no key learning_rat"),
        ({"name": "sgdd"}, "'sgdd' is not one of adam, adamw, muon"),
        ({"schedule": "linear"}, "not one of constant, cosine, exponential"),
        ({"schedule": "cosine"}, "needs steps"),
        ({"learning_rate": 0.0}, "above zero"),
        ({"accumulate": 0}, "at least 1"),
    ],
)
def test_an_optimizer_table_that_makes_no_sense_is_an_error(table, message):
    with pytest.raises(TrainingError, match=message):
        make_optimizer(table)
