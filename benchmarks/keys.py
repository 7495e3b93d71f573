"""How often the key of POP909's songs is found, by their key_audio.txt.

    python -m benchmarks.keys --data DIR --split test

`seconds`: the share of the annotated seconds whose key is right, averaged over songs; `songs`: the share of songs whose
longest key is found; `mirex`: the same with half a point for a key a fifth away, .3 for the relative and .2 for the
parallel key. By two profiles, with one key a song (`find_key`); and `with_changes`, `find_keys` with Aarden's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zoo.music.io import read
from zoo.music.key import AARDEN, KRUMHANSL_KESSLER, KeySpan, correlations, durations, find_keys
from zoo.music.score import Score

Truth = list[tuple[float, float, int]]


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the songs' folders, with splits.json")
    parser.add_argument("--split", default="test")
    args = parser.parse_args()
    pairs = list(songs(args.data, args.split))
    told: dict[str, object] = {"songs": len(pairs)}
    for name, profiles in {"aarden": AARDEN, "krumhansl_kessler": KRUMHANSL_KESSLER}.items():
        keys = [int(correlations(durations(score).sum(axis=0), profiles).argmax()) for score, _ in pairs]
        points = [mirex(longest(truth), key) for (_, truth), key in zip(pairs, keys, strict=True)]
        told[name] = {
            "songs": float(np.mean(np.array(points) == 1)),
            "mirex": float(np.mean(points)),
            "seconds": float(
                np.mean([share(t, [KeySpan(0, 1e9, k, 1)]) for (_, t), k in zip(pairs, keys, strict=True)])
            ),
        }
    told["with_changes"] = {"seconds": float(np.mean([share(truth, find_keys(score)) for score, truth in pairs]))}
    print(json.dumps(told, indent=2))


def songs(folder: Path, split: str) -> Iterator[tuple[Score, Truth]]:
    """Songs of a split with their keys."""
    for song, its in json.loads((folder / "splits.json").read_text()).items():
        if its == split:
            lines = (folder / song / "key_audio.txt").read_text().split("\n")
            rows = [line.split() for line in lines if line.strip()]
            yield read(folder / song / f"{song}.mid"), [(float(a), float(b), parse(key)) for a, b, key in rows]


def parse(name: str) -> int:
    """12 for "Gb:maj"."""
    letter, mode = name.split(":")
    tonic = "C D EF G A B".index(letter[0]) + letter.count("#") - letter.count("b")
    return 2 * (tonic % 12) + (mode == "min")


def longest(truth: Truth) -> int:
    """The key of most of a song."""
    seconds: dict[int, float] = {}
    for start, end, key in truth:
        seconds[key] = seconds.get(key, 0.0) + end - start
    return max(seconds, key=lambda key: seconds[key])


def share(truth: Truth, found: Sequence[KeySpan]) -> float:
    """The share of annotated seconds whose key is right."""
    right = [
        any(span.start <= t < span.end and span.key == key for span in found)
        for start, end, key in truth
        for t in range(round(start), round(end))
    ]
    return float(np.mean(right))


def mirex(truth: int, found: int) -> float:
    """Points for a key: 1, .5 for a fifth away, .3 for the relative, .2 for the parallel one."""
    same_mode, up = truth % 2 == found % 2, (found // 2 - truth // 2) % 12
    if same_mode:
        return {0: 1.0, 5: 0.5, 7: 0.5}.get(up, 0.0)
    return 0.2 if up == 0 else 0.3 if up == (3 if truth % 2 else 9) else 0.0


if __name__ == "__main__":
    main()
