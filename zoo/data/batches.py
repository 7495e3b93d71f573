"""Endless shuffled batches, of which each is a pure function of the seed and its number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
Augment: TypeAlias = Callable[[Array, np.random.Generator], Array]


class Rows(Protocol):
    """Examples in order: an array, or what makes one of those that are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any) -> Array:
        """Those that an index array or a slice chooses."""
        ...


Examples: TypeAlias = Mapping[str, Rows]  # by name, "x" and perhaps more, all of one length

_AHEAD = 3  # batches made while the model works on one


def batches(
    windows: Array | Examples, batch_size: int, seed: int = 0, start_step: int = 0, augment: Augment | None = None
) -> Iterator[dict[str, Array]]:
    """Batches `start_step`, `start_step + 1`, … for ever, as {"x": [B, T, ...]} in the dtype of the windows.

    Examples of several arrays give batches of as many, under the same names.

    They walk through one permutation of the windows after another, drawn from (seed, epoch), so that every window comes
    once an epoch; a batch may begin in one epoch and end in the next. A run that resumes at step k asks for
    `start_step=k` and gets what an uninterrupted one would have got. A thread makes them ahead of use; it ends when the
    iterator is closed or forgotten.

    Args:
      windows: [W, T, ...], or arrays of such by name.
      augment: (the batch's "x", generator) → another; the generator is drawn from (seed, step).

    Raises:
      InputError: no windows, or a batch size below 1.
    """
    examples = named(windows)
    size = count_of(examples)
    if not size:
        raise InputError("no windows to make batches of: add pieces to the training split")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: a batch holds at least one window")

    @lru_cache(maxsize=2)
    def order(epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((seed, 0, epoch)).permutation(size)

    def make(step: int) -> dict[str, Array]:
        epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), size)
        chosen = np.concatenate([order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        batch = take(examples, chosen)
        if augment is not None:
            batch["x"] = augment(batch["x"], np.random.default_rng((seed, 1, step)))
        return batch

    return _made_ahead(make, start_step)


def named(windows: Array | Examples) -> Examples:
    """Examples by name; an array alone is called "x"."""
    return windows if isinstance(windows, Mapping) else {"x": windows}


def count_of(examples: Examples) -> int:
    """How many there are."""
    return len(next(iter(examples.values())))


def take(examples: Examples, chosen: Any) -> dict[str, Array]:
    """Those that an index array or a slice chooses."""
    return {name: rows[chosen] for name, rows in examples.items()}


def _made_ahead(make: Callable[[int], dict[str, Array]], start: int) -> Iterator[dict[str, Array]]:
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ahead = deque(thread.submit(make, step) for step in range(start, start + _AHEAD))
        for step in count(start + _AHEAD):
            yield ahead.popleft().result()
            ahead.append(thread.submit(make, step))
