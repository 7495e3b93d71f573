"""Attention as a picture, and the option that asks for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from zoo.cli.attention import draw_attention
from zoo.errors import InputError
from zoo.show.attention import Attention, _edges


def random_attention(tokens: int = 12, layers: int = 2, heads: int = 3) -> Attention:
    weights = np.random.default_rng(0).dirichlet(np.ones(tokens), (layers, heads, tokens))
    return Attention(weights, np.arange(tokens) / 2, np.arange(tokens) / 2)


def ink(path: Path) -> float:
    """The share of the picture that isn't white."""
    return float((matplotlib.image.imread(path)[..., :3].min(axis=-1) < 0.99).mean())


def test_all_heads_or_one(tmp_path: Path) -> None:
    attention = random_attention()
    everything = attention.plot(tmp_path / "all.png", "A title in 日本")
    one = attention.plot(tmp_path / "one.png", layer=1, head=2)
    assert ink(everything) > 0.3
    assert ink(one) > 0.3
    assert matplotlib.image.imread(everything).shape != matplotlib.image.imread(one).shape
    with pytest.raises(InputError, match="no layer 3: the model has 2"):
        attention.plot(tmp_path / "none.png", layer=2)
    with pytest.raises(InputError, match="no head 4: the model has 3"):
        attention.plot(tmp_path / "none.png", head=3)


def test_long_and_named(tmp_path: Path) -> None:
    """More tokens than pixels, tokens of the same time, and names."""
    long = random_attention(1300, layers=1, heads=1)
    assert ink(long.plot(tmp_path / "long.png")) > 0.3
    weights = np.eye(4)[None, None]
    at = np.array([0.0, 0.0, 1.0, 2.0])
    named = Attention(weights, at, at, "", ["C4", "E4", "G4", "$x"], ["C4", "E4", "G4", "$x"])
    assert ink(named.plot(tmp_path / "named.png")) > 0.05


def test_edges_keep_tokens_apart() -> None:
    np.testing.assert_allclose(_edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    for at in ([0.0, 0.0, 1.0, 1.0], [2.0, 2.0], [5.0], []):
        edges = _edges(np.array(at))
        assert len(edges) == max(1, len(at)) + 1
        assert (np.diff(edges) > 0).all(), at


def test_option(tmp_path: Path) -> None:
    model = SimpleNamespace(name="a-model", attention=lambda source: random_attention())
    args = argparse.Namespace(attention=None, files=["a.mid", "b.mid"])
    assert draw_attention(args, model, "a.mid", "a") is None
    args.attention = str(tmp_path / "folder")
    assert draw_attention(args, model, "a.mid", "a") == tmp_path / "folder" / "a-attention.png"
    args.attention = str(tmp_path / "one.png")
    with pytest.raises(InputError, match="one picture can't show several files"):
        draw_attention(args, model, "a.mid", "a")
    args.files = ["a.mid"]
    assert draw_attention(args, model, "a.mid", "a") == tmp_path / "one.png"
    with pytest.raises(InputError, match="a-model: has no attention to look at"):
        draw_attention(args, SimpleNamespace(name="a-model"), "a.mid", "a")
