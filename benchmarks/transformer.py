"""Times our Transformer as `peers/pytorch/transformer.py` times Hugging Face's: `python -m benchmarks.transformer`.

The same shape, 6 layers of 512 units and 8 heads, a vocabulary of 310, with relative attention, which the peer does
without; random weights. Compare with the peer in one run and on the same cores (`taskset -c 0`, OMP_NUM_THREADS=1);
where others compute on them too, compare processor seconds. `limit_s` is what reading weights and caches alone takes,
at the speed at which one core sums up a large array in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from zoo.models import music_transformer
from zoo.models.music_transformer import ARCHITECTURE, Config, MusicTransformer
from zoo.nn.precision import products
from zoo.nn.sampling import Sampling, rollout
from zoo.training import TrainState, make_train_step

CHUNK, CAPACITY = 64, 256  # as zoo.tasks.continuation has them


def config(tokens: int) -> Config:
    """The shape that is compared."""
    shape = {"units": 512, "layers": 6, "heads": 8, "hidden": 2048, "relations": ("index",), "reach": 512}
    return Config(classes=310, steps=tokens, voices=1, cycle=1, keep=1.0, **shape)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformer", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=[1, 8])
    parser.add_argument("--train", action="store_true", help="the training step too")
    options = parser.parse_args()
    graph, params = nnx.split(MusicTransformer(config(options.tokens), rngs=nnx.Rngs(0)))
    rate = reading_rate()
    for size in options.batches:
        for precision in ("float32", "bfloat16"):
            call, moved = decoder(graph, params, size, options.tokens, precision)
            report("decode", precision, size, call, {"limit_s": moved / rate})
    if options.train:
        for precision in ("float32", "bfloat16"):
            report("train", precision, 8, trainer(graph, params, config(options.tokens), precision), {})


def decoder(graph: Any, params: Any, size: int, tokens: int, precision: str) -> tuple[Callable[[], Any], float]:
    """Draws `tokens` tokens for `size` sequences, in chunks and with a cache that grows as the task's; bytes read."""

    @partial(jax.jit, donate_argnums=1)
    def write(params: Any, state: Any, token: jax.Array, first: jax.Array) -> Any:
        with products(precision):
            model = nnx.merge(graph, params)
            return rollout(model.stepper(), state, token, jax.random.key(0), first, CHUNK, Sampling(jnp.float32(1.0)))

    model = nnx.merge(graph, params)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    moved = 0.0
    capacity = CAPACITY
    for at in range(0, tokens, CHUNK):
        capacity *= 2 if at + CHUNK > capacity else 1
        moved += CHUNK * (weights + sum(leaf.nbytes for leaf in jax.tree.leaves(shapes(model, size, capacity))))

    def call() -> Any:
        capacity = CAPACITY
        state = music_transformer.start(model, size, capacity)
        token = jnp.full(size, 310, jnp.int32)
        for at in range(0, tokens, CHUNK):
            if at + CHUNK > capacity:
                capacity *= 2
                state = music_transformer.grow(state, capacity)
            _, (state, token) = write(params, state, token, jnp.int32(at))
        return jax.block_until_ready(token)

    return call, moved


def shapes(model: MusicTransformer, size: int, capacity: int) -> Any:
    """What a state is made of, without making it."""
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
        jax.eval_shape(lambda: music_transformer.start(model, size, capacity)),
    )


def trainer(graph: Any, params: Any, config: Config, precision: str) -> Callable[[], Any]:
    """One step of Adam on random tokens."""
    tx = optax.adam(1e-3)

    def loss(*args: Any) -> Any:
        with products(precision):
            return ARCHITECTURE.loss(*args)

    step = make_train_step(graph, loss, tx)
    state = [TrainState.create(params, tx, jax.random.key(0))]
    batch = music_transformer.example(config, 8, np.random.default_rng(0))

    def call() -> Any:
        state[0], metrics = step(state[0], batch)
        return jax.block_until_ready(metrics)

    return call


def reading_rate() -> float:
    """Bytes a second that summing up 256 MB reads, the best of five."""
    x = jnp.ones(1 << 26)
    total = jax.jit(jnp.sum)
    total(x).block_until_ready()
    best = min(timed(lambda: total(x).block_until_ready())[1] for _ in range(5))
    return float(x.nbytes / best)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of a call."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def report(operation: str, kind: str, size: int, call: Callable[[], Any], more: dict[str, float]) -> None:
    """Calls once uncounted, once counted, and prints a JSON line."""
    call()
    seconds, used = timed(call)
    row = {"system": f"zoo, jax {jax.__version__}", "operation": operation, "kind": kind, "batch": size}
    print(json.dumps(row | {"seconds": seconds, "processor_s": used} | more), flush=True)


if __name__ == "__main__":
    main()
