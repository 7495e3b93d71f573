"""Latent models: music ⇄ z. Sample, encode, decode, reconstruct, interpolate."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import InputError
from zoo.music import io
from zoo.music.score import Score
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    Source: TypeAlias = str | os.PathLike[str] | NoteSequence | Score
    Key: TypeAlias = int | jax.Array

BUCKET = 512  # largest batch of one compiled call; smaller ones are padded to a power of two


class Latent(Model):
    """A variational autoencoder over windows of music.

    A source is a path (MIDI, MusicXML, MXL, ABC, kern, NoteSequence), a NoteSequence or a Score. Where it is longer
    than the model's window it is cut into windows one after another, and `window` says which one is meant. Keys are
    ints or JAX keys: the same key gives the same music. Temperature 0 takes the likeliest output at every step.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        kernels = self.architecture.kernels
        self._encode = self.jit(lambda model, x: kernels["encode"](model, {"x": x}, jax.random.key(0)))
        self._decode = self.jit(lambda model, inputs, key: kernels["decode"](model, inputs, key))

    # --- notes -------------------------------------------------------------------------------------------------------

    def sample(self, n: int = 1, *, key: Key = 0, temperature: float = 1.0, qpm: float = 120.0) -> list[NoteSequence]:
        """`n` windows from z of the model's prior, at `qpm` quarter notes a minute."""
        return self.notes(self.sample_windows(n, key=key, temperature=temperature), qpm)

    def decode(self, z: Any, *, key: Key = 0, temperature: float = 0.5, qpm: float = 120.0) -> list[NoteSequence]:
        """A window for each row of `z`, float [n, Z]."""
        return self.notes(self.decode_windows(z, key=key, temperature=temperature), qpm)

    def reconstruct(
        self, source: Source, *, key: Key = 0, temperature: float = 0.0, qpm: float | None = None
    ) -> NoteSequence:
        """The whole piece through z and back: each of its windows from its posterior mean, one after another.

        `qpm` is by default the piece's own first tempo.
        """
        score = io.read(source)
        mean, _ = self.posterior(self.windows(score))
        windows = self.decode_windows(mean, key=key, temperature=temperature)
        return self.notes([np.concatenate(list(windows))], qpm or score.qpm)[0]

    def interpolate(
        self,
        a: Source,
        b: Source,
        steps: int = 9,
        *,
        window: int = 0,
        key: Key = 0,
        temperature: float = 0.0,
        qpm: float = 120.0,
    ) -> list[NoteSequence]:
        """`steps` windows from `a` to `b`, both ends included, along the arc between their z (slerp)."""
        return self.notes(self.interpolate_windows(a, b, steps, window=window, key=key, temperature=temperature), qpm)

    def encode(
        self, sources: Source | Sequence[Source], *, window: int = 0, sample: bool = False, key: Key = 0
    ) -> np.ndarray:
        """The latent vector of one window of each source: float32 [n, Z], the posterior mean.

        With `sample` it is a draw from the posterior.
        """
        many = sources if isinstance(sources, list | tuple) else [sources]
        mean, scale = self.posterior(np.stack([self.window(source, window) for source in many]))
        if not sample:
            return mean
        return mean + scale * np.asarray(jax.random.normal(as_key(key), mean.shape))

    # --- arrays ------------------------------------------------------------------------------------------------------

    def windows(self, source: Source) -> np.ndarray:
        """All windows of a source, one after another without overlap: [W, T, ...]."""
        score = source if isinstance(source, Score) else io.read(source)
        return self.codec.windows(score, hop_bars=self.codec.bars, pad=True)

    def window(self, source: Source, index: int) -> np.ndarray:
        """Window `index` of a source, [T, ...]; negative ones count from the end."""
        windows = self.windows(source)
        if not -len(windows) <= index < len(windows):
            raise InputError(f"{_name(source)}: has {len(windows)} windows, there is no window {index}")
        return np.asarray(windows[index])

    def posterior(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale of q(z|x) for windows [n, T, ...]: float32 [n, Z] each."""
        parts = [self._encode(jnp.asarray(x))[:2] for x, _ in buckets(windows)]
        means, scales = zip(*parts, strict=True)
        return np.concatenate(means)[: len(windows)], np.concatenate(scales)[: len(windows)]

    def sample_windows(self, n: int, *, key: Key = 0, temperature: float = 1.0) -> np.ndarray:
        """`n` windows from z of the model's prior, N(0, I) or fitted to its training music: [n, T, ...]."""
        if n < 1:
            raise InputError(f"n={n}: ask for at least one sample")
        z_key, key = jax.random.split(as_key(key))
        z = cast(Any, self.module).draw(jax.random.normal(z_key, (n, self.config.latent)))
        return self.decode_windows(z, key=key, temperature=temperature)

    def decode_windows(self, z: Any, *, key: Key = 0, temperature: float = 0.5) -> np.ndarray:
        """A window for each row of `z`, float [n, Z]: [n, T, ...]."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.config.latent:
            raise InputError(f"z has shape {z.shape}, the model needs [n, {self.config.latent}]")
        if temperature < 0:
            raise InputError(f"temperature {temperature} is negative; 0 takes the likeliest output, 1 draws as trained")
        given = {"temperature": jnp.float32(temperature), "prepared": self.prepared}
        parts = [
            np.asarray(self._decode({"z": jnp.asarray(part)} | given, jax.random.fold_in(as_key(key), at)))
            for part, at in buckets(z)
        ]
        return np.concatenate(parts)[: len(z)]

    def interpolate_windows(
        self, a: Source, b: Source, steps: int = 9, *, window: int = 0, key: Key = 0, temperature: float = 0.0
    ) -> np.ndarray:
        """As `interpolate`, but windows [steps, T, ...]."""
        if steps < 2:
            raise InputError(f"steps={steps}: an interpolation has at least its two ends")
        ends = self.encode([a, b], window=window)
        return self.decode_windows(slerp(ends[0], ends[1], np.linspace(0, 1, steps)), key=key, temperature=temperature)

    def scores(self, windows: Iterable[np.ndarray], qpm: float = 120.0) -> list[Score]:
        """Windows → notes as Scores, which need no note_seq."""
        return [self.codec.decode(window, qpm=qpm) for window in windows]

    def notes(self, windows: Iterable[np.ndarray], qpm: float = 120.0) -> list[NoteSequence]:
        """Windows → NoteSequences."""
        return [io.to_note_sequence(score) for score in self.scores(windows, qpm)]


Task = Latent


def as_key(key: Key) -> jax.Array:
    """A JAX key from a seed or a key."""
    return jax.random.key(key) if isinstance(key, int | np.integer) else key


def slerp(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Spherical interpolation between vectors [Z] at shares `t` [n]: [n, Z] (White 2016, arXiv:1609.04468).

    Most of a Gaussian's mass lies on a shell: the straight line between two points of it runs through its empty middle.
    """
    cosine = np.clip(np.dot(a, b) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1.0, 1.0)
    angle = np.arccos(cosine)
    t = t[:, None]
    if np.sin(angle) < 1e-6:  # one direction, or opposite ones: there is no arc to follow
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def buckets(rows: np.ndarray) -> Iterable[tuple[np.ndarray, int]]:
    """Batches of at most BUCKET rows and the row each begins at.

    The last is padded to a power of two, so that few sizes are ever compiled.
    """
    for at in range(0, len(rows), BUCKET):
        part = rows[at : at + BUCKET]
        size = 1 << (len(part) - 1).bit_length()
        yield np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)]), at


def _name(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    return getattr(source, "source", "") or "the piece"
