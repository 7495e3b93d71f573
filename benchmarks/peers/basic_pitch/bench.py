"""Times Basic Pitch as its authors run it, and ours beside it: `python bench.py --zoo PYTHON song.wav`.

Run it with the Python of an environment that has `requirements.txt`; `--zoo` is the Python of one that has the zoo.
Each is a process of its own on one core, asked in turns. A JSON line for each contestant and operation has the seconds
of every round:

network   windows of two seconds, 16 a call, in memory: ONNX Runtime with the package's model, and the zoo
predict   from the file to notes with bends: the package's `predict` with ONNX Runtime, and the zoo's `score`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

BATCH = 16
SYSTEMS = ("zoo", "basic-pitch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--zoo", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--serve", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.file)
    os.sched_setaffinity(0, {options.core})  # children inherit it
    pythons = {"zoo": options.zoo, "basic-pitch": sys.executable}
    servers = {name: start(pythons[name], name, options.file) for name in SYSTEMS}
    for operation in ("network", "predict"):
        times: dict[str, list[float]] = {name: [] for name in SYSTEMS}
        for number in range(options.rounds):
            for name in SYSTEMS[:: 1 if number % 2 else -1]:
                times[name].append(ask(servers[name], operation))
        for name in SYSTEMS:
            print(
                json.dumps({"system": name, "operation": operation, "batch": BATCH, "times": times[name]}), flush=True
            )
    for server in servers.values():
        server.communicate("")
    return None


def start(python: str, name: str, file: str) -> subprocess.Popen[str]:
    """A contestant that is loaded and warm."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1")
    command = [python, os.path.abspath(__file__), "--serve", name, file]
    server = subprocess.Popen(
        command, env=os.environ | threads, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for operation in ("network", "predict"):
        ask(server, operation)
    return server


def ask(server: subprocess.Popen[str], operation: str) -> float:
    """Seconds that a contestant takes."""
    assert server.stdin is not None
    assert server.stdout is not None
    print(operation, file=server.stdin, flush=True)
    return float(server.stdout.readline())


def serve(name: str, file: str) -> None:
    """Does what the lines of standard input say, and answers each with the seconds it took."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    operations = zoo_operations(file) if name == "zoo" else package_operations(file)
    for line in sys.stdin:
        begin = time.perf_counter()
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            operations[line.strip()]()
        print(time.perf_counter() - begin, file=answers, flush=True)


def zoo_operations(file: str) -> dict[str, Callable[[], Any]]:
    import jax

    import zoo

    model: Any = zoo.load("basic-pitch")
    audio = noise(model.config.samples)
    return {
        "network": lambda: jax.block_until_ready(model._posteriors(audio, BATCH)),
        "predict": lambda: model.score(file),
    }


def package_operations(file: str) -> dict[str, Callable[[], Any]]:
    from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
    from basic_pitch.inference import Model, predict

    model = Model(build_icassp_2022_model_path(FilenameSuffix.onnx))
    audio = noise(43844)[..., None]
    return {"network": lambda: model.predict(audio), "predict": lambda: predict(file, model)}


def noise(samples: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).standard_normal((BATCH, samples)).astype(np.float32)


if __name__ == "__main__":
    main()
