"""Phrases for a band, drawn whole from noise: sample, go from one to another, accompany a part that is given."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import InputError
from zoo.music import io
from zoo.music.phrases import PARTS, PhrasesCodec, Roll
from zoo.music.score import Score
from zoo.tasks.latent import as_key, buckets, slerp
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.tasks.latent import Key, Source


class Phrases(Model):
    """A generative network from noise to phrases for melody, bridge and piano.

    A source is a path (MIDI, MusicXML, MXL, ABC, kern, NoteSequence), a NoteSequence or a Score. Keys are ints or JAX
    keys: the same key gives the same music. Noise is drawn from N(0, τ²) with `temperature` τ: below 1 phrases are
    nearer to what is usual and to each other.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        kernels = self.architecture.kernels
        self.phrases = cast(PhrasesCodec, self.codec)
        self._generate = self.jit(lambda model, z, key: kernels["generate"](model, {"z": z}, key))
        self._accompany = self.jit(
            lambda model, z, x, given, key: kernels["accompany"](model, {"z": z, "x": x, "given": given}, key)
        )

    # --- notes -------------------------------------------------------------------------------------------------------

    def sample(self, n: int = 1, *, key: Key = 0, temperature: float = 1.0, qpm: float = 120.0) -> list[NoteSequence]:
        """`n` phrases at `qpm` quarter notes a minute."""
        return self.notes(self.sample_windows(n, key=key, temperature=temperature), qpm)

    def interpolate(
        self, steps: int = 9, *, key: Key = 0, temperature: float = 1.0, qpm: float = 120.0
    ) -> list[NoteSequence]:
        """`steps` phrases from one draw to another, both included, along the arc between their noise (slerp)."""
        return self.notes(self.interpolate_windows(steps, key=key, temperature=temperature), qpm)

    def accompany(
        self,
        source: Source,
        part: str = "melody",
        n: int = 1,
        *,
        key: Key = 0,
        temperature: float = 1.0,
        qpm: float | None = None,
    ) -> list[NoteSequence]:
        """The piece with one `part` as it is and the others drawn to it, `n` times. See `zoo.music.phrases` for parts.

        `qpm` is by default the piece's own first tempo.
        """
        score = io.read(source)
        return self.notes(self.accompany_rolls(score, part, n, key=key, temperature=temperature), qpm or score.qpm)

    # --- arrays ------------------------------------------------------------------------------------------------------

    def latents(self, n: int, *, key: Key = 0, temperature: float = 1.0) -> np.ndarray:
        """Noise for `n` phrases, float32 [n, Z]."""
        if n < 1:
            raise InputError(f"n={n}: ask for at least one phrase")
        if temperature < 0:
            raise InputError(f"temperature {temperature} is negative; 0 is the most usual phrase, 1 draws as trained")
        return np.asarray(temperature * jax.random.normal(as_key(key), (n, self.config.z)))

    def sample_windows(self, n: int = 1, *, key: Key = 0, temperature: float = 1.0) -> Roll:
        """`n` phrases, int8 [n, T, 3, 60]."""
        return self.decode_windows(self.latents(n, key=key, temperature=temperature), key=key)

    def interpolate_windows(self, steps: int = 9, *, key: Key = 0, temperature: float = 1.0) -> Roll:
        """As `interpolate`, but int8 [steps, T, 3, 60]."""
        if steps < 2:
            raise InputError(f"steps={steps}: an interpolation has at least its two ends")
        first, last = self.latents(2, key=key, temperature=temperature)
        return self.decode_windows(slerp(first, last, np.linspace(0, 1, steps)), key=key)

    def decode_windows(self, z: Any, *, key: Key = 0) -> Roll:
        """A phrase for each row of `z`, float [n, Z]: int8 [n, T, 3, 60]."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.config.z:
            raise InputError(f"z has shape {z.shape}, the model needs [n, {self.config.z}]")
        drawn = [self._generate(jnp.asarray(part), jax.random.fold_in(as_key(key), at)) for part, at in buckets(z)]
        return np.concatenate([np.asarray(rolls, np.int8) for rolls in drawn])[: len(z)]

    def accompany_rolls(
        self, source: Source, part: str = "melody", n: int = 1, *, key: Key = 0, temperature: float = 1.0
    ) -> Roll:
        """As `accompany`, but rolls int8 [n, S, 3, 60] of the whole piece, S a multiple of T.

        In a version the noise that is the same in all bars stays the same in all phrases, the rest is drawn for each.
        """
        if not self.config.given:
            raise InputError(f"{self.name}: was trained without an encoder of given parts; see `zoo list`")
        score = io.read(source)
        roll, index = self.phrases.roll(score), _part(part)
        if not roll[:, index].any():
            played = [PARTS[i].name.lower() for i in np.flatnonzero(roll.any(axis=(0, 2)))]
            raise InputError(f"{score.source or 'the piece'}: has no {part}; it has {' and '.join(played)}")
        windows = roll.reshape(-1, self.phrases.steps, *roll.shape[1:])  # [W, T, 3, 60]
        z = self.latents(n * len(windows), key=key, temperature=temperature)
        pairs = z.reshape(n, len(windows), -1, 2, self.config.latent).copy()  # one for all bars, one to be unfolded
        pairs[..., 0, :] = pairs[:, :1, :, 0, :]
        rows = pairs.reshape(z.shape), np.tile(windows, (n, 1, 1, 1))
        given = np.zeros(len(PARTS), np.float32)
        given[index] = 1.0
        drawn = []
        for (noise, at), (x, _) in zip(buckets(rows[0]), buckets(rows[1]), strict=True):
            key_at = jax.random.fold_in(as_key(key), at)
            drawn.append(self._accompany(noise, x, np.tile(given, (len(x), 1)), key_at))
        rolls = np.concatenate([np.asarray(each, np.int8) for each in drawn])[: n * len(windows)]
        return rolls.reshape(n, *roll.shape)

    def scores(self, windows: Iterable[np.ndarray], qpm: float = 120.0) -> list[Score]:
        """Rolls → notes as Scores, which need no note_seq."""
        return [self.codec.decode(window, qpm=qpm) for window in windows]

    def notes(self, windows: Iterable[np.ndarray], qpm: float = 120.0) -> list[NoteSequence]:
        """Rolls → NoteSequences."""
        return [io.to_note_sequence(score) for score in self.scores(windows, qpm)]


Task = Phrases


def _part(name: str) -> int:
    names = [part.name.lower() for part in PARTS]
    if name.lower() not in names:
        raise InputError(f"no part named {name!r}; there are {', '.join(names)}")
    return names.index(name.lower())
