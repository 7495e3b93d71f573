"""Training: a state, a step, a loop, a directory. Nothing here knows an architecture; a loss is all it takes.

    graphdef, params = nnx.split(model)
    tx = make_optimizer(recipe["optimizer"])  # adam(w), schedules, clipping, accumulation
    state = TrainState.create(params, tx, jax.random.key(0), ema=True)  # freeze=["encoder.*"], adapters=lora_init(…)
    step = make_train_step(graphdef, loss, tx, ema=0.999)  # loss(model, batch, key, step) → (scalar, scalars)
    with Run.create_or_resume("runs/mine", config, recipe) as run:
        state = fit(state, step, batches, steps=10_000, run=run, evaluate=evaluate)
    model = nnx.merge(graphdef, state.weights)

The same program again, after a kill at any moment, goes on bit for bit. `shard` and `shard_batch` place state and
batches on all devices; step and loop stay the same.

params.py     parameters by dotted name, and patterns over them
lora.py       low-rank adapters
state.py      `TrainState`
step.py       `make_train_step`
optimizer.py  `make_optimizer`, `make_schedule`
muon.py       the optimiser of that name
metrics.py    metrics.jsonl and its curve
runs.py       run directories (the only file that imports Orbax)
fit.py        `fit`
sharding.py   a mesh and placements
"""

from zoo.training.fit import fit
from zoo.training.lora import Adapters, lora_init, lora_merge
from zoo.training.optimizer import make_optimizer, make_schedule
from zoo.training.runs import Run
from zoo.training.sharding import data_mesh, shard, shard_batch
from zoo.training.state import TrainState
from zoo.training.step import make_train_step

__all__ = [
    "Adapters",
    "Run",
    "TrainState",
    "data_mesh",
    "fit",
    "lora_init",
    "lora_merge",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "shard",
    "shard_batch",
]
