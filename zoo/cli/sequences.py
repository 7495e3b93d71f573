"""`zoo continue`, `score`: sequence models go on from a piece, or say what surprises them in it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.attention import add_attention, draw_attention
from zoo.cli.music import (
    NOTES,
    add_length,
    add_out,
    add_temperature,
    length_options,
    load,
    save,
    stems,
)
from zoo.cli.parser import add_json, add_model, add_seed, add_verb, number, whole
from zoo.cli.text import print_json, print_table
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "continue", continue_, "Go on from a piece, several times.",
        """
        zoo continue music-transformer/jsb chorale.mxl --seconds 20
        zoo continue music-transformer/jsb a.mid -n 8 --top-p 0.95 --seed 3 --out further
        """,
        "The page has the piece as it was, and each continuation with the piece before it.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("file", metavar="FILE", help=f"what it begins with: {NOTES}")
    parser.add_argument("-n", type=whole(1), default=4, metavar="N", help="how many continuations (default: 4)")
    help_ = "only the first so many seconds of the piece (default: all of it)"
    parser.add_argument("--primer", type=number(0, above=True), metavar="S", help=help_)
    add_temperature(parser, 1.0)
    add_length(parser)
    add_seed(parser)
    add_out(parser, tempo=False)

    parser = add_verb(
        verbs, "score", score, "Say how likely a model finds pieces, and where it is surprised.",
        """
        zoo score music-transformer/jsb chorale.mxl
        zoo score music-transformer/jsb a.mid b.mid --plots surprise --json
        zoo score music-transformer/jsb a.mid --attention looks.png
        """,
        "Prints nats a token (−log p, given all before it); 0 is no surprise at all.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help=NOTES)
    parser.add_argument("--plots", metavar="DIR", help="draw the surprise over time of each piece into this folder")
    add_attention(parser)
    add_json(parser)


def continue_(args: argparse.Namespace) -> None:
    """`zoo continue`."""
    from zoo.music import io
    from zoo.show import Group

    model, args.files = load(args.model, "continuation"), [args.file]
    before = io.read(args.file)
    if args.primer:
        end = before.quarters_at(args.primer)
        before = before.select(before.start < end)
        before = replace(before, end=before.end.clip(max=end))
        if not len(before):
            raise InputError(f"{args.file}: has no note in its first {args.primer:g} seconds; give a longer --primer")
    tokens, qpm = model.tokens(before), before.qpm
    written = model.write(args.n, primer=tokens, qpm=qpm, **length_options(args))
    heading, stem = Path(args.file).name, stems(args.files)[0]
    groups = [
        Group(model.scores([tokens], qpm, like=before), [heading], f"{stem}-primer", "As it was"),
        Group(
            model.scores(model.joined(tokens, written), qpm, like=before),
            [f"Continuation {i + 1}" for i in range(args.n)],
            f"{stem}-continued",
            "How it goes on",
        ),
    ]
    save(groups, args, f"{heading}, continued by {model.name}", f"temperature {args.temperature:g}, seed {args.seed}")


def score(args: argparse.Namespace) -> None:
    """`zoo score`."""
    model = load(args.model, "continuation")
    found = [model.score(file) for file in args.files]
    pictures: list[Path | None] = [None] * len(found)
    if args.plots:
        names = [Path(args.plots) / f"{stem}.png" for stem in stems(args.files)]
        pictures = [
            taken.plot(name, f"{Path(file).name}: {taken.mean:.3f} nats a token")
            for taken, name, file in zip(found, names, args.files, strict=True)
        ]
    looks = [draw_attention(args, model, file, stem) for file, stem in zip(args.files, stems(args.files), strict=True)]
    if args.json:
        rows = zip(args.files, found, pictures, looks, strict=True)
        return print_json(
            [
                {
                    "file": file,
                    "tokens": len(taken.nats),
                    "nats_a_token": taken.mean,
                    "nats": taken.nats.tolist(),
                    "seconds": taken.seconds.tolist(),
                    "picture": picture,
                    "attention": look,
                }
                for file, taken, picture, look in rows
            ]
        )
    lines = [("FILE", "TOKENS", "NATS A TOKEN", "MOST SURPRISED AT")]
    for file, taken in zip(args.files, found, strict=True):
        peak = int(taken.nats.argmax())
        where = f"{taken.seconds[peak]:.1f} s ({taken.nats[peak]:.1f} nats)"
        lines.append((file, str(len(taken.nats)), f"{taken.mean:.3f}", where))
    print_table(lines)
    if args.plots:
        print(f"\ndrew the surprise over time into {args.plots}")
    if args.attention:
        print(f"\ndrew the attention into {args.attention}")
    return None
