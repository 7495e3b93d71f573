"""An LSTM layer that attends to its own last outputs: TensorFlow's `AttentionCellWrapper`, as Magenta's RNNs have it.

Cheng, Dong, Lapata 2016, arXiv:1601.06733. `B` batch, `T` steps, `X` input width, `H` units, `L` outputs attended to.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.nn.precision import dot, rounded
from zoo.nn.recurrent import LSTM, Carry, Dense, DenseStep, LSTMStep


class Attended(NamedTuple):
    """State of an attentive layer.

    Attributes:
      carry: of its LSTM, columns [H, B].
      out: float32 [H, B], the last output.
      heard: float32 [H, B], what attention gave last.
      window, features: float32 [B, L, H], the last outputs, newest last, and the same times attention's kernel.
    """

    carry: Carry
    out: jax.Array
    heard: jax.Array
    window: jax.Array
    features: jax.Array


class AttentiveLSTM(nnx.Module):
    """An LSTM layer that attends to its own last L outputs (TensorFlow's `AttentionCellWrapper`)."""

    def __init__(self, inputs: int, units: int, length: int, *, gain: float, rngs: nnx.Rngs) -> None:
        self.length, self.units = length, units
        self.input = Dense(inputs + units, inputs, rngs=rngs)
        self.input.kernel[...] = self.input.kernel[...].at[:inputs].multiply(gain)  # not of what attention gives
        self.cell = LSTM(inputs, units, memory=None, rngs=rngs)
        self.query = Dense(2 * units, units, rngs=rngs)
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (units, units)))
        self.score = nnx.Param(jax.nn.initializers.normal(units**-0.5)(rngs.params(), (units,)))
        self.output = Dense(2 * units, units, rngs=rngs)

    def columns(self, batch: int) -> Attended:
        """The state before the first step: outputs of zero, which are attended to as well."""
        window, none = jnp.zeros((batch, self.length, self.units)), jnp.zeros((self.units, batch))
        return Attended(self.cell.columns(batch), none, none, window, window)

    def stepper(self) -> AttentiveStep:
        """The same, one step at a time; to be made outside the loop that it is for."""
        steps = self.input.stepper(), self.cell.stepper(), self.query.stepper(), self.output.stepper()
        return AttentiveStep(*steps, rounded(self.kernel[...]), self.score[...])

    def __call__(self, x: jax.Array) -> jax.Array:
        """All steps from the beginning, `x` [T, B, X] → [T, B, H]."""
        step = self.stepper()

        @jax.checkpoint
        def body(state: Attended, x: jax.Array) -> tuple[Attended, jax.Array]:
            state = step(x, state)
            return state, state.out

        out = jax.lax.scan(body, self.columns(x.shape[1]), x.swapaxes(1, 2))[1]  # [T, H, B]
        return out.swapaxes(1, 2)


class AttentiveStep(NamedTuple):
    """An attentive layer on columns. `kernel` [H, H], `score` [H]."""

    input: DenseStep
    cell: LSTMStep
    query: DenseStep
    output: DenseStep
    kernel: jax.Array
    score: jax.Array

    def __call__(self, x: jax.Array, state: Attended) -> Attended:
        """One step, `x` floats [X, B] or tokens [B]."""
        x = jax.nn.one_hot(x, len(self.input.bias), axis=0) if x.ndim == 1 else x
        carry = self.cell(self.input(jnp.concatenate([x, state.heard])), state.carry)
        query = self.query(jnp.concatenate(carry)).T[:, None]  # [B, 1, H]
        scores = jnp.sum(self.score * jnp.tanh(state.features + query), axis=2)
        heard = jnp.einsum("bl,blh->hb", jax.nn.softmax(scores, axis=1), state.window)
        out = self.output(jnp.concatenate([carry[1], heard]))
        window = jnp.concatenate([state.window[:, 1:], out.T[:, None]], axis=1)
        features = jnp.concatenate([state.features[:, 1:], dot(out.T, self.kernel)[:, None]], axis=1)
        return Attended(carry, out, heard, window, features)
