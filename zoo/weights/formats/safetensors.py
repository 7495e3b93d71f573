"""safetensors: our own format. Its header carries the model's configuration, so a single file can be loaded alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from zoo.errors import WeightsError
from zoo.weights import cache
from zoo.weights.formats.files import Files

_KEY = "zoo"  # one JSON object under one key, since the library writes several keys in no fixed order


def read(files: Files) -> dict[str, np.ndarray]:
    """The tensors of the one safetensors file there is."""
    return load(files.paths[files.the("*.safetensors", "*")])[0]


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by name and the metadata; raises `WeightsError` if the file is damaged.

    What `write` stored as float16 to save space comes back as float32. Metadata of files by others are strings.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = json.loads(header[_KEY]) if _KEY in header else dict(header)
        stored_as_half = set(metadata.pop("stored_as_float16", [])) if _KEY in header else set()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read ({error.strerror or error}); check the path") from error
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch or export it again") from error
    return {n: t.astype(np.float32) if n in stored_as_half else t for n, t in tensors.items()}, metadata


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any], half: bool = False) -> None:
    """Writes tensors and JSON-able metadata, atomically and the same bytes every time.

    With `half`, float32 tensors are stored as float16 (a relative rounding of 2^-11), save those with values that
    float16 can't hold; without, all are stored bit for bit.
    """
    narrow = [name for name, tensor in tensors.items() if half and _fits_half(tensor)]
    stored = {n: np.asarray(t, np.float16 if n in narrow else t.dtype, order="C") for n, t in sorted(tensors.items())}
    header = {_KEY: json.dumps({**metadata, "stored_as_float16": sorted(narrow)}, sort_keys=True)}
    cache.write_atomically(path, [safetensors.numpy.save(stored, header)])


def _fits_half(tensor: np.ndarray) -> bool:
    return tensor.dtype == np.float32 and bool((np.abs(tensor) <= np.finfo(np.float16).max).all())
