"""Beats with their places in the bar: of notes, and as `.beats` files, the form in which data sets give them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo.errors import InputError
from zoo.music.metre import grid, keeps_grid
from zoo.music.score import Score

KEPT = 0.3  # of the 1150 pieces of the Groove data, played to a click, four of five reach it


class Beat(NamedTuple):
    """A beat: when it is, in seconds, which of its bar it is, from 1, and how sure that there is one."""

    time: float
    place: int
    confidence: float = 1.0


def of_score(score: Score) -> list[Beat]:
    """The beats of the file's metre, from its beginning to the last note: quarters in 4/4, dotted quarters in 6/8."""
    bars, within = grid(score, score.quarters)
    at = np.concatenate([bars[:-1], within])
    order = np.argsort(at)
    first = order < len(bars) - 1
    number = np.arange(len(at))
    place = 1 + number - np.maximum.accumulate(np.where(first, number, 0))
    return [Beat(*each) for each in zip(score.seconds_at(at[order]).tolist(), place.tolist(), strict=True)]


def keeps_beats(score: Score) -> bool:
    """Whether the notes keep to the file's beats, so that these are known."""
    return drums_keep_time(score) if score.is_drum.all() else keeps_grid(score)


def drums_keep_time(score: Score) -> bool:
    """Whether a drummer plays around halves, thirds or quarters of the file's beats, swing and human timing included.

    The mean of cos 2πkt over strokes at t quarters is 1 on the grid of k parts, and about 0 if they fall by chance.
    """
    return max(float(np.cos(2 * np.pi * parts * score.start).mean()) for parts in (2, 3, 4)) >= KEPT


def to_text(beats: Iterable[Beat]) -> str:
    """Lines of a time and a place, separated by a tab."""
    return "".join(f"{beat.time:.3f}\t{beat.place}\n" for beat in beats)


def read(path: str | os.PathLike[str]) -> list[Beat]:
    """The beats of a `.beats` file, in order; places that it doesn't tell count as 1.

    Raises InputError if it has none.
    """
    try:
        cells = [line.split() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        beats = [Beat(float(time), int(float(place[0])) if place else 1) for time, *place in cells]
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: no beats can be read ({error}); give lines of a time and a place in the bar"
        ) from error
    times = np.array([beat.time for beat in beats])
    if not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: has no beats in order of time; give lines of a time and a place in the bar")
    return beats
