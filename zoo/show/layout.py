"""Where things lie on a piano roll, before anything is drawn: the same for the PNG and for the page.

x is in quarter notes from the beginning. y is in rows, upwards: drums first, one row for each piece of the kit that is
used, then a gap of one row, then a row for each semitone of the range that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.music.metre import grid
from zoo.music.score import Score

NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
BLACK = (1, 3, 6, 8, 10)

# General MIDI Level 1, percussion key map, from key 35 up.
# fmt: off
_KIT_FROM_35 = [
    "Bass drum 2", "Bass drum", "Side stick", "Snare", "Clap", "Electric snare", "Low floor tom", "Closed hi-hat",
    "High floor tom", "Pedal hi-hat", "Low tom", "Open hi-hat", "Low-mid tom", "High-mid tom", "Crash", "High tom",
    "Ride", "Chinese cymbal", "Ride bell", "Tambourine", "Splash", "Cowbell", "Crash 2", "Vibraslap", "Ride 2",
    "High bongo", "Low bongo", "Mute conga", "Open conga", "Low conga", "High timbale", "Low timbale", "High agogô",
    "Low agogô", "Cabasa", "Maracas", "Short whistle", "Long whistle", "Short güiro", "Long güiro", "Claves",
    "High wood block", "Low wood block", "Mute cuíca", "Open cuíca", "Mute triangle", "Open triangle",
]
# fmt: on
KIT = dict(enumerate(_KIT_FROM_35, start=35)) | {22: "Hi-hat edge", 26: "Open edge"}
# What Roland's electronic kits, and so the Groove data, send for the hi-hat's edge; General MIDI has no keys for it.
ROLAND = {22: 42, 26: 46}

# By part.
COLOURS = ("#4f6df5", "#e8743b", "#19a979", "#945ecf", "#d64292", "#13a4b4", "#b5901c", "#6c8893")


@dataclass(frozen=True)
class Layout:
    """Geometry of one roll, `N` notes.

    Attributes:
      left, right: float64 [N], quarters.
      row: int [N], each note's row.
      part: int [N], 0 … parts − 1 in order of track; chooses the colour.
      parts: the parts' names.
      rows: how many rows there are.
      labels: (row, text) for the axis.
      shaded: the rows of black keys.
      drums: how many of the rows are drums'.
      bars: float64, where bars begin, up to and including the end of the last.
      beats: float64, where the other beats begin.
      end: quarters, the end of the last bar.
    """

    left: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]
    row: npt.NDArray[np.int64]
    part: npt.NDArray[np.int64]
    parts: tuple[str, ...]
    rows: int
    labels: tuple[tuple[int, str], ...]
    shaded: tuple[int, ...]
    drums: int
    bars: npt.NDArray[np.float64]
    beats: npt.NDArray[np.float64]
    end: float


def layout(score: Score, beside: Sequence[Score] = ()) -> Layout:
    """The roll of `score`; its rows and length also hold the scores `beside` it, so that all can be compared."""
    everything = [score, *beside]
    kit = sorted({int(p) for s in everything for p in s.pitch[s.is_drum]}, key=lambda p: (ROLAND.get(p, p), p))
    pitches = np.concatenate([s.pitch[~s.is_drum] for s in everything])
    low, high = _range(pitches) if len(pitches) else (60, 59 if kit else 72)
    base = len(kit) + (1 if kit and high >= low else 0)
    drum_row = [kit.index(p) if p in kit else 0 for p in score.pitch.tolist()]
    bars, beats = grid(score, max(s.quarters for s in everything))
    tracks, part = np.unique(score.track, return_inverse=True)
    keys = range(low, high + 1)
    return Layout(
        left=score.start,
        right=score.end,
        row=np.where(score.is_drum, drum_row, score.pitch - low + base).astype(np.int64),
        part=part.astype(np.int64),
        parts=tuple(_part_name(score, int(t)) for t in tracks),
        rows=base + len(keys),
        labels=tuple((i, KIT.get(p, f"Drum {p}")) for i, p in enumerate(kit))
        + tuple((base + k - low, pitch_name(k)) for k in keys if _labelled(k, len(keys))),
        shaded=tuple(base + k - low for k in keys if k % 12 in BLACK),
        drums=len(kit),
        bars=bars,
        beats=beats,
        end=float(bars[-1]),
    )


def pitch_name(pitch: int) -> str:
    """The name of a MIDI pitch, 60 being C4."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def summary(score: Score) -> str:
    """One line about a score: bars, tempo, notes and range."""
    bars = len(grid(score, score.quarters)[0]) - 1
    tempo = score.tempos[0, 1] if len(score.tempos) else 120.0
    facts = [_count(bars, "bar"), f"{tempo:.0f} bpm", _count(len(score), "note")]
    pitches = score.pitch[~score.is_drum]
    if len(pitches):
        facts.append(f"{pitch_name(int(pitches.min()))}–{pitch_name(int(pitches.max()))}")
    return " · ".join(facts)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _range(pitches: npt.NDArray[np.int32]) -> tuple[int, int]:
    """The semitones shown: those used, one more on either side, and at least an octave."""
    low, high = int(pitches.min()) - 1, int(pitches.max()) + 1
    spare = max(0, 12 - (high - low))
    return max(0, low - spare // 2), min(127, high + spare - spare // 2)


def _labelled(pitch: int, rows: int) -> bool:
    """Which pitches the axis names: the white keys in a narrow range, C and G in a wider one, then only C."""
    return pitch % 12 in ((0, 2, 4, 5, 7, 9, 11) if rows <= 20 else (0, 7) if rows <= 40 else (0,))


def _part_name(score: Score, track: int) -> str:
    named = score.track_names[track] if track < len(score.track_names) else ""
    drums = score.is_drum[score.track == track].all()
    return named.strip() or ("Drums" if drums else f"Part {track + 1}")
