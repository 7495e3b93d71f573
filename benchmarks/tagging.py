"""musicnn beside its package on TensorFlow, from a decoded waveform to the taggram: `python -m benchmarks.tagging`.

The package lives in the environment beside `peers/musicnn/bench.py`, or in the one whose Python --peer names. Both are
pinned to one core and take turns; the ratio is of the medians. Compilation and the first call are not counted, nor is
TensorFlow's building of its graph except where the package as its users call it does so every time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEER = HERE / "peers" / "musicnn"
OURS = {"MTT_musicnn": "musicnn/mtt", "MTT_vgg": "musicnn/mtt-vgg"}
CODE = """
import json, sys, time
import numpy as np, zoo
seconds, runs = float(sys.argv[1]), int(sys.argv[2])
sound = (0.05 * np.random.default_rng(0).standard_normal(int(16000 * seconds))).astype(np.float32)
for theirs, ours in json.loads(sys.argv[3]).items():
    model, times = zoo.load(ours), []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        model.taggram((sound, 16000))
        times.append(time.perf_counter() - begin)
    print(json.dumps({"system": "zoo", "model": theirs, "times": times[1:]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tagging", description=__doc__)
    parser.add_argument("--peer", default=str(PEER / ".venv" / "bin" / "python"), help="Python that has the package")
    parser.add_argument("--seconds", type=float, default=30.0, help="of sound")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="calls in each round")
    parser.add_argument("--core", type=int, default=0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})  # children inherit it
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_USE_LEGACY_KERAS": "1"}
    given = [str(options.seconds), str(options.runs)]
    ours = [sys.executable, "-c", CODE, *given, json.dumps(OURS)]
    theirs = [options.peer, str(PEER / "bench.py"), "--seconds", given[0], "--runs", given[1]]
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds):
        for command in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            for row in (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")):
                times.setdefault((row["model"], row["system"]), []).extend(row["times"])
    for (model, system), each in sorted(times.items()):
        median = statistics.median(each)
        ratio = median / statistics.median(times[model, "zoo"])
        print(f"{model} {system}: {options.seconds / median:.0f} times real time; the zoo is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
