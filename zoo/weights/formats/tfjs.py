"""TensorFlow.js weights: a manifest in JSON and shards of bytes, maybe quantised.

The manifest is `weights_manifest.json` itself or the key `weightsManifest` of `model.json`: a list of groups, each
with `paths` (its shards, one after the other) and `weights` (name, shape, dtype, quantization) in the shards' order.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from zoo.weights.formats.files import Files

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "uint16": "<u2", "bool": "?"}


def read(files: Files) -> dict[str, np.ndarray]:
    """Tensors by name: quantised ones and float16 as float32, other dtypes as they are; strings are left out."""
    manifest = files.the("weights_manifest.json", "model.json", "*.json")
    groups = json.loads(files.read(manifest))
    tensors: dict[str, np.ndarray] = {}
    for group in groups["weightsManifest"] if isinstance(groups, dict) else groups:
        data = b"".join(files.read(files.beside(manifest, path)) for path in group["paths"])
        end = 0
        for entry in group["weights"]:
            start, end = end, end + _length(entry, data, end)
            if end > len(data):
                raise ValueError(f"the shards of {entry['name']} end at {len(data)} bytes, before {end}")
            if entry["dtype"] != "string":
                tensors[entry["name"]] = _tensor(entry, data[start:end])
        if end != len(data):
            raise ValueError(f"the shards {', '.join(group['paths'])} have {len(data)} bytes, the manifest {end}")
    return tensors


def _length(entry: dict[str, Any], data: bytes, start: int) -> int:
    """Bytes of a tensor in the shards. A string tensor has a uint32 length before each of its strings."""
    size = int(np.prod(entry["shape"], dtype=object))
    if entry["dtype"] != "string":
        return size * np.dtype(_stored(entry)).itemsize
    at = start
    for _ in range(size):
        if at + 4 > len(data):
            raise ValueError(f"the shards end within {entry['name']}")
        at += 4 + int.from_bytes(data[at : at + 4], "little")
    return at - start


def _stored(entry: dict[str, Any]) -> str:
    dtype = entry.get("quantization", entry)["dtype"]
    if dtype not in _DTYPES:
        raise ValueError(f"{entry['name']} has the unknown dtype {dtype!r}")
    return _DTYPES[dtype]


def _tensor(entry: dict[str, Any], data: bytes) -> np.ndarray:
    tensor = np.frombuffer(data, _stored(entry)).reshape(entry["shape"])
    quantization = entry.get("quantization", {})
    if "scale" in quantization:
        tensor = tensor.astype(np.float32) * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        if entry["dtype"] == "int32":
            return np.round(tensor).astype(np.int32)
    return tensor.astype(np.float32 if tensor.dtype.kind == "f" else tensor.dtype.newbyteorder("="))
