"""What a run measured: metrics.jsonl, one JSON object a line, and its curve as a picture."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import TrainingError

VALID = "valid_"  # before the name of a metric that `evaluate` returned
REAL = "real_"  # before the name of one that is the data's own

Record = dict[str, Any]  # step, seconds, metrics


class MetricsLog:
    """The lines of one metrics.jsonl, on disk and in memory."""

    def __init__(self, path: Path):
        self.path = path
        self.records: list[Record] = []

    def restart(self, step: int) -> None:
        """Read what is there up to `step` and drop the rest: lines of steps to be made again, or half a line."""
        self.records = []
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        for line in lines:
            try:
                record = json.loads(line)
                if record["step"] > step:
                    break
            except (ValueError, TypeError, KeyError):
                break
            self.records.append(record)
        replace_file(self.path, "".join(_line(record) for record in self.records).encode())

    def append(self, record: Record) -> None:
        """Add a line, on disk before this returns."""
        self.records.append(record)
        try:
            with self.path.open("a") as file:
                file.write(_line(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def standing(self, monitor: str, mode: str) -> tuple[bool, int]:
        """(whether the last evaluation is the best so far, how many came after the best)."""
        values = [record[VALID + monitor] for record in self.records if VALID + monitor in record]
        if not values:
            return False, 0
        sign = 1.0 if mode == "min" else -1.0
        ranks = [math.inf if math.isnan(value) else sign * value for value in values]
        since = len(ranks) - 1 - ranks.index(min(ranks))
        return since == 0, since

    def plot(self, path: Path) -> None:
        """Draw the loss over the steps, of training and of validation, and every other metric of the evaluations.

        A metric "real_x" is what "x" is of the data themselves, and drawn as a line beside it.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        measured = dict.fromkeys(key.removeprefix(VALID) for record in self.records for key in record if VALID in key)
        names = ["loss", *(name for name in measured if name != "loss" and not name.startswith(REAL))]
        columns = min(3, len(names))
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(7 if columns == 1 else 4.5 * columns, 4 if rows == 1 else 2.8 * rows))
        FigureCanvasAgg(figure)
        for place, name in enumerate(names):
            axes = figure.add_subplot(rows, columns, place + 1, xlabel="step", ylabel=name)
            for key, label, style in (
                (name, "train", "-"),
                (VALID + name, "valid", ".-"),
                (VALID + REAL + name, "data", "--"),
            ):
                points = [(record["step"], record[key]) for record in self.records if key in record]
                if points:
                    axes.plot(*zip(*points, strict=True), style, label=label)
            if axes.lines:
                axes.legend()
        figure.tight_layout()
        temporary = path.with_suffix(".tmp")
        try:
            figure.savefig(temporary, format="png", dpi=120)
            os.replace(temporary, path)
        except OSError as error:
            raise cannot_write(path, error) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that whoever looks, at any moment, sees the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: BaseException) -> TrainingError:
    """The error for a disk that is full or refuses for another reason."""
    return TrainingError(
        f"{path}: can't be written ({reason(error)}); what was saved before is intact: "
        "make room or make it writable, and start the same command again to go on from there"
    )


def reason(error: BaseException) -> str:
    """An error of the system or of a library in a few words; TensorStore adds pages of detail after " [" to its own."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0].split(" [")[0].rsplit(": ", 1)[-1] or type(error).__name__


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
