"""How near a transcription is to the notes that were played, by mir_eval's measures (Raffel et al. 2014)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import io
from zoo.music.score import Score

REFERENCES = (".tsv", ".mid", ".midi")  # what stands beside a recording under its name, the first there is
FRAME = 0.01  # seconds
MEASURES = (
    "note_precision", "note_recall", "note_f1", "note_with_offset_f1", "frame_precision", "frame_recall", "frame_f1",
)  # fmt: skip


def reference(recording: Path) -> Score | None:
    """The notes beside a recording, None where there are none.

    A .tsv file has a line a note: onset and offset in seconds, MIDI pitch, and perhaps a velocity; # begins a comment.
    """
    for suffix in REFERENCES:
        if (path := recording.with_suffix(suffix)).is_file():
            return read_tsv(path) if suffix == ".tsv" else io.read(path)
    return None


def read_tsv(path: str | os.PathLike[str]) -> Score:
    """The notes of a .tsv file, a quarter a second. Raises InputError if they make no sense."""
    try:
        rows = np.loadtxt(path, ndmin=2, usecols=(0, 1, 2))
    except (OSError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not lines of onset, offset and pitch ({reason}); correct or remove it") from None
    rows = rows[rows[:, 1] > rows[:, 0]]
    return Score.of(*rows.T, tempos=np.array([[0.0, 60.0]]), source=str(path))


def compare(played: Score, found: Score) -> dict[str, float]:
    """Precision, recall and F-measure of notes and of frames.

    `note_…`: the pitch within 50 cents and the onset within 50 ms. `note_with_offset_f1`: and the offset within 50 ms
    or a fifth of the note. `frame_…`: which pitches sound, every 10 ms.
    """
    try:
        from mir_eval import multipitch, transcription
    except ImportError:
        raise InputError("measuring transcriptions needs mir_eval; pip install mir_eval") from None
    (times, pitches), (found_times, found_pitches) = _notes(played), _notes(found)
    if not len(times):
        raise InputError(f"{played.source}: has no notes to compare with; remove it")
    if not len(found_times):
        return dict.fromkeys(MEASURES, 0.0)
    precision, recall, f1, _ = transcription.precision_recall_f1_overlap(
        times, pitches, found_times, found_pitches, offset_ratio=None
    )
    _, _, whole, _ = transcription.precision_recall_f1_overlap(times, pitches, found_times, found_pitches)
    clock = np.arange(0.0, max(times.max(), found_times.max()), FRAME)
    played_frames = _sounding(clock, times, pitches)
    found_frames = _sounding(clock, found_times, found_pitches)
    frame_precision, frame_recall, *_ = multipitch.metrics(clock, played_frames, clock, found_frames)
    both = max(frame_precision + frame_recall, 1e-12)
    frames = (frame_precision, frame_recall, 2 * frame_precision * frame_recall / both)
    return {name: float(value) for name, value in zip(MEASURES, (precision, recall, f1, whole, *frames), strict=True)}


def _notes(score: Score) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(onset, offset) in seconds [N, 2] and Hz [N], drums left out."""
    score = score.select(~score.is_drum)
    times = np.stack([score.seconds_at(score.start), score.seconds_at(score.end)], axis=1)
    return times, 440.0 * 2.0 ** ((score.pitch - 69) / 12)


def _sounding(clock: npt.NDArray[np.float64], times: npt.NDArray[Any], pitches: npt.NDArray[Any]) -> list[Any]:
    """The pitches in Hz that sound at each time of the clock, each once."""
    sounding: list[set[float]] = [set() for _ in clock]
    for (first, last), hz in zip(np.searchsorted(clock, times), pitches.tolist(), strict=True):
        for frame in sounding[first:last]:
            frame.add(hz)
    return [np.array(sorted(frame)) for frame in sounding]
