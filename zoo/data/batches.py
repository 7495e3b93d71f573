"""Endless shuffled batches, of which each is a pure function of the seed and its number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
Augment: TypeAlias = Callable[[Array, np.random.Generator], Array]

_AHEAD = 3  # batches made while the model works on one


def batches(
    windows: Array, batch_size: int, seed: int = 0, start_step: int = 0, augment: Augment | None = None
) -> Iterator[dict[str, Array]]:
    """Batches `start_step`, `start_step + 1`, … for ever, as {"x": [B, T, ...]} in the dtype of the windows.

    They walk through one permutation of the windows after another, drawn from (seed, epoch), so that every window comes
    once an epoch; a batch may begin in one epoch and end in the next. A run that resumes at step k asks for
    `start_step=k` and gets what an uninterrupted one would have got. A thread makes them ahead of use; it ends when the
    iterator is closed or forgotten.

    Args:
      windows: [W, T, ...].
      augment: (batch, generator) → batch; the generator is drawn from (seed, step).

    Raises:
      InputError: no windows, or a batch size below 1.
    """
    if not len(windows):
        raise InputError("no windows to make batches of: add pieces to the training split")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: a batch holds at least one window")

    @lru_cache(maxsize=2)
    def order(epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng((seed, 0, epoch)).permutation(len(windows))

    def make(step: int) -> dict[str, Array]:
        epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), len(windows))
        chosen = np.concatenate([order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        batch = windows[chosen]
        return {"x": batch if augment is None else augment(batch, np.random.default_rng((seed, 1, step)))}

    return _made_ahead(make, start_step)


def _made_ahead(make: Callable[[int], dict[str, Array]], start: int) -> Iterator[dict[str, Array]]:
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ahead = deque(thread.submit(make, step) for step in range(start, start + _AHEAD))
        for step in count(start + _AHEAD):
            yield ahead.popleft().result()
            ahead.append(thread.submit(make, step))
