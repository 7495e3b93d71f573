"""A taggram as PNG: tags over time, the darker the likelier, and beside them what each comes to on average."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.show.layout import COLOURS
from zoo.show.roll import BAR_LINE, FAINT, INK, figure, printable, save

WIDTH, ROW, MARGIN, HEADING, BELOW = 12.0, 0.24, 0.3, 0.4, 0.35  # inches


def taggram(
    times: npt.NDArray[np.float64],
    length: float,
    values: npt.NDArray[np.float32],
    tags: Sequence[str],
    path: str | os.PathLike[str],
    title: str = "",
    count: int = 15,
) -> Path:
    """Draws the `count` tags that are likeliest on average and writes a PNG.

    `times` [P] are seconds at which patches of `length` seconds begin, `values` [P, V] go from 0 to 1.
    Raises InputError if `path` can't be written.
    """
    from matplotlib.colors import LinearSegmentedColormap

    mean = values.mean(axis=0)
    chosen = np.argsort(-mean, kind="stable")[:count]
    names = [printable(tags[k]) for k in chosen]
    height = 2 * MARGIN + (HEADING if title else 0) + ROW * len(chosen) + BELOW
    bottom, share = (MARGIN + BELOW) / height, ROW * len(chosen) / height
    edges = np.append(times, times[-1] + (times[1] - times[0] if len(times) > 1 else length))
    with figure(WIDTH, height) as sheet:
        if title:
            sheet.text(0.12, 1 - (MARGIN + 0.05) / height, printable(title), size=14, weight="bold", va="top")
        axes = sheet.add_axes((0.12, bottom, 0.66, share))
        colours = LinearSegmentedColormap.from_list("likelihood", ["#ffffff", COLOURS[0], INK])
        axes.pcolormesh(edges, np.arange(len(chosen) + 1), values[:, chosen].T, cmap=colours, vmin=0, vmax=1)
        axes.set_yticks(np.arange(len(chosen)) + 0.5, names, fontsize=9)
        axes.xaxis.set_major_formatter(lambda second, _: f"{second:g} s")
        bars = sheet.add_axes((0.8, bottom, 0.17, share))
        bars.barh(np.arange(len(chosen)) + 0.5, mean[chosen], height=0.7, color=COLOURS[0])
        for place, value in enumerate(mean[chosen]):
            bars.text(value + 0.02, place + 0.5, f"{value:.0%}", va="center", fontsize=8, color=FAINT)
        bars.set_xlim(0, 1.15)
        bars.set_ylim(0, len(chosen))
        bars.set_axis_off()
        for each in (axes, bars):
            each.invert_yaxis()
        axes.tick_params(axis="both", length=0, labelcolor=FAINT)
        for side in axes.spines.values():
            side.set_color(BAR_LINE)
        return save(sheet, path)
