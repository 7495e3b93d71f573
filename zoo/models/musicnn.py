"""musicnn: tags of music from its log-mel spectrogram, by convolutions whose shapes come from music.

Pons & Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", ISMIR late-breaking 2019,
arXiv:1909.06654; the architecture is that of Pons et al., ISMIR 2018, arXiv:1711.02520.

Front end: tall filters that are moved along frequency see timbre whatever its pitch, long ones see rhythm; of each only
the largest answer over frequency is kept. Middle: three residual convolutions over time. Back end: the maximum and mean
over time of all that came before, and two dense layers. The baseline "vgg" has five small convolutions instead.

Batch norms are a fixed scale and shift here, as at inference. Shapes: `B` batch, `N` samples, `T` frames, `M` mel
bands, `C` channels, `V` tags. A patch is three seconds: sound float32 [B, N] at 16 kHz, or its log-mel spectrogram
[B, T, M].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture, Head
from zoo.nn import spectral
from zoo.nn.affine import Affine
from zoo.nn.dropout import Dropout
from zoo.nn.recurrent import Dense


@dataclass(frozen=True)
class Config:
    """Numbers of one tagger. The defaults are those of the published models.

    Attributes:
      tags: V names, in the order of the outputs.
      kind: "musicnn" or "vgg".
      head: "tags", each likely or not by itself, or "classes", of which one is right.
      rate: of the sound, in Hz.
      size, hop, bands: of the spectrogram, in samples, samples, and mel bands (M).
      frames: T of a patch.
      timbral: filters of each height in `heights`, which are shares of M.
      temporal: filters of each length in `lengths`, in frames.
      middle: filters of each of the three convolutions over time.
      units: width of the last hidden layer.
      small: filters of each of vgg's convolutions.
      keep: shares that dropout keeps in training, within the network and before its last layer.
    """

    tags: tuple[str, ...]
    kind: str = "musicnn"
    head: str = "tags"
    rate: int = 16000
    size: int = 512
    hop: int = 256
    bands: int = 96
    frames: int = 187
    timbral: int = 204
    heights: tuple[float, ...] = (0.4, 0.7)
    temporal: int = 51
    lengths: tuple[int, ...] = (128, 64, 32)
    middle: int = 64
    units: int = 200
    small: int = 128
    keep: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if self.kind not in ("musicnn", "vgg") or self.head not in ("tags", "classes"):
            raise ValueError(f"kind {self.kind!r} with head {self.head!r}: there are musicnn and vgg, tags and classes")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(
            tags=("loud", "soft", "high"), size=32, hop=16, bands=20, frames=36, timbral=4, temporal=3,
            lengths=(6, 3), middle=5, units=8, small=4, keep=(0.9, 0.9),
        )  # fmt: skip

    @property
    def window(self) -> int:
        """N: samples of a patch, from the first frame's to the last one's."""
        return (self.frames - 1) * self.hop + self.size

    @property
    def steps(self) -> int:
        return self.frames

    @property
    def seconds(self) -> float:
        """Of a patch."""
        return self.frames * self.hop / self.rate


class Block(nnx.Module):
    """A convolution over frames and bands, ReLU, batch norm. `kernel` [frames, bands, I, O], `bias` [O]."""

    def __init__(self, size: tuple[int, int], inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (*size, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.norm = Affine(outputs)

    def __call__(self, x: jax.Array, padding: str = "SAME") -> jax.Array:
        """`x` [B, T, M, I] → [B, T, M, O]; with padding "FREE" the bands at the edges have no zeros around."""
        around: Any = "SAME"
        if padding == "FREE":
            around = [((self.kernel.shape[0] - 1) // 2, self.kernel.shape[0] // 2), (0, 0)]
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, self.kernel[...], (1, 1), around, dimension_numbers=layout)
        return self.norm(jax.nn.relu(y + self.bias[...]))


class Musicnn(nnx.Module):
    """The musically motivated network."""

    embedding = "penultimate"  # the layer that the last one reads

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.input = Affine(1)
        heights = [int(share * config.bands) for share in config.heights]
        self.timbral = nnx.List([Block((7, height), 1, config.timbral, rngs=rngs) for height in heights])
        self.temporal = nnx.List([Block((length, 1), 1, config.temporal, rngs=rngs) for length in config.lengths])
        front = config.timbral * len(heights) + config.temporal * len(config.lengths)
        widths = (front, config.middle, config.middle)
        self.middle = nnx.List([Block((7, 1), width, config.middle, rngs=rngs) for width in widths])
        pooled = 2 * (front + 3 * config.middle)
        self.pooled = Affine(pooled)
        self.dense = Dense(pooled, config.units, rngs=rngs)
        self.norm = Affine(config.units)
        self.output = Dense(config.units, len(config.tags), rngs=rngs)

    def layers(self, patches: jax.Array, drop: Dropout | None = None) -> dict[str, jax.Array]:
        """Every layer of interest, from patches [B, T, M]. Over time [B, T, C], or pooled [B, C]."""
        drop = drop or Dropout()
        x = self.input(patches[..., None])  # [B, T, M, 1]
        timbral = jnp.concatenate([largest(block(x, "FREE"), 2) for block in self.timbral], axis=-1)
        temporal = jnp.concatenate([largest(block(x), 2) for block in self.temporal], axis=-1)
        front = jnp.concatenate([timbral, temporal], axis=-1)  # [B, T, C]
        first, second, third = (lambda y, block=block: block(y[:, :, None])[:, :, 0] for block in self.middle)
        cnn1 = first(front)
        cnn2 = cnn1 + second(cnn1)
        cnn3 = cnn2 + third(cnn2)
        whole = jnp.concatenate([front, cnn1, cnn2, cnn3], axis=-1)
        most, mean = largest(whole, 1), jnp.mean(whole, axis=1)
        pooled = self.pooled(jnp.stack([most, mean], axis=-1).reshape(len(whole), -1))  # each channel's two in turn
        penultimate = self.norm(jax.nn.relu(self.dense(drop(pooled))))
        return {
            "timbral": timbral, "temporal": temporal, "cnn1": cnn1, "cnn2": cnn2, "cnn3": cnn3,
            "mean_pool": mean, "max_pool": most, "penultimate": penultimate,
        }  # fmt: skip


class VGG(nnx.Module):
    """The baseline: five 3 × 3 convolutions, each with a pooling after it."""

    embedding = "pool5"
    pools = (((4, 1), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((2, 2), (2, 2)), ((4, 4), (4, 4)))  # sizes, strides

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.input = Affine(1)
        widths = (1, *(config.small,) * (len(self.pools) - 1))
        self.blocks = nnx.List([Block((3, 3), width, config.small, rngs=rngs) for width in widths])
        frames, bands = config.frames, config.bands
        for (high, wide), (down, across) in self.pools:
            frames, bands = (frames - high) // down + 1, (bands - wide) // across + 1
        if frames < 1 or bands < 1:
            raise ValueError(f"frames={config.frames}, bands={config.bands}: too few to be pooled five times")
        self.output = Dense(frames * bands * config.small, len(config.tags), rngs=rngs)

    def layers(self, patches: jax.Array, drop: Dropout | None = None) -> dict[str, jax.Array]:
        """What each pooling leaves, from patches [B, T, M]: [B, T', M', C], the last one flat [B, C]."""
        x, layers = self.input(patches[..., None]), {}
        for number, (block, (size, stride)) in enumerate(zip(self.blocks, self.pools, strict=True), 1):
            x = max_pool(block(x), size, stride)
            layers[f"pool{number}"] = x
            x = drop(x) if drop else x
        return layers | {"pool5": layers["pool5"].reshape(len(patches), -1)}


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def largest(x: jax.Array, axis: int) -> jax.Array:
    """The largest along an axis; the gradient goes to the first place that has it.

    JAX's own divides it among all places equal to the largest, and where XLA computes `x` twice, in two ways that
    differ in the last bit, there are none: the gradient is then not a number.
    """
    return jnp.max(x, axis)


def _largest_forward(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    return jnp.max(x, axis), x


def _largest_backward(axis: int, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    place = jnp.expand_dims(jnp.argmax(x, axis), axis)
    here = jax.lax.broadcasted_iota(place.dtype, x.shape, axis) == place
    return (jnp.where(here, jnp.expand_dims(gradient, axis), 0.0),)


largest.defvjp(_largest_forward, _largest_backward)


def max_pool(x: jax.Array, size: tuple[int, int], stride: tuple[int, int]) -> jax.Array:
    """The largest of each window of frames and bands: [B, T, M, C] → [B, T', M', C]."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *size, 1), (1, *stride, 1), "VALID")


