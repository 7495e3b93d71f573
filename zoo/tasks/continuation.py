"""Sequence models: music token by token. Sample, continue, harmonise, score, stream."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import io
from zoo.music.codecs import SequenceCodec
from zoo.music.score import Score
from zoo.music.serial import SerialCodec
from zoo.nn.likelihood import surprise
from zoo.nn.sampling import Sampling, follow, rollout
from zoo.tasks.latent import as_key
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.show.attention import Attention
    from zoo.tasks.latent import Key, Source

CHUNK = 64  # tokens of one compiled call: what a stream is made of, and so all else, to be the same to the bit
CAPACITY = 256  # tokens that a state has room for at first; doubled when they are written
WINDOWS = 16  # that are scored at once
MOST_EVENTS = 100  # tokens a second at most, for a model whose music stands still

Tokens = npt.NDArray[np.int32]


class Note(NamedTuple):
    """One note of a stream; `start` and `end` in quarter notes."""

    start: float
    end: float
    pitch: int
    velocity: int
    track: int
    program: int
    is_drum: bool


@dataclass(frozen=True)
class Surprise:
    """How a model takes a piece.

    Attributes:
      tokens: int32 [T], the piece as the model sees it.
      nats: float64 [T], −log p of each token given those before it.
      seconds: float64 [T], when each is heard.
      source: where the piece is from.
    """

    tokens: Tokens
    nats: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    source: str = ""

    @property
    def mean(self) -> float:
        """Nats a token."""
        return float(np.mean(self.nats))

    def plot(self, path: str | os.PathLike[str], title: str = "") -> Path:
        """Draws the surprise over time and writes a PNG. Raises InputError if it can't be written."""
        from zoo.show.plots import surprise

        return surprise(self.seconds, self.nats, path, title or self.source)


