"""Measures every kernel of models that have no peers here, in processor time: `python -m benchmarks.kernels MODEL ...`.

As `zoo bench`, but a core that others are using too gives the same numbers. Meant for one core: where a program runs on
several, processor time adds them up. Rows go to `results/<device>.csv`; `python -m benchmarks.table` makes the README's
table.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import table
from zoo.tasks import bench
from zoo.tasks.model import find


def main() -> None:
    """Adds rows to the CSV, model by model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each program, three calls at least")
    parser.add_argument("--out", type=Path, default=table.RESULTS)
    options = parser.parse_args()
    for model in options.models:
        found = find(model)
        settings = options.batch_sizes, options.seconds
        rows = bench.measure(found.name, found.architecture, found.config, *settings, clock=time.process_time)
        table.put(rows, table.file_of_device(options.out))


if __name__ == "__main__":
    main()
