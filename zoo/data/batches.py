"""Endless shuffled batches, of which each is a pure function of the seed and its number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def bucketed(
    windows: Array,
    lengths: npt.NDArray[np.int64],
    buckets: Sequence[int],
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    augment: Augment | None = None,
) -> Iterator[dict[str, Array]]:
    """As `batches`, of windows [W, T, ...] that are padded behind their `lengths`: those of a batch are of like length.

    A batch holds windows of one bucket, cut to its length, so that little padding is worked on and as many programs
    are compiled as there are buckets. Of a shorter bucket more windows make a batch: all batches cost about the same.
    An epoch has every window at least once, the last batch of a bucket being filled up from its first, and its batches
    come in random order.

    Args:
      buckets: lengths, ascending; the last is T at least as long as the longest window.
      batch_size: windows of the last bucket.

    Raises:
      InputError: as for `batches`, or a window is longer than the last bucket.
    """
    if not len(windows):
        raise InputError("no windows to make batches of: add pieces to the training split")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: a batch holds at least one window")
    if lengths.max() > buckets[-1]:
        raise InputError(f"buckets={list(buckets)}: a window is {lengths.max()} long; let the last be as long")
    bucket_of = np.searchsorted(buckets, lengths)
    members = [np.flatnonzero(bucket_of == i) for i in range(len(buckets))]
    sizes = [batch_size * buckets[-1] // bucket for bucket in buckets]
    counts = [-(-len(rows) // size) for rows, size in zip(members, sizes, strict=True)]

    @lru_cache(maxsize=2)
    def plan(epoch: int) -> list[tuple[int, npt.NDArray[np.int64]]]:
        rng = np.random.default_rng((seed, 0, epoch))
        shuffled = [rng.permutation(rows) for rows in members]
        made = [
            (bucket, part)
            for bucket, rows, size, n in zip(buckets, shuffled, sizes, counts, strict=True)
            for part in np.resize(rows, (n, size))
        ]
        return [made[i] for i in rng.permutation(len(made))]

    def make(step: int) -> dict[str, Array]:
        epoch, place = divmod(step, sum(counts))
        bucket, chosen = plan(epoch)[place]
        x = windows[chosen][:, :bucket]
        return {"x": x if augment is None else augment(x, np.random.default_rng((seed, 1, step)))}

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
