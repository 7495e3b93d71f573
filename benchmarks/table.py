"""What was measured, as the README shows it: `python -m benchmarks.table README.md`.

The table stands between two marks in the README and is made anew from `results/*.csv`; what nobody has measured says
so. Several rows of one program are several rounds: the table shows their median.
"""

from __future__ import annotations

import csv
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.tasks import bench

RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- benchmarks -->", "<!-- end of benchmarks -->"
MISSING = "not measured"
PLATFORMS = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}
BATCHES = (1, 64, 512)
LISTENING = ("track", "network", "transcribe", "tag", "chords")  # the operations of `benchmarks/listening.py`

Row = Mapping[str, Any]


def read(folder: Path, pattern: str = "*.csv") -> list[Row]:
    """The rows of all devices, as text."""
    rows: list[Row] = []
    for path in sorted(folder.glob(pattern)):
        with open(path, newline="") as file:
            rows += csv.DictReader(file)
    return rows


def value(rows: Iterable[Row], field: str, **wanted: Any) -> float:
    """The median over rounds of a field where the others are as `wanted`; NaN if nobody measured it."""
    found = [row for row in rows if all(str(row.get(key)) == str(text) for key, text in wanted.items())]
    numbers = [float(row[field]) for row in found if row.get(field) not in (None, "")]
    return statistics.median(numbers) if numbers else math.nan


def file_of_device(folder: Path) -> Path:
    """Where the rows of this machine's device stand."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', bench.device_name().lower()).strip('-')}.csv"


def put(
    rows: Sequence[Row],
    path: Path,
    same: Sequence[str] = ("model", "operation"),
    fields: Sequence[str] = bench.FIELDS,
) -> None:
    """Writes rows into a CSV file, in place of those that agree with one of them in all of `same`; others stay."""
    new = {tuple(str(row[name]) for name in same) for row in rows}
    old = read(path.parent, path.name) if path.exists() else []
    kept = [row for row in old if tuple(str(row[name]) for name in same) not in new]
    bench.write_csv([dict(row) for row in [*kept, *rows]], path, fields)


def markdown(folder: Path = RESULTS) -> str:
    """A table for each model that has peers in sampling, one of those that listen, and one of all others' kernels."""
    rows = read(folder)
    sampled = sorted({row["model"] for row in rows if row["operation"] == "decode"}) or ["music-vae/mel-2bar"]
    listeners = {row["model"] for row in rows if row["operation"] in LISTENING}
    tables = [_table(model, [row for row in rows if row["model"] == model]) for model in sampled]
    heard = [row for row in rows if row["model"] in listeners]
    others = [row for row in rows if row["model"] not in listeners.union(sampled)]
    return "\n\n".join([*tables, _listening(heard), _kernels(others)])


