"""Programs that take turns on one core, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Large pages, and memory that was freed stays with the program (glibc): in a virtual machine to ask for it anew can
# take longer than a training step of MusicVAE.
MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:"
    "glibc.malloc.trim_threshold=17179869184"
}


@dataclass
class Contestant:
    """A program that answers as `peers/turns.py` has it, and what it told of each of its turns."""

    system: str
    operation: str
    command: Sequence[str]
    turns: list[dict[str, Any]] = field(default_factory=list)

    def take_turn(self, process: subprocess.Popen[str]) -> None:
        """Raises SystemExit with the program's name if it ends instead of answering."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(self.operation, file=process.stdin, flush=True)
            self.turns.append(json.loads(process.stdout.readline()))
        except (OSError, ValueError):
            raise SystemExit(f"{self.system}: ended before it answered; see its message above") from None


def take_turns(field: Sequence[Contestant], rounds: int, title: str, more: Mapping[str, str]) -> None:
    """One turn each, which loads and compiles, then `rounds` more, forwards and backwards in turn.

    All have one thread, and the environment variables `more`.
    """
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1")
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent)} | dict(more)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    running = [(one, subprocess.Popen(one.command, **pipes)) for one in field]  # type: ignore[call-overload]
    try:
        for number in range(rounds + 1):
            for contestant, process in running if number % 2 else reversed(running):
                print(f"{title}, turn {number}: {contestant.system}", file=sys.stderr)
                contestant.take_turn(process)
    finally:  # they end when nothing more is asked
        for _, process in running:
            process.communicate()
