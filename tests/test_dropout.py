"""Dropout: how much it keeps, that means stay, and that a key decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.dropout import Dropout


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.9])
def test_share_and_mean(keep: float) -> None:
    x = Dropout(keep, jax.random.key(0))(jnp.ones((50, 40, 31)))
    assert np.mean(np.asarray(x) > 0) == pytest.approx(keep, abs=0.01)
    assert float(jnp.mean(x)) == pytest.approx(1.0, abs=0.02)


def test_calls_differ_and_keys_repeat() -> None:
    x = jnp.ones((8, 33))
    drop, again = Dropout(0.5, jax.random.key(2)), Dropout(0.5, jax.random.key(2))
    first, second = drop(x), drop(x)
    assert not jnp.array_equal(first, second)
    np.testing.assert_array_equal(first, again(x))


def test_nothing_without_a_key() -> None:
    x = jnp.ones((3, 5))
    assert Dropout()(x) is x
    assert Dropout(1.0, jax.random.key(0))(x) is x
