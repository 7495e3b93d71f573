"""Posteriorgrams → notes: how likely each pitch sounds and begins in each frame, made a list of notes with bends.

What Basic Pitch's package does (Bittner et al. 2022, section 3.4), note for note, in a time that grows with the length
of the sound and not with its square. `T` frames, `P` pitches, `S` contour bins a semitone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score

Floats = npt.NDArray[np.floating]

GAP = 11  # frames that a note may stay below the threshold before it counts as ended
REACH = 25  # contour bins above and below a note in which its bend is looked for
SPREAD = 5.0  # bins, the standard deviation of the weight on them
SEMITONE = 4096  # of a MIDI pitch bend, whose 14 bits reach two semitones either way


class Note(NamedTuple):
    """One note: its first frame, the first one after it, its place among the pitches, and its mean probability."""

    start: int
    end: int
    place: int
    amplitude: float


def find_notes(
    note: Floats,
    onset: Floats,
    *,
    onset_threshold: float,
    frame_threshold: float,
    shortest: int,
    infer_onsets: bool,
    melodia: bool,
) -> list[Note]:
    """Notes in the posteriorgrams [T, P]: those that begin with an onset, the last first, then those that don't.

    Args:
      onset_threshold: an onset is a peak in time of at least so much.
      frame_threshold: a note lasts while `note` is at least so much, gaps under GAP frames apart.
      shortest: notes must be longer than so many frames.
      infer_onsets: also where `note` suddenly rises there is an onset.
      melodia: also take what remains above the threshold with no onset, the strongest first.
    """
    remaining = _Remaining(note, frame_threshold)
    onsets = np.maximum(onset, _rises(onset, note)) if infer_onsets else np.asarray(onset, np.float64)
    found = []
    for start, place in np.argwhere(_peaks(onsets) & (onsets >= onset_threshold))[::-1].tolist():
        if start < len(note) - 1:
            end = remaining.end(place, start + 1)[0]
            if end - start > shortest:
                remaining.clear(place, start, end)
                found.append((start, end, place))
    if melodia:
        found += _without_onset(remaining, note, frame_threshold, shortest)
    return [Note(*at, float(np.mean(note[at[0] : at[1], at[2]]))) for at in found]


def _without_onset(remaining: _Remaining, note: Floats, threshold: float, shortest: int) -> list[tuple[int, int, int]]:
    """Around the strongest cell left, again and again, as far as it goes both ways (after Salamon and Gómez 2012).

    Cells are only ever cleared, so the order in which they are the strongest can be had at once, by sorting.
    """
    places = note.shape[1]
    cells = np.flatnonzero(remaining.over)
    values = note.ravel()[cells]
    cells = cells[values > threshold]
    cells = cells[np.argsort(-note.ravel()[cells].astype(np.float64), kind="stable")]
    found = []
    for middle, place in zip((cells // places).tolist(), (cells % places).tolist(), strict=True):
        if remaining.rows[place][middle]:
            remaining.rows[place][middle] = 0
            end, reached = remaining.end(place, middle + 1)
            start, begun = remaining.start(place, middle)
            remaining.clear(place, middle + 1, reached)
            remaining.clear(place, begun, middle)
            if end - 1 - start > shortest:
                found.append((start, end - 1, place))
    return found


class _Remaining:
    """Which cells [T, P] are above the threshold and belong to no note yet; a row of bytes for each pitch."""

    def __init__(self, note: Floats, threshold: float) -> None:
        self.over = np.asarray(note, np.float64) >= threshold
        self.rows = [bytearray(column.tobytes()) for column in self.over.T.astype(np.uint8)]
        self.last = len(note) - 1

    def end(self, place: int, frame: int) -> tuple[int, int]:
        """From `frame` on: where the pitch ends, and the first frame after the gap that shows it."""
        row, stop = self.rows[place], max(frame, self.last)
        gap = row.find(bytes(GAP), frame, stop)
        if gap >= 0:
            return gap, gap + GAP
        return frame + len(row[frame:stop].rstrip(b"\0")), stop

    def start(self, place: int, frame: int) -> tuple[int, int]:
        """Before `frame`: where the pitch starts, and the first frame of the gap before it; never frame 0."""
        row = self.rows[place]
        gap = row.rfind(bytes(GAP), 1, frame)
        if gap >= 0:
            return gap + GAP, gap
        before = row[1:frame]
        return min(1 + len(before) - len(before.lstrip(b"\0")), frame), 1

    def clear(self, place: int, first: int, end: int) -> None:
        """Takes the frames from `first` until before `end` out, of the pitch and its neighbours."""
        if end > first:
            for near in range(max(0, place - 1), min(len(self.rows), place + 2)):
                self.rows[near][first:end] = bytes(end - first)


def _rises(onset: Floats, note: Floats) -> Floats:
    """How much `note` rose from one and from two frames before, the lesser; scaled so that the largest is `onset`'s."""
    note = np.asarray(note, np.float64)
    rise = np.zeros_like(note)
    rise[2:] = np.maximum(np.minimum(note[2:] - note[1:-1], note[2:] - note[:-2]), 0.0)
    highest = rise.max(initial=0.0)
    return onset.max() * rise / highest if highest > 0 else rise


