"""Low-rank adaptation, LoRA (Hu et al. 2021): fine-tune W + (alpha / r) · A·B, with W fixed and A, B small.

Our kernels are [in, out] (y = x W), the transpose of the paper's: A is [in, r], B is [r, out]. The sum is formed on the
parameters, before the model sees them, so every architecture can be adapted without a change to its file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from zoo.errors import TrainingError
from zoo.training.params import Params, as_params, dotted, flatten, matching


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapters:
    """What LoRA trains, by the dotted name of the kernel that it adapts."""

    a: dict[str, jax.Array]  # name → [in, r]
    b: dict[str, jax.Array]  # name → [r, out]
    scale: float = dataclasses.field(metadata={"static": True})  # alpha / r


def lora_init(
    params: nnx.State | Params, patterns: Sequence[str], rank: int, key: jax.Array, alpha: float | None = None
) -> Adapters:
    """Adapters for the 2-D kernels that the patterns match: A Gaussian of variance 1/in, B and so A·B zero (§4.1).

    `alpha` is the rank unless given, so that the scale is 1.
    """
    flat = flatten(params)
    kernels = {name: leaf for name, leaf in flat.items() if leaf.ndim == 2}
    chosen = sorted(matching(patterns, kernels.keys()))
    if rank < 1:
        raise TrainingError(f"the rank of LoRA adapters is at least 1, not {rank}")
    a, b = {}, {}
    for name, subkey in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        rows, columns = kernels[name].shape
        dtype = kernels[name].dtype
        a[name] = jax.random.normal(subkey, (rows, rank), dtype) / jnp.sqrt(rows).astype(dtype)
        b[name] = jnp.zeros((rank, columns), dtype)
    return Adapters(a, b, (rank if alpha is None else alpha) / rank)


def lora_merge(params: nnx.State | Params, adapters: Adapters) -> Params:
    """Parameters of the same structure with W + scale · A·B (§4.1) in place of each adapted W."""
    merged = {}
    for path, leaf in flatten_dict(as_params(params)).items():
        name = dotted(path)
        adapted = name in adapters.a
        merged[path] = leaf + adapters.scale * (adapters.a[name] @ adapters.b[name]) if adapted else leaf
    return unflatten_dict(merged)


def label(patterns: Mapping[str, Sequence[str]], trained: Params | Adapters) -> Params | Adapters:
    """The same tree with, in place of each array, the name whose patterns its parameter's name matches.

    Raises:
      TrainingError: a parameter that no pattern matches.
    """

    def label_of(name: str) -> str:
        for chosen, each in patterns.items():
            if any(fnmatchcase(name, pattern) for pattern in each):
                return chosen
        raise TrainingError(f"no player moves '{name}'; let a pattern of [optimizer.players] match it")

    if isinstance(trained, Adapters):
        labels: dict[str, Any] = {name: label_of(name) for name in trained.a}
        return dataclasses.replace(trained, a=labels, b=labels)
    return unflatten_dict({path: label_of(dotted(path)) for path in flatten_dict(trained)})
