"""The number format of matrix products: float32 unless a training run asks for bfloat16.

Parameters, states, sums and everything between products stay float32; only the two factors are rounded, and what an
LSTM keeps of its gates for the way back. On a CPU with AVX-512 BF16 the product itself is twice as fast (Zen 4, one
core: 104 → 200 GFLOP/s at [512, 602] · [602, 2048]), with AMX three times, and a training step of MusicVAE or of a
transformer 1.5 to 3 times. `jax.default_matmul_precision` does nothing on the CPU, so the factors are rounded here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

from zoo.errors import InputError

PRECISIONS = ("float32", "bfloat16")

_products: ContextVar[DTypeLike] = ContextVar("products", default=jnp.float32)


@contextlib.contextmanager
def products(dtype: DTypeLike) -> Iterator[None]:
    """While a function is traced in here, its `dot`s round their factors to `dtype`, "float32" or "bfloat16"."""
    token = _products.set(jnp.dtype(dtype))
    try:
        yield
    finally:
        _products.reset(token)


def check_precision(name: str) -> None:
    """InputError unless `name` is one of PRECISIONS."""
    if name not in PRECISIONS:
        raise InputError(f"precision {name!r} is not known; choose {' or '.join(PRECISIONS)}")


def rounded(x: jax.Array) -> jax.Array:
    """`x` in the products' format, for a factor that many products share."""
    return x.astype(_products.get())


def filling(width: int) -> int:
    """How many zeros to add to `width` numbers that a product sums over; none in float32.

    AMX takes 32 numbers of bfloat16 at a time, and the rest of a sum one by one: [1024, 346] · [346, 128] takes 434 µs
    on one core, [1024, 352] · [352, 128] 212; [512, 602] · [602, 2048] 2691, with 608 1859.
    """
    return -width % 32 if _products.get() == jnp.bfloat16 else 0


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Matrix product x · y of [..., X] and [X, Y], its factors in the format of `y`, sums and result in float32."""
    lead = "abcdef"[: x.ndim - 1]
    return _product(f"{lead}x,xy->{lead}y", x, y)


def turned(kernel: jax.Array) -> jax.Array:
    """A kernel [X, Y] as `dot_columns` takes it: [Y, X], in the products' format. To be made outside of its loop."""
    return rounded(kernel).T


def dot_columns(kernel: jax.Array, x: jax.Array) -> jax.Array:
    """Kernel · x of a turned kernel [Y, X] and columns [X, B]: [Y, B], formats as in `dot`, for products in a loop.

    XLA's CPU backend packs the right factor of a product anew each time: of `dot` that is the kernel, here a few
    columns. [8, 1024] · [1024, 2048] takes 846 µs in float32 and 424 in bfloat16, as columns 522 and 252; with 64
    rows in bfloat16 694 and 459 (one core with AVX-512 and AMX). A single column in bfloat16 it would multiply
    number by number, two are quick.
    """
    x = x.astype(kernel.dtype)
    if x.shape[1] > 1 or kernel.dtype == jnp.float32 or jax.default_backend() != "cpu":
        return _product("yx,xb->yb", kernel, x)
    return _product("yx,xb->yb", kernel, jnp.broadcast_to(x, (len(x), 2)))[:, :1]


def product(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """A matrix product by einsum `spec`, its factors in the products' format, sums and result in float32.

    Every letter of a factor must be in the other one or in the result.
    """
    return _product(spec, x, rounded(y))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x.astype(y.dtype), y, preferred_element_type=jnp.float32)


def _product_forward(spec: str, x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _product(spec, x, y), (x, y)


def _product_backward(spec: str, factors: tuple[jax.Array, ...], gradient: jax.Array) -> tuple[jax.Array, ...]:
    """Both gradients as products of the same format.

    Plain autodiff multiplies a rounded factor by the gradient of a float32 sum, in float32: two of three products of a
    training step get nothing from bfloat16. And it sums a weight's gradient over the leading axes in an order that is
    slow in float32 too. Forward and backward on one core of a Zen 4, [4, 256, 128] · [128, 512]: float32 5.7 → 4.0 ms,
    bfloat16 5.0 → 2.3; [16, 512, 256] · [256, 1024]: 190 → 142 and 165 → 74.
    """
    x, y = factors
    factors_of, result = spec.split("->")
    of_x, of_y = factors_of.split(",")
    gradient = in_rows(gradient.astype(y.dtype))
    d_x = jnp.einsum(f"{result},{of_y}->{of_x}", gradient, y, preferred_element_type=jnp.float32)
    d_y = _summed(x.astype(y.dtype), gradient, of_x, result, of_y)
    return d_x.astype(x.dtype), d_y.astype(y.dtype)


def _summed(x: jax.Array, gradient: jax.Array, of_x: str, result: str, of_y: str) -> jax.Array:
    """The gradient of y: x · gradient, summed over what y doesn't have, which leads both; one of them has to be turned.

    Here that is the smaller one, and then the product, behind a barrier, for else XLA turns the larger one after all:
    [4, 256, 1024] attention weights and [4, 256, 32] take 2.8 ms so, and 1.3 as below (float32 2.5 and .9).
    """
    first, second = (x, of_x), (gradient, result)
    if x.size > gradient.size:
        first, second = second, first
    batch = [letter for letter in of_y if letter in of_x and letter in result]
    own = [[letter for letter in of_y if letter in letters and letter not in batch] for _, letters in (first, second)]
    over = [letter for letter in first[1] if letter not in of_y]
    turned, order = "".join(batch + own[0] + over), "".join(batch + own[0] + own[1])
    factor = in_rows(jnp.einsum(f"{first[1]}->{turned}", first[0]))
    found = jnp.einsum(f"{turned},{second[1]}->{order}", factor, second[0], preferred_element_type=jnp.float32)
    if order == of_y:
        return found
    return jnp.transpose(jax.lax.optimization_barrier(found), [order.index(letter) for letter in of_y])


def in_rows(x: jax.Array) -> jax.Array:
    """A factor of bfloat16 with its last axis contiguous, as its shape has it; of others nothing changes.

    XLA's CPU backend would rather change an array's layout than move its numbers, and then knows only a product in
    float32. On a Zen 4 [1024, 512]ᵀ · [256, 1024]ᵀ takes 4.4 ms, in rows 1.3; 32 of [256, 256]ᵀ · [256, 32] 1.6 and .9.
    """
    if x.dtype != jnp.bfloat16 or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return x
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


_product.defvjp(_product_forward, _product_backward)
