r"""musicnn's TensorFlow checkpoints → `zoo/models/musicnn.py`.

TensorFlow numbers layers as they are made, and the first has no number: convolutions are two timbral, three temporal
and three of the middle; batch norms follow the input, each of the eight, the pooled features and the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule, fold_batch_norms

EPSILON = 1e-3  # of TensorFlow's layers.batch_normalization

_CONVOLUTIONS = [
    f"{part}.{k}" for part, count in (("timbral", 2), ("temporal", 3), ("middle", 3)) for k in range(count)
]

RULES = [
    Rule(r"conv2d/(kernel|bias)", r"timbral.0.\1"),
    *(Rule(rf"conv2d_{k}/(kernel|bias)", rf"{name}.\1") for k, name in enumerate(_CONVOLUTIONS)),
    Rule(r"batch_normalization/(scale|shift)", r"input.\1"),
    *(Rule(rf"batch_normalization_{k}/(scale|shift)", rf"{name}.norm.\1") for k, name in enumerate(_CONVOLUTIONS, 1)),
    Rule(r"batch_normalization_9/(scale|shift)", r"pooled.\1"),
    Rule(r"batch_normalization_10/(scale|shift)", r"norm.\1"),
    Rule(r"dense/(kernel|bias)", r"dense.\1"),
    Rule(r"dense_1/(kernel|bias)", r"output.\1"),
]


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Batch norms as a scale and a shift; the middle's kernels [7, I, 1, O] take channels for bands."""
    middle = {f"conv2d_{k}/kernel" for k in (5, 6, 7)}
    folded = fold_batch_norms(tensors, EPSILON)
    return {name: array.swapaxes(1, 2) if name in middle else array for name, array in folded.items()}
