"""Makes `tensorflow.zip`: small checkpoints by TensorFlow itself (2.21), and what they hold. Needs tensorflow, numpy.

Run it in an environment that has both: `python tests/golden/make_tensorflow.py`.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(0)
VALUES = {
    "encoder/mu/kernel": RNG.normal(size=(5, 7)).astype(np.float32),
    "encoder/mu/bias": np.zeros(7, np.float32),
    "pattern": np.tile(np.arange(3, dtype=np.float32), 500),  # compresses into overlapping copies
    "double": RNG.normal(size=(2, 1, 3)),
    "half": RNG.normal(size=4).astype(np.float16),
    "int64": np.array([-1, 0, 2**40]),
    "int32": np.array([[-5], [6]], np.int32),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False, True]),
    "global_step": np.array(1994, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}
PARTITIONED = RNG.normal(size=(6, 4)).astype(np.float32)
SLICES = ((slice(0, 2), slice(None)), (slice(2, 6), slice(0, 1)), (slice(2, 6), slice(1, 4)))
BFLOAT16 = np.array([1.5, -3.0, 0.125], np.float32)


def main() -> None:
    """Writes the archive beside this script."""
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tensors = [tf.constant(value) for value in VALUES.values()]
        parts = ["6 4 0,2:-", "6 4 2,4:0,1", "6 4 2,4:1,3"]
        tf.raw_ops.SaveSlices(
            filename=f"{name}/v1.ckpt",
            tensor_names=[*VALUES, *["partitioned"] * 3],
            shapes_and_slices=[""] * len(VALUES) + parts,
            data=[*tensors, *(tf.constant(PARTITIONED[where]) for where in SLICES)],
        )
        save(f"{name}/v2.ckpt", VALUES | {"bfloat16": tf.constant(BFLOAT16, tf.bfloat16), "text": ["left", "out"]})
        half = len(VALUES) // 2
        save(f"{name}/part0", dict(list(VALUES.items())[:half]))
        save(f"{name}/part1", dict(list(VALUES.items())[half:]))
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=[f"{name}/part0", f"{name}/part1"], destination_prefix=f"{name}/sharded.ckpt"
        )
        arrays = {key.replace("/", "."): value for key, value in VALUES.items()}
        np.savez_compressed(folder / "expected.npz", partitioned=PARTITIONED, bfloat16=BFLOAT16, **arrays)
        with zipfile.ZipFile(here / "tensorflow.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
                print(path.name, path.stat().st_size)


def save(prefix: str, values: dict[str, Any]) -> None:
    """A V2 checkpoint."""
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.convert_to_tensor(value) for value in values.values()],
    )


if __name__ == "__main__":
    main()
