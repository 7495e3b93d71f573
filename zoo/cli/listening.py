"""`zoo chords`, `analyze`: recordings in, what is heard in them out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.music import add_folder, stems
from zoo.cli.parser import add_json, add_verb
from zoo.cli.text import print_json
from zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from zoo.cli.parser import Parser, Verbs

SOUND = "WAV, FLAC, OGG or MP3, or a folder of them"


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "chords", chords, "Recognise the chords of recordings.",
        """
        zoo chords song.wav
        zoo chords album/ --out labels
        zoo chords *.mp3 --json
        """,
        "Prints lines of start, end (seconds) and chord; with --out writes .lab, .json and .png files.",
    )  # fmt: skip
    add_recordings(parser)
    parser.add_argument("--model", default="chord-crema", metavar="MODEL", help="which model (default: chord-crema)")
    parser.add_argument("--out", metavar="DIR", help="the folder to write into (default: print)")
    add_json(parser)

    parser = add_verb(
        verbs, "analyze", analyze, "Find out all that the zoo can hear in recordings.",
        """
        zoo analyze song.wav
        zoo analyze album/ --out report
        zoo analyze song.mp3 --models chord-crema --json
        """,
        "Writes a JSON file, a picture and a page with a player for each; one that can't be read stops none.",
    )  # fmt: skip
    add_recordings(parser)
    parser.add_argument("--models", metavar="A,B,…", help="which models (default: one of each kind)")
    add_folder(parser)
    add_json(parser)


def add_recordings(parser: Parser) -> None:
    """The files of a verb."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=SOUND)


def chords(args: argparse.Namespace) -> None:
    """`zoo chords`."""
    model: Any = zoo.load(args.model)
    if model.architecture.task != "chords":
        raise InputError(f"{args.model}: a model for {model.architecture.task}, not for chords; see `zoo list`")

    def tell(path: Path, stem: str) -> Any:
        found = model.chords(path)
        if args.out:
            base = Path(args.out) / stem
            found.to_lab(f"{base}.lab")
            found.to_json(f"{base}.json")
            found.plot(f"{base}.png", path.name)
            say(args, f"wrote {base}.lab, .json and .png: {len(found)} chords")
        elif not args.json:
            heading = f"# {path}\n" if args.files != [str(path)] else ""
            print(heading + found.to_lab(), end="")
        return found.table()

    listen(args, tell)


def analyze(args: argparse.Namespace) -> None:
    """`zoo analyze`."""
    from zoo.tasks.analyze import MODELS, load_models

    names = args.models.split(",") if args.models else MODELS
    models, left_out = load_models(name.strip() for name in names)
    for name, reason in left_out.items():
        print(f"zoo: warning: without {name}: {reason}", file=sys.stderr)
    if not models:
        raise InputError("no model is left to analyse with; see the lines above")

    def tell(path: Path, stem: str) -> Any:
        found = zoo.analyze(path, models.values())
        for name, reason in found.left_out.items():
            print(f"zoo: warning: {path}: without {name}: {reason}", file=sys.stderr)
        json, picture, page = found.save(args.out, stem)
        say(args, f"wrote {json}, {picture.name} and {page.name}")
        return {"json": json, "png": picture, "page": page}

    listen(args, tell)


def say(args: argparse.Namespace, text: str) -> None:
    """Prints a line unless the answer is for a program."""
    if not args.json:
        print(text)


def listen(args: argparse.Namespace, tell: Callable[[Path, str], Any]) -> None:
    """Calls `tell(path, stem of its files)` for each recording, and prints the answers together as JSON if asked to.

    One that fails is told on stderr and stops none; that there was one is an InputError at the end.
    """
    from tqdm import tqdm

    from zoo.music.audio import find

    paths, told, failed = find(args.files), {}, 0
    for path, stem in zip(tqdm(paths, unit="file", delay=2, disable=None), stems([*map(str, paths)]), strict=True):
        try:
            told[str(path)] = tell(path, stem)
        except ZooError as error:
            if len(paths) == 1:
                raise
            print(f"zoo: error: {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
    if args.json:
        print_json(told)
    if failed:
        raise InputError(f"{failed} of {len(paths)} recordings failed, as told above")
