"""How a contestant of `benchmarks/contest.py` takes turns: it answers each line of its input with one of JSON.

Nothing but the standard library, for every peer's environment has to run it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def answer(operations: Mapping[str, Callable[[], Any]], version: str) -> None:
    """Runs the operation that each line of standard input names, and tells what it took.

    That is seconds by the clock and of the processor, the largest memory of the process so far in MB, and `version`.
    What the operation itself prints goes nowhere.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    for line in sys.stdin:
        begin, processor = time.perf_counter(), time.process_time()
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            operations[line.strip()]()
        told = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - processor}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        print(json.dumps(told | {"memory_mb": memory, "version": version}), file=answers, flush=True)
