"""Rows of numbers on disk: what grows with a recording's length, kept out of memory.

The file has no name and lies in the folder for temporary files (`TMPDIR` says which): it is gone with the object, with
an error, and with the process, however that ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

Array = npt.NDArray[Any]
Tree = TypeVar("Tree")


class Rows:
    """Numbers [N, *shape] that are written and read in slices; N grows as one writes.

    A slice is read into memory; NumPy's functions take the whole as a read-only array that stays on disk.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> None:
        self._row, self.dtype, self._count = shape, np.dtype(dtype), 0
        self._bytes = self.dtype.itemsize * int(np.prod(shape))
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, …]."""
        return (self._count, *self._row)

    def append(self, rows: npt.ArrayLike) -> None:
        """More rows at the end."""
        given = np.asarray(rows)
        self[self._count : self._count + len(given)] = given

    def __setitem__(self, at: slice, rows: npt.ArrayLike) -> None:
        """Writes consecutive rows anywhere, also past the end. Raises InputError if the disk is full."""
        given = np.ascontiguousarray(rows, self.dtype)
        if given.shape != (at.stop - at.start, *self._row):
            raise ValueError(f"{given.shape} for rows {at.start} to {at.stop} of {self._row}")
        try:
            self._file.seek(at.start * self._bytes)
            self._file.write(given.data.cast("B") if given.size else b"")
            self._file.flush()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise InputError(f"{folder}: no room for what a long recording needs; set TMPDIR ({error})") from error
        self._count = max(self._count, at.stop)

    def __getitem__(self, at: slice) -> Array:
        first, stop, step = at.indices(self._count)
        if step != 1:
            raise ValueError("rows are read one after another")
        found = np.empty((max(0, stop - first), *self._row), self.dtype)
        if found.size:
            self._file.seek(first * self._bytes)
            self._file.readinto(found.data.cast("B"))  # type: ignore[attr-defined]
        return found

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if not self._count or not self._bytes:
            return np.zeros(self.shape, dtype or self.dtype)
        mapped = np.memmap(self._file, self.dtype, "r", shape=self.shape)
        return mapped if dtype in (None, self.dtype) and not copy else np.array(mapped, dtype)


def on_disk(pieces: Iterable[Tree]) -> Tree:
    """The pieces, trees of arrays [n, …], one after another: the same tree of `Rows`. There must be one piece."""
    rows: Any = None
    for piece in pieces:
        if rows is None:
            rows = jax.tree.map(lambda leaf: Rows(leaf.shape[1:], leaf.dtype), piece)
        jax.tree.map(lambda kept, leaf: kept.append(leaf), rows, piece)
    if rows is None:
        raise ValueError("nothing to keep")
    found: Tree = rows
    return found
