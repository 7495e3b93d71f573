"""LSTM layers with TensorFlow's parameters, as plain `lax.scan`s.

`B` batch, `T` steps, `X` input width, `H` hidden units. One kernel acts on `[x; h]`, the gates stand in the order
i, j, f, o (input, candidate, forget, output), and 1 is added to the forget gate at run time (Jozefowicz et al. 2015):

    c' = σ(f + 1) c + σ(i) tanh(j)        h' = σ(o) tanh(c')

Inside of a layer all stands in columns, [H, B]: the batch comes last, the gates are contiguous blocks, and of the three
products of a training step none has to turn a factor. The loop over the steps and its gradient, by hand, are in
`through_time.py`.

Generation goes one step after another. A layer's `stepper` is a pytree of its parameters, turned for that, which is
called with columns as well. Where training has to draw what it reads next, a `recorder` goes step by step too, and
keeps what the way back needs.

On any CPU the whole loop that draws a single sequence in bfloat16 is a kernel of our own (`native.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.nn import native
from zoo.nn.precision import dot, dot_columns, filling, products, rounded, turned
from zoo.nn.through_time import Carry, Kept, Recorder, lstm_cell, scan

Carries = tuple[Carry, ...]  # of several layers
Layers = tuple[Kept, ...]  # what each of several layers met

FEW = 32  # columns: for fewer tokens it is quicker to look their rows up than to multiply one-hot vectors
ROUNDED_FROM = 512  # steps × columns: on a Zen 4 MusicVAE encodes a window in 5.8 ms, rounded in 22, sixteen in 30, 24


class Dense(nnx.Module):
    """y = x · kernel + bias. `kernel` [X, Y], `bias` [Y], float32."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: jax.Array) -> jax.Array:
        return dot(x, rounded_for(x, self.kernel[...])) + self.bias[...]

    def stepper(self) -> DenseStep:
        """The same, time after time; to be made outside the loop that it is for."""
        return DenseStep(turned(self.kernel[...]), self.bias[...][:, None])


class DenseStep(NamedTuple):
    """A dense layer on columns. `kernel` [Y, X], `bias` float32 [Y, 1]."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` [X, B] → [Y, B]."""
        return dot_columns(self.kernel, x) + self.bias


class LSTM(nnx.Module):
    """One LSTM layer. `kernel` [X + H, 4H], `bias` [4H], float32.

    Of its X inputs the last `constant` may be the same at every step (a latent vector, say): their share of the gates
    is then worked out once, by `constant_gates`. `memory` is how many steps it should remember from the start; None
    leaves it with what a forget bias of one gives, two. `gain` times the usual are the weights of its inputs at first.
    """

    def __init__(
        self, inputs: int, units: int, *, memory: int | None, constant: int = 0, gain: float = 1.0, rngs: nnx.Rngs
    ) -> None:
        self.units = units
        self.varying = inputs - constant
        rows = gain * jax.nn.initializers.lecun_normal()(rngs.params(), (inputs, 4 * units))
        recurrent = [jax.nn.initializers.orthogonal()(rngs.params(), (units, units)) for _ in "ijfo"]
        self.kernel = nnx.Param(jnp.concatenate([rows, jnp.concatenate(recurrent, axis=1)]))
        self.bias = nnx.Param(jnp.zeros(4 * units) if memory is None else chrono(rngs.params(), units, memory))

    def constant_gates(self, z: jax.Array | None = None, kernel: jax.Array | None = None) -> jax.Array:
        """The bias, and with it the share of constant inputs `z` [B, constant]: [4H] or [B, 4H].

        `kernel` is `constant_kernel`, for those who have it already: to cut it out takes as long as to multiply by it.
        """
        if z is None:
            return self.bias[...]
        return dot(z, rounded_for(z, self.constant_kernel() if kernel is None else kernel)) + self.bias[...]

    def constant_kernel(self) -> jax.Array:
        """What acts on the constant inputs, float32 [constant, 4H]."""
        return self.kernel[self.varying : -self.units]

    def __call__(
        self,
        x: jax.Array,
        gates: jax.Array,
        carry: Carry | None = None,
        reverse: bool = False,
        kept: Kept | None = None,
    ) -> tuple[jax.Array, Carry]:
        """The whole sequence, time-major: `x` [T, B, X], `gates` from `constant_gates`, `carry` None for zeros.

        Returns h at every step [T, B, H], and the last carry. With what a recorder `kept` they are what it met, and
        only the way back is still to do.
        """
        # Few columns of few steps gain less by bfloat16 than it takes to round and turn a kernel.
        few = kept is None and x.shape[0] * x.shape[1] < ROUNDED_FROM
        with products("float32") if few else nullcontext():
            kernel = self._varying_kernel()
        x, gates = x.swapaxes(1, 2), gates.T if gates.ndim > 1 else gates[:, None]
        if carry is not None:
            hidden, c, h = scan(x, kernel, gates, carry[0].T, carry[1].T, kept, reverse)
            return hidden.swapaxes(1, 2), (c.T, h.T)
        # The first step has no state to multiply by, neither here nor on the way back.
        first, x = (x[-1], x[:-1]) if reverse else (x[0], x[1:])
        c, h, _ = lstm_cell(dot_columns(kernel[: self.varying].T, first) + gates, jnp.zeros(()))
        hidden = h[None]
        if len(x):
            others, c, h = scan(x, kernel, gates, c, h, None, reverse)
            hidden = jnp.concatenate([others, hidden] if reverse else [hidden, others])
        return hidden.swapaxes(1, 2), (c.T, h.T)

    def recorder(self, gates: jax.Array, steps: int) -> Recorder:
        """For training whose inputs are only known step by step, all of them to be called; `gates` as above."""
        gates = gates.T if gates.ndim > 1 else gates[:, None]
        return Recorder(self._varying_kernel().T, gates, steps)

    def stepper(self) -> LSTMStep:
        """The same, one step at a time; to be made outside the loop that it is for."""
        kernels = self._varying_kernel().T, turned(self.kernel[-self.units :])
        return LSTMStep(self.kernel[: self.varying], *kernels, self.bias[...][:, None])

    def _varying_kernel(self) -> jax.Array:
        """The kernel without the rows of constant inputs, in the products' format, filled: [X + filling + H, 4H]."""
        kernel, spare = rounded(self.kernel[...]), filling(self.varying + self.units)
        if not spare and len(kernel) == self.varying + self.units:
            return kernel
        zeros = jnp.zeros((spare, 4 * self.units), kernel.dtype)
        return jnp.concatenate([kernel[: self.varying], zeros, kernel[-self.units :]])

    def zeros(self, batch: int) -> Carry:
        return jnp.zeros((batch, self.units)), jnp.zeros((batch, self.units))

    def columns(self, batch: int) -> Carry:
        """As `zeros`, for a stepper."""
        return jnp.zeros((self.units, batch)), jnp.zeros((self.units, batch))


