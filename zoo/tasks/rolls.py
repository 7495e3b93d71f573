"""Models of piano rolls: music step by step, all keys of a step at once. Sample, continue, score."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import InputError
from zoo.music import io
from zoo.music.score import Score
from zoo.tasks.latent import as_key
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    Source: TypeAlias = str | os.PathLike[str] | NoteSequence | Score
    Key: TypeAlias = int | jax.Array

QPM = 90.0


class Rolls(Model):
    """A model that writes and reads piano rolls; a step is the codec's, a quarter note for instance.

    A source is a path (MIDI, MusicXML, MXL, ABC, kern, NoteSequence), a NoteSequence or a Score. Keys are ints or JAX
    keys: the same key gives the same music.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        kernels = self.architecture.kernels
        self._read = self.jit(lambda model, v: kernels["read"](model, {"x": v}, jax.random.key(0)))
        self._write = self.jit(
            lambda model, v, t, key, tau: kernels["write"](model, {"x": v, "t": t, "temperature": tau}, key)
        )

    def sample(
        self, n: int = 1, *, steps: int = 64, key: Key = 0, temperature: float = 1.0, qpm: float = QPM
    ) -> list[NoteSequence]:
        """`n` pieces of `steps` steps from nothing, at `qpm` quarter notes a minute."""
        nothing = np.zeros((n, 0, self.config.keys), np.int8)
        return self.notes(self.continue_rolls(nothing, steps, key=key, temperature=temperature), qpm)

    def continue_(
        self, primer: Source, *, steps: int = 64, n: int = 1, key: Key = 0, temperature: float = 1.0
    ) -> list[NoteSequence]:
        """`n` pieces that begin with `primer` and go on for `steps` steps more, at the primer's tempo."""
        score = io.read(primer)
        given = np.repeat(self._roll(score)[None], n, axis=0)
        written = self.continue_rolls(given, steps, key=key, temperature=temperature)
        tempo = float(score.tempos[0, 1]) if len(score.tempos) else 120.0
        return self.notes(np.concatenate([given, written], axis=1), tempo)

    def score(self, source: Source) -> np.ndarray:
        """The log-likelihood in nats of each step of a piece given those before it, float32 [steps]; exact."""
        return np.asarray(self._read(jnp.asarray(self._roll(io.read(source))[None])))[0]

    def continue_rolls(self, given: np.ndarray, steps: int, *, key: Key = 0, temperature: float = 1.0) -> np.ndarray:
        """What comes after rolls `given` int8 [n, S, keys], which may be empty: int8 [n, steps, keys]."""
        if steps < 1 or not len(given):
            raise InputError(f"steps={steps}, {len(given)} pieces: ask for one piece and one step at least")
        numbers = given.shape[1] + jnp.arange(steps)
        drawn = self._write(jnp.asarray(given), numbers, as_key(key), jnp.float32(temperature))
        return np.asarray(drawn, np.int8)

    def notes(self, rolls: np.ndarray, qpm: float = QPM) -> list[NoteSequence]:
        """Rolls [n, S, keys] → NoteSequences."""
        return [io.to_note_sequence(self.codec.decode(roll, qpm=qpm)) for roll in rolls]

    def _roll(self, score: Score) -> np.ndarray:
        codec: Any = self.codec
        return np.asarray(codec.roll(score))


Task = Rolls
