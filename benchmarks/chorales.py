"""A model of chorales beside Bach, on the official test split: framewise likelihood, and rules of counterpoint.

    python -m benchmarks.chorales coconet/jsb --data DIR

DIR holds `Jsb16thSeparated.json`. The likelihood is the Coconet paper's (section 5.1): frames in random and in
chronological order, each predicted voice by voice, averaged over orders. `--own` feeds the model its own likeliest
notes within a frame, as the authors' code does; without it the number is a likelihood. Only some frames of each piece
are asked for, drawn at random, which estimates the mean of all. Then each test soprano is harmonised, and what comes
is judged beside what Bach wrote for the same sopranos; see `zoo.music.counterpoint`. A harmonizer has one order, so its
likelihood is exact: alto, tenor and bass of each sixteenth from the soprano and the voices before, all frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo.data import jsb
from zoo.music.chorale import FIRST_PITCH, MIN_PITCH, REST
from zoo.music.counterpoint import copied_bars, faults


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=77, help="of the test split, the first so many")
    parser.add_argument("--length", type=int, default=None, help="sixteenths of each piece, from its beginning")
    parser.add_argument("--frames", type=int, default=2, help="a piece, drawn at random")
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="of the Gibbs chain")
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="within a frame the model sees its own notes")
    parser.add_argument("--skip-likelihood", action="store_true")
    args = parser.parse_args()
    model, pieces = zoo.load(args.model), jsb.read(next(args.data.rglob(jsb.NAME)))
    test = [piece[: args.length] for piece in pieces["test"][: args.pieces]]
    told: dict[str, object] = {"model": args.model, "pieces": len(test), **vars(args)}
    harmoniser = model.architecture.task == "harmonization"
    if not args.skip_likelihood and harmoniser:
        told |= teacher_forced(model, [tokens(piece) for piece in test])
    elif not args.skip_likelihood:
        options = {"orders": args.orders, "frames": args.frames, "own": args.own, "key": args.seed}
        for name in ("random", "chronological"):
            options["chronological"] = name == "chronological"
            nats = np.concatenate([model.nats(tokens(piece), **options) for piece in test])
            nats = nats[np.isfinite(nats)]
            told[name] = {"nats": nats.mean(), "standard_error": nats.std() / len(nats) ** 0.5, "frames": len(nats)}
    harmonised = []
    for i, piece in enumerate(test):
        music = tokens(piece)
        if harmoniser:
            written = model.write(music, key=args.seed + i, temperature=args.temperature)[0]
            harmonised.append(pitches(model.filled(music, written)))
            continue
        free = np.tile(np.arange(4) > 0, (len(music), 1))
        chain = {"key": args.seed + i, "temperature": args.temperature, "steps": args.steps}
        harmonised.append(pitches(model.fill(music, free, **chain)[0]))
    for name, music in {"bach": test, "harmonised": harmonised}.items():
        told[name] = faults(music) | {"copied_bars": copied_bars(music, pieces["train"])}
    print(json.dumps(told, indent=2, default=str))


def teacher_forced(model: Any, test: list[np.ndarray]) -> dict[str, float]:
    """Of all frames: nats of the three voices together and of a note, and how often the likeliest note is right."""
    nats = np.concatenate([model.nats(music) for music in test])
    right = np.concatenate([model.likeliest(music) == music[:, 1:].ravel() for music in test]).reshape(-1, 3)
    named = dict(zip(("alto", "tenor", "bass"), right.mean(axis=0).tolist(), strict=True))
    return {"nats_a_frame": 3 * nats.mean(), "nats_a_note": nats.mean(), "accuracy": right.mean(), **named}


def tokens(piece: np.ndarray) -> np.ndarray:
    """Pitches, -1 for a rest, as the codec's tokens."""
    return np.where(piece < 0, REST, piece - MIN_PITCH + FIRST_PITCH).astype(np.int32)


def pitches(music: np.ndarray) -> np.ndarray:
    """The inverse of `tokens`."""
    return np.where(music == REST, -1, music - FIRST_PITCH + MIN_PITCH).astype(np.int32)


if __name__ == "__main__":
    main()
