r"""PESTO's checkpoints (PyTorch Lightning) → `zoo/models/pesto.py`.

PyTorch has kernels as [out, in, width] and matrices as [out, in]; ours are [width, in, out] and [in, out]. `shift`, by
which pitches are moved, is the card's `offset`, in bins.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo.weights.convert import Rule


def prepare(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the state dict under their own names, without the shift."""
    own = {name.removeprefix("state_dict."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in own.items() if name != "shift"}


RULES = [
    Rule(r"encoder\.layernorm\.weight", "scale", np.ravel),
    Rule(r"encoder\.layernorm\.bias", "shift", np.ravel),
    Rule(r"encoder\.conv1\.0\.weight", "first.kernel", np.transpose),
    Rule(r"encoder\.conv1\.0\.bias", "first.bias"),
    Rule(r"encoder\.prefilt_layers\.(\d+)\.0\.weight", r"residuals.\1.kernel", np.transpose),
    Rule(r"encoder\.prefilt_layers\.(\d+)\.0\.bias", r"residuals.\1.bias"),
    *(  # between two of these are an activation and a dropout
        rule
        for k in range(4)
        for rule in (
            Rule(rf"encoder\.conv_layers\.{3 * k}\.weight", f"mixing.{k}.kernel", lambda kernel: kernel[..., 0].T),
            Rule(rf"encoder\.conv_layers\.{3 * k}\.bias", f"mixing.{k}.bias"),
        )
    ),
    Rule(r"encoder\.fc\.weight", "toeplitz", np.ravel),
    Rule(r"confidence\.conv\.weight", "voicing.kernel", np.transpose),
    Rule(r"confidence\.conv\.bias", "voicing.bias"),
    Rule(r"confidence\.linear\.weight", "voicing.linear.kernel", np.transpose),
    Rule(r"confidence\.linear\.bias", "voicing.linear.bias"),
]
