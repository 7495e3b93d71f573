"""The objectives of MuseGAN compared: the same network, data, seed and number of steps, another game.

python -m benchmarks.objectives musegan/pop909 --data DIR --out runs/objectives --steps 1500

Each objective is trained with as many steps of the critic to one of the generator as the card has (WGAN-GP: 5), and
those that Goodfellow et al. (2014) played with one also so. A row is the evaluation of the last weights on the
validation pieces, not of the best, since that is what a game comes to. Runs that exist are gone on with.
`objectives.csv` beside this file is what musegan/pop909 gave with 1000 steps.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import zoo
from zoo.tasks.bench import write_csv
from zoo.training.metrics import VALID, MetricsLog

GAMES = (("wgan-gp", 5), ("minimax", 5), ("non-saturating", 5), ("minimax", 1), ("non-saturating", 1))
COLUMNS = (
    "distance", "accompanied", "empty_bars", "used_pitch_classes", "qualified_notes", "tonal_distance",
)  # fmt: skip


def main() -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a card of the family, with a recipe")
    parser.add_argument("--data", required=True, help="its data")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs and the table")
    parser.add_argument("--steps", type=int, default=1500, help="of the critic (default: 1500)")
    args = parser.parse_args()
    rows = []
    for objective, critic_steps in GAMES:
        name = f"{objective}-{critic_steps}"
        last = trained(args.model, objective, critic_steps, args.data, args.out / name, args.steps)
        rows.append({"objective": objective, "critic_steps": critic_steps, "steps": args.steps} | last)
        print(rows[-1], flush=True)
    write_csv(rows, args.out / "objectives.csv", tuple(rows[0]))


def trained(model: str, objective: str, critic_steps: int, data: str, out: Path, steps: int) -> dict[str, float]:
    """Trains a model whose card differs in its objective alone, and returns what its last evaluation measured."""
    card = out.with_name(out.name + "-card")
    shutil.copytree(zoo.info(model).folder, card, dirs_exist_ok=True)
    text = (card / "card.toml").read_text()
    text = re.sub(r"^objective = .*$", f'objective = "{objective}"', text, flags=re.MULTILINE)
    text = re.sub(r"^critic_steps = .*$", f"critic_steps = {critic_steps}", text, flags=re.MULTILINE)
    (card / "card.toml").write_text(text)
    zoo.train(card, data, out, steps=steps, verbose=True)
    log = MetricsLog(out / "metrics.jsonl")
    log.restart(steps)
    last = log.records[-1]
    return {name: round(last[VALID + name], 4) for name in COLUMNS} | {"seconds": last["seconds"]}


if __name__ == "__main__":
    main()
