"""1-D convolutions over time-major sound, in the form that the device computes fastest.

y[t] = Σ_k kernel[k] · x[stride · t + k − left] + bias: [T, B, I] → [T / stride, B, O], zeros around x.

`T` steps, `B` batch, `I` input and `O` output channels, `K` the kernel's width. On a GPU or TPU the form is XLA's own
convolution. On a CPU that reaches a fifth of what a matrix product does (CREPE's second layer, 1024 channels: 70 of 380
GFLOP/s on two cores), so there every form is made of matrix products, all equal to 1e-5 of the result:

- `Spectral`, for wide kernels: the discrete Fourier transform over T, a product of channels for each frequency, and the
  transform back; CREPE's second layer needs a sixteenth of the operations, and CREPE as a whole is ten times as fast.
- `Toeplitz`, for strides and for few steps: a block of outputs at once from the inputs that it needs, by one matrix in
  which the kernel is repeated, each time one stride further down.

What a form makes of the kernel, once, is `prepared`; whoever calls often with the same parameters passes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx


class Form(Protocol):
    """A way to convolve inputs of one length with kernels of one shape."""

    def prepare(self, kernel: jax.Array) -> jax.Array:
        """What `apply` needs of a kernel [K, I, O]."""
        ...

    def apply(self, x: jax.Array, prepared: jax.Array) -> jax.Array:
        """[T, B, I] → [T / stride, B, O], without the bias."""
        ...


class Conv(nnx.Module):
    """A convolution whose output has T / stride steps; of the K − stride zeros around x the odd one is on the right.

    `kernel` [K, I, O], `bias` [O], float32.
    """

    def __init__(self, width: int, inputs: int, outputs: int, *, stride: int = 1, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (width, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.stride = stride

    def form(self, steps: int) -> Form:
        """The best form for inputs of T = `steps`, which the stride must divide."""
        width, inputs, outputs = self.kernel.shape
        return choose(Shape(steps, width, inputs, outputs, self.stride), jax.default_backend())

    def prepared(self, steps: int) -> jax.Array:
        """The kernel as the form for T = `steps` needs it."""
        return self.form(steps).prepare(self.kernel[...])

    def __call__(self, x: jax.Array, prepared: jax.Array | None = None) -> jax.Array:
        """[T, B, I] → [T / stride, B, O]."""
        return (
            self.form(x.shape[0]).apply(x, self.prepared(x.shape[0]) if prepared is None else prepared) + self.bias[...]
        )


@dataclass(frozen=True)
class Shape:
    """The numbers that decide which form is best."""

    steps: int
    width: int
    inputs: int
    outputs: int
    stride: int = 1

    @property
    def left(self) -> int:
        """Zeros before x."""
        return (self.width - self.stride) // 2

    @property
    def results(self) -> int:
        """Steps of the output."""
        return self.steps // self.stride


@lru_cache(maxsize=256)
def choose(shape: Shape, platform: str) -> Form:
    """The form for a shape on "cpu", "gpu" or "tpu": on a CPU the one with the fewest multiplications."""
    if platform != "cpu":
        return Direct(shape)
    forms: list[Toeplitz | Spectral] = [Toeplitz(shape, block) for block in (1, 2, 4, 8) if shape.results % block == 0]
    forms.append(Toeplitz(shape, shape.results))
    if shape.stride == 1:
        forms.append(Spectral(shape))
    return min(forms, key=lambda form: form.cost)


@dataclass(frozen=True)
class Direct:
    """XLA's convolution."""

    shape: Shape

    def prepare(self, kernel: jax.Array) -> jax.Array:
        """The kernel itself."""
        return kernel

    def apply(self, x: jax.Array, prepared: jax.Array) -> jax.Array:
        """See `Form`."""
        around = [(self.shape.left, self.shape.width - self.shape.stride - self.shape.left)]
        order = ("WNC", "WIO", "WNC")
        return jax.lax.conv_general_dilated(x, prepared, (self.shape.stride,), around, dimension_numbers=order)


