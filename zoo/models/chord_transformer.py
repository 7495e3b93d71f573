"""A bi-directional Transformer for musical chord recognition (BTC).

Park, Choi, Jeon, Kim, Park, ISMIR 2019.

Frames of chroma go in, a chord for each comes out. Every layer reads the window twice: one half attends to the frames
before (and the frame itself), the other to those after; what both heard is joined. In place of the Transformer's
feed-forward layer stand two convolutions over neighbouring frames (section 3.2). The published network has 8 layers of
128 units with 4 heads over 108 frames, 10 s, of a constant-Q spectrogram; this one is smaller, normalises before rather
than after, and knows distances by relative buckets in place of the paper's sinusoids.

The input here is chroma alone, twelve numbers for the bass and twelve for what lies higher, so that moving a song up by
a semitone is turning both rings by one: training turns every window by a chance number of semitones, and its chords.

Shapes: `B` batch, `T` frames of 93 ms, `F` = 24 features in 0 … 1, C first, `U` units, `H` heads, `K` chords. What
`zoo.music.chroma` gives becomes features by `Config.features_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from zoo.models.architecture import Architecture, Metrics
from zoo.nn.dropout import Dropout
from zoo.nn.likelihood import surprise
from zoo.nn.recurrent import Dense
from zoo.nn.rows import on_disk
from zoo.nn.transformer import MultiHeadAttention, RelativeBias

Frames = npt.NDArray[np.float32]

PITCHES = 12
FEATURES = 2 * PITCHES
TOP = 5.0  # the chroma that counts as 1
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
QUALITIES = (
    "maj", "min", "dim", "aug", "min6", "maj6", "min7", "maj7", "7", "dim7", "hdim7", "minmaj7", "sus2", "sus4"
)  # fmt: skip
MINOR = ("min", "min6", "min7", "minmaj7")
MAJOR = ("maj", "maj6", "maj7", "7")
AT_ONCE = 16  # windows of one call, for a song of any length


@dataclass(frozen=True)
class Config:
    """Numbers of the network.

    Attributes:
      pool: chroma frames in one of the network's.
      units, layers, heads: U, and how many layers of how many heads, each twice: for the past and the future.
      kernel: frames that a convolution sees, an odd number.
      buckets, reach: of relative positions, see `zoo.nn.transformer`.
      qualities: what may stand on a root, in Harte's notation (Harte 2010).
      keep: share of units that dropout keeps in training.
      turn: whether training moves every window by an interval drawn at random.
      stay: how likely the same chord is in the next frame, for smoothing.
      steps: T of a window.
    """

    pool: int = 2
    units: int = 128
    layers: int = 3
    heads: int = 4
    kernel: int = 3
    buckets: int = 16
    reach: int = 108
    qualities: tuple[str, ...] = QUALITIES
    keep: float = 0.8
    turn: bool = True
    stay: float = 0.4
    steps: int = 108

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0 or self.steps % 2:
            raise ValueError(f"kernel={self.kernel}, steps={self.steps}: an odd kernel and an even number of steps")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(units=8, layers=2, heads=2, buckets=4, reach=8, qualities=("maj", "min"), turn=False, steps=10)

    @property
    def labels(self) -> tuple[str, ...]:
        """The chords in the order of the network's outputs, K = 12 · qualities + 2: a chord's number is 12 q + root."""
        return (*(f"{root}:{quality}" for quality in self.qualities for root in NAMES), "N", "X")

    def features_of(self, chroma: Frames) -> Frames:
        """Chroma [T · pool, F] → features [T, F]: √(x / 5) of what lies in 0 … 5, so that soft sounds keep some weight.

        Of every `pool` frames the mean is taken; what is over at the end goes into a frame of its own.
        """
        chroma = np.pad(chroma, ((0, -len(chroma) % self.pool), (0, 0)), mode="edge")
        loud = np.sqrt(np.clip(chroma, 0.0, TOP) / TOP)
        return loud.reshape(-1, self.pool, chroma.shape[1]).mean(axis=1).astype(np.float32)


class Chords(NamedTuple):
    """Of each frame: `chord` [B, T, K], probabilities that sum to 1, and `state` [B, T, U], what they are read from."""

    chord: jax.Array
    state: jax.Array


class Convolution(nnx.Module):
    """Over neighbouring frames, zeros around: [B, T, X] → [B, T, Y], one matrix product. `kernel` [W · X, Y]."""

    def __init__(self, inputs: int, outputs: int, width: int, *, rngs: nnx.Rngs) -> None:
        self.width = width
        self.taps = Dense(width * inputs, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        frames, side = x.shape[1], self.width // 2
        x = jnp.pad(x, ((0, 0), (side, side), (0, 0)))
        return self.taps(jnp.concatenate([x[:, i : i + frames] for i in range(self.width)], axis=-1))


class Direction(nnx.Module):
    """One half of a layer: masked attention and the two convolutions, each with what went in added."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        units = config.units
        self.before_attention = nnx.LayerNorm(units, rngs=rngs)
        self.bias = RelativeBias(config.heads, config.buckets, config.reach, both=False, rngs=rngs)
        self.attention = MultiHeadAttention(units, config.heads, rngs=rngs)
        self.before_convolutions = nnx.LayerNorm(units, rngs=rngs)
        self.first = Convolution(units, units, config.kernel, rngs=rngs)
        self.second = Convolution(units, units, config.kernel, rngs=rngs)

    def __call__(self, x: jax.Array, position: jax.Array, drop: Dropout) -> tuple[jax.Array, jax.Array]:
        """`x` [B, T, U] at `position` int32 [T]; a frame hears those at its own place or a smaller one.

        Returns the same shape and the attention's weights [B, H, T, T].
        """
        seen = position[:, None] >= position
        heard, weights = self.attention(self.before_attention(x), bias=self.bias(position, position), mask=seen)
        x = x + drop(heard)
        y = drop(jax.nn.relu(self.first(self.before_convolutions(x))))
        return x + drop(self.second(y)), weights


