"""Small plots: the statistics of samples beside those of held-out music."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score
from zoo.show.layout import COLOURS, NAMES
from zoo.show.roll import BAR_LINE, BEAT_LINE, FAINT, figure, printable, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Lengths in quarter notes as musicians count them; a note belongs to the nearest, on a scale of ratios.
DURATIONS = {"1/32": 0.125, "1/16": 0.25, "1/8": 0.5, "1/8.": 0.75, "1/4": 1.0, "1/4.": 1.5, "1/2": 2.0, "1/2.": 3.0}
DURATIONS["1+"] = 4.0


def histograms(
    reference: Sequence[Score],
    samples: Sequence[Score],
    path: str | os.PathLike[str],
    title: str = "",
    labels: tuple[str, str] = ("held-out music", "samples"),
) -> Path:
    """Draws pitch classes and durations of both sets side by side, as shares of their notes, and writes a PNG.

    Raises InputError if `path` can't be written.
    """
    with figure(10.0, 3.4) as sheet:
        sheet.text(0.06, 0.91, printable(title), size=13, weight="bold")
        panels = (
            ("pitch class", list(NAMES), pitch_classes(reference), pitch_classes(samples)),
            ("duration, in whole notes", list(DURATIONS), durations(reference), durations(samples)),
        )
        for i, (name, ticks, a, b) in enumerate(panels):
            axes = sheet.add_axes((0.06 + 0.5 * i, 0.1, 0.42, 0.66))
            _bars(axes, ticks, a, b, labels)
            axes.set_title(f"{name} · overlap {overlap(a, b):.2f}", fontsize=9, loc="left", color=FAINT)
        handles, _ = sheet.axes[0].get_legend_handles_labels()
        sheet.legend(handles=handles, frameon=False, ncols=2, loc="center right", bbox_to_anchor=(0.99, 0.93))
        return save(sheet, path)


def surprise(
    seconds: npt.NDArray[np.float64], nats: npt.NDArray[np.float64], path: str | os.PathLike[str], title: str = ""
) -> Path:
    """Draws each token's surprise, nats [T], at its time, seconds [T], with the mean of each second; writes a PNG.

    Raises InputError if `path` can't be written.
    """
    with figure(10.0, 3.4) as sheet:
        sheet.text(0.06, 0.91, printable(title), size=13, weight="bold")
        axes = sheet.add_axes((0.06, 0.15, 0.92, 0.63))
        axes.vlines(seconds, 0, nats, color=COLOURS[0], alpha=0.35, linewidth=0.8)
        second = np.floor(seconds).astype(np.int64)
        count = np.bincount(second)
        mean = np.bincount(second, weights=nats) / np.maximum(count, 1)
        filled = np.flatnonzero(count)
        axes.step(filled, mean[filled], where="post", color=COLOURS[7], linewidth=1.8, label="mean of a second")
        axes.axhline(float(np.mean(nats)), color=FAINT, linewidth=1, linestyle=":", label="mean of the piece")
        axes.set_xlim(0, max(1.0, float(seconds[-1]) if len(seconds) else 1.0))
        axes.set_ylim(0)
        axes.set_xlabel("seconds", fontsize=9, color=FAINT)
        axes.set_title("surprise, −log p in nats", fontsize=9, loc="left", color=FAINT)
        axes.tick_params(axis="both", length=0, labelsize=8, labelcolor=FAINT)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        sheet.legend(frameon=False, ncols=2, loc="center right", bbox_to_anchor=(0.99, 0.93))
        return save(sheet, path)


def pitch_classes(scores: Sequence[Score]) -> npt.NDArray[np.float64]:
    """The share of each pitch class among all notes but drums', [12], C first; zeros if there are none."""
    return _shares([s.pitch[~s.is_drum] % 12 for s in scores], 12)


def durations(scores: Sequence[Score]) -> npt.NDArray[np.float64]:
    """The share of each of `DURATIONS` among all notes but drums'; zeros if there are none."""
    steps = np.log2(list(DURATIONS.values()))
    lengths = [np.log2(np.maximum((s.end - s.start)[~s.is_drum], 1e-3)) for s in scores]
    return _shares([np.abs(length[:, None] - steps).argmin(axis=1) for length in lengths], len(steps))


def drums(scores: Sequence[Score]) -> npt.NDArray[np.float64]:
    """The share of each drum among all strokes, [128] by General MIDI's numbers; zeros if there are none."""
    return _shares([s.pitch[s.is_drum] for s in scores], 128)


def overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The area two histograms share: 1 if they are the same, 0 if no bar is in both."""
    return float(np.minimum(a, b).sum())


def _shares(values: Sequence[npt.NDArray[np.integer]], bins: int) -> npt.NDArray[np.float64]:
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *values]), minlength=bins)
    return counts / max(1, int(counts.sum()))


def _bars(
    axes: Axes, ticks: list[str], a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], labels: tuple[str, str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    x = np.arange(len(ticks))
    axes.bar(x - 0.2, a, 0.38, color=COLOURS[7], label=labels[0])
    axes.bar(x + 0.2, b, 0.38, color=COLOURS[0], label=labels[1])
    axes.set_xticks(x, ticks, fontsize=8, color=FAINT)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.tick_params(axis="both", length=0, labelsize=8, labelcolor=FAINT)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=BEAT_LINE, linewidth=0.7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(BAR_LINE)
