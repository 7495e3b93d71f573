"""Our LSTM, and its hand-written gradient, against TensorFlow's semantics in NumPy and float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zoo.nn import recurrent
from zoo.nn.precision import filling, products
from zoo.nn.recurrent import FEW, LSTM, Dense, chrono

T, B, X, Z, H = 5, 3, 4, 2, 6  # steps, batch, inputs, constant inputs, units

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def _precise() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(autouse=True)
def _rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are rounded for bfloat16 however few columns there are."""
    monkeypatch.setattr(recurrent, "ROUNDED_FROM", 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def reference(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, c: np.ndarray, h: np.ndarray, reverse: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TensorFlow's BasicLSTMCell over `x` [T, B, X]: h at every step, the last c and h.

    One kernel [X + H, 4H] acts on [x; h]; the gates are i, j, f, o; the forget gate's bias is one more than it says.
    """
    hidden = np.zeros((*x.shape[:2], h.shape[-1]))
    for t in range(len(x))[:: -1 if reverse else 1]:
        i, j, f, o = np.split(np.concatenate([x[t], h], axis=-1) @ kernel + bias, 4, axis=-1)
        c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(j)
        h = hidden[t] = sigmoid(o) * np.tanh(c)
    return hidden, c, h


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {
        "x": (T, B, X),
        "z": (B, Z),
        "kernel": (X + Z + H, 4 * H),
        "bias": (4 * H,),
        "c": (B, H),
        "h": (B, H),
    }
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}


def layer(kernel: Any, bias: Any, constant: int = Z) -> LSTM:
    """An LSTM with these parameters, [x; z] its inputs."""
    lstm = nnx.eval_shape(lambda: LSTM(X + Z, H, memory=T, constant=constant, rngs=nnx.Rngs(0)))
    lstm.kernel, lstm.bias = nnx.Param(kernel), nnx.Param(bias)
    return lstm


def ours(arrays: dict[str, jax.Array], reverse: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    lstm = layer(arrays["kernel"], arrays["bias"])
    hidden, (c, h) = lstm(arrays["x"], lstm.constant_gates(arrays["z"]), (arrays["c"], arrays["h"]), reverse)
    return hidden, c, h


def theirs(arrays: Arrays, reverse: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.concatenate([arrays["x"], np.broadcast_to(arrays["z"], (T, B, Z))], axis=-1)
    return reference(x, arrays["kernel"], arrays["bias"], arrays["c"], arrays["h"], reverse)


def single(arrays: Arrays) -> dict[str, jax.Array]:
    return {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("reverse", [False, True])
def test_forward_and_backward(arrays: Arrays, reverse: bool) -> None:
    """Every output, and its gradient by every input, against finite differences of the reference in float64."""
    rng = np.random.default_rng(1)
    shares = [rng.standard_normal(output.shape) for output in theirs(arrays, reverse)]

    def objective(arrays: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
        outputs = ours(arrays, reverse)
        return sum(jnp.sum(output * share) for output, share in zip(outputs, shares, strict=True)), outputs

    gradients, outputs = jax.jit(jax.grad(objective, has_aux=True))(single(arrays))
    primal = jax.jit(lambda arrays: ours(arrays, reverse))(single(arrays))  # what runs where no gradient is asked for
    for output, plain, expected in zip(outputs, primal, theirs(arrays, reverse), strict=True):
        np.testing.assert_allclose(output, expected, atol=1e-6)
        np.testing.assert_allclose(plain, expected, atol=1e-6)
    for name, array in arrays.items():
        expected = np.zeros(array.shape)
        for at in np.ndindex(array.shape):
            moved = []
            for sign in (1, -1):
                there = array.copy()
                there[at] += sign * 1e-5
                outputs = theirs({**arrays, name: there}, reverse)
                moved.append(sum(np.sum(output * share) for output, share in zip(outputs, shares, strict=True)))
            expected[at] = (moved[0] - moved[1]) / 2e-5
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_training_in_bfloat16(arrays: Arrays) -> None:
    """Gradients near those of float32, and no loop with a bfloat16 result, which XLA's CPU backend copies each step."""

    def gradients(precision: str) -> Callable[[dict[str, jax.Array]], dict[str, jax.Array]]:
        def objective(arrays: dict[str, jax.Array]) -> jax.Array:
            with products(precision):
                return sum((jnp.sum(jnp.sin(output)) for output in ours(arrays, False)), jnp.zeros(()))

        return jax.grad(objective)

    found, expected = (gradients(precision)(single(arrays)) for precision in ("bfloat16", "float32"))
    for name, gradient in expected.items():
        assert found[name].dtype == jnp.float32
        np.testing.assert_allclose(found[name], gradient, atol=0.03 * float(jnp.abs(gradient).max()), err_msg=name)
    loops = [eqn for eqn in jax.make_jaxpr(gradients("bfloat16"))(single(arrays)).eqns if eqn.primitive.name == "scan"]
    assert len(loops) == 2
    assert all(out.aval.dtype != jnp.bfloat16 for loop in loops for out in loop.outvars)


def test_a_single_window_stays_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """To round the kernel would take longer than it saves."""
    layer = LSTM(X, H, memory=None, rngs=nnx.Rngs(0))

    def program(batch: int) -> str:
        with products("bfloat16"):
            return str(jax.make_jaxpr(lambda x: layer(x, layer.constant_gates()))(jnp.zeros((T, batch, X))))

    assert "bf16" in program(1)
    monkeypatch.setattr(recurrent, "ROUNDED_FROM", 2 * T)
    assert "bf16" not in program(1)
    assert "bf16" in program(2)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_step_by_step_is_the_whole_sequence(arrays: Arrays, precision: str, tolerance: float) -> None:
    hidden, c, _ = theirs(arrays, False)
    inputs = single(arrays)
    lstm = layer(inputs["kernel"], inputs["bias"])
    with products(precision):
        step, carry, gates = lstm.stepper(), (inputs["c"].T, inputs["h"].T), lstm.constant_gates(inputs["z"]).T
        for x, expected in zip(inputs["x"], hidden, strict=True):
            carry = step(x.T, carry, gates)
            np.testing.assert_allclose(carry[1].T, expected, atol=tolerance)
    np.testing.assert_allclose(carry[0].T, c, atol=tolerance)


@pytest.mark.parametrize("times", [1, FEW])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_tokens_stand_for_one_hot_vectors(arrays: Arrays, times: int, precision: str, tolerance: float) -> None:
    """So they do at both ends of the classes, few and many; the token after the last stands for zeros."""
    inputs = single(arrays)
    with products(precision):
        step = layer(inputs["kernel"], inputs["bias"]).stepper()
    carry = (np.tile(inputs["c"], (times, 1)).T, np.tile(inputs["h"], (times, 1)).T)
    tokens = np.array([0, X - 1, X] * times, np.int32)
    vectors = (tokens == np.arange(X)[:, None]).astype(np.float32)
    for from_token, from_vector in zip(
        step(jnp.asarray(tokens), carry), step(jnp.asarray(vectors), carry), strict=True
    ):
        np.testing.assert_allclose(from_token, from_vector, atol=tolerance)


def test_constant_inputs_do_not_fill() -> None:
    """Where there are as many of them as zeros to fill with, the token after the last class stands for zeros too."""
    with products("bfloat16"):
        spare = filling(X + H)
        step = LSTM(X + spare, H, memory=T, constant=spare, rngs=nnx.Rngs(0)).stepper()
    assert step.kernel.shape == (4 * H, X + spare + H)
    assert not step.kernel[:, X:-H].any()


def test_without_constant_inputs(arrays: Arrays) -> None:
    """[x; z] as inputs that vary gives the same as z given once."""
    inputs = single(arrays)
    lstm = layer(inputs["kernel"], inputs["bias"], constant=0)
    x = jnp.concatenate([inputs["x"], jnp.broadcast_to(inputs["z"], (T, B, Z))], axis=-1)
    hidden, _ = lstm(x, lstm.constant_gates(), (inputs["c"], inputs["h"]))
    np.testing.assert_allclose(hidden, theirs(arrays, False)[0], atol=1e-6)
    assert [part.shape for part in lstm.zeros(2)] == [(2, H), (2, H)]
    assert not any(part.any() for part in lstm.zeros(2))


@pytest.mark.parametrize("memory", [2, 32, 256])
def test_chrono(memory: int) -> None:
    """With no input a unit forgets after u steps, u ~ U(1, memory − 1); the input gate mirrors the forget gate."""
    units = 4096
    i, j, f, o = np.split(np.asarray(chrono(jax.random.key(0), units, memory), np.float64), 4)
    u = np.exp(f + 1.0)  # σ(log u) = u / (1 + u): what is left after a step
    longest = max(memory - 1, 2)
    assert u.min() >= 1 - 1e-5
    assert u.max() <= longest * (1 + 1e-5)
    quarters = np.array([0.25, 0.5, 0.75])
    np.testing.assert_allclose(np.quantile(u, quarters), 1 + (longest - 1) * quarters, rtol=0.05)
    np.testing.assert_allclose(i, -(f + 1.0), atol=1e-6)
    assert not j.any()
    assert not o.any()


def test_initial_kernel() -> None:
    """Rows of variance 1 / X for the inputs; an orthogonal matrix a gate for the recurrence."""
    kernel = np.asarray(LSTM(40, 30, memory=8, rngs=nnx.Rngs(0)).kernel[...])
    assert np.var(kernel[:40]) * 40 == pytest.approx(1.0, abs=0.1)
    for gate in np.split(kernel[40:], 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(30), atol=1e-5)


def test_dense() -> None:
    dense = Dense(3, 2, rngs=nnx.Rngs(0))
    assert not dense.bias[...].any()
    dense.bias[...] = jnp.array([1.0, -1.0])
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    np.testing.assert_allclose(dense(jnp.asarray(x)), x @ np.asarray(dense.kernel[...]) + [1.0, -1.0], rtol=1e-6)
