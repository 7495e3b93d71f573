"""The sixteenth-note grid that every codec of symbolic music shares: bars, quantisation and cutting into windows.

A bar is four quarter notes, 16 steps, as in MusicVAE (Roberts et al. 2018). Times come in quarter notes, so no tempo
is needed and a tempo change moves nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.score import Score

STEPS_PER_QUARTER = 4
QUARTERS_PER_BAR = 4
STEPS_PER_BAR = STEPS_PER_QUARTER * QUARTERS_PER_BAR

Array = npt.NDArray[Any]


def quantize(quarters: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Nearest step to positions in quarter notes; halves go up, as note_seq's cutoff of 0.5 has it.

    The slack of a millionth of a step lets a time that went through seconds and back round like the exact one.
    """
    return np.floor(np.asarray(quarters) * STEPS_PER_QUARTER + (0.5 + 1e-6)).astype(np.int64)


def sections(score: Score) -> list[Score]:
    """The stretches of a score that have bars of four quarters, each shifted to begin at 0 on a bar line.

    Bars of one or two quarters (1/4 stands in many files for "metre unknown", 2/4) are joined to bars of four. As in
    Magenta, a note belongs to the stretch it starts in and ends with it at the latest, and a repeated time signature is
    no change; unlike there, a change of tempo does not split.

    Raises:
      InputError: if no note lies in such a stretch.
    """
    found = []
    refused = set()
    for begin, end, metre in _metres(score):
        inside = (score.start >= begin) & (score.start < end)
        if not inside.any():
            continue
        if metre[0] * 4 / metre[1] in (1, 2, QUARTERS_PER_BAR):
            found.append(_shifted(score.select(inside), begin, end))
        else:
            refused.add(f"{metre[0]:.0f}/{metre[1]:.0f}")
    if refused and not found:
        signatures = ", ".join(sorted(refused))
        raise InputError(f"{score.source or 'the score'}: not in 4/4 (it is in {signatures}); pass a piece in 4/4")
    return found


def _metres(score: Score) -> list[tuple[float, float, tuple[float, float]]]:
    """The stretches between changes of metre: begin and end in quarter notes, time signature."""
    changes = {0.0: (4.0, 4.0)} | {q: (top, bottom) for q, top, bottom in score.meters if top > 0 and bottom > 0}
    begins = sorted(changes)
    kept = [q for i, q in enumerate(begins) if not i or changes[q] != changes[begins[i - 1]]]
    return [(q, end, changes[q]) for q, end in zip(kept, [*kept[1:], np.inf], strict=True)]


def _shifted(score: Score, begin: float, end: float) -> Score:
    """`score` moved earlier by `begin`, its notes cut off at `end`."""
    return replace(score, start=score.start - begin, end=np.minimum(score.end, end) - begin)


def cut(position: Array, value: Array, first: Array, steps: int) -> Array:
    """Windows of `steps` steps that begin at steps `first` [W], out of a sparse sequence of events.

    Args:
      position: int [N], the steps where something happens, ascending and each at most once.
      value: [N, ...], what happens there.

    Returns:
      [W, steps, ...] in the dtype of `value`, zero where nothing happens.
    """
    low, high = np.searchsorted(position, first), np.searchsorted(position, first + steps)
    count = high - low
    window = np.repeat(np.arange(len(first)), count)
    event = np.arange(count.sum()) + np.repeat(low - (np.cumsum(count) - count), count)
    out = np.zeros((len(first), steps, *value.shape[1:]), value.dtype)
    out[window, position[event] - first[window]] = value[event]
    return out
