r"""George Ogden's Coconet in PyTorch, a whole pickled module → `zoo/models/coconet.py`.

PyTorch's rolls are [batch, channel, pitch, time] and its kernels [out, in, pitch, time]; ours are [time, pitch, in,
out]. Batch norms, and the bias before the only one that has one, become a scale and a shift.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule, fold_batch_norms

_EPSILON = 1e-5  # of PyTorch's BatchNorm2d
_FIRST, _LAST = "layers.0", "layers.20"


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Batch norms folded; the first layer's bias shifted into it, and the last layer, which has none, left as it is."""
    counters = ".num_batches_tracked"
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(counters)}
    folded = fold_batch_norms(kept, _EPSILON, ("weight", "bias", "running_mean", "running_var"))
    if (bias := folded.pop(f"{_FIRST}.0.bias", None)) is not None:
        folded[f"{_FIRST}.1.shift"] = folded[f"{_FIRST}.1.shift"] + bias * folded[f"{_FIRST}.1.scale"]
    if (output := folded.get(f"{_LAST}.0.pointwise.weight")) is not None:
        folded[f"{_LAST}.1.scale"] = np.ones(len(output), np.float32)
        folded[f"{_LAST}.1.shift"] = np.zeros(len(output), np.float32)
    return folded


RULES = [
    Rule(r"layers\.(\d+)\.0\.weight", r"layers.\1.kernel", lambda w: w.transpose(3, 2, 1, 0)),
    Rule(r"layers\.(\d+)\.0\.depthwise\.weight", r"layers.\1.depthwise", lambda w: w[:, 0].transpose(2, 1, 0)),
    Rule(r"layers\.(\d+)\.0\.pointwise\.weight", r"layers.\1.pointwise", lambda w: w[:, :, 0, 0].T),
    Rule(r"layers\.(\d+)\.1\.(scale|shift)", r"layers.\1.\2"),
]
