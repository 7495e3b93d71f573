"""Infilling: music for several voices of which any notes are given and the others drawn. Harmonise, sample, score."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.models.coconet import frame_log_likelihood, gibbs
from zoo.music import io
from zoo.music.chorale import REST, VOICES, ChoraleCodec
from zoo.music.score import Score
from zoo.tasks.latent import as_key
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.tasks.latent import Key, Source

BUCKET = 64  # pieces are padded to a multiple of so many steps, so that few lengths are ever compiled
CHUNK = 16  # Gibbs steps of one compiled loop
ROWS = 16  # contexts that are evaluated at once

Tokens = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class Infill(Model):
    """A model of music for four voices on a grid of sixteenths, any part of which can be given.

    A source is a path (MIDI, MusicXML, MXL, ABC, kern, NoteSequence), a NoteSequence or a Score. Keys are ints or JAX
    keys: the same key gives the same music. `temperature` divides the logits (0 takes the likeliest note), `steps` is
    how long the Gibbs chain is, by default `config.gibbs`; it is rounded up to a multiple of CHUNK.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.chorale = cast(ChoraleCodec, self.codec)
        self._gibbs = self.jit(
            lambda model, music, free, key, tau, total, first, valid: gibbs(
                model, music, free, key, tau, total, first, CHUNK, valid
            )
        )
        self._frame = self.jit(frame_log_likelihood)

    # --- notes -------------------------------------------------------------------------------------------------------

    def sample(self, n: int = 1, *, qpm: float = 90.0, **options: Any) -> list[NoteSequence]:
        """`n` windows from nothing. Options as for `sample_windows`."""
        return self.notes(self.sample_windows(n, **options), qpm)

    def harmonize(self, melody: Source, n: int = 1, *, qpm: float | None = None, **options: Any) -> list[NoteSequence]:
        """Four voices, the soprano given, `n` times. Options as for `fill`.

        The melody is the track so named or else the highest notes; it is moved into a soprano's range by octaves.
        `qpm` is by default the melody's tempo.
        """
        score = io.read(melody)
        return self.notes(self.harmonize_windows(score, n, **options), qpm or score.qpm)

    def infill(
        self,
        source: Source,
        mask: npt.ArrayLike | None = None,
        n: int = 1,
        *,
        voices: Iterable[str] = VOICES,
        span: tuple[float, float] = (0.0, math.inf),
        qpm: float | None = None,
        **options: Any,
    ) -> list[NoteSequence]:
        """A piece with part of it drawn anew, `n` times. Options as for `fill`.

        Args:
          mask: bool [T, 4], True where notes are to be drawn; None for the `voices` (Soprano, Alto, Tenor, Bass)
            within the `span` of quarter notes.
        """
        score = io.read(source)
        music = self.chorale.encode(score)
        free = self.free(music, voices, span) if mask is None else np.asarray(mask, np.bool_)
        return self.notes(self.fill(music, free, n, **options), qpm or score.qpm)

    def score(self, source: Source, **options: Any) -> npt.NDArray[np.float64]:
        """−log p of each sixteenth (all its voices) in nats, float64 [T]. Options as for `nats`."""
        return self.nats(self.chorale.encode(io.read(source)), **options)

    # --- arrays ------------------------------------------------------------------------------------------------------

    def sample_windows(self, n: int = 1, *, key: Key = 0, temperature: float = 1.0, steps: int | None = None) -> Tokens:
        """`n` windows from nothing, int32 [n, T, 4]."""
        nothing = np.zeros((self.config.steps, self.config.voices), np.int32)
        return self.fill(nothing, np.ones(nothing.shape, np.bool_), n, key=key, temperature=temperature, steps=steps)

    def harmonize_windows(self, melody: Source, n: int = 1, **options: Any) -> Tokens:
        """As `harmonize`, but tokens int32 [n, T, 4]. Before the melody begins all voices rest."""
        line = self.chorale.melody(io.read(melody))
        music = np.zeros((len(line), self.config.voices), np.int32)
        music[:, 0] = line
        upbeat = int(np.argmax(line > REST)) / self.codec.steps_per_quarter
        return self.fill(music, self.free(music, VOICES[1:], (upbeat, math.inf)), n, **options)

    def free(self, music: Tokens, voices: Iterable[str], span: tuple[float, float] = (0.0, math.inf)) -> Mask:
        """The mask [T, 4] of some voices within a span of quarter notes. Raises InputError where it is empty."""
        chosen = [_voice(name) for name in voices]
        at = np.arange(len(music)) / self.codec.steps_per_quarter
        free = np.zeros(music.shape, np.bool_)
        free[:, chosen] = ((at >= span[0]) & (at < span[1]))[:, None]
        if not free.any():
            raise InputError(
                f"nothing to fill in: the piece ends at quarter {len(music) / 4:g}, asked from {span[0]:g}"
            )
        return free

    def fill(
        self, music: Tokens, free: Mask, n: int = 1, *, key: Key = 0, temperature: float = 1.0, steps: int | None = None
    ) -> Tokens:
        """Tokens [T, 4], or [n, T, 4], with those where `free` (of the same shape) drawn anew, `n` times: [n, T, 4]."""
        steps = self.config.gibbs if steps is None else steps
        if n < 1 or steps < 1:
            raise InputError(f"n={n}, steps={steps}: ask for at least one piece and one step")
        if temperature < 0:
            raise InputError(f"temperature {temperature} is negative; 0 takes the likeliest note, 1 draws as trained")
        if free.shape != music.shape:
            raise InputError(f"the mask has shape {free.shape}, the music {music.shape}; they must be the same")
        length, rows = music.shape[-2], 1 << (n - 1).bit_length()
        music, free = (np.resize(array, (rows, *array.shape[-2:])) for array in (music, free))
        music, free, valid = _padded(music), _padded(free), _padded(np.ones((rows, length), np.bool_))
        for first in _progress(range(0, steps, CHUNK), "sampling", CHUNK):
            where = as_key(key), jnp.float32(temperature), jnp.int32(steps), jnp.int32(first)
            music = self._gibbs(music, free, *where, valid)
        return np.asarray(music)[:n, :length]

    def nats(self, music: Tokens, **options: Any) -> npt.NDArray[np.float64]:
        """−log p of frames of one piece, float64 [T]; see `nats_of`."""
        return self.nats_of([music], **options)[0]

    def nats_of(
        self,
        pieces: Sequence[Tokens],
        *,
        orders: int = 5,
        chronological: bool = False,
        own: bool = False,
        frames: int | None = None,
        key: Key = 0,
    ) -> list[npt.NDArray[np.float64]]:
        """−log p of frames of each piece [T, 4], float64 [T] each: the paper's framewise likelihood (section 5.1).

        A frame is predicted from those before it in an order of all frames, its voices one after another, and
        its likelihood is averaged over several orders. Of a long piece the network is shown only what it can see from
        that frame, which changes nothing.

        Args:
          orders: how many.
          chronological: frames in order of time, and only the voices in random order; else both are random.
          own: within a frame the model is told its own likeliest notes, as in the authors' code, not the true ones.
            The true ones make it a likelihood.
          frames: only so many frames of each piece, drawn at random; the others are NaN. Each is given what it would
            be given among all, so that their mean estimates the mean of all.
        """
        rng = np.random.default_rng(np.asarray(jax.random.key_data(as_key(key))))
        reach = self.config.reach
        size = min(2 * reach + 1, -(-max(map(len, pieces)) // BUCKET) * BUCKET)
        chosen = [np.sort(rng.permutation(len(piece))[:frames]) for piece in pieces]
        frames_of = zip(pieces, chosen, strict=True)
        asked = [(piece, frame) for piece, some in frames_of for frame in np.repeat(some, orders).tolist()]

        def context(piece: Tokens, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
            known = np.arange(len(piece)) < frame
            if not chronological:  # what comes before a frame in a random order is a set of random size
                rank = rng.permutation(len(piece))
                known = rank < rank[frame]
            first = int(np.clip(frame - reach, 0, max(0, len(piece) - size)))
            part, length = slice(first, first + size), min(size, len(piece))
            valid = np.arange(size) < length
            seen = np.pad(piece[part], ((0, size - length), (0, 0)))
            return seen, np.array(frame - first, np.int32), np.pad(known[part], (0, size - length)), valid

        rows = min(ROWS, 1 << (len(asked) - 1).bit_length())
        found = []
        for at in _progress(range(0, len(asked), rows), "scoring", rows):
            group = [context(*each) for each in asked[at : at + rows]]
            group += group[-1:] * (rows - len(group))
            music, frame, known, valid = (jnp.asarray(np.stack(each)) for each in zip(*group, strict=True))
            voices = rng.permuted(np.tile(np.arange(self.config.voices, dtype=np.int32), (rows, 1)), axis=1)
            coins = jax.random.fold_in(as_key(key), at)
            found.append(self._frame(music, frame, known, voices, coins, valid, jnp.bool_(own)))
        log_p = np.concatenate(found)[: len(asked)].astype(np.float64).reshape(-1, orders)
        nats = iter(math.log(orders) - np.logaddexp.reduce(log_p, axis=1))
        told = [np.full(len(piece), np.nan) for piece in pieces]
        for piece, some in zip(told, chosen, strict=True):
            piece[some] = [next(nats) for _ in some]
        return told

    def scores(self, windows: Iterable[np.ndarray], qpm: float = 90.0) -> list[Score]:
        """Tokens → notes as Scores, which need no note_seq."""
        return [self.codec.decode(window, qpm=qpm) for window in windows]

    def notes(self, windows: Iterable[np.ndarray], qpm: float = 90.0) -> list[NoteSequence]:
        """Tokens → NoteSequences."""
        return [io.to_note_sequence(score) for score in self.scores(windows, qpm)]


Task = Infill


def _voice(name: str) -> int:
    names = [voice.lower() for voice in VOICES]
    if name.lower() not in names:
        raise InputError(f"no voice named {name!r}; there are {', '.join(names)}")
    return names.index(name.lower())


def _padded(array: np.ndarray) -> np.ndarray:
    """[B, T, ...] with zeros behind, to a multiple of BUCKET steps."""
    return np.pad(array, ((0, 0), (0, -array.shape[1] % BUCKET), *((0, 0),) * (array.ndim - 2)))


def _progress(steps: Sequence[int], what: str, unit_scale: int) -> Iterable[int]:
    from tqdm import tqdm

    bar: Iterable[int] = tqdm(steps, what, delay=2, leave=False, disable=None, file=sys.stderr, unit_scale=unit_scale)
    return bar
