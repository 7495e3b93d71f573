"""PyTorch's and ONNX's files: their tensors, and never a pickle's wishes."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import shared
from tests.weights_writers import field
from zoo.errors import WeightsError
from zoo.weights.formats import read_weights

STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "bool": "BoolStorage"}
RNG = np.random.default_rng(0)
TENSORS = {
    "conv.weight": RNG.normal(size=(3, 2, 5)).astype(np.float32),
    "conv.bias": RNG.normal(size=3).astype(np.float16),
    "bn.num_batches_tracked": np.array(7),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
}


class Tensor:
    """A stand-in that pickles as PyTorch's tensors do; its numbers go to the pickler's `storages`."""

    def __init__(self, array: np.ndarray, **view: Any) -> None:
        self.array, self.view = array, view

    def __reduce__(self) -> tuple[Any, ...]:
        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        view = {"offset": 0, "shape": self.array.shape, "strides": strides} | self.view
        storage = types.SimpleNamespace(array=self.array.ravel("K"))
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (storage, view["offset"], view["shape"], view["strides"], False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    """Keeps storages apart from the pickle."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 2)
        self.storages: list[np.ndarray] = []

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, types.SimpleNamespace):
            return None
        self.storages.append(obj.array)
        kind = getattr(sys.modules["torch"], STORAGES[str(obj.array.dtype)])
        return ("storage", kind, str(len(self.storages) - 1), "cpu", obj.array.size)


