"""Lead sheets as Magenta's Improv RNN has them: at each sixteenth a melody event and the chord it stands in.

Events are those of `zoo.music.melody_events`, chords those of `zoo.music.chords`; both are moved to C together, by the
key of the melody (note_seq's `LeadSheet.squash`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.chords import NO_CHORD, move_chords, pack_chord
from zoo.music.grid import STEPS_PER_BAR, Array, quantize, sections, source, window_starts
from zoo.music.melody import FIRST_PITCH, MIN_PITCH, Line, Tokens
from zoo.music.melody_events import MelodyEventsCodec, shift_to_c
from zoo.music.score import Score

NONE = ("N.C.", "NC", "N")  # how to write that there is no chord


@dataclass(frozen=True)
class LeadSheetCodec(MelodyEventsCodec):
    """Score with chord symbols ⇄ windows int32 [T, 2] of melody events and packed chords.

    Attributes: as for the melody events.
    """

    name: ClassVar[str] = "lead-sheet"

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """All windows of the score's melodies that have an onset, every `hop_bars` bars, int32 [W, T, 2].

        Raises:
          InputError: nothing usable; the message says why.
        """
        lines = self._lines(score)
        spans = [(line.start, line.end) for line in lines]
        starts = window_starts(spans, self.bars, hop_bars, self.gap_bars, pad, source(score))
        found = [self._cut(score, line, first, self.steps) for line, first in zip(lines, starts, strict=True)]
        return np.concatenate(found)

    def tokens(self, score: Score) -> Tokens:
        """The first melody of the score with its chords, int32 [S, 2]. Errors as for `windows`."""
        line = self._lines(score)[0]
        first = int(line.start[0]) // STEPS_PER_BAR * STEPS_PER_BAR
        return self._cut(score, line, np.array([first]), int(line.end[-1]) - first)[0]

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The notes of events [T], or of events with their chords [T, 2]."""
        tokens = np.asarray(window)
        return super().decode(tokens[:, 0] if tokens.ndim > 1 else tokens, qpm, velocity)

    def chords(self, symbols: list[str], steps: int = STEPS_PER_BAR) -> npt.NDArray[np.int32]:
        """Packed chords of `steps` steps each, int32 [steps · symbols], for a model's `context`; moved by `shift`.

        Raises:
          InputError: a symbol that can't be read.
        """
        for symbol in symbols:
            if symbol not in NONE and pack_chord(symbol) == NO_CHORD:
                raise InputError(f"{symbol!r} is no chord symbol; write such as C, Am, F#m7, Bb/D, or N.C. for none")
        packed = np.repeat(np.array([pack_chord(symbol) for symbol in symbols], np.int32), steps)
        return packed if self.shift == -128 else move_chords(packed, self.shift)

    def _lines(self, score: Score) -> list[Line]:
        if not score.chords:
            raise InputError(f"{source(score)}: has no chord symbols; pass a lead sheet, in MusicXML or ABC say")
        if len(sections(score)) > 1:
            raise InputError(f"{source(score)}: changes its metre, which lead sheets can't here; pass a part of it")
        return self._melody(self.bars).lines(score)

    def _cut(self, score: Score, line: Line, first: Array, steps: int) -> Tokens:
        """Windows [W, steps, 2] that begin at steps `first`."""
        wide = line.cut(first, steps)
        wide = wide * np.maximum.accumulate(wide >= FIRST_PITCH, axis=1)
        places = first[:, None] + np.arange(steps)
        at = quantize([time for time, _ in score.chords])
        packed = np.array([NO_CHORD, *(pack_chord(symbol) for _, symbol in score.chords)], np.int32)
        chords = packed[np.searchsorted(at, places, side="right")]
        if self.shift == -128:
            shift = shift_to_c(wide - FIRST_PITCH + MIN_PITCH, wide >= FIRST_PITCH)
        else:
            shift = np.full(len(wide), self.shift)
        return np.stack([self._fitted(wide), move_chords(chords, shift[:, None])], axis=-1).astype(np.int32)
