"""What musicnn learns of one's own classes: `python -m benchmarks.finetune_tags DATA --out FOLDER`.

DATA holds the archives pop909, nottingham, lieder and jsb-chorales (.tar.gz). Twenty seconds of 40 pieces of each are
rendered with the zoo's own renderer, all on the piano and equally loud, into a folder a genre: what is to be told apart
is the music. Pieces are split 24 / 6 / 10. Accuracy of held-out windows of three seconds, and of whole pieces by their
mean, before (a last layer of random numbers, mean of ten) and after.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

import zoo
from zoo.data import files, jsb, load_labelled
from zoo.errors import ZooError
from zoo.music import io
from zoo.music.score import Score
from zoo.show import render, write_wav
from zoo.tasks.heads import embedded

RATE, SECONDS, PEAK = 16000, 20.0, 0.3
GENRES = {"pop": "pop909", "folk": "nottingham", "lied": "lieder", "chorale": "jsb-chorales"}
SPLIT = ("train",) * 24 + ("valid",) * 6 + ("test",) * 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune_tags", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="musicnn")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    sounds = options.out / "data"
    if not (sounds / "splits.json").is_file():
        make(options.data, sounds)
    run = options.out / "run"
    zoo.finetune(options.model, sounds, run, steps=options.steps, verbose=True)
    print(json.dumps(measure(zoo.load(run), sounds), indent=1))


def make(data: Path, out: Path) -> None:
    """Renders the pieces of every genre, and says which split each is in."""
    split = {}
    for genre, archive in GENRES.items():
        for part, (name, score) in zip(SPLIT, pieces(data / f"{archive}.tar.gz"), strict=False):
            score = score.select(~score.is_drum & (score.seconds_at(score.start) < SECONDS + 5))
            sound = render(replace(score, program=np.zeros_like(score.program)), RATE).mean(axis=1)
            sound = sound[: round(SECONDS * RATE)]
            write_wav(out / genre / f"{name}.wav", sound * (PEAK / np.abs(sound).max()), RATE)
            split[f"{genre}/{name}.wav"] = part
    (out / "splits.json").write_text(json.dumps(split, indent=0))


def pieces(archive: Path) -> Iterator[tuple[str, Score]]:
    """Pieces of a collection in an order drawn once, those that can be read and have twenty notes."""
    rng = np.random.default_rng(0)
    found = [file for file in files.find(archive) if "chords/" not in file.name]
    chorales = [file for file in found if jsb.is_collection(file.path)]
    if chorales:
        scores = jsb.read_scores(chorales[0].path)
        yield from ((scores[i][0].replace("/", "-"), scores[i][1]) for i in rng.permutation(len(scores)))
        return
    for i in rng.permutation(len(found)):
        try:
            score = io.read(found[i].path)
        except ZooError:
            continue
        if (~score.is_drum).sum() >= 20:
            yield found[i].path.stem, score


def measure(model: Any, sounds: Path) -> dict[str, float]:
    """Accuracy on the test pieces: of windows and pieces, with a random last layer and with the learnt one."""
    corpus = load_labelled(sounds, model.codec, "classes", model.config.window)
    head = model.architecture.head
    known = embedded(model.module, head, corpus.test)
    x, y = np.asarray(known["embedding"]), np.asarray(known["y"])
    piece = np.repeat(np.arange(len(corpus.names["test"])), len(y) // len(corpus.names["test"]))  # all equally long
    learnt = (np.asarray(model.module.output.kernel[...]), np.asarray(model.module.output.bias[...]))
    rngs = [nnx.Rngs(seed) for seed in range(10)]
    random = [(jax.nn.initializers.glorot_uniform()(each.params(), learnt[0].shape), 0.0) for each in rngs]
    drawn = [accuracies(x @ kernel + bias, y, piece) for kernel, bias in random]
    after = accuracies(x @ learnt[0] + learnt[1], y, piece)
    return {
        "majority": float(np.bincount(y).max() / len(y)),
        "windows before": float(np.mean([each[0] for each in drawn])),
        "pieces before": float(np.mean([each[1] for each in drawn])),
        "windows after": after[0],
        "pieces after": after[1],
    }


def accuracies(logits: np.ndarray, y: np.ndarray, piece: np.ndarray) -> tuple[float, float]:
    """Shares of windows, and of pieces by the mean probability of their windows, that are right."""
    p = np.asarray(jax.nn.softmax(logits, axis=-1))
    right = [p[piece == k].mean(axis=0).argmax() == y[piece == k][0] for k in np.unique(piece)]
    return float((p.argmax(axis=1) == y).mean()), float(np.mean(right))


if __name__ == "__main__":
    main()
