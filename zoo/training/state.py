"""`TrainState`: all that a training step reads and writes, as one pytree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from zoo.errors import TrainingError
from zoo.training.lora import Adapters, lora_merge
from zoo.training.params import Params, as_params, combine, partition


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state after `step` steps."""

    step: jax.Array  # int32 []
    bad_steps: jax.Array  # int32 []; steps tried since the loss stopped being finite, 0 while all is well
    params: Params | Adapters  # what is trained
    opt_state: Any
    key: jax.Array  # PRNG key []; step k draws from fold_in(key, k)
    ema: Params | Adapters | None = None  # moving average of params
    frozen: Params | None = None  # what is read but not trained

    @classmethod
    def create(
        cls,
        params: nnx.State | Params,
        tx: optax.GradientTransformation,
        key: jax.Array,
        *,
        ema: bool = False,
        freeze: Sequence[str] = (),
        adapters: Adapters | None = None,
    ) -> TrainState:
        """The state before the first step. Arrays are copied, since a step donates its state's buffers.

        Args:
            params: the model's nnx.Param state (`graphdef, params = nnx.split(model)`).
            tx: the optimiser that `make_train_step` is given.
            key: typed PRNG key (`jax.random.key(seed)`).
            ema: keep a moving average of the parameters.
            freeze: patterns over dotted names (`encoder.*`) of parameters that stay as they are.
            adapters: from `lora_init`; then only they are trained.
        """
        if adapters is not None and freeze:
            raise TrainingError("with LoRA all but the adapters is frozen already; give adapters or freeze, not both")
        trained: Params | Adapters = as_params(params)
        frozen = None
        if adapters is not None:
            trained, frozen = adapters, as_params(params)
        elif freeze:
            trained, frozen = partition(as_params(params), freeze)

        @jax.jit  # one compilation, not one for each shape
        def new(trained: Params | Adapters, frozen: Params | None, key: jax.Array) -> TrainState:
            zero, average = jnp.zeros((), jnp.int32), trained if ema else None
            return jax.tree.map(jnp.copy, cls(zero, zero, trained, tx.init(trained), key, average, frozen))

        return new(trained, frozen, key)

    @property
    def weights(self) -> Params:
        """The whole model's parameters, to be used: the moving average if kept, with what is frozen or adapted.

        They may be the state's own arrays: copy what is to outlive the next step, which donates them.
        """
        return assemble(self.params if self.ema is None else self.ema, self.frozen)


def assemble(trained: Params | Adapters, frozen: Params | None) -> Params:
    """The whole model's parameters from what is trained and what is not."""
    if isinstance(trained, Adapters):
        return lora_merge(frozen or {}, trained)
    return trained if frozen is None else combine(trained, frozen)