class Continuation(Model):
    """A model of sequences of tokens, each drawn given all before it.

    A source is a path (MIDI, MusicXML, MXL, ABC, kern, NoteSequence), a NoteSequence or a Score. Keys are ints or JAX
    keys: the same key gives the same music, whether streamed or made at once. `temperature` divides the logits (0
    takes the likeliest token), `top_k` and `top_p` leave out unlikely tokens; see `zoo.nn.sampling`.

    How much is written is said in `seconds` at the tempo `qpm`, or in `steps`, which are tokens: an event of a
    performance, one voice's sixteenth of a chorale. By default it is as much as the model learnt from at a time.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        stepping, forward = self.architecture.stepping, self.architecture.kernels["forward"]
        assert stepping is not None
        self.coder = cast(SequenceCodec, self.codec)
        self._start = self.jit(stepping.start, 1, 2)
        self._grow = jax.jit(stepping.grow, static_argnums=1)

        self._write = self.jit(
            lambda model, prepared, state, token, key, first, sampling, context, given: rollout(
                stepping.stepper(model, prepared), state, token, key, first, CHUNK, sampling, context, given
            ),
            donate=(2,),
        )
        self._read = self.jit(
            lambda model, prepared, state, tokens, context: follow(
                stepping.stepper(model, prepared), state, tokens, context
            )[1],
            donate=(2,),
        )
        look = self.architecture.kernels.get("attention")
        self._attention = look and self.jit(lambda model, x: look(model, {"x": x}, jax.random.key(0)))
        self._nats = self.jit(
            lambda model, x: surprise(forward(model, {"x": x}, jax.random.key(0)), x[..., 0] if x.ndim > 2 else x)
        )

    # --- notes -------------------------------------------------------------------------------------------------------

    def sample(self, n: int = 1, *, qpm: float = 120.0, **options: Any) -> list[NoteSequence]:
        """`n` pieces from nothing. Options as for `write`."""
        return self.notes(self.write(n, qpm=qpm, **options), qpm)

    def continue_(self, primer: Source, n: int = 1, *, qpm: float | None = None, **options: Any) -> list[NoteSequence]:
        """The primer and what follows, `n` times. `qpm` is by default the primer's tempo. Options as for `write`."""
        score = io.read(primer)
        qpm = qpm or score.qpm
        tokens = self.tokens(score)
        written = self.write(n, primer=tokens, qpm=qpm, **options)
        return [io.to_note_sequence(piece) for piece in self.scores(self.joined(tokens, written), qpm, like=score)]

    def harmonize(self, melody: Source, n: int = 1, *, qpm: float | None = None, **options: Any) -> list[NoteSequence]:
        """Four voices, the soprano given, `n` times. Options as for `write`.

        The melody is the track so named or else the highest notes; it is moved into a soprano's range by octaves.
        Voices are drawn from left to right, and know of the melody what has been sung. `qpm` is by default its tempo.
        """
        score = io.read(melody)
        return self.notes(self.harmonize_tokens(score, n, **options), qpm or score.qpm)

    def score(self, source: Source) -> Surprise:
        """How likely the model finds a piece, token by token."""
        piece = io.read(source)
        tokens = self.tokens(piece)
        nats = self.nats([tokens])[0]
        tokens = _events(tokens)
        return Surprise(tokens, nats, self.coder.seconds(tokens, piece.qpm)[:-1], piece.source)

    def attention(self, source: Source) -> Attention:
        """Which tokens before it each token of a piece is predicted from, as far as one window goes.

        Column 0 is what stands before the first token, column j + 1 token j. Raises InputError for a model that
        doesn't attend.
        """
        from zoo.show.attention import Attention

        if self._attention is None:
            raise InputError(f"{self.name}: has no attention to look at; leave out --attention")
        piece = io.read(source)
        tokens = self.tokens(piece)[: self.config.steps]
        window = np.full((1, self.config.steps, *tokens.shape[1:]), self.coder.classes, np.int32)
        window[0, : len(tokens)] = tokens
        weights = np.asarray(self._attention(jnp.asarray(window)))[0, ..., : len(tokens), : len(tokens)]
        rows = self.coder.seconds(_events(tokens), piece.qpm)[:-1]
        return Attention(weights, rows, np.concatenate([rows[:1], rows[:-1]]), asks="predicted", asked="looked at")

    def stream(self, primer: Source | None = None, *, qpm: float | None = None, **options: Any) -> Iterator[Note]:
        """Notes as they end, one after another, the same as `sample` or `continue_` writes; the primer's own first.

        It goes on for ever unless `seconds` or `steps` say how far. Options as for `write`, less `n`.
        """
        score = None if primer is None else io.read(primer)
        qpm = qpm or (120.0 if score is None else score.qpm)
        before = None if score is None else self.tokens(score)
        coder = self.coder_of(score)
        tokens = np.zeros(0, np.int32) if before is None else _events(before)
        told = 0.0
        for part in self.parts(1, primer=before, qpm=qpm, endless=True, **options):
            tokens = np.concatenate([tokens, part[0]])
            notes = coder.decode(tokens, qpm=qpm)
            now = self.coder.seconds(tokens, qpm)[-1] * qpm / 60.0
            yield from _ended(notes, told, now)
            told = now
        yield from _ended(coder.decode(tokens, qpm=qpm), told, np.inf)

    # --- arrays ------------------------------------------------------------------------------------------------------

    def tokens(self, source: Source) -> Tokens:
        """A piece as the model sees it: int32 [T], or [T, 2] with a context."""
        return np.asarray(self.coder.tokens(io.read(source)), np.int32)

    def write(self, n: int = 1, *, primer: Tokens | None = None, **options: Any) -> list[Tokens]:
        """`n` sequences of new tokens, int32 [t] each; with `seconds` not all have as many.

        Options:
          primer: tokens that they follow, int32 [T] or [T, 2].
          seconds, steps: how much; one of them, or neither for `config.steps` tokens.
          key, temperature, top_k, top_p: how tokens are drawn.
          qpm: the tempo that turns steps into seconds.
          context: int32 [t], what the model is given beside its own tokens, such as chords; see the codec.
          given: int32 [t], tokens that are set, not drawn; −1 for those that are drawn.
        """
        parts = list(self.parts(n, primer=primer, **options))
        return [np.concatenate([part[row] for part in parts]) for row in range(n)]

    def harmonize_tokens(self, melody: Source, n: int = 1, **options: Any) -> list[Tokens]:
        """As `harmonize`, but tokens int32 [4 T]. Raises InputError for a model that doesn't write four voices."""
        if not isinstance(self.codec, SerialCodec):
            raise InputError(f"{self.name}: doesn't write four voices; use music-transformer/jsb or coconet")
        given = self.codec.melody(io.read(melody))
        return self.write(n, given=given, steps=len(given), **options)

    def parts(
        self,
        n: int,
        *,
        primer: Tokens | None = None,
        seconds: float | None = None,
        steps: int | None = None,
        key: Key = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        qpm: float = 120.0,
        context: npt.ArrayLike | None = None,
        given: npt.ArrayLike | None = None,
        endless: bool = False,
    ) -> Iterator[list[Tokens]]:
        """What `write` gives, in parts of up to CHUNK tokens as they are written; the last ones may be empty."""
        _check(n, seconds, steps, temperature, top_k, top_p)
        if seconds is None and steps is None and not endless:
            steps = self.config.steps
        rows = 1 << (n - 1).bit_length()
        sampling = Sampling(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p))
        state, token, capacity, position = self._begin(primer, rows)
        clocks = np.zeros(n)
        written = 0
        while True:
            while position + CHUNK > capacity:
                capacity *= 2
                state = self._grow(state, capacity)
            beside, fixed = (None if x is None else _rows(x, written, rows) for x in (context, given))
            where = as_key(key), jnp.int32(written)
            tokens, (state, token) = self._write(self.prepared, state, token, *where, sampling, beside, fixed)
            position += CHUNK
            part = list(np.asarray(tokens)[:n])
            if steps is not None:
                part = [row[: steps - written] for row in part]
            if seconds is not None:
                times = [clock + self.coder.seconds(row, qpm) for clock, row in zip(clocks, part, strict=True)]
                part = [row[: np.searchsorted(t[:-1], seconds - 1e-9)] for row, t in zip(part, times, strict=True)]
                clocks = np.array([t[-1] for t in times])
            written += CHUNK
            yield part
            if steps is not None and written >= steps:
                return
            if seconds is not None and (clocks.min() >= seconds or written > MOST_EVENTS * (seconds + 1)):
                return

    def joined(self, primer: Tokens, written: list[Tokens]) -> list[Tokens]:
        """The primer, int32 [T] or [T, 2], and each continuation, as one sequence of tokens."""
        return [np.concatenate([_events(primer), tokens]) for tokens in written]

    def _begin(self, primer: Tokens | None, rows: int) -> tuple[Any, jax.Array, int, int]:
        """State, last token, capacity and position after the primer: all of it but its last token has been read."""
        inputs = np.array([self.coder.classes], np.int32)
        given = None
        if primer is not None:
            inputs = np.concatenate([inputs, _events(primer)])
            given = primer[:, 1] if primer.ndim > 1 else None
        capacity = CAPACITY
        while capacity < len(inputs) + CHUNK:
            capacity *= 2
        state = self._start(rows, capacity)
        at = 0
        while at < len(inputs) - 1:
            size = min(CAPACITY, 1 << ((len(inputs) - 1 - at).bit_length() - 1))  # powers of two: few sizes compiled
            part = jnp.broadcast_to(jnp.asarray(inputs[at : at + size]), (rows, size))
            context = None if given is None else jnp.broadcast_to(jnp.asarray(given[at : at + size]), (rows, size))
            state = self._read(self.prepared, state, part, context)
            at += size
        return state, jnp.full(rows, inputs[-1], jnp.int32), capacity, at

    def nats(self, sequences: Sequence[Tokens]) -> list[npt.NDArray[np.float64]]:
        """−log p of each token given those before it, for sequences int32 [T] or [T, 2]: float64 [T] each.

        A piece longer than the windows that the model learnt from is read in windows that overlap by half, and what
        is in two counts in the later one, where it has more before it than half a window.
        """
        size = self.config.steps
        half = size // 2
        places = [(i, at) for i, x in enumerate(sequences) for at in range(0, max(1, len(x) - half), half)]
        found = [np.zeros(len(x)) for x in sequences]
        for group in (places[k : k + WINDOWS] for k in range(0, len(places), WINDOWS)):
            rows = 1 << (len(group) - 1).bit_length()
            windows = np.full((rows, size, *sequences[0].shape[1:]), self.coder.classes, np.int32)
            for window, (i, at) in zip(windows, group, strict=False):
                part = sequences[i][at : at + size]
                window[: len(part)] = part
            for nats, (i, at) in zip(np.asarray(self._nats(jnp.asarray(windows))), group, strict=False):
                begin = half if at else 0
                found[i][at + begin : at + size] = nats[begin : len(sequences[i]) - at]
        return found

    def measure(self, scores: Iterable[Score]) -> dict[str, float]:
        """`nll`: the mean −log p of a token over whole pieces, each token once, in nats; `tokens`: how many."""
        sequences = []
        for score in scores:
            with contextlib.suppress(InputError):  # a piece that the codec can't take
                sequences.append(self.tokens(score))
        if not sequences:
            return {}
        nats = np.concatenate(self.nats(sequences))
        return {"nll": float(nats.mean()), "tokens": float(len(nats))}

    def scores(self, sequences: list[Tokens], qpm: float = 120.0, *, like: Score | None = None) -> list[Score]:
        """Tokens → notes as Scores, which need no note_seq; in the key of the piece `like` that they go on with."""
        return [self.coder_of(like).decode(tokens, qpm=qpm) for tokens in sequences]

    def coder_of(self, score: Score | None) -> SequenceCodec:
        """The codec for a piece: that of a model which knows one key moves the piece there, and what it writes back."""
        return self.coder.for_piece(score) if score is not None and hasattr(self.coder, "for_piece") else self.coder

    def notes(self, sequences: list[Tokens], qpm: float = 120.0) -> list[NoteSequence]:
        """Tokens → NoteSequences."""
        return [io.to_note_sequence(score) for score in self.scores(sequences, qpm)]


