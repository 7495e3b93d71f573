"""Causal self-attention with relations between tokens: how far apart they are, in time too, and in pitch.

`B` batch, `L` tokens, `H` heads, `D` width of a head, `C` tokens that a cache holds, `R` distances of a relation.

    weights = softmax((q · k + Σ q · e[relation of i and j]) / √D)        (Shaw et al. 2018; Huang et al. 2018, eq. 3)

where the sum is over relations, each with a table of learned vectors e [R, H, D]. The vectors q · e[r] of all
distances r are one matrix product [L, D] · [D, R]; what is left is to put them in the right columns, and no array of
L · L · D numbers is ever made:

- a distance i − j by skewing: row i goes i columns to the right (Huang et al. 2018, section 3.4.1);
- a distance in time t(i) − t(j), where K tokens share a time step, by skewing over steps, and repeating;
- an interval p(j) − p(i) by moving row i by p(i), which gives the sum as a function of the absolute pitch p(j), and a
  product with one-hot p(j): the keys grow by so many columns, and no gather of L · L numbers is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.nn.precision import product, rounded
from zoo.nn.recurrent import Dense, DenseStep

RELATIONS = ("index", "time", "pitch")
BLOCK = 256  # tokens that are attended for at a time


class Cache(NamedTuple):
    """What one layer remembers: keys and values float32 [..., C, D] each."""

    keys: jax.Array
    values: jax.Array

    @classmethod
    def empty(cls, *shape: int) -> Cache:
        """Zeros of a shape [..., C, D]: room for C tokens."""
        return cls(*(jnp.zeros(shape) for _ in "kv"))

    def grown(self, capacity: int) -> Cache:
        """The same with room for `capacity` tokens."""
        *lead, size, _ = self.keys.shape
        more = [(0, 0)] * len(lead) + [(0, capacity - size), (0, 0)]
        return Cache(*(jnp.pad(x, more) for x in self))


class Prepared(NamedTuple):
    """The parameters of a layer as it goes through them token by token; tables [H, R, D] of each relation."""

    qkv: DenseStep
    out: DenseStep
    tables: dict[str, jax.Array]


Step = Callable[[jax.Array, Cache, jax.Array, jax.Array], tuple[jax.Array, Cache]]


class Attention(nnx.Module):
    """Multi-head causal self-attention, `relations` by name with the number of distances that each knows.

    For "index" and "time" distances are 0 … R − 1, and farther ones count as R − 1; "pitch" has the intervals
    −P … P of P pitches, R = 2 P + 1. `voices` is K, the tokens of a time step.
    """

    def __init__(
        self, units: int, heads: int, relations: Mapping[str, int], voices: int = 1, *, rngs: nnx.Rngs
    ) -> None:
        if units % heads:
            raise ValueError(f"{units} units can't be shared among {heads} heads")
        self.heads, self.width, self.voices, self.relations = heads, units // heads, voices, tuple(relations)
        self.qkv = Dense(units, 3 * units, rngs=rngs)
        self.out = Dense(units, units, rngs=rngs)
        small = jax.nn.initializers.normal(0.02)
        self.tables = nnx.Dict(
            {name: nnx.Param(small(rngs.params(), (size, heads, self.width))) for name, size in relations.items()}
        )

    def __call__(self, x: jax.Array, pitch: jax.Array | None = None) -> jax.Array:
        """All tokens at once: `x` [B, L, H·D] → the same shape; `pitch` int32 [B, L], −1 for tokens without one."""
        blocks, v = self.look(x, pitch)
        mixed = [product("bhij,bhjd->bhid", weights, v[:, :, : weights.shape[-1]]) for weights in blocks]
        return self.out(jnp.moveaxis(jnp.concatenate(mixed, axis=2), 1, 2).reshape(x.shape))

    def look(self, x: jax.Array, pitch: jax.Array | None = None) -> tuple[list[jax.Array], jax.Array]:
        """How much each token hears of each, and what there is to hear, [B, H, L, D].

        The first in blocks of up to BLOCK tokens, each with the tokens before its end alone: [B, H, rows, end], rows
        sum to 1. Of long windows nearly half need never be computed, and a block stays in the processor's cache.
        """
        length = x.shape[1]
        q, k, v = (self.split_heads(part) for part in jnp.split(self.qkv(x), 3, axis=-1))  # [B, H, L, D]
        q = q / math.sqrt(self.width)
        if "pitch" in self.relations:
            assert pitch is not None
            by_pitch, member = self.by_pitch(q, pitch), one_hot(pitch, self.pitches)  # [B, H, L, P], [B, L, P]
            q = jnp.concatenate([q, by_pitch], axis=-1)
            k = jnp.concatenate([k, jnp.broadcast_to(member[:, None], by_pitch.shape)], axis=-1)
        size = BLOCK - BLOCK % self.voices
        begins = range(0, length, size)
        return [self.block(q[:, :, begin : begin + size], k[:, :, : begin + size]) for begin in begins], v

    def block(self, q: jax.Array, k: jax.Array) -> jax.Array:
        """The weights of the last tokens of those that `k` [B, H, end, D + P] has, `q` [B, H, rows, D + P]."""
        rows, end = q.shape[2], k.shape[2]
        scores = product("bhid,bhjd->bhij", q, k)
        q = q[..., : self.width]
        if "index" in self.relations:
            scores += skew(self.by_distance(q, "index", end))
        if "time" in self.relations:
            steps = -(-end // self.voices)
            by_step = skew(self.by_distance(q, "time", steps), self.voices)
            scores += jnp.repeat(by_step, self.voices, axis=-1)[..., :end]
        causal = jnp.arange(end - rows, end)[:, None] >= jnp.arange(end)
        return jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1)

    def prepared(self) -> Prepared:
        """What `stepper` needs of the parameters: turned once, where its loop would do it at every token."""
        return Prepared(self.qkv.stepper(), self.out.stepper(), {name: self.by_head(name) for name in self.relations})

    def stepper(self, prepared: Prepared) -> Step:
        """A function that goes one step: (x, cache, position, pitches) → (attended, cache with this token in it).

        `x` [B, H·D] is the token at `position` [], `pitches` int32 [B, C] has its pitch among the others', and the
        result [B, H·D] is what `__call__` gives there. The cache is [B·H, C, D], what the products take: of any other
        shape XLA's CPU backend updates one copy for the product and one for the next step, all of it at every token.
        """
        to_heads, mix, tables = prepared

        def step(x: jax.Array, cache: Cache, position: jax.Array, pitches: jax.Array) -> tuple[jax.Array, Cache]:
            capacity = cache.keys.shape[1]
            q, k, v = (part.reshape(-1, self.width) for part in jnp.split(to_heads(x.T).T, 3, axis=-1))  # [B·H, D]
            put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=position, axis=1)
            cache = Cache(put(cache.keys, k[:, None]), put(cache.values, v[:, None]))
            q = q / math.sqrt(self.width)
            scores = jnp.einsum("nd,ncd->nc", q, cache.keys)  # [B·H, C], never rounded: it is read more than computed
            by = {name: product("bhd,hrd->bhr", q.reshape(len(x), self.heads, -1), e) for name, e in tables.items()}
            related = jnp.zeros((len(x), self.heads, capacity))
            if "index" in by:
                related += backwards(by["index"], position, capacity)
            if "time" in by:
                steps = backwards(by["time"], position // self.voices, -(-capacity // self.voices))
                related += jnp.repeat(steps, self.voices, axis=-1)[..., :capacity]
            if "pitch" in by:
                here = jax.lax.dynamic_slice_in_dim(pitches, position, 1, axis=1)  # [B, 1]
                known = (here >= 0) & (pitches >= 0)  # [B, C]
                columns = jnp.where(known, pitches - here, 0) + self.pitches
                found = jnp.take_along_axis(by["pitch"], columns[:, None], axis=-1)
                related += jnp.where(known[:, None], found, 0.0)
            scores += related.reshape(scores.shape)
            weights = jax.nn.softmax(jnp.where(jnp.arange(capacity) <= position, scores, -1e9), axis=-1)
            mixed = jnp.einsum("nc,ncd->nd", weights, cache.values)
            return mix(mixed.reshape(x.shape).T).T, cache

        return step

    def split_heads(self, x: jax.Array) -> jax.Array:
        """[B, L, H·D] → [B, H, L, D]."""
        return jnp.moveaxis(x.reshape(*x.shape[:-1], self.heads, self.width), 1, 2)

    @property
    def pitches(self) -> int:
        """P."""
        return int(self.tables["pitch"].shape[0] // 2)

    def by_distance(self, q: jax.Array, relation: str, count: int) -> jax.Array:
        """Q · e for each distance, the farthest first: [B, H, L, D] → [B, H, L, count], distances count − 1 … 0."""
        known = self.tables[relation][:count][::-1]
        found = product("bhid,rhd->bhir", q, known)
        if count == len(known):
            return found
        farther = jnp.broadcast_to(found[..., :1], (*found.shape[:-1], count - len(known)))
        return jnp.concatenate([farther, found], axis=-1)  # a tenth faster a training step than jnp.pad's "edge"

    def by_head(self, relation: str) -> jax.Array:
        """The table of a relation as `stepper` multiplies by it, [H, R, D], of distances R − 1 … 0 or all intervals."""
        table = self.tables[relation][...]
        return rounded(jnp.moveaxis(table if relation == "pitch" else table[::-1], 1, 0))

    def by_pitch(self, q: jax.Array, pitch: jax.Array) -> jax.Array:
        """Q · e[p − pitch] for every pitch p: [B, H, L, D], [B, L] → [B, H, L, P]; zeros where a token has no pitch."""
        by_interval = product("bhid,rhd->bhir", q, self.tables["pitch"][...])  # intervals −P … P
        columns = jnp.arange(self.pitches) - jnp.maximum(pitch, 0)[:, None, :, None] + self.pitches  # [B, 1, L, P]
        found = jnp.take_along_axis(by_interval, columns, axis=-1)
        return jnp.where(pitch[:, None, :, None] >= 0, found, 0.0)


def backwards(by_distance: jax.Array, position: jax.Array, capacity: int) -> jax.Array:
    """Columns by distance, R − 1 … 0, → columns by key for the query at `position`: [..., R] → [..., capacity].

    Places j of a cache that are not yet filled, j > position, get something too.
    """
    *lead, size = by_distance.shape
    padded = jnp.pad(by_distance, [(0, 0)] * len(lead) + [(capacity, capacity)], mode="edge")
    return jax.lax.dynamic_slice_in_dim(padded, capacity + size - 1 - position, capacity, axis=-1)


def one_hot(pitch: jax.Array, count: int) -> jax.Array:
    """Int [...] → float32 [..., count]; zeros for −1."""
    return (pitch[..., None] == jnp.arange(count)).astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def skew(scores: jax.Array, voices: int = 1) -> jax.Array:
    """Columns by distance, T − 1 … 0, → columns by time step: [..., rows, T], the same shape.

    `rows` are the last tokens, K = `voices` of them in a time step and the first the first of its step; for a key after
    a token's own step the result is 0. As the array lies in memory, moving row i by i is reading it in rows that are
    one shorter, and moving it back is reading it in rows that are one longer; each costs about what a copy costs, while
    what autodiff makes of either costs six times that on XLA's CPU backend.
    """
    *lead, rows, columns = scores.shape
    x = by_time(scores, voices)  # [..., S, K·T]
    steps, size = x.shape[-2:]
    moved = x.reshape(*lead, -1)[..., steps - 1 : -1].reshape(*lead, steps, size - 1)
    moved = jnp.pad(moved, [(0, 0)] * (len(lead) + 1) + [(0, 1)])
    moved = moved.at[..., -1, -1].set(x[..., -1, -1])
    return jnp.where(past(steps, voices, columns), moved, 0.0).reshape(*lead, -1, columns)[..., :rows, :]


def _skew_forward(scores: jax.Array, voices: int) -> tuple[jax.Array, None]:
    return skew(scores, voices), None


def _skew_backward(voices: int, kept: None, gradient: jax.Array) -> tuple[jax.Array]:
    *lead, rows, columns = gradient.shape
    x = by_time(gradient, voices)
    steps, size = x.shape[-2:]
    x = jnp.where(past(steps, voices, columns), x, 0.0).reshape(*lead, -1)
    moved = jnp.pad(x, [(0, 0)] * len(lead) + [(steps - 1, 1)]).reshape(*lead, steps, size + 1)[..., :-1]
    return (moved.reshape(*lead, -1, columns)[..., :rows, :],)


skew.defvjp(_skew_forward, _skew_backward)


def by_time(x: jax.Array, voices: int) -> jax.Array:
    """A row for each time step: [..., rows, T] → [..., S, K·T], zeros where the last step's tokens aren't all there."""
    *lead, rows, columns = x.shape
    padded = jnp.pad(x, [(0, 0)] * len(lead) + [(0, -rows % voices), (0, 0)])
    return padded.reshape(*lead, -1, voices * columns)


def past(steps: int, voices: int, columns: int) -> jax.Array:
    """Whether a column isn't after its row's step, for the last `steps` of T = `columns`: bool [S, K·T]."""
    causal = jnp.arange(columns) <= jnp.arange(columns - steps, columns)[:, None]
    return jnp.tile(causal, voices)
