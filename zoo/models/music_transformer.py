"""Music Transformer: self-attention that knows how far apart two events are.

Huang, Vaswani, Uszkoreit, Shazeer, Simon, Hawthorne, Dai, Hoffman, Dinculescu, Eck, ICLR 2019, arXiv:1809.04281.

A stack of causal self-attention layers predicts each token of a piece from those before. In the plain model a token's
place is added to its embedding as sinusoids (Vaswani et al. 2017); with relations, attention itself sees the distance
between two tokens, and for chorales their distance in time and the interval between them (section 3.4, table 2).

Not in the paper: intervals, and an ensemble. With intervals a token's embedding tells how far its pitch is from those
of some tokens before it, and the logits know how far each pitch would be from theirs, so that what holds in one key
holds in all. Such a network and one without learn and err apart: the mean of their logits is better than either.

Shapes: `B` batch, `L` tokens, `V` classes, `K` voices (tokens of a time step), `U` units, `C` capacity of the cache.
Tokens are int32 [B, L] in 0 … V − 1; a token from V on is padding, and V itself the input before the first token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture, Stepping
from zoo.nn.attention import RELATIONS, Attention, Cache, Step, by_pitch, one_hot
from zoo.nn.attention import Prepared as AttentionPrepared
from zoo.nn.dropout import Dropout
from zoo.nn.likelihood import over_tokens
from zoo.nn.precision import product
from zoo.nn.recurrent import Dense, DenseStep
from zoo.nn.sampling import Sampling, rollout


@dataclass(frozen=True)
class Config:
    """Numbers of one Music Transformer.

    Attributes:
      classes: V.
      steps: L of the windows it learns from.
      units, layers, heads, hidden: U, number of layers, of heads in each, and units of the feed-forward layers.
      relations: of "index", "time", "pitch" those that attention sees; none for the plain model with sinusoids.
      reach: tokens back that "index" tells apart; "time" tells apart reach / K steps.
      voices: K, tokens of a time step, which is one for music without a grid.
      cycle: time steps after which the grid is the same again (a bar); a token is told its place in it. 1 for no grid.
      pitch_tokens: (first, number): these tokens are consecutive pitches, for the "pitch" relation and for intervals.
      intervals: for each network of the ensemble, how many tokens back those are that its intervals are counted from.
      keep: share of units that dropout keeps in training.
    """

    classes: int = 47
    steps: int = 512
    units: int = 128
    layers: int = 5
    heads: int = 4
    hidden: int = 512
    relations: tuple[str, ...] = RELATIONS
    reach: int = 512
    voices: int = 4
    cycle: int = 16
    pitch_tokens: tuple[int, int] = (1, 46)
    intervals: tuple[tuple[int, ...], ...] = ((),)
    keep: float = 0.9

    def __post_init__(self) -> None:
        if unknown := set(self.relations) - set(RELATIONS):
            raise ValueError(f"there is no relation {min(unknown)!r}, only {', '.join(RELATIONS)}")
        if not self.intervals:
            raise ValueError("intervals = [] makes no network; [[]] makes one without intervals")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(
            classes=12,
            steps=24,
            units=16,
            layers=2,
            heads=2,
            hidden=24,
            reach=8,
            cycle=3,
            pitch_tokens=(2, 10),
            keep=1.0,
        )

    @property
    def distances(self) -> dict[str, int]:
        """How many distances each relation knows; see `Attention`."""
        sizes = {"index": self.reach, "time": -(-self.reach // self.voices), "pitch": 2 * self.pitch_tokens[1] + 1}
        return {name: sizes[name] for name in self.relations}


class Block(nnx.Module):
    """Attention and a feed-forward layer, each on normalised input and added to it."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.before_attention = nnx.LayerNorm(config.units, rngs=rngs)
        self.attention = Attention(config.units, config.heads, config.distances, config.voices, rngs=rngs)
        self.before_feed = nnx.LayerNorm(config.units, rngs=rngs)
        self.expand = Dense(config.units, config.hidden, rngs=rngs)
        self.contract = Dense(config.hidden, config.units, rngs=rngs)

    def __call__(self, x: jax.Array, pitch: jax.Array, drop: Dropout) -> jax.Array:
        """`x` [B, L, U], `pitch` [B, L] → [B, L, U]."""
        x = x + drop(self.attention(self.before_attention(x), pitch))
        return x + drop(self.feed(x, drop))

    def prepared(self) -> tuple[AttentionPrepared, DenseStep, DenseStep]:
        """What `stepper` needs of the parameters: turned once."""
        return self.attention.prepared(), self.expand.stepper(), self.contract.stepper()

    def stepper(self, prepared: tuple[AttentionPrepared, DenseStep, DenseStep]) -> Step:
        """One token, `x` [B, U]; see `Attention.stepper`."""
        attend, (_, expand, contract) = self.attention.stepper(prepared[0]), prepared

        def step(x: jax.Array, cache: Cache, position: jax.Array, pitches: jax.Array) -> tuple[jax.Array, Cache]:
            attended, cache = attend(self.before_attention(x), cache, position, pitches)
            x = x + attended
            return x + contract(jax.nn.relu(expand(self.before_feed(x).T))).T, cache

        return step

    def feed(self, x: jax.Array, drop: Dropout) -> jax.Array:
        """The feed-forward layer on what it normalises, [..., U] → [..., U]."""
        return self.contract(drop(jax.nn.relu(self.expand(self.before_feed(x)))))


