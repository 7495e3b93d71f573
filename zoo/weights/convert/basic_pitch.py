r"""Spotify's Basic Pitch (the ONNX model of its package) → `zoo/models/basic_pitch.py`.

The exporter kept few of the variables' names: what it transposed is `const_fold_opt__` and a number, and a name may be
that of every operation that was fused into one, joined by semicolons. The file is pinned by its sha256, so the numbers
are as good as names. Batch normalisation after the convolutions was folded into them by the exporter.

Beside the parameters there are the constants of the graph: shapes of type int, and the transform's kernels, its filter
and its scales, which `zoo/nn/cqt.py` computes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule


def _kernel(array: np.ndarray) -> np.ndarray:
    """[out, in, time, frequency] → [time, frequency, in, out]."""
    return array.transpose(2, 3, 1, 0)


_KERNELS = {
    "contour_hidden": 727, "contour": 710, "note_hidden": 738, "note": 702, "onset_hidden": 707, "onset": 680,
}  # fmt: skip
_BIASES = {
    "contour_hidden": r"model_1/re_lu_1/Relu;.*",
    "contour": r"model_1/contours-reduced/BiasAdd/ReadVariableOp;.*",
    "note_hidden": r"model_1/conv2d_2/BiasAdd/ReadVariableOp;.*",
    "note": r"model_1/conv2d_3/BiasAdd/ReadVariableOp;.*",
    "onset_hidden": r"model_1/re_lu_3/Relu;.*",
    "onset": r"model_1/conv2d_5/BiasAdd/ReadVariableOp;.*",
}
_NORMALISATION = "model_1/batch_normalization/FusedBatchNormV3;model_1/batch_normalization/FusedBatchNormV3"

RULES = [
    *(Rule(f"const_fold_opt__{number}", f"{layer}.kernel", _kernel) for layer, number in _KERNELS.items()),
    *(Rule(source, f"{layer}.bias") for layer, source in _BIASES.items()),
    Rule(_NORMALISATION, "scale"),
    Rule(_NORMALISATION + "1", "shift"),
]

_CONSTANTS = (
    r"(pad_const|new_shape|const_(starts|ends|axes))__\d+(__\d+)?",
    r"StatefulPartitionedCall:\d_shape__\d+",
    r"const_fold_opt__(630|643|663|683|708|712)",  # shapes and axes
    r"const_fold_opt__(655|664|734)",  # real and imaginary kernels, filter
    r"model_1/(cq_t2010v2_1|normalized_log_1)/.*",
    r"model_1/conv2d_5/Conv2D;.*",  # a bias of zero for the filter
)


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without the graph's constants."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not any(re.fullmatch(pattern, name) for pattern in _CONSTANTS)
    }
