"""`--attention`, for every verb whose model attends to what it is given."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.cli.parser import Parser


def add_attention(parser: Parser) -> None:
    """The option."""
    help_ = "draw what the model's attention looks at, into this PNG file, or into this folder a file each"
    parser.add_argument("--attention", metavar="PATH", help=help_)


def draw_attention(args: argparse.Namespace, model: Any, source: Any, stem: str) -> Path | None:
    """Draws `model.attention(source)` where the option says, and returns where; None where it wasn't given.

    Raises InputError if the model has no attention that can be looked at, or one file is to hold several pictures.
    """
    if not getattr(args, "attention", None):
        return None
    if not hasattr(model, "attention"):
        raise InputError(f"{model.name}: has no attention to look at; leave out --attention")
    path = Path(args.attention)
    if path.suffix.lower() != ".png":
        path /= f"{stem}-attention.png"
    elif len(getattr(args, "files", ())) > 1:
        raise InputError(f"--attention {path}: one picture can't show several files; name a folder")
    drawn: Path = model.attention(source).plot(path, f"{stem}, {model.name}")
    return drawn
