"""Basic Pitch: polyphonic transcription of any instrument, with pitch bends, by a network of 16 700 parameters.

Bittner, Bosch, Rubinstein, Meseguer-Brocal, Ewert, ICASSP 2022, arXiv:2203.09893 (there called NMP). The code of the
same authors, spotify/basic-pitch, is what "as published" means below.

Two seconds of sound become a constant-Q transform with three bins to the semitone. Harmonic stacking shifts copies of
it so that a note's fundamental and its overtones stand at the same bin of eight channels: small convolutions then see
all of a note at once. Three posteriorgrams come out, each a probability for every frame: Y_p (contour, in thirds of a
semitone), from it Y_n (note), and from it and the sound Y_o (onset).

Shapes: `B` batch, `N` samples, `T` frames, `K` bins of the transform, `F` bins of the contour (264), `P` pitches (88),
`H` harmonics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.conv2d import Bands, Conv2d, harmonic_conv, make_bands, prefers_bands
from zoo.nn.cqt import octave_cqt

FLOOR = 1e-10  # added to power before its logarithm: −100 dB


@dataclass(frozen=True)
class Config:
    """The paper's numbers.

    Attributes:
      sample_rate: Hz.
      samples: N, the length of a window: two seconds less one hop.
      hop: samples from one frame to the next.
      overlap: frames that a window shares with the next; half of them are left out at either end.
      fmin: Hz of the lowest bin, the lowest key of a piano.
      pitches: P, semitones from there up.
      bins_per_semitone: of the contour and of the transform.
      harmonics: what the channels of the stack are shifted by, as multiples of a note's frequency.
      contour_filters, note_filters, onset_filters: channels of the hidden layers.
      smoothing: labels are (1 − smoothing) · y + smoothing / 2.
      onset_weight: share of the onset's loss that is given to positive labels, which are few.
    """

    sample_rate: int = 22050
    samples: int = 43844
    hop: int = 256
    overlap: int = 30
    fmin: float = 27.5
    pitches: int = 88
    bins_per_semitone: int = 3
    harmonics: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    contour_filters: int = 8
    note_filters: int = 32
    onset_filters: int = 32
    smoothing: float = 0.2
    onset_weight: float = 0.95  # not checked against the paper; inference does not use it

    @classmethod
    def tiny(cls) -> Config:
        """An octave, three harmonics and nine frames, for tests."""
        return cls(
            samples=2048, overlap=2, fmin=220.0, pitches=12, harmonics=(0.5, 1.0, 2.0), contour_filters=2,
            note_filters=3, onset_filters=3,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """T: frames of a window."""
        return self.samples // self.hop + 1

    @property
    def seconds(self) -> float:
        """Of sound that a window adds to those before it."""
        return (self.samples - self.overlap * self.hop) / self.sample_rate

    @property
    def lowest(self) -> int:
        """The MIDI pitch of the lowest bin."""
        return round(69 + 12 * math.log2(self.fmin / 440.0))

    def times(self, frames: int) -> np.ndarray:
        """Seconds of the first frames of a recording, float64, as published.

        What is left of a window of T frames is not a whole number of them long, so that counting frames gains on the
        clock. Once in T frames the package sets it back, by the difference and 1.8 ms, which it found to fit: the times
        are within 10 ms of the truth, at any length.
        """
        behind = self.hop / self.sample_rate * (self.steps - self.samples / self.hop) + 0.0018
        index = np.arange(frames)
        return index * self.hop / self.sample_rate - behind * (index // self.steps)

    @property
    def contours(self) -> int:
        """F: bins of the contour."""
        return self.pitches * self.bins_per_semitone

    @property
    def bins(self) -> int:
        """K: bins of the transform; enough for the overtones of the highest pitch, as far as the band reaches."""
        overtones = math.ceil(12 * math.log2(len(self.harmonics)))
        band = math.floor(12 * math.log2(self.sample_rate / 2 / self.fmin))
        return min(self.pitches + overtones, band) * self.bins_per_semitone

    @property
    def shifts(self) -> tuple[int, ...]:
        """How many bins above a note each harmonic lies."""
        return tuple(round(12 * self.bins_per_semitone * math.log2(h)) for h in self.harmonics)


class Posteriorgrams(NamedTuple):
    """Probabilities: `note` and `onset` float32 [B, T, P], `contour` float32 [B, T, F]."""

    note: jax.Array
    onset: jax.Array
    contour: jax.Array


class HarmonicConv(Conv2d):
    """A convolution over the harmonic stack of the transform (section 3.1), [B, T, K] → [B, T, F / stride, O]."""

    def __init__(self, config: Config, size: tuple[int, int], outputs: int, *, stride: int = 1, rngs: nnx.Rngs) -> None:
        super().__init__(size, len(config.harmonics), outputs, stride=stride, rngs=rngs)
        self.shifts, self.count = config.shifts, config.contours

    def __call__(self, x: jax.Array, bands: Bands | None = None) -> jax.Array:
        """`x` [B, T, K]; `bands` as from `prepared`."""
        return harmonic_conv(x, self.kernel[...], self.shifts, self.count, self.stride, bands) + self.bias[...]

    def prepared(self, bins: int) -> Bands:
        """The matrices that act on a transform of so many bins in place of the kernel; none where it is as fast."""
        if not prefers_bands(self.kernel.shape, self.stride):
            return []
        return make_bands(self.kernel[...], self.shifts, self.count, bins)


class BasicPitch(nnx.Module):
    """The whole network (figure 1 of the paper)."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        third = config.bins_per_semitone
        self.scale = nnx.Param(jnp.ones(1))  # batch normalisation of the transform
        self.shift = nnx.Param(jnp.zeros(1))
        octave = 12 * third + 3  # a little more than one
        self.contour_hidden = HarmonicConv(config, (3, octave), config.contour_filters, rngs=rngs)
        self.contour = Conv2d((5, 5), config.contour_filters, 1, rngs=rngs)
        self.note_hidden = Conv2d((7, 7), 1, config.note_filters, stride=third, rngs=rngs)
        self.note = Conv2d((7, 3), config.note_filters, 1, rngs=rngs)
        self.onset_hidden = HarmonicConv(config, (5, 5), config.onset_filters, stride=third, rngs=rngs)
        self.onset = Conv2d((3, 3), 1 + config.onset_filters, 1, rngs=rngs)

    def logits(self, audio: jax.Array, prepared: Bands | None = None) -> Posteriorgrams:
        """From sound [B, N] to what the sigmoid makes probabilities of; `prepared` as from the method of that name."""
        return self.heads(self.features(audio), prepared)

    def prepared(self) -> Bands:
        """What can be worked out before there is any sound."""
        return self.contour_hidden.prepared(self.config.bins)

    def features(self, audio: jax.Array) -> jax.Array:
        """The transform of windows [B, N] as the convolutions see it: [B, T, K]."""
        c = self.config
        per_octave = 12 * c.bins_per_semitone
        cqt = octave_cqt(audio, c.sample_rate, c.hop, c.fmin, c.bins, per_octave)  # [B, T, K]
        return self.scale[...] * normalised_log(cqt) + self.shift[...]

    def heads(self, features: jax.Array, prepared: Bands | None = None) -> Posteriorgrams:
        """The convolutions: `features` [B, T, K] → logits."""
        contour = self.contour(jax.nn.relu(self.contour_hidden(features, prepared)))  # [B, T, F, 1]
        note = self.note(jax.nn.relu(self.note_hidden(jax.nn.sigmoid(contour))))  # [B, T, P, 1]
        onset = jax.nn.relu(self.onset_hidden(features))  # [B, T, P, O]
        onset = self.onset(jnp.concatenate([jax.nn.sigmoid(note), onset], axis=-1))  # [B, T, P, 1]
        return Posteriorgrams(note[..., 0], onset[..., 0], contour[..., 0])