@pytest.fixture(autouse=True)
def _fake_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with the names that a pickle of PyTorch refers to; the reader must not look them up."""

    def trap(*_: object, **__: object) -> None:
        raise AssertionError("the pickle was executed")

    for module, names in {
        "torch": STORAGES.values(),
        "torch._utils": ["_rebuild_tensor_v2"],
        "model": ["Net", "launch"],
    }.items():
        fake = types.ModuleType(module)
        for name in names:
            made: Any = (
                type(name, (), {"__module__": module})
                if name[0].isupper()
                else types.FunctionType(trap.__code__, trap.__globals__, name)
            )
            if isinstance(made, types.FunctionType):
                made.__module__, made.__qualname__ = module, name
            setattr(fake, name, made)
        monkeypatch.setitem(sys.modules, module, fake)


def write_zip(path: Path, content: Any) -> Path:
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, storage in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{i}", storage.tobytes())
    return path


def write_legacy(path: Path, content: Any) -> Path:
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, file, 2)
    pickler = Pickler(file)
    pickler.dump(content)
    pickle.dump([str(i) for i in range(len(pickler.storages))], file, 2)
    for storage in pickler.storages:
        file.write(struct.pack("<q", storage.size) + storage.tobytes())
    path.write_bytes(file.getvalue())
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor, strict=True)


@WRITERS
def test_state_dicts(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    state = collections.OrderedDict((name, Tensor(array)) for name, array in TENSORS.items())
    assert_same(read_weights(write(tmp_path / "a.pth", state)), TENSORS)
    checkpoint = {"epoch": 3, "state_dict": state, "names": ["x", None]}
    found = read_weights(write(tmp_path / "b.pt", checkpoint))
    assert_same(found, {f"state_dict.{name}": array for name, array in TENSORS.items()})


@WRITERS
def test_views(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    views = {
        "transposed": Tensor(array.T),
        "middle": Tensor(array, offset=5, shape=(2, 2), strides=(4, 1)),
        "repeated": Tensor(array, offset=2, shape=(3, 2), strides=(0, 1)),
    }
    expected = {"transposed": array.T, "middle": array[1:, 1:3], "repeated": np.array([[2, 3]] * 3, np.float32)}
    assert_same(read_weights(write(tmp_path / "a.pth", views)), expected)


@WRITERS
@pytest.mark.parametrize(
    "view",
    [{"offset": 1}, {"shape": (13,), "strides": (1,)}, {"shape": (2, 2), "strides": (10**15, 1)}, {"offset": -1},
     {"shape": (4,), "strides": (-1,)}, {"shape": (2,), "strides": (1, 1)}],
)  # fmt: skip
def test_views_beyond_their_storage(tmp_path: Path, write: Callable[[Path, Any], Path], view: dict[str, Any]) -> None:
    path = write(tmp_path / "a.pth", {"w": Tensor(np.zeros(12, np.float32), **view)})
    with pytest.raises(WeightsError, match=r"a\.pth: damaged or no torch \(a tensor"):
        read_weights(path)


@WRITERS
def test_a_whole_module(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    def module(**parts: Any) -> Any:
        made = sys.modules["model"].Net()
        vars(made).update({"_parameters": {}, "_buffers": {}, "_modules": {}, "training": False} | parts)
        return made

    inner = module(_parameters={"weight": Tensor(TENSORS["conv.weight"]), "bias": None})
    norm = module(_buffers={"mean": Tensor(TENSORS["mask"])})
    path = write(tmp_path / "a.pth", module(_modules={"conv": inner, "bn": norm}))
    assert_same(read_weights(path), {"conv.weight": TENSORS["conv.weight"], "bn.mean": TENSORS["mask"]})


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@WRITERS
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), r"(posix|nt)\.system"),
        (eval, ("1",), r"builtins\.eval"),
        (getattr, ("", "join"), r"builtins\.getattr"),
        (open, ("{}", "w"), r"(_?io|builtins)\.open"),
    ],
)
def test_what_a_pickle_may_not_call(
    tmp_path: Path, write: Callable[[Path, Any], Path], function: Any, arguments: tuple[str, ...], name: str
) -> None:
    touched = tmp_path / "touched"
    call = Call(function, *(argument.format(touched) for argument in arguments))
    path = write(tmp_path / "a.pth", {"w": Tensor(np.ones(2, np.float32)), "x": call})
    with pytest.raises(WeightsError, match=rf"its pickle wants to call {name}, which is refused"):
        read_weights(path)
    assert not touched.exists()


@WRITERS
def test_an_unknown_function(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    path = write(tmp_path / "a.pth", {"x": Call(sys.modules["model"].launch)})
    with pytest.raises(WeightsError, match=r"wants to call model\.launch, which is refused"):
        read_weights(path)


@WRITERS
def test_objects_without_end(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    loop: list[Any] = []
    loop.append(loop)
    laughs: list[Any] = [1]
    for _ in range(40):
        laughs = [laughs, laughs]
    for content in (loop, laughs):
        with pytest.raises(WeightsError, match="without end"):
            read_weights(write(tmp_path / "a.pth", content))


@WRITERS
def test_damage(tmp_path: Path, write: Callable[[Path, Any], Path]) -> None:
    path = write(tmp_path / "a.pth", {name: Tensor(array) for name, array in TENSORS.items()})
    whole = path.read_bytes()
    for keep in range(2, len(whole), len(whole) // 29):
        path.write_bytes(whole[:keep])
        with pytest.raises(WeightsError, match=r"a\.pth: "):
            read_weights(path)
    for place in RNG.integers(0, len(whole), 150).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(RNG.integers(8))
        path.write_bytes(data)
        try:
            read_weights(path)
        except WeightsError as error:
            message = str(error)
            assert "\n" not in message


@pytest.mark.shared
def test_real_ones() -> None:
    coconet = read_weights(shared.path("weights/coconet-jsb-torch/model.pth"))
    assert coconet["layers.0.0.weight"].shape == (128, 8, 3, 3)
    assert len(coconet) == 142
    for path in shared.path("weights/chord-cnn-torch").glob("*.pth"):
        chords = read_weights(path)
        assert chords["Conv2d_1a_3x3.conv.weight"].shape == (32, 1, 3, 3)
        assert len(chords) == 38
        assert all(np.isfinite(tensor).all() for tensor in chords.values())


def test_onnx(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    dims = field(1, 2) + field(1, 3)
    initialisers = [
        dims + field(2, 1) + field(8, b"raw") + field(9, array.tobytes()),
        dims + field(2, 1) + field(4, array.tobytes()) + field(8, b"floats"),
        field(1, 2) + field(2, 7) + field(7, b"\x05" + b"\xff" * 9 + b"\x01") + field(8, b"ints"),
        field(2, 8) + field(8, b"text"),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(field(1, 8) + field(7, b"".join(field(5, tensor) for tensor in initialisers)))
    expected = {"raw": array, "floats": array, "ints": np.array([5, -1])}
    assert_same(read_weights(path), expected)
    whole = path.read_bytes()
    for keep in range(len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(WeightsError, match=r"m\.onnx"):
            read_weights(path)
