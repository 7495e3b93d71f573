"""Piano Genie: eight buttons that play eighty-eight keys.

Donahue, Simon, Dieleman, IUI 2019, arXiv:1810.05246. An encoder reads a performance in both directions and gives each
note one of eight buttons; a decoder turns presses back into notes, each drawn given those before. The buttons lie on a
line, and a loss sees to it that a higher button means a higher note (contour), so that anyone can improvise on them.

Shapes: `B` batch, `T` notes, `H` units. Music is int32 [B, T, 2]: the piano key of each note, 0 to 87, and the time
since the note before in bins of 1 / 31.25 s, 0 to 32 (and more; the first note has 32).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.recurrent import LSTM, Dense
from zoo.nn.sampling import Sampling, draw


@dataclass(frozen=True)
class Config:
    """Numbers of the model. The defaults are Magenta's `stp_iq_auto` with times, as published.

    Attributes:
      steps: T of a training window.
      keys: of the piano.
      bins: of the time since the note before; the last holds all that is longer.
      buttons: how many.
      encoder, decoder: units of each LSTM layer; an encoder's layers serve both directions.
      margin: by how much at least a step of the buttons times a step of the notes must be above 0 (contour loss).
      contour, bounds: weights of the losses that keep the contour and keep the encoder within the buttons.
    """

    steps: int = 128
    keys: int = 88
    bins: int = 33
    buttons: int = 8
    encoder: tuple[int, ...] = (128, 128)
    decoder: tuple[int, ...] = (128, 128)
    margin: float = 1.0
    contour: float = 1.0
    bounds: float = 1.0

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(steps=8, keys=12, bins=5, encoder=(8, 8), decoder=(8, 8))


class PianoGenie(nnx.Module):
    """Encoder, quantiser and decoder."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config

        def stack(units: tuple[int, ...]) -> nnx.List:
            sizes = pairwise((units[0], *units))
            return nnx.List([LSTM(x, h, memory=config.steps, rngs=rngs) for x, h in sizes])

        self.encoder_input = Dense(config.keys + config.bins, config.encoder[0], rngs=rngs)
        self.encoder = stack(config.encoder)
        self.to_button = Dense(2 * config.encoder[-1], 1, rngs=rngs)
        self.decoder_input = Dense(1 + 1 + config.keys + config.bins, config.decoder[0], rngs=rngs)
        self.decoder = stack(config.decoder)
        self.output = Dense(config.decoder[-1], config.keys, rngs=rngs)

    def encode(self, music: jax.Array) -> jax.Array:
        """Where on the line from -1 (the first button) to 1 (the last) each note lies: float32 [B, T], unquantised."""
        key, time = music[..., 0], self.binned(music[..., 1])
        features = jnp.concatenate([jax.nn.one_hot(key, self.config.keys), time], axis=-1)
        x = self.encoder_input(features).swapaxes(0, 1)  # [T, B, H]
        ends = [through(self.encoder, x, reverse) for reverse in (False, True)]
        return self.to_button(jnp.concatenate(ends, axis=-1))[..., 0].T

    def given(self, line: jax.Array, time: jax.Array) -> jax.Array:
        """What the decoder is given beside its own notes: `line` [B, T], -1 to 1, and times [B, T] → [B, T, H]."""
        kernel = self.decoder_input.kernel[...]
        times = self.binned(time) @ kernel[-self.config.bins :]
        return line[..., None] * kernel[0] + times + self.decoder_input.bias[...]

    def logits(self, line: jax.Array, music: jax.Array) -> jax.Array:
        """Of each note given the notes before it and all presses up to it: float32 [B, T, keys]."""
        previous = jnp.pad(music[:, :-1, 0] + 1, ((0, 0), (1, 0)))  # 0: there was none
        x = self.given(line, music[..., 1]) + self.decoder_input.kernel[1 : -self.config.bins][previous]
        return self.output(through(self.decoder, x.swapaxes(0, 1)).swapaxes(0, 1))

    def binned(self, time: jax.Array) -> jax.Array:
        """Times in bins, int [...] → one-hot [..., bins]."""
        return jax.nn.one_hot(jnp.minimum(time, self.config.bins - 1), self.config.bins)


def through(layers: Any, x: jax.Array, reverse: bool = False) -> jax.Array:
    """All of a stack's layers, one after another, in one direction: [T, B, X] → [T, B, H]."""
    for layer in layers:
        x, _ = layer(x, layer.constant_gates(), layer.zeros(x.shape[1]), reverse=reverse)
    return x


def quantize(config: Config, line: jax.Array) -> jax.Array:
    """The nearest button: float32 [...] → int32 [...]."""
    return jnp.round((config.buttons - 1) * jnp.clip((line + 1) / 2, 0, 1)).astype(jnp.int32)


