"""Where bars begin: by the metre a file states, or, where its notes keep to none, by beats that are found in them.

Beats are found as by Ellis (2007, "Beat tracking by dynamic programming"): a tempo from the autocorrelation of how much
begins at each moment, then the sequence of beats that lies on the strongest moments and is the most even. Bars have
four beats or three and begin where most begins, the bass counting twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.music.score import Floats, Score

RATE = 50.0  # moments a second
SLOWEST, FASTEST, USUAL = 1.2, 0.25, 0.5  # seconds a beat
SPREAD = 0.9  # octaves that tempi lie from the usual
EVEN = 100.0  # how much an uneven beat costs (Ellis's α)
BASS = 55  # below that pitch a note is the bass's
LOOSE = 0.15  # sixteenths that notes may lie off a grid, on average; at random it is 0.25
THREE = 1.1  # how much more must begin on bars of three than on bars of four to believe in them
MOST_LINES = 4000  # bars and beats; a score of a hostile length has no more

Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bars:
    """Where bars begin, seconds ascending, and how that is known: "file" or "estimated"."""

    starts: Floats
    beats: int
    known_by: str


def keeps_grid(score: Score) -> bool:
    """Whether notes begin near the sixteenths that the file's own quarters make."""
    return bool(np.abs(score.start * 4 - np.round(score.start * 4)).mean() <= LOOSE) if len(score) else True


def grid(score: Score, quarters: float) -> tuple[Floats, Floats]:
    """Where bars and the beats inside them begin, in quarters, through changes of metre; at least one whole bar.

    The last of the bars is the end of the one that holds `quarters`. 6/8, 9/8 and 12/8 have dotted beats.
    """
    meters = score.meters[(score.meters[:, 1:] > 0).all(axis=1)]
    if len(meters) == 0 or meters[0, 0] > 0:
        meters = np.vstack([[0.0, 4.0, 4.0], meters])
    quarters = max(quarters, 1e-3)
    bars: list[float] = [0.0]
    beats: list[float] = []
    for (_, numerator, denominator), change in zip(meters, [*meters[1:, 0], np.inf], strict=True):
        unit = 4 / denominator
        beat = 3 * unit if denominator == 8 and numerator % 3 == 0 and numerator > 3 else unit
        while bars[-1] < min(change, quarters) - 1e-6 and len(bars) + len(beats) < MOST_LINES:
            end = min(bars[-1] + numerator * unit, change)
            beats.extend(np.arange(bars[-1] + beat, end - 1e-6, beat))
            bars.append(end)
    if bars[-1] < quarters - 1e-6:
        bars.append(quarters)
    return np.array(bars), np.array(beats)


def estimate_bars(score: Score) -> Bars | None:
    """Bars of beats that are found in the notes; None where too few begin to tell."""
    strength, low = onset_strength(score), onset_strength(score.select(score.pitch < BASS))
    beats = find_beats(strength)
    if len(beats) < 8:
        return None
    low = np.pad(low, (0, max(0, len(strength) - len(low))))[: len(strength)]
    count, first = bars_of(near(strength + low, beats))
    return Bars(beats[first::count] / RATE, count, "estimated")


def bars_of(weight: Floats) -> tuple[int, int]:
    """(beats of a bar, which beat begins the first), from how much begins on each beat [N]."""
    contrast = {n: [weight[phase::n].mean() for phase in range(n)] for n in (4, 3)}
    count = 3 if max(contrast[3]) > THREE * max(contrast[4]) else 4
    return count, int(np.argmax(contrast[count]))


def onset_strength(score: Score) -> Floats:
    """How much begins at each moment, [T]: a note counts by its length up to a second, drums as a sixteenth."""
    start, end = score.seconds_at(score.start), score.seconds_at(score.end)
    weight = np.where(score.is_drum, 0.25, np.sqrt(np.clip(end - start, 0.02, 1.0)))
    at = np.round(start * RATE).astype(np.int64)
    return smoothed(np.bincount(at, weights=weight, minlength=1).astype(np.float64))


def smoothed(strength: Floats) -> Floats:
    """[T], each moment spread under a bell of 30 ms."""
    bell = np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2)
    smooth: Floats = np.convolve(strength, bell)[4:-4]
    return smooth


def find_beats(strength: Floats) -> Ints:
    """The moments of beats [N] in `strength` [T]."""
    period = beat_period(strength)
    if period is None:
        return np.zeros(0, np.int64)
    strength = strength / strength.std()
    lags = np.arange(max(1, round(period / 2)), round(2 * period) + 1)
    cost = EVEN * np.log(lags / period) ** 2
    total, before = strength.copy(), np.full(len(strength), -1)
    for t in range(lags[0], len(strength)):
        reached = lags[lags <= t]
        scores = total[t - reached] - cost[: len(reached)]
        best = int(scores.argmax())
        if scores[best] > 0:
            total[t], before[t] = strength[t] + scores[best], t - reached[best]
    beats = [int(total[-round(period) :].argmax()) + max(0, len(total) - round(period))]
    while before[beats[-1]] >= 0:
        beats.append(int(before[beats[-1]]))
    return np.array(beats[::-1], np.int64)


def beat_period(strength: Floats) -> float | None:
    """Moments a beat: the lag of the highest autocorrelation, those near a usual beat preferred; None of silence."""
    lags = np.arange(round(FASTEST * RATE), round(SLOWEST * RATE) + 1)
    if len(strength) <= 2 * lags[-1] or not strength.std() > 0:
        return None
    centred = strength - strength.mean()
    spectrum = np.fft.rfft(centred, 2 * len(centred))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)
    likely = np.exp(-0.5 * (np.log2(lags / (USUAL * RATE)) / SPREAD) ** 2)
    return float(lags[int((correlation[lags] * likely).argmax())])


def near(strength: Floats, beats: Ints) -> Floats:
    """The most within 60 ms of each beat."""
    reach = np.clip(beats[:, None] + np.arange(-3, 4), 0, len(strength) - 1)
    found: Floats = strength[reach].max(axis=1)
    return found
