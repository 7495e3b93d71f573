"""Structure Transformer: where a song's sections begin, what they are for, and which are alike.

A design of this zoo. Self-attention over the whole song as in Wang, Hung and Smith, ICASSP 2022, arXiv:2205.14700
(SpecTNT), whose tasks, a boundary and a function at each instant, are these; boundaries smeared over time as in
Ullrich, Schlüter and Grill, ISMIR 2014; but from chroma alone, small, and told of repetition:

    attention's score of tokens i and j = q_i · k_j / √D + bias[distance] + Σ_s gain[h, s] · S_s[i, j]

where S_s is how alike the chroma around i and j are, over stretches of several lengths s: a self-similarity matrix
(Foote 1999), which shows repetitions as diagonals (the longer s, the cleaner) before anything is learnt.

A token is `patch` frames side by side, so that attention is cheap and boundaries are found to a frame.

Shapes: `B` batch, `T` frames of 0.19 s, `P` frames of a token, `L` = T / P tokens, `F` features of a frame, the first
24 being chroma (bass and treble), `U` units, `H` heads, `E` numbers of the embedding, `C` functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture, Metrics
from zoo.nn.dropout import Dropout
from zoo.nn.likelihood import surprise
from zoo.nn.precision import product
from zoo.nn.recurrent import Dense
from zoo.nn.transformer import EncoderBlock, RelativeBias

PITCHES = 12
CHROMA = 2 * PITCHES
PLACES = 4  # numbers that say how far a token is from the song's ends
NEAR = 20.0  # tokens: what counts as near an end
FUNCTIONS = (
    "silence", "intro", "verse", "prechorus", "chorus", "bridge", "solo", "instrumental", "outro", "other"
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Numbers of the network, and of how its answers are read.

    Attributes:
      scales: frames on either side of an instant for the novelty that features tell, F = 24 + scales + 1.
      hops: of the codec's frames, so many make one of the network's.
      patch: P.
      steps: L of the examples it learns from; longer songs are cut there.
      channels: of the convolution over frames; it sees `reach` frames on either side.
      units, layers, heads, hidden: U, layers, H, and units of the feed-forward layers.
      buckets, far: distances that attention tells apart, and the farthest, in tokens.
      stretches: s, in tokens.
      embedding: E.
      functions: what sections are for, C names.
      smear: standard deviation, in frames, of the bell that a boundary is taught as.
      keep: share of units that dropout keeps in training.
      threshold, share: a frame may be a boundary that is at least so likely, or has this share of what the likeliest
        fiftieth of the song's frames reach, where that is less: it is less sure of unlike music.
      apart: seconds between two boundaries, at least.
      cosine, width: sections whose mean chroma have this cosine are as likely alike as not, and by how much more it has
        to be for log odds of one.
      trust: what the network's own log odds that they are alike count beside those.
      same: how likely sections have to be alike to share a letter.
    """

    scales: tuple[int, ...] = (6, 11, 22, 43, 86)
    hops: int = 4
    patch: int = 4
    steps: int = 320
    channels: int = 64
    reach: int = 8
    units: int = 128
    layers: int = 3
    heads: int = 4
    hidden: int = 256
    buckets: int = 32
    far: int = 128
    stretches: tuple[int, ...] = (1, 8, 24)
    embedding: int = 32
    functions: tuple[str, ...] = FUNCTIONS
    smear: float = 2.0
    keep: float = 0.8
    threshold: float = 0.15
    share: float = 0.7
    apart: float = 12.0
    cosine: float = 0.975
    width: float = 0.008
    trust: float = 0.5
    same: float = 0.6

    def __post_init__(self) -> None:
        if len(self.functions) < 2:
            raise ValueError("a network needs two functions to tell apart")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(
            scales=(2,), patch=2, steps=12, channels=8, reach=1, units=16, layers=2, heads=2, hidden=16, buckets=8,
            far=8, stretches=(1, 3), embedding=6, functions=("silence", "verse", "chorus"), smear=1.0, keep=1.0,
        )  # fmt: skip

    @property
    def features(self) -> int:
        """F."""
        return CHROMA + len(self.scales) + 1

    @property
    def frames(self) -> int:
        """T of the examples."""
        return self.steps * self.patch


