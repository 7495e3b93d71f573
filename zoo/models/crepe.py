"""CREPE: a convolutional representation for pitch estimation, of one voice, straight from the waveform.

Kim, Salamon, Li, Bello, ICASSP 2018, arXiv:1802.06182.

A frame of 1024 samples at 16 kHz (64 ms), brought to mean 0 and deviation 1, goes through six convolutions in time,
each followed by ReLU, batch normalisation and max-pooling by 2. What is left gives, for each of 360 pitches 20 cents
apart (C1 to B7), the activation that says whether the frame has it.

Shapes: `B` frames, `T` steps within a frame, `C` channels, `P` pitches. Inside, time comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.affine import Affine
from zoo.nn.convolution import Conv
from zoo.nn.dropout import Dropout
from zoo.nn.recurrent import Dense

RIGHT = 50.0  # cents off that still count as the right pitch (section 3.3)


@dataclass(frozen=True)
class Config:
    """Numbers of CREPE. The defaults are the paper's network, "full"; "tiny" has an eighth of its channels.

    Attributes:
      window: samples of a frame.
      channels, widths: output channels and kernel width of each convolution.
      stride: of the first convolution; the others have 1.
      pitches: P.
      cents: from one pitch to the next.
      lowest: the lowest pitch, in cents above 10 Hz.
      blur: deviation of the Gaussian that training puts around the true pitch, in cents (eq. 3).
      keep: share of each layer's outputs that dropout keeps in training.
    """

    window: int = 1024
    channels: tuple[int, ...] = (1024, 128, 128, 128, 256, 512)
    widths: tuple[int, ...] = (512, 64, 64, 64, 64, 64)
    stride: int = 4
    pitches: int = 360
    cents: float = 20.0
    lowest: float = 1997.3794084376191
    blur: float = 25.0
    keep: float = 0.75

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.widths):
            raise ValueError(f"{len(self.channels)} numbers of channels but {len(self.widths)} widths")
        if self.window % (self.stride << len(self.channels)):
            raise ValueError(f"window={self.window} can't be halved {len(self.channels)} times after the stride")

    @classmethod
    def tiny(cls) -> Config:
        """A network of a few thousand parameters, for tests."""
        return cls(window=64, channels=(8, 6, 8), widths=(16, 8, 8), pitches=24, cents=300.0, blur=200.0, keep=0.9)

    @property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """Of each pitch, in Hz: [P]."""
        cents = self.lowest + self.cents * np.arange(self.pitches, dtype=np.float64)
        return np.asarray(10.0 * 2.0 ** (cents / 1200.0), np.float64)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of each convolution."""
        return (self.stride, *(1 for _ in self.channels[1:]))

    @property
    def features(self) -> int:
        """Numbers that the last convolution leaves of a frame."""
        return self.window // (self.stride << len(self.channels)) * self.channels[-1]

    steps = 1  # an example is one frame,
    seconds = 0.01  # of which sound has a hundred a second (section 3.2)


