"""Causal self-attention with relations between tokens: how far apart they are, in time too, and in pitch.

`B` batch, `L` tokens, `H` heads, `D` width of a head, `C` tokens that a cache holds, `R` distances of a relation.

    weights = softmax((q · k + Σ q · e[relation of i and j]) / √D)        (Shaw et al. 2018; Huang et al. 2018, eq. 3)

where the sum is over relations, each with a table of learned vectors e [R, H, D]. The vectors q · e[r] of all
distances r are one matrix product [L, D] · [D, R]; what is left is to put them in the right columns, and no array of
L · L · D numbers is ever made:

- a distance i − j by skewing: row i goes i columns to the right (Huang et al. 2018, section 3.4.1);
- a distance in time, where K tokens share a time step: it follows from i − j and the place of i in its step, so the
  tables of both are added, for each of K places, and skewed as one;
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
        self.groups = voices if "time" in relations else 1  # whose tokens see other times at the same distance
        self.tables = nnx.Dict(
            {name: nnx.Param(small(rngs.params(), (size, heads, self.width))) for name, size in relations.items()}
        )

    def __call__(self, x: jax.Array, pitch: jax.Array | None = None) -> jax.Array:
        """All tokens at once: `x` [B, L, H·D] → the same shape; `pitch` int32 [B, L], −1 for tokens without one."""
        blocks, v = self.look(x, pitch)
        v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1))], axis=-1)  # so the product has the sums of weights too
        mixed = [product("hbij,hbjd->hbid", weights, v[:, :, : weights.shape[-1]]) for weights in blocks]
        mixed = [self.in_order(block[..., :-1] / block[..., -1:]) for block in mixed]
        heard = jnp.concatenate(mixed, axis=2)  # [H, B, L, D]
        return self.out(jnp.moveaxis(heard, 0, 2).reshape(len(x), -1, x.shape[-1])[:, : x.shape[1]])

    def weights(self, x: jax.Array, pitch: jax.Array | None = None) -> jax.Array:
        """How much each token hears of each: `x` [B, L, H·D] → [B, H, L, L], rows sum to 1."""
        blocks, v = self.look(x, pitch)
        after = [((0, 0), (0, 0), (0, 0), (0, v.shape[2] - block.shape[-1])) for block in blocks]
        whole = jnp.concatenate([self.in_order(jnp.pad(*each)) for each in zip(blocks, after, strict=True)], axis=2)
        return jnp.moveaxis(whole / whole.sum(axis=-1, keepdims=True), 0, 1)[..., : x.shape[1], : x.shape[1]]

    def look(self, x: jax.Array, pitch: jax.Array | None = None) -> tuple[list[jax.Array], jax.Array]:
        """How much each token hears of each, but for a factor, and what there is to hear, [H, B, L, D].

        The first in blocks of up to BLOCK tokens, each with the tokens before its end alone: [H, B, rows, end], voice
        after voice (see `in_order`). Of long windows nearly half need never be computed, and a block stays in the
        processor's cache. L is filled up to whole time steps.
        """
        fill = ((0, 0), (0, -x.shape[1] % self.groups))
        x = jnp.pad(x, (*fill, (0, 0)))
        q, k, v = (self.split_heads(part) for part in jnp.split(self.qkv(x), 3, axis=-1))  # [H, B, L, D]
        q = q / math.sqrt(self.width)
        if "pitch" in self.relations:
            assert pitch is not None
            pitch = jnp.pad(pitch, fill, constant_values=-1)
            by_interval = product("hbid,hrd->hbir", q, jnp.moveaxis(self.tables["pitch"][...], 1, 0))
            found, member = by_pitch(by_interval, pitch), one_hot(pitch, self.pitches)  # [H, B, L, P], [B, L, P]
            q = jnp.concatenate([q, found], axis=-1)
            k = jnp.concatenate([k, jnp.broadcast_to(member, found.shape)], axis=-1)
        size = BLOCK - BLOCK % self.groups
        begins = range(0, x.shape[1], size)
        return [self.block(q[:, :, begin : begin + size], k[:, :, : begin + size]) for begin in begins], v

    def block(self, q: jax.Array, k: jax.Array) -> jax.Array:
        """Weights, up to 1, of the last tokens of those that `k` [H, B, end, D + P] has, `q` [H, B, rows, D + P]."""
        rows, end = q.shape[2], k.shape[2]
        q = self.by_voice(q)
        scores = product("hbid,hbjd->hbij", q, k)
        if set(self.relations) & {"index", "time"}:
            scores += self.by_distance(q[..., : self.width], end)
        token = self.by_voice(jnp.arange(end - rows, end)[None, None, :, None])[0, 0]  # [rows, 1]
        scores = jnp.where(token >= jnp.arange(end), scores, -1e9)
        return jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))

    def by_voice(self, x: jax.Array) -> jax.Array:
        """[H, B, rows, D] with the tokens of a voice beside each other, for they share a table: K groups of S."""
        heads, batch, rows, width = x.shape
        return x.reshape(heads, batch, -1, self.groups, width).swapaxes(2, 3).reshape(heads, batch, rows, width)

    def in_order(self, x: jax.Array) -> jax.Array:
        """What `by_voice` gave back in the order of tokens."""
        heads, batch, rows, width = x.shape
        return x.reshape(heads, batch, self.groups, -1, width).swapaxes(2, 3).reshape(heads, batch, rows, width)

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
        """[B, L, H·D] → [H, B, L, D]."""
        return jnp.moveaxis(x.reshape(*x.shape[:-1], self.heads, self.width), 2, 0)

    @property
    def pitches(self) -> int:
        """P."""
        return int(self.tables["pitch"].shape[0] // 2)

    def by_distance(self, q: jax.Array, end: int) -> jax.Array:
        """Q · e of the distances in tokens and in time: [H, B, rows, D] by voice → [H, B, rows, end], columns by key.

        How far back in time a distance is depends on the voice of the token that looks, so there is a sum of both
        tables for each voice: one product and one array of L · L numbers for two relations.
        """
        heads, batch, rows, width = q.shape
        grouped = q.reshape(heads, batch, self.groups, -1, width).swapaxes(1, 2)  # [H, K, B, S, D]
        tables = jnp.stack([self.by_token(voice, end) for voice in range(self.groups)])  # [K, end + K, H, D]
        flat = grouped.reshape(heads, self.groups, -1, width)
        found = product("hknd,hkrd->hknr", flat, jnp.moveaxis(tables, 2, 0))
        moved = skew(found.reshape(*grouped.shape[:-1], -1), self.groups)  # [H, K, B, S, end]
        return moved.swapaxes(1, 2).reshape(heads, batch, rows, end)

    def by_token(self, voice: int, end: int) -> jax.Array:
        """What a token of one voice knows of those end − 1 + voice … voice − K tokens back: [end + K, H, D]."""
        known, count = [], end + voice
        if "index" in self.relations:
            known.append(reaching(self.tables["index"][...], count))
        if "time" in self.relations:
            steps = reaching(self.tables["time"][...], count // self.groups + 2)
            first = self.groups - 1 - voice  # so many tokens of its own step come after it
            known.append(jnp.repeat(steps, self.groups, axis=0)[first : first + count])
        return jnp.pad(sum(known[1:], known[0])[::-1], ((0, self.groups - voice), (0, 0), (0, 0)))

    def by_head(self, relation: str) -> jax.Array:
        """The table of a relation as `stepper` multiplies by it, [H, R, D], of distances R − 1 … 0 or all intervals."""
        table = self.tables[relation][...]
        return rounded(jnp.moveaxis(table if relation == "pitch" else table[::-1], 1, 0))


def backwards(by_distance: jax.Array, position: jax.Array, capacity: int) -> jax.Array:
    """Columns by distance, R − 1 … 0, → columns by key for the query at `position`: [..., R] → [..., capacity].

    Places j of a cache that are not yet filled, j > position, get something too.
    """
    *lead, size = by_distance.shape
    padded = jnp.pad(by_distance, [(0, 0)] * len(lead) + [(capacity, capacity)], mode="edge")
    return jax.lax.dynamic_slice_in_dim(padded, capacity + size - 1 - position, capacity, axis=-1)


def by_pitch(by_interval: jax.Array, pitch: jax.Array) -> jax.Array:
    """Columns by interval from `pitch`, −P … P, → columns by pitch: [..., 2 P + 1] → [..., P]; zeros where it is −1.

    `pitch` int32 has the shape of what is before the columns, or of the last axes of it.
    """
    count = by_interval.shape[-1] // 2
    columns = jnp.arange(count) - jnp.maximum(pitch, 0)[..., None] + count
    lead = by_interval.ndim - columns.ndim
    found = jnp.take_along_axis(by_interval, columns.reshape(*[1] * lead, *columns.shape), axis=-1)
    return jnp.where(pitch[..., None] >= 0, found, 0.0)


def one_hot(pitch: jax.Array, count: int) -> jax.Array:
    """Int [...] → float32 [..., count]; zeros for −1."""
    return (pitch[..., None] == jnp.arange(count)).astype(jnp.float32)


def reaching(table: jax.Array, count: int) -> jax.Array:
    """The first `count` rows of a table [R, ...], the last one again and again where it has fewer."""
    farther = jnp.broadcast_to(table[-1:], (max(0, count - len(table)), *table.shape[1:]))
    return jnp.concatenate([table[:count], farther])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def skew(scores: jax.Array, voices: int = 1) -> jax.Array:
    """Columns by distance → columns by key: [..., S, end + K] → [..., S, end], every row K = `voices` farther.

    The rows are those of one voice in the last S steps, and `by_token` says which distances they have. What stands at
    keys after a row's own means nothing, and is to get no gradient. As the array lies in memory, moving rows is reading
    it in shorter rows, and moving them back is reading it in longer ones; each costs about what a copy costs, while
    what autodiff makes of either costs six times that on XLA's CPU backend.
    """
    *lead, rows, columns = scores.shape
    flat = scores.reshape(*lead, -1)[..., voices * rows - 1 : -1]
    return flat.reshape(*lead, rows, columns - voices)


def _skew_forward(scores: jax.Array, voices: int) -> tuple[jax.Array, None]:
    return skew(scores, voices), None


def _skew_backward(voices: int, kept: None, gradient: jax.Array) -> tuple[jax.Array]:
    *lead, rows, columns = gradient.shape
    flat = jnp.pad(gradient.reshape(*lead, -1), [(0, 0)] * len(lead) + [(voices * rows - 1, 1)])
    return (flat.reshape(*lead, rows, columns + voices),)


skew.defvjp(_skew_forward, _skew_backward)
