"""Which tokens attention looks from and to, as a picture.

A model whose attention can be looked at has a method `attention(source) → Attention`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.show.roll import BAR_LINE, FAINT, figure, printable, save
from zoo.show.timeline import pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL, WIDE, LEFT, ABOVE, GAP, HEADING, BELOW = 1.9, 6.5, 0.75, 0.26, 0.14, 0.5, 0.55  # inches
LONGEST = 600  # rows and columns of a panel; of longer ones neighbours are put together, the strongest shown
MOST_LABELS = 60  # that are written at a panel; of more every few


@dataclass(frozen=True)
class Attention:
    """How much each token that asks, of `L`, hears of each that is asked, of `M`: in encoders both are the same.

    Attributes:
      weights: [layers, H, L, M] from 0 to 1, each row's sum is 1.
      rows, columns: float [L], [M], where the tokens are, ascending: seconds, or just 0, 1, 2, ….
      unit: of both, "s" for seconds; "" for numbers of tokens.
      row_labels, column_labels: what the tokens are called; none where that is their time alone.
      asks, asked: what rows and columns are, for the axes.
    """

    weights: npt.NDArray[np.floating]
    rows: npt.NDArray[np.floating]
    columns: npt.NDArray[np.floating]
    unit: str = "s"
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()
    asks: str = "from"
    asked: str = "to"

    def plot(
        self, path: str | os.PathLike[str], title: str = "", layer: int | None = None, head: int | None = None
    ) -> Path:
        """Draws all heads of all layers, or those chosen, counted from 0, into a PNG.

        Rows are layers, columns heads; dark is strong, each panel on its own scale, whose end stands above it.

        Raises:
          InputError: no such layer or head, or `path` can't be written.
        """
        layers = _chosen("layer", layer, self.weights.shape[0])
        heads = _chosen("head", head, self.weights.shape[1])
        panel = WIDE if len(layers) == len(heads) == 1 else PANEL
        width = max(4.0, LEFT + len(heads) * (panel + GAP))
        height = HEADING + len(layers) * (panel + ABOVE) + BELOW
        with figure(width, height) as sheet:
            sheet.text(0.1 / width, 1 - 0.1 / height, printable(title), size=12, weight="bold", va="top")
            for i, layer_ in enumerate(layers):
                for j, head_ in enumerate(heads):
                    bottom = BELOW + (len(layers) - 1 - i) * (panel + ABOVE)
                    left = LEFT + j * (panel + GAP)
                    place = (left / width, bottom / height, panel / width, panel / height)
                    axes = sheet.add_axes(place)
                    self._panel(axes, layer_, head_, left=j == 0, below=i == len(layers) - 1, alone=panel == WIDE)
            return save(sheet, path)

    def _panel(self, axes: Axes, layer: int, head: int, left: bool, below: bool, alone: bool) -> None:
        weights = np.asarray(self.weights[layer, head], np.float64)
        strongest = float(weights.max(initial=0.0))
        shown = pooled(pooled(weights, LONGEST).T, LONGEST).T
        edges = [_edges(at) for at in (self.columns, self.rows)]
        x, y = (
            edge[np.linspace(0, len(edge) - 1, count + 1).astype(int)]
            for edge, count in zip(edges, reversed(shown.shape), strict=True)
        )
        axes.pcolormesh(x, y, shown, cmap="Blues", vmin=0, vmax=strongest or 1, rasterized=True)
        axes.set_xlim(x[0], x[-1])
        axes.set_ylim(y[-1], y[0])  # time runs downwards
        name = f"layer {layer + 1}, head {head + 1} · up to {strongest:.2f}"
        axes.set_title(name, fontsize=7, loc="left", color=FAINT, pad=3)
        axes.tick_params(length=0, labelsize=6.5, labelcolor=FAINT, labelleft=left, labelbottom=below)
        if alone:
            self._name(axes)
        if below:
            axes.set_xlabel(_axis(self.asked, self.unit), fontsize=7.5, color=FAINT)
        if left:
            axes.set_ylabel(_axis(self.asks, self.unit), fontsize=7.5, color=FAINT)
        for side in axes.spines.values():
            side.set_color(BAR_LINE)
            side.set_linewidth(0.6)

    def _name(self, axes: Axes) -> None:
        """The tokens' labels at the two axes, as many as there is room for."""
        for axis, at, labels, turn in (
            (axes.xaxis, self.columns, self.column_labels, 90),
            (axes.yaxis, self.rows, self.row_labels, 0),
        ):
            if labels:
                every = slice(None, None, -(-len(labels) // MOST_LABELS))
                names = [printable(label) for label in labels[every]]
                axis.set_ticks(np.asarray(at)[every], names, rotation=turn, fontsize=5.5)


def _chosen(what: str, number: int | None, count: int) -> range:
    if number is not None and not 0 <= number < count:
        raise InputError(f"no {what} {number + 1}: the model has {count}")
    return range(count) if number is None else range(number, number + 1)


def _axis(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _edges(at: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Borders between tokens at these places, [N] → [N + 1]; those at one time share the way to the next."""
    at = np.asarray(at, np.float64)
    if not len(at):
        return np.array([0.0, 1.0])
    times, first, count = np.unique(at, return_index=True, return_counts=True)
    if 1 < len(times) == len(at):
        middles = (at[1:] + at[:-1]) / 2
        return np.concatenate([[2 * at[0] - middles[0]], middles, [2 * at[-1] - middles[-1]]])
    room = np.diff(times, append=2 * times[-1] - times[-2] if len(times) > 1 else times[-1] + 1)
    within = (np.arange(len(at)) - np.repeat(first, count)) / np.repeat(count, count)
    return np.append(np.repeat(times, count) + within * np.repeat(room, count), times[-1] + room[-1])