class Layer(nnx.Module):
    """Both directions, joined (figure 1 of the paper)."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.behind = Direction(config, rngs=rngs)
        self.ahead = Direction(config, rngs=rngs)
        self.join = Dense(2 * config.units, config.units, rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout) -> tuple[jax.Array, jax.Array]:
        """`x` [B, T, U] → the same shape, and weights [B, 2H, T, T]: the heads that look back, then those ahead."""
        position = jnp.arange(x.shape[1])
        past, back = self.behind(x, position, drop)
        future, forth = self.ahead(x, -position, drop)
        return self.join(jnp.concatenate([past, future], axis=-1)), jnp.concatenate([back, forth], axis=1)


class ChordTransformer(nnx.Module):
    """The whole network."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.input = Dense(FEATURES, config.units, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.layers)])
        self.norm = nnx.LayerNorm(config.units, rngs=rngs)
        self.chord = Dense(config.units, len(config.labels), rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Windows [B, T, F] → (logits [B, T, K], states [B, T, U], attention's weights [B, layers, 2H, T, T])."""
        drop = drop or Dropout()
        x, weights = drop(self.input(x)), []
        for layer in self.layers:
            x, one = layer(x, drop)
            weights.append(one)
        x = self.norm(x)
        return self.chord(x), x, jnp.stack(weights, axis=1)

    def recognise(self, x: jax.Array) -> Chords:
        """Windows [B, T, F] → probabilities."""
        logits, state, _ = self(x)
        return Chords(jax.nn.softmax(logits), state)

    def attend(self, x: jax.Array) -> jax.Array:
        """The attention's weights in windows [B, T, F]: [B, layers, 2H, T, T]."""
        return self(x)[2]

    def by_pieces(self, jit: Callable[..., Any]) -> Callable[[Frames], Chords]:
        """A function from the chroma of a whole piece, [T · pool, F], to `Chords` of `Rows` [T, …].

        `jit(kernel)` compiles `kernel(model, …)`. Windows overlap by half, and of each its middle half is taken: so
        every frame hears at least a quarter of a window of what is around it, save at the recording's ends.
        """
        recognise, steps = jit(ChordTransformer.recognise), self.config.steps
        hop = steps // 2

        def middles(x: Frames) -> Iterator[Chords]:
            last = max(0, -(-(len(x) - steps) // hop))
            padded = np.pad(x, ((0, AT_ONCE * hop + steps), (0, 0)))
            for first in range(0, last + 1, AT_ONCE):
                begins = range(first * hop, (first + AT_ONCE) * hop, hop)
                found = jax.device_get(recognise(np.stack([padded[at : at + steps] for at in begins])))
                for k in range(first, min(first + AT_ONCE, last + 1)):
                    cut = slice(hop // 2 if k else 0, len(x) - k * hop if k == last else hop // 2 + hop)
                    yield Chords(*(part[k - first, cut] for part in found))

        return lambda chroma: on_disk(middles(self.config.features_of(chroma)))


# --- training and evaluation ------------------------------------------------------------------------------------------


def loss(model: ChordTransformer, batch: dict[str, Any], key: jax.Array, step: jax.Array) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the chords, equation 9, over the frames that have one.

    `batch`: features "x" [B, T, F] and chords "y" int [B, T], −1 where a window goes beyond its song.
    """
    config, (turn, drop) = model.config, jax.random.split(key)
    x, y = jnp.asarray(batch["x"]), jnp.asarray(batch["y"])
    if config.turn:
        x, y = turned(config, x, y, jax.random.randint(turn, (len(x),), 0, PITCHES))
    logits, _, _ = model(x, Dropout(config.keep, drop))
    return _mean(surprise(logits, y), y >= 0), {"accuracy": _mean(logits.argmax(axis=-1) == y, y >= 0)}


def turned(config: Config, x: jax.Array, y: jax.Array, semitones: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features [B, T, 24] and chords [B, T] moved up by `semitones` [B]."""
    from_ = (jnp.arange(PITCHES) - semitones[:, None]) % PITCHES  # [B, 12]
    rings = x.reshape(*x.shape[:-1], -1, PITCHES)
    x = jnp.take_along_axis(rings, from_[:, None, None], axis=-1).reshape(x.shape)
    moved = y // PITCHES * PITCHES + (y % PITCHES + semitones[:, None]) % PITCHES
    return x, jnp.where((y >= 0) & (y < PITCHES * len(config.qualities)), moved, y)


def evaluate(model: ChordTransformer, batch: dict[str, Any], key: jax.Array) -> Metrics:
    """Loss and accuracy, and the share of frames that are right as major or minor where they are one of these."""
    y = jnp.asarray(batch["y"])
    logits, _, _ = model(batch["x"])
    found = logits.argmax(axis=-1)
    reduced = jnp.asarray(as_majmin(model.config))
    truth, there = reduced[jnp.maximum(y, 0)], y >= 0
    scored = there & (truth >= 0)
    return {
        "loss": _sum_and_count(surprise(logits, y), there),
        "accuracy": _sum_and_count(found == y, there),
        "majmin": _sum_and_count(reduced[found] == truth, scored),
    }


def as_majmin(config: Config) -> npt.NDArray[np.int32]:
    """For each of the K chords its major (0 … 11) or minor triad (12 … 23), 24 for no chord, −1 for all others."""
    kinds = [0 if quality in MAJOR else 1 if quality in MINOR else None for quality in config.qualities]
    triads = [-1 if kind is None else PITCHES * kind + root for kind in kinds for root in range(PITCHES)]
    return np.array([*triads, 2 * PITCHES, -1], np.int32)


def _sum_and_count(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.stack([jnp.sum(jnp.where(mask, x, 0)).astype(jnp.float32), jnp.sum(mask).astype(jnp.float32)])


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    total, count = _sum_and_count(x, mask)
    return total / jnp.maximum(count, 1)


def example(config: Config, size: int, rng: np.random.Generator) -> dict[str, Any]:
    """Chords drawn at random, each with noise around its root's pitch class; the windows end a frame earlier each."""
    y = rng.integers(0, len(config.labels), (size, config.steps)).astype(np.int32)
    x = rng.uniform(0, 0.5, (size, config.steps, FEATURES)).astype(np.float32)
    np.put_along_axis(x, y[..., None] % FEATURES, 1.0, axis=-1)
    y[np.arange(config.steps) >= np.maximum(1, config.steps - np.arange(size))[:, None]] = -1
    return {"x": x, "y": y}


ARCHITECTURE = Architecture(
    name="chord-transformer",
    config=Config,
    module=ChordTransformer,
    loss=loss,
    evaluate=evaluate,
    monitor=("majmin", "max"),
    example=example,
    kernels={"recognise": lambda model, inputs, key: model.recognise(inputs["x"])},
    task="chords",
    tiny={"tiny": Config.tiny()},
    data="songs",
)
