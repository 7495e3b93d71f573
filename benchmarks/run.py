"""Measures models of the zoo and their peers in one run: `python -m benchmarks.run`.

Every contestant is a process of its own, with the same cores, as many threads, and memory held alike, and they take
turns of half a second: whatever else the machine is doing hits all alike. A peer that isn't installed (see
`peers/README.md`) is left out. Compilation, memory and the core's best matrix product are those of `zoo bench`, which
goes first. Rows go to `results/<device>.csv` in place of the operation's older ones, a plot beside it; `python -m
benchmarks.table` makes the README's table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from benchmarks import table
from benchmarks.contest import MEMORY, Contestant, take_turns
from benchmarks.peers.turns import answer
from zoo.nn import native
from zoo.nn.precision import products
from zoo.tasks import bench
from zoo.tasks.model import find

HERE = Path(__file__).parent
PEERS = HERE / "peers"
BATCHES = (1, 64, 512)
PRECISIONS = {"zoo": "float32", "zoo bfloat16": "bfloat16"}
WAYS = {  # in which the PyTorch twin runs each operation
    "encode": ("eager",),
    "forward": ("eager",),
    "decode": ("eager", "jit", "jit bfloat16"),
    "train": ("eager", "one pass", "eager bfloat16", "one pass bfloat16"),
}


def serve(model: str, operation: str, size: int, precision: str, seconds: float) -> None:
    """Our side of the contest."""
    found = find(model)
    with products(precision):
        function, args = bench.program(found.architecture, found.config, operation, size)
        compiled = function.lower(*args).compile()  # type: ignore[attr-defined]
    state = [args[0]]

    def call() -> None:
        result = jax.block_until_ready(compiled(state[0], *args[1:]))
        if operation == "train":
            state[0] = result[0]  # the buffers of the one before were given

    answer({operation: call}, f"jax {jax.__version__}", seconds)


def field_of(model: str, operation: str, size: int, seconds: float, compile_torch: bool) -> list[Contestant]:
    """Ours, and the installed peers that have the model's shape and the operation."""
    config, plan = find(model).config, (operation, str(size))
    ours = (sys.executable, "-m", "benchmarks.run", "--serve", model, *plan)
    found = [Contestant(name, operation, (*ours, way, str(seconds))) for name, way in PRECISIONS.items()]
    numbers = {name: getattr(config, name, None) for name in ("steps", "classes", "latent", "encoder", "decoder")}
    if numbers != {"steps": 32, "classes": (90,), "latent": 256, "encoder": (512,), "decoder": (256, 256)}:
        return found
    python, script = PEERS / "pytorch" / ".venv" / "bin" / "python", str(PEERS / "pytorch" / "bench.py")
    if python.exists():
        flags = ["--teacher-forced"] * (config.sampling == "none")
        for way in (*WAYS[operation], *["compiled"] * (compile_torch and operation == "decode")):
            command = (str(python), script, way, *plan, str(seconds), *flags)
            found.append(Contestant(f"PyTorch {way}", operation, command))
    node, folder = shutil.which("node"), PEERS / "magentajs"
    if node and operation == "decode" and (folder / "node_modules").is_dir():
        for backend in ("wasm", "cpu") if size == 1 else ("wasm",):  # plain JavaScript takes long: one is enough
            command = (node, str(folder / "bench.js"), "--backend", backend, "--batch", str(size))
            found.append(Contestant(f"magenta.js {backend}", operation, (*command, "--seconds", str(seconds))))
    return found


def alone(model: str, environment: Mapping[str, str]) -> list[bench.Row]:
    """The rows of `zoo bench`, of both precisions."""
    rows = []
    for precision in PRECISIONS.values():
        settings = f"batch_sizes={BATCHES}, seconds=0.0, precision={precision!r}"
        code = f"import json, zoo\nfor row in zoo.bench({model!r}, {settings}): print(json.dumps(row))"
        command = (sys.executable, "-c", code)
        done = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, text=True, check=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
    return rows


