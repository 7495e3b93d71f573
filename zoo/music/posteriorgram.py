"""Posteriorgrams → notes: how likely each pitch sounds and begins in each frame, made a list of notes with bends.

What Basic Pitch's package does (Bittner et al. 2022, section 3.4), note for note, in a time that grows with the length
of the sound and not with its square, and in a byte of memory for each frame and pitch. `T` frames, `P` pitches, `S`
contour bins a semitone. Posteriorgrams are arrays or `Rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.music.score import Score
from zoo.nn.rows import Rows

Floats = npt.NDArray[np.floating]

AT_ONCE = 4096  # frames; the rest may wait on disk
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
    note: Floats | Rows,
    onset: Floats | Rows,
    *,
    onset_threshold: float,
    frame_threshold: float,
    shortest: int,
    infer_onsets: bool,
    melodia: bool,
    within: Floats | None = None,
) -> list[Note]:
    """Notes in the posteriorgrams [T, P]: those that begin with an onset, the last first, then those that don't.

    Args:
      onset_threshold: an onset is a peak in time of at least so much.
      frame_threshold: a note lasts while `note` is at least so much, gaps under GAP frames apart.
      shortest: notes must be longer than so many frames.
      infer_onsets: also where `note` suddenly rises there is an onset.
      melodia: also take what remains above the threshold with no onset, the strongest first.
      within: float32 [P], 1 for the pitches that there may be, 0 for others.
    """
    weights = np.ones(note.shape[1], np.float32) if within is None else within
    remaining = _Remaining(note, frame_threshold, weights)
    found = []
    for start, place in _onsets(note, onset, onset_threshold, weights, infer_onsets)[::-1].tolist():
        if start < len(note) - 1:
            end = remaining.end(place, start + 1)[0]
            if end - start > shortest:
                remaining.clear(place, start, end)
                found.append((start, end, place))
    if melodia:
        found += _without_onset(remaining, note, frame_threshold, shortest)
    return [Note(*at, float(np.mean(note[at[0] : at[1]][:, at[2]]))) for at in found]


def _without_onset(
    remaining: _Remaining, note: Floats | Rows, threshold: float, shortest: int
) -> list[tuple[int, int, int]]:
    """Around the strongest cell left, again and again, as far as it goes both ways (after Salamon and Gómez 2012).

    Cells are only ever cleared, so the order in which they are the strongest can be had at once, by sorting.
    """
    cells, values = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for at in range(0, len(note), AT_ONCE):
        part = note[at : at + AT_ONCE]
        left = np.argwhere(remaining.cells(at, at + len(part)) & (part > threshold))
        cells.append(left + np.array([at, 0]))
        values.append(part[tuple(left.T)].astype(np.float64))
    order = np.argsort(-np.concatenate(values), kind="stable")
    found = []
    for middle, place in np.concatenate(cells)[order].tolist():
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

    def __init__(self, note: Floats | Rows, threshold: float, within: Floats) -> None:
        self.rows = [bytearray() for _ in within]
        for at in range(0, len(note), AT_ONCE):
            over = (note[at : at + AT_ONCE] * within).astype(np.float64) >= threshold
            for row, column in zip(self.rows, over.T.astype(np.uint8), strict=True):
                row += column.tobytes()
        self.last = len(note) - 1

    def cells(self, first: int, end: int) -> npt.NDArray[np.bool_]:
        """Those of the frames from `first` until before `end`, [n, P]."""
        return np.stack([np.frombuffer(bytes(row[first:end]), np.bool_) for row in self.rows], axis=1)

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


def _onsets(
    note: Floats | Rows, onset: Floats | Rows, threshold: float, within: Floats, infer: bool
) -> npt.NDArray[np.int64]:
    """Frame and place of peaks in time of at least `threshold`, [n, 2], the first frame first.

    With `infer` these are peaks of `onset` or of `_rises` of `note`, whichever is higher, which are scaled so that the
    largest of all is that of `onset`.
    """
    cuts = [slice(max(0, at - 1), min(at + AT_ONCE + 1, len(note))) for at in range(0, len(note), AT_ONCE)]
    highest = max((_rises(note, cut, within).max() for cut in cuts), default=0.0) if infer else 0.0
    loudest = max((float((onset[cut] * within).max()) for cut in cuts), default=0.0)
    found = [np.zeros((0, 2), np.int64)]
    for cut in cuts:  # with a frame on either side, for a peak to show
        x = (onset[cut] * within).astype(np.float64)
        if highest > 0:
            x = np.maximum(x, loudest * _rises(note, cut, within) / highest)
        found.append(np.argwhere(_peaks(x) & (x >= threshold)) + np.array([cut.start, 0]))
    return np.concatenate(found)


def _rises(note: Floats | Rows, cut: slice, within: Floats) -> npt.NDArray[np.float64]:
    """How much `note` rose in the frames of a cut from one and from two frames before, the lesser; 0 if it fell."""
    heard = (note[max(0, cut.start - 2) : cut.stop] * within).astype(np.float64)
    rise = np.zeros_like(heard)
    rise[2:] = np.maximum(np.minimum(heard[2:] - heard[1:-1], heard[2:] - heard[:-2]), 0.0)
    return rise[len(rise) - (cut.stop - cut.start) :]


def _peaks(x: Floats) -> npt.NDArray[np.bool_]:
    """Where `x` [T, P] is above the frame before and the one after."""
    found = np.zeros(x.shape, np.bool_)
    found[1:-1] = (x[1:-1] > x[:-2]) & (x[1:-1] > x[2:])
    return found


def find_bends(contour: Floats | Rows, notes: Sequence[Note], per_semitone: int) -> list[npt.NDArray[np.int64]]:
    """How far each note's pitch is from its key in each of its frames, in contour bins, from `contour` [T, P · S]."""
    bins = np.arange(-REACH, REACH + 1)
    weight = np.exp(-0.5 * (bins / SPREAD) ** 2)
    found = []
    for note in notes:
        middle = note.place * per_semitone
        inside = slice(max(0, REACH - middle), len(bins) - max(0, middle + REACH + 1 - contour.shape[1]))
        seen = contour[note.start : note.end][:, middle + bins[inside][0] : middle + bins[inside][-1] + 1]
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
