"""PESTO: the pitch of one voice by a network of 130 000 parameters that was trained without a single label.

Riou, Lattner, Hadjeres, Peeters, "PESTO: Pitch Estimation with Self-supervised Transposition-equivariant Objective",
ISMIR 2023, arXiv:2309.02265; "mir-1k_g7" is the authors' later network of the same kind, with a classifier beside it
that tells frames with a voice from those without.

A frame of a constant-Q transform in dB, three bins to the semitone, goes through convolutions over frequency alone and
a Toeplitz layer, so that a transposed voice gives a transposed distribution over pitches: all that it has to learn is
that, from two transpositions of one frame. Which pitch a distribution stands for is a constant, found once.

Shapes: `B` frames, `N` samples of a frame, `K` bins of the transform, `F` bins that the network sees, `C` channels,
`P` pitches.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.convolution import Conv
from zoo.nn.cqt import kernels, lengths
from zoo.nn.dropout import Dropout
from zoo.nn.recurrent import Dense

SEMITONES = 128  # MIDI's
QUIETEST = float(np.finfo(np.float32).eps)  # a magnitude of the transform below which all is silence
KEPT = 0.8  # of each hidden layer's outputs, in training


@dataclass(frozen=True)
class Config:
    """Numbers of "mir-1k_g7". Those of the loss are the paper's.

    Attributes:
      sample_rate: Hz; the published network takes any, since the transform is made for it.
      bins: K.
      bins_per_semitone: of the transform and of the pitches.
      gamma: Hz by which the bins are wider than constant Q.
      margin: bins at either end of the transform that the network does not see; transposition moves it within them.
      channels: of the convolutions; all but the first are of one bin.
      width: bins of the first convolution and of the `residuals` that follow it.
      offset: bins by which the distribution is moved so that it stands for pitch.
      voicing: width and stride of the convolution that tells whether there is a voice.
    """

    sample_rate: int = 16000
    bins: int = 251
    bins_per_semitone: int = 3
    gamma: float = 7.0
    margin: int = 16
    channels: tuple[int, ...] = (40, 30, 30, 10, 3)
    width: int = 39
    residuals: int = 2
    offset: int = 20
    voicing: tuple[int, int] = (39, 3)

    @classmethod
    def tiny(cls) -> Config:
        """A few bins and channels, for tests."""
        return cls(sample_rate=1000, bins=60, margin=4, channels=(4, 3, 2), width=7, residuals=1, voicing=(9, 3))

    @property
    def fmin(self) -> float:
        """Hz of the lowest bin: a semitone's bins lie around it, and the first semitone is the lowest A."""
        return 27.5 / 2.0 ** ((self.bins_per_semitone - 1) / (24 * self.bins_per_semitone))

    @property
    def pitches(self) -> int:
        """P."""
        return SEMITONES * self.bins_per_semitone

    @property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """Of each pitch, in Hz: [P]."""
        semitones = np.arange(self.pitches, dtype=np.float64) / self.bins_per_semitone
        return np.asarray(440.0 * 2.0 ** ((semitones - 69.0) / 12.0), np.float64)

    @property
    def seen(self) -> int:
        """F."""
        return self.bins - 2 * self.margin

    @property
    def window(self) -> int:
        """N: samples of a frame, those of the longest window of the transform and zeros to a power of two."""
        return kernels(*self.transform).shape[1]

    @property
    def transform(self) -> tuple[float, float, int, int, float]:
        """What `zoo.nn.cqt` is to be told."""
        return self.sample_rate, self.fmin, self.bins, 12 * self.bins_per_semitone, self.gamma

    @property
    def reach(self) -> int:
        """Pitches on either side of the likeliest that count for the average: less than a semitone."""
        return self.bins_per_semitone - 1

    mirrored = True  # before its beginning and after its end the sound is continued backwards
    steps = 1  # an example is one frame,
    seconds = 0.01  # of which sound has a hundred a second