def build(config: Config, *, rngs: nnx.Rngs) -> Musicnn | VGG:
    """The network of a configuration."""
    return VGG(config, rngs=rngs) if config.kind == "vgg" else Musicnn(config, rngs=rngs)


# --- from sound to patches --------------------------------------------------------------------------------------------


def log_mel(config: Config, sound: jax.Array) -> jax.Array:
    """log₁₀(1 + 10⁴ · mel power) of patches of sound [B, N]: float32 [B, T, M].

    The package computes it in float16, and so what the networks learnt from is rounded like that, step by step.
    """
    count = (sound.shape[-1] - config.size) // config.hop + 1
    at = config.hop * np.arange(count)[:, None] + np.arange(config.size)
    filters = spectral.mel_filters(config.rate, config.size, config.bands)
    mel = half(spectral.power(sound[..., at]) @ filters)
    return half(jnp.log10(half(1.0 + half(1e4 * mel))))


def half(x: jax.Array) -> jax.Array:
    """Positive `x` rounded as float16 would, but without its end at 65504.

    There the package goes on with infinity, which happens in loud music (from 10⁴ · mel power = 65504 on).
    """
    normal = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=10)
    return jnp.where(x < 2.0**-14, jnp.round(x * 2.0**24) * 2.0**-24, normal)  # below: steps of 2⁻²⁴


