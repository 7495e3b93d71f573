"""How near found beats are to annotated ones, by mir_eval's measures (Raffel et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.errors import InputError
from zoo.music.beats import Beat

LEFT_OUT = 5.0  # seconds at a recording's beginning
FEWEST = 4  # beats after that by which a recording is judged


def measurable(annotated: Sequence[Beat]) -> bool:
    """Whether a recording is long enough: four beats after the first 5 s."""
    return sum(beat.time >= LEFT_OUT for beat in annotated) >= FEWEST


def compare(annotated: Sequence[Beat], found: Sequence[Beat]) -> dict[str, float]:
    """Measures of one recording, the first 5 s left out as is usual.

    `beat_f1`, `downbeat_f1`: of beats, and of those that begin bars, within 70 ms. `cmlt`: the share of beats found
    where one after another is right; `amlt`: the same where twice or half the tempo, or off the beat, is right too.
    """
    try:
        from mir_eval import beat
    except ImportError:
        raise InputError("measuring beats needs mir_eval; pip install mir_eval") from None
    kept = [[each for each in beats if each.time >= LEFT_OUT] for beats in (annotated, found)]
    true, guess = (np.array([each.time for each in beats]) for beats in kept)
    bars = (np.array([each.time for each in beats if each.place == 1]) for beats in kept)
    if not len(guess) or not len(true):
        return dict.fromkeys(("beat_f1", "downbeat_f1", "cmlt", "amlt"), 0.0)
    _, cmlt, _, amlt = beat.continuity(true, guess)
    downs = [*bars]
    f1 = beat.f_measure(*downs) if all(map(len, downs)) else 0.0
    return {"beat_f1": float(beat.f_measure(true, guess)), "downbeat_f1": float(f1), "cmlt": cmlt, "amlt": amlt}
