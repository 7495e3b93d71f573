"""Conversion is strict both ways; MusicVAE's names; and the whole way from a card to weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests import shared
from tests.test_cards import CARD, card_file
from tests.weights_writers import write_raw_manifest, write_tfjs, write_v2
from zoo import weights
from zoo.errors import WeightsError
from zoo.weights.cards import load_card
from zoo.weights.convert import Rule, apply_rules, check_fit, convert
from zoo.weights.formats import read_weights, safetensors

RULES = [Rule(r"layer_(\d)/(w|b)", r"layers.\1.\2"), Rule(r"head/w", "head.kernel", np.transpose)]
SOURCE = {"layer_0/w": np.ones((2, 3)), "layer_0/b": np.zeros(3), "head/w": np.arange(6.0).reshape(2, 3)}


def test_rules() -> None:
    slots = ("layer_0/w/Adam", "layer_0/w/Adam_1", "head/w/Adagrad", "global_step", "model/beta1_power", "beta2_power")
    found = apply_rules(SOURCE | {name: np.zeros(1) for name in slots}, RULES, "x.ckpt")
    assert set(found) == {"layers.0.w", "layers.0.b", "head.kernel"}
    np.testing.assert_array_equal(found["head.kernel"], SOURCE["head/w"].T)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("layer_0/ww", "x.ckpt: no place for layer_0/ww (nearest: layer_0/w)"),
        ("prefix/layer_0/w", "no place for prefix/layer_0/w"),
        ("Adam", "no place for Adam"),
    ],
)
def test_an_unused_tensor(extra: str, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        apply_rules(SOURCE | {extra: np.zeros(1)}, RULES, "x.ckpt")
    assert message in str(caught.value)


def test_two_that_become_one() -> None:
    rules = [*RULES, Rule("old/w", "layers.0.w")]
    with pytest.raises(WeightsError, match=r"layer_0/w and old/w both become layers\.0\.w"):
        apply_rules(SOURCE | {"old/w": np.zeros(1)}, rules, "x.ckpt")


def test_fit() -> None:
    shapes = {"a.kernel": (2, 3), "a.bias": (3,)}
    good = {name: np.zeros(shape) for name, shape in shapes.items()}
    check_fit(good, shapes, "x")
    bad = {"a.kernel": np.zeros((3, 2)), "a.bais": np.zeros(3)}
    with pytest.raises(WeightsError) as caught:
        check_fit(bad, shapes, "x")
    text = str(caught.value)
    assert "x: gives nothing for a.bias (nearest: a.bais)" in text
    assert "has no place for a.bais (nearest: a.bias)" in text
    assert "has a.kernel of shape (3, 2) where the model needs (2, 3)" in text
    many = {f"{i}.kernel": (1,) for i in range(9)}
    with pytest.raises(WeightsError, match=r"0\.kernel, 1\.kernel, 2\.kernel, 6 more; use"):
        check_fit({}, many, "x")


def test_no_such_converter() -> None:
    for name in ("nothing", "../../os", "zoo.errors", ""):
        with pytest.raises(WeightsError, match="there is no converter"):
            convert({}, name, "x")


# ---- MusicVAE ----


def magenta(hierarchical: bool, tracks: int = 1, layers: int = 2) -> dict[str, np.ndarray]:
    """A tiny MusicVAE under Magenta's names; 5 inputs, 4 units, 3 latent numbers."""
    lstm, width, units, latent = "lstm_cell", 5, 4, 3
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}/kernel"], shapes[f"{name}/bias"] = (inputs, outputs), (outputs,)

    for layer in range(layers):
        for way in ("fw", "bw"):
            inputs = width if layer == 0 else 2 * units
            name = f"encoder/cell_{layer}/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/{lstm}"
            dense(name, inputs + units, 4 * units)
    for head in ("mu", "sigma"):
        dense(f"encoder/{head}", 2 * units, latent)
    prefixes = ["decoder"]
    if hierarchical:
        dense("decoder/hierarchical_level_0/initial_state", latent, 2 * units * layers)
        for layer in range(layers):
            dense(f"decoder/hierarchical_level_0/cell_{layer}/{lstm}", (units if layer else 1) + units, 4 * units)
        prefixes = [f"core_decoder/core_decoder_{k}/decoder" for k in range(tracks)]
        prefixes = prefixes if tracks > 1 else ["core_decoder/decoder"]
    for prefix in prefixes:
        dense(f"{prefix}/z_to_initial_state", units if hierarchical else latent, 2 * units * layers)
        for layer in range(layers):
            inputs = units if layer else width + (units if hierarchical else latent)
            dense(f"{prefix}/multi_rnn_cell/cell_{layer}/{lstm}", inputs + units, 4 * units)
        dense(f"{prefix}/output_projection", units, width)
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def ours(conductor: bool, tracks: int = 1, layers: int = 2) -> set[str]:
    """Our names of the same."""
    parts = [f"encoder.{way}.{layer}" for way in ("forward", "backward") for layer in range(layers)]
    parts += ["encoder.mu", "encoder.sigma"]
    stacks = ["conductor"] * conductor + [f"decoders.{k}" for k in range(tracks)]
    parts += [f"{stack}.initial" for stack in stacks]
    parts += [f"{stack}.cells.{layer}" for stack in stacks for layer in range(layers)]
    parts += [f"decoders.{k}.output" for k in range(tracks)]
    return {f"{part}.{leaf}" for part in parts for leaf in ("kernel", "bias")}


