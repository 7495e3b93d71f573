"""Harmonizer: a transformer that reads a melody and writes what goes with it, chords or voices.

An encoder-decoder (Vaswani et al. 2017, arXiv:1706.03762) with relative positions in buckets (Raffel et al. 2020,
arXiv:1910.10683): the encoder reads the melody, the decoder writes token by token and looks at all of it. Melody and
harmony share a clock, so attention between them knows the time from one to the other as well.

    log p(y | x) = Σ log p(y[j] | y[< j], x)

Shapes: `B` batch, `T` steps of the melody, `M` = T / patch tokens of the encoder, `K` voices (tokens of a time),
`L` = T / slot · K target tokens, `V` their classes, `U` units, `H` heads, `W` width of the beam. Music is int32
[B, T, 1 + K], or with bars [B, T, 2 + K]: the melody's token, the targets' (those of the first step of a slot count),
and which slot of its bar it is. A token from its number of classes on is padding: a melody's is not looked at, a
target's is not learnt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.beam import beam_search
from zoo.nn.dropout import Dropout
from zoo.nn.likelihood import over_tokens
from zoo.nn.recurrent import Dense
from zoo.nn.sampling import Sampling, rollout
from zoo.nn.transformer import Decoder, DecoderState, Encoder, RelativeBias


@dataclass(frozen=True)
class Config:
    """Numbers of one harmonizer.

    Attributes:
      source, classes: number of the melody's tokens, and V.
      steps: T of the longest window it learns from.
      slot: steps of the melody for each time of the harmony.
      patch: steps of the melody that the encoder reads as one token; a slot has one patch or more.
      voices: K.
      places: how many slots of a bar are told apart; 1 for music without bars.
      units, heads, hidden: U, H, and units of the feed-forward layers.
      encoder_layers, decoder_layers: how many.
      buckets, reach: of relative positions, see `zoo.nn.transformer`.
      keep: share of units that dropout keeps in training.
      beam: W where nothing else is asked for.
    """

    source: int = 73
    classes: int = 109
    steps: int = 256
    slot: int = 8
    patch: int = 2
    voices: int = 1
    places: int = 4
    units: int = 128
    heads: int = 4
    hidden: int = 512
    encoder_layers: int = 3
    decoder_layers: int = 2
    buckets: int = 32
    reach: int = 128
    keep: float = 0.9
    beam: int = 4

    def __post_init__(self) -> None:
        if self.slot % self.patch or self.steps % self.slot:
            raise ValueError(f"a window of {self.steps} steps, slots of {self.slot}, patches of {self.patch} don't fit")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(
            source=7, classes=5, steps=12, slot=4, places=2, units=16, heads=2, hidden=24, encoder_layers=2,
            buckets=8, reach=6, keep=1.0, beam=3,
        )  # fmt: skip


class Harmonizer(nnx.Module):
    """The network: embeddings, encoder, decoder, logits."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = c = config

        def table(rows: int) -> nnx.Param[jax.Array]:
            return nnx.Param(jax.nn.initializers.normal(0.5)(rngs.params(), (rows, c.units)))

        sizes = {"heads": c.heads, "hidden": c.hidden, "buckets": c.buckets, "reach": c.reach}
        self.melody = table(c.patch * (c.source + 1))  # for each step of a patch; its last where there is none
        self.harmony = table(c.classes + 1)  # the last: before the first token
        if c.slot > c.patch:
            self.part = table(c.slot // c.patch)
        if c.voices > 1:
            self.voice = table(c.voices)
        if c.places > 1:
            self.place, self.own_place = table(c.places), table(c.places)
        self.encoder = Encoder(c.units, c.encoder_layers, **sizes, rngs=rngs)
        self.decoder = Decoder(c.units, c.decoder_layers, **sizes, rngs=rngs)
        self.apart = RelativeBias(c.heads, c.buckets, c.reach, both=True, rngs=rngs)  # from harmony to melody
        self.output = Dense(c.units, c.classes, rngs=rngs)

    def encode(self, x: jax.Array, drop: Dropout | None = None) -> tuple[jax.Array, jax.Array]:
        """Music [B, T, C] → (what the decoder looks at [B, M, U], mask bool [B, M] where there is melody)."""
        c = self.config
        patches = jnp.minimum(x[..., 0], c.source).reshape(len(x), -1, c.patch)
        there = (patches < c.source).any(axis=-1)
        h = self.melody[...][patches + jnp.arange(c.patch) * (c.source + 1)].sum(axis=2)  # [B, M, U]
        if c.slot > c.patch:
            h += self.part[...][jnp.arange(h.shape[1]) % (c.slot // c.patch)]
        if c.places > 1:
            h += self.place[...][x[:, :: c.patch, -1]]
        drop = drop or Dropout()
        return self.encoder(drop(h), there, drop)[0], there

    def embed(self, tokens: jax.Array, place: jax.Array, position: jax.Array) -> jax.Array:
        """The tokens before those at `position` [...], in slots `place` of their bars, both [B, ...] → [B, ..., U]."""
        c = self.config
        h = self.harmony[...].at[tokens].get(mode="clip")
        if c.voices > 1:
            h += self.voice[...][position % c.voices]
        if c.places > 1:
            h += self.own_place[...][place]
        return h

    def cross_bias(self, position: jax.Array, patches: int) -> jax.Array:
        """Of target positions [L] to the melody's patches, by the steps between: [H, L, M]."""
        c = self.config
        return self.apart(position // c.voices * c.slot, jnp.arange(patches) * c.patch)

    def forward(self, x: jax.Array, drop: Dropout | None = None) -> tuple[jax.Array, jax.Array]:
        """Teacher forcing: (logits [B, L, V] of each target token given those before, weights [B, layers, H, L, M])."""
        drop = drop or Dropout()
        memory, there = self.encode(x, drop)
        y = targets(self.config, x)
        before = jnp.concatenate([jnp.full_like(y[:, :1], self.config.classes), y[:, :-1]], axis=1)
        position = jnp.arange(y.shape[1])
        h = drop(self.embed(before, places(self.config, x), position))
        h, _, weights = self.decoder(h, memory, there, drop, self.cross_bias(position, memory.shape[1]))
        return self.output(h), weights

    def step(self, state: DecoderState, token: jax.Array, place: jax.Array) -> tuple[jax.Array, DecoderState]:
        """One token: `token` [B] the one before it, `place` [B] its slot of the bar → (logits [B, V], new state)."""
        at = state.position[:1]
        h = self.embed(token, place, at[0])
        h, _, state = self.decoder.step(state, h, self.cross_bias(at, state.mask.shape[1]))
        return self.output(h), state


def targets(config: Config, x: jax.Array) -> jax.Array:
    """The target tokens of music [B, T, C], voice by voice within a slot: [B, L]."""
    return x[:, :: config.slot, 1 : 1 + config.voices].reshape(len(x), -1)


def places(config: Config, x: jax.Array) -> jax.Array:
    """Which slot of its bar each target token is in, [B, L]; zeros for music without bars."""
    place = x[:, :: config.slot, -1] if config.places > 1 else jnp.zeros_like(x[:, :: config.slot, 0])
    return jnp.repeat(place, config.voices, axis=1)


def measure(model: Harmonizer, x: jax.Array, drop: Dropout | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(number of target tokens, sums over them): −log p in nats, and how often the likeliest is right."""
    return over_tokens(model.forward(x, drop)[0], targets(model.config, x))


def loss(
    model: Harmonizer, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Teacher forcing: the mean negative log-likelihood of a target token, in nats."""
    count, sums = measure(model, batch["x"], Dropout(model.config.keep, key))
    means = {name: total / jnp.maximum(count, 1.0) for name, total in sums.items()}
    return means.pop("loss"), means


def evaluate(model: Harmonizer, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """`nll` in nats a target token, and `accuracy` of the likeliest, both given the true tokens before."""
    count, sums = measure(model, batch["x"])
    return {"nll": jnp.stack([sums["loss"], count]), "accuracy": jnp.stack([sums["accuracy"], count])}


# --- inference --------------------------------------------------------------------------------------------------------


def sample(model: Harmonizer, x: jax.Array, key: jax.Array, sampling: Sampling) -> jax.Array:
    """Target tokens drawn one after another for melodies [B, T, C], whose own targets aren't looked at: [B, L]."""
    place = places(model.config, x)
    memory, there = model.encode(x)
    state = model.decoder.start(memory, there, place.shape[1])
    nothing = jnp.full(len(x), model.config.classes, jnp.int32)
    return rollout(model.step, state, nothing, key, 0, place.shape[1], sampling, place)[0]


def beam(model: Harmonizer, x: jax.Array, length: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """The likeliest target tokens that a beam finds, best first: ([B, W, L], log p [B, W] of the first `length` [B]).

    Tokens from `length` on are 0.
    """
    place = places(model.config, x)
    memory, there = model.encode(x)
    memory, there = (jnp.repeat(part, width, axis=0) for part in (memory, there))
    state = model.decoder.start(memory, there, place.shape[1])
    nothing = jnp.full((len(x), width), model.config.classes, jnp.int32)
    counts = jnp.arange(place.shape[1]) < length[:, None]
    return beam_search(model.step, state, nothing, counts, jnp.repeat(place, width, axis=0))


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random music, a quarter of whose pieces end early, and a temperature."""
    shape = (batch, config.steps)
    columns = [rng.integers(0, config.source, shape)]
    columns += [rng.integers(0, config.classes, shape) for _ in range(config.voices)]
    x = np.stack(columns, axis=-1)
    length = rng.integers(1, config.steps // config.slot + 1, batch) * config.slot
    length[rng.random(batch) < 0.75] = config.steps
    after = np.arange(config.steps) >= length[:, None]
    x[after] = [config.source] + [config.classes] * config.voices
    if config.places > 1:
        place = np.arange(config.steps) // config.slot % config.places
        x = np.concatenate([x, np.broadcast_to(place[:, None], (*shape, 1))], axis=-1)
    return {
        "x": x.astype(np.int32),
        "length": (length // config.slot * config.voices).astype(np.int32),
        "temperature": np.float32(1.0),
    }


ARCHITECTURE = Architecture(
    name="harmonizer",
    config=Config,
    module=Harmonizer,
    loss=loss,
    evaluate=evaluate,
    monitor=("nll", "min"),
    example=example,
    kernels={
        "logits": lambda model, batch, key: model.forward(batch["x"])[0],
        "attention": lambda model, batch, key: model.forward(batch["x"])[1],
        "sample": lambda model, batch, key: sample(model, batch["x"], key, Sampling(batch["temperature"])),
        "beam": lambda model, batch, key: beam(model, batch["x"], batch["length"], model.config.beam),
    },
    task="harmonization",
    tiny={
        "chords": Config.tiny(),
        "voices": replace(Config.tiny(), slot=1, patch=1, voices=3, places=1, steps=6, classes=7),
    },
)
