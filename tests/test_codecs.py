"""Codecs: what they encode they decode, and their definitions are Magenta's, checked against note_seq itself."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.music.codecs import get_codec
from zoo.music.score import Score


def random_tokens(rng: np.random.Generator, windows: int, steps: int) -> np.ndarray:
    """Legal melody windows: no note-off before the first note or after another, at least one onset."""
    tokens = np.where(rng.random((windows, steps)) < 0.3, rng.integers(1, 90, (windows, steps)), 0).astype(np.int32)
    tokens[:, 0] = rng.integers(2, 90, windows)
    for window in tokens:
        events = np.flatnonzero(window)
        for before, event in zip(events[:-1], events[1:], strict=True):
            if window[event] == 1 and window[: event + 1][window[:event].nonzero()[0][-1]] == 1:
                window[event] = 0
            del before
    return tokens


def test_melody_round_trip():
    codec = get_codec("melody", gap_bars=np.inf)
    for window in random_tokens(np.random.default_rng(0), 200, 32):
        score = codec.decode(window)
        whole = np.pad(window, (0, -len(window) % 32))
        assert (codec.windows(score, hop_bars=2)[0] == whole).all()


def test_unknown_codec():
    with pytest.raises(InputError, match="no codec named 'mel'; there are melody"):
        get_codec("mel")


def test_no_notes():
    empty = Score.of([], [], [], source="a.mid")
    with pytest.raises(InputError, match=r"a\.mid: no notes"):
        get_codec("melody").windows(empty)