@dataclass(frozen=True)
class Toeplitz:
    """`block` outputs at once, R: [T / stride / R, B, L · I] times [L · I, R · O]; L inputs matter to R outputs."""

    shape: Shape
    block: int

    @property
    def first(self) -> int:
        """Where the inputs of the first block begin; those of a single block leave out the zeros around x."""
        return 0 if self.block == self.shape.results else -self.shape.left

    @property
    def length(self) -> int:
        """L."""
        if self.block == self.shape.results:
            return self.shape.steps
        return (self.block - 1) * self.shape.stride + self.shape.width

    @property
    def cost(self) -> float:
        """Multiplications for one example; rows of fewer than some hundred outputs make poor products."""
        shape = self.shape
        return shape.results * self.length * shape.inputs * shape.outputs * (1 + 64 / (self.block * shape.outputs))

    def prepare(self, kernel: jax.Array) -> jax.Array:
        """[L · I, R · O]: in column r of blocks the kernel, r strides further down."""
        shape = self.shape
        begins = shape.stride * np.arange(self.block) - self.first - shape.left
        taps = np.arange(self.length)[:, None] - begins  # [L, R]
        inside = (taps >= 0) & (taps < shape.width)
        matrix = kernel[taps.clip(0, shape.width - 1)] * inside[..., None, None]  # [L, R, I, O]
        return matrix.transpose(0, 2, 1, 3).reshape(self.length * shape.inputs, self.block * shape.outputs)

    def apply(self, x: jax.Array, prepared: jax.Array) -> jax.Array:
        """See `Form`."""
        shape, batch = self.shape, x.shape[1]
        blocks = shape.results // self.block
        if blocks == 1:
            rows = x[None]  # [1, L, B, I]
        else:
            x = jnp.pad(x, ((shape.left, shape.width - shape.stride - shape.left), (0, 0), (0, 0)))
            begins = self.block * shape.stride * np.arange(blocks)
            rows = x[begins[:, None] + np.arange(self.length)]  # [T / stride / R, L, B, I]
        rows = rows.transpose(0, 2, 1, 3).reshape(blocks * batch, self.length * shape.inputs)
        y = (rows @ prepared).reshape(blocks, batch, self.block, shape.outputs)
        return y.transpose(0, 2, 1, 3).reshape(shape.results, batch, shape.outputs)


@dataclass(frozen=True)
class Spectral:
    """The convolution theorem, without complex numbers: y = back · ((there · x) ⊙ (spectrum · kernel)).

    For each frequency the product (a + ib)(c + id) takes three real ones, c(a + b), a(d − c), b(c + d), so that `P`,
    some 3 N / 2, of them stand for a transform of length N; N is so large that no output sees the wrong end of x.
    """

    shape: Shape

    @property
    def length(self) -> int:
        """N, even: T and the farthest tap that matters to it."""
        shape = self.shape
        reach = min(max(shape.left, shape.width - 1 - shape.left), shape.steps - 1)
        return 2 * -(-(shape.steps + reach) // 2)

    @property
    def cost(self) -> float:
        """Multiplications for one example, those of small products, one a frequency, counted twice."""
        products, shape = 3 * self.length / 2, self.shape
        transforms = products * shape.steps * (shape.inputs + shape.outputs)
        return transforms + 2 * products * shape.inputs * shape.outputs

    @cached_property
    def matrices(self) -> tuple[npt.NDArray[np.float32], ...]:
        """`there` [P, T], `spectrum` [P, K] and `back` [T, P]."""
        shape, n = self.shape, self.length
        inner, outer = np.arange(1, n // 2)[:, None], np.array([0, n // 2])[:, None]  # these two are real
        angle = 2 * np.pi / n
        t, k = np.arange(shape.steps), np.arange(shape.width) - shape.left
        matters = np.abs(k) < shape.steps
        a, b = np.cos(angle * inner * t), -np.sin(angle * inner * t)
        c, d = np.cos(angle * inner * k) * matters, np.sin(angle * inner * k) * matters
        there = [a + b, a, b, np.cos(angle * outer * t)]
        spectrum = [c, d - c, c + d, np.cos(angle * outer * k) * matters]
        back = [2 * (a + b), 2 * b, -2 * a, np.cos(angle * outer * t)]
        first, second, third = (np.concatenate(rows).astype(np.float32) for rows in (there, spectrum, back))
        return first, second, third.T / np.float32(n)

    def prepare(self, kernel: jax.Array) -> jax.Array:
        """The kernel's spectrum, [P, I, O]."""
        return jnp.tensordot(self.matrices[1], kernel, 1)

    def apply(self, x: jax.Array, prepared: jax.Array) -> jax.Array:
        """See `Form`."""
        there, _, back = self.matrices
        spectrum = jnp.tensordot(there, x, 1)  # [P, B, I]
        product = jax.lax.dot_general(spectrum, prepared, (((2,), (1,)), ((0,), (0,))))  # [P, B, O]
        return jnp.tensordot(back, product, 1)
