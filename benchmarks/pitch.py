"""Our CREPE beside torchcrepe, from a decoded waveform to the pitch: `python -m benchmarks.pitch --python PEER/python`.

PEER is an environment with torchcrepe (see `peers/README.md`). Both use one thread, the same weights, the same sound at
16 kHz and the likeliest pitch of each frame, and take turns; the median of several rounds counts. On a machine that
others use too, the processor's time says more than the clock's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before JAX is loaded
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"

import numpy as np

import zoo

PEER = Path(__file__).parent / "peers" / "torchcrepe"
RATE = 16000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pitch", description=__doc__)
    parser.add_argument("--python", default=str(PEER / ".venv" / "bin" / "python"))
    parser.add_argument("--sizes", nargs="+", default=["tiny", "full"])
    parser.add_argument("--ways", nargs="+", default=["eager", "compiled"])
    parser.add_argument("--frames", type=int, default=128, help="a multiple of 128, so that no batch is partly empty")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, help="the one to stay on")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})  # the peer inherits it
    rng = np.random.default_rng(0)
    t = np.arange(160 * (options.frames - 1)) / RATE
    sound = (0.5 * np.sin(2 * np.pi * 220 * t) + 0.01 * rng.standard_normal(len(t))).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/sound.npy", sound)
        command = [options.python, str(PEER / "bench.py"), f"{folder}/sound.npy"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            for size in options.sizes:
                print(json.dumps(compare(peer, size, options.ways, sound, options.rounds)), flush=True)
            peer.stdin.close()  # type: ignore[union-attr]


def compare(peer: Any, size: str, ways: list[str], sound: np.ndarray, rounds: int) -> dict[str, Any]:
    """Medians of both, and how many times as fast ours is."""
    model: Any = zoo.load(f"crepe/{size}")
    model.track((sound, RATE), decoder="argmax")
    runs: dict[str, list[tuple[float, float]]] = {way: [] for way in ("zoo", *ways)}
    for _ in range(rounds):
        begin, processor = time.perf_counter(), time.process_time()
        track = model.track((sound, RATE), decoder="argmax")
        runs["zoo"].append((time.perf_counter() - begin, time.process_time() - processor))
        for way in ways:
            peer.stdin.write(f"{size} {way}\n")
            peer.stdin.flush()
            told = json.loads(peer.stdout.readline())
            runs[way].append((told["seconds"], told["processor"]))
            assert told["frames"] == len(track)
            assert abs(told["periodicity"] - float(track.confidence.mean())) < 1e-4, "not the same computation"
    medians = {way: [statistics.median(column) for column in zip(*times, strict=True)] for way, times in runs.items()}
    row: dict[str, Any] = {"model": f"crepe/{size}", "frames": len(track), "rounds": rounds, "median_s": medians}
    ours = medians["zoo"]
    row["real_time"] = [0.01 * len(track) / seconds for seconds in ours]
    row["times_as_fast"] = {way: [m / o for m, o in zip(medians[way], ours, strict=True)] for way in ways}
    return row


if __name__ == "__main__":
    main()