class Voicing(nnx.Module):
    """Whether a frame has a voice, from its energies [B, K]: a convolution and how flat the spectrum is."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        width, self.stride = config.voicing
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (width, 1, 1)))
        self.bias = nnx.Param(jnp.zeros(1))
        self.linear = Dense((config.bins - width) // self.stride + 2, 1, rngs=rngs)

    def __call__(self, logs: jax.Array) -> jax.Array:
        """Logits [B], from logarithms of energies [B, K]."""
        energy = jnp.exp(logs)
        flatness = jnp.exp(jnp.mean(logs, axis=1)) / jnp.maximum(jnp.mean(energy, axis=1), 1e-8)
        order = ("NWC", "WIO", "NWC")
        x = jax.lax.conv_general_dilated(
            energy[..., None], self.kernel[...], (self.stride,), "VALID", dimension_numbers=order
        )
        x = jax.nn.relu(x[..., 0] + self.bias[...])  # [B, K / stride]
        return self.linear(jnp.concatenate([x, flatness[:, None]], axis=1))[:, 0]


class Pesto(nnx.Module):
    """The whole network (figure 2 of the paper)."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        first, *_, last = config.channels
        self.scale = nnx.Param(jnp.ones(config.seen))  # of the normalisation of each frame
        self.shift = nnx.Param(jnp.zeros(config.seen))
        self.first = Conv(config.width, 1, first, rngs=rngs)
        self.residuals = nnx.List([Conv(config.width, first, first, rngs=rngs) for _ in range(config.residuals)])
        self.mixing = nnx.List([Dense(*sizes, rngs=rngs) for sizes in pairwise(config.channels)])
        inputs = config.seen * last
        initial = jax.nn.initializers.normal((inputs + config.pitches) ** -0.5)
        self.toeplitz = nnx.Param(initial(rngs.params(), (inputs + config.pitches - 1,)))
        self.voicing = Voicing(config, rngs=rngs)

    def logs(self, frames: jax.Array) -> jax.Array:
        """The transform of frames [B, N], as logarithms of energies: [B, K]."""
        bank = kernels(*self.config.transform)
        scale = np.sqrt(lengths(*self.config.transform)).astype(np.float32)
        parts = frames @ np.concatenate([bank.real, bank.imag]).T  # [B, 2K]
        real, imaginary = jnp.split(parts, 2, axis=1)
        return 2.0 * jnp.log(jnp.maximum(jnp.sqrt(real**2 + imaginary**2) * scale, QUIETEST))

    def filtered(self, logs: jax.Array, moved: jax.Array | int = 0, drop: Dropout | None = None) -> jax.Array:
        """Frames [B, K] after the wide convolutions, which see the bins that lie `moved` further up: [F, B, C]."""
        drop = drop or Dropout()
        x = jax.lax.dynamic_slice_in_dim(logs, self.config.margin + moved, self.config.seen, axis=1)  # [B, F]
        x = x - jnp.mean(x, axis=1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=1, keepdims=True) + 1e-5) * self.scale[...] + self.shift[...]
        x = drop(leaky(self.first(x.T[..., None])))  # [F, B, C]
        for layer in self.residuals:
            x = x + drop(leaky(layer(x)))
        return x

    def logits(self, logs: jax.Array, moved: jax.Array | int = 0, drop: Dropout | None = None) -> jax.Array:
        """Of each pitch, [B, P]; arguments as for `filtered`."""
        drop = drop or Dropout()
        x = self.filtered(logs, moved, drop)
        for mix in self.mixing:
            x = drop(leaky(mix(x)))
        x = x.transpose(1, 2, 0).reshape(x.shape[1], -1)  # [B, C · F]
        return jnp.roll(self.transposed(x), -self.config.offset, axis=1)

    def transposed(self, x: jax.Array) -> jax.Array:
        """The Toeplitz layer, [B, C · F] → [B, P]: what moves up by a bin in `x` does so in the output."""
        inputs, outputs = x.shape[1], self.config.pitches
        place = np.arange(inputs)[:, None] - np.arange(outputs) + outputs - 1
        return x @ self.toeplitz[...][place]


def leaky(x: jax.Array) -> jax.Array:
    """ReLU that lets three tenths through below zero."""
    return jnp.where(x > 0, x, 0.3 * x)


def activations(model: Pesto, frames: jax.Array) -> jax.Array:
    """Frames [B, N] → the distribution over pitches, and after it the probability of a voice: float32 [B, P + 1]."""
    logs = model.logs(frames)
    return jnp.concatenate([jax.nn.softmax(model.logits(logs)), jax.nn.sigmoid(model.voicing(logs))[:, None]], axis=1)


# --- training ---------------------------------------------------------------------------------------------------------


