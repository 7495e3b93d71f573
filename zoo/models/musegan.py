"""MuseGAN: phrases for several tracks by adversarial networks (Dong et al. 2018, arXiv:1709.06298).

A generator turns Gaussian noise into piano rolls, and a critic tells them from real ones. The noise has four kinds of
vector: for all tracks or for one, and the same in all bars or unfolded into a vector a bar by a temporal generator:

|                | all bars alike | each bar its own |
|----------------|----------------|------------------|
| all tracks     | z              | z_t              |
| one track each | z_i            | z_i,t            |

A bar generator makes each bar from its vectors. The *composer* has one bar generator for all tracks and no noise of a
track's own, *jamming* has a generator and a critic for each track and no shared noise, and the *hybrid* has a generator
for each track, both noises, and one critic that hears all.

Where a track is given, an encoder reads it and the bar generators play to it (section 3.3, "track-conditional"). Here
one model does both: every other phrase of a batch has one track, drawn at random, given from the data.

The last layer's units give probabilities, and notes where these exceed ½, or are binary neurons (Dong & Yang 2018,
arXiv:1804.09399), so that the critic compares binary rolls with binary rolls. Networks follow that paper in that one
stream of layers handles time before pitch and another pitch before time, and in a critic that also hears chroma and
onsets; kernels are as long as their strides. Batch norm, which would make a phrase depend on its batch, is replaced by
a norm over channels.

`B` phrases, `K` tracks, `T` steps in bars of `S`, `P` pitches from a C up, `D` numbers a latent vector, `Z` in all,
`J` critics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture
from zoo.nn import phrases
from zoo.nn.patches import Grow, Shrink
from zoo.nn.precision import dot, rounded
from zoo.nn.recurrent import Dense

BEATS = 4  # in a bar
SLOPE = 0.2  # of the critic's leaky rectifiers

Scores = jax.Array  # float32 [B, J], the critics' of each phrase


@dataclass(frozen=True)
class Config:
    """The numbers of a model.

    Attributes:
      bars, bar_steps, pitches, tracks: of a phrase; `pitches` is a multiple of 12.
      kind: "composer", "jamming" or "hybrid".
      latent: D.
      hidden: of the temporal generators, and twice that of what a bar grows from.
      growth: channels of a bar generator where places are few, and where they are many.
      reading: channels of what reads rolls where places are many, fewer, and one for each bar.
      given: numbers that the encoder makes of each bar of a given track; 0 for a model that accompanies none.
      neurons: the generator's outputs: "real" (in training the probabilities themselves; notes are where they exceed
        ½), or binary throughout: "deterministic" (1 where they do) or "stochastic" (drawn).
      density: the share of places that sound before anything is learnt. From ½ a network falls silent altogether.
      objective: "wgan-gp", "minimax" or "non-saturating".
      critic_steps: the critic's updates to one of the generator.
      penalty: λ of the gradient penalty.
    """

    bars: int = 4
    bar_steps: int = 16
    pitches: int = 60
    tracks: int = 3
    kind: str = "hybrid"
    latent: int = 32
    hidden: int = 128
    growth: tuple[int, int] = (48, 24)
    reading: tuple[int, int, int] = (24, 48, 96)
    given: int = 64
    neurons: str = "real"
    density: float = 0.03
    objective: str = "wgan-gp"
    critic_steps: int = 5
    penalty: float = 10.0

    def __post_init__(self) -> None:
        for name, choices in (
            ("kind", ("composer", "jamming", "hybrid")),
            ("neurons", ("real", "deterministic", "stochastic")),
            ("objective", tuple(OBJECTIVES)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose {', '.join(choices)}")
        if self.pitches % 12 or self.bar_steps % BEATS:
            raise ValueError("pitches must be a multiple of 12 and bar_steps one of 4")

    @property
    def steps(self) -> int:
        """T."""
        return self.bars * self.bar_steps

    @property
    def z(self) -> int:
        """Z: two vectors for all tracks, unless they jam, and two for each, unless one composes."""
        return 2 * self.latent * ((self.kind != "jamming") + self.tracks * (self.kind != "composer"))

    @classmethod
    def tiny(cls) -> Config:
        return cls(
            bars=2, bar_steps=8, pitches=24, tracks=2, latent=3, hidden=8, growth=(8, 4), reading=(4, 4, 8), given=4,
            density=0.5, critic_steps=2,
        )  # fmt: skip


# --- networks ---------------------------------------------------------------------------------------------------------


Layers = list[tuple[int, int, int]]  # (steps, pitches, channels) of each: the size of its patches, what it makes


class Growth(nnx.Module):
    """One place with I channels → a bar, through transposed convolutions."""

    def __init__(self, inputs: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        widths = [inputs, *(channels for *_, channels in layers)]
        self.layers = nnx.List([Grow(t, p, i, o, rngs=rngs) for (t, p, o), i in zip(layers, widths, strict=False)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, I] → logits [N, S, P, O]."""
        x = x[:, None, None]
        for layer in self.layers[:-1]:
            x = normalised(jax.nn.relu(layer(x)))
        return self.layers[-1](x)


