"""What is known of a recording, one lane below the other on one time line, as PNG.

A lane is a plain description: `Spans` (chords, sections), `Heat` (how strong each of some rows is), `Curve` (a pitch),
`Notes`. `zoo.show.timeline_page` shows the same lanes in a browser.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score
from zoo.show.layout import BLACK, COLOURS, pitch_name
from zoo.show.roll import BAR_LINE, BEAT_LINE, BLACK_KEY, FAINT, figure, printable, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, LEFT, RIGHT, MARGIN, HEADING, BELOW = 13.0, 1.35, 0.2, 0.25, 0.35, 0.35  # inches
LANE_GAP = 0.06
SECONDS = 30.0  # of a line; a longer recording goes on in the next
MOST_LINES = 24
COLUMNS = 1500  # of a picture of heat; more are put together, the strongest shown
NEUTRAL = "#c9ced8"


@dataclass(frozen=True)
class Spans:
    """Stretches of time with a text each: `spans` are (start s, end s, text, hue); hue 0–11 or None for grey."""

    title: str
    spans: Sequence[tuple[float, float, str, int | None]]

    @classmethod
    def numbered(cls, title: str, starts: Sequence[float], end: float) -> Spans:
        """One after another from each of `starts` to the next, the last to `end`, counted from 1: bars, say."""
        spans = enumerate(pairwise([*starts, end]), 1)
        return cls(title, [(a, max(a, b), str(number), None) for number, (a, b) in spans])


@dataclass(frozen=True)
class Heat:
    """How strong each of several rows is: `values` [T, rows] from 0 to 1, `names` from the lowest row up, some ""."""

    title: str
    values: npt.NDArray[np.floating]
    frame_seconds: float
    names: Sequence[str]


@dataclass(frozen=True)
class Curve:
    """A pitch in time: `pitch` [T] in semitones (69 is A4), NaN where there is none, at `times` [T] s."""

    title: str
    times: npt.NDArray[np.floating]
    pitch: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Notes:
    """Notes in time; those of `marked`, bool [N], stand out against the others, which are grey."""

    title: str
    score: Score
    marked: npt.NDArray[np.bool_] | None = None


Lane: TypeAlias = Spans | Heat | Curve | Notes


def draw(lanes: Sequence[Lane], seconds: float, path: str | os.PathLike[str], title: str = "") -> Path:
    """Draws the lanes of a recording of so many seconds into a PNG. Raises InputError if `path` can't be written."""
    span = max(min(SECONDS, seconds), seconds / MOST_LINES, 0.5)
    lines = max(1, int(np.ceil(seconds / span - 1e-9)))
    tall = [height(lane) for lane in lanes]
    line = sum(tall) + LANE_GAP * len(lanes) + BELOW
    sheet_height = 2 * MARGIN + (HEADING if title else 0) + lines * line
    with figure(WIDTH, sheet_height) as sheet:
        top = sheet_height - MARGIN
        if title:
            sheet.text(LEFT / WIDTH, (top - 0.05) / sheet_height, printable(title), size=14, weight="bold", va="top")
            top -= HEADING
        for i in range(lines):
            for j, lane in enumerate(lanes):
                top -= tall[j] + LANE_GAP
                place = (LEFT / WIDTH, top / sheet_height, 1 - (LEFT + RIGHT) / WIDTH, tall[j] / sheet_height)
                axes = sheet.add_axes(place)
                axes.set_xlim(i * span, (i + 1) * span)
                _dress(axes, lane, last=j == len(lanes) - 1)
                _draw(axes, lane, i * span, (i + 1) * span)
            top -= BELOW
        return save(sheet, path)


def height(lane: Lane) -> float:
    """Inches that a lane takes."""
    if isinstance(lane, Spans):
        return 0.32
    if isinstance(lane, Heat):
        return float(np.clip(0.11 * len(lane.names), 0.4, 1.6))
    low, high = pitch_range(lane)
    return float(np.clip(0.045 * (high - low), 0.8, 2.2))


def pitch_range(lane: Curve | Notes) -> tuple[int, int]:
    """The lowest and highest semitone that a lane has room for, at least an octave."""
    pitch = lane.pitch if isinstance(lane, Curve) else lane.score.pitch[~lane.score.is_drum]
    pitch = pitch[np.isfinite(pitch)]
    if not len(pitch):
        return 54, 66
    low, high = int(np.floor(pitch.min())) - 1, int(np.ceil(pitch.max())) + 1
    wider = max(0, 12 - (high - low))
    return low - wider // 2, high + wider - wider // 2


