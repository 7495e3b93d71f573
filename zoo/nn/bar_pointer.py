"""Beats and bars from how likely they are on each frame: a hidden Markov model of where in its bar the music is.

Krebs, Böck and Widmer, "An efficient state-space model for joint tempo and meter tracking", ISMIR 2015, after the bar
pointer of Whiteley, Cemgil and Godsill, ISMIR 2006.

A state is (beat of the bar b, frames a beat i, frames since the beat began f). Each frame f goes up by one; after i
frames the next beat begins, whose length may be another, j, by log odds of −λ |j / i − 1|. A beat's first
1 / `SHARE` is where one is heard, and the rest is where none is.

Shapes: `T` frames, `M` beats of a bar, `I` lengths of a beat from `shortest` on, `F` = the longest of them.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

SHARE = 16  # λ of section 3.2: a beat is its first sixteenth
FLOOR = 1e-6  # of a probability
ROOM = 1024  # frames: a recording is padded to a multiple of these, so that few programs are compiled

Ints = npt.NDArray[np.int64]


class Path(NamedTuple):
    """The likeliest way through a recording: the frames on which beats begin [N], their places in the bar from 0 on
    [N], and the log-likelihood of it all.
    """

    frames: Ints
    places: Ints
    likelihood: float


def track(beat: npt.ArrayLike, downbeat: npt.ArrayLike, meter: int, shortest: int, longest: int, steady: float) -> Path:
    """Viterbi's path for bars of `meter` beats.

    Args:
      beat, downbeat: probabilities [T] of a beat, and of one that begins a bar.
      shortest, longest: frames a beat.
      steady: λ.
    """
    count = len(np.asarray(beat))
    padded = [np.pad(np.asarray(p, np.float32), (0, -count % ROOM)) for p in (beat, downbeat)]
    scores, came_from = forward(*padded, jnp.int32(count), meter, shortest, longest, steady)
    best = int(scores.argmax())
    place, length, frame = (int(at) for at in np.unravel_index(best, scores.shape))
    frames, places, sources = [], [], np.asarray(came_from)
    begin = count - 1 - frame
    while begin >= 0:
        frames.append(begin)
        places.append(place)
        length = int(sources[begin, place, length])
        place, begin = (place - 1) % meter, begin - (shortest + length)
    return Path(np.array(frames[::-1], np.int64), np.array(places[::-1], np.int64), float(scores.max()))


@partial(jax.jit, static_argnames=("meter", "shortest", "longest"))
def forward(
    beat: jax.Array, downbeat: jax.Array, count: jax.Array, meter: int, shortest: int, longest: int, steady: float
) -> tuple[jax.Array, jax.Array]:
    """(log-likelihood of the best way to each state at the last frame [M, I, F], from which length a beat came).

    The latter is int16 [T, M, I]: the index of the length of the beat before the one that begins at a frame. Frames
    from `count` on change nothing.
    """
    lengths = jnp.arange(shortest, longest + 1)
    age = jnp.arange(longest)
    change = -steady * jnp.abs(lengths / lengths[:, None] - 1.0)  # [from, to]
    change = change - jax.nn.logsumexp(change, axis=1, keepdims=True)
    alive = age < lengths[:, None]  # [I, F]
    heard = age < jnp.maximum(1, lengths[:, None] / SHARE)
    last = jnp.broadcast_to((lengths - 1)[None, :, None], (meter, len(lengths), 1))
    first = jnp.arange(meter)[:, None, None] == 0

    def step(scores: jax.Array, frame: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        p, d, at = frame
        ended = jnp.roll(jnp.take_along_axis(scores, last, axis=2)[..., 0], 1, axis=0)  # [M, I], of the beat before
        ways = ended[:, :, None] + change  # [M, from, to]
        older = jnp.concatenate([ways.max(axis=1)[..., None], scores[..., :-1]], axis=2)
        on = jnp.where(first, d, jnp.maximum(p - d, FLOOR))
        off = jnp.maximum(1.0 - p, FLOOR) / (SHARE - 1)
        moved = jnp.where(alive, older + jnp.log(jnp.where(heard, on, off)), -jnp.inf)
        return jnp.where(at < count, moved, scores), ways.argmax(axis=1).astype(jnp.int16)

    start = jnp.where(alive, -jnp.log(meter * lengths.sum()), -jnp.inf)
    start = jnp.broadcast_to(start, (meter, *start.shape))
    p, d = (jnp.clip(x, FLOOR, 1.0) for x in (beat, downbeat))
    return jax.lax.scan(step, start, (p, d, jnp.arange(len(beat))))
