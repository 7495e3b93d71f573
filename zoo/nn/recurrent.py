"""LSTM layers with TensorFlow's parameters, as plain `lax.scan`s with a hand-written backward pass.

`B` batch, `T` steps, `X` input width, `H` hidden units. One kernel acts on `[x; h]`, the gates stand in the order
i, j, f, o (input, candidate, forget, output), and 1 is added to the forget gate at run time (Jozefowicz et al. 2015):

    c' = σ(f + 1) c + σ(i) tanh(j)        h' = σ(o) tanh(c')

Training differentiates a whole layer at once: the recurrence back through time gives only the gates' gradients, and
the kernel's gradient is one matrix product over all `T·B` rows afterwards, where plain autodiff would read and write
the whole kernel gradient at every step.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

Carry = tuple[jax.Array, jax.Array]  # (c, h), each [B, H]


class Dense(nnx.Module):
    """y = x · kernel + bias. `kernel` [X, Y], `bias` [Y], float32."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel[...] + self.bias[...]


class LSTM(nnx.Module):
    """One LSTM layer. `kernel` [X + H, 4H], `bias` [4H], float32."""

    def __init__(self, inputs: int, units: int, *, rngs: nnx.Rngs) -> None:
        self.units = units
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (inputs + units, 4 * units)))
        self.bias = nnx.Param(jnp.zeros(4 * units))

    def project(self, x: jax.Array, offset: int = 0) -> jax.Array:
        """The share of the gates that inputs alone decide: `x` [..., X'] times rows `offset : offset + X'`. [..., 4H]."""
        return x @ self.kernel[offset : offset + x.shape[-1]]

    def recurrent_kernel(self) -> jax.Array:
        return self.kernel[-self.units :]  # [H, 4H]

    def step(self, carry: Carry, gates: jax.Array) -> Carry:
        """One step from the input's share of the gates [B, 4H] (see `project`)."""
        c, h = carry
        c, h, _ = _cell(gates + h @ self.recurrent_kernel() + self.bias[...], c)
        return c, h

    def __call__(self, gates: jax.Array, carry: Carry | None = None, reverse: bool = False) -> tuple[jax.Array, Carry]:
        """The whole sequence from `gates` [T, B, 4H], time-major. Returns (h at every step [T, B, H], last carry)."""
        c, h = carry if carry is not None else self.zeros(gates.shape[1])
        hidden, c, h = _scan(gates + self.bias[...], self.recurrent_kernel(), c, h, reverse)
        return hidden, (c, h)

    def zeros(self, batch: int) -> Carry:
        return jnp.zeros((batch, self.units)), jnp.zeros((batch, self.units))


def _cell(gates: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(c', h', activated gates [B, 4H]) from pre-activations [B, 4H] and c [B, H]."""
    i, j, f, o = jnp.split(gates, 4, axis=-1)
    i, j, f, o = jax.nn.sigmoid(i), jnp.tanh(j), jax.nn.sigmoid(f + 1.0), jax.nn.sigmoid(o)
    c = f * c + i * j
    return c, o * jnp.tanh(c), jnp.concatenate([i, j, f, o], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scan(
    gates: jax.Array, kernel: jax.Array, c: jax.Array, h: jax.Array, reverse: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def step(carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        c, h = carry
        c, h, _ = _cell(x + h @ kernel, c)
        return (c, h), h

    (c, h), hidden = jax.lax.scan(step, (c, h), gates, reverse=reverse)
    return hidden, c, h


def _scan_forward(gates: jax.Array, kernel: jax.Array, c0: jax.Array, h0: jax.Array, reverse: bool):  # type: ignore[no-untyped-def]
    def step(carry: Carry, x: jax.Array):  # type: ignore[no-untyped-def]
        c, h = carry
        after, h_after, activated = _cell(x + h @ kernel, c)
        return (after, h_after), (h_after, h, c, after, activated)

    (c, h), (hidden, h_before, c_before, c_after, activated) = jax.lax.scan(step, (c0, h0), gates, reverse=reverse)
    return (hidden, c, h), (kernel, h_before, c_before, c_after, activated)


def _scan_backward(reverse: bool, saved, gradients):  # type: ignore[no-untyped-def]
    kernel, h_before, c_before, c_after, activated = saved
    d_hidden, d_c, d_h = gradients

    def step(carry: Carry, at):  # type: ignore[no-untyped-def]
        d_c, d_h = carry
        d_hidden, c_before, c_after, activated = at
        i, j, f, o = jnp.split(activated, 4, axis=-1)
        t = jnp.tanh(c_after)
        d_h = d_h + d_hidden
        d_c = d_c + d_h * o * (1 - t * t)
        d_gates = jnp.concatenate(
            [d_c * j * i * (1 - i), d_c * i * (1 - j * j), d_c * c_before * f * (1 - f), d_h * t * o * (1 - o)], axis=-1
        )
        return (d_c * f, d_gates @ kernel.T), d_gates

    at = (d_hidden, c_before, c_after, activated)
    (d_c, d_h), d_gates = jax.lax.scan(step, (d_c, d_h), at, reverse=not reverse)
    d_kernel = jnp.einsum("tbh,tbg->hg", h_before, d_gates)
    return d_gates, d_kernel, d_c, d_h


_scan.defvjp(_scan_forward, _scan_backward)
