"""`fit`: the training loop. It measures, evaluates, checkpoints, and goes on where a killed run left off."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from zoo.errors import TrainingError
from zoo.training.metrics import VALID, Record
from zoo.training.params import Params
from zoo.training.runs import Run
from zoo.training.state import TrainState
from zoo.training.step import Batch, TrainStep

Evaluate = Callable[[Params], Mapping[str, float]]


def fit(
    state: TrainState,
    train_step: TrainStep,
    batches: Callable[[int], Iterator[Batch]],
    *,
    steps: int,
    run: Run,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 1000,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    monitor: str = "loss",
    mode: str = "min",
    patience: int | None = None,
    moments: Collection[int] = (),
    verbose: bool = False,
) -> TrainState:
    """Train until `state.step == steps` and return the last state; a run that has checkpoints goes on from its newest.

    Args:
        state: the state at step 0, as `TrainState.create` makes it; donated.
        train_step: from `make_train_step`.
        batches: start_step → the batches from that step on, the same ones whenever asked.
        steps: how many steps in all, those of earlier sessions included.
        run: the directory that keeps everything.
        evaluate: whole parameters → metrics, logged as "valid_…". The best weights by `monitor` (one of these metrics,
            "min" or "max") are kept in best.safetensors; without `evaluate`, the last ones are.
        patience: stop after this many evaluations in a row without a better one.
        moments: steps whose weights are kept too, in moments/STEP.safetensors, to hear how a model learns.
        verbose: where there is no terminal for a progress bar, print a line at each log.

    Raises:
        TrainingError: the loss is not finite, the batches end early, or the disk is full.
    """
    state = run.restore(state)
    start = int(state.step)
    log = run.metrics
    log.restart(start)
    began = time.monotonic() - (log.records[-1]["seconds"] if log.records else 0.0)
    exhausted = patience is not None and log.standing(monitor, mode)[1] >= patience
    if start >= steps or exhausted:
        return state

    stream = batches(start)
    recent = _Recent(start)
    with _Progress(start, steps, verbose) as progress:
        for step in range(start + 1, steps + 1):
            batch = next(stream, None)
            if batch is None:
                raise TrainingError(f"the data ended after step {step - 1} of {steps}; batches must never end")
            state, metrics = train_step(state, batch)
            recent.add(metrics)

            last = step == steps
            logging = last or step % log_every == 0
            saving = last or step % checkpoint_every == 0
            evaluating = evaluate is not None and (last or step % evaluate_every == 0)
            if not (logging or saving or evaluating or step in moments):
                continue
            if (bad := recent.first_bad()) is not None:
                _stop(run, state, *bad)
            if step in moments:
                run.save_moment(step, state.weights)
            record: Record = {"step": step, "seconds": round(time.monotonic() - began, 3)}
            if logging:
                record |= recent.summary()
                recent = _Recent(step)
            if evaluating:
                record |= _evaluate(evaluate, state, monitor)
            if logging or evaluating:
                log.append(record)
                progress.show(record)
            if last or evaluating:
                log.plot(run.path / "curve.png")
            if evaluating:
                best, since = log.standing(monitor, mode)
                exhausted = patience is not None and since >= patience
            if best if evaluating else (saving and evaluate is None):
                run.save_best(state.weights)
            if saving or exhausted:  # after the log and the best weights: a checkpoint vouches for both
                run.save(state)
            if exhausted:
                break
    return state


def _evaluate(evaluate: Evaluate | None, state: TrainState, monitor: str) -> Record:
    assert evaluate is not None
    valid = evaluate(state.weights)
    if monitor not in valid:
        raise TrainingError(f"evaluation gives no metric '{monitor}' to monitor, only {', '.join(valid)}")
    return {VALID + name: float(value) for name, value in valid.items()}


class _Recent:
    """The metrics of the steps since the last log, left on the device until asked for: no step waits for it."""

    def __init__(self, start: int):
        self._start = start
        self._began = 0.0
        self._metrics: list[dict[str, Any]] = []
        self._fetched = 0

    def add(self, metrics: dict[str, jax.Array]) -> None:
        if not self._metrics:
            self._began = time.monotonic()  # not before: the first step compiles
        self._metrics.append(metrics)

    def first_bad(self) -> tuple[int, float, float] | None:
        """(step, loss, gradient norm) of the first step, not yet asked about, that was not finite."""
        fresh = range(self._fetched, len(self._metrics))
        self._metrics[self._fetched :] = jax.device_get(self._metrics[self._fetched :])
        self._fetched = len(self._metrics)
        for index in fresh:
            metrics = self._metrics[index]
            if metrics["bad_steps"]:
                return self._start + index + 1, metrics["loss"], metrics["grad_norm"]
        return None

    def summary(self) -> dict[str, float]:
        """The mean of each metric, and the speed; after `first_bad`, which waits for the last step."""
        count = len(self._metrics)
        names = [name for name in self._metrics[0] if name != "bad_steps"]
        means = {name: math.fsum(float(each[name]) for each in self._metrics) / count for name in names}
        return means | ({"steps_per_second": (count - 1) / (time.monotonic() - self._began)} if count > 1 else {})


class _Progress:
    """A bar on a terminal, plain lines if verbose, else nothing; steps a second and time left with either."""

    def __init__(self, start: int, steps: int, verbose: bool):
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=not terminal, dynamic_ncols=True)
        self._steps = steps
        self._lines = verbose and not terminal

    def show(self, record: Record) -> None:
        losses = {name: f"{record[name]:.4g}" for name in ("loss", VALID + "loss") if name in record}
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update(record["step"] - self._bar.n)
        if self._lines:
            text = " ".join(f"{name} {value}" for name, value in losses.items())
            if rate := record.get("steps_per_second"):
                text += f" {rate:.1f} steps/s, {(self._steps - record['step']) / rate:.0f} s left"
            print(f"step {record['step']}/{self._steps} {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def _stop(run: Run, state: TrainState, step: int, loss: float, grad_norm: float) -> None:
    """Keep the state, which is the one before the bad step, and say what happened."""
    run.save(dataclasses.replace(state, bad_steps=jnp.zeros_like(state.bad_steps)))
    raise TrainingError(
        f"{run.path}: not finite at step {step} (loss {loss:.4g}, gradient norm {grad_norm:.4g}); the state after step "
        f"{step - 1} is kept there: start a new run with a lower learning rate, a warm-up or clip_norm"
    )