def loss(
    model: Pesto, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The self-supervised objectives of section 3.2, equally weighted, and cross-entropy of the voicing.

    `batch`: frames "x" [B, N], and "y" [B] of which all that counts is whether it is above 0 (Hz): there is a voice.
    Of each frame two more are made, one that sounds otherwise and one transposed by the same few bins for all.
    """
    config = model.config
    gain_key, noise_key, move_key, *drops = jax.random.split(key, 6)
    x = batch["x"]
    gain = 10.0 ** (jax.random.uniform(gain_key, (x.shape[0], 1), minval=-6.0, maxval=3.0) / 20.0)
    deviation = jnp.std(x, axis=1, keepdims=True)
    otherwise = gain * (x + 0.1 * deviation * jax.random.normal(noise_key, x.shape))
    moved = jax.random.randint(move_key, (), -config.margin, config.margin + 1)
    logs = model.logs(x)
    views: list[tuple[jax.Array, jax.Array | int]] = [(logs, 0), (model.logs(otherwise), 0), (logs, moved)]
    plain, altered, transposed = (
        model.logits(view, k, Dropout(KEPT, drop)) for (view, k), drop in zip(views, drops, strict=True)
    )
    transposed = jnp.roll(transposed, moved, axis=1)  # back to where it should be
    parts = {
        "invariance": cross_entropy(altered, plain),
        "transposition": cross_entropy(transposed, plain),  # shifted cross-entropy, eq. 9
        "equivariance": equivariance(jax.nn.softmax(transposed), jax.nn.softmax(plain), config),
        "voicing": jnp.mean(jax.nn.softplus(voice := model.voicing(logs)) - voice * (batch["y"] > 0)),
    }
    return sum(parts.values(), jnp.zeros(())), parts


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Of distributions [B, P] given by their logits, towards those of `target`, which learns nothing from it."""
    target = jax.lax.stop_gradient(jax.nn.softmax(target))
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=1))


def equivariance(a: jax.Array, b: jax.Array, config: Config) -> jax.Array:
    """How far apart the frequencies that two distributions stand for are, as a ratio, by Huber's loss (eq. 5 to 7)."""
    octaves = (jnp.arange(config.pitches) - config.pitches / 2) / (12 * config.bins_per_semitone)
    ratio = (a @ 2.0**octaves) / (b @ 2.0**octaves) - 1.0
    limit = 2.0 ** (1 / (12 * config.bins_per_semitone)) - 1.0  # a bin
    away = jnp.abs(ratio)
    return jnp.mean(jnp.where(away <= limit, 0.5 * ratio**2, limit * (away - 0.5 * limit)))


def evaluate(model: Pesto, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """The loss; of frames with a pitch, the share found within 50 cents; the share of frames with the right voicing.

    Frames "x" [B, N] whose pitch is "y" [B] in Hz, 0 where there is none.
    """
    total, _ = loss(model, batch, key, jnp.zeros((), jnp.int32))
    hz, found = batch["y"], activations(model, batch["x"])
    pitches, voice = found[:, :-1], found[:, -1]
    places = jnp.arange(pitches.shape[1])
    near = jnp.abs(places - jnp.argmax(pitches, axis=1)[:, None]) <= model.config.reach
    weights = jnp.where(near, pitches, 0.0)
    semitones = jnp.sum(weights * places, axis=1) / jnp.sum(weights, axis=1) / model.config.bins_per_semitone
    true = 69.0 + 12.0 * jnp.log2(jnp.maximum(hz, 1e-3) / 440.0)
    right = jnp.stack([jnp.sum((hz > 0) & (jnp.abs(semitones - true) <= 0.5)), jnp.sum(hz > 0)])
    return {
        "loss": total,
        "pitch_accuracy": right.astype(jnp.float32),
        "voicing_accuracy": jnp.mean(((voice > 0.5) == (hz > 0)).astype(jnp.float32)),
    }


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Frames of harmonic tones in noise, and their pitch in Hz; every fourth is noise alone."""
    highest = min(1000.0, config.sample_rate / 8)
    known = config.frequencies[(config.frequencies > config.fmin) & (config.frequencies < highest)]
    hz = rng.choice(known, batch) * (np.arange(batch) % 4 != 3)
    phase = 2 * np.pi * hz[:, None] * np.arange(config.window) / config.sample_rate
    tones = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    return {"x": (tones + 0.1 * rng.standard_normal(tones.shape)).astype(np.float32), "y": hz.astype(np.float32)}


ARCHITECTURE = Architecture(
    name="pesto",
    config=Config,
    module=Pesto,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={"activations": lambda model, batch, key: activations(model, batch["x"])},
    task="pitch",
    tiny={"pesto": Config.tiny()},
)