@pytest.mark.parametrize(("hierarchical", "tracks"), [(False, 1), (True, 1), (True, 3)])
def test_music_vae(hierarchical: bool, tracks: int) -> None:
    source = magenta(hierarchical, tracks)
    slots = {f"{name}/Adam": tensor for name, tensor in source.items()}
    found = convert(source | slots | {"global_step": np.array(1)}, "music-vae", "x")
    assert set(found) == ours(hierarchical, tracks)
    fw = "encoder/cell_1/bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell/kernel"
    assert found["encoder.forward.1.kernel"] is source[fw]
    if tracks == 3:
        name = "core_decoder/core_decoder_2/decoder/output_projection/kernel"
        assert found["decoders.2.output.kernel"] is source[name]
    if hierarchical:
        name = "decoder/hierarchical_level_0/cell_1/lstm_cell/bias"
        assert found["conductor.cells.1.bias"] is source[name]
    elif not hierarchical:
        assert found["decoders.0.initial.kernel"] is source["decoder/z_to_initial_state/kernel"]


@pytest.mark.parametrize("name", ["encoder/hierarchical_level_1/cell_0/x", "decoder/nade/w_enc", "decoder/mu/kernel"])
def test_music_vae_of_another_kind(name: str) -> None:
    with pytest.raises(WeightsError, match=f"no place for {name}"):
        convert(magenta(False) | {name: np.zeros(1)}, "music-vae", "x")


@pytest.mark.shared
def test_music_vae_as_published() -> None:
    folder = shared.path("weights/magenta-musicvae-mel-2bar-small")
    found = convert(read_weights({path.name: path for path in folder.iterdir()}), "music-vae", "x")
    assert set(found) == ours(False) - {
        f"encoder.{way}.{layer}" for way in ("forward.0", "backward.0") for layer in ("kernel",)
    } - {f"encoder.{way}.1.{leaf}" for way in ("forward", "backward") for leaf in ("kernel", "bias")}
    assert found["decoders.0.cells.0.kernel"].shape == (90 + 256 + 256, 4 * 256)
    assert found["encoder.mu.kernel"].shape == (1024, 256)


# ---- from a card to weights ----


def card_of(tmp_path: Path, folder: Path, head: str, **keys: str) -> Path:
    """A card whose sources are the files of a folder, at an address that only the mirror serves."""
    sources = ""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        sources += f'[[sources]]\nkind = "url"\nurl = "https://example.org/{path.name}"\nbytes = {len(data)}\n'
        sources += f'sha256 = "{hashlib.sha256(data).hexdigest()}"\nmirror = "tiny/{path.name}"\n'
        sources += "".join(f'{key} = "{value}"\n' for key, value in keys.items())
    begin, rest = CARD.split("[[sources]]")
    return card_file(tmp_path, head + begin + sources + "[[metrics]]" + rest.split("[[metrics]]")[1])


@pytest.mark.parametrize("format", ["raw-manifest", "tfjs", "tf-checkpoint"])
def test_load_a_foreign_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    source = magenta(True, 3)
    folder = tmp_path / "mirror" / "tiny"
    if format == "raw-manifest":
        write_raw_manifest(folder, source)
    elif format == "tfjs":
        write_tfjs(folder, source, shard=1000)
    else:
        write_v2(folder / "model.ckpt", source)
    monkeypatch.setenv("ZOO_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    card = load_card(card_of(tmp_path / "cards", folder, f'format = "{format}"\nconverter = "music-vae"\n'))
    found = weights.load(card)
    assert set(found) == ours(True, 3)
    shapes = {name: tensor.shape for name, tensor in found.items()}
    weights.load(card, shapes)
    with pytest.raises(WeightsError, match=r"music-vae/tiny: gives nothing for new"):
        weights.load(card, shapes | {"new": (1,)})
    assert not (tmp_path / "cache").exists()
    safetensors.write(tmp_path / "x.safetensors", found, {"id": card.id})
    again, metadata = safetensors.load(tmp_path / "x.safetensors")
    assert metadata == {"id": card.id}
    assert all(again[name].tobytes() == tensor.tobytes() for name, tensor in found.items())


def test_weights_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A published decoder with an encoder of ours: two formats in one card."""
    source = magenta(False)
    folder = tmp_path / "mirror" / "tiny"
    write_raw_manifest(folder, source)
    for kernel in folder.glob("encoder_cell*"):
        kernel.unlink()
    monkeypatch.setenv("ZOO_MIRROR", str(tmp_path / "mirror"))
    head = 'format = "safetensors"\nconverter = "music-vae"\n'
    path = card_of(tmp_path / "cards", folder, head, format="raw-manifest")
    encoder = {n: t for n, t in convert(source, "music-vae", "x").items() if "ward" in n}
    name = path.parent / "encoder.safetensors"
    safetensors.write(name, encoder, {})
    sha256 = hashlib.sha256(name.read_bytes()).hexdigest()
    bundled = f'[[sources]]\nkind = "bundled"\nfile = "encoder.safetensors"\nsha256 = "{sha256}"\n'
    path.write_text(path.read_text().replace("[[metrics]]", bundled + "[[metrics]]"))
    assert set(weights.load(load_card(path))) == ours(False)
    safetensors.write(name, encoder | {"encoder.mu.bias": np.zeros(3)}, {})
    sha256, old = hashlib.sha256(name.read_bytes()).hexdigest(), sha256
    path.write_text(path.read_text().replace(old, sha256))
    with pytest.raises(WeightsError, match=r"two sources give encoder\.mu\.bias"):
        weights.load(load_card(path))
