"""How near chords are to what people wrote: weighted chord symbol recall (WCSR), by mir_eval's rules.

Of the time in which the truth has a chord of the kinds that a measure knows, the share in which the chord found is the
same to that measure (Pauwels and Peeters, ICASSP 2013; Raffel et al. 2014). "root" compares roots, "majmin" major and
minor triads, of which sevenths count as one, "sevenths" these and the sevenths on them; "mirex" asks for three
pitch classes in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from zoo.errors import InputError
from zoo.music.harte import NO_CHORD, OTHER, ChordSpan

MEASURES = ("root", "majmin", "sevenths", "mirex")

Times: TypeAlias = dict[str, tuple[float, float]]


def compare(truth: Sequence[ChordSpan], found: Sequence[ChordSpan]) -> Times:
    """By measure: seconds in which the chord is right, and seconds that it was asked for."""
    try:
        from mir_eval import chord, util
    except ImportError:
        raise InputError("measuring chords needs mir_eval; pip install mir_eval") from None

    def arrays(spans: Sequence[ChordSpan]) -> tuple[np.ndarray, list[str]]:
        kept = [span for span in spans if span.end > span.start]
        labels = [span.label if _is_label(span.label) else OTHER for span in kept]
        return np.array([(span.start, span.end) for span in kept]).reshape(-1, 2), labels

    (times, labels), (found_times, found_labels) = arrays(truth), arrays(found)
    if not labels:
        raise InputError("no chords to compare with")
    found_times, found_labels = util.adjust_intervals(
        found_times, found_labels, times.min(), times.max(), NO_CHORD, NO_CHORD
    )
    merged, labels, found_labels = util.merge_labeled_intervals(times, labels, found_times, found_labels)
    seconds = util.intervals_to_durations(merged)
    scores = {name: getattr(chord, name)(labels, found_labels) for name in MEASURES}
    return {name: (float(seconds[right > 0].sum()), float(seconds[right >= 0].sum())) for name, right in scores.items()}


def _is_label(label: str) -> bool:
    from mir_eval import chord

    try:
        chord.encode(label)
    except chord.InvalidChordException:
        return False
    return True


def recall(songs: Sequence[Times]) -> dict[str, float]:
    """Each measure over all songs together: a long song counts as much as it is long."""
    sums = {name: np.sum([song[name] for song in songs], axis=0) for name in MEASURES}
    return {name: float(right / max(asked, 1e-9)) for name, (right, asked) in sums.items()}
