"""Magenta's `.mag` bundles: a GeneratorBundle message whose field 2 is a V1 checkpoint."""

from __future__ import annotations

import numpy as np

from zoo.weights.formats import tf_checkpoint
from zoo.weights.formats.files import Files
from zoo.weights.formats.protobuf import message, raw


def read(files: Files) -> dict[str, np.ndarray]:
    """The tensors of the bundle's checkpoint by variable name."""
    bundle = message(memoryview(files.read(files.the("*.mag", "*"))))
    checkpoints = bundle.get(2, [])
    if len(checkpoints) != 1:
        raise ValueError(f"a bundle of {len(checkpoints)} checkpoints instead of 1")
    return tf_checkpoint.read_v1(raw(bundle, 2))
