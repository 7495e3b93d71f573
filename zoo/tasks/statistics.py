"""Samples beside held-out music: do they have its statistics, and are they new?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.data import Corpus
from zoo.music.phrases import PARTS
from zoo.music.score import Score
from zoo.nn import phrases
from zoo.show.plots import drums, durations, overlap, pitch_classes


def compare(model: Any, corpus: Corpus, split: str, n: int, seed: int = 0) -> dict[str, float]:
    """Statistics of `n` windows drawn at temperature 1 beside as many of a split; "real_…" are the split's own.

    `pitch_class_overlap`, `duration_overlap` and, for drums, `drum_overlap` are the area that the two histograms share,
    0 to 1. `density` is onsets a bar. `repeated_bars`: share of windows whose bars are all alike. `copied`: share of
    windows that stand in the training data, in any transposition. Of phrases for several parts also what
    `of_parts` measures.
    """
    real = getattr(corpus, split)
    real = real[np.random.default_rng(seed).permutation(len(real))[:n]]
    drawn = model.sample_windows(n, key=seed)
    a, b = model.scores(real), model.scores(drawn)
    known = fingerprints(model.codec, corpus.train)
    found = {}
    for key, histogram in (("pitch_class", pitch_classes), ("duration", durations), ("drum", drums)):
        if (share := histogram(a)).any():  # music without drums, or of drums alone
            found[f"{key}_overlap"] = overlap(share, histogram(b))
    for prefix, windows, scores in (("real_", real, a), ("", drawn, b)):
        prints = fingerprints(model.codec, windows, each=True)
        found |= {
            prefix + "density": density(scores, model.codec.bars),
            prefix + "repeated_bars": repeated_bars(windows, model.codec.bars),
            prefix + "copied": sum(p in known for p in prints) / len(windows),
        }
        if model.codec.kind == "phrases":
            found |= {prefix + name: value for name, value in of_parts(windows, model.codec).items()}
    return found


def of_parts(windows: np.ndarray, codec: Any) -> dict[str, float]:
    """The measures of Dong et al. (2018, section 4.4) for each part, and for each two, of phrases [W, T, K, P].

    `empty_bars` is the share of bars in which a part is silent, `used_pitch_classes` are those of a bar in which it
    plays, `qualified_notes` the share of notes of two sixteenths or more (the paper: a 32nd note), `tonal_distance` is
    that of two parts over the beats where both play.
    """
    x, bar = jnp.asarray(windows, jnp.float32), codec.steps // codec.bars
    names = [part.name.lower() for part in PARTS]
    pairs = [f"{a}_{b}" for a, b in combinations(names, 2)]
    found = dict(zip((f"empty_bars_{name}" for name in names), phrases.empty_bars(x, bar).mean(axis=0), strict=True))
    for measure, of, (total, count) in (
        ("used_pitch_classes", names, phrases.used_pitch_classes(x, bar)),
        ("qualified_notes", names, phrases.qualified_notes(x)),
        ("tonal_distance", pairs, phrases.tonal_distance(x)),
    ):
        share = total.sum(axis=0) / jnp.maximum(count.sum(axis=0), 1.0)
        found |= dict(zip((f"{measure}_{name}" for name in of), share, strict=True))
    return {name: float(value) for name, value in found.items()}


def density(scores: list[Score], bars: int) -> float:
    """Onsets a bar."""
    return sum(map(len, scores)) / (len(scores) * bars)


def repeated_bars(windows: np.ndarray, bars: int) -> float:
    """Share of windows [W, T, ...] whose bars are all the same as their first."""
    split = windows.reshape(len(windows), bars, -1)
    return float(np.mean(np.all(split == split[:, :1], axis=(1, 2))))


def fingerprints(codec: Any, windows: np.ndarray, each: bool = False) -> Any:
    """A value for each window that is the same for its transpositions: a set, or with `each` a list in their order.

    Melodies, trios and phrases are moved so that their first pitch is a fixed one; a groove's are its hits.
    """
    if codec.kind == "phrases":  # all moved down until the lowest pitch is the lowest there is
        windows = np.packbits(codec.transpose(windows, -windows.shape[-1]), axis=-1)
    elif codec.kind == "groove":
        windows = windows[..., : windows.shape[-1] // 3] > 0
    elif codec.name != "drums":
        flat = windows.reshape(len(windows), -1).astype(np.int16)
        pitched = flat > (0 if codec.name == "chorale" else 1)  # others have a note-off
        first = flat[np.arange(len(flat)), pitched.argmax(axis=1)]
        windows = np.where(pitched, flat - first[:, None] + 1000, flat)
    rows = [row.tobytes() for row in np.ascontiguousarray(windows)]
    return rows if each else set(rows)
