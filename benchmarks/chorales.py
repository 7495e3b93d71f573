"""A model of chorales beside Bach, on the official test split: framewise likelihood, and rules of counterpoint.

    python -m benchmarks.chorales coconet/jsb --data DIR

DIR holds `Jsb16thSeparated.json`. The likelihood is the Coconet paper's (section 5.1): frames in random and in
chronological order, each predicted voice by voice, averaged over orders. `--own` feeds the model its own likeliest
notes within a frame, as the authors' code does; without it the number is a likelihood. Only some frames of each piece
are asked for, drawn at random, which estimates the mean of all; the pieces are whole. A harmonizer has one order, so
its likelihood is exact: alto, tenor and bass of each sixteenth from the soprano and the voices before, all frames. That
of a model of all four as one sequence is `zoo evaluate`'s.

Then a hundred test sopranos are harmonised, and what comes is judged beside what Bach wrote for the same sopranos; see
`zoo.music.counterpoint`. The split has 77 pieces: the hundred are the first four bars (64 sixteenths) of each, then the
second four of the first 23.
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
from zoo.tasks.infill import ROWS


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=100, help="sopranos to harmonise, 0 for none")
    parser.add_argument("--length", type=int, default=64, help="sixteenths of each")
    parser.add_argument("--steps", type=int, default=None, help="of the Gibbs chain")
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--pieces", type=int, default=77, help="to predict frames of, the first so many, 0 for none")
    parser.add_argument("--frames", type=int, default=1, help="a piece, drawn at random")
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--own", action="store_true", help="within a frame the model sees its own notes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, pieces = zoo.load(args.model), jsb.read(next(args.data.rglob(jsb.NAME)))
    told: dict[str, object] = dict(vars(args))
    task = model.architecture.task
    test = [tokens(piece) for piece in pieces["test"][: args.pieces]]
    if test and task == "harmonization":
        told |= teacher_forced(model, test)
    elif test and task == "infill":
        options = {"orders": args.orders, "frames": args.frames, "own": args.own, "key": args.seed}
        for name in ("random", "chronological"):
            nats = np.concatenate(model.nats_of(test, chronological=name == "chronological", **options))
            nats = nats[np.isfinite(nats)]
            told[name] = {"nats": nats.mean(), "standard_error": nats.std() / len(nats) ** 0.5, "frames": len(nats)}
    if args.windows:
        bach = windows(pieces["test"], args.length, args.windows)
        harmonise = {"harmonization": by_voices, "infill": by_gibbs, "continuation": by_tokens}[task]
        for name, music in {"bach": bach, "harmonised": harmonise(model, bach, args)}.items():
            told[name] = faults(music) | {"copied_bars": copied_bars(music, pieces["train"])}
    print(json.dumps(told, indent=2, default=str))


def windows(pieces: list[np.ndarray], length: int, count: int) -> list[np.ndarray]:
    """`count` stretches of `length` sixteenths: the first of every piece, then the second of those that have one, …"""
    starts = range(0, max(map(len, pieces)), length)
    return [piece[at : at + length] for at in starts for piece in pieces if at + length <= len(piece)][:count]


def by_gibbs(model: Any, bach: list[np.ndarray], args: argparse.Namespace) -> list[np.ndarray]:
    """The sopranos with three voices filled in, ROWS pieces at a time."""
    found: list[np.ndarray] = []
    for at in range(0, len(bach), ROWS):
        music = np.stack([tokens(window) for window in bach[at : at + ROWS]])
        free = np.broadcast_to(np.arange(4) > 0, music.shape)
        chain = {"key": args.seed + at, "temperature": args.temperature, "steps": args.steps}
        found += map(pitches, model.fill(music, free, len(music), **chain))
    return found


def by_voices(model: Any, bach: list[np.ndarray], args: argparse.Namespace) -> list[np.ndarray]:
    """The sopranos with three voices written from left to right."""
    found = []
    for i, window in enumerate(bach):
        music = tokens(window)
        written = model.write(music, key=args.seed + i, temperature=args.temperature)[0]
        found.append(pitches(model.filled(music, written)))
    return found


def by_tokens(model: Any, bach: list[np.ndarray], args: argparse.Namespace) -> list[np.ndarray]:
    """The sopranos with three voices written from left to right by a model that doesn't see what they will sing."""
    found = []
    for i, window in enumerate(bach):
        given = np.where(np.arange(4) > 0, -1, tokens(window)).ravel()
        written = model.write(1, given=given, steps=len(given), key=args.seed + i, temperature=args.temperature)[0]
        found.append(pitches(written.reshape(-1, 4)))
    return found


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
