"""Four voices as one sequence: at each sixteenth a token for soprano, alto, tenor and bass (Huang et al. 2018, §4.1).

    0 silence
    1 + (pitch - 36) the voice sounds this pitch, C2 to A5 (36 to 81), the range of Bach's chorales

As in the data sets of the chorales nothing tells a repeated note from a held one. A piece ends with its last note; what
is left of a window is padding, which no model is asked to predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import QUARTERS_PER_BAR, STEPS_PER_BAR, STEPS_PER_QUARTER, quantize, source
from zoo.music.score import Score

VOICES = ("Soprano", "Alto", "Tenor", "Bass")
MIN_PITCH, MAX_PITCH = 36, 81
SILENCE, FIRST_PITCH = 0, 1
CLASSES = FIRST_PITCH + MAX_PITCH - MIN_PITCH + 1

Tokens: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SerialCodec:
    """Score ⇄ windows of tokens, int32 [4 T], T sixteenths; past the end of the piece they are `classes`.

    Attributes:
      bars: length of a window; T is 16 times that.
    """

    bars: int = 4

    name: ClassVar[str] = "chorale-tokens"
    kind: ClassVar[str] = "sequence"
    classes: ClassVar[int] = CLASSES
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    @property
    def steps(self) -> int:
        """Tokens of a window."""
        return self.bars * STEPS_PER_BAR * len(VOICES)

    def tokens(self, score: Score) -> Tokens:
        """The whole piece, int32 [4 T].

        Raises:
          InputError: it is not in four voices, or one leaves the range.
        """
        voices = _voices(score)
        steps = int(quantize(score.quarters))
        grid = np.zeros((steps, len(VOICES)), np.int32)
        for voice, notes in enumerate(voices):
            if len(notes) and not MIN_PITCH <= notes.pitch.min() <= notes.pitch.max() <= MAX_PITCH:
                raise InputError(f"{source(score)}: its {VOICES[voice].lower()} leaves C2 to A5; transpose it")
            for start, end, pitch in zip(quantize(notes.start), quantize(notes.end), notes.pitch, strict=True):
                grid[start : max(end, start + 1), voice] = FIRST_PITCH + pitch - MIN_PITCH
        if not grid.any():
            raise InputError(f"{source(score)}: no notes; pass a piece in four voices")
        return grid.reshape(-1)

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """Windows every `hop_bars` bars, int32 [W, 4 T], the last one reaching the end of the piece or past it."""
        tokens = self.tokens(score)
        hop = hop_bars * STEPS_PER_BAR * len(VOICES)
        count = 1 + max(0, -(-(len(tokens) - self.steps) // hop))
        padded = np.full((count - 1) * hop + self.steps, CLASSES, np.int32)
        padded[: len(tokens)] = tokens
        return np.stack([padded[at * hop : at * hop + self.steps] for at in range(count)])

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The notes of tokens [n], each as long as its pitch goes on, a track a voice; n need not fill a step."""
        tokens = np.asarray(window)
        padded = np.full(-(-len(tokens) // len(VOICES)) * len(VOICES), SILENCE)
        padded[: len(tokens)] = np.where(tokens < CLASSES, tokens, SILENCE)
        grid = padded.reshape(-1, len(VOICES))
        columns: list[tuple[Any, ...]] = []
        for voice in range(len(VOICES)):
            changes = np.flatnonzero(np.diff(grid[:, voice], prepend=-1, append=-1))
            columns += [(a, b, grid[a, voice], voice) for a, b in pairwise(changes) if grid[a, voice] != SILENCE]
        start, end, token, track = np.array(columns, np.int64).reshape(-1, 4).T
        return Score.of(
            start / STEPS_PER_QUARTER,
            end / STEPS_PER_QUARTER,
            token - FIRST_PITCH + MIN_PITCH,
            track=track,
            tempos=np.array([[0.0, qpm]]),
            meters=np.array([[0.0, QUARTERS_PER_BAR, 4]]),
            track_names=VOICES,
        )

    def seconds(self, tokens: npt.ArrayLike, qpm: float = 120.0) -> npt.NDArray[np.float64]:
        """When each token's step begins, float64 [n + 1]; the last is where the sequence ends."""
        return np.arange(len(np.asarray(tokens)) + 1) // len(VOICES) / STEPS_PER_QUARTER * (60.0 / qpm)

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, 4 T] moved up by `semitones`, int or int [W], cut back to what keeps a window in the range."""
        pitched = (windows >= FIRST_PITCH) & (windows < CLASSES)
        lowest = np.where(pitched, windows, CLASSES).min(axis=1)
        highest = np.where(pitched, windows, 0).max(axis=1)
        shift = np.clip(semitones, np.minimum(FIRST_PITCH - lowest, 0), np.maximum(CLASSES - 1 - highest, 0))
        return (windows + pitched * shift[:, None]).astype(windows.dtype)


def _voices(score: Score) -> list[Score]:
    """The four voices, highest first: the tracks of a score that has four."""
    tracks = [score.select(score.track == track) for track in np.unique(score.track[~score.is_drum])]
    if len(tracks) != len(VOICES):
        parts = f"{len(tracks)} track" + "s" * (len(tracks) != 1)
        raise InputError(f"{source(score)}: {parts} where four voices are needed; pass a score with a track a voice")
    return sorted(tracks, key=lambda notes: -float(np.mean(notes.pitch)))
