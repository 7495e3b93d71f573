"""Piano rolls as PNG. Matplotlib's objects are used directly: no pyplot, no global state, no display."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score
from zoo.show.files import write
from zoo.show.layout import COLOURS, Layout, layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, BAR_LINE, BEAT_LINE, BLACK_KEY = "#1d2433", "#6b7385", "#b4bac8", "#e3e6ed", "#f4f5f9"
DPI = 160
ROW = 0.105  # inches of height for a semitone
QUARTER = 0.22  # inches of width for a quarter note, where the sheet's least and greatest width allow
NARROWEST, WIDEST = 9.0, 14.0  # inches
SYSTEM = 64.0  # quarters; a longer score goes on in the next row, like a line of print
MOST_SYSTEMS = 24
LEFT, RIGHT, MARGIN, HEADING, ABOVE, BELOW = 1.05, 0.3, 0.25, 0.35, 0.32, 0.2  # inches
ROUNDING = 0.035  # inches


def piano_roll(
    scores: Score | Sequence[Score],
    path: str | os.PathLike[str],
    title: str = "",
    titles: Sequence[str] | None = None,
    morph: bool = False,
) -> Path:
    """Draws one score, or several as rows of one sheet with the same rows and length, and writes a PNG.

    Notes are coloured by part, and the fainter the softer. `titles` are the rows' own. With `morph` the rows are an
    interpolation, and their colours too go from the first one's to the last one's.
    Raises InputError if `path` can't be written.
    """
    scores = [scores] if isinstance(scores, Score) else list(scores)
    layouts = [layout(score, beside=scores) for score in scores]
    systems = [(i, left, right) for i, rolled in enumerate(layouts) for left, right in _systems(rolled)]
    span = max((right - left for _, left, right in systems), default=4.0)
    width = float(np.clip(span * QUARTER, NARROWEST, WIDEST))
    panel = float(np.clip(layouts[0].rows * ROW, 1.0, 5.0)) if layouts else 0.0
    height = 2 * MARGIN + (HEADING if title else 0) + len(systems) * (ABOVE + panel + BELOW)
    with figure(LEFT + width + RIGHT, height) as sheet:
        sheet_width = LEFT + width + RIGHT
        top = height - MARGIN
        if title:
            sheet.text(LEFT / sheet_width, (top - 0.05) / height, printable(title), size=14, weight="bold", va="top")
            top -= HEADING
        for i, left, right in systems:
            top -= ABOVE + panel
            share = (right - left) / span  # all rows are on one scale: the last line of a score may be short
            axes = sheet.add_axes((LEFT / sheet_width, top / height, share * width / sheet_width, panel / height))
            palette = [blend(i / max(1, len(scores) - 1))] if morph else COLOURS
            _draw(sheet, axes, scores[i], layouts[i], palette, left, right)
            if titles and left == 0:
                sheet.text(
                    LEFT / sheet_width, (top + panel + 0.07) / height, printable(titles[i]), size=10, weight="bold"
                )
            top -= BELOW
        return save(sheet, path)


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, in the house's type."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False, "text.color": INK}):
        drawn = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(drawn)
        yield drawn


def save(drawn: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure as PNG, whole or not at all. Raises InputError if it can't."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # titles in any script
        drawn.savefig(buffer, format="png")
    return write(path, buffer.getvalue())


def printable(text: str) -> str:
    """`text` without the halves of characters that a file name may hold, which fonts can't set."""
    return text.encode(errors="replace").decode()


def blend(share: float) -> str:
    """The colour `share` (0–1) of the way from the first part's to the second's."""
    ends = [[int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in COLOURS[:2]]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))


def _systems(rolled: Layout) -> list[tuple[float, float]]:
    """The lines a score is broken into, from a bar's beginning to another's, in quarters."""
    longest = max(SYSTEM, rolled.end / MOST_SYSTEMS)
    starts = [0.0]
    for bar, following in zip(rolled.bars, rolled.bars[1:], strict=False):
        if following - starts[-1] > longest + 1e-6 and bar > starts[-1]:
            starts.append(float(bar))
    return list(zip(starts, [*starts[1:], rolled.end], strict=True))


