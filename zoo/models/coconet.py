"""Coconet: counterpoint by convolution.

Huang, Cooijmans, Roberts, Courville, Eck, ISMIR 2017, arXiv:1903.07227. A convolutional network over (time, pitch)
sees the piano rolls of four voices with some notes hidden and tells, for every note, what it could be. Trained on every
share of hidden notes it is an orderless NADE (Uria et al. 2014): a likelihood in any order of the notes, of which
Gibbs sampling draws, whatever is given and whatever is to be filled in.

Also the network of a published PyTorch checkpoint (github George-Ogden/coconet): separable, dilated convolutions,
hidden notes replaced by coin flips rather than zeros. It was trained cell by cell, p = σ(logit) each. That at most one
cell of a voice sounds makes of its independent cells P(pitch) ∝ exp(logit) and P(rest) ∝ 1, so one softmax, with a
logit of 0 for the rest, is the head of both.

Shapes: `B` batch, `T` sixteenths, `V` voices, `P` pitches, `F` filters. Music is int32 [B, T, V]: 0 rests, 1 + k is the
k-th pitch. `hidden` bool [B, T, V] are the notes that the network doesn't see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.likelihood import surprise
from zoo.nn.sampling import likeliest


@dataclass(frozen=True)
class Config:
    """Numbers of one network. The defaults are the paper's: 64 layers, 3 × 3 but for the last two, which are 2 × 2.

    Attributes:
      steps: T of a training window; the network takes any.
      voices, pitches: V and P.
      filters: F of every layer but the last.
      dilations: of each hidden 3 × 3 layer, in time and pitch alike; one layer each.
      separable: a 3 × 3 filter for each channel, then a product over the channels, in all layers but the first.
      variant: "paper", or "torch" for the published PyTorch network: coin flips for what is hidden, a mask that is 1
        there (not where notes are seen), skips from before the ReLU, and a 2 × 2 layer that grows by a row and column.
      gibbs: steps of Gibbs sampling.
      most, least, annealed: share of notes drawn anew in the first steps and in the last, and the share of all steps
        over which it falls (Yao et al. 2014).
    """

    steps: int = 128
    voices: int = 4
    pitches: int = 46
    filters: int = 128
    dilations: tuple[int, ...] = (1,) * 61
    separable: bool = False
    variant: str = "paper"
    gibbs: int = 512
    most: float = 0.9
    least: float = 0.1
    annealed: float = 0.7

    def __post_init__(self) -> None:
        if self.variant not in ("paper", "torch"):
            raise ValueError(f"variant={self.variant!r} is neither 'paper' nor 'torch'")
        if self.variant == "torch" and len(self.dilations) % 2:
            raise ValueError("the torch variant has an even number of dilations, for no skip reaches its last layers")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(steps=8, pitches=4, filters=8, dilations=(1, 2, 1), gibbs=3)

    @property
    def reach(self) -> int:
        """How many steps before and after a note have a say in its logits, at most."""
        return 1 + sum(self.dilations) + 2


class Convolution(nnx.Module):
    """A convolution over (time, pitch), then a scale and a shift for each filter: a batch norm whose statistics stand.

    `kernel` [k, k, C, F]; separable: `depthwise` [k, k, C] and `pointwise` [C, F]. `scale`, `shift` [F].
    """

    def __init__(
        self, inputs: int, filters: int, size: int, *, dilation: int = 1, pads: tuple[int, int] | None = None,
        separable: bool = False, scale: float = 1.0, rngs: nnx.Rngs,
    ) -> None:  # fmt: skip
        self.dilation, self.separable = dilation, separable
        reach = dilation * (size - 1)
        self.pads = pads or (reach // 2, reach - reach // 2)  # by default the output is as large as the input
        if separable:
            self.depthwise = nnx.Param(jax.random.normal(rngs.params(), (size, size, inputs)) / size)
            self.pointwise = nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), (inputs, filters)))
        else:
            self.kernel = nnx.Param(jax.nn.initializers.he_normal()(rngs.params(), (size, size, inputs, filters)))
        self.scale, self.shift = nnx.Param(jnp.full(filters, scale)), nnx.Param(jnp.zeros(filters))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` [B, T, P, C] → [B, T', P', F]."""
        if self.separable:
            y = depthwise(x, self.depthwise[...], self.dilation, self.pads) @ self.pointwise[...]
        else:
            y = jax.lax.conv_general_dilated(
                x, self.kernel[...], (1, 1), (self.pads, self.pads), rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
        return y * self.scale[...] + self.shift[...]


def depthwise(x: jax.Array, kernel: jax.Array, dilation: int, pads: tuple[int, int]) -> jax.Array:
    """Every channel of `x` [B, T, P, C] with a filter of its own, `kernel` [k, k, C].

    A sum of shifted copies: on a CPU 8 times as fast as XLA's grouped convolution (128 filters).
    """
    size, shrunk = len(kernel), sum(pads) - dilation * (len(kernel) - 1)
    padded = jnp.pad(x, ((0, 0), pads, pads, (0, 0)))
    steps, pitches = x.shape[1] + shrunk, x.shape[2] + shrunk
    return sum(
        padded[:, i * dilation :, j * dilation :][:, :steps, :pitches] * kernel[i, j]
        for i in range(size)
        for j in range(size)
    )  # type: ignore[return-value]


class Coconet(nnx.Module):
    """The network: a 3 × 3 layer, hidden 3 × 3 layers, two 2 × 2 layers; a skip over every two (section 4.1)."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        sizes = [3] * (1 + len(config.dilations)) + [2, 2]
        dilations = [1, *config.dilations, 1, 1]
        pads: list[tuple[int, int] | None] = [None] * len(sizes)
        if config.variant == "torch":
            pads[-2:] = (1, 1), (0, 0)
        last = len(sizes) - 1
        self.layers = nnx.List(
            Convolution(
                2 * config.voices if i == 0 else config.filters,
                config.voices if i == last else config.filters,
                size,
                dilation=dilation,
                pads=pad,
                separable=config.separable and i > 0,
                # A block that starts as the identity needs no batch norm to train (De & Smith 2020).
                scale=0.0 if i in self.ends() else 1.0,
                rngs=rngs,
            )
            for i, (size, dilation, pad) in enumerate(zip(sizes, dilations, pads, strict=True))
        )

    def ends(self) -> range:
        """The layers to whose output a skip is added; it starts two layers before."""
        return range(2, len(self.config.dilations) + 2, 2)

    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """Rolls and masks [B, T, P, 2V] → logits of each pitch [B, T, P, V].

        With `valid` bool [B, T] what lies beyond a piece's end is as the border of a roll of that length.
        """
        edge = None if valid is None else valid[:, :, None, None]
        skip = x
        for i, layer in enumerate(self.layers):
            y = layer(jnp.where(edge, x, 0.0) if edge is not None and x.shape[1] == edge.shape[1] else x)
            if i in self.ends():
                y = y + skip
            x = jax.nn.relu(y) if i + 1 < len(self.layers) else y
            if i % 2 == 0:
                skip = x if self.config.variant == "paper" else y
        return x

    def logits(self, music: jax.Array, hidden: jax.Array, key: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """Of each note, hidden or not: float32 [B, T, V, 1 + P], the rest first. `key` flips the coins of "torch"."""
        x = observed(self.config, music, hidden, key)
        if valid is not None:
            x = jnp.where(valid[:, :, None, None], x, 0.0)
        pitches = self(x, valid).swapaxes(2, 3)  # [B, T, V, P]
        return jnp.pad(pitches, ((0, 0), (0, 0), (0, 0), (1, 0)))  # a rest's logit is 0


def observed(config: Config, music: jax.Array, hidden: jax.Array, key: jax.Array) -> jax.Array:
    """What the network sees of `music`: piano rolls and masks, float32 [B, T, P, 2V]."""
    roll = jax.nn.one_hot(music - 1, config.pitches)  # [B, T, V, P], a rest is all zeros
    if config.variant == "paper":
        roll, mask = jnp.where(hidden[..., None], 0.0, roll), ~hidden
    else:
        coins = jax.random.bernoulli(key, 0.5, roll.shape).astype(jnp.float32)
        roll, mask = jnp.where(hidden[..., None], coins, roll), hidden
    masks = jnp.broadcast_to(mask[..., None], roll.shape).astype(jnp.float32)
    return jnp.concatenate([roll, masks], axis=2).swapaxes(2, 3)


# --- training ---------------------------------------------------------------------------------------------------------


def orderless_mask(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What is left when a uniformly random part of a random order is known: bool [B, T, V], 1 to T·V notes hidden."""
    size_key, order_key = jax.random.split(key)
    notes = int(np.prod(shape[1:]))
    count = jax.random.randint(size_key, (shape[0], 1), 1, notes + 1)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(order_key, (shape[0], notes)), axis=1), axis=1)
    return (rank < count).reshape(shape)