def row_of(contestant: Contestant, model: str, size: int, before: bench.Row) -> bench.Row:
    """The turns of a contestant after the first, summed up; `before` is its row of `zoo bench`, if it has one."""
    medians = [statistics.median(turn["times"]) for turn in contestant.turns[1:]]
    row = {"device": bench.device_name(), "platform": "cpu"} | before
    row |= {"system": contestant.system, "version": contestant.turns[0]["version"], "model": model}
    row |= {"operation": contestant.operation} | bench.summary(medians, size, find(model).config.steps)
    processor, seconds = (sum(turn[name] for turn in contestant.turns[1:]) for name in ("processor", "seconds"))
    row["cores_used"] = processor / seconds
    for name in ("gflops_per_s", "share_of_matmul"):
        if before.get(name) is not None:
            row[name] = before[name] * before["median_s"] / row["median_s"]
    return row


def compared(field: Sequence[Contestant]) -> str:
    """How many times as long as ours the others take: the median of turns, and the middle half of them."""
    turns = {one.system: [statistics.median(turn["times"]) for turn in one.turns[1:]] for one in field}
    ours = min(PRECISIONS, key=lambda system: statistics.median(turns[system]))
    lines = [f"beside {ours}:"]
    for system, theirs in turns.items():
        ratios = [their / our for their, our in zip(theirs, turns[ours], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        lines.append(f"{system} {middle:.2f} ({low:.2f} to {high:.2f})")
    return " ".join([lines[0], ", ".join(lines[1:])])


def cold_start(model: str, environment: Mapping[str, str]) -> bench.Row:
    """`zoo generate` from nothing to a melody in a file, with the compilation cache filled by a first run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "zoo", "generate", model, "-n", "1", "--midi-only", "--out", f"{folder}/out"]
        private = dict(environment, ZOO_CACHE=f"{folder}/cache")
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            subprocess.run(command, env=private, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - begin)
    row = {"device": bench.device_name(), "platform": "cpu", "system": "zoo", "model": model}
    row |= {"operation": "cold start", "batch": 1, "runs": len(times) - 1, "median_s": statistics.median(times[1:])}
    return row | {"compile_s": times[0]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("models", nargs="*", default=["music-vae/mel-2bar"])
    parser.add_argument("--operations", help="such as decode,train; by default all, and the cold start")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each turn")
    parser.add_argument("--cores", type=lambda text: {int(core) for core in text.split(",")}, help="e.g. 0,1")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        model, operation, size, precision, seconds = options.serve
        return serve(model, operation, int(size), precision, float(seconds))

    models = [find(name).name for name in options.models]  # whole: what rows are kept under
    known = {operation: None for model in models for operation in (*find(model).architecture.kernels, "train")}
    wanted = options.operations.split(",") if options.operations else list(known)
    if unknown := [operation for operation in wanted if operation not in known]:
        parser.error(f"no operation {', '.join(unknown)}; choose of {', '.join(known)}")

    if options.cores:
        os.sched_setaffinity(0, options.cores)  # children inherit it
    threads = str(native.cores())
    more = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), threads)
    more |= {
        "OMP_PROC_BIND": "close",
        "PYTHONPATH": str(HERE.parent),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    } | MEMORY

    path = table.file_of_device(options.out)
    for model in models:
        before = {(row["system"], row["operation"], row["batch"]): row for row in alone(model, os.environ | more)}
        for operation, size in dict.fromkeys(key[1:] for key in before if key[1] in wanted):
            field = field_of(model, operation, size, options.seconds, options.compile)
            take_turns(field, options.rounds, f"{model} {operation} {size}", more)
            rows = [row_of(one, model, size, before.get((one.system, operation, size), {})) for one in field]
            table.put(rows, path, ("model", "operation", "batch"))
            print(f"{model}, {operation} {size}, {compared(field)}", flush=True)
        if not options.operations:
            table.put([cold_start(model, os.environ | more)], path)
    table.plot([row for row in table.read(path.parent, path.name) if row["model"] in models], path.with_suffix(".png"))
    print(table.markdown(options.out))
    return None


if __name__ == "__main__":
    main()