class Bidirectional(nnx.Module):
    """LSTM layers that read both ways."""

    def __init__(self, inputs: int, units: tuple[int, ...], *, memory: int, rngs: nnx.Rngs) -> None:
        sizes = list(zip((inputs, *(2 * u for u in units)), units, strict=False))
        self.forward = nnx.List([LSTM(w, u, memory=memory, rngs=rngs) for w, u in sizes])
        self.backward = nnx.List([LSTM(w, u, memory=memory, rngs=rngs) for w, u in sizes])

    def read(self, x: jax.Array, drop: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        """`x`: float32 [T, B, D], time-major → h at every step [T, B, 2H], and the last of each direction [B, 2H]."""
        for forward, backward in zip(self.forward, self.backward, strict=True):
            x = drop(x)
            ahead, (_, last_ahead) = forward(x, forward.constant_gates())  # [T, B, H]
            back, (_, last_back) = backward(x, backward.constant_gates(), reverse=True)
            x = jnp.concatenate([ahead, back], axis=-1)  # [T, B, 2H]
        return x, jnp.concatenate([last_ahead, last_back], axis=-1)


class Stack(nnx.Module):
    """LSTM layers that start from an embedding: state₀ = tanh(W z + b), split into c and h of each layer."""

    def __init__(
        self, inputs: int, embedding: int, units: tuple[int, ...], *, memory: int, constant: int = 0, rngs: nnx.Rngs
    ) -> None:
        self.initial = Dense(embedding, 2 * sum(units), rngs=rngs)
        first = LSTM(inputs + constant, units[0], memory=memory, constant=constant, rngs=rngs)
        self.cells = nnx.List([first, *(LSTM(w, u, memory=memory, rngs=rngs) for w, u in pairwise(units))])

    def start(self, z: jax.Array) -> Carries:
        """The state of every layer, (c, h) each, from `z` [B, Z]."""
        sizes = [cell.units for cell in self.cells for _ in ("c", "h")]
        parts = jnp.split(jnp.tanh(self.initial(z)), [sum(sizes[:k]) for k in range(1, len(sizes))], axis=-1)
        return tuple(zip(parts[::2], parts[1::2], strict=True))

    def gates(self, z: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """What each layer adds to its gates at every step; `z` [B, constant] are the first one's constant inputs."""
        return (self.cells[0].constant_gates(z), *(cell.constant_gates() for cell in list(self.cells)[1:]))

    def __call__(
        self,
        x: jax.Array,
        gates: tuple[jax.Array, ...],
        carries: Carries,
        drop: Callable[[jax.Array], jax.Array],
        kept: Layers | None = None,
    ) -> jax.Array:
        """All steps, `x` [T, B, X] → the last layer's h [T, B, H]; `kept` of each layer where they were recorded."""
        each = kept or [None] * len(carries)
        for cell, constant, carry, of_cell in zip(self.cells, gates, carries, each, strict=True):
            x, _ = cell(drop(x), constant, carry, kept=of_cell)
        return x

    def record(
        self,
        gates: tuple[jax.Array, ...],
        carries: Carries,
        first: jax.Array,
        follow: Callable[[jax.Array, Any], jax.Array],
        scanned: Any,
    ) -> tuple[jax.Array, Layers]:
        """As above, step by step, where a step's input comes of the one before: its inputs, and what layers kept.

        `first` and what `follow` gives are tokens [B] or floats [X, B]; `follow` has the last layer's h [H, B] and a
        step's share of the arrays `scanned`, [T, ...] each. The inputs are those after each step, the last one's too.
        """
        steps = len(jax.tree.leaves(scanned)[0])
        layers = [cell.recorder(constant, steps) for cell, constant in zip(self.cells, gates, strict=True)]
        states = [layer.start(c.T, h.T) for layer, (c, h) in zip(layers, carries, strict=True)]

        def step(carry: Any, at: Any) -> Any:
            (states, x), (t, given) = carry, at
            h = jax.nn.one_hot(x, self.cells[0].varying, axis=0) if x.ndim == 1 else x  # [X, B]
            after, stacked = [], []
            for layer, state in zip(layers, states, strict=True):
                state, h, more = layer(t, h[None], state)
                after.append(state)
                stacked.append(more)
            x = follow(h, given)
            return (after, x), (x, stacked)

        (states, _), (inputs, stacked) = jax.lax.scan(step, (states, first), (jnp.arange(steps), scanned))
        kept = (layer.kept(state, more) for layer, state, more in zip(layers, states, stacked, strict=True))
        return inputs, tuple(kept)


class LSTMStep(NamedTuple):
    """An LSTM layer on columns. `rows` float32 [X, 4H], `kernel` [4H, X + filling + H], `bias` float32 [4H, 1].

    `recurrent` [4H, H] is a part of the kernel: cut in the loop that steps, it would be copied at every step.
    """

    rows: jax.Array
    kernel: jax.Array
    recurrent: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array, carry: Carry, gates: jax.Array | None = None) -> Carry:
        """One step: carry [H, B] → carry, with `gates` [4H, B] of constant inputs, if there are any.

        `x` is floats [X, B] or int tokens [B], each of which stands for a one-hot vector; one past the last class
        stands for zeros.
        """
        (c, h), inputs = carry, self.kernel.shape[1] - self.recurrent.shape[1]
        if jnp.issubdtype(x.dtype, jnp.integer) and len(x) < FEW:
            product = self.rows.at[x].get(mode="fill", fill_value=0.0).T + dot_columns(self.recurrent, h)
        else:
            x = jnp.pad(x, ((0, inputs - len(x)), (0, 0))) if x.ndim > 1 else x == jnp.arange(inputs)[:, None]
            both = jnp.concatenate([x.astype(self.kernel.dtype), h.astype(self.kernel.dtype)])
            product = dot_columns(self.kernel, both)
        c, h, _ = lstm_cell(product + (self.bias if gates is None else gates), c)
        return c, h


def draws_at_once(cells: tuple[LSTMStep, ...], output: DenseStep, columns: int) -> bool:
    """Whether `draw_at_once` is to generate a batch of so many columns: one, on a CPU."""
    return all(len(cell.bias) % 8 == 0 for cell in cells) and native.draws(columns, output.kernel.dtype)


def draw_at_once(
    cells: tuple[LSTMStep, ...],
    output: DenseStep,
    carries: Carries,
    token: jax.Array,
    gates: jax.Array,
    noise: jax.Array,
) -> jax.Array:
    """One sequence, each token the likeliest by logits and `noise` [T, V, 1]: int32 [T, 1].

    `carries` and `token` [1] come before it, `gates` [4H, 1] are those of the first layer's constant inputs.
    """
    kernels = [cells[0].recurrent, *(cell.kernel for cell in cells[1:])]
    biases = [gates, *(cell.bias for cell in cells[1:])]
    layers = [(kernel, bias, *carry) for kernel, bias, carry in zip(kernels, biases, carries, strict=True)]
    return native.rollout(token, noise[:, :, 0], cells[0].rows, output, layers)[:, None]


def rounded_for(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A kernel in the products' format, unless `x` [..., X] has so few rows that to round it takes longer."""
    return rounded(kernel) if x.size // x.shape[-1] >= FEW else kernel


def chrono(key: jax.Array, units: int, memory: int) -> jax.Array:
    """Biases [4H] with which units forget after 1 to `memory` steps, where zeros let a trace halve every two steps.

    Forget gate log u, input gate −log u, u ~ U(1, memory) (Tallec & Ollivier 2018, eq. 16), less the run-time 1.
    """
    forget = jnp.log(jax.random.uniform(key, (units,), minval=1.0, maxval=max(memory - 1.0, 2.0)))
    zeros = jnp.zeros(units)
    return jnp.concatenate([-forget, zeros, forget - 1.0, zeros])
