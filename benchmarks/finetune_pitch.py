"""What fine-tuning CREPE on one's own sound is worth: `python -m benchmarks.finetune_pitch NOTTINGHAM --out FOLDER`.

NOTTINGHAM is the archive or folder of the Nottingham collection. Folk melodies of it are rendered with the zoo's own
renderer, each by one of five General MIDI instruments, with the pitch of the sounding note every 10 ms beside it as
CSV, and split by their names. Raw pitch and chroma accuracy and the recall and false alarm of voicing are mir_eval's,
over the tracks of the held-out pieces before and after.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo.data import files
from zoo.data.labelled import read_curve
from zoo.music import io
from zoo.music.score import Score
from zoo.show import render, write_wav

INSTRUMENTS = {"violin": 40, "choir": 52, "trumpet": 56, "clarinet": 71, "flute": 73}
RATE, HOP, SECONDS = 16000, 0.01, 12.0
COUNTS = {"train": 40, "valid": 8, "test": 15}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_pitch", description=__doc__)
    parser.add_argument("nottingham", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="crepe/tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    options = parser.parse_args()
    data = options.out / "data"
    split = make(options.nottingham, data)
    held_out = sorted(data / f"{stem}.wav" for stem, part in split.items() if part == "test")
    before = measure(zoo.load(options.model), held_out)
    run = options.out / "run"
    zoo.finetune(options.model, data, run, steps=options.steps, learning_rate=options.learning_rate, verbose=True)
    print(json.dumps({"before": before, "after": measure(zoo.load(run), held_out)}, indent=1))


def make(nottingham: Path, data: Path) -> dict[str, str]:
    """Renders the pieces and writes their curves and splits; the split of each stem."""
    found = files.find(nottingham, ["*melody/*"])
    names = files.splits(found)
    split: dict[str, str] = {}
    data.mkdir(parents=True, exist_ok=True)
    for part, count in COUNTS.items():
        for k, file in enumerate([file for file in found if names[file.name] == part][:count]):
            stem = f"{part}-{k:02d}-{list(INSTRUMENTS)[k % len(INSTRUMENTS)]}"
            split[stem] = part
            if not (data / f"{stem}.csv").is_file():
                write(io.read(file.path), INSTRUMENTS[stem.split("-")[2]], data / stem)
    (data / "splits.json").write_text(json.dumps(split))
    return split


def write(score: Score, program: int, stem: Path) -> None:
    """The first seconds of a melody as a WAV file, and its curve."""
    score = score.select(score.seconds_at(score.start) < SECONDS)
    played = Score.of(score.start, score.end, score.pitch, 90, program=program, tempos=score.tempos)
    write_wav(f"{stem}.wav", render(played, RATE).mean(axis=1)[: round(SECONDS * RATE)], RATE)
    begin, end = played.seconds_at(played.start), played.seconds_at(played.end)
    times = np.arange(0, min(SECONDS, float(end.max())), HOP)
    note = np.searchsorted(begin, times, side="right") - 1
    hz = np.where((note >= 0) & (times < end[note]), 440 * 2 ** ((played.pitch[note] - 69) / 12), 0.0)
    Path(f"{stem}.csv").write_text("".join(f"{t:.2f},{f:.3f}\n" for t, f in zip(times, hz, strict=True)))


def measure(model: Any, sounds: list[Path]) -> dict[str, float]:
    """mir_eval's melody metrics, means over pieces."""
    import mir_eval

    found: dict[str, list[float]] = {}
    for path, track in zip(sounds, model.tracks(sounds, hop=HOP), strict=True):
        times, hz = read_curve(path.with_suffix(".csv"))
        voiced = np.where(track.confidence >= 0.5, track.hz, -track.hz)  # below zero: unvoiced, but with a guess
        scores = mir_eval.melody.evaluate(times, hz, track.times, voiced)
        for name, value in scores.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


if __name__ == "__main__":
    main()