def _peaks(x: Floats) -> npt.NDArray[np.bool_]:
    """Where `x` [T, P] is above the frame before and the one after."""
    found = np.zeros(x.shape, np.bool_)
    found[1:-1] = (x[1:-1] > x[:-2]) & (x[1:-1] > x[2:])
    return found


def find_bends(contour: Floats, notes: Sequence[Note], per_semitone: int) -> list[npt.NDArray[np.int64]]:
    """How far each note's pitch is from its key in each of its frames, in contour bins, from `contour` [T, P · S]."""
    bins = np.arange(-REACH, REACH + 1)
    weight = np.exp(-0.5 * (bins / SPREAD) ** 2)
    found = []
    for note in notes:
        middle = note.place * per_semitone
        inside = slice(max(0, REACH - middle), len(bins) - max(0, middle + REACH + 1 - contour.shape[1]))
        seen = contour[note.start : note.end, middle + bins[inside][0] : middle + bins[inside][-1] + 1]
        found.append(bins[inside][np.argmax(seen * weight[inside], axis=1)])
    return found


def to_score(
    notes: Sequence[Note],
    bends: Sequence[npt.NDArray[np.int64]] | None,
    times: npt.NDArray[np.float64],
    *,
    lowest: int,
    per_semitone: int = 1,
    separate: bool = False,
    program: int = 0,
    qpm: float = 120.0,
    source: str = "",
) -> Score:
    """Notes as a Score, velocity from their amplitude, at one tempo; `times` are the seconds of the frames.

    A bend moves all that sounds in its part, so notes that overlap have none. With `separate` every pitch is a part of
    its own, with its own bends. A note without bends after one with some begins by undoing the last.
    """
    order = sorted(range(len(notes)), key=lambda i: notes[i])
    quarter = qpm / 60.0
    start = times[np.array([notes[i].start for i in order], int)] * quarter
    end = times[np.array([notes[i].end for i in order], int)] * quarter
    place = np.array([notes[i].place for i in order], np.int32)
    parts, track = np.unique(place, return_inverse=True) if separate else (place[:0], np.zeros(len(order), np.int64))
    bent = {k: bends[i] for k, i in enumerate(order)} if bends is not None else {}
    if not separate:
        for k in _overlapping(start, end):
            bent.pop(k, None)
    rows: list[tuple[float, int, int]] = []
    last: dict[int, int] = {}
    for k, part in enumerate(track.tolist()):
        values = np.zeros(1) if k not in bent else np.clip(np.round(bent[k] * (SEMITONE / per_semitone)), -8192, 8191)
        if k in bent or last.get(part, 0):
            at = np.linspace(start[k], end[k], len(values)) if k in bent else start[k : k + 1]
            rows += zip(at.tolist(), [part] * len(at), values.astype(int).tolist(), strict=True)
            last[part] = int(values[-1])
    return Score.of(
        start,
        end,
        place + lowest,
        np.clip(np.round([127 * notes[i].amplitude for i in order]), 1, 127),
        track,
        program,
        tempos=np.array([[0.0, qpm]]),
        bends=np.array(sorted(rows, key=lambda row: row[0]), np.float64).reshape(-1, 3),
        track_names=tuple(f"pitch {lowest + p}" for p in parts),
        source=source,
    )


def _overlapping(start: Floats, end: Floats) -> set[int]:
    """The notes, sorted by start, that sound together with another."""
    found: set[int] = set()
    latest = -1  # of the notes so far the one that ends last
    for k in range(len(start)):
        if latest >= 0 and start[k] < end[latest]:
            found |= {latest, k}
        if latest < 0 or end[k] > end[latest]:
            latest = k
    return found