OfNetwork = tuple[tuple[tuple[AttentionPrepared, DenseStep, DenseStep], ...], tuple[DenseStep, ...]]


class Network(nnx.Module):
    """Embedding, blocks, logits."""

    def __init__(self, config: Config, intervals: tuple[int, ...], *, rngs: nnx.Rngs) -> None:
        self.config, self.intervals = config, intervals
        normal = jax.nn.initializers.normal(config.units**-0.5)
        self.embedding = nnx.Param(normal(rngs.params(), (config.classes, config.units)))
        self.start = nnx.Param(normal(rngs.params(), (config.units,)))  # stands where no token is before
        if config.voices > 1:
            self.voice = nnx.Param(normal(rngs.params(), (config.voices, config.units)))
        if config.cycle > 1:
            self.place = nnx.Param(normal(rngs.params(), (config.cycle, config.units)))
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.layers)])
        self.norm = nnx.LayerNorm(config.units, rngs=rngs)
        self.output = Dense(config.units, config.classes, rngs=rngs)
        if intervals:
            count = len(intervals) * (2 * config.pitch_tokens[1] + 1)  # −P … P, to each token before
            self.interval = nnx.Param(jnp.zeros((count, config.units)))
            self.leap = Dense(config.units, count, rngs=rngs)
            self.leap.kernel[...] = jnp.zeros((config.units, count))

    def logits(self, x: jax.Array, drop: Dropout | None = None) -> jax.Array:
        """Log p(x[t] | x[< t]) but for a constant, for every t: [B, L] → [B, L, V]."""
        drop = drop or Dropout()
        inputs = shift(self.config, x)
        pitch = pitch_of(self.config, inputs)
        position = jnp.arange(x.shape[1])
        h = drop(self.embed(inputs, position, pitch, drop))  # [B, L, U]
        for block in self.blocks:
            h = block(h, pitch, drop)
        h = self.norm(h)
        logits = self.output(h)
        return self.with_leaps(logits, drop(self.leap(h)), position, pitch) if self.intervals else logits

    def embed(
        self, inputs: jax.Array, position: jax.Array, pitches: jax.Array, drop: Dropout | None = None
    ) -> jax.Array:
        """Input tokens [B, ...] at `position` [...] among the inputs' `pitches` [B, C] → [B, ..., U]."""
        config = self.config
        h = self.embedding[...].at[inputs].get(mode="clip")
        h = jnp.where((inputs >= config.classes)[..., None], self.start[...], h)
        if config.voices > 1:
            h += self.voice[...][position % config.voices]
        if config.cycle > 1:
            h += self.place[...][position // config.voices % config.cycle]
        if self.intervals:
            here, before = (earlier(pitches, position, back) for back in ((0,), self.intervals))
            moved = jnp.where((here >= 0) & (before >= 0), here - before + config.pitch_tokens[1], -1)
            told = one_hot(moved, 2 * config.pitch_tokens[1] + 1)  # [B, ..., intervals, 2 P + 1]
            told = (drop or Dropout())(told.reshape(*h.shape[:-1], -1))  # or it knows pieces by heart, in any key
            h += product("...i,iu->...u", told, self.interval[...])
        return h if config.relations else h + sinusoids(position, config.units) * config.units**-0.5

    def with_leaps(self, logits: jax.Array, leaps: jax.Array, position: jax.Array, pitches: jax.Array) -> jax.Array:
        """Logits [B, ..., V] with what each leap from each pitch before adds, [B, ..., intervals · (2 P + 1)]."""
        back = [distance - 1 for distance in self.intervals]  # from what comes, not from the input
        before = earlier(pitches, position, back)
        added = by_pitch(leaps.reshape(*before.shape, -1), before).sum(axis=-2)  # [B, ..., P]
        first, count = self.config.pitch_tokens
        return logits + jnp.pad(added, [(0, 0)] * (added.ndim - 1) + [(first, self.config.classes - first - count)])

    def prepared(self) -> OfNetwork:
        """What `stepper` needs of the parameters: turned once."""
        outputs = (self.output, self.leap) if self.intervals else (self.output,)
        return tuple(block.prepared() for block in self.blocks), tuple(output.stepper() for output in outputs)

    def stepper(self, prepared: OfNetwork) -> Callable[..., tuple[jax.Array, tuple[Cache, ...]]]:
        """One token: (its input int32 [B], the layers' caches, position, pitches) → (logits [B, V], the new caches)."""
        of_blocks, (output, *leap) = prepared
        steps = [block.stepper(of_block) for block, of_block in zip(self.blocks, of_blocks, strict=True)]

        def step(
            token: jax.Array, before: tuple[Cache, ...], position: jax.Array, pitches: jax.Array
        ) -> tuple[jax.Array, tuple[Cache, ...]]:
            h, caches = self.embed(token, position, pitches), []
            for go, cache in zip(steps, before, strict=True):
                h, cache = go(h, cache, position, pitches)
                caches.append(cache)
            columns = self.norm(h).T
            logits = output(columns).T
            if leap:
                logits = self.with_leaps(logits, leap[0](columns).T, position, pitches)
            return logits, tuple(caches)

        return step


class State(NamedTuple):
    """What generation carries from token to token.

    Attributes:
      caches: keys and values of each layer of each network, with room for C tokens.
      pitches: int32 [B, C], the inputs' pitches so far.
      position: int32 [], number of tokens so far.
    """

    caches: tuple[tuple[Cache, ...], ...]
    pitches: jax.Array
    position: jax.Array


Prepared = tuple[OfNetwork, ...]


class MusicTransformer(nnx.Module):
    """One network, or several that learn apart and whose logits are averaged."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.networks = nnx.List([Network(config, intervals, rngs=rngs) for intervals in config.intervals])

    def logits(self, x: jax.Array) -> jax.Array:
        """Log p(x[t] | x[< t]) but for a constant, for every t: [B, L] → [B, L, V]."""
        return jnp.mean(jnp.stack([network.logits(x) for network in self.networks]), axis=0)

    def prepared(self) -> Prepared:
        """What `stepper` needs of the parameters: turned once."""
        return tuple(network.prepared() for network in self.networks)

    def stepper(self, prepared: Prepared | None = None) -> Callable[[State, jax.Array, Any], tuple[jax.Array, State]]:
        """A function that goes one step: (state, the token before int32 [B], None) → (logits [B, V], new state)."""
        of_networks = prepared or self.prepared()
        steps = [network.stepper(of_network) for network, of_network in zip(self.networks, of_networks, strict=True)]

        def step(state: State, token: jax.Array, context: Any = None) -> tuple[jax.Array, State]:
            pitch = pitch_of(self.config, token)[:, None]
            pitches = jax.lax.dynamic_update_slice_in_dim(state.pitches, pitch, state.position, axis=1)
            found = [go(token, own, state.position, pitches) for go, own in zip(steps, state.caches, strict=True)]
            logits = jnp.mean(jnp.stack([each for each, _ in found]), axis=0)
            return logits, State(tuple(caches for _, caches in found), pitches, state.position + 1)

        return step


def shift(config: Config, x: jax.Array) -> jax.Array:
    """Each token's input, the token before it: `x` [B, L] delayed by one, from V."""
    return jnp.concatenate([jnp.full_like(x[:, :1], config.classes), x[:, :-1]], axis=1)


def pitch_of(config: Config, tokens: jax.Array) -> jax.Array:
    """The pitch of each token, counted from the lowest; −1 where it has none."""
    first, count = config.pitch_tokens
    return jnp.where((tokens >= first) & (tokens < first + count), tokens - first, -1)


def earlier(pitches: jax.Array, position: jax.Array, back: Sequence[int]) -> jax.Array:
    """The pitches so many tokens before `position` [...]: [B, C] → [B, ..., len(back)], −1 before the beginning."""
    columns = position[..., None] - jnp.asarray(back)
    return jnp.where(columns >= 0, pitches[:, jnp.maximum(columns, 0)], -1)


def sinusoids(position: jax.Array, units: int) -> jax.Array:
    """Positions [...] → [..., U], sines and cosines of wavelengths 2π to 2π · 10⁴ (Vaswani et al. 2017, §3.5)."""
    rates = jnp.exp(-math.log(1e4) * jnp.arange(0, units, 2) / units)
    angles = position[..., None] * rates
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[..., :units]


def loss(
    model: MusicTransformer, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Teacher forcing: the mean negative log-likelihood of a token, in nats, of each network by itself."""
    x, drop = batch["x"], Dropout(model.config.keep, key)
    measured = [over_tokens(network.logits(x, drop), x) for network in model.networks]
    count = jnp.maximum(measured[0][0], 1.0) * len(measured)
    means = {name: sum(sums[name] for _, sums in measured) / count for name in measured[0][1]}
    return means.pop("loss"), means


def evaluate(model: MusicTransformer, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """As the loss, without dropout, of the networks together; means over tokens."""
    count, sums = over_tokens(model.logits(batch["x"]), batch["x"])
    return {name: jnp.stack([total, count]) for name, total in sums.items()}


def start(model: MusicTransformer, batch: int, capacity: int) -> State:
    """The state before the first token, with room for `capacity` tokens."""
    config = model.config
    cache = partial(Cache.empty, batch * config.heads, capacity, config.units // config.heads)
    pitches = jnp.full((batch, capacity), -1, jnp.int32)
    caches = tuple(tuple(cache() for _ in range(config.layers)) for _ in config.intervals)
    return State(caches, pitches, jnp.zeros((), jnp.int32))


def grow(state: State, capacity: int) -> State:
    """The same state with room for `capacity` tokens."""
    more = capacity - state.pitches.shape[1]
    caches = tuple(tuple(cache.grown(capacity) for cache in own) for own in state.caches)
    return state._replace(caches=caches, pitches=jnp.pad(state.pitches, ((0, 0), (0, more)), constant_values=-1))


def generate(
    model: MusicTransformer, batch: int, key: jax.Array, sampling: Sampling, prepared: Prepared | None = None
) -> jax.Array:
    """Windows drawn from the model, one compiled loop: tokens [B, L]."""
    config = model.config
    state, nothing = start(model, batch, config.steps), jnp.full(batch, config.classes, jnp.int32)
    return rollout(model.stepper(prepared), state, nothing, key, 0, config.steps, sampling)[0]


def attention(model: MusicTransformer, x: jax.Array) -> jax.Array:
    """What each token's prediction looks at among the inputs, the tokens before: [B, networks · layers, H, L, L]."""
    inputs = shift(model.config, x)
    pitch, found = pitch_of(model.config, inputs), []
    for network in model.networks:
        h = network.embed(inputs, jnp.arange(x.shape[1]), pitch)
        for block in network.blocks:
            found.append(block.attention.weights(block.before_attention(h), pitch))
            h = block(h, pitch, Dropout())
    return jnp.stack(found, axis=1)


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch of windows."""
    return {"x": rng.integers(0, config.classes, (batch, config.steps), dtype=np.int32)}


ARCHITECTURE = Architecture(
    name="music-transformer",
    config=Config,
    module=MusicTransformer,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={
        "forward": lambda model, batch, key: model.logits(batch["x"]),
        "attention": lambda model, batch, key: attention(model, batch["x"]),
        "generate": lambda model, batch, key: generate(model, len(batch["x"]), key, Sampling(), batch.get("prepared")),
    },
    prepare=MusicTransformer.prepared,
    stepping=Stepping(start, MusicTransformer.stepper, grow),
    task="continuation",
    tiny={
        "plain": replace(Config.tiny(), relations=()),
        "relative": replace(Config.tiny(), relations=("index",)),
        "related": replace(Config.tiny(), intervals=((), (1, 2, 3, 6))),
        "performance": replace(Config.tiny(), relations=("index",), voices=1, cycle=1, reach=32),
    },
)
