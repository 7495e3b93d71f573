"""Readers of weights: files → `dict[str, np.ndarray]`, without the frameworks that wrote them and without pickle.

A format "tf-checkpoint" is the module `tf_checkpoint.py` here with a function `read(files)`. A reader raises
`ValueError` or any other of `DAMAGE` on bytes that make no sense; `read_weights` turns that into a `WeightsError`.
"""

from __future__ import annotations

import importlib
import json
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zoo.errors import WeightsError
from zoo.weights.cards import FORMATS
from zoo.weights.formats.files import Files, open_files, unpacked

DAMAGE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    EOFError,
    struct.error,
)

_TABLE_END = (0xDB4775248B80FB57).to_bytes(8, "little")  # the last bytes of a TensorFlow checkpoint's table


def read_weights(where: Path | str | Mapping[str, Path], format: str | None = None) -> dict[str, np.ndarray]:
    """Every tensor by its own name, from a file, a folder, an archive of either, or files by name.

    `format` is one of `cards.FORMATS`; None finds it out. Raises `WeightsError`.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            files = _files(where, Path(scratch))
            return _read(files, format or sniff(files))
    except OSError as error:
        named = where if isinstance(where, str | Path) else ", ".join(where)
        raise WeightsError(f"{named}: can't be read ({error.strerror or error}); check the path") from error


def _read(files: Files, format: str) -> dict[str, np.ndarray]:
    if format not in FORMATS:
        raise WeightsError(f"{files.where}: unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    try:
        tensors = importlib.import_module(f"{__name__}.{format.replace('-', '_')}").read(files)
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{files.where}: damaged or no {format} ({reason}); fetch it again") from error
    if not tensors:
        raise WeightsError(f"{files.where}: holds no tensors; name the weights themselves")
    return tensors


def sniff(files: Files) -> str:
    """The format of files, by their names and first or last bytes. Raises `WeightsError` if it can't be told."""
    if any(name.endswith(".index") for name in files.paths):
        return "tf-checkpoint"
    if name := files.find("weights_manifest.json", "model.json", "manifest.json", "*.json"):
        try:
            return "raw-manifest" if _is_raw(json.loads(files.read(name))) else "tfjs"
        except DAMAGE as error:
            raise WeightsError(f"{files.where}: its {name} is not valid JSON; fetch it again") from error
    known = {format for name in files.paths if (format := _sniff_file(files.paths[name], Path(name).suffix))}
    if len(known) != 1:
        formats = ", ".join(FORMATS)
        raise WeightsError(f"{files.where}: its format can't be told; name it: one of {formats}")
    return known.pop()


def _is_raw(manifest: object) -> bool:
    return isinstance(manifest, dict) and all(isinstance(v, dict) and "filename" in v for v in manifest.values())


def _sniff_file(path: Path, suffix: str) -> str:
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(max(0, path.stat().st_size - 8))
        tail = file.read()
    if tail == _TABLE_END:
        return "tf-checkpoint"
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and suffix in (".pt", ".pth", ".ckpt", ".bin")):
        return "torch"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "keras-h5"
    if suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    return {".mag": "mag", ".onnx": "onnx"}.get(suffix, "")


def _files(where: Path | str | Mapping[str, Path], scratch: Path) -> Files:
    """The files of `where`; a mapping with one archive in it stands for what the archive holds."""
    if not isinstance(where, Mapping):
        return open_files(Path(where).expanduser(), scratch)
    files = Files(", ".join(sorted(where)[:2]), where, chosen=True)
    return (unpacked(next(iter(where.values())), scratch) if len(where) == 1 else None) or files
