"""Products in float32 and bfloat16, and their gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.precision import dot, dot_columns, product, products, rounded, turned

RNG = np.random.default_rng(0)
X, W = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 5, 3), (3, 4)))
TARGET = jnp.asarray(RNG.normal(size=(2, 5, 4)), jnp.float32)


def loss(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(dot(x, rounded(w))) * TARGET)


def reference(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(jnp.einsum("abx,xy->aby", x, w, precision="highest")) * TARGET)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_gradients_are_those_of_autodiff(precision: str, tolerance: float) -> None:
    with products(precision), jax.default_matmul_precision("highest"):
        found = jax.grad(loss, argnums=(0, 1))(X, W)
    for ours, theirs in zip(found, jax.grad(reference, argnums=(0, 1))(X, W), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=tolerance * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_product_of_columns_is_the_same(precision: str, rows: int) -> None:
    x = X[0, :rows]
    with products(precision):
        found, expected = dot_columns(turned(W), x.T).T, dot(x, rounded(W))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_gradient_of_a_gradient(precision: str, tolerance: float) -> None:
    """What a gradient penalty asks for."""
    penalty = lambda f, w: jnp.sum(jax.grad(f)(X, w) ** 2)  # noqa: E731
    expected = jax.grad(lambda w: penalty(reference, w))(W)
    with products(precision), jax.default_matmul_precision("highest"):
        found = jax.grad(lambda w: penalty(loss, w))(W)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=tolerance * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("spec", ["bhid,bhjd->bhij", "bhij,bhjd->bhid", "bhid,rhd->bhir", "bd,dr->br"])
def test_gradients_of_einsums(spec: str, precision: str, tolerance: float) -> None:
    sizes = dict(zip("bhijdr", (2, 3, 4, 5, 6, 7), strict=True))
    of_x, of_y = spec.split("->")[0].split(",")
    x, y = (jnp.asarray(RNG.normal(size=[sizes[letter] for letter in of]), jnp.float32) for of in (of_x, of_y))
    plain = lambda x, y: jnp.sum(jnp.einsum(spec, x, y, precision="highest") ** 2)  # noqa: E731
    with products(precision), jax.default_matmul_precision("highest"):
        found = jax.jit(jax.grad(lambda x, y: jnp.sum(product(spec, x, y) ** 2), argnums=(0, 1)))(x, y)
    for ours, theirs in zip(found, jax.grad(plain, argnums=(0, 1))(x, y), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=tolerance * float(jnp.abs(theirs).max()))


def test_factors_stand_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 on a CPU, where XLA would else multiply in float32, and with a single device."""

    def constraints(precision: str) -> int:
        with products(precision):
            return str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(X, W)).count("layout_constraint")

    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert (constraints("float32"), constraints("bfloat16")) == (0, 2)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert constraints("bfloat16") == 0


def test_every_product_of_a_training_step_is_in_bfloat16() -> None:
    """The gradient of a float32 sum is float32; the products it goes into are not."""
    with products("bfloat16"):
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(X, W).as_text()
    made = [line for line in lowered.splitlines() if "dot_general" in line]
    assert len(made) == 3
    assert all("bf16>, tensor<" in line and line.count("bf16") >= 2 for line in made)
