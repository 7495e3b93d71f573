"""Sequence models beside PyTorch's: `python -m benchmarks.sequences`.

A Transformer of 6 layers of 512 units and 8 heads, vocabulary 310, with relative attention, which the peer, Hugging
Face's GPT-2 of the same size, does without: decoding and the training step. And Performance RNN's three LSTM layers of
512 units, event by event, beside three loops in PyTorch. Random weights, float32 unless the operation says otherwise.

Every contestant is a process of its own on the same core with one thread, and they take turns, so that whatever else
the machine does hits all alike; time is the processor's, the median of the turns after the first. Rows go to
`sequences.csv` in place of the operation's older ones. `limit_s` is what reading weights and caches alone takes, at
the speed at which the core sums up a large array in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks import table
from benchmarks.contest import MEMORY, Contestant, take_turns
from benchmarks.peers.turns import answer
from zoo.models import event_rnn, music_transformer
from zoo.models.music_transformer import ARCHITECTURE, Config, MusicTransformer
from zoo.nn.precision import products
from zoo.nn.sampling import Sampling, rollout
from zoo.tasks import bench
from zoo.training import TrainState, make_train_step

HERE = Path(__file__).parent
FIELDS = ("device", "system", "version", "operation", "rounds", "processor_s", "times_ours", "limit_s")
CHUNK, CAPACITY = 64, 256  # as zoo.tasks.continuation has them
TOKENS, EVENTS = 1024, 256
TRIALS = {  # our operation: the peer's
    "lstm": ("lstm cells", "lstm layers", "lstm jit"),
    "lstm bfloat16": ("lstm cells bfloat16", "lstm layers bfloat16", "lstm jit bfloat16"),
    "decode 1": ("decode 1 dynamic", "decode 1 static"),
    "decode 8": ("decode 8 static",),
    "decode 1 bfloat16": ("decode 1 dynamic bfloat16", "decode 1 static bfloat16"),
    "decode 8 bfloat16": ("decode 8 static bfloat16",),
    "train float32": ("train float32",),
    "train bfloat16": ("train bfloat16",),
}


def config(tokens: int) -> Config:
    """The shape that is compared."""
    shape = {"units": 512, "layers": 6, "heads": 8, "hidden": 2048, "relations": ("index",), "reach": 512}
    return Config(classes=310, steps=tokens, voices=1, cycle=1, keep=1.0, **shape)  # type: ignore[arg-type]


def serve(operation: str) -> None:
    """Our side of the contest."""
    kind, *size = operation.split()
    if kind == "lstm":
        return answer({operation: lstm(*size)}, f"jax {jax.__version__}")
    graph, params = nnx.split(MusicTransformer(config(TOKENS), rngs=nnx.Rngs(0)))
    if kind == "train":
        return answer({operation: trainer(graph, params, config(TOKENS), size[0])}, f"jax {jax.__version__}")
    call, moved = decoder(graph, params, int(size[0]), TOKENS, *size[1:])
    return answer({operation: call}, f"jax {jax.__version__}, limit {moved / reading_rate():.4g}")


def lstm(precision: str = "float32") -> Callable[[], Any]:
    """Draws EVENTS events from three layers of 512."""
    shape = event_rnn.Config(classes=308, steps=EVENTS, units=(512, 512, 512), keep=1.0)
    graph, params = nnx.split(event_rnn.EventRNN(shape, rngs=nnx.Rngs(0)))
    x = jnp.zeros((1, EVENTS), jnp.int32)

    @jax.jit
    def write(params: Any, prepared: Any, key: jax.Array) -> jax.Array:
        with products(precision):
            return event_rnn.generate(nnx.merge(graph, params), x, key, Sampling(jnp.float32(1.0)), prepared)

    with products(precision):
        prepared = bench.prepared(event_rnn.ARCHITECTURE, graph, params)
    return lambda: write(params, prepared, jax.random.key(0)).block_until_ready()


def decoder(
    graph: Any, params: Any, size: int, tokens: int, precision: str = "float32"
) -> tuple[Callable[[], Any], float]:
    """Draws `tokens` tokens for `size` sequences, in chunks and with a cache that grows as the task's; bytes read."""

    @partial(jax.jit, donate_argnums=2)
    def write(params: Any, prepared: Any, state: Any, token: jax.Array, first: jax.Array) -> Any:
        with products(precision):
            step = nnx.merge(graph, params).stepper(prepared)
            return rollout(step, state, token, jax.random.key(0), first, CHUNK, Sampling(jnp.float32(1.0)))

    model = nnx.merge(graph, params)
    with products(precision):
        prepared = bench.prepared(ARCHITECTURE, graph, params)
    weights = sum(leaf.size * jnp.dtype(precision).itemsize for leaf in jax.tree.leaves(params))
    moved = 0.0
    capacity = CAPACITY
    for at in range(0, tokens, CHUNK):
        capacity *= 2 if at + CHUNK > capacity else 1
        moved += CHUNK * (weights + size_of(model, size, capacity))

    def call() -> Any:
        capacity = CAPACITY
        state = music_transformer.start(model, size, capacity)
        token = jnp.full(size, 310, jnp.int32)
        for at in range(0, tokens, CHUNK):
            if at + CHUNK > capacity:
                capacity *= 2
                state = music_transformer.grow(state, capacity)
            _, (state, token) = write(params, prepared, state, token, jnp.int32(at))
        return jax.block_until_ready(token)

    return call, moved


def size_of(model: MusicTransformer, size: int, capacity: int) -> int:
    """Bytes of a state, without making it."""
    state = jax.eval_shape(lambda: music_transformer.start(model, size, capacity))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


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
    times = []
    for _ in range(5):
        begin = time.process_time()
        total(x).block_until_ready()
        times.append(time.process_time() - begin)
    return float(x.nbytes / min(times))


def contest(operation: str, rounds: int, python: Path) -> list[dict[str, Any]]:
    """A row for each contestant; the first turn of each, which compiles, isn't counted."""
    ours = [sys.executable, "-m", "benchmarks.sequences", "--serve", operation]
    peer = [str(python), str(HERE / "peers" / "pytorch" / "sequences.py"), operation.split()[0]]
    field = [Contestant("zoo", operation, ours)]
    field += [Contestant(f"PyTorch, {name}", name, peer) for name in TRIALS[operation]]
    take_turns(field, rounds, operation, MEMORY)
    times = [statistics.median(turn["processor"] for turn in contestant.turns[1:]) for contestant in field]
    rows: list[dict[str, Any]] = []
    for contestant, seconds in zip(field, times, strict=True):
        version, *limit = contestant.turns[0]["version"].split(", limit ")
        row: dict[str, Any] = {
            "device": bench.device_name(),
            "system": contestant.system,
            "version": version,
            "operation": operation,
        }
        row |= {"rounds": rounds, "processor_s": f"{seconds:.4g}", "times_ours": f"{seconds / times[0]:.3g}"}
        rows.append(row | {"limit_s": "".join(limit)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences", description=__doc__)
    parser.add_argument("operations", nargs="*", help=f"of {', '.join(TRIALS)}; by default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    default = HERE / "peers" / "pytorch" / ".venv" / "bin" / "python"
    parser.add_argument("--python", type=Path, default=default, help="a Python that has torch and transformers")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    os.sched_setaffinity(0, {options.core})  # children inherit it
    for operation in options.operations or TRIALS:
        rows = contest(operation, options.rounds, options.python)
        table.put(rows, HERE / "sequences.csv", ("device", "operation"), FIELDS)
        for row in rows:
            print(row)
    return None


if __name__ == "__main__":
    main()
