"""Data-parallel training: a mesh and placements, given to the same step and the same `fit`.

mesh = data_mesh()
state = shard(state, mesh)
fit(state, step, lambda start: (shard_batch(batch, mesh) for batch in batches(start)), …)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zoo.errors import TrainingError

Tree = TypeVar("Tree")


def data_mesh() -> Mesh:
    """All devices along one axis, "data"; the compiler places what lies between parameters and loss."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def shard(state: Tree, mesh: Mesh) -> Tree:
    """The state, whole on every device."""
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """The batch, cut along its first axis, a part to each device."""
    for name, array in batch.items():
        if array.shape[0] % mesh.size:
            raise TrainingError(
                f"a batch of {array.shape[0]} ('{name}') can't be cut for {mesh.size} devices; use a multiple"
            )
    return jax.device_put(dict(batch), NamedSharding(mesh, PartitionSpec("data")))
