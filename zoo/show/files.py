"""Writing what is shown: a file is either whole or not there, and a folder that can't be written is one clear line."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.errors import InputError, WeightsError
from zoo.weights.cache import write_atomically


def write(path: str | os.PathLike[str], data: bytes) -> Path:
    """Writes a file and any missing folders above it. Raises InputError naming `path` if it can't."""
    path = Path(path)
    try:
        write_atomically(path, [data])
    except WeightsError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); write elsewhere") from error
    return path