# --- training and inference -------------------------------------------------------------------------------------------


def layers(model: Musicnn | VGG, sound: jax.Array) -> dict[str, jax.Array]:
    """All layers of interest, and the probabilities "tags", of patches of sound [B, N]."""
    found = model.layers(log_mel(model.config, sound))
    return found | {"tags": probabilities(model.config, model.output(found[model.embedding]))}


def probabilities(config: Config, logits: jax.Array) -> jax.Array:
    """Logits [B, V] → how likely each tag is; of classes they sum to 1."""
    return jax.nn.softmax(logits, axis=-1) if config.head == "classes" else jax.nn.sigmoid(logits)


def logits(model: Musicnn | VGG, batch: Mapping[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
    """[B, V] from sound `x` [B, N], or from what the last layer reads, `embedding` [B, C]; with a key under dropout."""
    within, last = Dropout(), Dropout()
    if key is not None:
        within, last = (Dropout(*each) for each in zip(model.config.keep, jax.random.split(key), strict=True))
    x = batch.get("embedding")
    if x is None:
        x = model.layers(log_mel(model.config, batch["x"]), within)[model.embedding]
    return model.output(last(x))


def cross_entropy(config: Config, logits: jax.Array, y: jax.Array) -> jax.Array:
    """−log p of the right tags `y` in nats, [B]: the mean over the tags, or that of the one class."""
    if config.head == "classes":
        return -jnp.sum(y * jax.nn.log_softmax(logits, axis=-1), axis=-1)
    return jnp.mean(jax.nn.softplus(logits) - y * logits, axis=-1)


def loss(
    model: Musicnn | VGG, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The mean cross-entropy of patches `x` with their tags `y`, 0 or 1 [B, V], or the numbers of their classes [B]."""
    scores, y = logits(model, batch, key), targets(model.config, batch["y"])
    return jnp.mean(cross_entropy(model.config, scores, y)), {"accuracy": accuracy(scores, y)}


def targets(config: Config, y: jax.Array) -> jax.Array:
    """Numbers of classes int [B] as 0 and 1 [B, V]; what is so already stays."""
    return jax.nn.one_hot(y, len(config.tags)) if jnp.issubdtype(y.dtype, jnp.integer) else y


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Share of patches whose likeliest tag is one of theirs."""
    return jnp.mean(jnp.take_along_axis(y, jnp.argmax(logits, axis=-1)[:, None], axis=-1))


def evaluate(model: Musicnn | VGG, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """The loss without dropout, and the accuracy."""
    scores, y = logits(model, batch), targets(model.config, batch["y"])
    return {"loss": jnp.mean(cross_entropy(model.config, scores, y)), "accuracy": accuracy(scores, y)}


def adapt(model: Musicnn | VGG, classes: tuple[str, ...], rngs: nnx.Rngs) -> Musicnn | VGG:
    """The model with a new last layer, for classes of which one is right; the same model if they are its own."""
    if model.config.head == "classes" and model.config.tags == classes:
        return model
    model.config = replace(model.config, tags=classes, head="classes")
    model.output = Dense(model.output.kernel.shape[0], len(classes), rngs=rngs)
    return model


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Patches of noise with tags drawn at random."""
    one = np.eye(len(config.tags), dtype=np.float32)[rng.integers(len(config.tags), size=batch)]
    return {"x": 0.1 * rng.standard_normal((batch, config.window), dtype=np.float32), "y": one}


ARCHITECTURE = Architecture(
    name="musicnn",
    config=Config,
    module=build,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={
        "tags": lambda model, batch, key: probabilities(model.config, logits(model, batch)),
        "layers": lambda model, batch, key: layers(model, batch["x"]),
    },
    task="tags",
    data="classes",
    head=Head(adapt, trunk=("[!o]*",), embed=lambda model, x: layers(model, x)[model.embedding]),
    tiny={
        "musicnn": Config.tiny(),
        "classes": replace(Config.tiny(), head="classes"),
        "vgg": replace(Config.tiny(), kind="vgg", frames=66, bands=64, size=256),
    },
)
