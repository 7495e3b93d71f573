"""Cards of Magenta's published checkpoints: their facts, and how the small twins of their files load.

Nothing is fetched. A twin is laid out as the real file is (names of files and variables, optimiser's state, shards) and
holds a few thousand random numbers; the card that loads it is the real one with that few units.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import shared
from tests.weights_writers import write_tfjs, write_v2
from zoo.errors import WeightsError
from zoo.models.music_vae import ARCHITECTURE, PUBLISHED, Config
from zoo.tasks.latent import Latent
from zoo.tasks.model import dotted, fill, find
from zoo.weights.cards import Card, load_card

# Each card, and the configuration of Magenta's that it is of.
CARDS = {
    "music-vae/mel-2bar-big-magenta": "cat-mel_2bar_big",
    "music-vae/mel-16bar-magenta": "hierdec-mel_16bar",
    "music-vae/flat-mel-16bar-magenta": "flat-mel_16bar",
    "music-vae/trio-16bar-magenta": "hierdec-trio_16bar",
    "music-vae/drums-2bar-lokl-magenta": "cat-drums_2bar_small",
    "music-vae/drums-2bar-hikl-magenta": "cat-drums_2bar_small",
    "music-vae/mel-2bar-magenta-js": "cat-mel_2bar_small",
    "music-vae/drums-2bar-lokl-magenta-js": "cat-drums_2bar_small",
    "music-vae/drums-2bar-hikl-magenta-js": "cat-drums_2bar_small",
    "groovae/2bar-humanize-magenta": "groovae_2bar_humanize",
    "groovae/4bar-magenta": "groovae_4bar",
    "groovae/2bar-humanize-magenta-js": "groovae_2bar_humanize",
    "groovae/4bar-magenta-js": "groovae_4bar",
}
JS = [name for name in CARDS if name.endswith("-js")]
KINDS = ["music-vae/mel-2bar-magenta-js", "music-vae/trio-16bar-magenta", "groovae/2bar-humanize-magenta"]
SHAPE = ("steps", "head", "classes", "encoder_view", "latent", "encoder", "decoder", "segments")

# The checkpoint in its tar, as those who unpacked them tell: in a folder, at the top, under its step's number.
IN_TAR = {
    "cat-mel_2bar_big": "cat-mel_2bar_big/cat-mel_2bar_big.ckpt",
    "hierdec-mel_16bar": "hierdec-mel_16bar.ckpt",
    "hierdec-trio_16bar": "hierdec-trio_16bar.ckpt",
    "cat-drums_2bar_small": "cat-drums_2bar_small.ckpt",
    "groovae_2bar_humanize": "model.ckpt-3061",
    "groovae_4bar": "model.ckpt-2721",
}


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, an empty cache, and little time spent on compiling."""
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ZOO_MIRROR", raising=False)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# ---- the facts ----


def test_no_card_is_left_out() -> None:
    ours = [name for name in zoo.list_models("*-magenta*") if not zoo.info(name).verified]
    assert set(ours) == set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_facts(name: str) -> None:
    card = zoo.info(name)
    found = find(card.folder)
    published = PUBLISHED[CARDS[name]]
    assert [getattr(found.config, key) for key in SHAPE] == [getattr(published, key) for key in SHAPE]
    assert card.parameters == sum(int(np.prod(shape)) for shape in shapes(found.config).values())
    assert (found.codec.name, found.codec.steps) == (expected_codec(published), published.steps)
    assert (getattr(found.codec, "given", "all") == "hits") == (published.encoder_view == "hits")
    assert not card.default
    assert card.converter == "music-vae"
    assert card.licences.weights is not None
    assert "none stated apart" in card.licences.weights.name
    assert card.limits.startswith("Not verified here")
    assert all(source.url.startswith("https://storage.googleapis.com/") for source in card.sources)
    assert all(metric.by in ("paper", "authors") for metric in card.metrics)


def expected_codec(config: Config) -> str:
    if config.head == "groove":
        return "groove"
    return {(90,): "melody", (512,): "drums", (90, 90, 512): "trio"}[config.classes]


