"""−log p of tokens, and its sums over those that are no padding, against NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from zoo.nn.likelihood import over_tokens, surprise

LOGITS = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)
TOKENS = np.array([[0, 4, 2], [3, 5, 7]], np.int32)  # the last two are padding
NATS = -np.log(np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True))


def test_surprise() -> None:
    found = surprise(jnp.asarray(LOGITS), jnp.asarray(TOKENS))
    expected = np.take_along_axis(NATS, np.minimum(TOKENS, 4)[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_padding_counts_for_nothing() -> None:
    count, sums = over_tokens(jnp.asarray(LOGITS), jnp.asarray(TOKENS))
    there = [(0, 0, 0), (0, 1, 4), (0, 2, 2), (1, 0, 3)]
    assert float(count) == len(there)
    np.testing.assert_allclose(sums["loss"], sum(NATS[place] for place in there), rtol=1e-5)
    assert float(sums["accuracy"]) == sum(LOGITS[b, t].argmax() == token for b, t, token in there)