def _draw(
    sheet: Figure, axes: Axes, score: Score, rolled: Layout, palette: Sequence[str], left: float, right: float
) -> None:
    """One line of a score: its part from `left` to `right`, in quarters."""
    from matplotlib.collections import PatchCollection, PathCollection
    from matplotlib.patches import Rectangle

    low, high = -0.5, rolled.rows - 0.5
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    keys = [Rectangle((left, row - 0.5), right - left, 1) for row in rolled.shaded]
    axes.add_collection(PatchCollection(keys, facecolor=BLACK_KEY, edgecolor="none", zorder=0))
    axes.vlines(rolled.beats, low, high, color=BEAT_LINE, linewidth=0.6, zorder=1)
    axes.vlines(rolled.bars, low, high, color=BAR_LINE, linewidth=0.9, zorder=1)
    if 0 < rolled.drums < rolled.rows:
        axes.axhspan(rolled.drums - 0.5, rolled.drums + 0.5, color="white", zorder=1.5)
    seen = np.flatnonzero((rolled.left < right) & (rolled.right >= left))
    outlines = _rounded(sheet, axes, rolled, seen, right - left)
    axes.add_collection(PathCollection(outlines, facecolor="white", edgecolor="none", zorder=2))  # hides the grid
    colours = _colours(score, rolled, palette)[seen]
    axes.add_collection(PathCollection(outlines, facecolor=colours, edgecolor="white", linewidth=0.4, zorder=3))
    if len(score) == 0:
        axes.text(0.5, 0.5, "no notes", transform=axes.transAxes, ha="center", va="center", color=FAINT)
    _label(axes, score, rolled, left, right)
    if left == 0 and len(rolled.parts) > 1:
        _legend(axes, score, rolled, palette)


def _rounded(sheet: Figure, axes: Axes, rolled: Layout, notes: npt.NDArray[np.int64], span: float) -> list[Any]:
    """The notes as rectangles with corners that are round on paper, whatever the scales of the axes."""
    from matplotlib.path import Path as Outline

    box = axes.get_position()
    width, height = sheet.get_size_inches() * (box.width, box.height)
    rx, ry = ROUNDING * span / width, ROUNDING * rolled.rows / height
    shortest = 0.02 * span / width  # inches: a drum hit of no length still shows
    codes = [Outline.MOVETO, *[Outline.LINETO, Outline.CURVE3, Outline.CURVE3] * 4, Outline.CLOSEPOLY]
    outlines = []
    for i in notes:
        left, right, row = rolled.left[i], max(rolled.right[i], rolled.left[i] + shortest), rolled.row[i]
        x, y = min(rx, (right - left) / 2), min(ry, 0.42)
        low, high = row - 0.42, row + 0.42
        corners = [(left + x, low), (right - x, low), (right, low), (right, low + y), (right, high - y), (right, high)]
        corners += [(right - x, high), (left + x, high), (left, high), (left, high - y), (left, low + y), (left, low)]
        corners += [(left + x, low), (left + x, low)]
        outlines.append(Outline(corners, codes))
    return outlines


def _colours(score: Score, rolled: Layout, palette: Sequence[str]) -> npt.NDArray[np.float64]:
    """RGBA [N, 4]: hue by part, opacity by velocity."""
    from matplotlib.colors import to_rgba_array

    colours = to_rgba_array([palette[part % len(palette)] for part in rolled.part])
    colours[:, 3] = opacity(score.velocity)
    return colours


def opacity(velocity: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """0.35 for the softest notes to 1 from velocity 110 up."""
    return 0.35 + 0.65 * np.clip(np.asarray(velocity) / 110, 0, 1)


def _label(axes: Axes, score: Score, rolled: Layout, left: float, right: float) -> None:
    axes.set_yticks([row for row, _ in rolled.labels], [text for _, text in rolled.labels], fontsize=7.5, color=FAINT)
    bars = np.flatnonzero((rolled.bars[:-1] >= left) & (rolled.bars[:-1] < right))
    bars = bars[:: -(-len(bars) // 32) or 1]  # about as many numbers as there is room for
    axes.set_xticks(rolled.bars[bars], [str(bar + 1) for bar in bars], fontsize=7.5, color=FAINT, ha="left")
    axes.tick_params(length=0, pad=3)
    for spine in axes.spines.values():
        spine.set_color(BAR_LINE)
        spine.set_linewidth(0.9)
    for quarter, symbol in score.chords:
        if left <= quarter < right:
            axes.annotate(
                printable(symbol), (quarter, 1), (2, 3), ("data", "axes fraction"), "offset points", fontsize=7.5
            )


def _legend(axes: Axes, score: Score, rolled: Layout, palette: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=palette[i % len(palette)], label=printable(name)) for i, name in enumerate(rolled.parts[:8])]
    axes.legend(
        handles=patches, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(patches), frameon=False, fontsize=8,
        handlelength=0.9, handleheight=0.9, columnspacing=1.2, handletextpad=0.4,
        borderaxespad=1.5 if score.chords else 0.1,  # above the chord symbols
    )  # fmt: skip
