"""PyTorch's files, zip and legacy, without PyTorch and without running what a pickle asks for.

A pickle names functions to call. Here a name is never looked up: the few that rebuild tensors are functions of this
file, and any other becomes an inert shell, which may stand for an object of a class but refuses, by name, to be called.
So a state dict, a training checkpoint and a whole pickled module all give their tensors, and code gives an error.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from zoo.weights.formats.files import Files

_DTYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_OBJECTS = 100_000  # a pickle whose objects contain each other may unfold to any number
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read(files: Files) -> dict[str, np.ndarray]:
    """Tensors by dotted name as in a state dict, whatever is around them; bfloat16 as float32."""
    data = files.read(files.the("*.pt", "*.pth", "*.ckpt", "*.bin", "*"))
    content = _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_legacy(data)
    return dict(_flatten(content, (), iter(range(_OBJECTS))))


@dataclass
class _Storage:
    """The numbers that tensors are views of; legacy files give the `data` after the tensors."""

    dtype: str
    count: int
    data: bytes = b""

    def array(self) -> np.ndarray:
        """All of them, flat."""
        stored = "u2" if self.dtype == "bf16" else self.dtype
        values = np.frombuffer(self.data, np.dtype(stored).newbyteorder("<"), self.count)
        if self.dtype == "bf16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(values.dtype.newbyteorder("="))


@dataclass
class _Tensor:
    """A strided view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """A copy of its values; the view is checked to lie within the storage."""
        values = self.storage.array()
        if min((self.offset, *self.shape, *self.strides)) < 0 or len(self.shape) != len(self.strides):
            raise ValueError("a tensor of negative size or offset")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.empty(self.shape, values.dtype)
        if last >= len(values):
            raise ValueError("a tensor that reaches beyond its storage")
        steps = [stride * values.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps).copy()


class _Refusing(type):
    """Classes of objects that a pickle may hold but that nothing is known about."""

    def __call__(cls, *_: object, **__: object) -> Any:
        raise ValueError(f"its pickle wants to call {cls.__module__}.{cls.__name__}, which is refused")


def _reconstructor(cls: Any, *_: object) -> object:
    if type(cls) is not _Refusing:
        raise ValueError("its pickle wants to make an object of no class")
    return object.__new__(cls)  # type: ignore[arg-type]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch", "Size"): tuple,
    ("torch", "device"): lambda *parts: parts,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda *_: {},
    ("copyreg", "_reconstructor"): _reconstructor,
    ("builtins", "set"): set,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: io.BytesIO, storage: Callable[[str, str, int], _Storage]) -> None:
        super().__init__(data, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        known = _KNOWN.get((module, name))
        return known or _Refusing(name, (), {"__module__": module})

    def persistent_load(self, reference: Any) -> _Storage:
        kind, storage, key, _, count = reference[:5]
        dtype = _DTYPES.get(getattr(storage, "__name__", ""))
        if kind != "storage" or dtype is None:
            raise ValueError(f"numbers of the unknown type {getattr(storage, '__name__', storage)}")
        return self._storage(str(key), dtype, int(count))


def _read_zip(data: bytes) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = next(n for n in archive.namelist() if PurePosixPath(n).name == "data.pkl")
            folder = PurePosixPath(name).parent
            if str(folder / "byteorder") in archive.namelist() and archive.read(str(folder / "byteorder")) != b"little":
                raise ValueError("numbers of a big-endian machine")
            storages: dict[str, _Storage] = {}

            def storage(key: str, dtype: str, count: int) -> _Storage:
                if key not in storages:
                    storages[key] = _Storage(dtype, count, archive.read(str(folder / "data" / key)))
                return storages[key]

            return _load(io.BytesIO(archive.read(name)), storage)
    except (zipfile.BadZipFile, StopIteration, RuntimeError, NotImplementedError) as error:
        raise ValueError(str(error) or "a zip without data.pkl") from error


def _read_legacy(data: bytes) -> Any:
    """Five pickles (magic, version, system, content, order of storages), then each storage: its count and its bytes."""
    storages: dict[str, _Storage] = {}

    def storage(key: str, dtype: str, count: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, count))

    file = io.BytesIO(data)
    if _load(file, storage) != _LEGACY_MAGIC:
        raise ValueError("a pickle that PyTorch did not write")
    _version, _system, content, order = (_load(file, storage) for _ in range(4))
    for key in order:
        (count,) = struct.unpack("<q", file.read(8))
        found = storages[key]
        if count != found.count:
            raise ValueError("a storage of another size than its tensors need")
        found.data = file.read(count * np.dtype("u2" if found.dtype == "bf16" else found.dtype).itemsize)
    return content


def _load(file: io.BytesIO, storage: Callable[[str, str, int], _Storage]) -> Any:
    try:
        return _Unpickler(file, storage).load()
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error


def _flatten(content: Any, path: tuple[str, ...], budget: Iterator[int]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors in dicts, lists and modules; those of a module are named as in its state dict."""
    if next(budget, None) is None or len(path) > 50:
        raise ValueError("objects within objects without end")
    if isinstance(content, _Tensor):
        yield ".".join(path), content.array()
        return
    if isinstance(type(content), _Refusing):
        parts = [(path, vars(content).get(part)) for part in ("_parameters", "_buffers", "_modules")]
    elif isinstance(content, dict):
        parts = [((*path, str(key)), value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        parts = [((*path, str(i)), value) for i, value in enumerate(content)]
    else:
        parts = []
    for deeper, value in parts:
        yield from _flatten(value, deeper, budget)
