r"""crema's chord model (Keras 2.2 HDF5) → `zoo/models/chord_crema.py`.

Keras's batch norms have ε = 0.001. Its GRUs (`reset_after=False`) have their gates in the order z, r, candidate, as
ours do. The second convolution, one frame high and all bins wide, is a matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule, fold_batch_norms

_NORMS = {1: "input", 2: "onset_affine", 3: "frame_affine", 4: "between.0", 5: "joined"}

RULES = [
    *(Rule(rf"batch_normalization_{n}/.*/(scale|shift)", rf"{ours}.\1") for n, ours in _NORMS.items()),
    Rule("conv2d_1/.*/kernel", "onsets"),
    Rule("conv2d_1/.*/bias", "onset_bias"),
    Rule("conv2d_2/.*/kernel", "frame.kernel", lambda kernel: kernel[0, :, 0]),  # [1, F, 1, filters]
    Rule("conv2d_2/.*/bias", "frame.bias"),
    *(
        Rule(rf"bidirectional_{n}/.*/(forward|backward)_gru_{n}/{theirs}", rf"layers.{n - 1}.\1.{ours}")
        for n in (1, 2)
        for theirs, ours in (("kernel", "kernel"), ("recurrent_kernel", "recurrent"), ("bias", "bias"))
    ),
    Rule(r"chord_(pitch|root|bass)/.*/(kernel|bias)", r"\1.\2"),
    Rule(r"chord_tag/.*/(kernel|bias)", r"chord.\1"),
]


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Batch norms with their statistics as they are."""
    return fold_batch_norms(tensors, 1e-3)
