"""TensorFlow checkpoints without TensorFlow: V1 (one table) and V2 (an index table and shards of raw bytes).

The messages, by their field numbers in TensorFlow's .proto files:
V2 (tensor_bundle.proto): the key "" has a header (1 shards, 2 endianness), every other key is a variable's name with
its entry (1 dtype, 2 shape, 3 shard, 4 offset, 5 size, 6 masked CRC-32C, 7 slices).
V1 (saved_tensor_slice.proto): the key "" has the meta data (1: repeated 1 tensors: 1 name, 2 shape, 3 dtype), every
other key a piece of a variable (2: 1 name, 2 slice, 3 tensor).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from zoo.weights.formats import crc32c, protobuf, table
from zoo.weights.formats.files import Files
from zoo.weights.formats.protobuf import message, number, raw, text

_STRING, _BFLOAT16 = 7, 14
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 8: "<c8", 9: "<i8", 10: "?", _BFLOAT16: "<u2",
    17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8",
}  # fmt: skip
_VALUES = {1: 5, 2: 6, 3: 7, 4: 7, 5: 7, 6: 7, 9: 10, 10: 11, 17: 7, _BFLOAT16: 13, 19: 13}  # dtype → field of a tensor


def read(files: Files) -> dict[str, np.ndarray]:
    """Tensors by variable name; bfloat16 as float32; strings, which hold no weights, are left out."""
    name = _newest(files) or files.find("*.index") or files.the("*.ckpt*", "*")
    if name.endswith(".index"):
        return _read_v2(files, name)
    return read_v1(memoryview(files.read(name)))


def _newest(files: Files) -> str | None:
    """The index of the checkpoint that the text file `checkpoint` names, where several lie in a folder."""
    found = [name for name in files.paths if Path(name).name == "checkpoint"]
    if not found:
        return None
    match = re.search(r'^model_checkpoint_path: "(.*)"', files.read(found[0]).decode(), re.MULTILINE)
    index = files.beside(found[0], f"{Path(match[1]).name}.index") if match else ""
    return index if index in files.paths else None


def _read_v2(files: Files, index: str) -> dict[str, np.ndarray]:
    entries = dict(table.entries(memoryview(files.read(index))))
    header = message(entries.pop(b""))
    if number(header, 2):
        raise ValueError("a checkpoint of a big-endian machine")
    tensors = {}
    for key, value in entries.items():
        entry = message(value)
        if number(entry, 1) == _STRING:
            continue
        if 7 in entry:
            raise ValueError(f"the partitioned variable {key.decode()}, which is not supported")
        shard = index.removesuffix(".index") + f".data-{number(entry, 3):05d}-of-{number(header, 1):05d}"
        if shard not in files.paths:
            files.read(shard)  # says that it is missing
        with files.paths[shard].open("rb") as file:
            file.seek(number(entry, 4))
            data = file.read(min(number(entry, 5), files.paths[shard].stat().st_size))
        if crc32c.masked(data) != number(entry, 6):
            raise ValueError(f"the checksum of {key.decode()} is wrong")
        tensors[key.decode()] = _array(data, number(entry, 1), _shape(entry, 2))
    return tensors


def read_v1(data: memoryview) -> dict[str, np.ndarray]:
    """The tensors of a V1 checkpoint, put together from their slices."""
    described: dict[str, tuple[tuple[int, ...], int]] = {}
    pieces: dict[str, list[tuple[Any, np.ndarray]]] = {}
    for key, value in table.entries(data):
        found = message(value)
        if not key:
            for tensor in message(raw(found, 1)).get(1, []):
                meta = message(tensor)
                described[text(meta, 1)] = (_shape(meta, 2), number(meta, 3))
        else:
            piece = message(raw(found, 2))
            name = text(piece, 1)
            shape, dtype = described[name]
            if dtype != _STRING:
                where = _slice(message(raw(piece, 2)), shape)
                pieces.setdefault(name, []).append((where, _tensor(message(raw(piece, 3)), dtype)))
    return {
        name: _join(name, *described[name], pieces.get(name, [])) for name in described if described[name][1] != _STRING
    }


def _join(name: str, shape: tuple[int, ...], dtype: int, pieces: list[tuple[Any, np.ndarray]]) -> np.ndarray:
    if sum(values.size for _, values in pieces) != int(np.prod(shape, dtype=object)):
        raise ValueError(f"the variable {name} is not all there")
    whole = np.empty(shape, pieces[0][1].dtype)
    for where, values in pieces:
        whole[where] = values.reshape(whole[where].shape)
    return whole


def _slice(found: dict[int, list[protobuf.Value]], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of a variable that a piece is: a start and a length for each dimension; no length means all of it."""
    extents = [message(extent) for extent in found.get(1, [])] or [{} for _ in shape]
    starts = [number(extent, 1) for extent in extents]
    lengths = [number(extent, 2, size) for extent, size in zip(extents, shape, strict=True)]
    return tuple(slice(start, start + length) for start, length in zip(starts, lengths, strict=True))


def _shape(found: dict[int, list[protobuf.Value]], field: int) -> tuple[int, ...]:
    return tuple(number(message(dimension), 1) for dimension in message(raw(found, field)).get(2, []))


def _tensor(found: dict[int, list[protobuf.Value]], dtype: int) -> np.ndarray:
    """The values of a TensorProto, flat: its raw content, or the packed numbers of its dtype's own field."""
    if 4 in found:
        return _array(raw(found, 4), dtype, (-1,))
    if _DTYPES[dtype] in ("<f4", "<f8"):
        return _array(raw(found, _VALUES[dtype]), dtype, (-1,))
    bits = np.array(protobuf.numbers(found, _VALUES[dtype]), np.int64).astype(f"<u{np.dtype(_DTYPES[dtype]).itemsize}")
    return _array(bits.tobytes(), dtype, (-1,))


def _array(data: bytes | memoryview, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
    if dtype not in _DTYPES:
        raise ValueError(f"a variable of the unknown dtype {dtype}")
    values = np.frombuffer(data, _DTYPES[dtype])
    if dtype == _BFLOAT16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.reshape(shape).astype(values.dtype.newbyteorder("="))
