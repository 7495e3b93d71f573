"""1-D convolutions: every form computes the same, to 1e-5, and so does its gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zoo.nn.convolution import Conv, Direct, Form, Shape, Spectral, Toeplitz, choose

SHAPES = [
    Shape(steps=16, width=8, inputs=3, outputs=5),
    Shape(steps=16, width=7, inputs=2, outputs=4),
    Shape(steps=4, width=16, inputs=2, outputs=3),  # a kernel wider than the input
    Shape(steps=1, width=4, inputs=2, outputs=3),
    Shape(steps=12, width=1, inputs=2, outputs=3),
    Shape(steps=32, width=12, inputs=1, outputs=4, stride=4),
    Shape(steps=24, width=5, inputs=2, outputs=4, stride=2),
    Shape(steps=128, width=64, inputs=64, outputs=8),
]


def forms(shape: Shape) -> list[Form]:
    """All that can compute a shape."""
    blocks = sorted({block for block in (1, 2, 4, shape.results) if shape.results % block == 0})
    found: list[Form] = [Direct(shape), *(Toeplitz(shape, block) for block in blocks)]
    return [*found, Spectral(shape)] if shape.stride == 1 else found


def given(shape: Shape, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [T, B, I] and a kernel [K, I, O] whose results are of size 1."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((shape.width, shape.inputs, shape.outputs)) / np.sqrt(shape.width * shape.inputs)
    return rng.standard_normal((shape.steps, batch, shape.inputs)).astype(np.float32), kernel.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_forms_are_the_sum_that_defines_a_convolution(shape: Shape) -> None:
    x, kernel = given(shape)
    right = shape.width - shape.stride - shape.left
    padded = np.pad(x.astype(np.float64), ((shape.left, right), (0, 0), (0, 0)))
    at = shape.stride * np.arange(shape.results)
    expected = sum(padded[at + k] @ kernel[k].astype(np.float64) for k in range(shape.width))
    each = jax.jit(lambda x, kernel: [form.apply(x, form.prepare(kernel)) for form in forms(shape)])
    for form, found in zip(forms(shape), each(x, kernel), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=str(form))


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[5]], ids=str)
def test_all_forms_have_the_same_gradient(shape: Shape) -> None:
    weights = np.random.default_rng(1).standard_normal((shape.results, 2, shape.outputs)).astype(np.float32)

    def total(x: jax.Array, kernel: jax.Array, form: Form) -> jax.Array:
        return jnp.sum(weights * form.apply(x, form.prepare(kernel)))

    each = jax.jit(lambda x, kernel: [jax.grad(total, argnums=(0, 1))(x, kernel, form) for form in forms(shape)])
    gradients = each(*given(shape))
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_each_device_has_its_form() -> None:
    """CREPE's layers: a GPU and a TPU take XLA's convolution, a CPU products, fewer by far than the definition asks."""
    second = Shape(steps=128, width=64, inputs=1024, outputs=128)
    assert isinstance(choose(second, "gpu"), Direct)
    assert isinstance(choose(second, "tpu"), Direct)
    best = choose(second, "cpu")
    assert isinstance(best, Spectral)
    assert best.cost < second.steps * second.width * second.inputs * second.outputs / 10
    assert isinstance(choose(Shape(steps=1024, width=512, inputs=1, outputs=1024, stride=4), "cpu"), Toeplitz)


def test_the_layer_adds_its_bias_and_takes_a_kernel_prepared_before() -> None:
    conv = Conv(8, 3, 5, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(5.0)
    x = jnp.asarray(given(SHAPES[0])[0])
    np.testing.assert_array_equal(conv(x), conv(x, conv.prepared(16)))
    np.testing.assert_allclose(conv(jnp.zeros_like(x))[3, 1], np.arange(5.0))
