"""Harmonisation by an encoder-decoder: a melody is read whole, and what goes with it written from left to right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.models.harmonizer import beam, targets
from zoo.models.harmonizer import sample as draw
from zoo.music import harmony, io
from zoo.music.chorale import CLASSES, REST, ChoraleCodec
from zoo.music.grid import STEPS_PER_QUARTER
from zoo.music.harmony import SLOT, HarmonyCodec
from zoo.music.melody_events import shift_to_c
from zoo.music.musicxml_out import musicxml_bytes
from zoo.music.score import Score
from zoo.nn.likelihood import surprise
from zoo.nn.sampling import Sampling
from zoo.tasks.latent import as_key
from zoo.tasks.model import Found, Model

if TYPE_CHECKING:
    from flax import nnx
    from note_seq import NoteSequence

    from zoo.show.attention import Attention
    from zoo.tasks.latent import Key, Source

BUCKETS = (64, 128, 256, 512, 1024, 2048, 4096)  # steps that pieces are padded to, so that few lengths are compiled
CHORD_VELOCITY = 60
TEMPERATURE = 0.7
WIDEST = 64  # beam

Tokens = npt.NDArray[np.int32]


class Piece(Protocol):
    """A melody as the model reads it, and how what it writes becomes music."""

    music: Tokens  # [T, C], harmony and all; unknown tokens of it are padding
    qpm: float

    def score(self, written: Tokens) -> Score:
        """The melody with the harmony that target tokens [L] mean."""
        ...

    def sheet(self, score: Score) -> bytes:
        """Such a score as MusicXML."""
        ...

    def attention_axes(self, written: Tokens, patch: int) -> dict[str, Any]:
        """Where target tokens and patches of the melody's steps are, in seconds, and what they are called."""
        ...


