"""What every architecture of the zoo promises, in each of its kinds, on the small configurations it offers for tests.

A file `zoo/models/x.py` with an `ARCHITECTURE` is found and tested here without being named. What only one
architecture promises is in a file of its own, `tests/test_x.py`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import zoo.models
from tests.networks import drawn
from zoo import registry
from zoo.errors import CardError, WeightsError
from zoo.models.architecture import Architecture
from zoo.music.codecs import get_codec
from zoo.nn.sampling import follow
from zoo.tasks.model import Found, Model, build, fill, from_file
from zoo.training.params import flatten

BATCH = 4
STEPS = 30
GENERATIVE = ("latent", "continuation", "infill", "rolls", "harmonization", "phrases")  # tasks whose kernels draw


def architectures() -> list[Architecture]:
    """Every architecture there is: the modules of `zoo.models` that offer one."""
    modules = [importlib.import_module(f"zoo.models.{m.name}") for m in pkgutil.iter_modules(zoo.models.__path__)]
    return [module.ARCHITECTURE for module in modules if hasattr(module, "ARCHITECTURE")]


class Case:
    """One architecture in one of its small configurations, and the two programs that the tests compile of it."""

    def __init__(self, architecture: Architecture, kind: str) -> None:
        self.architecture, self.kind, self.config = architecture, kind, architecture.tiny[kind]
        self.optimizer = optax.adam(1e-2)

    def __str__(self) -> str:
        return f"{self.architecture.name}-{self.kind}"

    @cached_property
    def split(self) -> tuple[Any, Any]:
        """The network with random weights."""
        return nnx.split(drawn(self.architecture.module, self.config))

    @property
    def state(self) -> Any:
        return self.split[1]

    @cached_property
    def raveled(self) -> tuple[jax.Array, Any]:
        """All parameters as one vector, and the way back."""
        return jax.flatten_util.ravel_pytree(self.state)

    def batch(self, seed: int, size: int = BATCH) -> dict[str, jax.Array]:
        example = self.architecture.example(self.config, size, np.random.default_rng(seed))
        return {name: jnp.asarray(array) for name, array in example.items()}

    def kernels(self, state: Any, batch: Any, key: jax.Array) -> dict[str, Any]:
        model = nnx.merge(self.split[0], state)
        return {name: kernel(model, batch, key) for name, kernel in self.architecture.kernels.items()}

    @cached_property
    def inference(self) -> Any:
        """(state, batch, key) → what each kernel gives, and the evaluation."""

        def program(state: Any, batch: Any, key: jax.Array) -> tuple[dict[str, Any], dict[str, jax.Array]]:
            model = nnx.merge(self.split[0], state)
            return self.kernels(state, batch, key), self.architecture.evaluate(model, batch, key)

        return jax.jit(program)

    @cached_property
    def training(self) -> Any:
        """A step of Adam, with all parameters as one vector, which compiles in half the time."""
        _, unravel = self.raveled

        def program(vector: jax.Array, opt_state: Any, batch: Any, step: jax.Array) -> tuple[Any, ...]:
            def objective(vector: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
                model = nnx.merge(self.split[0], unravel(vector))
                return self.architecture.loss(model, batch, jax.random.fold_in(jax.random.key(0), step), step)

            (value, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(vector)
            updates, opt_state = self.optimizer.update(gradient, opt_state)
            return vector + updates, opt_state, value, metrics, unravel(gradient)

        return jax.jit(program)

    def infer(self, batch: int = 0, key: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Kernels' outputs and evaluation of the batch and key of these seeds."""
        return jax.device_get(self.inference(self.state, self.batch(batch), jax.random.key(key)))

    @cached_property
    def first_step(self) -> tuple[Any, ...]:
        vector, _ = self.raveled
        return self.training(vector, self.optimizer.init(vector), self.batch(0), jnp.int32(0))


@pytest.fixture(scope="module", autouse=True)
def _exact(quick_to_compile: None) -> Iterator[None]:
    """Compiling is most of what these tests cost; and nothing is rounded."""
    with jax.default_matmul_precision("highest"):
        yield