def normalised_log(magnitudes: jax.Array) -> jax.Array:
    """Decibels of each window [B, T, K], moved and scaled so that its softest is 0 and its loudest 1; silence is 0."""
    decibels = 10.0 / math.log(10.0) * jnp.log(magnitudes**2 + FLOOR)
    decibels -= jnp.min(decibels, axis=(1, 2), keepdims=True)
    loudest = jnp.max(decibels, axis=(1, 2), keepdims=True)
    return jnp.where(loudest > 0, decibels / jnp.where(loudest > 0, loudest, 1.0), 0.0)


# --- training ---------------------------------------------------------------------------------------------------------


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Binary cross-entropy with smoothed labels, elementwise."""
    smooth = (1.0 - smoothing) * labels + 0.5 * smoothing
    return jax.nn.softplus(logits) - logits * smooth


def loss(
    model: BasicPitch, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Section 3.3: the sum of three binary cross-entropies, each a mean; the onset's is balanced between classes.

    `batch`: `audio` float32 [B, N] and labels 0 to 1, `note` and `onset` [B, T, P] and `contour` [B, T, F].
    """
    config, logits = model.config, model.logits(batch["audio"])
    parts = {
        name: cross_entropy(getattr(logits, name), batch[name], config.smoothing) for name in Posteriorgrams._fields
    }
    positive = batch["onset"] > 0
    rare = jnp.sum(parts["onset"] * positive) / jnp.maximum(jnp.sum(positive), 1)
    frequent = jnp.sum(parts["onset"] * ~positive) / jnp.maximum(jnp.sum(~positive), 1)
    metrics = {name: jnp.mean(part) for name, part in parts.items()}
    metrics["onset"] = config.onset_weight * rare + (1.0 - config.onset_weight) * frequent
    return metrics["note"] + metrics["onset"] + metrics["contour"], metrics


def evaluate(model: BasicPitch, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """The loss, and the F-measures of frames of notes at 0.3 and of onsets at 0.5, the thresholds of transcription."""
    total, _ = loss(model, batch, key, jnp.zeros((), jnp.int32))
    logits = model.logits(batch["audio"])
    measured = {"loss": total}
    for name, threshold in (("note", 0.3), ("onset", 0.5)):
        found = jax.nn.sigmoid(getattr(logits, name)) > threshold
        true = batch[name] > 0
        measured[name] = 2.0 * jnp.sum(found & true) / jnp.maximum(jnp.sum(found) + jnp.sum(true), 1)
    return measured


# --- inference --------------------------------------------------------------------------------------------------------


def posteriorgrams(model: BasicPitch, audio: jax.Array, prepared: Bands | None = None) -> Posteriorgrams:
    """Windows of sound, float32 [B, N] → probabilities."""
    return Posteriorgrams(*map(jax.nn.sigmoid, model.logits(audio, prepared)))


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Noise, with labels that have nothing to do with it."""
    shapes = {"note": config.pitches, "onset": config.pitches, "contour": config.contours}
    labels = {
        name: (rng.random((batch, config.steps, width)) < 0.2).astype(np.float32) for name, width in shapes.items()
    }
    return {"audio": rng.standard_normal((batch, config.samples), dtype=np.float32), **labels}


ARCHITECTURE = Architecture(
    name="basic-pitch",
    config=Config,
    module=BasicPitch,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={"posteriorgrams": lambda model, batch, key: posteriorgrams(model, batch["audio"], batch.get("prepared"))},
    prepare=lambda model: model.prepared(),
    task="transcription",
    tiny={"basic-pitch": Config.tiny()},
)
