"""ONNX models: their initialisers, without ONNX.

The messages, by their field numbers in onnx.proto: a model's graph is 7; a graph's initialisers are 5; a tensor has
1 dims, 2 type, 4 floats, 5 int32s, 7 int64s, 8 name, 9 raw bytes, 10 doubles, 14 whether its data are elsewhere.
"""

from __future__ import annotations

import numpy as np

from zoo.weights.formats import protobuf
from zoo.weights.formats.files import Files
from zoo.weights.formats.protobuf import message, number, raw, text

_DTYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8", 12: "<u4",
    13: "<u8",
}  # fmt: skip
_VALUES = {1: 4, 7: 7, 11: 10}  # type → field of its values; the others' is 5


def read(files: Files) -> dict[str, np.ndarray]:
    """The model's initialisers by name; strings are left out."""
    model = message(memoryview(files.read(files.the("*.onnx", "*"))))
    tensors = {}
    for value in message(raw(model, 7)).get(5, []):
        tensor = message(value)
        name = text(tensor, 8)
        if number(tensor, 14):
            raise ValueError(f"{name} is kept in another file, which is not supported")
        if number(tensor, 2) in _DTYPES:
            tensors[name] = _array(tensor).reshape(protobuf.numbers(tensor, 1))
    return tensors


def _array(tensor: dict[int, list[protobuf.Value]]) -> np.ndarray:
    kind = number(tensor, 2)
    dtype = np.dtype(_DTYPES[kind])
    field = _VALUES.get(kind, 5)
    if 9 in tensor:
        values = np.frombuffer(raw(tensor, 9), dtype)
    elif dtype.kind == "f" and dtype.itemsize > 2:
        values = np.frombuffer(raw(tensor, field), dtype)
    else:
        bits = np.array(protobuf.numbers(tensor, field), np.int64).astype(f"<u{dtype.itemsize}")
        values = bits.view(dtype)
    return values.astype(dtype.newbyteorder("="))
