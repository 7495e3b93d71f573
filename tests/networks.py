"""Networks with random weights, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


def drawn(make: Callable[..., Module], *args: Any, **options: Any) -> Module:
    """`make(*args, **options, rngs=…)` with weights from NumPy: JAX would compile an initialiser for each shape."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: make(*args, **options, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], variable: nnx.Variable[Any]) -> nnx.Variable[Any]:
        shape = variable.shape
        value = rng.standard_normal(shape) * (0.1 if len(shape) < 2 else np.prod(shape[:-1]) ** -0.5)
        return variable.replace(jnp.asarray(value + (path[-1] == "scale"), variable.dtype))

    flat = [(path, draw(path, variable)) for path, variable in nnx.to_flat_state(shapes)]
    return nnx.merge(graph, nnx.from_flat_state(flat))
