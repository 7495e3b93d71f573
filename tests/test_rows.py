"""Rows on disk: what was written is read, in memory or not, and nothing stays behind."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.nn.rows import Rows, on_disk


def test_written_and_read() -> None:
    rows = Rows((2, 3))
    assert np.asarray(rows).shape == rows.shape == (0, 2, 3)
    numbers = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
    rows.append(numbers[:4])
    rows[6:10] = numbers[6:]  # beyond the end; what lies between is to come
    rows[4:6] = numbers[4:6]
    assert len(rows) == 10
    for cut in (slice(0, 10), slice(3, 7), slice(8, 99), slice(5, 5), slice(None, 2), slice(-3, None)):
        np.testing.assert_array_equal(rows[cut], numbers[cut])
    np.testing.assert_array_equal(np.asarray(rows), numbers)
    np.testing.assert_array_equal(rows - numbers, 0 * numbers)  # type: ignore[operator]
    assert np.asarray(rows, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="for rows 0 to 2"):
        rows[0:2] = numbers[:3]
    with pytest.raises(ValueError, match="one after another"):
        rows[::2]


def test_an_array_outlives_its_rows() -> None:
    rows = Rows((), np.int32)
    rows.append(np.arange(1000))
    array = np.asarray(rows)
    del rows
    gc.collect()
    np.testing.assert_array_equal(array, np.arange(1000))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray


def test_trees() -> None:
    found = on_disk(Pair(np.full((k, 2), k, np.float32), np.full(k, k, np.int16)) for k in range(4))
    assert np.asarray(found.a).tolist() == [[1, 1], [2, 2], [2, 2], [3, 3], [3, 3], [3, 3]]
    assert np.asarray(found.b).tolist() == [1, 2, 2, 3, 3, 3]
    with pytest.raises(ValueError, match="nothing to keep"):
        on_disk(iter(()))


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be seen while there are rows, so a process that is killed leaves none; and none stays open."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = Rows((4,))
    rows.append(np.ones((1000, 4)))
    assert list(tmp_path.iterdir()) == []
    if Path("/proc/self/fd").is_dir():
        before = len(os.listdir("/proc/self/fd"))
        del rows
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_full_disk_is_one_line() -> None:
    rows = Rows((4,))
    rows._file.close()
    rows._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    with rows._file, pytest.raises(InputError, match=r"no room .* set TMPDIR"):
        rows.append(np.ones((1000, 4)))
