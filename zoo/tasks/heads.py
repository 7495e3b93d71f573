"""A classifier's new last layer for classes of a user's own; see `zoo.models.architecture.Head`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import data as corpora
from zoo.errors import InputError
from zoo.models.architecture import Head
from zoo.tasks.model import Found

AT_ONCE = 16  # examples of one compiled call


def with_classes(
    found: Found, module: nnx.Module, head: Head, classes: tuple[str, ...], seed: int
) -> tuple[Found, nnx.Module]:
    """The model with a last layer for `classes`, whose names go into its configuration, and so into the run's files.

    Raises InputError if there is nothing to tell apart.
    """
    if len(classes) < 2:
        raise InputError(f"{found.name}: one class alone can't be learnt; put sound into a folder for each of several")
    adapted = head.adapt(module, classes, nnx.Rngs(seed))
    facts = {**found.facts, "config": json.loads(json.dumps(asdict(adapted.config)))}
    return replace(found, config=adapted.config, facts=facts), adapted


def embedded(module: nnx.Module, head: Head, examples: corpora.Examples) -> corpora.Examples:
    """Examples whose "x" is replaced by what the last layer reads, worked out once: only that layer is trained."""
    from tqdm import tqdm

    graph, state = nnx.split(module)
    embed = jax.jit(lambda state, x: head.embed(nnx.merge(graph, state), x))
    rows, size = [], corpora.count_of(examples)
    with tqdm(desc="embedding", total=size, delay=2, leave=False, disable=None, file=sys.stderr) as bar:
        for at in range(0, size, AT_ONCE):
            x = examples["x"][at : at + AT_ONCE]
            padded = np.concatenate([x, np.zeros((AT_ONCE - len(x), *x.shape[1:]), x.dtype)])
            rows.append(np.asarray(embed(state, jnp.asarray(padded)))[: len(x)])
            bar.update(len(x))
    return {"embedding": np.concatenate(rows)} | {name: each for name, each in examples.items() if name != "x"}


def check_classes(found: Found, classes: tuple[str, ...]) -> None:
    """InputError unless the folders of a data set are the model's own classes."""
    known = found.config.tags
    if found.config.head != "classes" or known != classes:
        told = ", ".join(known[:5]) + (", …" if len(known) > 5 else "")
        raise InputError(
            f"{found.name}: answers {told}, and the folders are {', '.join(classes[:5])}; fine-tune it on them first"
        )
