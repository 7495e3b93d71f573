"""Arguments: the verbs put together, types that explain what they refuse, and the nearest name after a typing error."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from zoo import __version__

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction["Parser"]

DEFAULT = "music-vae"  # the model of a bare `zoo generate`
MODEL = "a name (`zoo list`), a run directory, a card's folder, or a .safetensors file"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that says where help is."""

    def error(self, message: str) -> NoReturn:
        """Ends with exit code 2."""
        self.exit(2, f"zoo: error: {message}; `{self.prog} --help` shows how\n")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line understood: `run` is the function to call with it. Ends the program where it can't be."""
    parser, verbs = _build()
    if not argv:
        parser.print_help()
        parser.exit()
    if argv[0] == "help":
        argv = [*argv[1:2], "--help"]
    if not argv[0].startswith("-") and argv[0] not in verbs.choices:
        parser.error(f"there is no verb {argv[0]!r}{nearest(argv[0], verbs.choices)}")
    args, strange = parser.parse_known_args(argv)
    if strange:
        verb = verbs.choices[args.verb]
        options = re.findall(r"--[\w-]+", verb.format_help())
        option = strange[0].startswith("-")
        hint = nearest(strange[0].split("=")[0], options) if option else ""
        verb.error(f"there is no option {strange[0]}{hint}" if option else f"{strange[0]!r} is one argument too many")
    return args


def _build() -> tuple[Parser, Verbs]:
    from zoo.cli import catalogue, doctor, learning, listening, melody, music, pitch, sequences, tags, voices

    parser = Parser(
        prog="zoo",
        usage="zoo [-h] [--version] VERB …",
        description="Pretrained networks for music: they generate it, take it apart, and learn from yours.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", prog="zoo", required=True, help=argparse.SUPPRESS)
    for module in (catalogue, music, sequences, voices, listening, melody, pitch, tags, learning, doctor):
        module.add(verbs)
    lines = [f"  {name:<12} {(verb.description or '').splitlines()[0]}" for name, verb in verbs.choices.items()]
    parser.epilog = "verbs:\n" + "\n".join(lines) + "\n\n`zoo VERB --help` has examples. Begin with: zoo generate"
    return parser, verbs


def add_verb(
    verbs: Verbs, name: str, run: Callable[[argparse.Namespace], None], summary: str, examples: str, more: str = ""
) -> Parser:
    """A verb's own parser; `summary` stands in the list of verbs too. `examples`: one a line."""
    parser = verbs.add_parser(
        name,
        description=f"{summary}\n{more}".strip(),
        epilog="examples:\n" + "".join(f"  {line.strip()}\n" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, when_stopped="")
    parser.add_argument("--debug", action="store_true", help="show the traceback of any error")
    return parser


def add_model(parser: Parser, default: str | None = None) -> None:
    """The first argument of most verbs."""
    optional: dict[str, Any] = {"nargs": "?", "default": default} if default else {}
    parser.add_argument(
        "model", metavar="MODEL", help=MODEL + (f" (default: {default})" if default else ""), **optional
    )


def add_seed(parser: Parser, default: int | None = 0) -> None:
    """`--seed`, for every verb where chance is."""
    said = "the recipe's" if default is None else default
    help_ = f"the same seed gives the same result (default: {said})"
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), default=default, metavar="N", help=help_)


def add_json(parser: Parser) -> None:
    """`--json`, for every verb whose answer a program would read."""
    parser.add_argument("--json", action="store_true", help="print JSON for a program to read")


def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """A type of argument: a whole number between two bounds."""

    def parse_whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            upper = "" if most == math.inf else f" and at most {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}{upper}")
        return value

    return parse_whole


def number(least: float, above: bool = False) -> Callable[[str], float]:
    """A type of argument: a finite number of at least, or `above`, a bound."""

    def parse_number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < least or (above and value == least):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number {'above' if above else 'of at least'} {least:g}"
            )
        return value

    return parse_number


def nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    """A hint at the name that was meant, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
