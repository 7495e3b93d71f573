"""The contour of one voice as PNG: its pitch over the notes it was cut into, and below how sure the model is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score
from zoo.show.layout import BLACK, COLOURS, NAMES
from zoo.show.roll import BEAT_LINE, BLACK_KEY, FAINT, figure, printable, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, LINE, CONFIDENCE, MARGIN, HEADING, GAP = 12.0, 2.4, 0.5, 0.3, 0.35, 0.45  # inches
SECONDS = 20.0  # of a line; more goes on in the next
MOST_LINES = 24


def pitch_contour(
    times: npt.NDArray[np.float64],
    hz: npt.NDArray[np.float64],
    confidence: npt.NDArray[np.float32],
    score: Score,
    path: str | os.PathLike[str],
    title: str = "",
    threshold: float = 0.5,
) -> Path:
    """Draws a contour [T] (seconds, Hz, 0 to 1) over its notes and writes a PNG; it is faint below the threshold.

    Raises InputError if `path` can't be written.
    """
    pitch = 69 + 12 * np.log2(np.maximum(hz, 1e-3) / 440.0)
    sure = confidence >= threshold
    shown = pitch[sure] if sure.any() else np.array([60.0])
    low, high = np.floor(shown.min()) - 1.5, np.ceil(shown.max()) + 1.5
    length = float(times[-1]) if len(times) else 1.0
    span = max(min(SECONDS, length), length / MOST_LINES, 0.5)
    lines = max(1, int(np.ceil(length / span - 1e-9)))
    height = 2 * MARGIN + (HEADING if title else 0) + lines * (LINE + CONFIDENCE + GAP)
    with figure(WIDTH, height) as sheet:
        top = height - MARGIN
        if title:
            sheet.text(0.05, (top - 0.05) / height, printable(title), size=14, weight="bold", va="top")
            top -= HEADING
        for line in range(lines):
            top -= LINE
            axes = sheet.add_axes((0.05, top / height, 0.93, LINE / height))
            top -= CONFIDENCE
            below = sheet.add_axes((0.05, top / height, 0.93, 0.9 * CONFIDENCE / height))
            top -= GAP
            for each in (axes, below):
                each.set_xlim(line * span, (line + 1) * span)
            axes.set_ylim(low, high)
            _keys(axes, low, high)
            _notes(axes, score)
            axes.plot(times, np.where(sure, np.nan, pitch), color=FAINT, alpha=0.25, linewidth=0.6)
            axes.plot(times, np.where(sure, pitch, np.nan), color=COLOURS[1], linewidth=1.4)
            below.fill_between(times, confidence, color=COLOURS[2], alpha=0.5, linewidth=0)
            below.axhline(threshold, color=FAINT, linewidth=0.6, linestyle=":")
            _confidence(below)
        return save(sheet, path)


def _keys(axes: Axes, low: float, high: float) -> None:
    """Rows of black keys, and names at the left."""
    pitches = np.arange(int(np.ceil(low)), int(np.floor(high)) + 1)
    for pitch in pitches:
        if pitch % 12 in BLACK:
            axes.axhspan(pitch - 0.5, pitch + 0.5, color=BLACK_KEY, linewidth=0)
    named = pitches if len(pitches) <= 14 else pitches[np.isin(pitches % 12, (0, 4, 7))]
    axes.set_yticks(named, [f"{NAMES[pitch % 12]}{pitch // 12 - 1}" for pitch in named], fontsize=7, color=FAINT)
    axes.tick_params(axis="both", length=0, labelbottom=False)
    axes.grid(axis="x", color=BEAT_LINE, linewidth=0.7)
    for side in axes.spines.values():
        side.set_visible(False)


def _notes(axes: Axes, score: Score) -> None:
    """A bar for each note, a semitone high."""
    start = score.seconds_at(score.start)
    look: dict[str, Any] = {"color": COLOURS[0], "alpha": 0.25, "linewidth": 0}
    axes.barh(score.pitch, score.seconds_at(score.end) - start, left=start, height=0.9, **look)


def _confidence(axes: Axes) -> None:
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], ["0", "1"], fontsize=6, color=FAINT)
    axes.tick_params(axis="both", length=0, labelsize=7, labelcolor=FAINT)
    axes.xaxis.set_major_formatter(lambda second, _: f"{second:g} s")
    for side in axes.spines.values():
        side.set_visible(False)
