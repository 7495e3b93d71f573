"""Fixtures for more than one test file: a tiny model with a card, and a piece of music to give it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

CARD = """
id = "music-vae/tiny"
summary = "Random weights, for tests."
task = "latent"
parameters = 11746
intended_use = "Tests."
limits = "It has learnt nothing."
verified = true
recipe = "recipe.toml"

[config]
steps = 32
classes = [90]
latent = 8
prior = "fitted"
encoder = [8]
decoder = [8, 8]
[codec]
name = "melody"
options = {bars = 2}
[licences]
code = {name = "Apache-2.0", stated_at = "LICENSE"}
weights = {name = "Apache-2.0", stated_at = "LICENSE"}
[citation]
bibtex = "@inproceedings{tiny}"
paper = "https://arxiv.org/abs/1803.05428"
[[sources]]
kind = "bundled"
file = "weights.safetensors"
sha256 = "SHA"
"""

RECIPE = """
[train]
steps = 4
batch_size = 4
evaluate_every = 2
log_every = 1
[optimizer]
learning_rate = 1e-3
[data]
transpose = [-2, 2]
"""


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cards with one tiny MusicVAE for two bars of melody, a few thousand random weights."""
    import numpy as np
    from flax import nnx

    from zoo.models.music_vae import Config, MusicVAE
    from zoo.weights.formats import safetensors

    root = tmp_path_factory.mktemp("cards")
    folder = root / "music-vae" / "tiny"
    folder.mkdir(parents=True)
    _, state = nnx.split(MusicVAE(Config(latent=8, encoder=(8,), decoder=(8, 8), prior="fitted"), rngs=nnx.Rngs(0)))
    flat = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
    safetensors.write(folder / "weights.safetensors", flat, {})
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "card.toml").write_text(CARD.replace("SHA", digest))
    (folder / "recipe.toml").write_text(RECIPE)
    return root


@pytest.fixture
def tiny_model(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of the tiny model, which the zoo knows during the test."""
    monkeypatch.setenv("ZOO_CARDS", str(tiny_root))
    return "music-vae/tiny"


@pytest.fixture
def melody_file(tmp_path: Path) -> Path:
    """Four bars of a melody in eighths and quarters, as MIDI."""
    from zoo.music.midi import midi_bytes
    from zoo.music.score import Score

    starts = [i / 2 for i in range(32) if i % 4 != 3]
    pitches = [60 + (i * 5) % 12 for i in range(len(starts))]
    path = tmp_path / "melody.mid"
    path.write_bytes(midi_bytes(Score.of(starts, [start + 0.5 for start in starts], pitches)))
    return path


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """For modules whose tests compile whole training steps and take few of them: XLA spends no time on speed."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
