"""Foreign formats: equal to what their frameworks read, and one clear error for whatever damage."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import shared
from tests.weights_writers import mag_bytes, v1_bytes, write_raw_manifest, write_tfjs, write_v2
from zoo.errors import WeightsError
from zoo.weights.formats import crc32c, files, read_weights, safetensors, table

GOLDEN = Path(__file__).parent / "golden" / "tensorflow.zip"
RNG = np.random.default_rng(0)
TENSORS = {
    "decoder/multi_rnn_cell/cell_0/lstm_cell/kernel": RNG.normal(size=(6, 8)).astype(np.float32),
    "decoder/multi_rnn_cell/cell_0/lstm_cell/bias": RNG.normal(size=8).astype(np.float32),
    "encoder/mu/kernel": RNG.normal(size=(4, 3)).astype(np.float32),
    "encoder/mu/bias": np.zeros(3, np.float32),
}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        np.testing.assert_array_equal(found[name], tensor)


# ---- TensorFlow's own files (tests/golden/make_tensorflow.py) ----


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(folder)
    return folder


def expected(golden: Path, *without: str) -> dict[str, np.ndarray]:
    with np.load(golden / "expected.npz") as arrays:
        return {name.replace(".", "/"): arrays[name] for name in arrays.files if name not in without}


def test_v1_of_tensorflow(golden: Path) -> None:
    assert_same(read_weights(golden / "v1.ckpt"), expected(golden, "bfloat16"))


@pytest.mark.parametrize("name", ["v2.ckpt", "v2.ckpt.index"])
def test_v2_of_tensorflow(golden: Path, name: str) -> None:
    assert_same(read_weights(golden / name), expected(golden, "partitioned"))


def test_v2_of_tensorflow_in_two_shards(golden: Path) -> None:
    assert_same(read_weights(golden / "sharded.ckpt"), expected(golden, "partitioned", "bfloat16"))
    (golden / "copy").mkdir()
    for part in ("sharded.ckpt.index", "sharded.ckpt.data-00000-of-00002"):
        (golden / "copy" / part).write_bytes((golden / part).read_bytes())
    with pytest.raises(WeightsError, match="data-00001-of-00002 is missing; put it beside the others"):
        read_weights(golden / "copy")


def test_several_checkpoints_in_a_folder(golden: Path, tmp_path: Path) -> None:
    for part in (*golden.glob("v2.ckpt.*"), *golden.glob("sharded.ckpt.*")):
        (tmp_path / part.name).write_bytes(part.read_bytes())
    with pytest.raises(WeightsError, match=r"holds several models \(sharded.ckpt.index, v2.ckpt.index.*name one"):
        read_weights(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/someone/v2.ckpt"\n')
    assert_same(read_weights(tmp_path), expected(golden, "partitioned"))


# ---- real ones ----


@pytest.mark.shared
def test_real_v1() -> None:
    tensors = read_weights(shared.path("weights/magenta-note-rnn"))
    assert tensors["rnn_model/RNN/MultiRNNCell/Cell0/LSTMCell/W_0"].shape == (138, 400)
    assert tensors["rnn_model/global_step"] == 1994
    assert len(tensors) == 9
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.shared
def test_real_tfjs() -> None:
    genie = read_weights(shared.path("weights/magenta-piano-genie"))
    assert len(genie) == 16
    assert genie["phero_model/encoder/rnn_input/dense/kernel"].shape == (121, 128)
    for voice in ("violin", "flute", "trumpet", "tenor_saxophone"):
        ddsp = read_weights(shared.path(f"weights/magenta-ddsp/{voice}"))
        assert len(ddsp) == 363
        assert all(tensor.dtype in (np.float32, np.int32) for tensor in ddsp.values())


@pytest.mark.shared
def test_real_raw_manifest() -> None:
    folder = shared.path("weights/magenta-musicvae-mel-2bar-small")
    tensors = read_weights({path.name: path for path in folder.iterdir()})
    assert len(tensors) == 14  # of the 16 that the manifest lists
    assert tensors["decoder/multi_rnn_cell/cell_0/lstm_cell/kernel"].shape == (602, 1024)
    assert 0.01 < tensors["decoder/output_projection/kernel"].std() < 10
    with pytest.raises(WeightsError, match="lstm_cell_kernel is missing; put it beside the others"):
        read_weights(folder)


# ---- layouts ----


def write_ours(folder: Path, kind: str) -> Path:
    """`TENSORS` in a format, alone in a folder."""
    folder.mkdir()
    if kind == "safetensors":
        safetensors.write(folder / "w.safetensors", TENSORS, {})
    elif kind == "raw-manifest":
        write_raw_manifest(folder, TENSORS)
    elif kind == "tfjs":
        write_tfjs(folder, TENSORS, shard=100)
    elif kind == "tf-v1":
        (folder / "model.ckpt-7").write_bytes(v1_bytes(TENSORS))
    elif kind == "tf-v2":
        write_v2(folder / "model.ckpt-7", TENSORS)
    else:
        (folder / "rnn.mag").write_bytes(mag_bytes(TENSORS))
    return folder


KINDS = ("safetensors", "raw-manifest", "tfjs", "tf-v1", "tf-v2", "mag")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("container", ["folder", "tar", "tar.gz", "zip", "mapping"])
def test_every_format_in_every_container(tmp_path: Path, kind: str, container: str) -> None:
    folder = write_ours(tmp_path / "weights", kind)
    if container == "folder":
        where: Path | dict[str, Path] = folder
    elif container == "mapping":  # as the cache has them: content-addressed, names apart
        where = {}
        for i, path in enumerate(folder.iterdir()):
            where[path.name] = path.rename(tmp_path / f"{i:064x}")
    elif container == "zip":
        where = tmp_path / "w.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for path in folder.iterdir():
                archive.write(path, f"deep/{path.name}")
    else:
        where = tmp_path / f"w.{container}"
        with tarfile.open(where, "w:gz" if container == "tar.gz" else "w") as tar:
            tar.add(folder, "deep")
    assert_same(read_weights(where), TENSORS)


def test_our_v2_writer_is_tensorflows_layout(golden: Path, tmp_path: Path) -> None:
    entries = expected(golden, "partitioned", "bfloat16")
    write_v2(tmp_path / "x", entries)
    assert_same(read_weights(tmp_path), read_weights(golden / "sharded.ckpt"))


@pytest.mark.parametrize(("quantised", "tolerance"), [("uint8", 6 / 255), ("uint16", 6 / 65535), ("float16", 2e-3)])
def test_quantised_tfjs(tmp_path: Path, quantised: str, tolerance: float) -> None:
    write_tfjs(tmp_path, TENSORS, quantised)
    found = read_weights(tmp_path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], tensor, atol=tolerance)
    assert np.ptp(found["encoder/mu/kernel"]) > 1


def test_tfjs_dtypes(tmp_path: Path) -> None:
    weights = [
        {"name": "flag", "shape": [2], "dtype": "bool"},
        {"name": "words", "shape": [2], "dtype": "string"},
        {"name": "count", "shape": [], "dtype": "int32"},
        {"name": "q", "shape": [2], "dtype": "int32", "quantization": {"dtype": "uint8", "scale": 2.0, "min": -3.0}},
    ]
    data = b"\1\0" + b"\3\0\0\0abc" + b"\0\0\0\0" + b"\xfe\xff\xff\xff" + b"\0\2"
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": [{"paths": ["a.bin"], "weights": weights}]}))
    found = read_weights(tmp_path / "model.json")
    expected = {"flag": np.array([True, False]), "count": np.array(-2, np.int32), "q": np.array([-3, 1], np.int32)}
    assert_same(found, expected)


@pytest.mark.parametrize("size", [0, 1, 9, 65_535, 65_536, 70_001, 200_003])
def test_crc32c(size: int) -> None:
    assert crc32c.crc32c(b"123456789") == 0xE3069283  # the check value of the CRC catalogue
    data = RNG.bytes(size)
    slow = 0xFFFFFFFF
    for byte in data:
        slow = crc32c._WORDS[(slow ^ byte) & 0xFF] ^ (slow >> 8)
    assert crc32c.crc32c(data) == slow ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x03\x08abc", b"abc"),
        (b"\x0a\x00a\x15\x01", b"a" * 10),
        (b"\x08\x04ab\x12\x02\x00\x00c", b"abababac"),
        (b"\x46\xf0\x41" + b"x" * 66 + b"\x0e\x42\x00", b"x" * 66 + b"x" * 4),
        (b"\x05\x00a\x05\x05", None),
        (b"\x09\x08abc", None),
    ],
)
def test_snappy(packed: bytes, plain: bytes | None) -> None:
    if plain is None:
        with pytest.raises((ValueError, IndexError)):
            table.snappy(memoryview(packed))
    else:
        assert bytes(table.snappy(memoryview(packed))) == plain


# ---- damage ----


def attempt(where: Path) -> str | None:
    """The error's text, checked to be one line; None if something was read."""
    try:
        tensors = read_weights(where)
    except WeightsError as error:
        text = str(error)
        assert "\n" not in text
        assert str(where) in text
        return text
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(tmp_path: Path, kind: str) -> None:
    folder = write_ours(tmp_path / "w", kind)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for keep in sorted({0, 1, 7, *range(0, len(whole), max(1, len(whole) // 23)), len(whole) - 1}):
            path.write_bytes(whole[:keep])
            assert attempt(folder), f"{path.name} cut to {keep} bytes was read"
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits(tmp_path: Path, kind: str) -> None:
    folder = write_ours(tmp_path / "w", kind)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in RNG.integers(0, len(whole), 40).tolist():
            data = bytearray(whole)
            data[place] ^= 1 << int(RNG.integers(8))
            path.write_bytes(data)
            error = attempt(folder)
            if kind == "tf-v2" and path.suffix != ".index":
                assert error
                assert "checksum" in error
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_random_bytes(tmp_path: Path, kind: str) -> None:
    folder = write_ours(tmp_path / "w", kind)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(RNG.bytes(500))
        assert attempt(folder)
        path.write_bytes(whole)


def test_swapped_files(tmp_path: Path) -> None:
    write_raw_manifest(tmp_path, TENSORS)
    kernel, bias = tmp_path / "encoder_mu_kernel", tmp_path / "encoder_mu_bias"
    kernel.write_bytes(bias.read_bytes())
    assert "encoder_mu_kernel has 12 bytes instead of 48" in (attempt(tmp_path) or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m[0]["weights"][0].update(shape=[10**12, 10**12]), "the shards of"),
        (lambda m: m[0]["weights"][0].update(shape=[-6, -8]), ""),
        (lambda m: m[0]["weights"][0].update(dtype="object"), "unknown dtype 'object'"),
        (lambda m: m[0]["weights"].pop(), "the manifest"),
        (lambda m: m[0].update(paths=["../../etc/passwd"]), "is missing"),
        (lambda m: m[0].update(paths=["/etc/passwd"]), "is missing"),
        (lambda m: m.clear(), "holds no tensors"),
        (lambda m: m.append(7), "damaged or no tfjs"),
    ],
)
def test_manifests_that_lie(tmp_path: Path, change: Callable[[list], object], message: str) -> None:
    write_tfjs(tmp_path, TENSORS)
    path = tmp_path / "weights_manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    error = attempt(tmp_path)
    assert message in (error or "")
    assert error or message == ""


def test_what_is_no_weights(tmp_path: Path) -> None:
    assert "no such file or folder; check the path" in (attempt(tmp_path / "nothing") or "")
    assert "format can't be told; name it" in (attempt(tmp_path) or "")
    (tmp_path / "x.bin").write_bytes(b"hello")
    assert "format can't be told; name it: one of safetensors" in (attempt(tmp_path / "x.bin") or "")
    with pytest.raises(WeightsError, match="unknown format 'numpy'; choose one of"):
        read_weights(tmp_path / "x.bin", "numpy")


# ---- hostile archives ----


def tar_with(path: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    member.size = len(data)
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("good.bin")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"good"))
        tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:/evil", "a\\..\\evil"])
def test_members_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    tar = tar_with(tmp_path / "in" / "x.tar", tarfile.TarInfo(name), b"evil")
    with zipfile.ZipFile(tmp_path / "in" / "x.zip", "w") as archive:
        archive.writestr(name, b"evil")
    before = sorted(tmp_path.rglob("*"))
    for path in (tar, tmp_path / "in" / "x.zip"):
        assert "would be written outside its folder; don't trust it" in (attempt(path) or "")
        scratch = tmp_path / "in"
        with pytest.raises(WeightsError):
            files.unpack(path, scratch / "deep")
    left = [path for path in sorted(tmp_path.rglob("*")) if path not in before]
    assert {path.relative_to(tmp_path).as_posix() for path in left} <= {"in/deep", "in/deep/good.bin"}
    assert not Path("/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("weights.bin")
    member.type, member.linkname = kind, "/etc/passwd"
    assert "is a link or device; don't trust it" in (attempt(tar_with(tmp_path / "x.tar", member)) or "")


def test_links_in_zips(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("weights.bin")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "is a link or device; don't trust it" in (attempt(tmp_path / "x.zip") or "")


def test_a_file_twice(tmp_path: Path) -> None:
    assert "holds a file twice" in (attempt(tar_with(tmp_path / "x.tar", tarfile.TarInfo("good.bin"), b"evil")) or "")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    zeros = bytes(8_000_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", zeros)
    else:
        member = tarfile.TarInfo("zeros")
        member.size = len(zeros)
        with tarfile.open(path, f"w:{kind.removeprefix('tar.')}") as tar:
            tar.addfile(member, io.BytesIO(zeros))
    assert "unpacks to far more than weights could; don't trust it" in (attempt(path) or "")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MEMBERS", 1)
    assert "more than 1 files" in (attempt(tar_with(tmp_path / "x.tar", tarfile.TarInfo("b"))) or "")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damaged_archives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    folder = write_ours(tmp_path / "w", "tf-v1")
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "model.ckpt-7", "model.ckpt-7")
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(folder / "model.ckpt-7", "model.ckpt-7")
    whole = path.read_bytes()
    used = len(whole) if kind != "tar" else 512 + os.path.getsize(folder / "model.ckpt-7")
    for keep in range(1, used, used // 23):
        path.write_bytes(whole[:keep])
        assert attempt(path), f"cut to {keep} bytes was read"
    for place in RNG.integers(0, len(whole), 40).tolist():
        data = bytearray(whole)
        data[place] ^= 0x55
        path.write_bytes(data)
        attempt(path)
