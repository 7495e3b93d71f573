"""One self-contained HTML page: piano rolls with players. It opens from a disk, an e-mail or a phone, offline."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score
from zoo.show.audio import compress
from zoo.show.files import write
from zoo.show.layout import COLOURS, Layout, layout, pitch_name, summary
from zoo.show.roll import blend, opacity
from zoo.show.sampler import Sound
from zoo.show.template import SCRIPT, STYLE

WIDE = 10.0  # seconds; a longer item has a row of its own
SCALE = 42.0  # pixels a second at least; a long item scrolls
HEIGHT = 220.0  # pixels for the pitches, where their number allows
DRUM_ROW = 15.0  # pixels
MOST_PARTS = 16  # named in a legend
LABEL = 10.0  # pixels between two labels

# Nothing but what is in the page itself may run or load, whatever a title tries.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data: blob:"


@dataclass(frozen=True)
class Item:
    """One piece on the page.

    Attributes:
      title: its heading, any text.
      score: what the roll shows.
      sound: float32 [frames, 2] at 44.1 kHz, from `audio.render`; None for a silent roll.
      midi: the MIDI file to offer, b"" for none.
      group: neighbours with the same group stand under it as heading, on one scale, to be played one after another.
      morph: 0–1, how far an interpolation has come: chooses the colour. None for the colours of parts.
    """

    title: str
    score: Score
    sound: Sound | None = None
    midi: bytes = b""
    group: str = ""
    morph: float | None = None


def page(title: str, items: Sequence[Item], path: str | os.PathLike[str], subtitle: str = "") -> Path:
    """Writes the page. `title`, `subtitle` and the items' texts are shown as they are, whatever they contain.

    Raises InputError if `path` can't be written.
    """
    groups = [(name, list(members)) for name, members in groupby(items, key=lambda item: item.group)]
    body = "".join(_section(name, members) for name, members in groups)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n"
        f"<main>{body}</main>\n<footer>Click a roll to play from there. Made with music-zoo.</footer>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
    return write(path, text.encode(errors="replace"))  # file names may hold half a character


def _section(group: str, items: Sequence[Item]) -> str:
    playable = sum(_audible(item) for item in items)
    button = "<button hidden>▶ Play in order</button>" if playable > 1 else ""
    heading = f"<h2>{escape(group)}</h2>" if group else ""
    top = f'<div class="group">{heading}{button}</div>' if heading or button else ""
    beside = [item.score for item in items] if group else []
    least = {1: "100%", 2: "520px", 4: "520px"}.get(len(items), "400px")  # a card's width: no row with one left over
    cards = "".join(_card(item, beside) for item in items)
    return f'<section>{top}<div class="grid" style="--least:{least}">{cards}</div></section>\n'


def _card(item: Item, beside: Sequence[Score]) -> str:
    rolled = layout(item.score, beside=beside)
    seconds = float(item.score.seconds_at(rolled.end))
    wide = " wide" if seconds > WIDE else ""
    return (
        f'<article class="card{wide}" data-seconds="{seconds:.3f}"{_palette(item)}>'
        f'<h3>{escape(item.title)}</h3><p class="facts">{escape(summary(item.score))}</p>'
        f"{_legend(rolled)}{_roll(item, rolled, seconds)}{_controls(item)}</article>\n"
    )


def _audible(item: Item) -> bool:
    return item.sound is not None and len(item.sound) > 0


def _palette(item: Item) -> str:
    return "" if item.morph is None else f' style="--c0:{blend(item.morph)}"'


def _legend(rolled: Layout) -> str:
    if len(rolled.parts) < 2:
        return ""
    named = [f'<li style="--c:var(--c{i % 8})">{escape(name)}</li>' for i, name in enumerate(rolled.parts[:MOST_PARTS])]
    more = f" and {len(rolled.parts) - MOST_PARTS} more" if len(rolled.parts) > MOST_PARTS else ""
    return f'<ul class="legend">{"".join(named)}{more}</ul>'


def _controls(item: Item) -> str:
    parts = []
    if item.sound is not None and _audible(item):
        data, kind = compress(item.sound)
        parts.append(f'<audio controls preload="metadata" src="{_address(data, kind)}"></audio>')
    if item.midi:
        name = escape(f"{item.title}.mid")
        parts.append(f'<a class="file" download="{name}" href="{_address(item.midi, "audio/midi")}">↓ MIDI</a>')
    return f'<div class="controls">{"".join(parts)}</div>' if parts else ""


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _roll(item: Item, rolled: Layout, seconds: float) -> str:
    """The labels, which stay, and the lane, which may scroll; across the lane, time is linear in seconds."""
    edges = _edges(rolled) + (16.0 if item.score.chords else 1.0)
    height = edges[0] + 14
    names = f"{len(item.score)} notes"
    lane = "".join([*_grid(item.score, rolled, seconds, edges), *_notes(item.score, rolled, seconds, edges)])
    gutter = 84 if rolled.drums else 30
    place = f"top:{edges[-1]:.0f}px;height:{edges[0] - edges[-1]:.0f}px"
    return (
        f'<div class="roll"><svg width="{gutter}" height="{height:.0f}" aria-hidden="true">'
        f"{''.join(_labels(rolled, edges, gutter - 5))}</svg>"
        f'<div class="scroll"><div class="lane" style="min-width:{min(seconds * SCALE, 30000):.0f}px">'
        f'<svg height="{height:.0f}" role="img" aria-label="Piano roll, {names}">{lane}</svg>'
        f'<i class="frame" style="{place}"></i><i class="cursor" style="{place}"></i></div></div></div>'
    )


def _edges(rolled: Layout) -> npt.NDArray[np.float64]:
    """The lower edge of each row and the upper one of the last, in pixels downwards, [rows + 1]."""
    pitches = rolled.rows - rolled.drums
    heights = np.full(rolled.rows, float(np.clip(HEIGHT / max(1, pitches), 4.0, 13.0)))
    heights[: rolled.drums] = DRUM_ROW
    return heights.sum() - np.append(0, np.cumsum(heights))


def _labels(rolled: Layout, edges: npt.NDArray[np.float64], right: int) -> Iterator[str]:
    """The rows' names, octaves first, the others where there is room."""
    taken: list[float] = []
    for row, text in sorted(rolled.labels, key=lambda label: not label[1].startswith("C")):
        y = (edges[row] + edges[row + 1]) / 2
        if all(abs(y - other) >= LABEL for other in taken):
            taken.append(y)
            yield f'<text x="{right}" y="{y + 3.5:.1f}" text-anchor="end">{escape(text)}</text>'


