"""Structured training for large-vocabulary chord recognition.

McFee, Bello, ISMIR 2017. The published network is that of the authors' package crema 0.2.

A convolution looks for onsets of energy in two harmonic layers of a constant-Q spectrogram, another one takes each
frame as a whole, and two bidirectional GRUs read the song. A frame's state gives the chord's root, its bass and the
pitch classes that sound; the state and these three together give the chord itself, one of 170: 14 qualities on 12
roots, no chord ("N") and a chord out of the vocabulary ("X"). With the bass that makes 602.

Shapes: `B` batch, `T` frames of 93 ms, `F` bins, `C` harmonics, `H` units of a direction, `K` chords. Features are
float32 [B, T, F, C] in dB, as `zoo.music.harmonic_cqt` makes them; masks are bool [B, T], False past a recording's end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.nn.initializers import glorot_uniform, orthogonal

from zoo.models.architecture import Architecture, Metrics
from zoo.nn.affine import Affine
from zoo.nn.precision import dot, rounded
from zoo.nn.recurrent import Dense
from zoo.nn.rows import Rows, on_disk

Frames: TypeAlias = npt.NDArray[np.float32] | Rows

REACH = 2  # frames on either side that a frame's convolution sees
PITCHES = 12
ROOTS = PITCHES + 1  # the last: no root, no bass
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
QUALITIES = (
    "maj", "min", "dim", "aug", "min6", "maj6", "min7", "maj7", "7", "dim7", "hdim7", "minmaj7", "sus2", "sus4"
)  # fmt: skip
PIECE = 512  # frames, 48 s: what a long recording is cut into


@dataclass(frozen=True)
class Config:
    """Numbers of the network; the defaults are the published ones.

    Attributes:
      bins, harmonics: F and C.
      filters: numbers that the second convolution takes from a frame.
      units: H, of each direction and layer.
      layers: recurrent layers.
      qualities: what may stand on a root, in Harte's notation (Harte 2010).
      stay: how likely the same chord is in the next frame, for smoothing.
      steps: frames of a patch in training, 8 s.
    """

    bins: int = 216
    harmonics: int = 2
    filters: int = 72
    units: int = 128
    layers: int = 2
    qualities: tuple[str, ...] = QUALITIES
    stay: float = 0.957154635467057
    steps: int = 86

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(bins=12, filters=10, units=8, qualities=("maj", "min"), steps=9)

    @property
    def labels(self) -> tuple[str, ...]:
        """The chords in the order of the network's outputs, K = 12 · qualities + 2."""
        return (*sorted(f"{root}:{quality}" for root in NAMES for quality in self.qualities), "N", "X")


class Chords(NamedTuple):
    """What the network says of each frame, as probabilities.

    `chord` [B, T, K], `root` and `bass` [B, T, 13] sum to 1; of `pitch` [B, T, 12] each is its own. `state` [B, T, 2H]
    is what they are read from: an embedding of the frame in its song.
    """

    chord: jax.Array
    root: jax.Array
    bass: jax.Array
    pitch: jax.Array
    state: jax.Array


class Direction(nnx.Module):
    """A GRU's numbers (Cho et al. 2014): gates in the order z, r, candidate. `kernel` [X, 3H], `recurrent` [H, 3H]."""

    def __init__(self, inputs: int, units: int, *, rngs: nnx.Rngs) -> None:
        square = [orthogonal()(rngs.params(), (units, units)) for _ in "zrc"]
        self.kernel = nnx.Param(glorot_uniform()(rngs.params(), (inputs, 3 * units)))
        self.recurrent = nnx.Param(jnp.concatenate(square, axis=1))
        self.bias = nnx.Param(jnp.zeros(3 * units))


