"""Four voices as one sequence: soprano, alto, tenor, bass of each sixteenth in turn (Huang et al. 2018, section 4.1).

The tokens are those of `zoo.music.chorale`, 47 of them. A piece ends with its last note; what is left of a window is
padding, which no model is asked to predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from zoo.music.chorale import CLASSES, FIRST_PITCH, REST, VOICES, ChoraleCodec, Tokens
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER
from zoo.music.score import Score


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
        """The whole piece, int32 [4 T]. Errors as for `ChoraleCodec.encode`."""
        return ChoraleCodec().encode(score).reshape(-1)

    def melody(self, score: Score) -> Tokens:
        """A melody as the soprano of four voices, int32 [4 T], −1 where one of the others is to sing.

        Before the melody begins all rest. Errors as for `ChoraleCodec.melody`.
        """
        soprano = ChoraleCodec().melody(score)
        tokens = np.full((len(soprano), len(VOICES)), -1, np.int32)
        tokens[: np.argmax(soprano > REST)] = REST
        tokens[:, 0] = soprano
        return tokens.reshape(-1)

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
        padded = np.zeros(-(-len(tokens) // len(VOICES)) * len(VOICES), np.int32)  # rests
        padded[: len(tokens)] = np.where(tokens < CLASSES, tokens, 0)
        return ChoraleCodec().decode(padded.reshape(-1, len(VOICES)), qpm)

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

    def vary(self, windows: Tokens, rng: np.random.Generator) -> Tokens:
        """Windows [W, 4 T], one in three with a repeat, for training.

        A repeat says 4 to 32 quarters again, after any quarter of the piece, and what follows comes later by as much;
        a piece that is not twice as long stays as it is.
        Bach repeats a chorale's first lines, but 229 pieces do that too seldom for a network to learn that it may copy.
        """
        varied = windows.copy()
        quarter = STEPS_PER_QUARTER * len(VOICES)
        for row in np.flatnonzero(rng.random(len(windows)) < 1 / 3):
            size = int(rng.integers(4, 33))
            last = int((varied[row] < CLASSES).sum()) // quarter - size  # where what is said again may end
            if last < size:
                continue
            end, size = int(rng.integers(size, last + 1)) * quarter, size * quarter
            varied[row] = np.concatenate([varied[row, :end], varied[row, end - size : -size]])
        return varied
