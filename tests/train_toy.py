"""A network small enough to compile in no time and its data, for the tests of zoo.train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.training import Run, TrainState, fit, make_optimizer, make_train_step

CONFIG = {"architecture": "toy", "hidden": 8}
RECIPE = {"batch_size": 16, "optimizer": {"learning_rate": 1e-2, "clip_norm": 1.0}}
PLAYERS = {"encoder": {"patterns": ["encoder.*"], "every": 3, "b1": 0.5}, "others": {"patterns": ["*"]}}
TX = {
    "alone": make_optimizer(RECIPE["optimizer"]),
    "players": make_optimizer({**RECIPE["optimizer"], "players": PLAYERS}),
}


class Toy(nnx.Module):
    """Three layers, one of them in a list: y [B] from x [B, 4]."""

    def __init__(self, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(4, 8, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs)])
        self.head = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(self.layers[0](jnp.tanh(self.encoder(x)))))[..., 0]


def loss(model: Toy, batch: dict, key: jax.Array, step: jax.Array) -> tuple[jax.Array, dict]:
    """Mean squared error with a little noise, so that keys matter; one number, as random bits compile slowly."""
    error = model(batch["x"]) - batch["y"] + 0.01 * jax.random.uniform(key)
    return jnp.mean(error**2), {"mae": jnp.mean(jnp.abs(error))}


def batch(step: int, size: int = 16) -> dict[str, np.ndarray]:
    """The batch of a step, a function of nothing else."""
    x = np.random.default_rng((7, step)).normal(size=(size, 4)).astype(np.float32)
    return {"x": x, "y": np.sin(x.sum(-1))}


def batches(start: int, pause: float = 0.0) -> Iterator[dict[str, np.ndarray]]:
    """The batches from a step on; `pause` seconds between them leave time to be killed."""
    step = start
    while True:
        time.sleep(pause)
        yield batch(step)
        step += 1


@cache
def split() -> tuple[nnx.GraphDef, Any]:
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Toy(nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    return graphdef, jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)


@cache
def train_step(ema: float | None = None, tx: str = "alone") -> Callable:
    return make_train_step(split()[0], loss, TX[tx], ema=ema)


def new_state(tx: str = "alone", **options: Any) -> TrainState:
    return TrainState.create(split()[1], TX[tx], jax.random.key(1), **options)


@cache
def evaluate() -> Callable[[Any], dict[str, float]]:
    held_out = batch(10**6, 64)

    @jax.jit
    def mse(params: Any) -> jax.Array:
        return jnp.mean((nnx.merge(split()[0], params)(held_out["x"]) - held_out["y"]) ** 2)

    return lambda params: {"loss": float(mse(params))}


def train(path: Path, steps: int = 40, pause: float = 0.0, tx: str = "alone", **options: Any) -> TrainState:
    """Start the run at `path`, or go on with it; `tx` names one of TX."""
    often = {"evaluate_every": 20, "checkpoint_every": 10, "log_every": 5, "evaluate": evaluate()}
    with Run.create_or_resume(path, CONFIG, RECIPE) as run:
        data = lambda start: batches(start, pause)  # noqa: E731
        return fit(new_state(tx, ema=True), train_step(0.9, tx), data, steps=steps, run=run, **often | options)


def identical(a: Any, b: Any) -> bool:
    """Whether two pytrees of arrays or keys have the same bits."""
    raw = lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf  # noqa: E731
    same = jax.tree.map(lambda x, y: np.asarray(raw(x)).tobytes() == np.asarray(raw(y)).tobytes(), a, b)
    return all(jax.tree.leaves(same))
