"""An LSTM layer through time: the loop over its steps, what training keeps of them, and the way back by hand.

Shapes, names and the order of gates are those of `recurrent.py`; `K` is [x; h] with the zeros that fill it up.

Training differentiates a whole layer at once: the recurrence back through time gives the gates' gradients, and the
kernel's gradient is summed up in products over the columns of several steps (`together`), where plain autodiff would
read and write it at every step. On a CPU of one or two cores what lies between the products is a kernel of our own
(`native.py`), elsewhere XLA's.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from zoo.nn import native
from zoo.nn.precision import dot, dot_columns

Carry = tuple[jax.Array, jax.Array]  # (c, h), [H, B] each


def sigmoid(x: jax.Array) -> jax.Array:
    """σ(x) by way of tanh, which XLA's CPU backend has quicker (MusicVAE, 64 windows in bfloat16: 12.6 → 12.1 ms)."""
    return 0.5 + 0.5 * jnp.tanh(0.5 * x)


def lstm_cell(gates: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """(c', h', the four activated gates [H, B]) from pre-activations [4H, B] and c [H, B]."""
    i, j, f, o = jnp.split(gates, 4)
    i, j, f, o = sigmoid(i), jnp.tanh(j), sigmoid(f + 1.0), sigmoid(o)
    c = f * c + i * j
    return c, o * jnp.tanh(c), (i, j, f, o)


class XlaKept(NamedTuple):
    """What XLA's loop met: h after each step, the last c and h, and [x; h] and c before each step and the gates."""

    hidden: jax.Array
    c: jax.Array
    h: jax.Array
    saved: tuple[jax.Array, ...]


Kept = XlaKept | native.State


class Recorder(NamedTuple):
    """A layer that goes through a training sequence step by step and keeps what the way back needs.

    `kernel` [4H, K], K = X + filling + H, and `constant` float32 [4H, B] or [4H, 1].
    """

    kernel: jax.Array
    constant: jax.Array
    steps: int

    def start(self, c: jax.Array, h: jax.Array) -> Any:
        """The state that the first call takes, from c, h [H, B]."""
        batch, inputs = c.shape[1], self.kernel.shape[1] - len(c)
        if native.usable(batch, self.kernel.dtype):
            n = together(self.steps, batch)
            return native.start(c, h, self.kernel.dtype, inputs, self.steps, n)
        return c, h

    def __call__(self, t: jax.Array, x: jax.Array, state: Any, at: jax.Array | int = 0) -> tuple[Any, jax.Array, Any]:
        """Step `t` of input `x[at]`, [·, X, B] → the state, h [H, B], and what the caller is to stack up for `kept`."""
        if isinstance(state, native.State):
            state = native.feed(t, jnp.asarray(at, jnp.int32), x, state)
            state = native.forward(t, dot_columns(self.kernel, state.xh), self.constant, state)
            return state, state.xh[-state.cells.shape[1] :], ()
        (c, h), dtype = state, self.kernel.dtype
        filled = jnp.pad(x[at], ((0, self.kernel.shape[1] - len(h) - x.shape[1]), (0, 0)))
        xh = jnp.concatenate([filled.astype(dtype), h.astype(dtype)])
        after, h, activated = lstm_cell(dot_columns(self.kernel, xh) + self.constant, c)
        return (after, h), h, (h, (packed(xh), c, *(packed(gate.astype(dtype)) for gate in activated)))

    def kept(self, state: Any, stacked: Any) -> Kept:
        """Of all steps, from the last call's state."""
        if isinstance(state, native.State):
            return state
        (c, h), (hidden, saved) = state, stacked
        return XlaKept(hidden, c, h, saved)


def _record(x: jax.Array, kernel: jax.Array, constant: jax.Array, c: jax.Array, h: jax.Array, reverse: bool) -> Kept:
    steps = len(x)
    recorder = Recorder(kernel.T, constant, steps)

    def step(state: Any, t: jax.Array) -> tuple[Any, Any]:
        state, _, kept = recorder(t, x, state, steps - 1 - t if reverse else t)
        return state, kept

    return recorder.kept(*jax.lax.scan(step, recorder.start(c, h), jnp.arange(steps)))


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def scan(
    x: jax.Array,
    kernel: jax.Array,
    constant: jax.Array,
    c: jax.Array,
    h: jax.Array,
    kept: Kept | None,
    reverse: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`x` [T, X, B], `kernel` [K, 4H], `constant` [4H, B] or [4H, 1], `c`, `h` [H, B] → h [T, H, B], last c, h.

    `kept` is for gradients alone: what a recorder met on these.
    """
    # To turn the kernel takes longer than one column gains by it (MusicVAE encodes a window in 20 ms, so in 13).
    single, columns = x.shape[2] == 1 and kernel.dtype == jnp.float32, kernel.T
    x = jnp.pad(x, ((0, 0), (0, len(kernel) - len(h) - x.shape[1]), (0, 0)))

    def step(carry: Carry, x: jax.Array) -> tuple[Carry, jax.Array]:
        c, h = carry
        xh = jnp.concatenate([x, h])
        c, h, _ = lstm_cell((dot(xh.T, kernel).T if single else dot_columns(columns, xh)) + constant, c)
        return (c, h), h

    (c, h), hidden = jax.lax.scan(step, (c, h), x, reverse=reverse)
    return hidden, c, h


def _scan_forward(*args: Any) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Any]:
    *given, reverse = args
    x, kernel, constant, c, h, kept = jax.tree.map(lambda primal: primal.value, given)  # some may need no gradient
    kept = _record(x, kernel, constant, c, h, reverse) if kept is None else kept
    if isinstance(kept, native.State):
        states = kept.inputs[:, -len(h) :].swapaxes(1, 2).reshape(-1, *h.shape)  # [T + 1, H, B], and room to spare
        hidden, c, h = widened(states[1 : len(x) + 1]), kept.cells[-1], kept.xh[-len(h) :].astype(jnp.float32)
    else:
        hidden, c, h, _ = kept
    return (hidden[::-1] if reverse else hidden, c, h), (x, kernel, constant, kept)


def _scan_backward(reverse: bool, residuals: Any, gradients: Any) -> Any:
    x, kernel, constant, kept = residuals  # of x the shape alone counts
    steps, width, batch = x.shape
    d_hidden, d_c, d_h = gradients
    units = d_c.shape[0]
    last = isinstance(d_hidden, SymbolicZero)  # an encoder's last state alone counts
    d_hidden = jnp.zeros((0, units, batch)) if last else d_hidden[::-1] if reverse else d_hidden
    d_c, d_h = (jnp.zeros(d.shape) if isinstance(d, SymbolicZero) else d for d in (d_c, d_h))
    back = _native_back if isinstance(kept, native.State) else _back
    d_x, parts, d_constant, d_c, d_h = back(kernel, width, constant.shape, kept, d_hidden, d_c, d_h)
    d_x = d_x.reshape(steps, width, batch)  # dropped by the compiler where the inputs need no gradient
    d_kernel = jnp.concatenate(parts).T.astype(kernel.dtype)
    return d_x[::-1] if reverse else d_x, d_kernel, d_constant, d_c, d_h, None


def _back(
    kernel: jax.Array,
    width: int,
    constant: tuple[int, int],
    kept: XlaKept,
    d_hidden: jax.Array,
    d_c: jax.Array,
    d_h: jax.Array,
) -> tuple[jax.Array, list[jax.Array], jax.Array, jax.Array, jax.Array]:
    """Gate by gate: they needn't be put together, and a product that sums over all four is slower than four.

    On one core with AMX in bfloat16 [512, 2048] · [2048, 512] takes 2.5 ms, four of [512, 512] · [512, 512] 2.1.
    """
    steps, (units, batch) = len(kept.hidden), d_c.shape
    into, recurrent = (jnp.split(rows, 4, axis=1) for rows in (kernel[:width], kernel[-units:]))  # [X, H], [H, H] each
    ones = jnp.ones((batch, 1))

    def step(carry: Any, at: Any) -> tuple[Any, Any]:
        (d_c, d_h, d_constant), (d_hidden, c, *gates) = carry, at
        i, j, f, o = (unpacked(gate).astype(jnp.float32) for gate in gates)
        t = jnp.tanh(f * c + i * j)
        d_h = d_h if d_hidden is None else d_h + d_hidden
        d_c = d_c + d_h * o * (1 - t * t)
        each = [d_c * j * i * (1 - i), d_c * i * (1 - j * j), d_c * c * f * (1 - f), d_h * t * o * (1 - o)]
        d_gates = [gate.astype(kernel.dtype) for gate in each]  # [H, B] each
        shares = [dot_columns(gate, ones) for gate in d_gates] if constant[1] == 1 else d_gates
        d_constant = [before + share for before, share in zip(d_constant, shares, strict=True)]
        d_x, d_h = (sum(map(dot_columns, blocks, d_gates)) for blocks in (into, recurrent))
        return (d_c * f, d_h, d_constant), (d_x, [packed(gate) for gate in d_gates])

    def several(carry: Any, at: Any) -> tuple[Any, jax.Array]:
        (xh, *cells), d_kernel = at, carry[1]
        after, (d_x, d_gates) = jax.lax.scan(step, carry[0], tuple(cells), reverse=True)
        share = [_outer(unpacked(gate), unpacked(xh)) for gate in d_gates]
        return (after, [before + more for before, more in zip(d_kernel, share, strict=True)]), d_x

    n = together(steps, batch)
    xh, *cells = kept.saved
    at = (xh, d_hidden if len(d_hidden) else None, *cells)
    at = jax.tree.map(lambda x: x.reshape(steps // n, n, *x.shape[1:]), at)
    start = (d_c, d_h, jnp.split(jnp.zeros(constant), 4)), jnp.split(jnp.zeros(kernel.shape[::-1]), 4)
    carry, d_x = jax.lax.scan(several, start, at, reverse=True, unroll=n == steps)  # a single one needs no loop
    (d_c, d_h, d_constant), d_kernel = carry
    return d_x, d_kernel, jnp.concatenate(d_constant), d_c, d_h


def _native_back(
    kernel: jax.Array,
    width: int,
    constant: tuple[int, int],
    kept: native.State,
    d_hidden: jax.Array,
    d_c: jax.Array,
    d_h: jax.Array,
) -> tuple[jax.Array, list[jax.Array], jax.Array, jax.Array, jax.Array]:
    """Gates go in pairs: a product that sums over two takes as long as two products, one over four a third longer.

    On one core with AMX in bfloat16 [512, 1024] · [1024, 512] takes 683 µs, [512, 512] · [512, 512] 348, and
    [512, 2048] · [2048, 512] 1812; the shares of the kernel's gradient 751 µs a pair, 436 a gate.
    """
    _, cells, inputs, gates = kept
    (units, batch), steps, n = d_c.shape, len(gates), inputs.shape[2]
    into, recurrent = (jnp.split(rows, 2, axis=1) for rows in (kernel[:width], kernel[-units:]))  # [X, 2H], [H, 2H]

    def step(carry: Any, t: jax.Array) -> tuple[Any, jax.Array]:
        parts, d_c, d_constant, _, after = carry
        d_c, d_constant, d_gates, after = native.backward(t, gates, cells, d_hidden, parts, d_c, d_constant, after)
        d_x = dot_columns(into[0], d_gates[0]) + dot_columns(into[1], d_gates[1])
        return (list(map(dot_columns, recurrent, d_gates)), d_c, d_constant, d_gates, after), d_x

    def several(carry: Any, block: jax.Array) -> tuple[Any, jax.Array]:
        state, d_kernel = carry
        state, d_x = jax.lax.scan(step, state, block * n + jnp.arange(n), reverse=True, unroll=n == 1)
        d_gates = state[3] if n == 1 else [unpacked(pair).reshape(2 * units, -1) for pair in state[4]]
        xh = unpacked(inputs[block]).reshape(inputs.shape[1], -1)  # [K, n B]
        share = [jnp.einsum("xb,yb->xy", pair, xh, preferred_element_type=jnp.float32) for pair in d_gates]
        return (state, [before + more for before, more in zip(d_kernel, share, strict=True)]), d_x

    d_gates = [jnp.zeros((2 * units, batch), kernel.dtype)] * 2
    after = [jnp.zeros((2 * units, n, batch) if n > 1 else (0, 1, batch), inputs.dtype)] * 2
    state = [d_h, jnp.zeros_like(d_h)], d_c, jnp.zeros(constant), d_gates, after
    start = state, jnp.split(jnp.zeros(kernel.shape[::-1]), 2)
    # Four at a time: their shares are added to the kernel's gradient in one pass.
    (state, d_kernel), d_x = jax.lax.scan(several, start, jnp.arange(steps // n), reverse=True, unroll=4)
    return d_x, d_kernel, state[2], state[1], jnp.add(*state[0])


scan.defvjp(_scan_forward, _scan_backward, symbolic_zeros=True)


def _outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """Σ x yᵀ over steps and columns of [T, X, B] and [T, Y, B]: float32 [X, Y]. One step has nothing to turn."""
    x, y = (a.swapaxes(0, 1).reshape(a.shape[1], -1) for a in (x, y))
    return jnp.einsum("xb,yb->xy", x, y, preferred_element_type=jnp.float32)


def together(steps: int, batch: int) -> int:
    """Of how many steps a product in the kernel's gradient is: on a CPU of 512 columns or more, elsewhere of all steps.

    A layer of 512 units and 96 inputs, 32 steps of 512 columns, forward and backward in bfloat16 on one core with AMX:
    341 ms with a product at each step, 413 with one over all, which has to turn what it sums over.
    """
    if jax.default_backend() != "cpu":
        return steps
    return next(n for n in range(1, steps + 1) if steps % n == 0 and (n * batch >= 512 or n == steps))


def packed(x: jax.Array) -> jax.Array:
    """The bits of a bfloat16 array as uint16, for a loop to write to one of its results; of others nothing changes.

    XLA's CPU backend knows no update in place of a bfloat16 array: it copies the whole result at every step, which
    makes a loop of T steps take T² (the layer above, 32 × 512 × 512: forward and backward 1.39 s, packed .68).
    """
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def unpacked(x: jax.Array) -> jax.Array:
    """The inverse of `packed`."""
    return jax.lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def widened(x: jax.Array) -> jax.Array:
    """What `unpacked` gives, as float32, whose lower half is zeros: [32, 256, 512] in 2.4 ms, converted in 15.6."""
    if x.dtype != jnp.uint16:
        return x
    return jax.lax.bitcast_convert_type(x.astype(jnp.uint32) << 16, jnp.float32)
