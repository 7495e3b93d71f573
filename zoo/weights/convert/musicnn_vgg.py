r"""The TensorFlow checkpoints of musicnn's baseline → `zoo/models/musicnn.py`, its kind "vgg"."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule, fold_batch_norms
from zoo.weights.convert.musicnn import EPSILON

RULES = [
    *(Rule(rf"{k + 1}CNN/(kernel|bias)", rf"blocks.{k}.\1") for k in range(5)),
    Rule(r"batch_normalization/(scale|shift)", r"input.\1"),
    *(Rule(rf"batch_normalization_{k + 1}/(scale|shift)", rf"blocks.{k}.norm.\1") for k in range(5)),
    Rule(r"dense/(kernel|bias)", r"output.\1"),
]


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Batch norms as a scale and a shift."""
    return fold_batch_norms(tensors, EPSILON)
