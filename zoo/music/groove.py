"""Drum performances as GrooVAE has them (Gillick et al. 2019): hits, velocities and micro-timing of nine drums.

A sixteenth is 27 numbers: 9 hits (0 or 1), 9 velocities (0 to 1: MIDI / 127), 9 offsets (-1 to 1: how much earlier than
the step the drum is struck, in half steps, so that 1 is half a step early). Where there is no hit all three are 0; of
two hits of a drum in one step the louder stays. As in Magenta's `GrooveConverter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.drums import DRUM_PITCHES, DRUMS, cut_hits, drum_score, kit_sections
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER, Array, quantize, source
from zoo.music.score import Score

Groove: TypeAlias = npt.NDArray[np.float32]

GIVEN = ("all", "hits", "taps")
_TAP = DRUMS.index("open hi-hat")  # the drum that stands for a tap


@dataclass(frozen=True)
class GrooveCodec:
    """Score ⇄ windows of performed drums, float32 [T, 27].

    Attributes:
      bars: length of a window; `steps` is 16 times that.
      given: what the encoder sees of a window: "all" of it; "hits" without velocity and timing, to humanise a score
        (Magenta's `humanize`); or "taps", the timing of the loudest drum of each step (`tapify`, `fixed_velocities`).
      kit: which pitches are which drum when encoding: "gm", or "roland" for the Groove MIDI Dataset.
    """

    bars: int = 2
    given: str = "all"
    kit: str = "gm"

    name: ClassVar[str] = "groove"
    kind: ClassVar[str] = "groove"
    classes: ClassVar[int] = 3 * len(DRUMS)
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    def __post_init__(self) -> None:
        if self.given not in GIVEN:
            raise InputError(f"given={self.given!r} is none of {', '.join(GIVEN)}")

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Groove:
        """All windows of the score's drums that have a hit, every `hop_bars` bars, float32 [W, T, 27].

        They begin with the bar of the first hit (Magenta's with the file); rests do not end them.

        Raises:
          InputError: nothing usable; the message says why.
        """
        hits = [_performance(part) for part in kit_sections(score, self.kit)]
        return cut_hits(hits, self.bars, hop_bars, np.inf, pad, source(score))

    def inputs(self, windows: Any) -> Any:
        """What the encoder is given of windows [..., T, 27], by `given`; NumPy or JAX in, the same out."""
        if self.given == "all":
            return windows
        xp = windows.__array_namespace__()
        hits, velocities, offsets = (windows[..., i : i + len(DRUMS)] for i in range(0, self.classes, len(DRUMS)))
        none = xp.zeros_like(hits)
        if self.given == "hits":
            return xp.concatenate([hits, none, none], axis=-1)
        loudest = xp.argmax(velocities, axis=-1, keepdims=True)
        tap = xp.arange(len(DRUMS)) == _TAP
        hits, offsets = (xp.take_along_axis(values, loudest, axis=-1) * tap for values in (hits, offsets))
        return xp.concatenate([hits, none, offsets], axis=-1).astype(windows.dtype)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The hits (over 0.5) of one window [T, 27], a sixteenth long each; none begins before 0."""
        hits, velocities, offsets = np.split(np.asarray(window, np.float64), 3, axis=-1)
        step, drum = np.nonzero(hits > 0.5)
        at = np.maximum(step - np.clip(offsets[step, drum], -1, 1) / 2, 0)
        velocity = np.clip(np.round(velocities[step, drum] * 127), 1, 127)
        return drum_score(at, DRUM_PITCHES[drum], velocity, qpm)

    def transpose(self, windows: Groove, semitones: npt.ArrayLike) -> Groove:
        """The windows as they are: drums have no key."""
        return windows


def _performance(notes: Score) -> tuple[Array, Groove]:
    """What `kit_notes` gives as (steps where there are hits, ascending; float32 [N, 27])."""
    order = np.lexsort((-np.arange(len(notes)), notes.velocity))  # the loudest is written last, of equals the first
    at = notes.start[order] * STEPS_PER_QUARTER
    nearest = quantize(notes.start[order])
    step, index = np.unique(nearest, return_inverse=True)
    values = np.zeros((len(step), 3, len(DRUMS)), np.float32)
    values[index, :, notes.pitch[order]] = np.column_stack(
        [np.ones(len(order)), notes.velocity[order] / 127, 2 * (nearest - at)]
    )
    return step, values.reshape(len(step), -1)
