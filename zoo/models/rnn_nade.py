"""RNN-NADE: polyphonic music one time step after another, and each step one key after another.

Boulanger-Lewandowski, Bengio, Vincent, ICML 2012, arXiv:1206.6392 (section 6); the distribution of a step is NADE
(Larochelle & Murray, AISTATS 2011). The recurrent network is the paper's plain one ("rnn") or an LSTM ("lstm").

A recurrent network reads the steps before t and gives both biases of a NADE, which gives the probability of the keys
of step t, each given those below it. The likelihood is exact. NADE's hidden units change only where a key is down, so
there are no more than M + 1 different ones in a step with M keys down, and all 88 conditionals of all steps are two
matrix products; the definition is a loop over keys.

Shapes: `B` batch, `T` steps, `D` keys, `R` recurrent units, `H` units of the NADE, `M` keys that may be down at once.
Rolls are int8 [B, T, D]: 1 down, 0 up, −1 throughout a step that does not count (past the end of a piece).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.dropout import Dropout
from zoo.nn.precision import dot, rounded
from zoo.nn.recurrent import LSTM, Dense


@dataclass(frozen=True)
class Config:
    """Numbers of one RNN-NADE. The defaults are the paper's for the JSB chorales, with an LSTM.

    Attributes:
      steps: T of the windows.
      crop: steps that it learns from at a time, anywhere in a window; 0 for all.
      keys: D.
      cell: "lstm" or "rnn".
      recurrent, hidden: R and H.
      polyphony: M.
      keep: share that dropout keeps in training of the network's inputs and of its state where the NADE reads it.
    """

    steps: int = 160
    crop: int = 0
    keys: int = 88
    cell: str = "lstm"
    recurrent: int = 100
    hidden: int = 150
    polyphony: int = 15
    keep: float = 1.0

    def __post_init__(self) -> None:
        if self.cell not in ("lstm", "rnn"):
            raise ValueError(f"cell={self.cell!r} is neither lstm nor rnn")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(steps=6, keys=10, recurrent=12, hidden=8, polyphony=4)


class Elman(nnx.Module):
    """The paper's recurrence, u' = tanh(v W + u U + b). Stands where an LSTM would, with a carry of (u, u)."""

    def __init__(self, inputs: int, units: int, *, rngs: nnx.Rngs) -> None:
        rows = jax.nn.initializers.lecun_normal()(rngs.params(), (inputs, units))
        recurrent = jax.nn.initializers.orthogonal()(rngs.params(), (units, units))
        self.kernel = nnx.Param(jnp.concatenate([rows, recurrent]))
        self.bias = nnx.Param(jnp.zeros(units))

    def step(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """`x` [B, X], `u` [B, R] → the next u."""
        return jnp.tanh(dot(jnp.concatenate([x, u], axis=-1), rounded(self.kernel[...])) + self.bias[...])


class Nade(nnx.Module):
    """p(v) = Π p(v_i | v_<i) over binary vectors, its biases given from outside (eq. 1 and 2 of Larochelle & Murray).

    p(v_i = 1 | v_<i) = σ(b_i + V_i · h_i),  h_i = σ(c + Σ_{j<i} W_j v_j)
    """

    def __init__(self, keys: int, hidden: int, polyphony: int, *, rngs: nnx.Rngs) -> None:
        normal = jax.nn.initializers.normal(hidden**-0.5)
        self.polyphony = polyphony
        self.into = nnx.Param(normal(rngs.params(), (keys, hidden)))  # W
        self.out = nnx.Param(normal(rngs.params(), (hidden, keys)))  # V

    def logits(self, v: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
        """log-odds of v_i = 1 given v_<i, for all i: `v` [N, D], `b` [N, D], `c` [N, H] → [N, D]."""
        v = v.astype(jnp.float32)
        below = jnp.cumsum(v, axis=-1) - v  # keys down below each
        nth = below[:, None, :] == jnp.arange(self.polyphony + 1)[:, None]  # [N, M + 1, D]
        added = dot(nth[:, :-1] * v[:, None, :], rounded(self.into[...]))  # [N, M, H]: W of the key that is nth down
        before = jnp.cumsum(jnp.pad(added, ((0, 0), (1, 0), (0, 0))), axis=1)  # [N, M + 1, H]
        hidden = jax.nn.sigmoid(c[:, None, :] + before)
        every = dot(hidden, rounded(self.out[...]))  # [N, M + 1, D]: each key after any number of keys
        return b + jnp.sum(jnp.where(nth, every, 0.0), axis=1)

    def draw(self, b: jax.Array, c: jax.Array, noise: jax.Array, temperature: jax.Array) -> jax.Array:
        """Vectors drawn from p: `b` [B, D], `c` [B, H], `noise` [B, D] logistic → float32 [B, D] of 0 and 1.

        Key i is down where its log-odds + τ · noise is above 0. Until the next key that is down the hidden units stay
        as they are, so one pass finds it, and M passes find all: the same vector as going key by key.
        """
        into, out = self.into[...], self.out[...]
        place = jnp.arange(b.shape[-1])

        def next_key(_: int, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            v, pre, last = carry
            odds = b + jax.nn.sigmoid(pre) @ out
            candidates = (odds + temperature * noise > 0) & (place > last[:, None])
            found = jnp.any(candidates, axis=-1)
            key = jnp.where(found, jnp.argmax(candidates, axis=-1), b.shape[-1])
            row = jax.nn.one_hot(key, b.shape[-1])  # zeros where none was found
            return v + row, pre + into.at[key].get(mode="fill", fill_value=0.0), key

        start = (jnp.zeros_like(b), c, jnp.full(b.shape[0], -1))
        return jax.lax.fori_loop(0, self.polyphony, next_key, start)[0]


class RnnNade(nnx.Module):
    """The whole model (figure 2 of the paper, with NADE for the RBM)."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.recurrent: LSTM | Elman
        if config.cell == "lstm":
            self.recurrent = LSTM(config.keys, config.recurrent, memory=16, rngs=rngs)
        else:
            self.recurrent = Elman(config.keys, config.recurrent, rngs=rngs)
        self.to_visible = Dense(config.recurrent, config.keys, rngs=rngs)  # b_t, eq. 10 with W_uv
        self.to_hidden = Dense(config.recurrent, config.hidden, rngs=rngs)  # c_t, eq. 9 with W_uh
        self.nade = Nade(config.keys, config.hidden, config.polyphony, rngs=rngs)

    def zeros(self, batch: int) -> tuple[jax.Array, jax.Array]:
        """The state before the first step."""
        return jnp.zeros((batch, self.config.recurrent)), jnp.zeros((batch, self.config.recurrent))

    def states(self, v: jax.Array, drop: Dropout) -> jax.Array:
        """The state u before each step, from the steps before; zero before the first: `v` [B, T, D] → [B, T, R]."""
        inputs = jnp.maximum(v, 0).astype(jnp.float32).swapaxes(0, 1)[:-1]  # [T − 1, B, D]
        inputs = drop(inputs)
        carry = self.zeros(v.shape[0])
        if isinstance(self.recurrent, LSTM):
            after, _ = self.recurrent(inputs, self.recurrent.constant_gates(), carry)
        else:
            cell = self.recurrent
            after = jax.lax.scan(lambda u, x: (cell.step(x, u),) * 2, carry[1], inputs)[1]
        return jnp.concatenate([carry[1][None], after]).swapaxes(0, 1)

    def logits(self, v: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """log-odds of every key given the keys below it and all steps before: `v` [B, T, D] → float32 [B, T, D]."""
        drop = Dropout(self.config.keep, key)
        u = drop(self.states(v, drop))
        rows = u.reshape(-1, u.shape[-1])
        flat = jnp.maximum(v, 0).reshape(-1, v.shape[-1])
        return self.nade.logits(flat, self.to_visible(rows), self.to_hidden(rows)).reshape(v.shape)


def log_likelihood(model: RnnNade, v: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """(log p of each step given those before, in nats, 0 where it doesn't count; whether it counts): [B, T] each."""
    logits = model.logits(v, key)
    down = (v > 0).astype(jnp.float32)
    counts = (v[..., 0] >= 0).astype(jnp.float32)
    return jnp.sum(down * logits - jax.nn.softplus(logits), axis=-1) * counts, counts


def loss(
    model: RnnNade, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """−log p of a step in nats, the mean over all steps of the batch, or its crops, that count."""
    x, crop = batch["x"], model.config.crop
    crop_key, drop_key = jax.random.split(key)
    if 0 < crop < x.shape[1]:
        spare = jnp.maximum(jnp.sum(x[..., 0] >= 0, axis=1) - crop, 0)
        first = jnp.floor(jax.random.uniform(crop_key, spare.shape) * (spare + 1)).astype(jnp.int32)
        x = jax.vmap(lambda window, at: jax.lax.dynamic_slice_in_dim(window, at, crop))(x, first)
    likelihood, counts = log_likelihood(model, x, drop_key)
    return -jnp.sum(likelihood) / jnp.maximum(jnp.sum(counts), 1.0), {}


def evaluate(model: RnnNade, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """`loss` without dropout, exact. `accuracy`: the paper's, TP / (TP + FP + FN) of the keys likelier down than up.

    The accuracy here knows the keys below each at its own step, where the paper's takes samples of whole steps.
    """
    x = batch["x"]
    likelihood, counts = log_likelihood(model, x)
    guessed = (model.logits(x) > 0) & (counts > 0)[..., None]
    right, either = jnp.sum(guessed & (x > 0)), jnp.sum(guessed | (x > 0))
    return {
        "loss": -jnp.sum(likelihood) / jnp.maximum(jnp.sum(counts), 1.0),
        "accuracy": right / jnp.maximum(either, 1.0),
    }


# --- inference --------------------------------------------------------------------------------------------------------

State = tuple[jax.Array, jax.Array]  # the carry of the recurrence, [B, R] each


def read(model: RnnNade, v: jax.Array, state: State | None = None) -> tuple[State, jax.Array]:
    """Given steps `v` [B, S, D] from the beginning or `state` on: (the state after them, log p of each [B, S])."""

    def step(state: State, v: jax.Array) -> tuple[State, jax.Array]:
        b, c = model.to_visible(state[1]), model.to_hidden(state[1])
        logits = model.nade.logits(v, b, c)
        return advance(v.astype(jnp.float32), state), jnp.sum(v * logits - jax.nn.softplus(logits), axis=-1)

    advance = stepper(model)
    begin = model.zeros(len(v)) if state is None else state
    after, likelihood = jax.lax.scan(step, begin, jnp.maximum(v, 0).swapaxes(0, 1))
    return after, likelihood.swapaxes(0, 1)


def write(
    model: RnnNade, state: State, t: jax.Array, key: jax.Array, temperature: jax.Array
) -> tuple[State, jax.Array]:
    """The steps of numbers `t` int32 [S], one after another in one compiled loop: (state after them, int32 [B, S, D]).

    Step t is drawn with `fold_in(key, t)`, so that parts make the same piece as one call.
    """

    def step(state: State, t: jax.Array) -> tuple[State, jax.Array]:
        b, c = model.to_visible(state[1]), model.to_hidden(state[1])
        noise = jax.random.logistic(jax.random.fold_in(key, t), b.shape)
        v = model.nade.draw(b, c, noise, temperature)
        return advance(v, state), v.astype(jnp.int32)

    advance = stepper(model)
    state, v = jax.lax.scan(step, state, t)
    return state, v.swapaxes(0, 1)


def stepper(model: RnnNade) -> Callable[[jax.Array, State], State]:
    """A function that takes the recurrence one step on: `v` float32 [B, D], state → state."""
    if isinstance(model.recurrent, LSTM):
        advance = model.recurrent.stepper()
        return lambda v, state: jax.tree.map(jnp.transpose, advance(v.T, (state[0].T, state[1].T)))
    cell = model.recurrent

    def step(v: jax.Array, state: State) -> State:
        u = cell.step(v, state[1])
        return u, u

    return step


def go_on(model: RnnNade, batch: dict[str, Any], key: jax.Array) -> jax.Array:
    """What comes after the rolls `x` [B, S, D], which may be empty: int32 [B, len(t), D]."""
    state, _ = read(model, batch["x"])
    return write(model, state, batch["t"], key, batch["temperature"])[1]


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch of rolls, the last steps of the first one past its end; numbers of the steps to go on for."""
    x = (rng.random((batch, config.steps, config.keys)) < 0.5 / math.sqrt(config.keys)).astype(np.int8)
    x *= np.cumsum(x, axis=-1) <= config.polyphony
    x[0, config.steps // 2 :] = -1
    return {"x": x, "t": np.arange(config.steps, dtype=np.int32), "temperature": np.float32(1.0)}


ARCHITECTURE = Architecture(
    name="rnn-nade",
    config=Config,
    module=RnnNade,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={
        "forward": lambda model, batch, key: model.logits(batch["x"]),
        "read": lambda model, batch, key: read(model, batch["x"])[1],
        "write": go_on,
    },
    task="rolls",
    tiny={
        "lstm": Config.tiny(),
        "rnn": replace(Config.tiny(), cell="rnn", keep=0.9, crop=4),
    },
)
