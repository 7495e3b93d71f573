"""Sections found beside those that people hear: `python -m benchmarks.structure DIR`.

DIR holds the McGill Billboard. Three methods on the songs of its test split, each with the numbers that read it out
chosen on the valid split alone (first those of boundaries, by the mean of both boundary F-measures, then the one of
letters, by pairwise F): a checkerboard over the self-similarity of chroma (Foote, ICME 2000), the novelty of what a
song repeats (Serrà et al. 2014), and the model, which is also read out by its card's numbers. Sections every 20 s, all
of them one letter, say what no ear at all is worth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np

import zoo
from zoo.data import Song, read_songs
from zoo.music.section_metrics import WINDOWS, intervals, letters
from zoo.music.sections import Section, tidy
from zoo.music.self_similarity import repetition_novelty, similarity
from zoo.tasks.structure import StructureModel, decode, features, letters_of, measure, peaks, pooled

COARSE = 8  # frames of chroma, 0.37 s, in one of a curve
THRESHOLDS, APART, SAME = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5), (4.0, 6.0, 8.0, 12.0), (0.3, 0.4, 0.5, 0.6, 0.7)
ALIKE = (0.8, 0.85, 0.9, 0.93, 0.96, 0.98)  # cosines of sections' mean chroma
SHOWN = ("boundary_f1_0.5", "boundary_f1_3", "trimmed_f1_0.5", "trimmed_f1_3", "pairwise_f1", "v_measure")

Way = Callable[[Song], tuple[Section, ...]]
Goal = Callable[[Song, tuple[Section, ...]], float]


def main() -> None:
    """Prints a table, and with --json everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="structure-transformer")
    parser.add_argument("--songs", type=int, help="of each split, at most")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    loaded: Any = zoo.load(args.model)
    valid, test = (list(read_songs(args.data, loaded.codec, split, args.songs)) for split in ("valid", "test"))
    ways: dict[str, Way] = {"every 20 s": regular}
    for kind in ("checkerboard", "repetition"):
        ways |= dict([tuned_novelty(kind, valid)])
    ways |= dict([tuned_model(loaded, valid)]) | {
        "the model, by its card": lambda song: loaded.of_chroma(song.frames, song.seconds).sections
    }
    rows = {name: scores(test, way) for name, way in ways.items()}
    if args.json:
        print(json.dumps({"songs": len(test), "rows": rows}, indent=1))
        return
    print(f"{len(test)} songs of test\n{'':66}" + "".join(f"{name:>16}" for name in SHOWN))
    for name, row in rows.items():
        print(f"{name:66}" + "".join(f"{row[measure]:16.3f}" for measure in SHOWN))


def scores(songs: Iterable[Song], way: Way) -> dict[str, float]:
    """Means over songs of the measures of what `way` finds."""
    measured = [measure(song, way(song)) for song in songs]
    return {name: float(np.mean([one[name] for one in measured if name in one])) for name in measured[0]}


def best(choices: Iterable[tuple[Any, ...]], songs: list[Song], way: Callable[..., Way], goal: Goal) -> Any:
    """The numbers with which `way(*numbers)` does best on `songs`."""
    return max(choices, key=lambda numbers: sum(goal(song, way(*numbers)(song)) for song in songs))


def boundaries(song: Song, found: tuple[Section, ...]) -> float:
    """What boundaries are judged by: both F-measures, summed."""
    true, guess = intervals(tidy(song.sections, song.seconds)), intervals(found)
    return float(sum(mir_eval.segment.detection(true, guess, window=window)[2] for window in WINDOWS))


def pairs(song: Song, found: tuple[Section, ...]) -> float:
    """What letters are judged by: pairwise F, of instants half a second apart."""
    both = [(intervals(parts), letters(parts)) for parts in (tidy(song.sections, song.seconds), found)]
    return float(mir_eval.segment.pairwise(*both[0], *both[1], frame_size=0.5)[2])


