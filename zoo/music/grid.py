"""The sixteenth-note grid that every codec of symbolic music shares: bars, quantisation and cutting into windows.

A bar is four quarter notes, 16 steps, as in MusicVAE (Roberts et al. 2018). Times come in quarter notes, so no tempo
is needed and a tempo change moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.score import Score

STEPS_PER_QUARTER = 4
QUARTERS_PER_BAR = 4
STEPS_PER_BAR = STEPS_PER_QUARTER * QUARTERS_PER_BAR
MAX_BARS = 1024

Array: TypeAlias = npt.NDArray[Any]


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
    for begin, end, metre in metres(score):
        inside = (score.start >= begin) & (score.start < end)
        if not inside.any():
            continue
        if metre[0] * 4 / metre[1] in (1, 2, QUARTERS_PER_BAR):
            part = score.select(inside)
            found.append(replace(part, start=part.start - begin, end=np.minimum(part.end, end) - begin))
        else:
            refused.add(f"{metre[0]:.0f}/{metre[1]:.0f}")
    if refused and not found:
        raise InputError(f"{source(score)}: not in 4/4 (it is in {', '.join(sorted(refused))}); pass a piece in 4/4")
    return found


def beginning(score: Score) -> Score:
    """The notes of the first `MAX_BARS` bars of four from the first note on, ended there.

    A corrupt file may have its second note a billion quarters later; an array of every step would fill the memory.
    """
    if not len(score):
        return score
    end = float(score.start.min()) + MAX_BARS * QUARTERS_PER_BAR
    kept = score.select(score.start < end)
    return replace(kept, end=np.minimum(kept.end, end))


def metres(score: Score) -> list[tuple[float, float, tuple[float, float]]]:
    """The stretches between changes of metre: begin and end in quarter notes, time signature."""
    changes = {0.0: (4.0, 4.0)} | {at: (top, bottom) for at, top, bottom in score.meters if top > 0 and bottom > 0}
    begins = sorted(changes)
    kept = [at for i, at in enumerate(begins) if not i or changes[at] != changes[begins[i - 1]]]
    return [(at, end, changes[at]) for at, end in zip(kept, [*kept[1:], np.inf], strict=True)]


def window_starts(
    parts: Sequence[tuple[Array, Array]], bars: int, hop_bars: int, gap_bars: float, pad: bool, where: str
) -> list[Array]:
    """Where the windows of each part begin, in steps, int64 [W].

    A part is the onsets and ends of its events, int [N] in steps, ascending. It falls into phrases where a rest of
    `gap_bars` or more is; a window lies within one phrase, begins `hop_bars` bars after the one before and has an
    onset. If no phrase of any part is as long as a window, `pad` allows rests of any length and lets the last window
    reach beyond the end, provided the music fills half of it.

    Raises:
      InputError: if there is no window; `where` names the file in the message.
    """
    found = [_phrase_windows(*part, bars, hop_bars, gap_bars * STEPS_PER_BAR) for part in parts]
    if pad and not any(map(len, found)):
        found = [_phrase_windows(*part, bars, hop_bars, np.inf, overhang=bars // 2) for part in parts]
    if not any(map(len, found)):
        longest = max(end[-1] - start[0] for start, end in parts) / STEPS_PER_BAR
        if longest > bars and not pad:
            rest = f"a rest of {gap_bars * QUARTERS_PER_BAR:g} quarter notes or more"
            raise InputError(f"{where}: no {bars} bars without {rest}; pad=True allows rests")
        need = "half of a window" if pad else "a window"
        raise InputError(f"{where}: too short to fill {need} of {bars} bars of 4/4; pass a longer piece")
    return found


def _phrase_windows(start: Array, end: Array, bars: int, hop_bars: int, gap: float, overhang: int = 0) -> Array:
    breaks = np.flatnonzero(start[1:] - end[:-1] >= gap) + 1
    heads, tails = np.r_[0, breaks], np.r_[breaks, len(start)] - 1
    first = start[heads] // STEPS_PER_BAR  # [P], the bar where each phrase begins
    last = -(-end[tails] // STEPS_PER_BAR)  # [P], the bar before which it has ended
    last = np.clip(first + bars, last, last + overhang)

    phrase = np.repeat(np.arange(len(heads)), tails - heads + 1)[:, None]  # [N, 1]
    bar = (start // STEPS_PER_BAR)[:, None] - np.arange(bars)  # [N, bars], the windows that an onset is in
    fits = (bar >= first[phrase]) & (bar + bars <= last[phrase]) & ((bar - first[phrase]) % hop_bars == 0)
    return np.unique(bar[fits]) * STEPS_PER_BAR


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


def cut_whole(tokens: Array, steps: int, hop_bars: int, padding: tuple[int, ...]) -> Array:
    """A piece [N, C] no longer than `steps` as a window [1, steps, C], padded; a longer one every `hop_bars` bars.

    The last of several ends with the piece, on a multiple of a slot.
    """
    last = len(tokens) - steps
    starts = sorted({*range(0, max(last, 0), hop_bars * STEPS_PER_BAR), max(last, 0)})
    fill = np.broadcast_to(np.array(padding, np.int32), (max(0, -last), len(padding)))
    padded = np.concatenate([tokens, fill])
    return np.stack([padded[start : start + steps] for start in starts])


def length(there: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """One more than the last True of each row [W, T], int64 [W]."""
    return np.asarray(there.shape[1] - np.argmax(there[:, ::-1], axis=1))


def source(score: Score) -> str:
    """How messages name the score."""
    return score.source or "the score"


def track_name(score: Score, track: int) -> str:
    """The name of a track, "" if it has none."""
    return score.track_names[track] if track < len(score.track_names) else ""


def exchange_bars(windows: Array, rng: np.random.Generator) -> Array:
    """Windows [W, T, ...], of which one in three has its bars in another order and one in three some of another window.

    For training: what is to be told from z alone should not be guessed from the pieces it was learnt on.
    """
    bars = windows.reshape(len(windows), -1, STEPS_PER_BAR, *windows.shape[2:])
    count = bars.shape[1]
    chance = rng.random((len(windows), 1))
    order = np.where(chance < 1 / 3, np.argsort(rng.random((len(windows), count)), axis=1), np.arange(count))
    other = (chance > 2 / 3) & (rng.random((len(windows), count)) < rng.random((len(windows), 1)))
    row = np.where(other, rng.permutation(len(windows))[:, None], np.arange(len(windows))[:, None])
    return bars[row, order].reshape(windows.shape)