class Reading(nnx.Module):
    """A bar → one place with O channels, through convolutions."""

    def __init__(self, inputs: int, layers: Layers, *, rngs: nnx.Rngs) -> None:
        widths = [inputs, *(channels for *_, channels in layers)]
        self.layers = nnx.List([Shrink(t, p, i, o, rngs=rngs) for (t, p, o), i in zip(layers, widths, strict=False)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, S, P, I] → [N, O]."""
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), SLOPE)
        return x[:, 0, 0]


class TemporalGenerator(nnx.Module):
    """G_temp: a vector → one a bar (section 3.2)."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.grow = Dense(config.latent, config.bars * config.hidden, rngs=rngs)
        self.out = Dense(config.hidden, config.latent, rngs=rngs)

    def __call__(self, z: jax.Array) -> jax.Array:
        """[B, D] → [B, bars, D]."""
        h = self.grow(z).reshape(z.shape[0], -1, self.out.kernel.shape[0])
        return self.out(normalised(jax.nn.relu(h)))


class BarGenerator(nnx.Module):
    """G_bar: the vectors of a bar → its notes, for `outputs` tracks."""

    def __init__(self, config: Config, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        coarse, fine = config.growth
        bar, beat, octaves = config.bar_steps, config.bar_steps // BEATS, config.pitches // 12
        width = 2 * config.hidden
        time_first = [(BEATS, 1, coarse), (1, octaves, coarse), (beat, 12, outputs)]
        pitch_first = [(1, octaves, coarse), (1, 12, fine), (bar, 1, outputs)]
        self.root = Dense(inputs, width, rngs=rngs)
        self.time_first = Growth(width, time_first, rngs=rngs)
        self.pitch_first = Growth(width, pitch_first, rngs=rngs)

    def __call__(self, h: jax.Array) -> jax.Array:
        """[N, I] → logits [N, S, P, O]: the streams' evidence, added."""
        h = normalised(jax.nn.relu(self.root(h)))
        return self.time_first(h) + self.pitch_first(h)


class BarReader(nnx.Module):
    """Bars for `inputs` tracks → features; a critic's also reads pitches first, chroma and onsets."""

    def __init__(self, config: Config, inputs: int, criticizes: bool, *, rngs: nnx.Rngs) -> None:
        fine, coarse, wide = config.reading
        bar, beat, octaves = config.bar_steps, config.bar_steps // BEATS, config.pitches // 12
        streams: list[Layers] = [[(beat, 12, coarse), (1, octaves, wide), (BEATS, 1, wide)]]
        if criticizes:  # the "pitches" of the last two are pitch classes, and one number of onsets
            streams += [
                [(bar, 1, fine), (1, 12, coarse), (1, octaves, wide)],
                [(beat, 12, coarse), (BEATS, 1, wide)],
                [(beat, 1, fine), (BEATS, 1, coarse)],
            ]
        self.streams = nnx.List([Reading(inputs, layers, rngs=rngs) for layers in streams])
        self.features = sum(layers[-1][-1] for layers in streams)

    def __call__(self, x: jax.Array, bar: int) -> jax.Array:
        """[B, T, K, P] → [B, bars, features]."""
        views = [x, x, phrases.chroma(x), phrases.onsets(x).sum(axis=3, keepdims=True)][: len(self.streams)]
        read = []
        for stream, view in zip(self.streams, views, strict=True):
            bars = jnp.moveaxis(view, 2, 3).reshape(-1, bar, view.shape[3], view.shape[2])  # [B · bars, S, P, K]
            read.append(stream(bars).reshape(x.shape[0], x.shape[1] // bar, -1))
        return jnp.concatenate(read, axis=-1)


class Generator(nnx.Module):
    """Noise, and perhaps given tracks → logits of all tracks."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        shares, owns = config.kind != "jamming", config.kind != "composer"
        makers = config.tracks if owns else 1
        inputs = 2 * config.latent * (shares + owns) + (config.given + config.tracks if config.given else 0)
        self.config = config
        self.shared = TemporalGenerator(config, rngs=rngs) if shares else None
        self.own = nnx.List([TemporalGenerator(config, rngs=rngs) for _ in range(config.tracks * owns)])
        each = config.tracks // makers
        self.bars = nnx.List([BarGenerator(config, inputs, each, rngs=rngs) for _ in range(makers)])
        if config.given:
            self.encoder = BarReader(config, config.tracks, False, rngs=rngs)
            self.encoded = Dense(self.encoder.features, config.given, rngs=rngs)

    def __call__(self, z: jax.Array, x: jax.Array | None = None, given: jax.Array | None = None) -> jax.Array:
        """`z` [B, Z]; `x` [B, T, K, P], of which tracks `given` [B, K] are read → logits [B, T, K, P]."""
        config, rows = self.config, z.shape[0]
        vectors = z.reshape(rows, -1, 2, config.latent)  # pairs of one for all bars and one to be unfolded

        def unfolded(pair: jax.Array, temporal: TemporalGenerator) -> list[jax.Array]:
            return [jnp.broadcast_to(pair[:, :1], (rows, config.bars, config.latent)), temporal(pair[:, 1])]

        common = unfolded(vectors[:, 0], self.shared) if self.shared is not None else []
        if config.given:
            given = jnp.zeros((rows, config.tracks)) if given is None else given
            seen = jnp.zeros((rows, config.steps, config.tracks, config.pitches)) if x is None else x
            common.append(self.encoded(self.encoder(seen * given[:, None, :, None], config.bar_steps)))  # E
            common.append(jnp.broadcast_to(given[:, None], (rows, config.bars, config.tracks)))
        logits = []
        for i, bar in enumerate(self.bars):
            own = unfolded(vectors[:, i - len(self.own)], self.own[i]) if len(self.own) else []
            h = jnp.concatenate([*common, *own], axis=-1)  # [B, bars, I]
            out = bar(h.reshape(-1, h.shape[-1]))  # [B · bars, S, P, O]
            logits.append(jnp.moveaxis(out, 3, 2).reshape(rows, config.steps, -1, config.pitches))
        return jnp.concatenate(logits, axis=2) + math.log(config.density / (1 - config.density))


class Critic(nnx.Module):
    """D: phrases for some tracks → a number each, higher for music. Nothing is normalised (WGAN-GP, section 4)."""

    def __init__(self, config: Config, tracks: int, *, rngs: nnx.Rngs) -> None:
        self.reader = BarReader(config, tracks, True, rngs=rngs)
        self.join = Dense(config.bars * self.reader.features, 2 * config.hidden, rngs=rngs)
        # Without a bias, which would be the same for real and drawn phrases and so nothing to a Wasserstein distance.
        initial = jax.nn.initializers.glorot_uniform()
        self.out = nnx.Param(initial(rngs.params(), (2 * config.hidden, 1)))
        self.bar = config.bar_steps

    def __call__(self, x: jax.Array) -> Scores:
        """[B, T, K, P] → [B, 1]."""
        h = self.reader(x, self.bar)
        h = jax.nn.leaky_relu(self.join(h.reshape(h.shape[0], -1)), SLOPE)
        return dot(h, rounded(self.out[...]))


class MuseGAN(nnx.Module):
    """Generator and critics."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.generator = Generator(config, rngs=rngs)
        heard = [1] * config.tracks if config.kind == "jamming" else [config.tracks]
        self.critics = nnx.List([Critic(config, tracks, rngs=rngs) for tracks in heard])

    def scores(self, x: jax.Array) -> Scores:
        """Phrases [B, T, K, P] → [B, J]."""
        if len(self.critics) == 1:
            return self.critics[0](x)
        return jnp.concatenate([critic(x[:, :, k : k + 1]) for k, critic in enumerate(self.critics)], axis=1)


def normalised(x: jax.Array) -> jax.Array:
    """A vector of length √C at each place (Karras et al. 2018, section 4.2)."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-8)


# --- drawing ----------------------------------------------------------------------------------------------------------


def fire(config: Config, logits: jax.Array, key: jax.Array, training: bool = False) -> jax.Array:
    """Binary neurons: logits → 0 or 1, with the gradient of the sigmoid (sigmoid-adjusted straight-through).

    While training, "real" ones give their probability instead.
    """
    probability = jax.nn.sigmoid(logits)
    if config.neurons == "real" and training:
        return probability
    threshold = jax.random.uniform(key, logits.shape) if config.neurons == "stochastic" else 0.5
    return probability + jax.lax.stop_gradient((probability > threshold) - probability)


def generate(
    model: MuseGAN,
    z: jax.Array,
    key: jax.Array,
    x: jax.Array | None = None,
    given: jax.Array | None = None,
    training: bool = False,
) -> jax.Array:
    """Phrases float32 [B, T, K, P] from `z` [B, Z]; tracks that are `given` [B, K] are those of `x`."""
    drawn = fire(model.config, model.generator(z, x, given), key, training)
    if x is None or given is None:
        return drawn
    return jnp.where(given[:, None, :, None] > 0, x, drawn)


def sample(model: MuseGAN, batch: int, key: jax.Array) -> jax.Array:
    """Phrases from z ~ N(0, I)."""
    z_key, key = jax.random.split(key)
    return generate(model, jax.random.normal(z_key, (batch, model.config.z)), key)


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """What the critic minimises, of its scores of real and drawn phrases, and what the generator, of the latter."""

    critic: Callable[[Scores, Scores], jax.Array]
    generator: Callable[[Scores], jax.Array]
    penalised: bool = False


# With D = σ(score): log D = −softplus(−score), log(1 − D) = −softplus(score).
OBJECTIVES = {
    # max_D E[D(x)] − E[D(G(z))] − λ E[(‖∇D(x̂)‖ − 1)²], max_G E[D(G(z))] (Gulrajani et al. 2017, equation 3)
    "wgan-gp": Objective(lambda real, drawn: drawn - real, lambda drawn: -drawn, penalised=True),
    # min_G max_D E[log D(x)] + E[log(1 − D(G(z)))] (Goodfellow et al. 2014, equation 1)
    "minimax": Objective(
        lambda real, drawn: jax.nn.softplus(-real) + jax.nn.softplus(drawn), lambda drawn: -jax.nn.softplus(drawn)
    ),
    # The same for D; max_G E[log D(G(z))] (Goodfellow et al. 2014, section 3)
    "non-saturating": Objective(
        lambda real, drawn: jax.nn.softplus(-real) + jax.nn.softplus(drawn), lambda drawn: jax.nn.softplus(-drawn)
    ),
}


def gradient_penalty(model: MuseGAN, real: jax.Array, drawn: jax.Array, key: jax.Array) -> jax.Array:
    """(‖∇D(x̂)‖₂ − 1)² at points between real and drawn phrases, a number for each phrase and critic: [B, J]."""
    share = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
    slope = jax.grad(lambda x: jnp.sum(model.scores(x)))(drawn + share * (real - drawn))
    squares = jnp.sum(slope**2, axis=(1, 3))  # [B, K]; with one critic it is of all tracks
    if len(model.critics) == 1:
        squares = squares.sum(axis=1, keepdims=True)
    return (jnp.sqrt(squares + 1e-12) - 1.0) ** 2


def given_tracks(config: Config, rows: int, key: jax.Array) -> jax.Array | None:
    """Every other phrase of a batch accompanies one of its tracks: [B, K], 1 where a track is given."""
    if not config.given:
        return None
    chosen = jax.nn.one_hot(jax.random.randint(key, (rows,), 0, config.tracks), config.tracks)
    return chosen * (jnp.arange(rows) % 2)[:, None]


def loss(
    model: MuseGAN, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The critic's loss, with the gradient of both players.

    The critic moves at every step and the generator at every `critic_steps`-th; at the others its gradient is zero, and
    `players` tells the optimiser to let it rest. The generator's own loss is a metric and adds its gradient alone: it
    has no floor, and falls whenever the critic forgets.
    """
    config, objective = model.config, OBJECTIVES[model.config.objective]
    x = batch["x"].astype(jnp.float32)
    z_key, given_key, neuron_key, share_key = jax.random.split(key, 4)
    z = jax.random.normal(z_key, (x.shape[0], config.z))
    given = given_tracks(config, x.shape[0], given_key)

    drawn = jax.lax.stop_gradient(generate(model, z, neuron_key, x, given, training=True))
    real_scores, drawn_scores = jnp.split(model.scores(jnp.concatenate([x, drawn])), 2)
    critic = jnp.mean(jnp.sum(objective.critic(real_scores, drawn_scores), axis=1))
    penalty = jnp.zeros(())
    if objective.penalised:
        penalty = jnp.mean(jnp.sum(gradient_penalty(model, x, drawn, share_key), axis=1))

    def generator_loss() -> jax.Array:
        against = with_fixed_critics(model)
        again = generate(against, z, neuron_key, x, given, training=True)
        return jnp.mean(jnp.sum(objective.generator(against.scores(again)), axis=1))

    generator = jax.lax.cond(step % config.critic_steps == 0, generator_loss, lambda: jnp.zeros(()))
    total = critic + config.penalty * penalty + generator - jax.lax.stop_gradient(generator)
    return total, {
        "critic": critic,
        "penalty": penalty,
        "generator": jnp.mean(jnp.sum(objective.generator(drawn_scores), axis=1)),
    }


def with_fixed_critics(model: MuseGAN) -> MuseGAN:
    """The same model, whose critics get no gradient."""
    graph, state = nnx.split(model)
    params = nnx.to_pure_dict(state)
    params["critics"] = jax.lax.stop_gradient(params["critics"])
    return nnx.merge(graph, params)


def players(config: Config) -> dict[str, dict[str, Any]]:
    """Two optimisers: which parameters each moves and when. β₁ = 0.5 and β₂ = 0.9 are as in Dong & Yang (2018)."""
    moments = {"b1": 0.5, "b2": 0.9}
    return {
        "generator": {"patterns": ["generator.*"], "every": config.critic_steps, **moments},
        "critic": {"patterns": ["critics.*"], **moments},
    }


def evaluate(model: MuseGAN, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """As many phrases as the batch has, drawn from noise: the paper's measures (section 4.4), "real_…" the batch's.

    `distance` is the energy distance between what the phrases are like (`zoo.nn.phrases.features`), unbiased, so that
    its mean over batches is that of all. It picks the best weights: unlike the critic's loss it means the same all
    through training, and unlike a distance of means it grows when the draws are good but all alike. `accompanied` is
    that of phrases whose first track is given from the batch. `loss` is what the critic tells them apart by, negative.
    """
    config, x = model.config, batch["x"].astype(jnp.float32)
    draw_key, key = jax.random.split(key)
    drawn = sample(model, x.shape[0], draw_key)
    like = phrases.features(x, config.bar_steps)
    found = {
        "loss": jnp.mean(model.scores(drawn)) - jnp.mean(model.scores(x)),
        "distance": phrases.energy_distance(phrases.features(drawn, config.bar_steps), like),
        **phrases.measures(drawn, config.bar_steps),
        **{"real_" + name: value for name, value in phrases.measures(x, config.bar_steps).items()},
    }
    if config.given:
        z_key, key = jax.random.split(key)
        first = jnp.zeros((x.shape[0], config.tracks)).at[:, 0].set(1.0)
        played = generate(model, jax.random.normal(z_key, (x.shape[0], config.z)), key, x, first)
        found["accompanied"] = phrases.energy_distance(phrases.features(played, config.bar_steps), like)
    return found


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """Random phrases, noise, and in every row a track that is given."""
    shape = (batch, config.steps, config.tracks, config.pitches)
    given = np.eye(config.tracks, dtype=np.float32)[rng.integers(0, config.tracks, batch)]
    return {
        "x": (rng.random(shape) < 0.1).astype(np.int8),
        "z": rng.standard_normal((batch, config.z), dtype=np.float32),
        "given": given,
    }


def accompany(model: MuseGAN, batch: dict[str, jax.Array], key: jax.Array) -> jax.Array:
    """Phrases [B, T, K, P] whose tracks `given` [B, K] are those of `x`, the others drawn from `z`."""
    if not model.config.given:  # it has never learnt to listen
        return generate(model, batch["z"], key)
    return generate(model, batch["z"], key, batch["x"].astype(jnp.float32), batch["given"])


ARCHITECTURE = Architecture(
    name="musegan",
    config=Config,
    module=MuseGAN,
    loss=loss,
    evaluate=evaluate,
    monitor=("distance", "min"),
    example=example,
    kernels={
        "sample": lambda model, batch, key: sample(model, batch["z"].shape[0], key),
        "generate": lambda model, batch, key: generate(model, batch["z"], key),
        "accompany": accompany,
        "criticize": lambda model, batch, key: model.scores(batch["x"].astype(jnp.float32)),
    },
    task="phrases",
    players=players,
    tiny={
        "hybrid": Config.tiny(),
        "composer": replace(Config.tiny(), kind="composer", neurons="deterministic", objective="minimax"),
        "jamming": replace(Config.tiny(), kind="jamming", given=0, neurons="stochastic", objective="non-saturating"),
    },
)
