"""`zoo tag`: what a model hears in files of sound."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.listening import add_recordings, listen, say
from zoo.cli.parser import MODEL, add_json, add_verb, number, whole
from zoo.cli.text import print_table
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs


def add(verbs: Verbs) -> None:
    """Adds the verb of this file."""
    parser = add_verb(
        verbs, "tag", tag, "Say what kind of music is in files of sound.",
        """
        zoo tag song.mp3
        zoo tag album/ --top 3 --json
        zoo tag song.wav --model musicnn/msd --hop 1 --out tagged
        zoo tag song.wav --model runs/mine
        """,
        "With --out it also writes, for each file, a picture and the numbers of every three seconds.",
    )  # fmt: skip
    add_recordings(parser)
    parser.add_argument("--model", default="musicnn", metavar="MODEL", help=f"{MODEL} (default: musicnn)")
    parser.add_argument("--top", type=whole(1), default=5, metavar="N", help="the likeliest N tags (default: 5)")
    help_ = "from one patch of three seconds to the next (default: three, no overlap)"
    parser.add_argument("--hop", type=number(0, above=True), metavar="SECONDS", help=help_)
    parser.add_argument("--out", metavar="DIR", help="also write a PNG and a JSON file for each into this folder")
    add_json(parser)


def tag(args: argparse.Namespace) -> None:
    """`zoo tag`."""
    model: Any = zoo.load(args.model)
    if model.architecture.task != "tags":
        raise InputError(
            f"{args.model}: a model for {model.architecture.task}, not for tags; see `zoo list --task tags`"
        )

    def tell(path: Path, stem: str) -> Any:
        taggram = model.taggram(path, hop=args.hop)
        top = taggram.top(args.top)
        if not args.json:
            print(path)
            print_table([(f"{share:4.0%}", name) for name, share in top], indent="  ")
        if args.out:
            base = Path(args.out) / stem
            taggram.plot(f"{base}.png", path.name)
            taggram.to_json(f"{base}.json")
            say(args, f"  wrote {base}.png and .json")
        return {name: round(share, 4) for name, share in top}

    listen(args, tell)
