"""Training in processes of its own: killed at random moments, and on eight simulated devices."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.train_toy import CONFIG, RECIPE, batches, identical, new_state, train, train_step
from zoo.errors import TrainingError
from zoo.training import Run, data_mesh, shard, shard_batch

pytestmark = pytest.mark.slow
STEPS = 80


@pytest.fixture(scope="module")
def processes():
    """Fresh processes without devices yet, forked from one that has imported all there is to import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "matplotlib.figure", "matplotlib.backends.backend_agg"])
    return context


def start(processes, target: Callable, *args) -> multiprocessing.Process:
    process = processes.Process(target=target, args=args)
    process.start()
    return process


def lines(path: Path) -> list[dict]:
    file = path / "metrics.jsonl"
    return (
        [json.loads(line) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        if file.exists()
        else []
    )


@pytest.mark.parametrize("tx", ["alone", "players"])
def test_kill_9_at_random_moments_and_resume_is_bit_for_bit(processes, tmp_path, tx):
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown if the test fails
    rng = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start(processes, train, whole, STEPS, 0.0, tx).join()

    for goal in sorted(rng.sample(range(5, STEPS - 15), 3)):
        process = start(processes, train, killed, STEPS, 0.005, tx)
        while process.is_alive() and not any(line["step"] >= goal for line in lines(killed)):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))  # anywhere between two logs, in a checkpoint or out of one
        process.kill()
        process.join()
        assert process.exitcode == -9
    process = start(processes, train, killed, STEPS, 0.0, tx)
    process.join()
    assert process.exitcode == 0

    states = []
    for path in (whole, killed):
        with Run.create_or_resume(path, CONFIG, RECIPE) as run:
            states.append(run.restore(new_state(tx, ema=True)))
    assert int(states[0].step) == STEPS
    assert identical(*states)
    facts = [[(line["step"], line["loss"], line.get("valid_loss")) for line in lines(path)] for path in (whole, killed)]
    assert facts[0] == facts[1]
    assert (whole / "best.safetensors").read_bytes() == (killed / "best.safetensors").read_bytes()
    assert sorted(os.listdir(whole)) == sorted(os.listdir(killed))
    assert sorted(os.listdir(whole / "checkpoints")) == sorted(os.listdir(killed / "checkpoints"))


def train_sharded(path: Path) -> None:
    """Five steps on eight devices, the last two after a resume."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    assert jax.device_count() == 8
    mesh = data_mesh()
    for steps in (3, 5):
        with Run.create_or_resume(path, CONFIG, RECIPE) as run:
            state = run.restore(shard(new_state(), mesh))
            for batch in islice(batches(int(state.step)), steps - int(state.step)):
                batch = shard_batch(batch, mesh)
                assert len(batch["x"].sharding.device_set) == 8
                assert batch["x"].addressable_shards[0].data.shape == (2, 4)
                state, _ = train_step()(state, batch)
            assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
            assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(state))
            run.save(state)


def test_eight_devices_give_what_one_gives(processes, tmp_path):
    process = start(processes, train_sharded, tmp_path)
    state = new_state()
    for batch in islice(batches(0), 5):
        state, _ = train_step()(state, batch)
    process.join()
    assert process.exitcode == 0
    with Run.create_or_resume(tmp_path, CONFIG, RECIPE) as run:
        sharded = run.restore(new_state())
    assert int(sharded.step) == 5
    for one, eight in zip(jax.tree.leaves(state.params), jax.tree.leaves(sharded.params), strict=True):
        np.testing.assert_allclose(eight, one, atol=1e-5)


def uneven() -> None:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    with pytest.raises(TrainingError, match=r"a batch of 12 .*8 devices"):
        shard_batch({"x": np.zeros((12, 4))}, data_mesh())


def test_a_batch_that_can_not_be_cut_evenly_is_an_error(processes):
    process = start(processes, uneven)
    process.join()
    assert process.exitcode == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is asked to")
def test_freed_memory_is_kept() -> None:
    """64 MB that were freed come back without a page fault for each of their 16 384 pages."""
    code = """
import resource
from zoo.cli.learning import keep_memory
keep_memory()
size, faults = 64 << 20, []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * size
    del block
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert max(int(count) for count in done.stdout.split()[1:]) < 1000
