"""Beats and bars of sound by a temporal convolutional network.

Davies and Böck, "Temporal convolutional networks for musical audio beat tracking", EUSIPCO 2019; a second output, for
the beats that begin bars, as in Böck and Davies, "Deconstruct, analyse, reconstruct", ISMIR 2020.

Three convolutions, with pooling over frequency between them, turn a spectrogram into a few numbers a frame. A stack of
convolutions over time whose taps lie 1, 2, 4, … frames apart then hears half a minute around each frame with a few
thousand parameters. What comes out is how likely a beat, and a beat that begins a bar, falls on each frame; a hidden
Markov model of bars makes beats of that (`zoo.nn.bar_pointer`).

Shapes: `B` batch, `T` frames of 20 ms, `F` bands, `C` channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture, Metrics
from zoo.nn.conv2d import Conv2d
from zoo.nn.dropout import Dropout
from zoo.nn.recurrent import Dense

POOL = 3  # bands that become one
OUTPUTS = 2  # a beat, a beat that begins a bar
BESIDE = 0.5  # the truth on the frames beside a beat (section 2.3)
GAIN, TILT = 0.5, 0.5  # of `coloured`: standard deviations, in powers of ten


@dataclass(frozen=True)
class Config:
    """Numbers of the network, and of the bars it is read by.

    Attributes:
      bands: F.
      channels: C, also of the convolutions over time.
      taps, layers: of these; layer i's taps lie 2^i frames apart.
      keep: share of channels that dropout keeps in training.
      steps: T of the windows it learns from.
      slowest, fastest: tempi that it tells, in beats a minute.
      meters: beats of a bar, of which a piece has the likelier number.
      steady: how much a change of tempo from beat to beat costs (λ of Krebs, Böck and Widmer 2015).
      quiet: where no beat is likelier than this, at a recording's ends, there are none.
    """

    bands: int = 45
    channels: int = 20
    taps: int = 5
    layers: int = 10
    keep: float = 0.9
    steps: int = 1000
    slowest: float = 55.0
    fastest: float = 215.0
    meters: tuple[int, ...] = (3, 4)
    steady: float = 100.0
    quiet: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.slowest < self.fastest:
            raise ValueError("the slowest tempo is above 0 and below the fastest")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few hundred parameters, for tests."""
        return cls(bands=18, channels=4, taps=3, layers=3, keep=1.0, steps=40)

    @property
    def reach(self) -> int:
        """Frames on either side of one that the network hears."""
        return (self.taps // 2) * (2**self.layers - 1) + 2


class Layer(nnx.Module):
    """A convolution over time with taps `apart` frames, ELU, dropout, a mixture of channels; added to what came in."""

    def __init__(self, channels: int, taps: int, apart: int, *, rngs: nnx.Rngs) -> None:
        self.taps, self.apart = taps, apart
        self.spread = Dense(taps * channels, channels, rngs=rngs)
        self.mix = Dense(channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout) -> jax.Array:
        """`x` [B, T, C] → the same shape."""
        frames, side = x.shape[1], self.taps // 2 * self.apart
        padded = jnp.pad(x, ((0, 0), (side, side), (0, 0)))
        taps = [padded[:, i * self.apart : i * self.apart + frames] for i in range(self.taps)]
        heard = drop(jax.nn.elu(self.spread(jnp.concatenate(taps, axis=-1))))  # the taps are one matrix product
        return x + self.mix(heard)


class BeatTCN(nnx.Module):
    """The network."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        channels = config.channels
        self.first = Conv2d((3, 3), 1, channels, rngs=rngs)
        self.second = Conv2d((3, 3), channels, channels, rngs=rngs)
        self.third = Dense(config.bands // POOL // POOL * channels, channels, rngs=rngs)  # over all bands that are left
        self.layers = nnx.List([Layer(channels, config.taps, 2**i, rngs=rngs) for i in range(config.layers)])
        self.output = Dense(channels, OUTPUTS, rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout | None = None) -> jax.Array:
        """Log odds of a beat and of a bar's beginning: `x` [B, T, F] → [B, T, 2]."""
        drop = drop or Dropout()
        h = drop(pooled(jax.nn.elu(self.first(x[..., None]))))  # [B, T, F / 3, C]
        h = drop(pooled(jax.nn.elu(self.second(h))))  # [B, T, F / 9, C]
        h = drop(jax.nn.elu(self.third(h.reshape(*h.shape[:2], -1))))  # [B, T, C]
        for layer in self.layers:
            h = layer(h, drop)
        return self.output(jax.nn.elu(h))


def pooled(x: jax.Array) -> jax.Array:
    """The greatest of every three bands: [B, T, F, C] → [B, T, F // 3, C]."""
    count = x.shape[2] // POOL
    return x[:, :, : count * POOL].reshape(*x.shape[:2], count, POOL, x.shape[-1]).max(axis=3)


def activations(model: BeatTCN, x: jax.Array) -> jax.Array:
    """Probabilities of a beat and of a bar's beginning on each frame: [B, T, F] → [B, T, 2]."""
    return jax.nn.sigmoid(model(jnp.asarray(x, jnp.float32)))


def coloured(x: jax.Array, key: jax.Array) -> jax.Array:
    """Windows [B, T, F] as they would be louder or softer, and darker or brighter; silence stays silent."""
    gain, tilt = jax.random.normal(key, (2, len(x), 1, 1))
    slope = jnp.linspace(-1.0, 1.0, x.shape[-1])
    return jnp.where(x > 0, jnp.maximum(x + GAIN * gain + TILT * tilt * slope, 0.0), 0.0)


def cross_entropy(odds: jax.Array, batch: dict[str, Any]) -> jax.Array:
    """−t log p − (1 − t) log(1 − p), a mean over frames that are there, of beats and of bars: [2].

    Beside a beat the truth is ½, and a frame a sixth of all: an annotation is not exact to 20 ms.
    """
    truth = widened(jnp.stack([batch["beat"], batch["downbeat"]], axis=-1).astype(jnp.float32))
    mask = jnp.asarray(batch["mask"], jnp.float32)[..., None]
    lost = (jax.nn.softplus(odds) - truth * odds) * mask
    return lost.sum(axis=(0, 1)) / jnp.maximum(mask.sum(), 1.0)


def widened(truth: jax.Array) -> jax.Array:
    """[B, T, 2] of 0 and 1 → `BESIDE` on the frames beside a 1."""
    padded = jnp.pad(truth, ((0, 0), (1, 1), (0, 0)))
    return jnp.maximum(truth, BESIDE * jnp.maximum(padded[:, 2:], padded[:, :-2]))


def loss(model: BeatTCN, batch: dict[str, Any], key: jax.Array, step: jax.Array) -> tuple[jax.Array, Metrics]:
    """The cross-entropies of beats and of bars, added up, of windows in random colours."""
    colour, drop = jax.random.split(key)
    x = coloured(jnp.asarray(batch["x"], jnp.float32), colour)
    beat, downbeat = cross_entropy(model(x, Dropout(model.config.keep, drop)), batch)
    return beat + downbeat, {"beat_loss": beat, "downbeat_loss": downbeat}


def evaluate(model: BeatTCN, batch: dict[str, Any], key: jax.Array) -> Metrics:
    """The loss and its parts, without colours and dropout."""
    beat, downbeat = cross_entropy(model(jnp.asarray(batch["x"], jnp.float32)), batch)
    return {"loss": beat + downbeat, "beat_loss": beat, "downbeat_loss": downbeat}


def example(config: Config, size: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random windows that are louder on their beats, one in six frames; the last lacks a quarter."""
    shape = (size, config.steps)
    beat = np.broadcast_to(np.arange(config.steps) % 6 == 2, shape)
    there = np.arange(config.steps) < np.where(np.arange(size) == size - 1, 3, 4)[:, None] * config.steps // 4
    x = rng.uniform(0, 1, (*shape, config.bands)) + 2.0 * beat[..., None]
    return {
        "x": (x * there[..., None]).astype(np.float32),
        "beat": (beat & there).astype(np.float32),
        "downbeat": (beat & there & (np.arange(config.steps) % 24 == 2)).astype(np.float32),
        "mask": there,
    }


ARCHITECTURE = Architecture(
    name="beat-tcn",
    config=Config,
    module=BeatTCN,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={"activations": lambda model, batch, key: activations(model, batch["x"])},
    task="beats",
    data="songs",
    tiny={"tiny": Config.tiny()},
)
