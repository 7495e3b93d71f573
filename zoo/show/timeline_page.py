"""The lanes of `zoo.show.timeline` as one self-contained HTML page, with a player whose cursor runs through them."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.show.audio import compress
from zoo.show.files import write
from zoo.show.html import POLICY
from zoo.show.layout import BLACK, pitch_name
from zoo.show.sampler import Sound
from zoo.show.template import SCRIPT, STYLE
from zoo.show.timeline import NEUTRAL, Curve, Heat, Lane, Notes, Spans, hue, layers, pitch_range, pooled

SCALE, WIDEST = 42.0, 30000.0  # pixels a second, and in all; what is wider scrolls
GUTTER = 118  # pixels, for the lanes' names and rows
GAP, AXIS = 8.0, 16.0  # pixels between two lanes, and for the seconds below
ROW, SEMITONE, RIBBON = 10.0, 4.5, 30.0  # pixels
COLUMNS = 4000  # of a picture of heat
TICKS = (1, 2, 5, 10, 30, 60, 300, 600)  # seconds between two marks

_STYLE = """
.span { stroke: var(--card); }
svg text.in { fill: #1b2130; font-size: 11px; }
.curve { fill: none; stroke: var(--c1); stroke-width: 1.6; vector-effect: non-scaling-stroke; }
text.lane-name { fill: var(--ink); font-weight: 600; font-size: 11px; }
"""


@dataclass(frozen=True)
class Recording:
    """One recording on the page.

    Attributes:
      title: its heading, any text.
      facts: a line below it, any text.
      seconds: its length.
      lanes: what is shown.
      sound: float32 [frames, 2] at 44.1 kHz; None for a page without a player.
    """

    title: str
    facts: str
    seconds: float
    lanes: Sequence[Lane]
    sound: Sound | None = None


def timeline_page(recordings: Sequence[Recording], path: str | os.PathLike[str], title: str) -> Path:
    """Writes the page. Texts are shown as they are, whatever they contain. Raises InputError if it can't be written."""
    policy = f"{POLICY}; img-src data:"
    cards = "".join(_card(recording) for recording in recordings)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_STYLE}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1></header>\n"
        f'<main><section><div class="grid" style="--least:100%">{cards}</div></section></main>\n'
        "<footer>Click anywhere in the lanes to play from there. Made with music-zoo.</footer>\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
    return write(path, text.encode(errors="replace"))


def _card(recording: Recording) -> str:
    seconds = max(recording.seconds, 1e-3)
    tops, y = [], 4.0
    for lane in recording.lanes:
        tops.append(y)
        y += _height(lane) + GAP
    drawn = "".join(part for lane, top in zip(recording.lanes, tops, strict=True) for part in _lane(lane, top, seconds))
    names = "".join(part for lane, top in zip(recording.lanes, tops, strict=True) for part in _names(lane, top))
    place = f"top:0;height:{y - GAP:.0f}px"
    player = ""
    if recording.sound is not None and len(recording.sound):
        data, kind = compress(recording.sound)
        address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        player = f'<div class="controls"><audio controls preload="metadata" src="{address}"></audio></div>'
    return (
        f'<article class="card wide" data-seconds="{seconds:.3f}"><h3>{escape(recording.title)}</h3>'
        f'<p class="facts">{escape(recording.facts)}</p>'
        f'<div class="roll"><svg width="{GUTTER}" height="{y + AXIS:.0f}" aria-hidden="true">{names}</svg>'
        f'<div class="scroll"><div class="lane" style="min-width:{min(seconds * SCALE, WIDEST):.0f}px">'
        f'<svg height="{y + AXIS:.0f}" role="img" aria-label="{len(recording.lanes)} lanes">'
        f"{''.join(_seconds(seconds, y))}{drawn}</svg>"
        f'<i class="cursor" style="{place}"></i></div></div></div>{player}</article>\n'
    )


def _height(lane: Lane) -> float:
    """Pixels that a lane takes."""
    if isinstance(lane, Spans):
        return RIBBON
    if isinstance(lane, Heat):
        return ROW * len(lane.names)
    low, high = pitch_range(lane)
    return SEMITONE * (high - low + 1)


def _seconds(seconds: float, bottom: float) -> Iterator[str]:
    """Marks of time across all lanes, no nearer than 60 pixels."""
    scale = min(SCALE, WIDEST / seconds)
    step = next((tick for tick in TICKS if tick * scale >= 60), TICKS[-1])
    for at in np.arange(0, seconds, step):
        x = f"{100 * at / seconds:.4f}%"
        yield f'<line class="bar" x1="{x}" x2="{x}" y1="0" y2="{bottom - GAP:.1f}"/>'
        yield f'<text x="{x}" dx="2" y="{bottom + 9:.1f}">{int(at) // 60}:{int(at) % 60:02d}</text>'


