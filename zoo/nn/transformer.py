"""The transformer's encoder and decoder (Vaswani et al. 2017), with relative positions in buckets (Raffel et al. 2020).

`B` batch, `L` tokens that ask, `M` tokens that are asked, `H` heads, `D` width of a head, `U` = H · D units.

    attention(q, k, v) = softmax(q · k / √D + bias) · v

The bias depends on how far apart two tokens are alone, one number a head and bucket: near distances have a bucket each,
farther ones share theirs, the wider the farther. One table serves all layers of a stack. Layers are normalised before
(pre-norm). Attention's weights are returned, not recorded: where nobody uses them the compiler drops them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from zoo.nn.attention import Cache
from zoo.nn.dropout import Dropout
from zoo.nn.precision import product
from zoo.nn.recurrent import Dense

FORBIDDEN = -1e9  # the score of what must not be looked at

Pair: TypeAlias = tuple[jax.Array, jax.Array | None]  # for the tokens before, and for the memory


class MultiHeadAttention(nnx.Module):
    """Attention of `x` to `memory`, or to itself."""

    def __init__(self, units: int, heads: int, *, rngs: nnx.Rngs) -> None:
        if units % heads:
            raise ValueError(f"{units} units can't be shared among {heads} heads")
        self.heads, self.width = heads, units // heads
        self.query = Dense(units, units, rngs=rngs)
        self.key_value = Dense(units, 2 * units, rngs=rngs)
        self.out = Dense(units, units, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        bias: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """`x` [B, L, U] asks `memory` [B, M, U], by default itself: (what it hears [B, L, U], weights [B, H, L, M]).

        `bias` is added to the scores, `mask` (bool) says which may be looked at; both broadcast to [B, H, L, M].
        """
        return self.attend(x, self.remember(x if memory is None else memory), bias, mask)

    def remember(self, memory: jax.Array) -> Cache:
        """Keys and values [B, H, M, D] of `memory` [B, M, U], for many calls of `attend`."""
        return Cache(*(self.split_heads(part) for part in jnp.split(self.key_value(memory), 2, axis=-1)))

    def attend(
        self, x: jax.Array, cache: Cache, bias: jax.Array | None = None, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """As `__call__`, of keys and values that are there already."""
        q = self.split_heads(self.query(x)) / math.sqrt(self.width)
        scores = product("bhld,bhmd->bhlm", q, cache.keys)
        scores = scores if bias is None else scores + bias
        scores = scores if mask is None else jnp.where(mask, scores, FORBIDDEN)
        weights = jax.nn.softmax(scores, axis=-1)
        heard = product("bhlm,bhmd->bhld", weights, cache.values)
        return self.out(jnp.moveaxis(heard, 1, 2).reshape(x.shape)), weights

    def split_heads(self, x: jax.Array) -> jax.Array:
        """[B, L, U] → [B, H, L, D]."""
        return jnp.moveaxis(x.reshape(*x.shape[:-1], self.heads, self.width), 1, 2)


class RelativeBias(nnx.Module):
    """One number for each head and bucket of distances; `both` tells apart what lies before from what lies after."""

    def __init__(self, heads: int, buckets: int, reach: int, both: bool, *, rngs: nnx.Rngs) -> None:
        self.buckets, self.reach, self.both = buckets, reach, both
        self.table = nnx.Param(jax.nn.initializers.normal(0.02)(rngs.params(), (buckets, heads)))

    def __call__(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        """Positions int32 [L] and [M] → bias [H, L, M]."""
        bucket = bucket_of(keys - queries[:, None], self.buckets, self.reach, self.both)
        return jnp.moveaxis(self.table[...][bucket], -1, 0)


def bucket_of(distance: jax.Array, buckets: int, reach: int, both: bool) -> jax.Array:
    """The bucket of key position − query position, int32 [...] → int32 [...] in 0 … buckets − 1.

    Half of the buckets hold one distance each, from 0 on; the other half grow geometrically up to `reach`, and what is
    farther is in the last. With `both` the upper half of all buckets is for keys that come after the query; without,
    those count as distance 0, being masked anyway (Raffel et al. 2020, section 2.1; their code's rule).
    """
    after = jnp.zeros_like(distance)
    if both:
        buckets //= 2
        after = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    ratio = jnp.log(jnp.maximum(distance, exact) / exact) / math.log(reach / exact)
    far = exact + (ratio * (buckets - exact)).astype(jnp.int32)
    return after + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))


class FeedForward(nnx.Module):
    """Two layers on each token alone, [..., U] → [..., U]."""

    def __init__(self, units: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.expand = Dense(units, hidden, rngs=rngs)
        self.contract = Dense(hidden, units, rngs=rngs)

    def __call__(self, x: jax.Array, drop: Dropout) -> jax.Array:
        return self.contract(drop(jax.nn.relu(self.expand(x))))


class EncoderBlock(nnx.Module):
    """Attention to all tokens, and a feed-forward layer."""

    def __init__(self, units: int, heads: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.before_attention = nnx.LayerNorm(units, rngs=rngs)
        self.attention = MultiHeadAttention(units, heads, rngs=rngs)
        self.before_feed = nnx.LayerNorm(units, rngs=rngs)
        self.feed = FeedForward(units, hidden, rngs=rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, mask: jax.Array, drop: Dropout) -> tuple[jax.Array, jax.Array]:
        """`x` [B, L, U] → the same shape, and the attention's weights [B, H, L, L]."""
        heard, weights = self.attention(self.before_attention(x), bias=bias, mask=mask)
        x = x + drop(heard)
        return x + drop(self.feed(self.before_feed(x), drop)), weights


class Encoder(nnx.Module):
    """A stack of blocks over a whole sequence."""

    def __init__(
        self, units: int, layers: int, heads: int, hidden: int, buckets: int = 32, reach: int = 128, *, rngs: nnx.Rngs
    ) -> None:
        self.bias = RelativeBias(heads, buckets, reach, both=True, rngs=rngs)
        self.blocks = nnx.List([EncoderBlock(units, heads, hidden, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(units, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, drop: Dropout | None = None) -> tuple[jax.Array, jax.Array]:
        """Embedded tokens [B, L, U], `mask` bool [B, L] where there are any → (states [B, L, U], weights).

        Weights are [B, layers, H, L, L]. States of tokens that aren't there mean nothing.
        """
        drop = drop or Dropout()
        position = jnp.arange(x.shape[1])
        bias, weights = self.bias(position, position), []
        for block in self.blocks:
            x, one = block(x, bias, mask[:, None, None], drop)
            weights.append(one)
        return self.norm(x), jnp.stack(weights, axis=1)


class DecoderState(NamedTuple):
    """What a decoder carries from token to token; every array has the batch first, so that beams are gathered alike.

    Attributes:
      own: keys and values of the tokens so far, of each layer, with room for C.
      cross: those of the memory, worked out once.
      mask: bool [B, M], the memory's tokens that are there.
      position: int32 [B], number of tokens so far, the same in all rows.
    """

    own: tuple[Cache, ...]
    cross: tuple[Cache, ...]
    mask: jax.Array
    position: jax.Array


class DecoderBlock(nnx.Module):
    """Attention to the tokens before, attention to the memory, and a feed-forward layer."""

    def __init__(self, units: int, heads: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.before_own = nnx.LayerNorm(units, rngs=rngs)
        self.own = MultiHeadAttention(units, heads, rngs=rngs)
        self.before_cross = nnx.LayerNorm(units, rngs=rngs)
        self.cross = MultiHeadAttention(units, heads, rngs=rngs)
        self.before_feed = nnx.LayerNorm(units, rngs=rngs)
        self.feed = FeedForward(units, hidden, rngs=rngs)

    def __call__(
        self, x: jax.Array, own: Cache, cross: Cache, biases: Pair, masks: Pair, drop: Dropout
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`x` [B, L, U] asks the caches, a bias and a mask for each: the same shape, and both attentions' weights."""
        heard, to_own = self.own.attend(self.before_own(x), own, biases[0], masks[0])
        x = x + drop(heard)
        heard, to_cross = self.cross.attend(self.before_cross(x), cross, biases[1], masks[1])
        x = x + drop(heard)
        return x + drop(self.feed(self.before_feed(x), drop)), to_own, to_cross

    def remember(self, x: jax.Array) -> Cache:
        """Keys and values of tokens [B, L, U] for those after them."""
        return self.own.remember(self.before_own(x))


class Decoder(nnx.Module):
    """A stack of blocks that reads an encoder's states; all at once for training, token by token for decoding."""

    def __init__(
        self, units: int, layers: int, heads: int, hidden: int, buckets: int = 32, reach: int = 128, *, rngs: nnx.Rngs
    ) -> None:
        self.bias = RelativeBias(heads, buckets, reach, both=False, rngs=rngs)
        self.blocks = nnx.List([DecoderBlock(units, heads, hidden, rngs=rngs) for _ in range(layers)])
        self.norm = nnx.LayerNorm(units, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array,
        drop: Dropout | None = None,
        cross_bias: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Teacher forcing: inputs [B, L, U], each of which sees itself and those before it, and all of the memory.

        `memory` [B, M, U], `mask` bool [B, M] where there is any; `cross_bias` [H, L, M] where the two share a clock,
        so that how far apart they are means something. Returns states [B, L, U], and the weights of the
        attention to the tokens before [B, layers, H, L, L] and to the memory [B, layers, H, L, M].
        """
        drop = drop or Dropout()
        position = jnp.arange(x.shape[1])
        biases = self.bias(position, position), cross_bias
        masks = position[:, None] >= position, mask[:, None, None]
        to_own, to_cross = [], []
        for block in self.blocks:
            x, one, other = block(x, block.remember(x), block.cross.remember(memory), biases, masks, drop)
            to_own.append(one)
            to_cross.append(other)
        return self.norm(x), jnp.stack(to_own, axis=1), jnp.stack(to_cross, axis=1)

    def start(self, memory: jax.Array, mask: jax.Array, capacity: int) -> DecoderState:
        """The state before the first token, with room for `capacity` tokens; `memory` and `mask` as for a call."""
        size, first = len(memory), self.blocks[0].own
        own = tuple(Cache.empty(size, first.heads, capacity, first.width) for _ in self.blocks)
        cross = tuple(block.cross.remember(memory) for block in self.blocks)
        return DecoderState(own, cross, mask, jnp.zeros(size, jnp.int32))

    def step(
        self, state: DecoderState, x: jax.Array, cross_bias: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, DecoderState]:
        """One input [B, U]: a call's result there [B, U], its weights to the memory [B, layers, H, M], new state.

        `cross_bias` [H, 1, M] is its row of a call's.
        """
        at = state.position[0]
        places = jnp.arange(state.own[0].keys.shape[2])
        biases, masks = (self.bias(at[None], places), cross_bias), (places <= at, state.mask[:, None, None])
        x = x[:, None]
        own, to_cross = [], []
        for block, before, cross in zip(self.blocks, state.own, state.cross, strict=True):
            put = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=2)  # noqa: E731
            own.append(Cache(*map(put, before, block.remember(x))))
            x, _, weights = block(x, own[-1], cross, biases, masks, Dropout())
            to_cross.append(weights[:, :, 0])
        state = DecoderState(tuple(own), state.cross, state.mask, state.position + 1)
        return self.norm(x)[:, 0], jnp.stack(to_cross, axis=1), state