def layers(lane: Notes) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The colours of its notes and which have them, bool [N], from the back to the front."""
    if lane.marked is None:
        return [(COLOURS[0], np.ones(len(lane.score), np.bool_))]
    return [(NEUTRAL, ~lane.marked), (COLOURS[0], lane.marked)]


def hue(key: int | None) -> str:
    """A colour for each of 12 keys; for pitch classes, neighbours on the circle of fifths look alike."""
    if key is None:
        return NEUTRAL
    red, green, blue = colorsys.hls_to_rgb((7 * key % 12) / 12, 0.72, 0.62)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def pooled(values: npt.NDArray[np.floating], columns: int) -> npt.NDArray[np.floating]:
    """`values` [T, rows] with at most so many frames: each the strongest of its neighbours."""
    if len(values) <= columns:
        return values
    starts = np.linspace(0, len(values), columns, endpoint=False).astype(int)
    return np.maximum.reduceat(values, starts, axis=0)


def _dress(axes: Axes, lane: Lane, last: bool) -> None:
    """The title at the left, seconds below the last lane."""
    axes.set_yticks([])
    axes.annotate(
        printable(lane.title), (0, 0.5), (-30, 0), "axes fraction", "offset points", fontsize=8, ha="right", va="center"
    )
    axes.tick_params(axis="both", length=0, labelsize=7, labelcolor=FAINT, labelbottom=last)
    axes.xaxis.set_major_formatter(lambda second, _: f"{int(second) // 60}:{second % 60:02.0f}")
    for side in axes.spines.values():
        side.set_color(BAR_LINE)
        side.set_linewidth(0.6)


def _draw(axes: Axes, lane: Lane, left: float, right: float) -> None:
    if isinstance(lane, Spans):
        _spans(axes, lane, left, right)
    elif isinstance(lane, Heat):
        _heat(axes, lane, left, right)
    elif isinstance(lane, Curve):
        _keys(axes, *pitch_range(lane), left, right)
        first, after = np.searchsorted(lane.times, (left, right))
        axes.plot(lane.times[first:after], lane.pitch[first:after], color=COLOURS[1], linewidth=1.3)
    else:
        _keys(axes, *pitch_range(lane), left, right)
        start, end = lane.score.seconds_at(lane.score.start), lane.score.seconds_at(lane.score.end)
        seen = ~lane.score.is_drum & (start < right) & (end > left)
        for colour, group in layers(lane):
            shown = np.flatnonzero(seen & group)
            _boxes(axes, [(start[i], lane.score.pitch[i] - 0.42, end[i] - start[i], 0.84) for i in shown], colour)


def _boxes(axes: Axes, boxes: Sequence[tuple[float, float, float, float]], colour: str) -> None:
    """Rectangles (left, bottom, width, height) in one go."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    patches = [Rectangle((x, y), width, high) for x, y, width, high in boxes]
    axes.add_collection(PatchCollection(patches, facecolor=colour, edgecolor="none"), autolim=False)


def _spans(axes: Axes, lane: Spans, left: float, right: float) -> None:
    axes.set_ylim(0, 1)
    for start, end, text, key in lane.spans:
        if end <= left or start >= right:
            continue
        axes.axvspan(max(start, left), min(end, right), facecolor=hue(key), edgecolor="white", linewidth=0.8)
        begin, room = max(start, left), (min(end, right) - max(start, left)) / (right - left) * (WIDTH - LEFT - RIGHT)
        if room > 0.065 * len(text):  # inches that a character takes
            axes.text(begin, 0.5, f" {printable(text)}", size=7, va="center", clip_on=True)


def _heat(axes: Axes, lane: Heat, left: float, right: float) -> None:
    frames = slice(int(left / lane.frame_seconds), int(np.ceil(right / lane.frame_seconds)) + 1)
    seen = lane.values[frames]
    rows = len(lane.names)
    if len(seen):
        begin = frames.start * lane.frame_seconds
        extent = (begin, begin + len(seen) * lane.frame_seconds, -0.5, rows - 0.5)
        picture = pooled(seen, COLUMNS).T
        axes.imshow(picture, aspect="auto", origin="lower", extent=extent, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlim(left, right)
    axes.set_ylim(-0.5, rows - 0.5)
    named = [row for row, name in enumerate(lane.names) if name]
    names = [printable(lane.names[row]) for row in named]
    axes.set_yticks(named, names, fontsize=min(7, 70 / max(1, len(named))), color=FAINT)


def _keys(axes: Axes, low: int, high: int, left: float, right: float) -> None:
    """Rows of black keys, and the names of Cs."""
    pitches = range(low, high + 1)
    _boxes(axes, [(left, pitch - 0.5, right - left, 1.0) for pitch in pitches if pitch % 12 in BLACK], BLACK_KEY)
    axes.set_ylim(low - 0.5, high + 0.5)
    named = [pitch for pitch in pitches if pitch % 12 == 0]
    axes.set_yticks(named, [pitch_name(pitch) for pitch in named], fontsize=7, color=FAINT)
    axes.grid(axis="x", color=BEAT_LINE, linewidth=0.6)
