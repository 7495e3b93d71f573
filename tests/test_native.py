"""LSTMs trained by the kernels of `native.py` and `native_lstm.py`, beside what XLA makes of the same layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zoo.nn import native, through_time
from zoo.nn.precision import products
from zoo.nn.recurrent import LSTM, Dense, draw_at_once, draws_at_once
from zoo.nn.sampling import likeliest

Arrays = dict[str, jax.Array]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cores", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def arrays(steps: int, batch: int, wide: bool, inputs: int = 5, units: int = 8) -> Arrays:
    rng = np.random.default_rng(0)
    shapes = {"x": (steps, inputs, batch), "kernel": (inputs + units, 4 * units)}
    shapes |= {"constant": (4 * units, batch if wide else 1), "c": (units, batch), "h": (units, batch)}
    shapes |= {"d_hidden": (steps, units, batch), "d_c": (units, batch), "d_h": (units, batch)}
    return {name: jnp.asarray(0.5 * rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


def gradients(dtype: Any, reverse: bool, last: bool) -> Callable[[Arrays], tuple[Arrays, Any]]:
    """Of a layer's outputs, or with `last` of its last state alone, whose gradients are given; and the outputs."""

    def objective(given: Arrays) -> tuple[jax.Array, Any]:
        names = ("x", "kernel", "constant", "c", "h")
        x, kernel, constant, c, h = (given[name] for name in names)
        hidden, c, h = outputs = through_time.scan(x, kernel.astype(dtype), constant, c, h, None, reverse)
        ends = jnp.sum(c * given["d_c"]) + jnp.sum(h * given["d_h"])
        return ends if last else ends + jnp.sum(hidden * given["d_hidden"]), outputs

    return jax.jit(jax.grad(objective, has_aux=True))


# Of 6 × 20 all steps stand together, of 4 × 256 two, of 3 × 600 each alone, the last of an odd number.
@pytest.mark.parametrize(
    ("steps", "batch", "reverse", "last", "wide"),
    [
        (6, 20, False, False, True),
        (4, 256, True, False, False),
        (3, 600, True, True, True),
        (3, 600, False, False, False),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_by_xla(steps: int, batch: int, dtype: str, reverse: bool, last: bool, wide: bool) -> None:
    assert native.usable(batch, dtype)
    given = arrays(steps, batch, wide)
    found = gradients(dtype, reverse, last)(given)
    assert "zoo_lstm_backward" in gradients(dtype, reverse, last).lower(given).as_text()  # type: ignore[attr-defined]
    with native.left_to_xla():
        expected = gradients(dtype, reverse, last)(given)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        tolerance = (2e-6 if dtype == "float32" else 1e-2) * float(jnp.abs(other).max())
        np.testing.assert_allclose(one, other, atol=tolerance)


def test_nan_stays() -> None:
    given = arrays(3, 16, wide=False)
    given["x"] = given["x"].at[1, 0, 3].set(jnp.nan)
    for dtype in ("float32", "bfloat16"):
        found, (hidden, _, _) = gradients(dtype, False, False)(given)
        assert np.isnan(hidden[1:, :, 3]).all()
        assert np.isfinite(np.delete(hidden, 3, axis=2)).all()
        assert np.isnan(found["kernel"]).any()


def test_rounding_to_bfloat16() -> None:
    from zoo.nn import native_lstm

    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.float32([0.0, -0.0, np.inf, -np.inf, 1.00390625, 1.01171875])])
    out = np.zeros(len(x), np.uint16)
    native_lstm.converted(x, out)
    np.testing.assert_array_equal(out, np.asarray(jnp.asarray(x).astype(jnp.bfloat16)).view(np.uint16))
    back = np.zeros(len(x), np.float32)
    native_lstm.converted(out, back)
    np.testing.assert_array_equal(back.view(np.uint32) >> 16, out)


def test_tanh() -> None:
    from zoo.nn import native_lstm

    x = np.linspace(-20, 20, 40_001, dtype=np.float32)
    found = np.zeros_like(x)
    native_lstm.tanh_row(x, np.float32(0), found, np.zeros_like(x))
    np.testing.assert_allclose(found, np.tanh(x.astype(np.float64)), atol=5e-7)


def test_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few columns, many cores and several devices are left to XLA, as is a machine where numba can't be imported."""
    assert native.usable(native.COLUMNS, "float32")
    assert not native.usable(native.COLUMNS - 1, "float32")
    with monkeypatch.context() as patch:
        patch.setattr(native, "cores", lambda: 3)
        assert not native.usable(512, "float32")
    with monkeypatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 8)
        assert not native.usable(512, "float32")
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "numba", None)
        patch.delitem(__import__("sys").modules, "zoo.nn.native_lstm", raising=False)
        assert not native._registered.__wrapped__("lstm", "float32")


def test_without_a_folder_to_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.nn import native_lstm

    asked = []

    def handlers(half: bool, cache: bool) -> dict[str, Any]:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return {}

    monkeypatch.setattr(native_lstm, "handlers", handlers)
    assert native._compiled("lstm", half=False) == {}
    assert asked == [True, False]


@pytest.mark.parametrize("units", [(8,), (12, 8, 16)])
def test_a_single_sequence(units: tuple[int, ...]) -> None:
    """The tokens that the loop in XLA draws, from the class before the first, which has no row."""
    classes, steps, latent = 11, 20, 3
    widths = (classes + latent, *units[:-1])
    rngs = nnx.Rngs(0)
    layers = [
        LSTM(width, size, memory=4, constant=latent if n == 0 else 0, gain=3.0, rngs=rngs)
        for n, (width, size) in enumerate(zip(widths, units, strict=True))
    ]
    output = Dense(units[-1], classes, rngs=rngs)
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.standard_normal((1, latent)), jnp.float32)
    noise = jnp.asarray(rng.gumbel(size=(steps, classes, 1)), jnp.float32)
    carries = tuple((jnp.asarray(rng.standard_normal((size, 1)), jnp.float32),) * 2 for size in units)
    token = jnp.array([classes])

    def draw() -> jax.Array:
        cells, gates = tuple(layer.stepper() for layer in layers), layers[0].constant_gates(z).T
        if draws_at_once(cells, output.stepper(), 1):
            return draw_at_once(cells, output.stepper(), carries, token, gates, noise)

        def step(carry: Any, noise: jax.Array) -> Any:
            x, before = carry
            new = [cells[0](x, before[0], gates)]
            for cell, carry in zip(cells[1:], before[1:], strict=True):
                new.append(cell(new[-1][1], carry))
            x = likeliest(output.stepper()(new[-1][1]) + noise, axis=0)
            return (x, tuple(new)), x

        return jax.lax.scan(step, (token, carries), noise)[1]

    assert not draws_at_once(tuple(layer.stepper() for layer in layers), output.stepper(), 1)  # float32
    with products("bfloat16"):
        assert native.draws(1, jnp.bfloat16)
        assert not native.draws(2, jnp.bfloat16)
        found = jax.jit(draw)()
        with native.left_to_xla():
            expected = jax.jit(lambda: draw())()
    assert found.shape == (steps, 1)
    assert len(set(found[:, 0].tolist())) > 3
    np.testing.assert_array_equal(found, expected)