@pytest.mark.parametrize("name", JS)
def test_shards(name: str) -> None:
    """magenta.js cuts weights into shards of 4 MiB of float32, the last of them shorter."""
    card = zoo.info(name)
    shards = -(-4 * card.parameters // (4 << 20))
    files = ["weights_manifest.json", *(f"group1-shard{i + 1}of{shards}" for i in range(shards))]
    assert [source.name for source in card.sources] == files
    assert len({source.mirror.removesuffix(source.name) for source in card.sources}) == 1


@pytest.mark.parametrize("name", CARDS)
def test_offline(name: str) -> None:
    """What is missing, where it is to be had, and what to do with it."""
    first = zoo.info(name).sources[0]
    with pytest.raises(WeightsError) as caught:
        zoo.load(name)
    text = str(caught.value)
    assert text.startswith(f"{name}: {first.name} is not on this machine and ZOO_OFFLINE=1 forbids fetching it")
    assert f"get it from {first.url} and set ZOO_MIRROR to the folder that holds it as" in text
    assert text.endswith(first.mirror or first.name)
    assert "\n" not in text


@pytest.mark.shared
def test_names_are_those_of_a_real_checkpoint() -> None:
    """mel_2bar_small's own manifest, which lists the variables that the copy at hand lacks too."""
    manifest = json.loads(shared.path("weights/magenta-musicvae-mel-2bar-small/manifest.json").read_text())
    config = PUBLISHED["cat-mel_2bar_small"]
    ours = {theirs(name, config): list(shape) for name, shape in shapes(config).items()}
    assert ours == {name: entry["shape"] for name, entry in manifest.items()}


# ---- small twins of the files ----


@pytest.mark.parametrize("name", CARDS)
def test_every_file_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """All parameters, bit for bit."""
    card, weights = twin(tmp_path, monkeypatch, name)
    model = zoo.load(card.folder)
    assert parameters(model).keys() == weights.keys()
    assert all(np.array_equal(value, weights[key]) for key, value in parameters(model).items())
    assert model.parameters == sum(tensor.size for tensor in weights.values())


@pytest.mark.parametrize("name", KINDS)
def test_it_encodes_and_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As a model that was given the same parameters without any file."""
    card, weights = twin(tmp_path, monkeypatch, name)
    found = find(card.folder)
    direct = Latent(fill(ARCHITECTURE.module, found.config, weights, name), found)
    loaded = zoo.load(card.folder)
    windows = ARCHITECTURE.example(found.config, 2, np.random.default_rng(0))["x"]
    for one, other in zip(loaded.posterior(windows), direct.posterior(windows), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.ptp(loaded.posterior(windows)[0]) > 0
    z = np.random.default_rng(1).normal(size=(2, found.config.latent))
    decoded = loaded.decode_windows(z, key=0, temperature=1.0)
    np.testing.assert_array_equal(decoded, direct.decode_windows(z, key=0, temperature=1.0))
    assert decoded.shape == windows.shape
    assert len(np.unique(decoded)) > 2


@pytest.mark.parametrize("quantised", ["uint16", "uint8", "float16"])
def test_quantised_for_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantised: str) -> None:
    """Magenta's checkpoints "_q2" and "_q1" are stored so: 2 bytes or 1 byte a number."""
    card, weights = twin(tmp_path, monkeypatch, "music-vae/mel-2bar-magenta-js", quantised)
    found = parameters(zoo.load(card.folder))
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[key], stored(weights[key], quantised)) for key in weights)


def twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, quantised: str | None = None
) -> tuple[Card, dict[str, np.ndarray]]:
    """A small copy of a card, whose files lie in a mirror, and the parameters that they hold."""
    path = tmp_path / "cards" / name / "card.toml"
    path.parent.mkdir(parents=True)
    text = (zoo.info(name).folder / "card.toml").read_text()
    for key in ("latent", "encoder", "decoder"):
        text = re.sub(rf"^{key} = .*$", lambda line: re.sub(r"\d+", "8", line[0]), text, flags=re.MULTILINE)
    path.write_text(text)
    card = load_card(path)
    config = find(path.parent).config
    rng = np.random.default_rng(0)
    weights = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes(config).items()}
    published = {theirs(key, config): tensor for key, tensor in weights.items()}
    mirror = tmp_path / "mirror"
    if card.format == "tfjs":
        assert all(source.mirror for source in card.sources)
        folder = (mirror / card.sources[0].mirror).parent
        bytes_each = {None: 4, "uint16": 2, "float16": 2, "uint8": 1}[quantised]
        total = bytes_each * sum(tensor.size for tensor in published.values())
        write_tfjs(folder, published, quantised, shard=-(-total // (len(card.sources) - 1)))
        (folder / "config.json").write_text(json.dumps({"type": "MusicVAE", "dataConverter": {"args": {}}}))
        assert {path.name for path in folder.iterdir()} == {s.name for s in card.sources} | {"config.json"}
    elif len(card.sources) > 1:
        write_v2(mirror / card.sources[0].name.removesuffix(".index"), with_optimiser(published))
    else:
        write_tar(mirror / card.sources[0].name, IN_TAR[CARDS[name]], with_optimiser(published))
    monkeypatch.setenv("ZOO_MIRROR", str(mirror))
    return card, weights


def write_tar(path: Path, prefix: str, tensors: Mapping[str, np.ndarray]) -> None:
    """A checkpoint and the graph beside it, bundled as Magenta bundles them."""
    unpacked = path.with_suffix(".unpacked")
    write_v2(unpacked / prefix, tensors)
    (unpacked / f"{prefix}.meta").write_bytes(b"a graph")
    with tarfile.open(path, "w") as tar:
        for file in sorted(unpacked.rglob("*")):
            tar.add(file, file.relative_to(unpacked), recursive=False)


def with_optimiser(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables and what `tf.train.AdamOptimizer` keeps beside them."""
    slots = {f"{name}/{slot}": np.zeros_like(tensor) for name, tensor in tensors.items() for slot in ("Adam", "Adam_1")}
    powers = {f"beta{i}_power": np.array(0.5, np.float32) for i in (1, 2)}
    return {**tensors, **slots, **powers, "global_step": np.array(25_000, np.int64)}


def stored(tensor: np.ndarray, quantised: str) -> np.ndarray:
    """What is left of a tensor that was stored in fewer bits."""
    if quantised == "float16":
        return tensor.astype(np.float16).astype(np.float32)
    low, high = float(tensor.min()), float(tensor.max())
    scale = (high - low) / np.iinfo(quantised).max
    steps = np.round((tensor.astype(np.float64) - low) / scale).astype(np.float32)
    return steps * np.float32(scale) + np.float32(low)


def theirs(name: str, config: Config) -> str:
    """Our name of a parameter → the name of Magenta's variable (the scopes of lstm_models.py)."""
    network, *path, leaf = name.split(".")
    if network == "encoder":
        if len(path) == 1:
            return f"encoder/{path[0]}/{leaf}"
        direction = {"forward": "fw", "backward": "bw"}[path[0]]
        return f"encoder/cell_{path[1]}/bidirectional_rnn/{direction}/multi_rnn_cell/cell_0/lstm_cell/{leaf}"
    if network == "conductor":
        part = "initial_state" if path[0] == "initial" else f"cell_{path[1]}/lstm_cell"
        return f"decoder/hierarchical_level_0/{part}/{leaf}"
    part = {"initial": "z_to_initial_state", "output": "output_projection", "cells": "multi_rnn_cell"}[path[1]]
    part += f"/cell_{path[2]}/lstm_cell" if path[1] == "cells" else ""
    scope = "core_decoder/" if config.segments > 1 else ""
    scope += f"core_decoder_{path[0]}/" if len(config.classes) > 1 else ""
    return f"{scope}decoder/{part}/{leaf}"


@cache
def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Our parameters."""
    state = nnx.state(nnx.eval_shape(lambda: ARCHITECTURE.module(config, rngs=nnx.Rngs(0))))
    return {dotted(path): tuple(variable.shape) for path, variable in nnx.to_flat_state(state)}


def parameters(model: Any) -> dict[str, np.ndarray]:
    return {dotted(path): np.asarray(variable[...]) for path, variable in nnx.to_flat_state(model.state)}
