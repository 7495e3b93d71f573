"""Weights: cards, where bytes come from, checked and cached; their formats; and their names made ours.

Weights in memory are `dict[str, np.ndarray]` with dotted names such as "encoder.forward.0.kernel". This room knows
numpy only. Its modules are imported when `load` needs them, so that listing cards stays cheap.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np

    from zoo.weights.cards import Card


def load(card: Card, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, np.ndarray]:
    """A card's weights under our names: fetched, verified, read and converted.

    With `shapes`, the model's parameters, they must fit it exactly. Raises `WeightsError`.
    """
    from zoo.weights import sources
    from zoo.weights.convert import check_fit, convert
    from zoo.weights.formats import read_weights

    files = sources.resolve_all(card)
    by_format: dict[str, dict[str, Path]] = {}
    for source in card.sources:
        by_format.setdefault(source.format or card.format, {})[source.name] = files[source.name]
    weights: dict[str, np.ndarray] = {}
    for format, group in by_format.items():
        tensors = read_weights(group, format)
        if card.converter and format != "safetensors":
            tensors = convert(tensors, card.converter, card.id)
        if twice := weights.keys() & tensors.keys():
            raise WeightsError(f"{card.id}: two sources give {min(twice)}; take one of them out of the card")
        weights |= tensors
    if shapes is not None:
        check_fit(weights, shapes, card.id)
    return weights
