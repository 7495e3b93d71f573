"""MusicVAE: a hierarchical latent vector model for long-term structure in music.

Roberts, Engel, Raffel, Hawthorne, Eck, ICML 2018, arXiv:1803.05428. With the groove head of GrooVAE: Gillick, Roberts,
Engel, Eck, Bamman, ICML 2019, arXiv:1905.06118.

A bidirectional LSTM reads a window of music and gives the posterior q(z|x) = N(μ, σ²); an LSTM decoder, started from
z and fed z at every step, writes the window again. For long windows a conductor LSTM first turns z into one embedding
a segment, and the decoder, restarted in each segment, sees only that embedding.

What is not in the papers is off by default: an encoder that reads segment by segment and a code of each on its way to z
and from there to the conductor (`encoder_segments`, `code`), and a prior fitted to the training music (`prior`).

Shapes: `B` batch, `T` steps, `V` classes, `D` input width, `H` units, `Z` latent size, `K` decoders (tracks),
`S` segments. Tokens are int32 [B, T] for one track, [B, T, K] for several; grooves are float32 [B, T, 27]: 9 hits
(0 or 1), 9 velocities (0 to 1), 9 timing offsets (−1 to 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn.chunks import in_chunks
from zoo.nn.dropout import Dropout
from zoo.nn.gaussian import Posterior, Prior
from zoo.nn.noise import gumbel
from zoo.nn.recurrent import (
    Bidirectional,
    Carries,
    Dense,
    DenseStep,
    Layers,
    LSTMStep,
    Stack,
    draw_at_once,
    draws_at_once,
)
from zoo.nn.sampling import likeliest


@dataclass(frozen=True)
class Config:
    """Numbers of one kind of MusicVAE. The defaults are Magenta's `cat-mel_2bar_small`.

    Attributes:
      steps: T, the window's length in sixteenth notes.
      head: "categorical" (one softmax a track) or "groove" (hits, velocities, offsets).
      classes: V of each track; a groove has one "track" of 27 numbers.
      encoder_view: what the encoder sees: "same" as the target, "roll" (a drum token's bits and a flag for silence),
        or "hits" (a groove without its velocities and offsets: the model learns to humanise).
      latent: Z.
      encoder, decoder: units of each LSTM layer (the encoder's for each direction).
      segments: S, embeddings that the conductor writes; 1 means a flat decoder and no conductor.
      encoder_segments: segments that the encoder reads one by one before it reads them together; 1 means a flat one.
      code: numbers a segment by which encoder and conductor reach z. 0, as published: z is made of the encoder's last
        state and makes the conductor's first, and both have to keep the whole window in mind.
      free_bits: KL below this costs nothing (Kingma et al. 2016), in bits as in the paper.
      max_beta, beta_rate: β at step k is (1 − beta_rate^k) · max_beta.
      sampling: schedule of scheduled sampling (Bengio et al. 2015): "none", or "inverse_sigmoid" with `sampling_rate`.
      keep: share of each layer's inputs that dropout keeps in training (of z, the same units at every step).
      spread: factor of σ. Where the decoder stays as it is a small one lets the encoder find the means first: noise of
        the usual size would drive its z to where they are large, which no decoder has been taught.
      prior: where samples begin: "normal", N(0, I) as published, or "fitted" to the training music, see `Prior`.
    """

    steps: int = 32
    head: str = "categorical"
    classes: tuple[int, ...] = (90,)
    encoder_view: str = "same"
    latent: int = 256
    encoder: tuple[int, ...] = (512,)
    decoder: tuple[int, ...] = (256, 256)
    segments: int = 1
    encoder_segments: int = 1
    code: int = 0
    free_bits: float = 0.0
    max_beta: float = 0.2
    beta_rate: float = 0.99999
    sampling: str = "inverse_sigmoid"
    sampling_rate: float = 1000.0
    keep: float = 1.0
    spread: float = 1.0
    prior: str = "normal"

    def __post_init__(self) -> None:
        for segments in (self.segments, self.encoder_segments):
            if self.steps % segments:
                raise ValueError(f"steps={self.steps} can't be cut into {segments} equal segments")
        if self.prior not in ("normal", "fitted"):
            raise ValueError(f"prior {self.prior!r} is neither normal nor fitted")
        if self.code and 1 in (self.segments, self.encoder_segments):
            raise ValueError(f"code={self.code} is of segments: set segments and encoder_segments too")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(steps=8, classes=(12,), latent=6, encoder=(8,), decoder=(8, 8), max_beta=0.01)

    @property
    def width(self) -> int:
        """D: numbers that describe one step of the target."""
        return sum(self.classes)

    @property
    def encoder_width(self) -> int:
        return {"same": self.width, "roll": 10, "hits": self.width}[self.encoder_view]


# Magenta's published configurations (music_vae/configs.py), by their own names.
PUBLISHED: dict[str, Config] = {
    "cat-mel_2bar_small": Config(),
    "cat-mel_2bar_big": Config(latent=512, encoder=(2048,), decoder=(2048, 2048, 2048), max_beta=0.5),
    "cat-drums_2bar_small": Config(classes=(512,), encoder_view="roll", free_bits=48, beta_rate=0.0),
    "cat-drums_2bar_big": Config(
        classes=(512,), encoder_view="roll", latent=512, encoder=(2048,), decoder=(2048,) * 3, free_bits=48,
        beta_rate=0.0,
    ),
    "flat-mel_16bar": Config(
        steps=256, latent=512, encoder=(2048, 2048), decoder=(2048,) * 3, free_bits=256, beta_rate=0.0, sampling="none"
    ),
    "hierdec-mel_16bar": Config(
        steps=256, latent=512, encoder=(2048, 2048), decoder=(1024, 1024), segments=16, free_bits=256, beta_rate=0.0,
        sampling="none",
    ),
    "hierdec-trio_16bar": Config(
        steps=256, classes=(90, 90, 512), latent=512, encoder=(2048, 2048), decoder=(1024, 1024), segments=16,
        free_bits=256, beta_rate=0.0, sampling="none",
    ),
    "groovae_2bar_humanize": Config(
        head="groove", classes=(27,), encoder_view="hits", free_bits=48, beta_rate=0.0, sampling="none", keep=0.3
    ),
    "groovae_4bar": Config(
        steps=64, head="groove", classes=(27,), free_bits=48, beta_rate=0.0, sampling="none", keep=0.3
    ),
}  # fmt: skip


class Encoder(Bidirectional):
    """A bidirectional LSTM over the window; the last state of both directions gives μ and σ (section 3.1).

    With `config.encoder_segments` a first one reads each segment by itself, and this one what is left of each: every
    bar of a piece teaches how to read a bar (Magenta's `HierarchicalLstmEncoder`). With `config.code` μ and σ see a
    few numbers of every segment, instead of what the LSTM remembers of them at its end.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        width, steps, self.segments = config.encoder_width, config.steps, config.encoder_segments
        self.spread = config.spread
        last = seen = 2 * config.encoder[-1]
        if self.segments > 1:
            self.segment = Bidirectional(width, config.encoder, memory=steps // self.segments, rngs=rngs)
            width, steps = last, self.segments
        super().__init__(width, config.encoder, memory=steps, rngs=rngs)
        if config.code:
            self.code = Dense(2 * last, config.code, rngs=rngs)
            seen = self.segments * config.code
        self.mu = Dense(seen, config.latent, rngs=rngs)
        self.sigma = Dense(seen, config.latent, rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout) -> Posterior:
        """`x`: float32 [B, T, D]."""
        if self.segments == 1:
            _, seen = self.read(x.swapaxes(0, 1), drop)  # [B, 2H]
        else:
            _, segments = self.segment.read(into_segments(x, self.segments), drop)  # [S·B, 2H]
            segments = segments.reshape(self.segments, len(x), -1)
            context, seen = self.read(segments, drop)  # [S, B, 2H], [B, 2H]
            if hasattr(self, "code"):
                codes = self.code(jnp.concatenate([segments, context], axis=-1))  # [S, B, C]
                seen = codes.swapaxes(0, 1).reshape(len(x), -1)
        return Posterior(self.mu(seen), self.spread * jax.nn.softplus(self.sigma(seen)))


class Decoder(Stack):
    """p(x|z): an autoregressive LSTM whose input at every step is [previous output, z] (section 3.2)."""

    def __init__(self, width: int, embedding: int, units: tuple[int, ...], *, memory: int, rngs: nnx.Rngs) -> None:
        super().__init__(width, embedding, units, memory=memory, constant=embedding, rngs=rngs)
        self.output = Dense(units[-1], width, rngs=rngs)
        self.width = width

    def stepper(self) -> DecoderStep:
        """The same, one step at a time; to be made outside the loop that it is for."""
        steps = tuple(cell.stepper() for cell in self.cells)
        return DecoderStep(steps, self.output.stepper(), self.cells[0].constant_kernel())


class DecoderStep(NamedTuple):
    """A decoder's parameters as `rollout` goes through them step by step, in columns: the batch comes last."""

    cells: tuple[LSTMStep, ...]
    output: DenseStep
    constant: jax.Array  # of the first layer's kernel what acts on z

    def __call__(self, x: jax.Array, carries: Carries, gates: jax.Array) -> tuple[jax.Array, Carries]:
        """Tokens [B] or floats [V, B], the state, what z adds to the first layer's gates → (logits [V, B], state)."""
        new = [self.cells[0](x, carries[0], gates)]
        for cell, carry in zip(self.cells[1:], carries[1:], strict=True):
            new.append(cell(new[-1][1], carry))
        return self.output(new[-1][1]), tuple(new)


class MusicVAE(nnx.Module):
    """The whole model. With `config.segments` above 1 a conductor stands before the decoders."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.encoder = Encoder(config, rngs=rngs)
        embedding = config.latent
        if config.segments > 1:
            # As published the conductor has no input: Magenta feeds a zero, so its kernel has a row that is never used.
            memory, width = config.segments, config.code or 1
            self.conductor = Stack(width, config.latent, config.decoder, memory=memory, rngs=rngs)
            if config.code:
                self.code = Dense(config.latent, config.segments * config.code, rngs=rngs)
            embedding = config.decoder[-1]
        if config.prior == "fitted":
            self.prior = Prior(config.latent)
        length = config.steps // config.segments
        self.decoders = nnx.List(
            [Decoder(v, embedding, config.decoder, memory=length, rngs=rngs) for v in config.classes]
        )

    def posterior(self, x: jax.Array, drop: Dropout | None = None) -> Posterior:
        """q(z|x) of windows `x`."""
        return self.encoder(encoder_view(self.config, x), drop or Dropout())

    def draw(self, noise: jax.Array) -> jax.Array:
        """Where samples begin: `noise` ~ N(0, I), float32 [B, Z] → z of the prior, [B, Z]."""
        return self.prior(noise) if self.config.prior == "fitted" else noise

    def embeddings(self, z: jax.Array, drop: Dropout | None = None) -> jax.Array:
        """What each segment's decoder is conditioned on: z [B, Z] → [S, B, E]; S = 1 and E = Z for a flat model."""
        if self.config.segments == 1:
            return z[None]
        x = jnp.zeros((self.config.segments, len(z), 1))
        if self.config.code:
            x = self.code(z).reshape(len(z), self.config.segments, -1).swapaxes(0, 1)  # [S, B, C]
        return self.conductor(x, self.conductor.gates(), self.conductor.start(z), drop or Dropout())

    def logits(
        self, z: jax.Array, previous: jax.Array, drop: Dropout | None = None, kept: list[Layers] | None = None
    ) -> list[jax.Array]:
        """Teacher forcing: `previous` holds each step's previous output (see `shift`). [B, T, V] for each track.

        All segments are decoded at once, as one batch of S·B: none needs the state of the one before. `kept` is what
        each decoder's layers recorded on `previous`, as `own_outputs` has it.
        """
        drop = drop or Dropout()
        embedding = self.embeddings(z, drop)  # [S, B, E]
        segments = embedding.shape[0]
        embedding = embedding.reshape(-1, embedding.shape[-1])  # [S·B, E]
        outputs = []
        each: list[Layers] | list[None] = kept or [None] * len(self.decoders)
        for decoder, x, layers in zip(self.decoders, tracks(self.config, previous), each, strict=True):
            x = into_segments(dense(x, decoder.width), segments)  # [T/S, S·B, V]
            gates, start = decoder.gates(drop(embedding)), decoder.start(embedding)
            hidden = decoder(x, gates, start, drop, layers)  # [T/S, S·B, H]
            outputs.append(from_segments(decoder.output(hidden), segments))
        return outputs


# --- the window, as the networks see it -------------------------------------------------------------------------------


def dense(x: jax.Array, width: int) -> jax.Array:
    """Tokens int [...] → one-hot float32 [..., width]; a token out of range is all zeros. Floats pass."""
    return jax.nn.one_hot(x, width) if jnp.issubdtype(x.dtype, jnp.integer) else x


def tracks(config: Config, x: jax.Array) -> list[jax.Array]:
    """The window of each decoder: [B, T] tokens, or [B, T, 27] for a groove."""
    several = config.head == "categorical" and len(config.classes) > 1
    return [x[..., k] for k in range(len(config.classes))] if several else [x]


def stack(config: Config, parts: list[jax.Array]) -> jax.Array:
    """The inverse of `tracks`."""
    return jnp.stack(parts, axis=-1) if len(parts) > 1 else parts[0]


def encoder_view(config: Config, x: jax.Array) -> jax.Array:
    """What the encoder reads, float32 [B, T, D]; see `Config.encoder_view`."""
    if config.encoder_view == "roll":  # [B, T] → 9 bits, and 1 where nothing is struck
        bits = (x[..., None] >> jnp.arange(9)) & 1
        return jnp.concatenate([bits, (x == 0)[..., None]], axis=-1).astype(jnp.float32)
    if config.encoder_view == "hits":
        return x * (jnp.arange(x.shape[-1]) < x.shape[-1] // 3)
    return jnp.concatenate([dense(t, v) for t, v in zip(tracks(config, x), config.classes, strict=True)], axis=-1)


def nothing(config: Config, batch: int) -> jax.Array:
    """The output before the first, [B], [B, K] or [B, 27]: all zeros, which for a token is the class V that isn't."""
    if config.head == "groove":
        return jnp.zeros((batch, config.width))
    empty = jnp.broadcast_to(jnp.array(config.classes, jnp.int32), (batch, len(config.classes)))
    return empty if len(config.classes) > 1 else empty[:, 0]


def shift(config: Config, x: jax.Array) -> jax.Array:
    """Each step's previous output: `x` delayed by one, starting from nothing."""
    return jnp.concatenate([nothing(config, x.shape[0])[:, None], x[:, :-1]], axis=1)


def into_segments(x: jax.Array, segments: int) -> jax.Array:
    """[B, T, ...] → time-major segments side by side, [T/S, S·B, ...]."""
    batch, steps, *rest = x.shape
    x = jnp.moveaxis(x.reshape(batch, segments, steps // segments, *rest), (2, 1), (0, 1))
    return x.reshape(steps // segments, segments * batch, *rest)


def from_segments(x: jax.Array, segments: int) -> jax.Array:
    """The inverse of `into_segments`: [T/S, S·B, ...] → [B, T, ...]."""
    length, flat, *rest = x.shape
    x = jnp.moveaxis(x.reshape(length, segments, flat // segments, *rest), (0, 1), (2, 1))
    return x.reshape(flat // segments, segments * length, *rest)


# --- training ---------------------------------------------------------------------------------------------------------


def negative_log_likelihood(config: Config, x: jax.Array, logits: list[jax.Array]) -> jax.Array:
    """−log p(x|z) of each window, in nats, summed over steps and tracks: [B].

    For a groove: cross-entropy of the hits, squared error of velocities and offsets (GrooVAE, section 4.1).
    """
    if config.head == "groove":
        hits, velocities, offsets = jnp.split(logits[0], 3, axis=-1)
        target_hits, target_velocities, target_offsets = jnp.split(x, 3, axis=-1)
        error = jax.nn.softplus(hits) - hits * target_hits
        error += (jax.nn.sigmoid(velocities) - target_velocities) ** 2
        error += (jnp.tanh(offsets) - target_offsets) ** 2
        return jnp.sum(error, axis=(1, 2))
    losses = [
        jax.nn.logsumexp(scores, axis=-1) - jnp.take_along_axis(scores, t[..., None], axis=-1)[..., 0]
        for scores, t in zip(logits, tracks(config, x), strict=True)
    ]
    return jnp.sum(sum(losses), axis=1)


def accuracy(config: Config, x: jax.Array, predicted: jax.Array) -> jax.Array:
    """Share of steps (of hits, for a groove) predicted right."""
    if config.head == "groove":
        x, predicted = x[..., :9], predicted[..., :9]
    return jnp.mean((x == predicted).astype(jnp.float32))


def predict(config: Config, logits: jax.Array, noise: jax.Array | float = 0.0, axis: int = -1) -> jax.Array:
    """One track's output from its logits [..., V], or with V as another `axis`: the likeliest, or a draw.

    For a draw at temperature τ, `noise` is τ times Gumbel noise (softmax) or logistic noise (a groove's hits, V / 3).
    """
    if config.head == "groove":
        hits, velocities, offsets = jnp.split(logits, 3, axis=axis)
        hits = (hits + noise > 0).astype(jnp.float32)
        return jnp.concatenate([hits, jax.nn.sigmoid(velocities), jnp.tanh(offsets)], axis=axis)
    return likeliest(logits + noise, axis)


def sampling_probability(config: Config, step: jax.Array) -> jax.Array:
    """How often scheduled sampling feeds the model its own output: 1 − k / (k + exp(step / k))."""
    if config.sampling == "none":
        return jnp.zeros(())
    k = config.sampling_rate
    return 1.0 - k / (k + jnp.exp(step / k))


def loss(
    model: MusicVAE, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The negative ELBO with β and free bits (eq. 4 and section 4.1), averaged over the batch, in nats a window."""
    config, x = model.config, batch["x"]
    latent_key, dropout_key, sampling_key = jax.random.split(key, 3)
    drop = Dropout(config.keep, dropout_key)
    posterior = model.posterior(x, drop)
    z = posterior.sample(latent_key)
    previous = shift(config, x)
    kept = None
    if config.sampling != "none":
        previous, kept = own_outputs(model, z, previous, sampling_probability(config, step), sampling_key)
    logits = model.logits(z, previous, drop, kept if config.keep == 1.0 else None)  # dropped inputs have other states
    nll = negative_log_likelihood(config, x, logits)
    kl = posterior.kl()
    beta = config.max_beta * (1.0 - jnp.power(config.beta_rate, step.astype(jnp.float32)))
    total = jnp.mean(nll + beta * jnp.maximum(kl - config.free_bits * math.log(2), 0.0))
    return total, {
        "nll": jnp.mean(nll),
        "kl": jnp.mean(kl),
        "beta": beta,
        "accuracy": accuracy(config, x, stack(config, [predict(config, track) for track in logits])),
    }


def own_outputs(
    model: MusicVAE, z: jax.Array, previous: jax.Array, probability: jax.Array, key: jax.Array
) -> tuple[jax.Array, list[Layers]]:
    """Scheduled sampling: `previous` with a share of it replaced by the model's own draws.

    The draws carry no gradient, so they are made first, and what follows is teacher forcing as ever, but that its way
    forward is already gone: what the layers kept of it comes along. Each segment starts from the truth.
    """
    graph, state = nnx.split(model)
    model, config = nnx.merge(graph, jax.lax.stop_gradient(state)), model.config
    embedding = model.embeddings(jax.lax.stop_gradient(z))
    truth = into_segments(previous, len(embedding))  # [T/S, S·B, ...]
    embedding = embedding.reshape(-1, embedding.shape[-1])
    given = jax.random.uniform(jax.random.fold_in(key, 1), truth.shape[:2]) >= probability
    seed, outputs, kept = jax.random.fold_in(key, 0), [], []
    for k, (decoder, x) in enumerate(zip(model.decoders, tracks(config, truth), strict=True)):
        x, output = columns(x), decoder.output.stepper()
        noise = noise_of(config, decoder, given.shape, jax.random.fold_in(seed, k))

        def follow(h, at, output=output):  # type: ignore[no-untyped-def]
            following, given, noise = at
            return jnp.where(given, following, predict(config, output(h), noise, axis=0))

        begin = decoder.gates(embedding), decoder.start(embedding), x[0]
        inputs, layers = decoder.record(*begin, follow, (jnp.roll(x, -1, axis=0), given, noise))
        outputs.append(columns(jnp.concatenate([x[:1], inputs[:-1]])))
        kept.append(layers)
    return from_segments(stack(config, outputs), config.segments), kept


# --- inference --------------------------------------------------------------------------------------------------------

Prepared = tuple[DecoderStep, ...]
PART = 128  # rows that a CPU decodes at a time


def prepare(model: MusicVAE) -> Prepared:
    """What `decode` works out from the parameters alone: they are turned and, in bfloat16, rounded."""
    return tuple(decoder.stepper() for decoder in model.decoders)


def rollout(
    model: MusicVAE,
    prepared: Prepared,
    embedding: jax.Array,
    first: jax.Array,
    steps: int,
    key: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    """Autoregressive decoding of one segment: `embedding` [N, E], `first` the output before it → [T, N, ...]."""
    config = model.config

    def part(rows: Any) -> jax.Array:
        number, embedding, first = rows
        seed, outputs = jax.random.fold_in(key, number[0]), []
        for k, (decoder, step) in enumerate(zip(model.decoders, prepared, strict=True)):
            start = jax.tree.map(jnp.transpose, decoder.start(embedding)), columns(tracks(config, first)[k])
            gates = decoder.cells[0].constant_gates(embedding, step.constant).T  # [4H, N]
            noise = temperature * noise_of(config, decoder, (steps, len(embedding)), jax.random.fold_in(seed, k))
            if config.head == "categorical" and draws_at_once(step.cells, step.output, len(embedding)):
                outputs.append(draw_at_once(step.cells, step.output, *start, gates, noise))
                continue

            def body(carry, noise, step=step, gates=gates):  # type: ignore[no-untyped-def]
                state, previous = carry
                logits, state = step(previous, state, gates)
                output = predict(config, logits, noise, axis=0)
                return (state, output), output

            outputs.append(columns(jax.lax.scan(body, start, noise)[1]))
        return stack(config, outputs).swapaxes(0, 1)

    rows = jnp.arange(len(embedding)), embedding, first
    return in_chunks(part, rows, len(embedding), PART).swapaxes(0, 1)


def noise_of(config: Config, decoder: Decoder, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """What makes draws of `predict` from a decoder's logits: [T, V, N], or of a groove's hits alone, [T, V / 3, N]."""
    (steps, columns), groove = shape, config.head == "groove"
    noise_like, width = (jax.random.logistic, decoder.width // 3) if groove else (gumbel, decoder.width)
    return noise_like(key, (steps, width, columns))


def columns(x: jax.Array) -> jax.Array:
    """Floats [..., N, V] → [..., V, N], and back; tokens [..., N] as they are."""
    return x if jnp.issubdtype(x.dtype, jnp.integer) else x.swapaxes(-1, -2)


def decode(
    model: MusicVAE, z: jax.Array, key: jax.Array, temperature: jax.Array, prepared: Prepared | None = None
) -> jax.Array:
    """Windows drawn from p(x|z): `z` float32 [B, Z] → tokens int32 [B, T] or [B, T, K], or grooves [B, T, 27].

    `temperature` divides the logits; 0 takes the likeliest. A segment's first input is the last output of that before.
    """
    config, length = model.config, model.config.steps // model.config.segments
    prepared = prepare(model) if prepared is None else prepared

    def segment(last: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        embedding, key = at
        out = rollout(model, prepared, embedding, last, length, key, temperature)  # [T/S, B, ...]
        return out[-1], out

    keys = jax.random.split(key, config.segments)
    _, out = jax.lax.scan(segment, nothing(config, z.shape[0]), (model.embeddings(z), keys))  # [S, T/S, B, ...]
    return jnp.moveaxis(out.reshape(config.steps, *out.shape[2:]), 0, 1)


def encode(model: MusicVAE, x: jax.Array) -> Posterior:
    """q(z|x): windows → mean and scale, float32 [B, Z] each."""
    return model.posterior(x)


def evaluate(model: MusicVAE, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """Reconstruction of held-out windows, as in table 1 of the paper.

    `teacher_forced`: share of steps whose likeliest output is right when the steps before are given, z drawn from
    q(z|x). `sampled`: share that is right when the model draws every step itself at temperature 1 from that z;
    `greedy`: the same with the likeliest step from the posterior mean. `nll` and `kl` in nats a window; `loss` is the
    negative ELBO with the final β, free bits apart.
    """
    config, x = model.config, batch["x"]
    z_key, key = jax.random.split(key)
    posterior = encode(model, x)
    z = posterior.sample(z_key)
    logits = model.logits(z, shift(config, x))
    nll, kl = jnp.mean(negative_log_likelihood(config, x, logits)), jnp.mean(posterior.kl())
    return {
        "loss": nll + config.max_beta * kl,
        "nll": nll,
        "kl": kl,
        "teacher_forced": accuracy(config, x, stack(config, [predict(config, track) for track in logits])),
        "sampled": accuracy(config, x, decode(model, z, key, jnp.ones(()))),
        "greedy": accuracy(config, x, decode(model, posterior.mean, key, jnp.zeros(()))),
    }


def settle(model: MusicVAE) -> MusicVAE:
    """The same model with β at its end and teacher forcing throughout: the schedules are for random weights."""
    model.config = replace(model.config, beta_rate=0.0, sampling="none")
    return model


def conclude(model: MusicVAE, windows: np.ndarray) -> MusicVAE:
    """The trained model with its prior fitted to `windows`."""
    if model.config.prior == "fitted":
        graph, state = nnx.split(model)
        read = jax.jit(lambda state, x: encode(nnx.merge(graph, state), x))
        parts = [read(state, jnp.asarray(windows[at : at + PART])) for at in range(0, len(windows), PART)]
        model = nnx.clone(model)
        model.prior.fit(jax.tree.map(lambda *part: jnp.concatenate(part), *parts))
    return model


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch of windows, with latent vectors and a temperature for the decoder."""
    shape = (batch, config.steps)
    if config.head == "groove":
        hits = rng.random((*shape, 9)) < 0.2
        played = [rng.random((*shape, 9)), rng.uniform(-1, 1, (*shape, 9))]
        x = np.concatenate([hits, *(hits * p for p in played)], axis=-1).astype(np.float32)
    else:
        x = np.stack([rng.integers(0, v, shape, dtype=np.int32) for v in config.classes], axis=-1)
        x = x[..., 0] if len(config.classes) == 1 else x
    return {"x": x, "z": rng.standard_normal((batch, config.latent), dtype=np.float32), "temperature": np.float32(1.0)}


ARCHITECTURE = Architecture(
    name="music-vae",
    config=Config,
    module=MusicVAE,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    settle=settle,
    conclude=conclude,
    prepare=prepare,
    example=example,
    kernels={
        "encode": lambda model, batch, key: encode(model, batch["x"]),
        "decode": lambda model, batch, key: decode(model, batch["z"], key, batch["temperature"], batch.get("prepared")),
        "forward": lambda model, batch, key: model.logits(batch["z"], shift(model.config, batch["x"])),
    },
    task="latent",
    tiny={
        "flat": Config.tiny(),
        "teacher-forced": replace(Config.tiny(), sampling="none"),
        "hierarchical": replace(Config.tiny(), steps=16, segments=4, encoder_segments=2),
        "coded": replace(Config.tiny(), steps=16, segments=4, encoder_segments=4, code=3, spread=0.5),
        "trio": replace(Config.tiny(), steps=16, segments=4, classes=(12, 10, 32), sampling="none"),
        "drums": replace(Config.tiny(), classes=(512,), encoder_view="roll"),
        "groove": replace(Config.tiny(), head="groove", classes=(27,), encoder_view="hits", sampling="none", keep=0.9),
        "deep": replace(Config.tiny(), encoder=(8, 8), decoder=(8, 8, 8)),
    },
)
