"""Keras's HDF5 files: their tensors, and nothing of what a hostile one wishes; batch norms folded."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import shared
from zoo.errors import WeightsError
from zoo.weights.convert import OPTIMISER_SLOTS, Rule, apply_rules, fold_batch_norms
from zoo.weights.formats import read_weights

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 4)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A whole model as Keras 2 saves it."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = '{"class_name": "Lambda"}'
        file["model_weights/dense/dense/kernel:0"] = KERNEL
        file["model_weights/dense/dense/bias:0"] = np.arange(4, dtype=np.float64)
        file["optimizer_weights/Adam/iterations:0"] = np.int64(7)
        file["names"] = ["a", "b"]
    return path


def test_a_whole_model(saved: Path) -> None:
    found = read_weights(saved)
    assert set(found) == {"dense/dense/kernel", "dense/dense/bias", "optimizer_weights/Adam/iterations"}
    np.testing.assert_array_equal(found["dense/dense/kernel"], KERNEL)
    ours = apply_rules(found, [Rule(r"dense/dense/(\w+)", r"\1")], "x", OPTIMISER_SLOTS)
    assert set(ours) == {"kernel", "bias"}


def test_compressed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w:0", data=KERNEL, compression="gzip", shuffle=True)
    np.testing.assert_array_equal(read_weights(tmp_path / "a.h5")["w"], KERNEL)


def test_data_of_other_files_is_refused(saved: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("w", (8,), "f8", external=[(str(secret), 0, 64)])
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((3, 4), "f4")
        layout[:] = h5py.VirtualSource(str(saved), "model_weights/dense/dense/kernel:0", (3, 4))
        file.create_virtual_dataset("w", layout)
    for name in ("external.h5", "virtual.h5"):
        with pytest.raises(WeightsError, match="lies in another file"):
            read_weights(tmp_path / name)


def test_links_are_not_followed(saved: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["away"] = h5py.ExternalLink(str(saved), "/model_weights")
        file["soft"] = h5py.SoftLink("/nowhere")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_weights(tmp_path / "links.h5")


def test_a_small_file_that_claims_a_terabyte(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("w", (1 << 38,), "f4", chunks=(1 << 20,), compression="gzip")
    with pytest.raises(WeightsError, match="far more than its size allows"):
        read_weights(tmp_path / "bomb.h5")


def test_damage_is_one_line(saved: Path, tmp_path: Path) -> None:
    """Cut anywhere, or with a bit turned anywhere: an error of one line or the very names, and no crash."""
    whole = saved.read_bytes()
    broken = tmp_path / "broken.h5"
    for end in (8, 100, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:end])
        with pytest.raises(WeightsError, match=r"broken\.h5: damaged or no keras-h5") as caught:
            read_weights(broken)
        assert "\n" not in str(caught.value)
    for at in RNG.integers(8, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(RNG.integers(8))
        broken.write_bytes(flipped)
        try:
            assert all(isinstance(tensor, np.ndarray) for tensor in read_weights(broken, "keras-h5").values())
        except WeightsError as error:
            assert "\n" not in str(error)  # noqa: PT017  # most flips fall into the numbers and do no harm


@pytest.mark.parametrize(
    ("name", "tensors", "one", "shape"),
    [
        ("melody-lstm-essen-keras/model-erk.h5", 5, "lstm/lstm/lstm_cell/recurrent_kernel", (256, 1024)),
        ("melody-lstm-essen-keras/musikalkemist_model.h5", 5, "lstm/lstm/recurrent_kernel", (256, 1024)),
        ("choi-tagger-keras/music_tagger_cnn_weights_tensorflow.h5", 36, "output/output_W", (256, 50)),
        ("choi-tagger-keras/music_tagger_crnn_weights_tensorflow.h5", 48, "bn1/bn1_running_std_1", (64,)),
    ],
)
def test_published(name: str, tensors: int, one: str, shape: tuple[int, ...]) -> None:
    found = read_weights(shared.path(f"weights/{name}"))
    model = {key: tensor for key, tensor in found.items() if not key.startswith("optimizer_weights/")}
    assert len(model) == tensors
    assert next(tensor for key, tensor in model.items() if key.startswith(one)).shape == shape
    assert all(np.isfinite(tensor).all() for tensor in model.values())


@pytest.mark.parametrize(
    "names", [("gamma", "beta", "moving_mean", "moving_variance"), ("weight", "bias", "running_mean", "running_var")]
)
def test_batch_norms_are_folded(names: tuple[str, ...]) -> None:
    """Scale and shift do what a batch norm does once its statistics are fixed."""
    gamma, beta, mean, deviation = RNG.normal(size=(4, 5)).astype(np.float32)
    x, variance = RNG.normal(size=(7, 5)), deviation**2
    normal = (x - mean) / np.sqrt(variance + 1e-3)
    source = {f"bn/{name}": values for name, values in zip(names, (gamma, beta, mean, variance), strict=True)}
    bare = {name: source[name] for name in (f"bn/{names[2]}", f"bn/{names[3]}")}
    for tensors, expected in ((source, gamma * normal + beta), (bare, normal)):
        found = fold_batch_norms(tensors | {"kernel": KERNEL}, 1e-3, names)
        assert set(found) == {"kernel", "bn/scale", "bn/shift"}
        np.testing.assert_allclose(x * found["bn/scale"] + found["bn/shift"], expected, rtol=1e-5, atol=1e-5)
