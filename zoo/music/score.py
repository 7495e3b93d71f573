"""`Score`: notes as columns, the one form every reader produces and every codec consumes.

Times are in quarter notes, not seconds: models of symbolic music count beats, and a tempo change must not move a
note on their grid. The tempo map turns quarters into seconds and back. Plain NumPy: nothing here imports note_seq or
symusic, so bulk reading stays fast and `import zoo` stays light.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


def _empty(columns: int) -> Floats:
    return np.zeros((0, columns))


@dataclass(frozen=True)
class Score:
    """`N` notes, sorted by (start, pitch), with the tempo, metre and chord symbols they stand in.

    Attributes:
      start, end: float64 [N], onset and offset in quarter notes from the beginning of the file.
      pitch: int32 [N], MIDI pitch 0–127.
      velocity: int32 [N], MIDI velocity 1–127.
      track: int32 [N], index of the part (`instrument` in a NoteSequence).
      program: int32 [N], General MIDI program 0–127.
      is_drum: bool [N].
      tempos: float64 [M, 2], rows of (quarter, quarter notes a minute); empty means 120 throughout.
      meters: float64 [K, 3], rows of (quarter, numerator, denominator); empty means 4/4 throughout.
      bends: float64 [P, 3], rows of (quarter, track, pitch bend), −8192 to 8191 for two semitones down to two up; a
        bend holds for its track until the next.
      chords: chord symbols as (quarter, symbol), e.g. (4.0, "Am7"); "N.C." for none.
      track_names: names by track index, "" where the file gives none.
      source: where it was read from, for messages.
    """

    start: Floats
    end: Floats
    pitch: Ints
    velocity: Ints
    track: Ints
    program: Ints
    is_drum: Bools
    tempos: Floats = field(default_factory=lambda: _empty(2))
    meters: Floats = field(default_factory=lambda: _empty(3))
    bends: Floats = field(default_factory=lambda: _empty(3))
    chords: tuple[tuple[float, str], ...] = ()
    track_names: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(
        cls,
        start: npt.ArrayLike,
        end: npt.ArrayLike,
        pitch: npt.ArrayLike,
        velocity: npt.ArrayLike = 80,
        track: npt.ArrayLike = 0,
        program: npt.ArrayLike = 0,
        is_drum: npt.ArrayLike = False,
        **rest: Any,
    ) -> Score:
        """A score from columns in any order; scalars are broadcast to all notes. `rest` are the other fields."""
        start = np.atleast_1d(np.asarray(start, np.float64))
        order = np.lexsort((np.broadcast_to(pitch, start.shape), start))

        def column(values: npt.ArrayLike, dtype: type) -> Any:
            return np.broadcast_to(np.asarray(values, dtype), start.shape)[order].copy()

        return cls(
            start[order],
            column(end, np.float64),
            column(pitch, np.int32),
            column(velocity, np.int32),
            column(track, np.int32),
            column(program, np.int32),
            column(is_drum, np.bool_),
            **rest,
        )

    def select(self, mask: npt.ArrayLike) -> Score:
        """The notes where `mask` (bool [N]) is true; all else stays."""
        mask = np.asarray(mask)
        columns = {name: getattr(self, name)[mask] for name in _COLUMNS}
        return replace(self, **columns)

    @property
    def quarters(self) -> float:
        """Length in quarter notes: the last offset."""
        return float(self.end.max()) if len(self) else 0.0

    @property
    def qpm(self) -> float:
        """Its first tempo in quarter notes a minute, 120 where it has none."""
        return float(self.tempos[0, 1]) if len(self.tempos) else 120.0

    def seconds_at(self, quarters: npt.ArrayLike) -> Floats:
        """Seconds at positions in quarter notes, through the tempo map."""
        at, seconds, qpm = self._tempo_map()
        quarters = np.asarray(quarters, np.float64)
        i = np.clip(np.searchsorted(at, quarters, side="right") - 1, 0, None)
        return seconds[i] + (quarters - at[i]) * 60.0 / qpm[i]

    def quarters_at(self, seconds: npt.ArrayLike) -> Floats:
        """Positions in quarter notes at times in seconds, through the tempo map."""
        at, start, qpm = self._tempo_map()
        seconds = np.asarray(seconds, np.float64)
        i = np.clip(np.searchsorted(start, seconds, side="right") - 1, 0, None)
        return at[i] + (seconds - start[i]) * qpm[i] / 60.0

    def _tempo_map(self) -> tuple[Floats, Floats, Floats]:
        """Tempo segments as (start in quarters, start in seconds, qpm), the first at 0."""
        tempos = self.tempos if len(self.tempos) else np.array([[0.0, 120.0]])
        if tempos[0, 0] > 0:
            tempos = np.vstack([[0.0, 120.0], tempos])
        at, qpm = tempos[:, 0], tempos[:, 1]
        seconds = np.concatenate([[0.0], np.cumsum(np.diff(at) * 60.0 / qpm[:-1])])
        return at, seconds, qpm


_COLUMNS = ("start", "end", "pitch", "velocity", "track", "program", "is_drum")
