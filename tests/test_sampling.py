"""Drawing tokens: what temperature, top-k and nucleus leave, in which proportions, and that parts make the whole."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.nn.sampling import Sampling, draw, follow, keep_likely, likeliest, rollout

LOGITS = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.1]]))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0, 1, 2, 3]),
        (Sampling(top_k=2), [0, 1]),
        (Sampling(top_k=9), [0, 1, 2, 3]),
        (Sampling(top_p=0.5), [0]),
        (Sampling(top_p=0.51), [0, 1]),
        (Sampling(top_p=0.0), [0]),
        (Sampling(top_k=3, top_p=0.76), [0, 1, 2]),
        (Sampling(temperature=0.1, top_p=0.99), [0]),  # sharper, so the nucleus is smaller
        (Sampling(temperature=9.0, top_p=0.76), [0, 1, 2]),
    ],
)
def test_what_stays(sampling: Sampling, kept: list[int]) -> None:
    assert np.flatnonzero(np.isfinite(keep_likely(LOGITS, sampling)[0])).tolist() == kept


def test_the_likeliest_is_the_first_of_the_highest() -> None:
    logits = jnp.array([[0.0, 2.0, 2.0], [-jnp.inf, -jnp.inf, 1.0], [-jnp.inf] * 3, [3.0, 1.0, 2.0]])
    found = likeliest(logits)
    assert found.dtype == jnp.int32
    assert found.tolist() == jnp.argmax(logits, axis=-1).tolist() == [1, 2, 0, 0]
    assert 0 <= int(likeliest(jnp.array([jnp.nan, 1.0, 2.0]))) < 3  # no class, but one that there is


def test_ties_stay_together() -> None:
    assert np.isfinite(keep_likely(jnp.zeros((1, 5)), Sampling(top_k=2))).all()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.5, 0.25, 0.15, 0.1]),
        (Sampling(temperature=0.0), [1.0, 0.0, 0.0, 0.0]),
        (Sampling(temperature=0.0, top_p=0.9), [1.0, 0.0, 0.0, 0.0]),
        (Sampling(temperature=0.5), [25 / 34.5, 6.25 / 34.5, 2.25 / 34.5, 1 / 34.5]),
        (Sampling(top_k=2), [2 / 3, 1 / 3, 0.0, 0.0]),
        (Sampling(top_p=0.8), [5 / 9, 2.5 / 9, 1.5 / 9, 0.0]),
    ],
)
def test_proportions(sampling: Sampling, expected: list[float]) -> None:
    drawn = draw(jnp.tile(LOGITS, (20000, 1)), jax.random.key(0), sampling)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20000, expected, atol=0.015)


def count_up(state: jax.Array, token: jax.Array, given: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """A model that likes token + 1, and what it is given as context."""
    logits = jax.nn.one_hot((token + 1) % 7, 7) * 2 + (0 if given is None else given)
    return logits + 0.1 * state[:, None], state + 1


def test_a_rollout_in_parts_is_the_whole() -> None:
    start, context = (jnp.zeros(3), jnp.zeros(3, jnp.int32)), jax.random.normal(jax.random.key(1), (3, 12, 7))
    key, sampling = jax.random.key(0), Sampling(top_k=4)
    whole, (state, _) = rollout(count_up, *start, key, 0, 12, sampling, context)
    one, go_on = rollout(count_up, *start, key, 0, 5, sampling, context[:, :5])
    two, (last, _) = rollout(count_up, *go_on, key, 5, 7, sampling, context[:, 5:])
    np.testing.assert_array_equal(whole, jnp.concatenate([one, two], axis=1))
    np.testing.assert_array_equal(state, last)
    assert len(set(map(tuple, np.asarray(whole)))) == 3


def test_following_gives_the_logits_of_each_step() -> None:
    tokens = jnp.array([[0, 3, 5]])
    logits, state = follow(count_up, jnp.zeros(1), tokens)
    np.testing.assert_array_equal(jnp.argmax(logits, axis=-1), [[1, 4, 6]])
    np.testing.assert_allclose(logits[0, :, 0], [0.0, 0.1, 0.2], atol=1e-6)
    assert state[0] == 3
