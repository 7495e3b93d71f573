"""Melody Transformer: which notes of a piece are its melody, by self-attention over all of its notes.

A note is the sum of the embeddings of a few small numbers (`zoo.music.melody_notes`), as the compound words of
MidiBERT-Piano (Chou et al. 2021, arXiv:2107.05223) are, whose task and data these are too: POP909's three tracks, put
together. The network is ours, smaller by two orders: a pre-norm encoder with relative positions (counted in notes) and
one logit a note, learnt from random weights. Pitches are moved about in training; neither track nor velocity is seen,
and of some windows the bar lines aren't, so that pieces without a grid do as well.

Shapes: `B` batch, `L` notes, `K` numbers a note, `U` units. Windows are int32 [B, L, K + 1], the label last: 1 melody,
0 not, −1 where there is no note.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.dropout import Dropout
from zoo.nn.recurrent import Dense
from zoo.nn.transformer import Encoder


@dataclass(frozen=True)
class Config:
    """Numbers of one network.

    Attributes:
      steps: L of a training window; the network takes any.
      sizes: how many values each of a note's K numbers has.
      position, barless: which of the numbers tells of bars, and its value that says nothing.
      units, layers, heads, hidden: of the encoder.
      buckets, reach: of its relative positions, see `zoo.nn.transformer`.
      keep: share that dropout leaves.
      blind: share of training windows that don't see where bars are.
    """

    steps: int = 128
    sizes: tuple[int, ...] = (128, 32, 32, 65, 26, 26, 8)
    position: int = 3
    barless: int = 64
    units: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 512
    buckets: int = 32
    reach: int = 64
    keep: float = 0.9
    blind: float = 0.15

    @classmethod
    def tiny(cls) -> Config:
        """A few thousand parameters, for tests."""
        return cls(
            steps=8,
            sizes=(12, 8, 4),
            position=2,
            barless=3,
            units=8,
            layers=2,
            heads=2,
            hidden=16,
            buckets=8,
        )


class MelodyTransformer(nnx.Module):
    """The network."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.embeddings = nnx.List(
            nnx.Param(jax.nn.initializers.normal(0.5)(rngs.params(), (size, config.units))) for size in config.sizes
        )
        self.encoder = Encoder(
            config.units, config.layers, config.heads, config.hidden, config.buckets, config.reach, rngs=rngs
        )
        self.output = Dense(config.units, 1, rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout | None = None) -> tuple[jax.Array, jax.Array]:
        """Windows [B, L, K + 1] → (logits [B, L], attention's weights [B, layers, H, L, L]); labels aren't looked at.

        Only whether a label is −1 matters: there is no note then.
        """
        drop = drop or Dropout()
        tables = enumerate(self.embeddings)
        h = jnp.sum(jnp.stack([table[...][x[..., i]] for i, table in tables]), axis=0) / math.sqrt(len(self.embeddings))
        h, weights = self.encoder(drop(h), x[..., -1] >= 0, drop)  # [B, L, U]
        return self.output(h)[..., 0], weights


# --- training ---------------------------------------------------------------------------------------------------------


def measure(model: MelodyTransformer, x: jax.Array, drop: Dropout | None = None) -> dict[str, jax.Array]:
    """Sums over the notes and of how many they are, [2] each: cross-entropy in nats, accuracy, precision, recall."""
    logits, _ = model(x, drop)
    there, melody, found = x[..., -1] >= 0, x[..., -1] == 1, logits > 0
    entropy = jax.nn.softplus(jnp.where(melody, -logits, logits))
    right, notes = found & melody, there.sum()
    return {
        "loss": jnp.stack([jnp.sum(entropy * there), notes]),
        "accuracy": jnp.stack([jnp.sum((found == melody) & there), notes]).astype(jnp.float32),
        "precision": jnp.stack([jnp.sum(right), jnp.sum(found & there)]).astype(jnp.float32),
        "recall": jnp.stack([jnp.sum(right), jnp.sum(melody)]).astype(jnp.float32),
    }


def loss(
    model: MelodyTransformer, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean binary cross-entropy of a note in nats, with dropout, bars hidden from some windows."""
    config, x = model.config, batch["x"]
    drop_key, blind_key = jax.random.split(key)
    blind = jax.random.bernoulli(blind_key, config.blind, (len(x), 1))
    position = jnp.where(blind, config.barless, x[..., config.position])
    sums = measure(model, x.at[..., config.position].set(position), Dropout(config.keep, drop_key))
    means = {name: total[0] / jnp.maximum(total[1], 1.0) for name, total in sums.items()}
    return means.pop("loss"), means


def evaluate(model: MelodyTransformer, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """As the loss, without dropout and with all bars; each note of overlapping windows counts in both."""
    return measure(model, batch["x"])


# --- inference --------------------------------------------------------------------------------------------------------


def probabilities(model: MelodyTransformer, x: jax.Array) -> jax.Array:
    """How likely each note of windows [B, L, K + 1] is the melody's: float32 [B, L]."""
    return jax.nn.sigmoid(model(x)[0])


def attention(model: MelodyTransformer, x: jax.Array) -> jax.Array:
    """What each note looks at: [B, layers, H, L, L]."""
    return model(x)[1]


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random notes with random labels, the last of each window missing."""
    columns = [rng.integers(0, size, (batch, config.steps)) for size in (*config.sizes, 2)]
    x = np.stack(columns, axis=-1).astype(np.int32)
    x[:, -1, -1] = -1
    return {"x": x}


ARCHITECTURE = Architecture(
    name="melody-transformer",
    config=Config,
    module=MelodyTransformer,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={
        "probabilities": lambda model, batch, key: probabilities(model, batch["x"]),
        "attention": lambda model, batch, key: attention(model, batch["x"]),
    },
    task="melody",
    tiny={"melody-transformer": Config.tiny()},
)
