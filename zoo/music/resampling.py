"""Resampling by a windowed sinc: what resampy 0.4 does with its filter "kaiser_best", sample by sample.

CREPE's packages use it, so what its networks hear at both ends of a sound is the ringing of this filter. A sample of
the result is a sum over 50 periods of the lower rate on either side of it (Smith 1984); beyond the sound all is 0.
The steps through its table, a whole number of entries, are resampy's.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

ZEROS, PRECISION, ROLLOFF, BETA = 50, 8192, 0.9173473712608761, 12.984585247040012
GROUP = 64  # samples that are made together: a matrix product


class Group(NamedTuple):
    """Consecutive samples of the result: `matrix` [n, samples] for the n samples of the sound from `begin` on."""

    begin: int
    matrix: Samples


class SincResampler:
    """A sound at `native` Hz, piece by piece, at `rate` Hz: N samples become N · rate / native, rounded down."""

    def __init__(self, native: int, rate: int) -> None:
        self._period, self._groups = groups(native, rate)
        self._native, self._rate = native, rate
        self._held = np.zeros(-self._groups[0].begin, np.float32)  # silence; it begins where the next group does
        self._next, self._taken, self._given = 0, 0, 0

    def resample_chunk(self, samples: Samples, last: bool = False) -> Samples:
        """The next samples of the sound, float32 [n]: the samples that they complete."""
        self._taken += len(samples)
        tail = np.zeros(max(len(group.matrix) for group in self._groups) if last else 0, np.float32)
        held, found = np.concatenate([self._held, samples, tail]), [np.zeros(0, np.float32)]
        group, at = self._groups[self._next], 0
        while at + len(group.matrix) <= len(held):
            found.append(held[at : at + len(group.matrix)] @ group.matrix)
            self._next = (self._next + 1) % len(self._groups)
            after = self._groups[self._next]
            at += after.begin - group.begin + (0 if self._next else self._period)
            group = after
        self._held = held[at:]
        made = np.concatenate(found)
        if last:
            made = made[: self._taken * self._rate // self._native - self._given]
        self._given += len(made)
        return made


@lru_cache(maxsize=8)
def groups(native: int, rate: int) -> tuple[int, tuple[Group, ...]]:
    """After how many samples of the sound the filter is the same again, and the groups until then."""
    common = math.gcd(native, rate)
    times = -(-GROUP * common // rate)  # so often the shortest period, for whole groups
    made, period = rate // common * times, native // common * times
    before, weights = _weights(np.arange(made) * period % made / made, rate / native)
    middles = np.arange(made) * period // made
    found = []
    for at in range(0, made, GROUP):
        near, first = middles[at : at + GROUP], middles[at]
        matrix = np.zeros((near[-1] - first + weights.shape[1], len(near)), np.float32)
        rows = (near - first)[:, None] + np.arange(weights.shape[1])
        matrix[rows, np.arange(len(near))[:, None]] = weights[at : at + GROUP]
        found.append(Group(int(first) - before, matrix))
    return period, tuple(found)


def _weights(after: npt.NDArray[np.float64], ratio: float) -> tuple[int, npt.NDArray[np.float64]]:
    """Weights [T, n] for times `after` a sample, [T] from 0 to 1 samples, and the place of that sample in them."""
    scale, table = min(1.0, ratio), _table()
    step = int(scale * PRECISION)
    count = -(-len(table) // step)

    def wing(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of the samples at `distance` (1 is a zero of the sinc) on one side, and those after it."""
        at = distance * PRECISION
        first = at.astype(np.int64)
        index = first[:, None] + step * np.arange(count)
        inside = np.arange(count) < ((len(table) - first) // step)[:, None]
        low, high = (table[np.minimum(index + k, len(table) - 1)] for k in (0, 1))
        found: npt.NDArray[np.float64] = np.where(inside, low + (at - first)[:, None] * (high - low), 0.0) * scale
        return found

    return count - 1, np.concatenate([wing(scale * after)[:, ::-1], wing(scale - scale * after)], axis=1)


@lru_cache(maxsize=1)
def _table() -> npt.NDArray[np.float64]:
    """One wing of the filter, `PRECISION` entries from zero to zero of the sinc, under a Kaiser window."""
    at = np.linspace(0, ZEROS, ZEROS * PRECISION + 1)
    return np.kaiser(2 * len(at) - 1, BETA)[len(at) - 1 :] * ROLLOFF * np.sinc(ROLLOFF * at)