class Harmonization(Model):
    """A model that gives a melody chord symbols, or three more voices; which of them, its codec says.

    A source is a path (MIDI, MusicXML, MXL, ABC, kern, NoteSequence), a NoteSequence or a Score. Keys are ints or JAX
    keys: the same key gives the same music.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self._sample = self.jit(lambda model, x, key, tau: draw(model, x, key, Sampling(tau)))
        self._beam = self.jit(beam, 3)
        self._forward = self.jit(lambda model, x: model.forward(x))

    def harmonize(self, melody: Source, n: int = 1, *, qpm: float | None = None, **options: Any) -> list[NoteSequence]:
        """The melody with its harmony, `n` versions; options as for `write`. `qpm` is by default the melody's tempo.

        With chords the melody is as it was, the chords are symbols and a second track; with voices it is moved to where
        a soprano sings, and on a grid of sixteenths.
        """
        return [io.to_note_sequence(score) for score in self.harmonize_scores(melody, n, qpm=qpm, **options)]

    def harmonize_scores(self, melody: Source, n: int = 1, *, qpm: float | None = None, **options: Any) -> list[Score]:
        """As `harmonize`, but Scores, which need no note_seq."""
        piece = self.piece(melody, qpm)
        return [piece.score(written) for written in self.write(piece.music, n, **options)]

    def chords(self, melody: Source, **options: Any) -> tuple[tuple[float, str], ...]:
        """Chord symbols for a melody and the quarters where they begin; options as for `write`.

        Raises InputError for a model of voices.
        """
        if self.config.voices > 1:
            raise InputError(f"{self.name}: writes voices, not chords; use harmonizer/leadsheet")
        return self.harmonize_scores(melody, **options)[0].chords

    def score(self, source: Source) -> npt.NDArray[np.float64]:
        """−log p in nats of each harmony token of a piece that has its harmony, given those before: float64 [L].

        Raises InputError for a piece without chord symbols, or without four voices.
        """
        return self.nats(self.known(source).music)

    def attention(self, source: Source) -> Attention:
        """What each token of the harmony that the model would write looks at in the melody; times in seconds."""
        from zoo.show.attention import Attention

        piece = self.piece(source)
        written = self.write(piece.music)[0]
        music = self.filled(piece.music, written)
        _, weights = self._forward(jnp.asarray(self._padded(music[None])))
        rows, patches = len(written), len(music) // self.config.patch
        found = np.asarray(weights)[0, ..., :rows, :patches]
        return Attention(found, **piece.attention_axes(written, self.config.patch))

    # --- arrays ------------------------------------------------------------------------------------------------------

    def piece(self, source: Source, qpm: float | None = None) -> Piece:
        """A melody, to be harmonised; whatever harmony the source has isn't looked at."""
        score = io.read(source)
        qpm = qpm or score.qpm
        if isinstance(self.codec, ChoraleCodec):
            return _Chorale(self.codec, self.codec.melody(score), qpm)
        assert isinstance(self.codec, HarmonyCodec)
        melody = harmony.melody_of(score)
        tempos = score.tempos if qpm == score.qpm else np.array([[0.0, qpm]])
        return _Song(self.codec, replace(melody, chords=(), tempos=tempos), qpm)

    def known(self, source: Source) -> Piece:
        """A piece with its harmony. Raises InputError where it has none."""
        score = io.read(source)
        if isinstance(self.codec, ChoraleCodec):
            return _Chorale(self.codec, self.codec.encode(score), score.qpm)
        assert isinstance(self.codec, HarmonyCodec)
        if not score.chords:
            raise InputError(f"{score.source or 'the score'}: has no chord symbols; pass a lead sheet")
        return _Song(self.codec, score, score.qpm)

    def write(
        self,
        music: Tokens,
        n: int = 1,
        *,
        key: Key = 0,
        temperature: float = TEMPERATURE,
        width: int | None = None,
    ) -> Tokens:
        """`n` harmonies for the melody of music [T, C], as target tokens int32 [n, L].

        Args:
          temperature: above 0 they are drawn, each token from the model's distribution with its logits divided by it;
            at 0 they are the likeliest that a beam search finds, best first. What is likeliest changes its chords less
            often than a composer does, so that drawing is the default.
          width: of that beam, by default the model's, or `n` where that is more; 1 is greedy.
        """
        if n < 1 or (width is not None and not n <= width <= WIDEST):
            raise InputError(f"n={n}, width={width}: ask for one version or more, as many as the beam is wide at most")
        if temperature < 0:
            raise InputError(f"temperature {temperature} is negative; 0 takes the likeliest, 1 draws as trained")
        length = len(music) // self.config.slot * self.config.voices
        padded = self._padded(music[None])
        if temperature == 0:
            width = width or min(max(n, self.config.beam), WIDEST)
            written, _ = self._beam(jnp.asarray(padded), jnp.array([length], jnp.int32), width)
            return np.asarray(written)[0, :n, :length]
        rows = jnp.asarray(np.repeat(padded, 1 << (n - 1).bit_length(), axis=0))
        return np.asarray(self._sample(rows, as_key(key), jnp.float32(temperature)))[:n, :length]

    def nats(self, music: Tokens) -> npt.NDArray[np.float64]:
        """−log p of each target token of music [T, C], given those before it: float64 [L]; 0 for unknown ones."""
        padded = jnp.asarray(self._padded(music[None]))
        written = targets(self.config, padded)
        nats = jnp.where(written < self.config.classes, surprise(self._forward(padded)[0], written), 0.0)
        return np.asarray(nats, np.float64)[0, : len(music) // self.config.slot * self.config.voices]

    def likeliest(self, music: Tokens) -> Tokens:
        """The likeliest target token at each place given the true ones before it, int32 [L]."""
        logits, _ = self._forward(jnp.asarray(self._padded(music[None])))
        found = np.asarray(jnp.argmax(logits[0], axis=-1), np.int32)
        return found[: len(music) // self.config.slot * self.config.voices]

    def filled(self, music: Tokens, written: Tokens) -> Tokens:
        """Music [T, C] with target tokens [L] for its harmony."""
        c = self.config
        out = music.copy()
        out[:, 1 : 1 + c.voices] = np.repeat(written.reshape(-1, c.voices), c.slot, axis=0)
        return out

    def _padded(self, music: Tokens) -> Tokens:
        """Music [B, T, C], padded to a length that other pieces have too."""
        steps = music.shape[1]
        size = next((bucket for bucket in BUCKETS if bucket >= steps), -(-steps // BUCKETS[-1]) * BUCKETS[-1])
        c = self.config
        fill = [c.source, *[c.classes] * c.voices, *([0] if c.places > 1 else [])]
        tail = np.broadcast_to(np.array(fill, np.int32), (len(music), size - steps, len(fill)))
        return np.concatenate([music, tail], axis=1)


Task = Harmonization


class _Song:
    """A melody that gets chords."""

    def __init__(self, codec: HarmonyCodec, melody: Score, qpm: float) -> None:
        self.melody, self.qpm = melody, qpm
        self.encoded = codec.encode(melody)
        self.music = self.encoded.tokens

    def symbols(self, written: Iterable[int]) -> list[str]:
        """Chord symbols in the melody's own key."""
        key = -self.encoded.shift % 12
        return [harmony.symbol_of(int(token), key, harmony.prefers_flats(key)) for token in written]

    def score(self, written: Tokens) -> Score:
        begins = self.encoded.begins
        changes = np.flatnonzero(np.diff(written, prepend=-1))
        ends = np.append(changes[1:], len(written))
        key = -self.encoded.shift % 12
        sounding = [harmony.voiced(int(token), key) for token in written[changes]]
        names = self.symbols(written[changes])
        return with_chords(self.melody, list(zip(begins[changes], begins[ends], names, sounding, strict=True)))

    def sheet(self, score: Score) -> bytes:
        return musicxml_bytes(score, (0,), -self.encoded.shift % 12, Path(score.source).stem)

    def attention_axes(self, written: Tokens, patch: int) -> dict[str, Any]:
        begins = self.encoded.begins
        within = np.arange(0, SLOT, patch) / STEPS_PER_QUARTER
        columns = (begins[:-1, None] + np.minimum(within, np.diff(begins)[:, None])).ravel()
        return {
            "rows": self.melody.seconds_at(begins[:-1]),
            "columns": self.melody.seconds_at(columns),
            "row_labels": self.symbols(written),
            "asks": "chords",
            "asked": "melody",
        }


class _Chorale:
    """A soprano that gets three voices."""

    def __init__(self, codec: ChoraleCodec, music: Tokens, qpm: float) -> None:
        """`music` int32 [T] of a soprano alone, or [T, 4] of all."""
        self.codec, self.qpm = codec, qpm
        soprano = music if music.ndim == 1 else music[:, 0]
        self.upbeat = int(np.argmax(soprano > REST)) if music.ndim == 1 else 0  # all rest until the melody begins
        alone = np.full((len(music), 4), CLASSES, np.int32)
        alone[:, 0] = soprano
        self.music = (alone if music.ndim == 1 else music)[self.upbeat :]

    def score(self, written: Tokens) -> Score:
        music = np.concatenate([self.music[:, :1], written.reshape(-1, 3)], axis=1)
        return self.codec.decode(np.pad(music, ((self.upbeat, 0), (0, 0))), self.qpm)

    def sheet(self, score: Score) -> bytes:
        key = int(-shift_to_c(score.pitch[None], np.ones((1, len(score)), bool))[0]) % 12
        return musicxml_bytes(score, range(4), key)

    def attention_axes(self, written: Tokens, patch: int) -> dict[str, Any]:
        steps = (self.upbeat + np.arange(len(self.music))) / STEPS_PER_QUARTER * 60 / self.qpm
        return {"rows": np.repeat(steps, 3), "columns": steps[::patch], "asks": "alto, tenor, bass", "asked": "soprano"}


def with_chords(melody: Score, chords: Sequence[tuple[float, float, str, Sequence[int]]]) -> Score:
    """A melody with chords (begin and end in quarters, symbol, pitches): as symbols, and sounding in a second track."""
    rows = [(begin, end, pitch) for begin, end, _, pitches in chords for pitch in pitches]
    start, end, pitch = np.array(rows, np.float64).reshape(-1, 3).T
    count = len(melody)
    return Score.of(
        np.concatenate([melody.start, start]),
        np.concatenate([melody.end, end]),
        np.concatenate([melody.pitch, pitch]),
        np.concatenate([melody.velocity, np.full(len(rows), CHORD_VELOCITY)]),
        np.concatenate([np.zeros(count), np.ones(len(rows))]),
        np.concatenate([melody.program, np.zeros(len(rows))]),
        tempos=melody.tempos,
        meters=melody.meters,
        chords=tuple((begin, symbol) for begin, _, symbol, _ in chords),
        track_names=("Melody", "Chords"),
        source=melody.source,
    )
