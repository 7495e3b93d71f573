"""What the command line prints: aligned tables, sizes, numbers, JSON."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_table(rows: Iterable[Sequence[str]], indent: str = "") -> None:
    """Columns side by side; on a terminal the last one is cut at its edge, elsewhere all is printed."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        line = (indent + "  ".join(cells)).rstrip()
        print(cut(line) if sys.stdout.isatty() else line)


def cut(line: str) -> str:
    """`line` no wider than the terminal."""
    columns = shutil.get_terminal_size().columns
    return line if len(line) <= columns else line[: columns - 1] + "…"


def print_fields(fields: Mapping[str, str | Sequence[str]]) -> None:
    """Names in one column, texts wrapped in the other; a list has a line an item. Empty texts are left out."""
    margin = max(map(len, fields)) + 2
    width = min(shutil.get_terminal_size().columns, 100)
    for name, text in fields.items():
        lines = [text] if isinstance(text, str) else text
        head = name.ljust(margin)
        for line in filter(None, lines):
            print(
                textwrap.fill(
                    line,
                    width,
                    initial_indent=head,
                    subsequent_indent=" " * margin,
                    break_on_hyphens=False,
                    break_long_words=False,
                )
            )
            head = " " * margin


def print_json(value: Any) -> None:
    """`value` as indented JSON; what JSON has no word for, such as a path, as a string."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def size(number_of_bytes: float) -> str:
    """Bytes in words: "11.2 MB"."""
    if number_of_bytes < 1e6:
        return f"{number_of_bytes / 1e3:.1f} kB"
    return f"{number_of_bytes / 1e6:.1f} MB" if number_of_bytes < 1e9 else f"{number_of_bytes / 1e9:.1f} GB"


def count(value: float) -> str:
    """A large number in four characters or so: "5.9 M"."""
    if value < 1e3:
        return f"{value:.0f}"
    return f"{value / 1e3:.0f} k" if value < 1e6 else f"{value / 1e6:.1f} M"


def short(value: Any) -> str:
    """A number with four significant digits; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
