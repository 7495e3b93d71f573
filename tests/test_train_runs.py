"""Run directories and the loop: what is left on disk, and going on from it."""

from __future__ import annotations

import io
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tomllib
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from tests.train_toy import CONFIG, RECIPE, batch, batches, evaluate, identical, new_state, train, train_step
from zoo.errors import TrainingError
from zoo.training import Run, fit
from zoo.training.params import flatten
from zoo.training.runs import to_toml
from zoo.weights.formats import safetensors

TIMES = {"seconds", "steps_per_second"}


def records(path):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def stored(path):
    """The newest state on disk."""
    with Run.create_or_resume(path, CONFIG, RECIPE) as run:
        return run.restore(new_state(ema=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 40 steps that nothing disturbed: (path, state)."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    return path, train(path)


def test_a_run_leaves_what_is_needed(whole):
    path, state = whole
    assert {"config.json", "recipe.toml", "metrics.jsonl", "curve.png", "best.safetensors"} <= set(os.listdir(path))
    assert json.loads((path / "config.json").read_text()) == CONFIG
    assert tomllib.loads((path / "recipe.toml").read_text()) == RECIPE
    assert sorted(os.listdir(path / "checkpoints")) == ["30", "40"]
    assert (path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert identical(stored(path), state)


def test_metrics_have_a_line_for_each_log(whole):
    lines = records(whole[0])
    assert [line["step"] for line in lines] == list(range(5, 41, 5))
    assert all(np.isfinite(line["loss"]) and np.isfinite(line["mae"]) for line in lines)
    assert [line["step"] for line in lines if "valid_loss" in line] == [20, 40]
    assert lines[-1]["valid_loss"] == evaluate()(whole[1].weights)["loss"]  # of the moving average


def test_logged_loss_is_the_mean_since_the_last_log(tmp_path):
    state, losses = new_state(ema=True), []
    for step in range(10):
        state, metrics = train_step(0.9)(state, batch(step))
        losses.append(float(metrics["loss"]))
    train(tmp_path, steps=10)
    assert [line["loss"] for line in records(tmp_path)] == pytest.approx([np.mean(losses[:5]), np.mean(losses[5:])])


def test_best_weights_carry_names_and_config(whole):
    weights, metadata = safetensors.load(whole[0] / "best.safetensors")
    assert metadata == CONFIG
    assert weights.keys() == flatten(whole[1].weights).keys()


def test_best_is_the_best_evaluation_not_the_last(tmp_path):
    marks = iter([3.0, 1.0, 2.0, float("nan")])
    seen = []

    def staged(params):
        seen.append({name: np.array(leaf) for name, leaf in flatten(params).items()})
        return {"score": next(marks)}

    train(tmp_path, evaluate=staged, evaluate_every=10, monitor="score")
    assert len(seen) == 4
    best, _ = safetensors.load(tmp_path / "best.safetensors")
    assert all(np.array_equal(best[name], seen[1][name]) for name in best)
    assert not all(np.array_equal(best[name], seen[3][name]) for name in best)


def test_patience_stops_and_stays_stopped(tmp_path):
    marks = [0.2, 0.9, 0.5, 0.4, 0.3]
    calls = []

    def staged(params):
        calls.append(1)
        return {"score": marks[len(calls) - 1]}

    options = {"evaluate": staged, "evaluate_every": 5, "monitor": "score", "mode": "max", "patience": 2}
    assert int(train(tmp_path, **options).step) == 20
    assert int(train(tmp_path, **options).step) == 20  # the same command again has nothing left to do
    assert len(calls) == 4


def test_without_evaluation_the_last_weights_are_the_best(tmp_path):
    state = train(tmp_path, evaluate=None)
    best, _ = safetensors.load(tmp_path / "best.safetensors")
    assert all(np.array_equal(best[name], leaf) for name, leaf in flatten(state.weights).items())


def test_a_monitor_that_is_not_measured_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match=r"no metric 'accuracy'.*only loss"):
        train(tmp_path, monitor="accuracy")


def interrupted(after):
    """Batches that fail, as a reader might, once `after` were given."""

    def make(start):
        yield from islice(batches(start), after - start)
        raise ConnectionError

    return make


def test_resuming_goes_on_bit_for_bit_and_repeats_no_line(tmp_path, whole):
    with Run.create_or_resume(tmp_path, CONFIG, RECIPE) as run, pytest.raises(ConnectionError):
        fit(
            new_state(ema=True), train_step(0.9), interrupted(28), steps=40, run=run, evaluate=evaluate(),
            evaluate_every=20, checkpoint_every=10, log_every=5,
        )  # fmt: skip
    assert [line["step"] for line in records(tmp_path)] == [5, 10, 15, 20, 25]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3')  # killed in the middle of a line
    seen = []

    def watched(start):
        seen.append(start)
        return batches(start)

    with Run.create_or_resume(tmp_path, CONFIG, RECIPE) as run:
        state = fit(
            new_state(ema=True), train_step(0.9), watched, steps=40, run=run, evaluate=evaluate(),
            evaluate_every=20, checkpoint_every=10, log_every=5,
        )  # fmt: skip
    assert seen == [20]
    assert identical(state, whole[1])
    assert records(tmp_path) == records(whole[0])
    assert (tmp_path / "best.safetensors").read_bytes() == (whole[0] / "best.safetensors").read_bytes()


def test_data_that_end_are_an_error(tmp_path):
    with (
        Run.create_or_resume(tmp_path, CONFIG, RECIPE) as run,
        pytest.raises(TrainingError, match="ended after step 7 of 40"),
    ):
        fit(new_state(ema=True), train_step(0.9), lambda start: islice(batches(start), 7), steps=40, run=run)


def test_nan_stops_says_where_and_keeps_the_last_good_state(tmp_path):
    def poisoned(start):
        for step, good in enumerate(batches(start), start):
            yield good | {"y": np.full(16, np.nan, np.float32)} if step == 12 else good

    for _ in range(2):  # the same command again fails in the same way, and spoils nothing
        with (
            Run.create_or_resume(tmp_path, CONFIG, RECIPE) as run,
            pytest.raises(TrainingError, match=r"not finite at step 13 \(loss nan.*learning rate"),
        ):
            fit(
                new_state(ema=True), train_step(0.9), poisoned, steps=40, run=run, checkpoint_every=5, log_every=10
            )  # fmt: skip
    state = new_state(ema=True)
    for step in range(12):
        state, _ = train_step(0.9)(state, batch(step))
    assert identical(stored(tmp_path), state)
    assert [line["step"] for line in records(tmp_path)] == [10]


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied", "half"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, whole, caplog, damage):
    train(tmp_path)
    newest = tmp_path / "checkpoints" / "40"
    files = sorted((file for file in newest.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    if damage == "truncated":
        os.truncate(files[-1], files[-1].stat().st_size // 2)
    elif damage == "altered":
        content = bytearray(files[-1].read_bytes())
        content[len(content) // 2] ^= 0x10
        files[-1].write_bytes(content)
    else:
        for file in files if damage == "emptied" else files[::2]:
            file.unlink()
    with caplog.at_level(logging.WARNING):
        assert int(stored(tmp_path).step) == 30
    assert "checkpoint 40 is damaged" in caplog.text
    assert identical(train(tmp_path), whole[1])
    assert records(tmp_path) == records(whole[0])


def test_when_every_checkpoint_is_damaged_nothing_is_begun_again(tmp_path):
    train(tmp_path, steps=20)
    for file in (tmp_path / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(TrainingError, match="every checkpoint is damaged"):
        stored(tmp_path)


def test_a_disk_too_full_for_a_checkpoint_is_found_out_before_it_is_begun(tmp_path, whole, monkeypatch):
    train(tmp_path, steps=20)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(
            TrainingError, match=r"checkpoints/30: can't be written \(No space left on device\).*intact"
        ):
            train(tmp_path)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["10", "20"]
    assert identical(train(tmp_path), whole[1])


def test_a_write_that_fails_midway_is_a_clear_error_and_spoils_nothing(tmp_path, whole):
    train(tmp_path, steps=30)
    state = whole[1]  # at step 40
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Run.create_or_resume(tmp_path, CONFIG, RECIPE) as run:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # writing more than 64 bytes now fails
        try:
            with pytest.raises(TrainingError, match=r"^.{,200}can't be written \(.{1,60}\).*intact"):
                run.save(state)
            with pytest.raises(TrainingError, match=r"best.safetensors.*can't be written"):
                run.save_best(state.weights)
            with pytest.raises(TrainingError, match=r"curve.png.*can't be written"):
                run.metrics.plot(tmp_path / "curve.png")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert int(stored(tmp_path).step) == 30
    safetensors.load(tmp_path / "best.safetensors")
    assert identical(train(tmp_path), state)


@pytest.mark.parametrize(
    ("config", "recipe", "message"),
    [
        (CONFIG | {"hidden": 16}, RECIPE, "config hidden = 8, now 16"),
        (CONFIG, RECIPE | {"optimizer": {"learning_rate": 0.5, "clip_norm": 1.0}}, "learning_rate = 0.01, now 0.5"),
        (CONFIG, RECIPE | {"steps": 9}, "recipe steps = null, now 9"),
    ],
)
def test_a_directory_of_another_run_is_refused(whole, config, recipe, message):
    with pytest.raises(TrainingError, match=message):
        Run.create_or_resume(whole[0], config, recipe)
    stored(whole[0])  # and is free again


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(TrainingError, match=r"holds thesis\.tex"):
        Run.create_or_resume(tmp_path, CONFIG, RECIPE)
    with pytest.raises(TrainingError, match="can't be written"):
        Run.create_or_resume(tmp_path / "thesis.tex" / "run", CONFIG, RECIPE)


def test_a_run_begun_but_killed_at_once_can_be_begun_again(tmp_path):
    (tmp_path / "recipe.toml").write_text("half = ")
    Run.create_or_resume(tmp_path, CONFIG, RECIPE).close()
    assert tomllib.loads((tmp_path / "recipe.toml").read_text()) == RECIPE


def test_a_directory_in_use_by_a_live_process_is_refused(tmp_path):
    Run.create_or_resume(tmp_path, CONFIG, RECIPE).close()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    command = [sys.executable, "-u", "-c", hold, str(tmp_path / ".lock")]  # -u: or its line waits in a buffer
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(TrainingError, match=r"process [0-9]+ is training here"):
            Run.create_or_resume(tmp_path, CONFIG, RECIPE)
        other.kill()
    Run.create_or_resume(tmp_path, CONFIG, RECIPE).close()


def test_progress_is_plain_lines_or_nothing_where_there_is_no_terminal(tmp_path, capsys):
    train(tmp_path / "silent", steps=10)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    train(tmp_path / "verbose", steps=20, verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "step 10/20 loss" in lines[1]
    assert "steps/s" in lines[1]
    assert "s left" in lines[1]
    assert "valid_loss" in lines[3]


def test_toml_reads_back_as_it_was():
    table = {
        "name": 'a "quoted" ü\n\\', "many": [1, 2.5, "x"], "yes": True, "tiny": 1e-5, "inf": float("inf"), "none": None,
        "a": {"b.c": {"d": -1}, "e": []},
    }  # fmt: skip
    expected = {k: v for k, v in table.items() if k != "none"}
    assert tomllib.loads(to_toml(table)) == expected


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    train(tmp_path, steps=20, verbose=True)
    shown = sys.stderr.getvalue()
    assert "20/20" in shown
    assert "valid_loss=" in shown
    assert "step 20/20" not in shown  # the bar replaces the lines
