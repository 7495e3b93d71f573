"""Programs that take turns: `benchmarks/contest.py` and how a contestant answers it."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pytest

from benchmarks.contest import Contestant, take_turns

ROOT = Path(__file__).parent.parent
WAITS = """
import time
from benchmarks.peers.turns import answer
answer({"wait": lambda: time.sleep(%s)}, "one", %s)
"""


def waiting(seconds: float, turn: float) -> Contestant:
    return Contestant(f"waits {seconds}", "wait", [sys.executable, "-c", WAITS % (seconds, turn)])


def test_everyone_gets_his_turns() -> None:
    short, long = field = [waiting(0.01, 0.2), waiting(0.3, 0.2)]
    take_turns(field, 2, "waiting", {"PYTHONPATH": str(ROOT)})
    assert all(len(one.turns) == 3 and {turn["version"] for turn in one.turns} == {"one"} for one in field)
    for turn in short.turns:  # as many calls as fit, the first apart
        assert 2 <= len(turn["times"]) <= 19
        assert 0.01 <= statistics.median(turn["times"]) < turn["seconds"]
    assert all(len(turn["times"]) == 1 and turn["times"][0] >= 0.3 for turn in long.turns)


def test_a_contestant_that_ends_is_named() -> None:
    quits = Contestant("the peer", "wait", [sys.executable, "-c", "raise SystemExit"])
    with pytest.raises(SystemExit, match="the peer: ended before it answered"):
        take_turns([quits], 1, "waiting", {})
