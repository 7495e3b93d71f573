"""Models that listen beside the packages they come from: `python -m benchmarks.listening`.

From a decoded waveform to what a user gets: pitch, notes, tags, chords. Every contestant is a process of its own on the
same core with one thread, and they take turns, so that whatever else the machine does hits all alike. Time is the
processor's, which a busy machine disturbs least. A peer that isn't installed (see `peers/README.md`) is left out.
Rows go to `results/<device>.csv` in place of the models' older ones; `python -m benchmarks.table` makes the README's
table.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import table
from benchmarks.contest import Contestant, take_turns
from benchmarks.peers.turns import answer
from zoo.tasks import bench

HERE = Path(__file__).parent
RATE = 16000  # Hz
BATCH = 4  # of the network alone
WINDOWS = 16  # of two seconds, for Basic Pitch's network alone


@dataclass(frozen=True)
class Trial:
    """One thing to be timed: our model and operation, `seconds` of sound, and peers as (folder, operation)."""

    model: str
    operation: str
    seconds: float
    peers: tuple[tuple[str, str], ...]


TRIALS = (
    Trial("crepe/full", "track", 1.27, (("torchcrepe", "full eager"), ("torchcrepe", "full compiled"))),
    Trial("crepe/tiny", "track", 1.27, (("torchcrepe", "tiny eager"), ("torchcrepe", "tiny compiled"))),
    Trial("basic-pitch/icassp2022", "network", 2.0 * WINDOWS, (("basic_pitch", "network"),)),
    Trial("basic-pitch/icassp2022", "transcribe", 30.0, (("basic_pitch", "predict"),)),
    Trial("musicnn/mtt", "tag", 30.0, (("musicnn", "MTT_musicnn package"), ("musicnn", "MTT_musicnn session"))),
    Trial("musicnn/mtt-vgg", "tag", 30.0, (("musicnn", "MTT_vgg package"), ("musicnn", "MTT_vgg session"))),
    Trial("chord-crema/ismir2017", "chords", 30.0, (("crema", "predict"),)),
)


def sound(seconds: float) -> np.ndarray:
    """Broken chords over quiet noise, float32 at `RATE`: every kind of model finds something to say."""
    t = np.arange(round(RATE * seconds)) / RATE
    rng = np.random.default_rng(0)
    found = 0.002 * rng.standard_normal(len(t))
    for k, pitch in enumerate((48, 55, 60, 64, 67)):
        within = (t - 0.2 * k) % 1.0
        found += 0.05 * np.exp(-3 * within) * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t)
    return found.astype(np.float32)


def serve(name: str, path: str) -> None:
    """Our side of the contest: the operations of one model on the sound in a file."""
    import jax
    import soundfile

    import zoo

    model: Any = zoo.load(name)
    source = soundfile.read(path, dtype="float32")
    operations: dict[str, Callable[[], Any]] = {
        "track": lambda: model.track(source, decoder="argmax"),
        "transcribe": lambda: model.score(source),
        "tag": lambda: model.tag(source),
        "chords": lambda: model.chords(source),
    }
    if name.startswith("basic-pitch"):
        windows = np.random.default_rng(0).standard_normal((WINDOWS, model.config.samples)).astype(np.float32)
        operations["network"] = lambda: jax.block_until_ready(model._posteriors(windows, WINDOWS))
    answer(operations, f"jax {jax.__version__}")


def contest(trial: Trial, rounds: int, pythons: dict[str, str]) -> list[bench.Row]:
    """A row for each contestant; the first turn of each, which loads and compiles, is told apart."""
    with tempfile.TemporaryDirectory() as folder:
        import soundfile

        path = f"{folder}/sound.wav"
        soundfile.write(path, sound(trial.seconds), RATE)
        ours = [sys.executable, "-m", "benchmarks.listening", "--serve", trial.model, path]
        field = [Contestant("zoo", trial.operation, ours)]
        for peer, operation in trial.peers:
            python = pythons.get(peer, str(HERE / "peers" / peer / ".venv" / "bin" / "python"))
            if Path(python).is_file():
                command = [python, str(HERE / "peers" / peer / "bench.py"), path]
                field.append(Contestant(f"{peer}, {operation}", operation, command))
            else:
                print(f"{peer}: not installed, left out", file=sys.stderr)
        take_turns(field, rounds, f"{trial.model} {trial.operation}", {"TF_USE_LEGACY_KERAS": "1"})
    return [row(trial, contestant) for contestant in field]


def row(trial: Trial, contestant: Contestant) -> bench.Row:
    """The turns of a contestant summed up, under the names of `zoo.tasks.bench.FIELDS`."""
    first, *turns = contestant.turns
    found = bench.summary([turn["processor"] for turn in turns], 1, 1, trial.seconds)
    found |= {"device": bench.device_name(), "platform": "cpu", "system": contestant.system, "model": trial.model}
    found |= {"version": first["version"], "operation": trial.operation, "compile_s": first["processor"]}
    found |= {"memory_mb": turns[-1]["memory_mb"], "steps_per_s": None}
    found["cores_used"] = sum(turn["processor"] for turn in turns) / sum(turn["seconds"] for turn in turns)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listening", description=__doc__)
    parser.add_argument("models", nargs="*", help="by default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0)
    help_ = "the Python that has a peer, such as torchcrepe=/env/bin/python; may be repeated"
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help=help_)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(*options.serve)
    os.sched_setaffinity(0, {options.core})  # children inherit it
    pythons = dict(text.split("=", 1) for text in options.python)
    path = table.file_of_device(options.out)
    for trial in TRIALS:
        if not options.models or trial.model in options.models:
            table.put(contest(trial, options.rounds, pythons), path)
    for model in dict.fromkeys(trial.model for trial in TRIALS):
        if not options.models or model in options.models:  # the network alone, and its training step
            table.put(bench.bench(model, batch_sizes=(BATCH,), seconds=1.0), path)
    print(table.markdown(options.out))
    return None


if __name__ == "__main__":
    main()