def loss(
    model: Coconet, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The orderless NADE loss (eq. 3): the mean over the hidden notes, which weighs each order's steps alike.

    Nats a note. That the sum is divided by how many are hidden makes it an unbiased estimate of the mean negative
    log-likelihood of a note in a random order.
    """
    music = batch["x"]
    mask_key, coin_key = jax.random.split(key)
    hidden = orderless_mask(mask_key, music.shape)
    logits = model.logits(music, hidden, coin_key)
    share = hidden / jnp.sum(hidden, axis=(1, 2), keepdims=True)
    nll = jnp.mean(jnp.sum(share * surprise(logits, music), axis=(1, 2)))
    right = jnp.argmax(logits, axis=-1) == music
    return nll, {"accuracy": jnp.mean(jnp.sum(share * right, axis=(1, 2)))}


def evaluate(model: Coconet, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """Of windows in random orders: `nll` in nats a note, `accuracy` of the likeliest note where hidden."""
    nll, metrics = loss(model, batch, key, jnp.zeros((), jnp.int32))
    return {"nll": nll, **metrics}


# --- inference --------------------------------------------------------------------------------------------------------


def hidden_share(config: Config, step: jax.Array, steps: jax.Array | int) -> jax.Array:
    """Of the free notes, those drawn anew in step 0, 1, …: falls from `most` to `least`, then stays."""
    fallen = (config.most - config.least) * step / (config.annealed * steps)
    return jnp.maximum(config.least, config.most - fallen)


def gibbs(
    model: Coconet,
    music: jax.Array,
    free: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    total: jax.Array | int,
    first: jax.Array | int,
    count: int,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Block Gibbs sampling with annealed masking (section 4.3): `music` with the notes where `free` is true drawn anew.

    At each step every free note is hidden with a probability that falls, and all hidden ones are drawn at once from
    what the network makes of the rest. In step 0 all free notes are hidden, so what they were doesn't matter.

    Args:
      music, free: [B, T, V].
      key: of the whole chain: step n draws by `fold_in(key, n)`, so that parts give what one call gives.
      temperature: divides the logits; at 0 the likeliest note is taken.
      total, first, count: the chain has `total` steps; these are those from `first` on, `count` of them, in one loop.
      valid: bool [B, T], see `Coconet.__call__`.
    """

    def step(music: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        mask_key, coin_key, draw_key = jax.random.split(jax.random.fold_in(key, n), 3)
        share = jnp.where(n == 0, 1.0, hidden_share(model.config, n, total))
        hidden = free & (jax.random.uniform(mask_key, music.shape) < share)
        logits = model.logits(music, hidden, coin_key, valid)
        drawn = likeliest(logits + temperature * jax.random.gumbel(draw_key, logits.shape))
        return jnp.where(hidden, drawn, music), None

    return jax.lax.scan(step, music, first + jnp.arange(count))[0]


def frame_log_likelihood(
    model: Coconet,
    music: jax.Array,
    frame: jax.Array,
    known: jax.Array,
    order: jax.Array,
    key: jax.Array,
    valid: jax.Array,
    own: jax.Array,
) -> jax.Array:
    """Log-likelihood log p(x_t | the frames that are known), x_t the chord at t = `frame` int32 [B]: nats [B].

    The voices come in `order` int32 [B, V]; each is told the truth of those before it, or with `own` the model's
    likeliest notes instead, as in the authors' evaluation. `known` bool [B, T] must not include the frame itself.
    """
    rows = jnp.arange(music.shape[0])
    hidden = jnp.broadcast_to(~known[..., None], music.shape)

    def voice(
        carry: tuple[jax.Array, jax.Array], at: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        (seen, hidden), (v, key) = carry, at
        scores = jax.nn.log_softmax(model.logits(seen, hidden, key, valid)[rows, frame, v], axis=-1)  # [B, 1 + P]
        truth = music[rows, frame, v]
        told = jnp.where(own, likeliest(scores), truth)
        carry = seen.at[rows, frame, v].set(told), hidden.at[rows, frame, v].set(False)
        return carry, scores[rows, truth]

    keys = jax.random.split(key, order.shape[1])
    return jnp.sum(jax.lax.scan(voice, (music, hidden), (order.T, keys))[1], axis=0)


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch: music, which rests for the most part, which of its notes are free, and a temperature."""
    shape = (batch, config.steps, config.voices)
    sounding = rng.random(shape) < 0.2
    return {
        "x": np.where(sounding, rng.integers(1, 1 + config.pitches, shape), 0).astype(np.int32),
        "free": rng.random(shape) < 0.5,
        "temperature": np.float32(1.0),
    }


ARCHITECTURE = Architecture(
    name="coconet",
    config=Config,
    module=Coconet,
    loss=loss,
    evaluate=evaluate,
    monitor=("nll", "min"),
    example=example,
    kernels={
        "logits": lambda model, batch, key: model.logits(batch["x"], batch["free"], key),
        "infill": lambda model, batch, key: gibbs(
            model, batch["x"], batch["free"], key, batch["temperature"], model.config.gibbs, 0, model.config.gibbs
        ),
    },
    task="infill",
    tiny={
        "paper": Config.tiny(),
        "even": replace(Config.tiny(), dilations=(1, 2)),
        "separable": replace(Config.tiny(), separable=True),
        "torch": replace(Config.tiny(), separable=True, variant="torch", dilations=(1, 2, 4, 1)),
    },
)
