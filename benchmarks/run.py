"""Measures models of the zoo and their peers in one run: `python -m benchmarks.run`.

Every contestant is a process of its own, with the same cores, as many threads, and huge pages; the rounds are
interleaved: what else the machine is doing hits all alike. A peer that isn't installed (see `peers/README.md`) is left
out. Rows of all rounds go to `results/<device>.csv`, a plot beside it; `python -m benchmarks.table` makes the README's
table.
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import table
from zoo.tasks import bench
from zoo.tasks.model import find

HERE = Path(__file__).parent
PEERS = HERE / "peers"
BATCHES = (1, 64, 512)


@dataclass(frozen=True)
class Contestant:
    """A program that prints rows as JSON lines: our own have all fields, a peer's have `times` for us to sum up."""

    name: str
    command: tuple[str, ...]


def contestants(model: str, seconds: float, compile_torch: bool) -> list[Contestant]:
    """Ours, and the installed peers that have the model's shape."""

    def ours(name: str, precision: str) -> Contestant:
        settings = f"batch_sizes={BATCHES}, seconds={seconds}, precision={precision!r}"
        code = f"import json, zoo\nfor row in zoo.bench({model!r}, {settings}): print(json.dumps(row))"
        return Contestant(name, (sys.executable, "-c", code))

    found = [ours("zoo", "float32"), ours("zoo bfloat16", "bfloat16")]
    config = find(model).config
    numbers = {name: getattr(config, name, None) for name in ("steps", "classes", "latent", "encoder", "decoder")}
    if numbers != {"steps": 32, "classes": (90,), "latent": 256, "encoder": (512,), "decoder": (256, 256)}:
        return found
    common = ("--batches", ",".join(map(str, BATCHES)), "--seconds", str(seconds))
    python = PEERS / "pytorch" / ".venv" / "bin" / "python"
    if python.exists():
        flags = ["--compile"] * compile_torch + ["--teacher-forced"] * (config.sampling == "none")
        found.append(Contestant("PyTorch", (str(python), str(PEERS / "pytorch" / "bench.py"), *common, *flags)))
    node = shutil.which("node")
    if node and (PEERS / "magentajs" / "node_modules").is_dir():
        script = str(PEERS / "magentajs" / "bench.js")
        for backend in ("wasm", "cpu"):
            # Plain JavaScript takes seconds a melody: one is enough.
            sizes = ("--batches", "1", "--seconds", str(seconds)) if backend == "cpu" else common
            found.append(Contestant(f"magenta.js {backend}", (node, script, "--backend", backend, *sizes)))
    return found


def rows_of(contestant: Contestant, model: str, steps: int, environment: Mapping[str, str]) -> list[bench.Row]:
    """Runs a contestant once. A peer that fails is reported and left out; ours must not fail."""
    done = subprocess.run(contestant.command, env=dict(environment), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{contestant.name}: left out, exit status {done.returncode}", file=sys.stderr)
        if contestant.name.startswith("zoo"):
            raise SystemExit(1)
        return []
    rows = []
    for line in done.stdout.splitlines():
        row: dict[str, Any] = json.loads(line)
        if "times" in row:
            row |= bench.summary(row.pop("times"), row["batch"], steps)
            row |= {"model": model, "device": bench.device_name(), "platform": "cpu"}
        rows.append(row)
    return rows


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each program in each round")
    parser.add_argument("--cores", type=lambda text: {int(core) for core in text.split(",")}, help="e.g. 0,1")
    parser.add_argument("--compile", action="store_true", help="torch.compile too, which takes minutes")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()

    if options.cores:
        os.sched_setaffinity(0, options.cores)  # children inherit it
    threads = str(bench.cores())
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), threads)
    environment |= {"OMP_PROC_BIND": "close", "PYTHONPATH": str(HERE.parent)}
    environment |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # huge pages, on Linux: a training step gains 1.2 times

    rows = []
    for model in (find(name).name for name in options.models):  # whole: what rows are kept under
        field = contestants(model, options.seconds, options.compile)
        steps = find(model).config.steps
        for number in range(options.rounds):
            for contestant in field[number % len(field) :] + field[: number % len(field)]:
                print(f"{model}, round {number + 1} of {options.rounds}: {contestant.name}", file=sys.stderr)
                rows += rows_of(contestant, model, steps, environment)
        rows.append(cold_start(model, environment))
    path = table.file_of_device(options.out)
    table.put(rows, path)
    table.plot(rows, path.with_suffix(".png"))
    print(table.markdown(options.out))


if __name__ == "__main__":
    main()
