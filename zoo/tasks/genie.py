"""An instrument of a few buttons that plays a whole keyboard: presses → notes, and notes → presses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.models.piano_genie import press, quantize
from zoo.music import io
from zoo.music.keys import KEYS, LOWEST, KeysCodec, bins
from zoo.music.score import Score
from zoo.tasks.latent import as_key
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.tasks.latent import Key, Source

BUCKET = 64  # presses are padded to a multiple of so many, so that few lengths are ever compiled


class Genie(Model):
    """Buttons that play an instrument. Keys of chance are ints or JAX keys: the same key gives the same music."""

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.coder = cast(KeysCodec, self.codec)
        self._press = self.jit(press)
        self._encode = self.jit(lambda model, x: quantize(model.config, model.encode(x)))

    def press(
        self, buttons: str | Sequence[int], n: int = 1, *, qpm: float = 120.0, **options: Any
    ) -> list[NoteSequence]:
        """What presses play, `n` times: "01234567" or numbers from 0. Options as for `press_scores`."""
        return [io.to_note_sequence(score) for score in self.press_scores(buttons, n, qpm=qpm, **options)]

    def press_scores(
        self,
        buttons: str | Sequence[int],
        n: int = 1,
        *,
        onset: npt.ArrayLike | None = None,
        every: float = 0.25,
        pitches: Iterable[int] | None = None,
        key: Key = 0,
        temperature: float = 0.5,
        qpm: float = 120.0,
    ) -> list[Score]:
        """As `press`, but Scores.

        Args:
          onset: seconds of each press, ascending; None for one `every` so many seconds.
          pitches: MIDI pitches that may sound, such as those of a scale; None for all of the piano.
          temperature: divides the logits; 0 takes the likeliest key.
        """
        presses = self._checked(buttons)
        at = np.arange(len(presses)) * every if onset is None else np.asarray(onset, np.float64)
        if at.shape != presses.shape or np.any(np.diff(at) < 0):
            raise InputError(f"onset: {at.shape} seconds for {len(presses)} presses; give each one's, ascending")
        if n < 1 or temperature < 0:
            raise InputError(f"n={n}, temperature={temperature}: ask for at least one piece, at 0 or more")
        allowed = np.ones(KEYS, np.bool_)
        if pitches is not None:
            allowed = np.isin(np.arange(KEYS) + LOWEST, list(pitches))
            if not allowed.any():
                raise InputError("pitches: none of them is a piano's, 21 (A0) to 108 (C8); allow some")
        padding = -len(presses) % BUCKET
        rows = [np.tile(np.pad(row, (0, padding)), (n, 1)) for row in (presses, bins(at))]
        played = self._press(*rows, as_key(key), jnp.float32(temperature), allowed)
        return [self.coder.played(row[: len(presses)], at, qpm) for row in np.asarray(played)]

    def buttons(self, source: Source) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
        """The buttons that stand for a piece's notes, int32 [T], and when they are pressed, float64 [T], in seconds."""
        notes, onset = self.coder.encode(io.read(source))
        return np.asarray(self._encode(jnp.asarray(notes)[None])[0]), onset

    def _checked(self, buttons: str | Sequence[int]) -> npt.NDArray[np.int32]:
        last = self.config.buttons - 1
        wrong = f"{buttons!r}: presses are buttons from 0 to {last}, such as 01234567"
        try:
            presses = np.array([int(button) for button in buttons], np.int32)
        except (TypeError, ValueError):
            raise InputError(wrong) from None
        if not len(presses) or presses.min() < 0 or presses.max() > last:
            raise InputError(wrong)
        return presses


Task = Genie
