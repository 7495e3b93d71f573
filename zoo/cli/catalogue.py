"""`zoo list`, `info`, `cite`: what there is. Cards only, so nothing here imports JAX."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.parser import add_json, add_model, add_verb
from zoo.cli.text import count, print_fields, print_json, print_table, short, size
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs
    from zoo.weights.cards import Card, Licence, Metric, Source


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "list", list_, "Show the models there are.",
        """
        zoo list
        zoo list 'music-vae*' --json
        zoo list --task latent --pretrained
        """,
    )  # fmt: skip
    parser.add_argument("pattern", nargs="?", default="*", help="a family, or wildcards in quotes (default: all)")
    parser.add_argument("--task", help="only models of this task, such as latent")
    parser.add_argument("--pretrained", action="store_true", default=None, help="only models that have weights")
    add_json(parser)

    parser = add_verb(
        verbs, "info", info, "Show what is known of a model: its card.",
        """
        zoo info music-vae
        zoo info music-vae/mel-2bar --json
        zoo info runs/mine
        """,
    )  # fmt: skip
    add_model(parser)
    add_json(parser)

    parser = add_verb(
        verbs, "cite", cite, "Print the BibTeX entry of a model's paper.",
        "zoo cite music-vae >> references.bib",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a name (`zoo list`)")


def list_(args: argparse.Namespace) -> None:
    """`zoo list`."""
    cards = [zoo.info(name) for name in zoo.list_models(args.pattern, args.task, args.pretrained)]
    if args.json:
        keys = ("id", "summary", "task", "architecture", "parameters", "pretrained", "verified", "default")
        return print_json([{key: getattr(card, key) for key in keys} for card in cards])
    if not cards:
        raise InputError("no model is like that; `zoo list` shows all there are")
    print_table([("MODEL", "TASK", "SIZE", "WEIGHTS", "WHAT IT IS"), *map(_row, cards)])
    if any(card.default for card in cards):
        print("\n* is what the name of its family alone means. More of each: zoo info MODEL")
    return None


def _row(card: Card) -> tuple[str, ...]:
    star = " *" if card.default else ""
    return card.id + star, card.task, count(card.parameters), origin(card), card.summary


def origin(card: Card) -> str:
    """Where a model's weights come from, in a word or three."""
    if not card.pretrained:
        return "none yet"
    if all(source.kind in ("bundled", "file") for source in card.sources):
        return "bundled"
    return "download" if card.verified else "download, not verified here"


def info(args: argparse.Namespace) -> None:
    """`zoo info`."""
    path = Path(args.model)
    facts = _file_facts(path) if path.exists() and not (path / "card.toml").is_file() else None
    if facts:
        return print_json(facts) if args.json else print_fields({key: _flat(value) for key, value in facts.items()})
    card = _card(path) if path.exists() else zoo.info(args.model)
    if args.json:
        return print_json(asdict(card))
    print(f"{card.id}\n")
    print_fields(dict(_card_fields(card)))
    return None


def _card(path: Path) -> Card:
    from zoo.weights.cards import load_card

    return load_card(path)


def _file_facts(path: Path) -> dict[str, Any]:
    """What a run directory or a .safetensors file says of itself."""
    from zoo.weights.formats import safetensors

    file = path / "best.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: neither a run with best.safetensors in it nor a folder with a card.toml")
    tensors, facts = safetensors.load(file)
    return {"file": file, **facts, "parameters": sum(int(tensor.size) for tensor in tensors.values())}


def _card_fields(card: Card) -> Iterator[tuple[str, str | list[str]]]:
    """The lines of `zoo info`, in the order a reader asks."""
    yield "what it is", card.summary
    yield "task", card.task
    yield "architecture", f"{card.architecture}, {card.parameters:,} parameters"
    yield "config", _flat(card.config)
    yield "codec", f"{card.codec.name} {_flat(card.codec.options)}".strip()
    unverified = [] if card.verified or not card.pretrained else ["not verified: nobody has loaded these files here"]
    yield "weights", [*map(_source, card.sources), *unverified] or "none yet"
    yield "trained on", ", ".join(card.data)
    if card.trained:
        yield "training", [f"{card.trained.where}, {card.trained.time}", card.trained.curve]
    yield "measured", [_metric(metric) for metric in card.metrics]
    yield "for", card.intended_use
    yield "limits", card.limits
    of = card.licences
    licences: dict[str, tuple[Licence | None, ...]] = {"code": (of.code,), "weights": (of.weights,), "data": of.data}
    yield "licences", [f"{what}: {_licence(each)}" for what, some in licences.items() for each in some if each]
    yield "paper", card.citation.paper
    yield "card", str(card.path)


def _source(source: Source) -> str:
    place = source.url or source.file or f"{source.member} of {source.package} {source.version}"
    return f"{source.kind}: {place}" + (f", {size(source.bytes)}" if source.bytes else "")


def _metric(metric: Metric) -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    further = "".join(f"; {text}" for text in (metric.note, metric.command) if text)
    return f"{metric.name} {short(metric.value)}{unit} on {metric.data} ({metric.split}), by {metric.by}{further}"


def _licence(licence: Licence) -> str:
    return licence.name + (f" for {licence.of}" if licence.of else "") + f" ({licence.stated_at})"


def _flat(value: Any) -> str:
    """A table as "key value, key value"."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def cite(args: argparse.Namespace) -> None:
    """`zoo cite`."""
    print(zoo.cite(args.model))
