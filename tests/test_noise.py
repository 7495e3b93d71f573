"""Random numbers in bulk are as random as those of `jax.random`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn import noise
from zoo.nn.noise import gumbel, octets, words


def test_words_are_all_different_and_every_bit_is_fair() -> None:
    found = np.asarray(words(jax.random.key(0), (301, 333)))
    assert found.dtype == np.uint32
    assert len(np.unique(found)) > found.size * 0.9999
    bits = np.unpackbits(found.reshape(-1, 1).view(np.uint8), axis=1).mean(axis=0)
    np.testing.assert_allclose(bits, 0.5, atol=4 * 0.5 / found.size**0.5)
    other = np.asarray(words(jax.random.key(1), (301, 333)))
    assert (found != other).mean() > 0.999
    np.testing.assert_array_equal(words(jax.random.key(0), (301, 333)), found)


def test_octets_are_uniform() -> None:
    found = np.bincount(np.asarray(octets(jax.random.key(1), (1001, 257))).ravel(), minlength=256)
    expected = 1001 * 257 / 256
    assert np.abs(found - expected).max() < 5 * expected**0.5


def test_gumbel_noise_draws_from_the_softmax() -> None:
    logits = jnp.array([0.0, 1.0, -2.0, 0.5])
    noisy = logits + gumbel(jax.random.key(2), (100_000, 4))
    shares = np.bincount(np.argmax(noisy, axis=-1), minlength=4) / 100_000
    np.testing.assert_allclose(shares, jax.nn.softmax(logits), atol=0.006)


@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_gumbel_noise_is_finite(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the lowest word and of the highest, which would round to u = 1."""
    monkeypatch.setattr(noise, "words", lambda key, shape: jnp.full(shape, word, jnp.uint32))
    assert np.isfinite(gumbel(jax.random.key(0), (3,))).all()


def test_keys_of_another_generator() -> None:
    key = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(words(key, (5, 3)), jax.random.bits(key, (5, 3), jnp.uint32))