CASES = [Case(architecture, kind) for architecture in architectures() for kind in architecture.tiny]


FIRST = [next(case for case in CASES if case.architecture is architecture) for architecture in architectures()]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_there_are_architectures() -> None:
    found = architectures()
    assert "music-vae" in [a.name for a in found]
    for architecture in found:
        assert registry.architecture(architecture.name) is architecture
        assert importlib.util.find_spec(f"zoo.tasks.{architecture.task}"), architecture.name
        assert architecture.monitor[1] in ("min", "max")


def test_config_of_a_card(case: Case) -> None:
    """A configuration survives TOML and JSON; an unknown key is an error."""
    table = json.loads(json.dumps(asdict(case.config)))
    assert case.architecture.make_config(table, "card.toml") == case.config
    assert hash(case.config) == hash(case.architecture.make_config(table, "card.toml"))
    with pytest.raises(CardError, match=r"card\.toml: config has the unknown key 'sise'"):
        case.architecture.make_config(table | {"sise": 1}, "card.toml")


def test_parameters_are_float32(case: Case) -> None:
    for path, variable in nnx.to_flat_state(case.state):
        assert type(variable) is nnx.Param, path
        assert variable.dtype == jnp.float32, path


@pytest.mark.parametrize("first", FIRST, ids=str)
def test_initialisation(first: Case) -> None:
    """One seed, one network; another seed, another. All finite."""
    networks = [first.architecture.module(first.config, rngs=nnx.Rngs(seed)) for seed in (0, 0, 1)]
    one, same, other = (flatten(nnx.state(network)) for network in networks)
    assert all(np.isfinite(array).all() for array in one.values())
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_shapes_and_dtypes(case: Case) -> None:
    """Kernels: the batch first, float32 or int32, finite. Losses and metrics: finite float32 scalars."""
    kernels, evaluation = case.infer()
    for name, outputs in kernels.items():
        for leaf in jax.tree.leaves(outputs):
            assert leaf.shape[0] == BATCH, name
            assert leaf.dtype in (np.float32, np.int32), name
            assert np.isfinite(leaf).all(), name
    _, _, value, metrics, _ = case.first_step
    for name, scalar in {"loss": value, **metrics, **evaluation}.items():
        assert scalar.shape in ((), (2,) if name in evaluation else ()), name  # or a sum and how many it is of
        assert scalar.dtype == np.float32, name
        assert np.isfinite(scalar).all(), name
    assert case.architecture.monitor[0] in evaluation


def test_batch_size_is_free(case: Case) -> None:
    """The same arrays with another number of rows; nothing is computed."""
    one, many = (jax.eval_shape(case.kernels, case.state, case.batch(0, rows), jax.random.key(0)) for rows in (1, 3))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        assert (a.shape[0], b.shape[0]) == (1, 3)
        assert a.shape[1:] == b.shape[1:]
        assert a.dtype == b.dtype


def test_one_key_one_result(case: Case) -> None:
    """The same key gives the same arrays to the last bit; another key another sample where the model draws."""
    first, again, other = (case.infer(key=key)[0] for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    if case.architecture.task in GENERATIVE:
        changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), first, other)
        assert any(jax.tree.leaves(changed))


def test_every_parameter_gets_a_gradient(case: Case) -> None:
    gradients = jax.device_get(flatten(case.first_step[-1]))
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert [name for name, gradient in gradients.items() if not np.any(gradient)] == []


def test_the_loss_falls(case: Case) -> None:
    """30 steps on one batch."""
    vector, opt_state, first, *_ = case.first_step
    losses = []
    for step in range(1, STEPS):
        vector, opt_state, value, *_ = case.training(vector, opt_state, case.batch(0), jnp.int32(step))
        losses.append(float(value))
    assert np.mean(losses[-5:]) < 0.9 * float(first)


