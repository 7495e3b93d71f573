"""Writers of foreign formats, for tests: they write what TensorFlow and TF.js write, in the simplest way allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zoo.weights.formats import crc32c
from zoo.weights.formats.table import MAGIC

DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


def write_raw_manifest(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """`manifest.json` and a file a tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {name: {"filename": name.replace("/", "_"), "shape": list(t.shape)} for name, t in tensors.items()}
    for name, tensor in tensors.items():
        (folder / manifest[name]["filename"]).write_bytes(tensor.astype("<f4").tobytes())
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_tfjs(
    folder: Path, tensors: Mapping[str, np.ndarray], quantised: str | None = None, shard: int = 4 << 20
) -> None:
    """`weights_manifest.json` and shards of at most `shard` bytes; `quantised` is "uint8", "uint16" or "float16"."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, data = [], b""
    for name, tensor in tensors.items():
        entry = {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        stored = tensor
        if quantised == "float16":
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
            stored = tensor.astype("<f2")
        elif quantised:
            low, high = float(tensor.min()), float(tensor.max())
            scale = (high - low) / np.iinfo(quantised).max or 1.0
            entry["quantization"] = {"dtype": quantised, "scale": scale, "min": low, "original_dtype": "float32"}
            stored = np.round((tensor.astype(np.float64) - low) / scale).astype(quantised)
        entries.append(entry)
        data += stored.tobytes()
    shards = [data[i : i + shard] for i in range(0, len(data), shard)]
    paths = [f"group1-shard{i + 1}of{len(shards)}" for i in range(len(shards))]
    for path, part in zip(paths, shards, strict=True):
        (folder / path).write_bytes(part)
    (folder / "weights_manifest.json").write_text(json.dumps([{"paths": paths, "weights": entries}]))


def write_v2(prefix: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A TensorFlow V2 checkpoint of one shard: `prefix`.index and `prefix`.data-00000-of-00001."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    pairs = {b"": field(1, 1) + field(3, field(1, 1))}
    data = b""
    for name, tensor in sorted(tensors.items()):
        part = tensor.tobytes()
        entry = field(1, DTYPES[str(tensor.dtype)]) + field(2, _shape(tensor))
        entry += field(4, len(data)) + field(5, len(part))
        entry += bytes([6 << 3 | 5]) + crc32c.masked(part).to_bytes(4, "little")
        pairs[name.encode()] = entry
        data += part
    prefix.with_name(prefix.name + ".index").write_bytes(_table(pairs))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def v1_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A TensorFlow V1 checkpoint."""
    meta, pairs = b"", {}
    for name, tensor in sorted(tensors.items()):
        full = b"".join(field(1, b"") for _ in tensor.shape)
        dtype = DTYPES[str(tensor.dtype)]
        described = field(1, name.encode()) + field(2, _shape(tensor)) + field(3, dtype) + field(4, full)
        meta += field(1, described)
        values = field(1, dtype) + field(5 if dtype == 1 else 4, tensor.tobytes())
        piece = field(1, name.encode()) + field(2, full) + field(3, values)
        # The key in TensorFlow's ordered code: 0, the name, the rank, and start 0 and length -1 of each dimension.
        rank = bytes([1, tensor.ndim]) if tensor.ndim else b"\0"
        pairs[b"\0" + name.encode() + b"\0\1" + rank + b"\x80\x7f" * tensor.ndim] = field(2, piece)
    return _table({b"": field(1, meta), **pairs})


def mag_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A Magenta bundle."""
    return field(1, field(1, b"attention_rnn")) + field(2, v1_bytes(tensors)) + field(3, b"a graph")


def _table(pairs: Mapping[bytes, bytes]) -> bytes:
    """A table with a block for every three pairs, uncompressed and without shared key prefixes."""
    keys, data, index = sorted(pairs), b"", {}
    for i in range(0, len(keys), 3):
        block = _block({key: pairs[key] for key in keys[i : i + 3]})
        index[keys[i : i + 3][-1]] = varint(len(data)) + varint(len(block) - 5)
        data += block
    end = _block(index)
    handles = varint(0) + varint(0) + varint(len(data)) + varint(len(end) - 5)
    return data + end + handles.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def _block(pairs: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs.items())
    body += bytes(4) + (1).to_bytes(4, "little") + b"\0"
    return body + crc32c.masked(body).to_bytes(4, "little")


def _shape(tensor: np.ndarray) -> bytes:
    return b"".join(field(2, field(1, size)) for size in tensor.shape)


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """An unsigned variable-length integer."""
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])
