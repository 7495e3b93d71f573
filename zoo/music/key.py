"""The key of music by its pitch classes: how long each sounds, beside what is usual in each of 24 keys.

Krumhansl and Schmuckler's method (Krumhansl 1990): the key whose profile the durations correlate with best. Profiles
here are Aarden's (2003), what is heard in the Essen folk songs, which on POP909 do better than Krumhansl and Kessler's
(1982) listeners; see `benchmarks/keys.py`. Keys are numbers: 2 · tonic's pitch class, + 1 for minor.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score

Floats: TypeAlias = npt.NDArray[np.float64]

# How well the twelve degrees fit a key, from its tonic up: major, minor.
KRUMHANSL_KESSLER = np.array(
    [
        [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
        [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
    ]
)
AARDEN = np.array(
    [
        [
            17.7661,
            0.145624,
            14.9265,
            0.160186,
            19.8049,
            11.3587,
            0.291248,
            22.062,
            0.145624,
            8.15494,
            0.232998,
            4.95122,
        ],
        [18.2648, 0.737619, 14.0499, 16.8599, 0.702494, 14.4362, 0.702494, 18.6161, 4.56621, 1.93186, 7.37619, 1.75623],
    ]
)
MAJOR = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MINOR = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")

HEARD = 16.0  # seconds around a moment that say what key it is in
CHANGE = 20.0  # what a change of key costs: so many seconds of perfect correlation


@dataclass(frozen=True)
class KeySpan:
    """A stretch in one key: start and end in seconds, the key's number, how well it correlates there, −1 to 1."""

    start: float
    end: float
    key: int
    fit: float

    @property
    def name(self) -> str:
        """E.g. "Eb major"."""
        return key_name(self.key)


def key_name(key: int) -> str:
    """6 is "Eb major", 1 "C minor"."""
    return f"{MINOR[key // 2]} minor" if key % 2 else f"{MAJOR[key // 2]} major"


def correlations(durations: Floats, profiles: Floats = AARDEN) -> Floats:
    """How well 24 keys fit durations of pitch classes, [..., 12] → [..., 24], −1 to 1; 0 where nothing sounds."""
    keys = np.array([np.roll(profile, root) for root in range(12) for profile in profiles])  # [24, 12]
    keys -= keys.mean(axis=1, keepdims=True)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    centred = durations - durations.mean(axis=-1, keepdims=True)
    found: Floats = centred @ keys.T / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-12)
    return found


def durations(score: Score) -> Floats:
    """Seconds that each pitch class sounds in each second of a piece, drums apart, float64 [seconds, 12]."""
    notes = score.select(~score.is_drum)
    start, end = notes.seconds_at(notes.start), notes.seconds_at(notes.end)
    length = int(np.ceil(end.max(initial=0.0)))
    edges = np.zeros((length + 2, 12))  # the second derivative: a note's share grows, is whole, and ends
    for times, sign in ((start, 1.0), (end, -1.0)):
        second = np.floor(times).astype(np.int64)
        np.add.at(edges, (second, notes.pitch % 12), sign * (1 - (times - second)))
        np.add.at(edges, (second + 1, notes.pitch % 12), sign * (times - second))
    sounding: Floats = np.cumsum(edges, axis=0)[:length]
    return np.maximum(sounding, 0.0)


def find_key(score: Score) -> KeySpan | None:
    """The one key that fits a whole piece best; None if no pitched note sounds."""
    sounding = durations(score)
    fits = correlations(sounding.sum(axis=0))
    return KeySpan(0.0, float(len(sounding)), int(fits.argmax()), float(fits.max())) if sounding.any() else None


def find_keys(score: Score) -> list[KeySpan]:
    """The keys that a piece goes through: those that fit best around each second, with a price for each change.

    Viterbi over seconds; none if no pitched note sounds.
    """
    sounding = durations(score)
    if not sounding.any():
        return []
    total = np.cumsum(np.vstack([np.zeros(12), sounding]), axis=0)
    at, reach = np.arange(len(sounding)), int(HEARD / 2)
    around = total[np.minimum(at + reach + 1, len(sounding))] - total[np.maximum(at - reach, 0)]
    fits = correlations(around)
    path = cheapest(fits, CHANGE)
    changes = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [KeySpan(float(a), float(b), int(path[a]), float(fits[a:b, path[a]].mean())) for a, b in pairwise(changes)]


def cheapest(scores: Floats, change: float) -> npt.NDArray[np.int64]:
    """The sequence [T] of the highest sum of `scores` [T, K], less `change` for each change (Viterbi)."""
    total, itself = scores[0].copy(), np.arange(scores.shape[1])
    came_from = np.zeros(scores.shape, np.int64)
    for t in range(1, len(scores)):
        best = total.argmax()
        moves = total[best] - change > total
        came_from[t] = np.where(moves, best, itself)
        total = np.where(moves, total[best] - change, total) + scores[t]
    path = np.empty(len(scores), np.int64)
    path[-1] = total.argmax()
    for t in range(len(scores) - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path