Task = Continuation


def _events(tokens: Tokens) -> Tokens:
    """The tokens themselves, without their context."""
    return tokens[:, 0] if tokens.ndim > 1 else tokens


def _rows(context: npt.ArrayLike, first: int, rows: int) -> jax.Array:
    """What is given for one chunk, [rows, CHUNK]; where it has ended, its last goes on."""
    context = np.asarray(context, np.int32)
    places = np.minimum(np.arange(first, first + CHUNK), len(context) - 1)
    return jnp.broadcast_to(jnp.asarray(context[places]), (rows, CHUNK))


def _ended(score: Score, after: float, before: float) -> Iterator[Note]:
    """The notes that end in a stretch of time, [after, before) in quarter notes, in the order they end."""
    for i in np.argsort(score.end, kind="stable"):
        if after <= score.end[i] < before:
            values = (score.start, score.end, score.pitch, score.velocity, score.track, score.program, score.is_drum)
            yield Note(*(value[i].item() for value in values))


def _check(n: int, seconds: float | None, steps: int | None, temperature: float, top_k: int, top_p: float) -> None:
    """InputError for what can't be asked for."""
    if n < 1:
        raise InputError(f"n={n}: ask for at least one piece")
    if seconds is not None and steps is not None:
        raise InputError(f"seconds={seconds:g} and steps={steps}: give one of them")
    for name, value in (("seconds", seconds), ("steps", steps)):
        if value is not None and value <= 0:
            raise InputError(f"{name}={value:g}: give more than nothing")
    if temperature < 0:
        raise InputError(f"temperature {temperature} is negative; 0 takes the likeliest token, 1 draws as trained")
    if top_k < 0:
        raise InputError(f"top_k={top_k}: give how many of the likeliest tokens may come, 0 for all")
    if not 0 <= top_p <= 1:
        raise InputError(f"top_p={top_p:g}: a probability is from 0 to 1")