def test_one_compilation(case: Case) -> None:
    """New values, no new program."""
    vector, opt_state, *_ = case.first_step
    for seed in range(3):
        case.infer(batch=seed, key=seed)
        case.training(vector, opt_state, case.batch(seed), jnp.int32(seed))
    assert case.inference._cache_size() == 1
    assert case.training._cache_size() == 1


STEPPING = [case for case in CASES if case.architecture.stepping]


@pytest.mark.parametrize("case", STEPPING, ids=str)
def test_steps_are_the_full_forward(case: Case) -> None:
    """Token by token, in a state that grows on the way, as all at once."""
    stepping = case.architecture.stepping
    model = nnx.merge(case.split[0], case.state)
    x = jnp.asarray(case.batch(0)["x"])
    tokens, context = (x[..., 0], x[..., 1]) if x.ndim > 2 else (x, None)
    whole = case.infer()[0]["forward"]
    nothing = jnp.full_like(tokens[:, :1], whole.shape[-1])
    inputs = jnp.concatenate([nothing, tokens[:, :-1]], axis=1)
    half = inputs.shape[1] // 2

    @jax.jit
    def stepwise(inputs: jax.Array, context: Any) -> jax.Array:
        step = stepping.stepper(model)
        first = None if context is None else context[:, :half]
        rest = None if context is None else context[:, half:]
        one, state = follow(step, stepping.start(model, BATCH, half), inputs[:, :half], first)
        two, _ = follow(step, stepping.grow(state, inputs.shape[1]), inputs[:, half:], rest)
        return jnp.concatenate([one, two], axis=1)

    np.testing.assert_allclose(stepwise(inputs, context), whole, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", STEPPING, ids=str)
def test_causality(case: Case) -> None:
    """Logits of a token are the same whatever it and those after it are; and not whatever those before it are."""
    x = jnp.asarray(case.batch(0)["x"])
    other = jnp.asarray(case.batch(1)["x"])
    at = x.shape[1] // 2
    mixed = x.at[:, at:].set(other[:, at:])
    if x.ndim > 2:  # the context of a step is known before its token
        mixed = mixed.at[:, at, 1].set(x[:, at, 1])
    same, changed = (
        np.asarray(case.inference(case.state, case.batch(0) | {"x": each}, jax.random.key(0))[0]["forward"])
        for each in (x, mixed)
    )
    np.testing.assert_allclose(same[:, : at + 1], changed[:, : at + 1], rtol=1e-5, atol=1e-6)
    assert (np.abs(same[:, at + 1 :] - changed[:, at + 1 :]) > 1e-6).any()


def test_save_and_load(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a file and back: the same architecture, numbers and bits."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))  # so that `Model` leaves JAX's settings alone
    facts = {"architecture": case.architecture.name, "config": asdict(case.config), "codec": {"name": "melody"}}
    codec = get_codec("melody")
    model = Model(nnx.merge(*case.split), Found("tiny", case.architecture, case.config, codec, facts, dict))
    again = from_file(model.save(tmp_path / "tiny.safetensors"))
    assert (again.architecture, again.config, again.codec) == (case.architecture, case.config, codec)
    was, now = flatten(case.state), flatten(nnx.state(build(again)))
    assert was.keys() == now.keys()
    for name in was:
        assert now[name].dtype == jnp.float32
        np.testing.assert_array_equal(was[name], now[name], err_msg=name)
    assert model.parameters == sum(array.size for array in now.values())


@pytest.mark.parametrize("first", FIRST, ids=str)
def test_weights_that_do_not_fit(first: Case) -> None:
    """A missing, an unknown and a misshapen array are one-line errors that name it."""
    tensors = {name: np.asarray(array) for name, array in flatten(first.state).items()}
    name = min(tensors)
    lacking = {key: tensor for key, tensor in tensors.items() if key != name}
    for wrong in (lacking, tensors | {"stray": np.zeros(1)}, tensors | {name: np.zeros((1, 2, 3), np.float32)}):
        with pytest.raises(WeightsError) as caught:
            fill(first.architecture.module, first.config, wrong, "tiny")
        assert ("stray" if "stray" in wrong else name) in str(caught.value)
        assert "\n" not in str(caught.value)