class GRU(nnx.Module):
    """Both directions of one recurrent layer, in one loop over time."""

    def __init__(self, inputs: int, units: int, *, rngs: nnx.Rngs) -> None:
        self.units = units
        self.forward = Direction(inputs, units, rngs=rngs)
        self.backward = Direction(inputs, units, rngs=rngs)

    def zeros(self, batch: int) -> jax.Array:
        """The state of both directions before the first frame, [2, B, H]."""
        return jnp.zeros((2, batch, self.units))

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """The whole sequence: `x` [B, T, X] → both states side by side [B, T, 2H]."""
        ahead, behind, _ = self.advance((x, x), (mask, mask), self.zeros(len(x)))
        return jnp.concatenate([ahead, behind], axis=-1)

    def advance(
        self, x: tuple[jax.Array, jax.Array], mask: tuple[jax.Array, jax.Array], state: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """A stretch of the sequence for each direction, so that a long one can be gone through piece by piece.

        `x`: the next stretch from the left and from the right, [B, T, X] each, and `mask` theirs; both in order of
        time. Returns the states of the two stretches [B, T, H], and that [2, B, H] to go on from.

            z = σ(Wz x + Uz h)   r = σ(Wr x + Ur h)   c = tanh(Wc x + Uc (r ∘ h))   h' = z ∘ h + (1 − z) ∘ c

        σ is Keras's piecewise linear one. A frame that is masked leaves the state as it is.
        """
        gates = [
            dot(part, rounded(way.kernel[...])) + way.bias[...]
            for part, way in zip(x, (self.forward, self.backward), strict=True)
        ]
        over_time = jnp.stack([gates[0], gates[1][:, ::-1]]).transpose(2, 0, 1, 3)  # [T, 2, B, 3H]
        real = jnp.stack([mask[0], mask[1][:, ::-1]]).transpose(2, 0, 1)[..., None]  # [T, 2, B, 1]
        recurrent = rounded(jnp.stack([self.forward.recurrent[...], self.backward.recurrent[...]]))
        for_gates, for_candidate = jnp.split(recurrent, [2 * self.units], axis=-1)  # [2, H, 2H], [2, H, H]

        def step(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            gates, real = inputs
            z, r = jnp.split(_sigmoid(gates[..., : 2 * self.units] + _both(h, for_gates)), 2, axis=-1)
            c = jnp.tanh(gates[..., 2 * self.units :] + _both(r * h, for_candidate))
            h = jnp.where(real, z * h + (1 - z) * c, h)
            return h, h

        state, hidden = jax.lax.scan(step, state, (over_time, real))
        ahead, behind = hidden.transpose(1, 2, 0, 3)  # [B, T, H] each
        return ahead, behind[:, ::-1], state


def _sigmoid(x: jax.Array) -> jax.Array:
    return jnp.clip(0.2 * x + 0.5, 0.0, 1.0)


def _both(h: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each direction's own product, [2, B, H] · [2, H, Y] → [2, B, Y]."""
    return jnp.stack([dot(h[way], kernel[way]) for way in (0, 1)])


class ChordCrema(nnx.Module):
    """The whole network."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        side, state = 2 * REACH + 1, 2 * config.units
        self.input = Affine(config.harmonics)
        self.onsets = nnx.Param(glorot_uniform()(rngs.params(), (side, side, config.harmonics, 1)))
        self.onset_bias = nnx.Param(jnp.zeros(1))
        self.onset_affine = Affine(1)
        self.frame = Dense(config.bins, config.filters, rngs=rngs)
        self.frame_affine = Affine(config.filters)
        widths = [config.filters] + [state] * (config.layers - 1)
        self.layers = nnx.List([GRU(width, config.units, rngs=rngs) for width in widths])
        self.between = nnx.List([Affine(state) for _ in widths[1:]])
        self.pitch = Dense(state, PITCHES, rngs=rngs)
        self.root = Dense(state, ROOTS, rngs=rngs)
        self.bass = Dense(state, ROOTS, rngs=rngs)
        self.joined = Affine(state + PITCHES + 2 * ROOTS)
        self.chord = Dense(state + PITCHES + 2 * ROOTS, len(config.labels), rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array) -> Chords:
        """Whole songs at once: features [B, T, F, C]."""
        x = self.convolve(jnp.pad(x, ((0, 0), (REACH, REACH), (0, 0), (0, 0))), jnp.pad(mask, ((0, 0), (REACH, REACH))))
        for layer in range(self.config.layers):
            x = self.layers[layer](self.enter(x, layer), mask)
        return self.read(x)

    def by_pieces(self, jit: Callable[..., Any]) -> Callable[[Frames], Chords]:
        """A function from a recording of any length, [T, F, C], to `Chords` of `Rows` [T, …].

        `jit(kernel)` compiles `kernel(model, …)`. Each program is compiled once, for `PIECE` frames, and memory holds
        no more than that: every layer goes through the recording from both ends before the next one begins, and what
        it gives is kept on disk.
        """
        convolve = jit(ChordCrema.convolve)
        layers = [jit(partial(ChordCrema.advance, layer=layer)) for layer in range(self.config.layers)]
        read = jit(ChordCrema.read)

        def run(x: Frames) -> Chords:
            cuts = [slice(at, at + PIECE) for at in range(0, len(x), PIECE)]
            below = [on_disk(convolve(*_around(x, cut))[0] for cut in cuts)]
            for layer, advance in zip(self.layers, layers, strict=True):
                ahead, behind, state = Rows((layer.units,)), Rows((layer.units,)), layer.zeros(1)
                for left, right in zip(cuts, reversed(cuts), strict=True):
                    sides = _joined(below, left), _joined(below, right)
                    masks = _mask(len(x), left), _mask(len(x), right)
                    (ahead[left],), (behind[right],), state = advance(sides, masks, state)
                below = [ahead, behind]
            return on_disk(_first(jax.device_get(read(_joined(below, cut))), len(x) - cut.start) for cut in cuts)

        return run

    def advance(self, x: Any, mask: Any, state: jax.Array, layer: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`GRU.advance` of one layer, from what the layer before gives."""
        return self.layers[layer].advance((self.enter(x[0], layer), self.enter(x[1], layer)), mask, state)

    def convolve(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Features with `REACH` more frames on either side [B, T + 4, F, C] → [B, T, filters]."""
        x = jnp.where(mask[:, :, None, None], self.input(x), 0.0)  # Keras pads what comes out of the first batch norm
        pads = ((0, 0), (REACH, REACH))
        x = jax.lax.conv_general_dilated(x, self.onsets[...], (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = self.onset_affine(jax.nn.relu(x + self.onset_bias[...]))[..., 0]  # [B, T, F]
        return self.frame_affine(jax.nn.relu(self.frame(x)))

    def enter(self, x: jax.Array, layer: int) -> jax.Array:
        """What recurrent layer number `layer` takes of the one before."""
        return self.between[layer - 1](x) if layer else x

    def read(self, state: jax.Array) -> Chords:
        """The last layer's states [B, T, 2H] → probabilities."""
        pitch = jax.nn.sigmoid(self.pitch(state))
        root, bass = jax.nn.softmax(self.root(state)), jax.nn.softmax(self.bass(state))
        joined = self.joined(jnp.concatenate([state, pitch, root, bass], axis=-1))
        return Chords(jax.nn.softmax(self.chord(joined)), root, bass, pitch, state)


def _around(x: Frames, cut: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Frames of `x` [T, F, C] and `REACH` more on either side, zeros past its ends, as a batch of one; their mask."""
    first, stop = cut.start - REACH, cut.stop + REACH
    inside = x[max(0, first) : stop]
    before = max(0, -first)
    pads = ((before, stop - first - before - len(inside)), (0, 0), (0, 0))
    return np.pad(inside, pads)[None], _mask(len(x), slice(first, stop))


def _mask(count: int, cut: slice) -> npt.NDArray[np.bool_]:
    """Which frames of a cut a recording of `count` frames has, [1, T]."""
    at = np.arange(cut.start, cut.stop)
    return ((at >= 0) & (at < count))[None]


def _joined(parts: list[Rows], cut: slice) -> npt.NDArray[np.float32]:
    """A cut of rows side by side, as a batch of one: [1, T, X]."""
    return np.concatenate([part[cut] for part in parts], axis=-1)[None]


def _first(found: Chords, count: int) -> Chords:
    """The first frames of a batch of one, at most `count`."""
    return Chords(*(leaf[0, :count] for leaf in found))


def loss(model: ChordCrema, batch: dict[str, Any], key: jax.Array, step: jax.Array) -> tuple[jax.Array, Metrics]:
    """Cross-entropies of chord, root, bass and pitch classes, summed, over the frames that there are (section 3.2).

    `batch`: features "x", "mask", and the truth: "chord", "root" and "bass" int [B, T], "pitch" [B, T, 12] of 0 and 1.
    """
    found, mask = model(batch["x"], batch["mask"]), batch["mask"]
    parts = {name: _mean(_surprise(getattr(found, name), batch[name]), mask) for name in ("chord", "root", "bass")}
    on = jnp.asarray(batch["pitch"], jnp.float32)
    parts["pitch"] = -_mean((on * _log(found.pitch) + (1 - on) * _log(1 - found.pitch)).mean(axis=-1), mask)
    total = sum(parts.values(), jnp.float32(0))
    return total, {f"{name}_loss": value for name, value in parts.items()}


def evaluate(model: ChordCrema, batch: dict[str, Any], key: jax.Array) -> Metrics:
    """The share of frames whose chord, and whose root, is right, and the loss."""
    found, mask = model(batch["x"], batch["mask"]), batch["mask"]
    right = {name: getattr(found, name).argmax(axis=-1) == batch[name] for name in ("chord", "root")}
    return {"loss": loss(model, batch, key, jnp.int32(0))[0]} | {
        f"{name}_accuracy": _mean(value.astype(jnp.float32), mask) for name, value in right.items()
    }


def _log(x: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(x, 1e-7))


def _surprise(probability: jax.Array, truth: jax.Array) -> jax.Array:
    return -_log(jnp.take_along_axis(probability, truth[..., None], axis=-1)[..., 0])


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(mask.sum(), 1)


def recognise(model: ChordCrema, inputs: dict[str, Any], key: jax.Array) -> Chords:
    """Features "x" with "mask" → probabilities; what lies past a recording's end means nothing."""
    return model(inputs["x"], inputs["mask"])


def example(config: Config, size: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch; the first recording is whole, the others are shorter by a frame each."""
    frames = (size, config.steps)
    return {
        "x": rng.uniform(-3, 3, (*frames, config.bins, config.harmonics)).astype(np.float32),
        "mask": np.arange(config.steps) < np.maximum(1, config.steps - np.arange(size))[:, None],
        "chord": rng.integers(0, len(config.labels), frames).astype(np.int32),
        "root": rng.integers(0, ROOTS, frames).astype(np.int32),
        "bass": rng.integers(0, ROOTS, frames).astype(np.int32),
        "pitch": rng.integers(0, 2, (*frames, PITCHES)).astype(np.int32),
    }


ARCHITECTURE = Architecture(
    name="chord-crema",
    config=Config,
    module=ChordCrema,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={"recognise": recognise},
    task="chords",
    tiny={"tiny": Config.tiny()},
)