def on_line(config: Config, buttons: jax.Array) -> jax.Array:
    """Where buttons lie: int [...] → float32 [...] from -1 to 1."""
    return 2.0 * buttons / (config.buttons - 1) - 1.0


# --- training ---------------------------------------------------------------------------------------------------------


def loss(
    model: PianoGenie, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Nats a note, and the paper's two penalties (section 3.2): squared hinges on contour and on range.

    The gradient passes the quantiser straight through.
    """
    config, music = model.config, batch["x"]
    line = model.encode(music)
    buttons = quantize(config, line)
    logits = model.logits(line + jax.lax.stop_gradient(on_line(config, buttons) - line), music)
    nll = -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), music[..., :1], axis=-1))
    rising = jnp.diff(music[..., 0], axis=1) * jnp.diff(line, axis=1)
    contour = jnp.mean(jnp.maximum(config.margin - rising, 0.0) ** 2)
    bounds = jnp.mean(jnp.maximum(jnp.abs(line) - 1.0, 0.0) ** 2)
    return nll + config.contour * contour + config.bounds * bounds, {
        "nll": nll,
        "contour": contour,
        "bounds": bounds,
        "accuracy": jnp.mean((jnp.argmax(logits, axis=-1) == music[..., 0]).astype(jnp.float32)),
    }


def evaluate(model: PianoGenie, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """`nll` in nats a note given its own buttons, `accuracy`, `loss`, and the penalties.

    `violations` is the share of steps whose note and button go opposite ways, or whose button moves where the note
    doesn't or the other way round (the paper's contour violation).
    """
    total, metrics = loss(model, batch, key, jnp.zeros((), jnp.int32))
    steps = jnp.sign(jnp.diff(batch["x"][..., 0], axis=1))
    moves = jnp.sign(jnp.diff(quantize(model.config, model.encode(batch["x"])), axis=1))
    return {"loss": total, **metrics, "violations": jnp.mean((steps != moves).astype(jnp.float32))}


# --- inference --------------------------------------------------------------------------------------------------------


def press(
    model: PianoGenie,
    buttons: jax.Array,
    time: jax.Array,
    key: jax.Array,
    temperature: jax.Array | float,
    allowed: jax.Array | None = None,
) -> jax.Array:
    """The keys that presses play, drawn one after another in one compiled loop: int32 [B, T].

    `buttons` and `time` (in bins, since the press before) int32 [B, T]; `allowed` bool [keys] says which keys may
    sound. At temperature 0 the likeliest key is taken.
    """
    config = model.config
    given = model.given(on_line(config, buttons), time).swapaxes(0, 1)  # [T, B, H]
    rows = model.decoder_input.kernel[1 : -config.bins]
    cells, output = [layer.stepper() for layer in model.decoder], model.output.stepper()
    mask = 0.0 if allowed is None else jnp.where(allowed, 0.0, -jnp.inf)

    def step(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        (state, previous), (x, key) = carry, at
        x = (x + rows[previous]).T  # [H, B]
        new = []
        for cell, before in zip(cells, state, strict=True):
            new.append(cell(x, before))
            x = new[-1][1]
        note = draw(output(x).T + mask, key, Sampling(temperature))
        return (tuple(new), note + 1), note

    start = tuple(layer.columns(buttons.shape[0]) for layer in model.decoder), jnp.zeros(buttons.shape[0], jnp.int32)
    keys = jax.vmap(lambda t: jax.random.fold_in(key, t))(jnp.arange(buttons.shape[1]))
    return jax.lax.scan(step, start, (given, keys))[1].T


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch: a walk on the keys, times, and presses."""
    shape = (batch, config.steps)
    keys = np.clip(config.keys // 2 + np.cumsum(rng.integers(-1, 2, shape), axis=1), 0, config.keys - 1)
    times = rng.integers(0, config.bins, shape)
    return {
        "x": np.stack([keys, times], axis=-1).astype(np.int32),
        "buttons": rng.integers(0, config.buttons, shape, dtype=np.int32),
        "temperature": np.float32(1.0),
    }


ARCHITECTURE = Architecture(
    name="piano-genie",
    config=Config,
    module=PianoGenie,
    loss=loss,
    evaluate=evaluate,
    monitor=("nll", "min"),
    example=example,
    kernels={
        "encode": lambda model, batch, key: model.encode(batch["x"]),
        "forward": lambda model, batch, key: model.logits(on_line(model.config, batch["buttons"]), batch["x"]),
        "press": lambda model, batch, key: press(
            model, batch["buttons"], batch["x"][..., 1], key, batch["temperature"]
        ),
    },
    task="genie",
    tiny={"flat": Config.tiny(), "one layer": replace(Config.tiny(), encoder=(8,), decoder=(8,), contour=0.1)},
)
