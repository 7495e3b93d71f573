"""How near found sections are to annotated ones, by mir_eval's measures (Raffel et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.sections import Section, likeness

WINDOWS = (0.5, 3.0)  # s within which a boundary counts as found


def compare(annotated: Sequence[Section], found: Sequence[Section]) -> dict[str, float]:
    """Measures of one song; both go from 0 to its end without gaps.

    `boundary_f1_0.5`, `boundary_f1_3` with precision and recall: of boundaries within so many seconds, the song's
    beginning and end being boundaries as in MIREX; `trimmed_f1_…` without these two, which every method finds.
    `pairwise_f1` and `v_measure`: whether instants that share a letter share one in both (silence counts as a letter,
    primes of letters don't). `function_accuracy`: the share of time whose function is the annotated one, of all time
    that has one.
    """
    try:
        from mir_eval import segment
    except ImportError:
        raise InputError("measuring sections needs mir_eval; pip install mir_eval") from None
    true, guess = (intervals(parts) for parts in (annotated, found))
    measured: dict[str, float] = {}
    for window in WINDOWS:
        precision, recall, f1 = segment.detection(true, guess, window=window)
        name = f"{window:g}"
        measured |= {
            f"boundary_f1_{name}": f1,
            f"boundary_precision_{name}": precision,
            f"boundary_recall_{name}": recall,
        }
        measured[f"trimmed_f1_{name}"] = _trimmed(true, guess, window)
    labelled = (true, letters(annotated), guess, letters(found))
    precision, recall, measured["pairwise_f1"] = segment.pairwise(*labelled)
    measured |= {"pairwise_precision": precision, "pairwise_recall": recall}
    measured["v_measure"] = segment.vmeasure(*labelled)[2]
    return {name: float(value) for name, value in (measured | _accuracy(annotated, found)).items()}


def intervals(parts: Sequence[Section]) -> npt.NDArray[np.float64]:
    """Beginnings and ends, [S, 2]."""
    return np.array([(part.start, part.end) for part in parts])


def letters(parts: Sequence[Section]) -> list[str]:
    """What tells sections apart: a letter, "silence", or the function where there is no letter."""
    return [likeness(part) or part.label or "?" for part in parts]


def _trimmed(true: npt.NDArray[np.float64], guess: npt.NDArray[np.float64], window: float) -> float:
    """F-measure of the boundaries within a song; 1 where there are none, and none was found."""
    from mir_eval import segment

    if len(true) == 1 or len(guess) == 1:
        return float(len(true) == len(guess))
    return float(segment.detection(true, guess, window=window, trim=True)[2])


def _accuracy(annotated: Sequence[Section], found: Sequence[Section]) -> dict[str, float]:
    """Of the time that has an annotated function."""
    told = right = 0.0
    for part in annotated:
        if part.label:
            told += part.end - part.start
            shared = (
                max(0.0, min(part.end, f.end) - max(part.start, f.start)) for f in found if f.function == part.function
            )
            right += sum(shared)
    return {"function_accuracy": right / told} if told else {}
