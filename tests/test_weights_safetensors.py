"""Our own files: bit-exact, small, self-describing, and honest about damage."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from zoo.errors import WeightsError
from zoo.weights.formats import safetensors

RNG = np.random.default_rng(0)
TENSORS = {
    "b.kernel": RNG.normal(size=(3, 5)).astype(np.float32),
    "a.bias": np.array([np.nan, np.inf, -0.0, 1e-40], np.float32),
    "step": np.array(7, np.int32),
    "transposed": RNG.normal(size=(4, 2)).astype(np.float32).T,
    "empty": np.zeros((0, 3), np.float32),
}
METADATA = {"id": "music-vae/tiny", "config": {"layers": [2, 3], "beta": 0.2, "name": None}}


def test_bit_exact_and_always_the_same_bytes(tmp_path: Path) -> None:
    safetensors.write(tmp_path / "a.safetensors", TENSORS, METADATA)
    tensors, metadata = safetensors.load(tmp_path / "a.safetensors")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert tensors[name].tobytes() == tensor.tobytes()
    safetensors.write(tmp_path / "b.safetensors", dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_half_precision_storage(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    tensors = {**TENSORS, "large": np.array([1e5], np.float32), "native": np.array([1.5], np.float16)}
    safetensors.write(path, tensors, METADATA, half=True)
    found, metadata = safetensors.load(path)
    assert metadata == METADATA
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        rounded = name in ("b.kernel", "transposed")
        np.testing.assert_array_equal(found[name], tensor.astype(np.float16) if rounded else tensor)
    again = tmp_path / "again.safetensors"
    safetensors.write(again, found, metadata, half=True)
    assert again.read_bytes() == path.read_bytes()


def test_files_by_others(tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file({"w": np.ones(3, np.float16)}, path, {"format": "pt"})

    tensors, metadata = safetensors.load(path)
    assert metadata == {"format": "pt"}
    assert tensors["w"].dtype == np.float16


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.write(path, TENSORS, METADATA)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        WeightsError, match=r"w\.safetensors: not a whole safetensors file \(.*fetch or export it again"
    ):
        safetensors.load(path)


def test_other_damage(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.write(path, TENSORS, METADATA)
    for place in range(8, 200, 3):
        data = bytearray(path.read_bytes())
        data[place] ^= 0x11
        (tmp_path / "bad").write_bytes(data)
        with contextlib.suppress(WeightsError):  # a flipped bit in a value can't be seen here, only by its sha256
            safetensors.load(tmp_path / "bad")
    with pytest.raises(WeightsError, match="check the path"):
        safetensors.load(tmp_path / "none")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.write(path, TENSORS, METADATA)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match=r"the disk is full; free some space or write elsewhere"):
        safetensors.write(path, {}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
