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


def answer(operations: Mapping[str, Callable[[], Any]], version: str, seconds: float = 0.0) -> None:
    """Runs the operation that each line of standard input names, once or for `seconds`, and tells what it took.

    That is `times`, seconds by the clock of each call, of which a first counts only where it is alone (the caches were
    others'); seconds by the clock and of the processor of the whole turn, the largest memory of the process so far in
    MB, and `version`. What the operation itself prints goes nowhere.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    for line in sys.stdin:
        operation = operations[line.strip()]
        times: list[float] = []
        begin, processor = time.perf_counter(), time.process_time()
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            while not times or time.perf_counter() - begin < seconds:
                start = time.perf_counter()
                operation()
                times.append(time.perf_counter() - start)
        told = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - processor}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        told |= {"times": times[1:] or times, "memory_mb": memory, "version": version}
        print(json.dumps(told), file=answers, flush=True)
