"""Many rows through a network: all at once where that is fast, a few at a time where it isn't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def in_chunks(function: Callable[[Any], Tree], x: Any, count: jax.Array | int, size: int) -> Tree:
    """`function(x)` for rows `x`, arrays [B, ...], row by row independent, of which the first `count` are wanted.

    On a CPU the activations of a few rows stay in its cache, those of many don't: there it goes `size` rows at a time,
    and stops after `count`; what it doesn't reach is zero. So a batch that isn't full costs no more than its rows, and
    one compiled program does for any number of them. A B that `size` doesn't divide goes all at once.
    """
    rows = len(jax.tree.leaves(x)[0])
    if jax.default_backend() != "cpu" or rows <= size or rows % size:
        return function(x)
    shapes = jax.eval_shape(function, x)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def step(i: jax.Array, found: Tree) -> Tree:
        part = function(jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i * size, size), x))
        return jax.tree.map(lambda a, b: jax.lax.dynamic_update_slice_in_dim(a, b, i * size, 0), found, part)

    return jax.lax.fori_loop(0, -(-count // size), step, empty)
