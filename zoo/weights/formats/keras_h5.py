"""Keras's HDF5 files, of Keras 1 and 2: a whole model or its weights alone, by h5py.

A weight is a data set `layer/layer/kernel:0`; in a file that holds a whole model the weights lie in the group
`model_weights`, and the optimiser's numbers beside them in `optimizer_weights`. Layers that are Python code (Lambda,
or a pickle in the model's configuration) are text of an attribute, which is never read.
"""

from __future__ import annotations

import numpy as np

from zoo.weights.formats.files import RATIO, Files


def read(files: Files) -> dict[str, np.ndarray]:
    """Tensors by their path in the file, without `model_weights/` and the `:0` of TensorFlow.

    Strings and other things that are no numbers hold no weights and are left out. Links to other files are not
    followed, and data that lie in other files are refused.
    """
    import h5py  # a tenth of a second, and of use to few

    path = files.paths[files.the("*.h5", "*.hdf5", "*.keras.h5", "*")]
    try:
        with h5py.File(path, "r") as file:
            return _tensors(file, path.stat().st_size)
    except (OSError, RuntimeError) as error:  # what HDF5 says of damage
        raise ValueError(str(error)) from error


def _tensors(file: object, size: int) -> dict[str, np.ndarray]:
    import h5py

    tensors: dict[str, np.ndarray] = {}
    left = RATIO * size

    def visit(name: str, item: object) -> None:
        nonlocal left
        if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "fiub":
            return
        if item.external or item.is_virtual:
            raise ValueError(f"{name} lies in another file")
        left -= item.nbytes
        if left < 0:
            raise ValueError("it claims to hold far more than its size allows")
        tensors[_plain(name)] = np.asarray(item[...])

    file.visititems(visit)  # type: ignore[attr-defined]  # h5py has no types
    return tensors


def _plain(name: str) -> str:
    """`model_weights/gru/gru/kernel:0` → `gru/gru/kernel`."""
    return name.removeprefix("model_weights/").removesuffix(":0")
