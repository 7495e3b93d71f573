"""The transformer's layers: buckets of distances, masks, causality, and decoding step by step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.networks import drawn
from zoo.nn.transformer import Decoder, Encoder, MultiHeadAttention, bucket_of

B, L, M, U, HEADS, LAYERS = 2, 7, 5, 8, 2, 2


@pytest.fixture(scope="module", autouse=True)
def _precise() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_buckets() -> None:
    """By hand: 8 buckets each way up to 16 tokens; four have a distance each."""
    before = [int(bucket_of(jnp.int32(-d), 8, 16, both=False)) for d in (0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 16, 999)]
    assert before == [0, 1, 2, 3, 4, 4, 5, 6, 6, 7, 7, 7]
    assert int(bucket_of(jnp.int32(3), 8, 16, both=False)) == 0
    distances = jnp.arange(-40, 41)
    both = np.asarray(bucket_of(distances, 16, 16, both=True))
    np.testing.assert_array_equal(both[40:0:-1][:40] + 8 * (np.arange(40) > 0), both[40:80])
    assert all(a >= b for a, b in pairwise(both[:41]))


def test_attention_by_hand() -> None:
    """One head at a time in NumPy."""
    attention = drawn(MultiHeadAttention, U, HEADS)
    x, memory, bias = normal(0, B, L, U), normal(1, B, M, U), normal(2, HEADS, L, M)
    mask = np.ones((B, 1, 1, M), bool)
    mask[1, ..., -2:] = False
    y, weights = attention(x, memory, bias, jnp.asarray(mask))
    q = np.asarray(attention.query(x)).reshape(B, L, HEADS, -1)
    k, v = np.split(np.asarray(attention.key_value(memory)), 2, axis=-1)
    k, v = k.reshape(B, M, HEADS, -1), v.reshape(B, M, HEADS, -1)
    heard = np.zeros((B, L, HEADS, U // HEADS))
    for b in range(B):
        for h in range(HEADS):
            scores = q[b, :, h] @ k[b, :, h].T / (U / HEADS) ** 0.5 + np.asarray(bias)[h]
            scores = np.exp(scores) * mask[b, 0]
            scores /= scores.sum(axis=-1, keepdims=True)
            np.testing.assert_allclose(weights[b, h], scores, atol=1e-6)
            heard[b, :, h] = scores @ v[b, :, h]
    np.testing.assert_allclose(y, attention.out(jnp.asarray(heard.reshape(B, L, U))), atol=1e-5)


def test_an_encoder_does_not_see_padding() -> None:
    encoder = drawn(Encoder, U, LAYERS, HEADS, 16, 8, 16)
    mask = jnp.arange(L)[None] < jnp.array([L, L - 3])[:, None]
    x = normal(0, B, L, U)
    one, weights = encoder(x, mask)
    other, _ = encoder(jnp.where(mask[..., None], x, 99.0), mask)
    np.testing.assert_allclose(np.asarray(one)[mask], np.asarray(other)[mask], atol=1e-6)
    assert weights.shape == (B, LAYERS, HEADS, L, L)
    assert float(weights[1, ..., L - 3 :].max()) == 0.0
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-6)


def test_an_encoder_knows_places() -> None:
    """Without its bias it would be a function of a set: here order matters, and only by distance."""
    encoder = drawn(Encoder, U, LAYERS, HEADS, 16, 8, 16)
    x, there = normal(0, 1, L, U), jnp.ones((1, L), bool)
    turned = encoder(x[:, ::-1], there)[0][:, ::-1]
    assert float(jnp.abs(turned - encoder(x, there)[0]).max()) > 1e-4
    shifted, mask = jnp.pad(x, ((0, 0), (3, 0), (0, 0))), jnp.pad(there, ((0, 0), (3, 0)))
    np.testing.assert_allclose(encoder(shifted, mask)[0][:, 3:], encoder(x, there)[0], atol=1e-5)


def test_a_decoder_step_by_step() -> None:
    """Cached steps give what a call gives, weights too; rows may be exchanged between steps, as a beam does."""
    decoder = drawn(Decoder, U, LAYERS, HEADS, 16, 8, 16)
    x, memory = normal(0, B, L, U), normal(1, B, M, U)
    mask = jnp.arange(M)[None] < jnp.array([M, M - 2])[:, None]
    whole, own, cross = decoder(x, memory, mask)
    assert own.shape == (B, LAYERS, HEADS, L, L)
    step, state, order = jax.jit(type(decoder).step), decoder.start(memory, mask, L + 2), jnp.array([1, 0])
    for t in range(L):
        h, weights, state = step(decoder, state, x[:, t])
        np.testing.assert_allclose(h, whole[:, t], atol=1e-5)
        np.testing.assert_allclose(weights, cross[..., t, :], atol=1e-5)
        state = jax.tree.map(lambda leaf: leaf[order], state)
        x, whole, cross = x[order], whole[order], cross[order]


def test_a_decoder_is_causal_and_reads_its_memory() -> None:
    decoder = drawn(Decoder, U, LAYERS, HEADS, 16, 8, 16)
    x, memory, mask = normal(0, 1, L, U), normal(1, 1, M, U), jnp.arange(M)[None] < M - 1

    def at(t: int, x: jax.Array, memory: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(decoder(x, memory, mask)[0][0, t]))

    of_x, of_memory = jax.grad(at, argnums=(1, 2))(3, x, memory)
    seen = np.abs(np.asarray(of_x)[0]).sum(axis=-1) > 0
    np.testing.assert_array_equal(seen, np.arange(L) <= 3)
    read = np.abs(np.asarray(of_memory)[0]).sum(axis=-1) > 0
    np.testing.assert_array_equal(read, np.asarray(mask)[0])