def _names(lane: Lane, top: float) -> Iterator[str]:
    """A lane's title, and its rows where it has some."""
    yield f'<text class="lane-name" x="0" y="{top + 11:.1f}">{escape(lane.title)}</text>'
    rows: list[tuple[float, str]] = []
    if isinstance(lane, Heat):
        rows = [(ROW * (len(lane.names) - i - 0.2), name) for i, name in enumerate(lane.names)]
    elif isinstance(lane, Curve | Notes):
        low, high = pitch_range(lane)
        rows = [(SEMITONE * (high - p + 1), pitch_name(p)) for p in range(low, high + 1) if p % 12 == 0]
    for y, name in rows:
        yield f'<text x="{GUTTER - 6}" y="{top + y:.1f}" text-anchor="end">{escape(name[:14])}</text>'


def _lane(lane: Lane, top: float, seconds: float) -> Iterator[str]:
    if isinstance(lane, Spans):
        yield from _spans(lane, top, seconds)
    elif isinstance(lane, Heat):
        width = 100 * len(lane.values) * lane.frame_seconds / seconds
        yield (
            f'<image x="0" y="{top:.1f}" width="{width:.4f}%" height="{_height(lane):.1f}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated" href="data:image/png;base64,{_picture(lane.values)}"/>'
        )
    else:
        yield from _keys(lane, top)
        yield from _curve(lane, top, seconds) if isinstance(lane, Curve) else _notes(lane, top, seconds)


def _spans(lane: Spans, top: float, seconds: float) -> Iterator[str]:
    for start, end, text, key in lane.spans:
        x, width = f"{100 * start / seconds:.4f}%", f"{100 * (end - start) / seconds:.4f}%"
        yield (
            f'<rect class="note span" style="fill:{hue(key)}" x="{x}" width="{width}" y="{top:.1f}" '
            f'height="{RIBBON:.0f}" rx="3"><title>{escape(text)} · {start:.2f}–{end:.2f} s</title></rect>'
            f'<svg x="{x}" width="{width}" y="{top:.1f}" height="{RIBBON:.0f}" pointer-events="none">'
            f'<text class="in" x="4" y="{RIBBON / 2 + 4:.1f}">{escape(text)}</text></svg>'
        )


def _keys(lane: Curve | Notes, top: float) -> Iterator[str]:
    """Rows of black keys."""
    low, high = pitch_range(lane)
    yield f'<rect class="back" width="100%" y="{top:.1f}" height="{_height(lane):.1f}"/>'
    for pitch in range(low, high + 1):
        if pitch % 12 in BLACK:
            yield f'<rect class="key" width="100%" y="{top + SEMITONE * (high - pitch):.1f}" height="{SEMITONE}"/>'


def _curve(lane: Curve, top: float, seconds: float) -> Iterator[str]:
    """One line for each stretch that has a pitch, in a box of its own that is as wide as the recording is long."""
    _, high = pitch_range(lane)
    sure = np.isfinite(lane.pitch)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sure, [False]]).astype(int)))
    lines = []
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        y = SEMITONE * (high - lane.pitch[first:after] + 0.5)
        points = [f"{t:.3f} {v:.1f}" for t, v in zip(lane.times[first:after], y, strict=True)]
        lines.append(f"M{'L'.join(points)}")
    yield (
        f'<svg x="0" y="{top:.1f}" width="100%" height="{_height(lane):.1f}" preserveAspectRatio="none" '
        f'viewBox="0 0 {seconds:.3f} {_height(lane):.1f}"><path class="curve" d="{"".join(lines)}"/></svg>'
    )


def _notes(lane: Notes, top: float, seconds: float) -> Iterator[str]:
    _, high = pitch_range(lane)
    score = lane.score
    start, end = score.seconds_at(score.start), score.seconds_at(score.end)
    for colour, group in layers(lane):
        fill = f"fill:{colour}" if colour == NEUTRAL else "fill:var(--c0)"
        for i in np.flatnonzero(group & ~score.is_drum):
            pitch = int(score.pitch[i])
            width, y = max(100 * (end[i] - start[i]) / seconds, 1e-3), top + SEMITONE * (high - pitch)
            yield (
                f'<rect class="note" style="{fill}" x="{100 * start[i] / seconds:.4f}%" width="{width:.4f}%" '
                f'y="{y:.1f}" height="{SEMITONE}" rx="1.5"><title>{pitch_name(pitch)}</title></rect>'
            )


def _picture(values: npt.NDArray[np.floating]) -> str:
    """A PNG of blue, the stronger the less transparent, in base64."""
    from matplotlib.image import imsave

    shown = pooled(values, COLUMNS).T[::-1]
    colours = np.empty((*shown.shape, 4), np.uint8)
    colours[..., :3] = (79, 109, 245)
    colours[..., 3] = np.clip(np.nan_to_num(shown), 0, 1) * 255
    buffer = io.BytesIO()
    imsave(buffer, colours, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
