"""Structure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.sections import Section
from zoo.music.self_similarity import novelty, repetition_novelty, similarity
from zoo.tasks.model import Model

if TYPE_CHECKING:
    from zoo.data import Song

Floats = npt.NDArray[np.float32]

SHORTEST = 1.0  # s of a silence at an end that counts as a section
PAIR = 2  # frames that are put together before they are compared with each other
LIVELY = 5.0  # brings novelty to the size of chroma
STRETCH, ALIKE, SMOOTH = 8, 0.04, 12  # of `repetition_novelty`, in such pairs


def features(frames: Floats, config: Any) -> Floats:
    """A codec's chroma [N, 24] → the network's features [T, F], T = N / hops rounded up.

    The root of the chroma in units of the song's mean; novelty at the configuration's scales; novelty of repetition.
    """
    chroma = np.sqrt(pooled(frames / max(float(frames.mean()), 1e-6), config.hops))
    coarse = pooled(chroma, PAIR)
    changes = np.concatenate(
        [
            LIVELY * novelty(similarity(coarse), config.scales)[:-1],
            repetition_novelty(coarse, STRETCH, ALIKE, SMOOTH)[:, None],
        ],
        axis=1,
    )
    at, known = np.arange(len(chroma)) / PAIR, np.arange(len(coarse))
    finer = [np.interp(at, known, column) for column in changes.T]
    return np.concatenate([chroma, np.stack(finer, axis=1)], axis=1).astype(np.float32)


def pooled(frames: Floats, count: int) -> Floats:
    """Means of every `count` frames [T, F]; the last one may have fewer."""
    starts = np.arange(0, len(frames), count)
    sums = np.add.reduceat(frames, starts, axis=0)
    return sums / np.minimum(count, len(frames) - starts)[:, None]


def examples(song: Song, config: Any) -> dict[str, npt.NDArray[Any]]:
    """A song as the network learns from it, see `losses` in its file; what lies past `config.frames` is left out.

    Raises InputError if nobody said where its sections are.
    """
    if not song.sections:
        raise InputError(f"{song.name}: no sections beside it; put lines of start, end and label there")
    x = features(song.frames, config)[: config.frames].astype(np.float16)
    frame = config.hops * song.frame_seconds
    parts = tidy(song.sections, song.seconds)
    starts = np.array([part.start for part in parts])
    times = (np.arange(config.frames)) * frame
    distance = np.abs(times[:, None] - starts[None, 1:]).min(axis=1, initial=np.inf) / frame
    middles = (np.arange(config.steps) + 0.5) * config.patch * frame
    here = np.searchsorted(starts, middles, side="right") - 1
    letters = {letter: i for i, letter in enumerate(sorted({alike(part) for part in parts} - {""}))}
    function = np.array([config.functions.index(part.function) if part.label else -1 for part in parts])
    letter = np.array([letters.get(alike(part), -1) for part in parts])
    return {
        "x": np.pad(x, ((0, config.frames - len(x)), (0, 0)))[None],
        "mask": (np.arange(config.steps) < max(1, len(x) // config.patch))[None],
        "boundary": np.exp(-0.5 * (distance / config.smear) ** 2).astype(np.float32)[None],
        "function": function[here].astype(np.int32)[None],
        "letter": letter[here].astype(np.int32)[None],
    }


def alike(part: Section) -> str:
    """What sections that sound alike share: the letter without its primes, "silence", or "" where nobody said."""
    return "silence" if part.label == "silence" else part.letter.rstrip("'")


def tidy(sections: tuple[Section, ...], seconds: float) -> tuple[Section, ...]:
    """Sections from 0 to the end, one after another; silence of less than a second at an end belongs to its neighbour."""
    kept = [part for part in sections if part.start < seconds]
    if len(kept) > 1 and kept[0].label == "silence" and kept[0].end - kept[0].start < SHORTEST:
        kept = kept[1:]
    if len(kept) > 1 and kept[-1].label == "silence" and min(kept[-1].end, seconds) - kept[-1].start < SHORTEST:
        kept = kept[:-1]
    if not kept:
        return (Section(0.0, seconds, ""),)
    starts = [0.0, *(part.start for part in kept[1:]), seconds]
    return tuple(
        Section(start, end, part.label, part.letter) for part, (start, end) in zip(kept, pairwise(starts), strict=True)
    )


class Structure(Model):
    """x."""


Task = Structure