def _listening(rows: Sequence[Row]) -> str:
    head = ["times real time", "of ours", "first call, s", "memory, MB", "network's share of peak"]
    lines = [["device", "model", "system", *head], ["---", "---", "---", *["---:"] * len(head)]]
    for platform, title in PLATFORMS.items():
        here = [row for row in rows if row["platform"] == platform]
        if not here:
            lines.append([title, "all", "zoo", *[MISSING] * len(head)])
        ours = {(row["device"], row["model"], row["operation"]): row for row in here if row["system"] == "zoo"}
        for row in (row for row in here if row["operation"] in LISTENING):
            mine = ours.get((row["device"], row["model"], row["operation"]), {})
            speed, own = float(row["real_time"]), float(mine.get("real_time", math.nan))
            cells = [_cell(speed), f"{speed / own:.2f}"]
            cells += [_cell(float(row[name])) for name in ("compile_s", "memory_mb")]
            shares = [each["share_of_matmul"] for each in here if _is_network(each, row)]
            cells.append(f"{max(map(float, shares)):.2f}" if shares else "")
            lines.append([row["device"], f"{row['model']}: {row['operation']}", _name(row["system"], [row]), *cells])
    notes = "Models that listen, from a decoded waveform to what a user gets, in processor time. The first call loads "
    notes += (
        "and compiles, the zoo's from a warm compilation cache. The network's share of peak: its operations as they "
    )
    notes += "are written, beside the core's best matrix product."
    return f"{notes}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kernels(rows: Sequence[Row]) -> str:
    head = ["seconds a call", "sequences a second", "share of peak", "memory, MB"]
    lines = [["device", "model", "kernel", "batch", *head], ["---", "---", "---", *["---:"] * (1 + len(head))]]
    fields = ("median_s", "sequences_per_s", "share_of_matmul", "memory_mb")
    for platform, title in PLATFORMS.items():
        here = [row for row in rows if row["platform"] == platform]
        programs = dict.fromkeys((row["device"], row["model"], row["operation"], row["batch"]) for row in here)
        for names in programs or [(title, "all", "all", "")]:
            wanted = dict(zip(("device", "model", "operation", "batch"), names, strict=True))
            lines.append([*names, *(_cell(value(here, field, **wanted)) for field in fields)])
    notes = "The other models: each kernel on a random batch of what the model learnt from, and the training step, in "
    notes += "processor time (`python -m benchmarks.kernels`). The share is of the core's best float32 matrix product."
    return f"{notes}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _table(model: str, rows: Sequence[Row]) -> str:
    trained = max((int(row["batch"]) for row in rows if row["operation"] == "train"), default=max(BATCHES))
    head = ["device", "system", *(f"sampling, batch {size}" for size in BATCHES), f"training, batch {trained}"]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for platform, title in PLATFORMS.items():
        here = [row for row in rows if row["platform"] == platform]
        for device in sorted({row["device"] for row in here}) or [title]:
            on_device = [row for row in here if row["device"] == device]
            for system in dict.fromkeys(["zoo", *(row["system"] for row in on_device)]):
                mine = [row for row in on_device if row["system"] == system]
                cells = [value(mine, "sequences_per_s", operation="decode", batch=size) for size in BATCHES]
                cells.append(1 / value(mine, "median_s", operation="train", batch=trained))
                lines.append([device, _name(system, mine), *map(_cell, cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = (
        f"`{model}`: sequences a second when sampling, steps a second when training. PyTorch trains `torch.nn.LSTM`, or"
    )
    notes += " in one pass, cell by cell, where scheduled sampling draws on the way forward, as it does in the zoo."
    start = value(rows, "median_s", operation="cold start")
    if not math.isnan(start):
        notes += f" `zoo generate`, cold, with a warm compilation cache: {start:.1f} s."
    cores = [float(row["cores_used"]) for row in rows if row.get("cores_used")]
    if cores:
        notes += f" Processor cores in use meanwhile: {min(cores):.2f} to {max(cores):.2f}."
    return f"{notes}\n\n{text}"


def _is_network(row: Row, of: Row) -> bool:
    """Whether a row is of the network alone of the model, device and system that row `of` measured as a whole."""
    same = all(row[key] == of[key] for key in ("device", "model", "system"))
    return same and row["operation"] not in (*LISTENING, "train") and bool(row["share_of_matmul"])


def _name(system: str, rows: Sequence[Row]) -> str:
    versions = sorted({row["version"] for row in rows if row.get("version")})
    return f"{system} ({', '.join(versions)})" if versions else system


def _cell(number: float) -> str:
    if math.isnan(number):
        return MISSING
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def insert(text: str, block: str) -> str:
    """`text` with `block` between its two marks; ValueError if they aren't there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bars of sampling and training speed for each system, a row of panels for each model."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(10, 3.5 * len(models)), layout="constrained")
    figure.suptitle(rows[0]["device"])
    for line, model in enumerate(models):
        here = [row for row in rows if row["model"] == model and row["operation"] in ("decode", "train")]
        systems = list(dict.fromkeys(row["system"] for row in here))
        sampling, training = (
            figure.add_subplot(len(models), 3, (3 * line + a, 3 * line + b)) for a, b in ((1, 2), (3, 3))
        )
        width = 0.8 / len(systems)
        for k, system in enumerate(systems):
            mine = [row for row in here if row["system"] == system]
            speeds = [value(mine, "sequences_per_s", operation="decode", batch=size) for size in BATCHES]
            sampling.bar([x + k * width for x in range(len(BATCHES))], speeds, width, label=system)
            training.bar(k, 1 / value(mine, "median_s", operation="train"), color=f"C{k}")
        sampling.set_xticks([x + 0.4 - width / 2 for x in range(len(BATCHES))], [f"batch {size}" for size in BATCHES])
        sampling.set(title=f"{model}: sampling", ylabel="sequences / s", yscale="log")
        training.legend(
            *sampling.get_legend_handles_labels(), fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1)
        )
        training.set(title="training step", ylabel="steps / s", xticks=[])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    block = markdown()
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(insert(path.read_text(encoding="utf-8"), block), encoding="utf-8")
    if not sys.argv[1:]:
        print(block)


if __name__ == "__main__":
    main()
