"""Parameters by name: nested dicts of arrays, seen as `encoder.forward.kernel → array`, and chosen by pattern."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from zoo.errors import TrainingError

Params = dict[str, Any]  # nested; leaves are arrays; `nnx.merge(graphdef, params)` takes it as it is


def as_params(tree: nnx.State | Params) -> Params:
    """The plain nested dict of an nnx.State: the same content, at half the Python cost a step."""
    return nnx.to_pure_dict(tree) if isinstance(tree, nnx.State) else tree


def dotted(path: Iterable[Any]) -> str:
    """("blocks", 0, "kernel") → "blocks.0.kernel"."""
    return ".".join(map(str, path))


def flatten(params: nnx.State | Params) -> dict[str, Any]:
    """{"encoder": {"kernel": w}} → {"encoder.kernel": w}: the names that weight files carry."""
    return {dotted(path): leaf for path, leaf in flatten_dict(as_params(params)).items()}


def matching(patterns: Sequence[str], names: Collection[str]) -> set[str]:
    """The names that any shell-style pattern (`encoder.*`) matches; TrainingError for a pattern that matches none."""
    chosen: set[str] = set()
    for pattern in patterns:
        hits = {name for name in names if fnmatchcase(name, pattern)}
        if not hits:
            nearest = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
            raise TrainingError(f"no parameter matches '{pattern}'; the nearest are {', '.join(nearest)}")
        chosen |= hits
    return chosen


def partition(params: Params, freeze: Sequence[str]) -> tuple[Params, Params]:
    """(trained, frozen): two nested dicts that `combine` puts together again."""
    frozen = matching(freeze, flatten(params).keys())
    parts: tuple[dict, dict] = ({}, {})
    for path, leaf in flatten_dict(params).items():
        parts[dotted(path) in frozen][path] = leaf
    if not parts[0]:
        raise TrainingError(f"freezing {', '.join(freeze)} leaves no parameter to train")
    return unflatten_dict(parts[0]), unflatten_dict(parts[1])


def combine(*parts: Params) -> Params:
    """One nested dict from several that share no leaf."""
    return unflatten_dict({path: leaf for part in parts for path, leaf in flatten_dict(part).items()})