def regular(song: Song) -> tuple[Section, ...]:
    """A section every 20 s."""
    times = [*np.arange(0, max(song.seconds - 10, 1), 20).tolist(), song.seconds]
    return tuple(Section(a, b, "verse", "A") for a, b in pairwise(times))


def tuned_novelty(kind: str, valid: list[Song]) -> tuple[str, Way]:
    """A way by novelty of chroma, by its name."""
    curves: dict[tuple[str, int], np.ndarray] = {}

    def way(size: int, threshold: float, apart: float, same: float = 0.9) -> Way:
        def find(song: Song) -> tuple[Section, ...]:
            frame = COARSE * song.frame_seconds
            chroma = np.sqrt(pooled(song.frames, COARSE))
            if (song.name, size) not in curves:
                curves[song.name, size] = curve(kind, chroma, max(1, round(size / 2 / frame)))
            found = peaks(curves[song.name, size], threshold, apart / frame)
            return by_chroma(chroma, [0, *found], song.seconds, frame, same)

        return find

    sizes = (8, 16, 32) if kind == "checkerboard" else (4, 9, 18)
    size, threshold, apart = best(product(sizes, THRESHOLDS, APART), valid, way, boundaries)
    (same,) = best([(same,) for same in ALIKE], valid, lambda same: way(size, threshold, apart, same), pairs)
    return f"{kind}: {size} s, threshold {threshold}, {apart:g} s apart, cosine {same}", way(
        size, threshold, apart, same
    )


def curve(kind: str, chroma: np.ndarray, reach: int) -> np.ndarray:
    """Novelty of frames [T, 24], between 0 and 1."""
    if kind == "repetition":
        return repetition_novelty(chroma, 8, 0.04, reach)
    return checkerboard(similarity(chroma), reach)


def checkerboard(cosines: np.ndarray, reach: int) -> np.ndarray:
    """Correlation along the diagonal with a checkerboard tapered by a Gaussian (Foote 2000, equation 3), [T] to 1."""
    at = (np.arange(-reach, reach) + 0.5) / reach
    kernel = np.sign(at)[:, None] * np.sign(at) * np.exp(-2 * (at[:, None] ** 2 + at**2))
    padded = np.pad(cosines, reach, mode="edge")
    found = np.array([(padded[t : t + 2 * reach, t : t + 2 * reach] * kernel).sum() for t in range(len(cosines))])
    found = np.maximum(found, 0)
    return (found / max(found.max(), 1e-9)).astype(np.float32)


def by_chroma(chroma: np.ndarray, starts: list[int], seconds: float, frame: float, same: float) -> tuple[Section, ...]:
    """Sections from these frames on, with letters by the cosine of their mean chroma."""
    means = np.array([chroma[a:b].mean(axis=0) for a, b in pairwise([*starts, len(chroma)])])
    letters = letters_of(similarity(means), [False] * len(means), same)
    times = [*(start * frame for start in starts), seconds]
    return tuple(Section(a, b, "verse", letter) for (a, b), letter in zip(pairwise(times), letters, strict=True))


def tuned_model(model: StructureModel, valid: list[Song]) -> tuple[str, Way]:
    """The model's way, by its name."""
    heard: dict[str, tuple[Any, Any]] = {}

    def way(threshold: float, apart: float, same: float = 0.5) -> Way:
        config = replace(model.config, threshold=threshold, apart=apart, same=same)

        def find(song: Song) -> tuple[Section, ...]:
            if song.name not in heard:
                x = features(song.frames, model.config)
                heard[song.name] = model.hear(x)._replace(attention=None), x
            return decode(*heard[song.name], song.seconds, config, config.hops * song.frame_seconds).sections

        return find

    threshold, apart = best(product(THRESHOLDS, APART), valid, way, boundaries)
    (same,) = best([(same,) for same in SAME], valid, lambda same: way(threshold, apart, same), pairs)
    return f"the model: threshold {threshold}, {apart:g} s apart, same {same}", way(threshold, apart, same)


if __name__ == "__main__":
    main()
