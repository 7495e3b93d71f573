"""The table of models in README.md, made from the cards: `python -m zoo.readme README.md` writes it anew.

It stands between two marks; a test says whether it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from zoo.cli.catalogue import origin
from zoo.cli.text import count, short

if TYPE_CHECKING:
    from zoo.weights.cards import Card

BEGIN, END = "<!-- models -->", "<!-- end of models -->"
MEASURED = 2  # of a card's metrics, the first of ours on test music


def models() -> str:
    """The table of models, a row a card; first those whose weights were loaded and run here."""
    head = ("Model", "What it is", "Size", "Measured here, on test music", "Weights", "Their licence")
    cards = sorted(map(zoo.info, zoo.list_models()), key=lambda card: not card.verified)
    return table([head, *map(_row, cards)])


def _row(card: Card) -> tuple[str, ...]:
    link = f"[{card.id}](checkpoints/{card.id}/card.toml)" + (" (default)" if card.default else "")
    ours = [metric for metric in card.metrics if metric.by == "us" and metric.split == "test"][:MEASURED]
    measured = ", ".join(f"{m.name} {short(m.value)} {m.unit}".strip() for m in ours)
    licence = card.licences.weights.name if card.licences.weights else ""
    return link, card.summary, count(card.parameters), measured, origin(card), licence


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first its head."""
    head, *body = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def filled(text: str) -> str:
    """`text` with what stands between the marks made anew; ValueError if they aren't there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{models()}\n{END}{after}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