def _grid(score: Score, rolled: Layout, seconds: float, edges: npt.NDArray[np.float64]) -> Iterator[str]:
    top, bottom = edges[-1], edges[0]
    yield f'<rect class="back" width="100%" y="{top:.1f}" height="{bottom - top:.1f}"/>'
    for row in rolled.shaded:
        yield f'<rect class="key" width="100%" y="{edges[row + 1]:.1f}" height="{edges[row] - edges[row + 1]:.1f}"/>'
    for kind, quarters in (("", rolled.beats), (' class="bar"', rolled.bars[:-1])):
        for x in 100 * score.seconds_at(quarters) / seconds:
            yield f'<line{kind} x1="{x:.3f}%" x2="{x:.3f}%" y1="{top:.1f}" y2="{bottom:.1f}"/>'
    for i, x in enumerate(100 * score.seconds_at(rolled.bars[:-1]) / seconds):
        yield f'<text x="{x:.3f}%" dx="2" y="{bottom + 11:.1f}">{i + 1}</text>'
    if len(score) == 0:
        yield f'<text x="50%" y="{(top + bottom) / 2 + 4:.1f}" text-anchor="middle">no notes</text>'
    for quarter, symbol in score.chords:
        x = 100 * float(score.seconds_at(quarter)) / seconds
        yield f'<text class="chord" x="{x:.3f}%" dx="2" y="{top - 4:.1f}">{escape(symbol)}</text>'


def _notes(score: Score, rolled: Layout, seconds: float, edges: npt.NDArray[np.float64]) -> Iterator[str]:
    left = 100 * score.seconds_at(rolled.left) / seconds
    width = np.maximum(100 * score.seconds_at(rolled.right) / seconds - left, 0.15)
    for i, alpha in enumerate(opacity(score.velocity)):
        row = rolled.row[i]
        name = "" if score.is_drum[i] else f"{pitch_name(int(score.pitch[i]))} · "
        yield (
            f'<rect class="note" style="fill:var(--c{rolled.part[i] % len(COLOURS)})" x="{left[i]:.3f}%" '
            f'width="{width[i]:.3f}%" y="{edges[row + 1]:.1f}" height="{edges[row] - edges[row + 1]:.1f}" rx="2.5" '
            f'opacity="{alpha:.2f}"><title>{name}velocity {score.velocity[i]}</title></rect>'
        )
