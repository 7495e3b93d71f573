"""The training step: one jitted function from (state, batch) to (state, metrics)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from zoo.errors import TrainingError
from zoo.training.state import TrainState, assemble

Batch = Mapping[str, Any]  # name → array [B, ...]
Metrics = dict[str, jax.Array]  # name → []
Loss = Callable[[nnx.Module, Batch, jax.Array, jax.Array], tuple[jax.Array, Metrics]]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    graphdef: nnx.GraphDef, loss: Loss, tx: optax.GradientTransformation, *, ema: float | None = None
) -> TrainStep:
    """A jitted step; it donates the state it is given, which must not be used again.

    Args:
        graphdef: from `nnx.split(model)`; all of the model's variables are nnx.Param.
        loss: (model, batch, key, step) → (scalar, scalar metrics).
        tx: the optimiser, the one given to `TrainState.create`.
        ema: decay of the moving average, for a state created with `ema=True`; early on min(ema, (1 + k) / (10 + k)),
            so that the average does not remember the random start (as TensorFlow's ExponentialMovingAverage).

    The metrics gain "loss", "grad_norm" (before clipping) and "bad_steps". Once loss or gradient is not finite, the
    state stays as it was before that step, whatever batches follow, and only `bad_steps` counts on: nothing has to be
    read back at each step, and whoever looks later finds the last good state.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if (ema is None) != (state.ema is None):
            raise TrainingError(
                "a moving average needs both TrainState.create(…, ema=True) and make_train_step(…, ema=…)"
            )
        key = jax.random.fold_in(state.key, state.step)

        def objective(params: Any) -> tuple[jax.Array, Metrics]:
            return loss(nnx.merge(graphdef, assemble(params, state.frozen)), batch, key, state.step)

        (value, metrics), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.ema
        if ema is not None:
            decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
            average = optax.incremental_update(params, average, 1.0 - decay)

        grad_norm = optax.tree.norm(grads)
        good = jnp.isfinite(value) & jnp.isfinite(grad_norm) & (state.bad_steps == 0)
        after = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state, ema=average)
        # A choice for each array, not a lax.cond: a GPU would wait for the predicate before it takes the next step.
        state = jax.tree.map(lambda new, old: new if new is old else jnp.where(good, new, old), after, state)
        state = dataclasses.replace(state, bad_steps=state.bad_steps + ~good)
        return state, {**metrics, "loss": value, "grad_norm": grad_norm, "bad_steps": state.bad_steps}

    return jax.jit(train_step, donate_argnums=0)
