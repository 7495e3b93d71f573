"""A song compared with itself: where it changes, by its features alone.

S[i, j], the cosine of frames i and j, shows a section as a bright block on the diagonal, and a repetition as a bright
line beside it. `novelty` looks for corners of blocks (Foote, ICME 2000), `repetition_novelty` for ends of lines (Serrà
et al., IEEE Transactions on Multimedia 16(5), 2014).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def similarity(frames: Floats) -> Floats:
    """Frames [T, F] → cosines [T, T]; a silent frame is like none."""
    unit = frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-6)
    cosines: Floats = unit @ unit.T
    return cosines


def novelty(cosines: Floats, sizes: Sequence[int]) -> Floats:
    """How much more alike what lies before an instant is in itself, and what lies after it, than both to each other.

    Cosines [T, T] → [T + 1, sizes], the checkerboard kernel of Foote's equation 3 with so many frames on either side,
    tapered by nothing, fewer at the song's ends; instant t lies before frame t. Values from −2 to 2.
    """
    total = np.zeros((len(cosines) + 1, len(cosines) + 1))
    np.cumsum(np.cumsum(cosines, axis=0, dtype=np.float64), axis=1, out=total[1:, 1:])
    middle = np.arange(len(cosines) + 1)

    def mean(top: npt.NDArray[np.int64], bottom: npt.NDArray[np.int64], left: npt.NDArray[np.int64]) -> Floats:
        right = left + (bottom - top)
        size = np.maximum((bottom - top) ** 2, 1)
        return (total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]) / size  # type: ignore[no-any-return]

    found = []
    for size in sizes:
        reach = np.minimum(size, np.minimum(middle, len(cosines) - middle))
        before, after = middle - reach, middle + reach
        found.append(mean(before, middle, before) + mean(middle, after, middle) - 2 * mean(before, middle, middle))
    return np.stack(found, axis=1).astype(np.float32)


def repetition_novelty(frames: Floats, memory: int, neighbours: float, width: int) -> Floats:
    """How much what a song repeats changes around each frame, [T] from 0 to 1 (Serrà et al. 2014, equations 1 to 8).

    Args:
      frames: [T, F].
      memory: frames of the stretch that is compared, the last being the frame itself.
      neighbours: share of all frames that count as alike, if they are so mutually.
      width: standard deviation in frames of the smoothing in time.
    """
    from scipy.ndimage import gaussian_filter

    count = len(frames)
    padded = np.pad(frames, ((memory - 1, 0), (0, 0)), mode="edge")
    stretches = np.concatenate([padded[k : k + count] for k in range(memory)], axis=1)
    cosines = similarity(stretches)
    kept = max(1, round(neighbours * count))
    least = -np.partition(-cosines, kept - 1, axis=1)[:, kept - 1]
    alike = (cosines >= least[:, None]) & (cosines >= least[None])
    lag = (np.arange(count)[:, None] + np.arange(count)) % count  # from frame i to i + lag, around the song's end
    lines = np.take_along_axis(alike.astype(np.float32), lag, axis=1)
    lines = gaussian_filter(lines, (width, 0.8), mode=("constant", "wrap"))
    change = np.zeros(count, np.float32)
    change[1:] = np.square(np.diff(lines, axis=0)).sum(axis=1)
    return change / max(float(change.max(initial=0.0)), 1e-9)