class Layer(nnx.Module):
    """Convolution, ReLU, batch normalisation, max-pooling by 2: [T, B, I] → [T / stride / 2, B, O].

    The normalisation comes before the pooling and can't be part of the kernels: a scale below zero turns a maximum into
    a minimum.
    """

    def __init__(self, width: int, inputs: int, outputs: int, *, stride: int, rngs: nnx.Rngs) -> None:
        self.conv = Conv(width, inputs, outputs, stride=stride, rngs=rngs)
        self.norm = Affine(outputs)

    def __call__(self, x: jax.Array, prepared: jax.Array | None = None) -> jax.Array:
        x = self.norm(jax.nn.relu(self.conv(x, prepared)))
        x = x.reshape(x.shape[0] // 2, 2, *x.shape[1:])
        return jnp.maximum(x[:, 0], x[:, 1])  # the gradient of `max` divides by how often it is met, which may be never


class Crepe(nnx.Module):
    """The whole network."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        sizes = zip(config.widths, pairwise((1, *config.channels)), config.strides, strict=True)
        self.layers = nnx.List([Layer(width, *channels, stride=stride, rngs=rngs) for width, channels, stride in sizes])
        self.classifier = Dense(config.features, config.pitches, rngs=rngs)

    def prepared(self) -> tuple[jax.Array, ...]:
        """The kernels in the form that this device computes with: what many calls with the same weights share."""
        steps = [self.config.window // math.prod(self.config.strides[:k]) // 2**k for k in range(len(self.layers))]
        return tuple(layer.conv.prepared(length) for layer, length in zip(self.layers, steps, strict=True))

    def embed(
        self,
        frames: jax.Array,
        layers: int | None = None,
        prepared: tuple[jax.Array, ...] | None = None,
        drop: Dropout | None = None,
    ) -> jax.Array:
        """What the first `layers` layers, or all, make of frames, float32 [B, window] as recorded: [T, B, C]."""
        x = normalised(frames).T[..., None]  # [window, B, 1]
        for k, layer in enumerate(list(self.layers)[:layers]):
            x = (drop or Dropout())(layer(x, prepared[k] if prepared is not None else None))
        return x

    def logits(
        self, frames: jax.Array, prepared: tuple[jax.Array, ...] | None = None, drop: Dropout | None = None
    ) -> jax.Array:
        """Of each pitch, [B, P]."""
        x = self.embed(frames, None, prepared, drop)  # [T, B, C]
        return self.classifier(x.swapaxes(0, 1).reshape(frames.shape[0], -1))

    def __call__(self, frames: jax.Array, prepared: tuple[jax.Array, ...] | None = None) -> jax.Array:
        """The activation of each pitch, 0 to 1: [B, P]."""
        return jax.nn.sigmoid(self.logits(frames, prepared))


def normalised(frames: jax.Array) -> jax.Array:
    """Frames [B, window] with mean 0 and deviation 1; silence stays zeros."""
    frames = frames - jnp.mean(frames, axis=1, keepdims=True)
    return frames / jnp.maximum(jnp.std(frames, axis=1, ddof=1, keepdims=True), 1e-10)


# --- training ---------------------------------------------------------------------------------------------------------


def pitches_of(config: Config, hz: jax.Array) -> jax.Array:
    """Frequencies as positions among the pitches, where k is the k-th; what is not above 0 Hz is far below them."""
    cents = 1200.0 * jnp.log2(jnp.maximum(hz, 1e-3) / 10.0)
    return (cents - config.lowest) / config.cents


def targets(config: Config, hz: jax.Array) -> jax.Array:
    """The true activations: a Gaussian around the pitch (eq. 3), zeros where there is none (0 Hz). [B] → [B, P]."""
    away = config.cents * (jnp.arange(config.pitches) - pitches_of(config, hz)[:, None])
    return jnp.exp(-0.5 * (away / config.blur) ** 2)


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross-entropy of each pitch, summed over pitches and averaged over frames (eq. 4)."""
    return jnp.mean(jnp.sum(jax.nn.softplus(logits) - logits * target, axis=1))


def around_the_peak(activations: jax.Array) -> jax.Array:
    """The pitch of each frame as a position among the pitches: the mean of the 9 around the likeliest (eq. 2). [B]."""
    places = jnp.arange(activations.shape[1])
    near = jnp.abs(places - jnp.argmax(activations, axis=1)[:, None]) <= 4
    weights = jnp.where(near, activations, 0.0)
    return jnp.sum(weights * places, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1e-12)


def loss(
    model: Crepe, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Cross-entropy of frames "x" [B, window] whose pitch is "y" [B] in Hz, 0 where there is none; in nats a frame."""
    logits = model.logits(batch["x"], drop=Dropout(model.config.keep, key))
    return cross_entropy(logits, targets(model.config, batch["y"])), {}


def evaluate(model: Crepe, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """Raw pitch and chroma accuracy: shares of the frames with a pitch whose estimate is within 50 cents of it.

    Chroma forgives octaves. Both are (frames right, frames with a pitch), to be summed over batches; `loss` in nats.
    """
    config, hz = model.config, batch["y"]
    logits = model.logits(batch["x"])
    off = config.cents * (around_the_peak(jax.nn.sigmoid(logits)) - pitches_of(config, hz))
    octaves_off = off - 1200.0 * jnp.round(off / 1200.0)
    voiced = hz > 0

    def share(right: jax.Array) -> jax.Array:
        return jnp.stack([jnp.sum(voiced & right), jnp.sum(voiced)]).astype(jnp.float32)

    return {
        "loss": cross_entropy(logits, targets(config, hz)),
        "pitch_accuracy": share(jnp.abs(off) <= RIGHT),
        "chroma_accuracy": share(jnp.abs(octaves_off) <= RIGHT),
    }


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Frames of harmonic tones in noise, and their pitch in Hz; every fourth is noise alone."""
    hz = rng.choice(config.frequencies, batch).astype(np.float32) * (np.arange(batch) % 4 != 3)
    phase = 2 * np.pi * hz[:, None] * np.arange(config.window) / 16000.0
    tones = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    return {"x": (tones + 0.1 * rng.standard_normal(tones.shape)).astype(np.float32), "y": hz.astype(np.float32)}


ARCHITECTURE = Architecture(
    name="crepe",
    config=Config,
    module=Crepe,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={"activations": lambda model, batch, key: model(batch["x"], batch.get("prepared"))},
    prepare=lambda model: model.prepared(),
    task="pitch",
    data="curves",
    tiny={"tiny": Config.tiny()},
)