class Heard(NamedTuple):
    """What the network says of a song.

    Attributes:
      boundary: [B, T], log odds that a section begins with this frame.
      function: [B, L, C], log probabilities but for a constant.
      embedding: [B, L, E] of length 1; tokens of sections that are alike lie near each other.
      alike: [B, 2], slope and offset: tokens i and j belong to such sections by log odds of slope · e_i · e_j + offset.
      attention: [B, layers, H, L, L].
    """

    boundary: jax.Array
    function: jax.Array
    embedding: jax.Array
    alike: jax.Array
    attention: jax.Array


class StructureTransformer(nnx.Module):
    """The network."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        seen, token = config.features * (2 * config.reach + 1), config.channels * config.patch
        self.listen = Dense(seen, config.channels, rngs=rngs)
        self.enter = Dense(token + PLACES, config.units, rngs=rngs)
        self.bias = RelativeBias(config.heads, config.buckets, config.far, both=True, rngs=rngs)
        self.gain = nnx.Param(jax.nn.initializers.normal(0.5)(rngs.params(), (config.heads, len(config.stretches))))
        blocks = [EncoderBlock(config.units, config.heads, config.hidden, rngs=rngs) for _ in range(config.layers)]
        self.blocks = nnx.List(blocks)
        self.norm = nnx.LayerNorm(config.units, rngs=rngs)
        self.boundary = Dense(config.units + token, config.patch, rngs=rngs)
        self.function = Dense(config.units, len(config.functions), rngs=rngs)
        self.embedding = Dense(config.units, config.embedding, rngs=rngs)
        self.alike = nnx.Param(jnp.array([4.0, -2.0]))

    def __call__(self, x: jax.Array, mask: jax.Array, drop: Dropout | None = None) -> Heard:
        """Whole songs, features [B, T, F], `mask` bool [B, L] where there are any; past an end nothing is meant."""
        drop = drop or Dropout()
        there = jnp.repeat(mask, self.config.patch, axis=1)[..., None]
        x = jnp.where(there, x, 0.0)
        local = jax.nn.relu(self.listen(around(x, self.config.reach)))  # [B, T, channels]
        local = local.reshape(*mask.shape, -1)  # [B, L, P · channels]
        h = self.enter(drop(jnp.concatenate([local, places(mask)], axis=-1)))  # [B, L, U]
        position = jnp.arange(mask.shape[1])
        bias = self.bias(position, position) + self.likeness(x)  # [B, H, L, L]
        weights = []
        for block in self.blocks:
            h, one = block(h, bias, mask[:, None, None], drop)
            weights.append(one)
        h = self.norm(h)
        boundary = self.boundary(jnp.concatenate([h, local], axis=-1)).reshape(*x.shape[:2])
        e = self.embedding(h)
        e = e / jnp.sqrt(jnp.sum(e * e, axis=-1, keepdims=True) + 1e-6)
        alike = jnp.broadcast_to(self.alike[...], (len(x), 2))
        return Heard(boundary, self.function(h), e, alike, jnp.stack(weights, axis=1))

    def likeness(self, x: jax.Array) -> jax.Array:
        """What the chroma of features [B, T, F] add to attention's scores: [B, H, L, L]."""
        chroma = x[..., :CHROMA].reshape(len(x), -1, self.config.patch, CHROMA).mean(axis=2)
        alike = jnp.stack([cosines(around(chroma, stretch // 2)) for stretch in self.config.stretches])  # [s, B, L, L]
        return jnp.einsum("hs,sblm->bhlm", self.gain[...], alike)


def around(x: jax.Array, reach: int) -> jax.Array:
    """Each row of [B, T, F] with those before and after it, zeros past the ends: [B, T, (2 · reach + 1) · F]."""
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return jnp.concatenate([padded[:, k : k + x.shape[1]] for k in range(2 * reach + 1)], axis=-1)


def cosines(x: jax.Array) -> jax.Array:
    """[B, L, F] → [B, L, L]."""
    unit = x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)
    return product("blf,bmf->blm", unit, unit)


def places(mask: jax.Array) -> jax.Array:
    """Where the tokens of a song are: [B, L] → [B, L, 4], the share of it that is over, and nearness to both ends."""
    at, count = jnp.arange(mask.shape[1], dtype=jnp.float32), mask.sum(axis=1, keepdims=True).astype(jnp.float32)
    over = at / jnp.maximum(count, 1)
    begin, end = jnp.exp(-at / NEAR) + jnp.zeros_like(over), jnp.exp(-jnp.maximum(count - 1 - at, 0) / NEAR)
    return jnp.stack([over, over**2, begin, end], axis=-1)


def turned(x: jax.Array, semitones: jax.Array) -> jax.Array:
    """Features [B, T, F] of the songs transposed by `semitones` int [B] in 0 … 11: the chroma turn, the rest stays."""
    shift = (jnp.arange(PITCHES) - semitones[:, None]) % PITCHES
    order = jnp.concatenate([shift, shift + PITCHES], axis=1)[:, None]  # [B, 1, 24]
    return jnp.concatenate([jnp.take_along_axis(x[..., :CHROMA], order, axis=2), x[..., CHROMA:]], axis=-1)


def losses(heard: Heard, batch: dict[str, Any]) -> Metrics:
    """Cross-entropies by head: of boundaries (over frames), functions (over tokens) and likeness (over pairs).

    `batch`: "mask", "boundary" [B, T] of 0 to 1, "function" and "letter" int [B, L], negative where nobody said.
    """
    mask = batch["mask"]
    frames = jnp.repeat(mask, heard.boundary.shape[1] // mask.shape[1], axis=1)
    said = mask & (batch["function"] >= 0)
    lettered = mask & (batch["letter"] >= 0)
    pairs = lettered[:, :, None] & lettered[:, None]
    slope, offset = heard.alike[:, 0, None, None], heard.alike[:, 1, None, None]
    odds = slope * product("ble,bme->blm", heard.embedding, heard.embedding) + offset
    same = batch["letter"][:, :, None] == batch["letter"][:, None]
    return {
        "boundary_loss": _mean(_entropy(heard.boundary, batch["boundary"]), frames),
        "function_loss": _mean(surprise(heard.function, batch["function"]), said),
        "alike_loss": _mean(_entropy(odds, same.astype(jnp.float32)), pairs),
    }


def _entropy(odds: jax.Array, truth: jax.Array) -> jax.Array:
    """−t log p − (1 − t) log(1 − p), where p has the given log odds."""
    return jax.nn.softplus(odds) - truth * odds


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(mask.sum(), 1)


BOUNDARY, FUNCTION, ALIKE = 4.0, 0.5, 0.5  # weights of the three; a boundary's is small, there being few


def loss(
    model: StructureTransformer, batch: dict[str, Any], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The cross-entropies of songs in random keys, weighted."""
    turn, hide = jax.random.split(key)
    x = turned(jnp.asarray(batch["x"], jnp.float32), jax.random.randint(turn, (len(batch["x"]),), 0, PITCHES))
    parts = losses(model(x, batch["mask"], Dropout(model.config.keep, hide)), batch)
    return _total(parts), parts


def _total(parts: Metrics) -> jax.Array:
    return BOUNDARY * parts["boundary_loss"] + FUNCTION * parts["function_loss"] + ALIKE * parts["alike_loss"]


def evaluate(model: StructureTransformer, batch: dict[str, Any], key: jax.Array) -> Metrics:
    """The loss without dropout, in the songs' own keys, its parts, and the share of tokens whose function is right."""
    heard = model(jnp.asarray(batch["x"], jnp.float32), batch["mask"])
    parts, said = losses(heard, batch), batch["mask"] & (batch["function"] >= 0)
    right = heard.function.argmax(axis=-1) == batch["function"]
    return {"loss": _total(parts), "function_accuracy": _mean(right.astype(jnp.float32), said)} | parts


def listen(model: StructureTransformer, inputs: dict[str, Any], key: jax.Array) -> Heard:
    """Features "x" with "mask" → all that the network says, attention included."""
    return model(jnp.asarray(inputs["x"], jnp.float32), inputs["mask"])


def example(config: Config, size: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch; the first song is whole, the others are shorter by a token each."""
    tokens, frames = (size, config.steps), (size, config.frames)
    return {
        "x": rng.uniform(0, 1, (*frames, config.features)).astype(np.float32),
        "mask": np.arange(config.steps) < np.maximum(1, config.steps - np.arange(size))[:, None],
        "boundary": (rng.uniform(0, 1, frames) < 0.1).astype(np.float32),
        "function": rng.integers(-1, len(config.functions), tokens).astype(np.int32),
        "letter": rng.integers(-1, 3, tokens).astype(np.int32),
    }


ARCHITECTURE = Architecture(
    name="structure-transformer",
    config=Config,
    module=StructureTransformer,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={"listen": listen},
    task="structure",
    data="songs",
    tiny={"tiny": Config.tiny()},
)
