"""How a model learnt to write: samples at the moments that a run kept and of its best weights, on one sheet.

python -m benchmarks.moments runs/musegan --out moments.png

The same noise at each moment, so that one can follow a phrase. A recipe says which moments: `moments` in [train].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import zoo
from zoo.errors import InputError
from zoo.show import piano_roll
from zoo.training.runs import MOMENTS


def main() -> None:
    """Draws the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("-n", type=int, default=2, help="samples at each moment (default: 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="moments.png", help="the PNG to write (default: moments.png)")
    args = parser.parse_args()
    moments = sorted((args.run / MOMENTS).glob("*.safetensors"), key=lambda path: int(path.stem))
    if not moments:
        raise InputError(f"{args.run}: kept no moments; its recipe has none, or it has not come to the first")
    scores, titles = [], []
    for name, path in [*((f"step {path.stem}", path) for path in moments), ("the best weights", args.run)]:
        model = zoo.load(path)
        scores += model.scores(model.sample_windows(args.n, key=args.seed))
        titles += [f"{name}, sample {i + 1}" for i in range(args.n)]
    print(piano_roll(scores, args.out, f"{args.run.name}: {len(moments)} moments", titles))


if __name__ == "__main__":
    main()
