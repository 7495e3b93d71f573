"""What can be counted in phrases of a band, and how far two sets of phrases are apart; in JAX, so that training can.

`x` [B, T, K, P]: 1 where track k sounds pitch p (of which 0 is a C) at step t, else 0; float32 throughout.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

STEPS_PER_BEAT = 4
QUALIFIED = 2  # steps; a note at least so long is no splinter. The paper's grid is finer, and there it is a 32nd note.

# Radii and steps of the three circles that a chroma is projected on: fifths, minor thirds, major thirds (Harte et al.
# 2006, section 3.1).
_CIRCLES = ((1.0, 7 / 6), (1.0, 3 / 2), (0.5, 2 / 3))


def onsets(x: jax.Array) -> jax.Array:
    """1 where a note begins."""
    return x * (1.0 - jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1])


def chroma(x: jax.Array) -> jax.Array:
    """Pitches folded into pitch classes, their numbers added: [B, T, K, 12]."""
    return x.reshape(*x.shape[:3], -1, 12).sum(axis=3)


def empty_bars(x: jax.Array, bar: int) -> jax.Array:
    """EB (Dong et al. 2018): the share of bars in which a track is silent, [B, K]; `bar` in steps."""
    return 1.0 - jnp.mean(_in_bars(x, bar).max(axis=(2, 4)), axis=1)


def used_pitch_classes(x: jax.Array, bar: int) -> tuple[jax.Array, jax.Array]:
    """UPC: pitch classes in the bars where a track plays: their sum over these bars and how many bars, [B, K] each."""
    used = _in_bars(chroma(x), bar).max(axis=2) > 0  # [B, bars, K, 12]
    return used.sum(axis=(1, 3)).astype(jnp.float32), used.any(axis=3).sum(axis=1).astype(jnp.float32)


def qualified_notes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """QN: notes at least QUALIFIED steps long, and all notes: [B, K] each."""
    begins = onsets(x)
    goes_on = jnp.pad(x, ((0, 0), (0, QUALIFIED - 1), (0, 0), (0, 0)))[:, QUALIFIED - 1 :]
    return jnp.sum(begins * goes_on, axis=(1, 3)), jnp.sum(begins, axis=(1, 3))


def tonal_distance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """TD between each two tracks: [B, pairs], summed over the beats where both play, and the number of these.

    The distance of their tonal centroids (Harte et al. 2006, equations 1 and 2).
    """
    beats = chroma(x).reshape(x.shape[0], -1, STEPS_PER_BEAT, x.shape[2], 12).sum(axis=2)  # [B, beats, K, 12]
    total = beats.sum(axis=3, keepdims=True)
    centroid = (beats / jnp.maximum(total, 1.0)) @ _centroids()
    first, second = np.triu_indices(x.shape[2], 1)
    apart = jnp.linalg.norm(centroid[:, :, first] - centroid[:, :, second], axis=-1)  # [B, beats, pairs]
    both = (total[:, :, first, 0] > 0) & (total[:, :, second, 0] > 0)
    return jnp.sum(apart * both, axis=1), both.sum(axis=1).astype(jnp.float32)


def measures(x: jax.Array, bar: int) -> dict[str, jax.Array]:
    """EB, UPC, QN and TD of a batch, over all tracks and pairs: scalars, or a sum and of how many it is, [2]."""
    counted = {
        "used_pitch_classes": used_pitch_classes(x, bar),
        "qualified_notes": qualified_notes(x),
        "tonal_distance": tonal_distance(x),
    }
    return {"empty_bars": jnp.mean(empty_bars(x, bar))} | {
        name: jnp.stack([total.sum(), count.sum()]) for name, (total, count) in counted.items()
    }


def features(x: jax.Array, bar: int) -> jax.Array:
    """A phrase in numbers of about 0 to 1, [B, F]: what each track plays, when, how, and how tracks and bars agree."""
    rows = x.shape[0]
    begins = onsets(x)
    struck = begins.max(axis=3)  # [B, T, K]
    rhythm = _in_bars(struck, bar)  # [B, bars, bar, K]
    notes = jnp.sum(begins, axis=(1, 3))  # [B, K]
    sounding = jnp.sum(x, axis=3)  # [B, T, K]
    busy = jnp.maximum(jnp.sum(sounding > 0, axis=1), 1)
    parts = [
        jnp.sum(chroma(begins), axis=1) / jnp.maximum(notes, 1.0)[..., None],  # pitch classes
        jnp.mean(rhythm, axis=1),  # when in the bar notes begin
        empty_bars(x, bar),
        jnp.mean(sounding, axis=1) / 4,
        jnp.sum(sounding, axis=1) / busy / 4,  # pitches at once
        _ratio(*used_pitch_classes(x, bar)) / 8,
        _ratio(*qualified_notes(x)),
        jnp.sum(x * jnp.linspace(0, 1, x.shape[3]), axis=(1, 3))
        / jnp.maximum(jnp.sum(sounding, axis=1), 1.0),  # height
        jnp.mean(
            jnp.abs(rhythm[:, 1:] - rhythm[:, :-1]), axis=(1, 2)
        ),  # how a bar's rhythm differs from the one before
        _ratio(*tonal_distance(x)),
    ]
    return jnp.concatenate([part.reshape(rows, -1) for part in parts], axis=1)


def energy_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """2 E|a − b| − E|a − a′| − E|b − b′| of two samples [N, F], [M, F] (Székely & Rizzo 2013), without bias.

    0 where both come from one distribution (a draw may lie below), greater the farther apart they are.
    """
    return 2 * jnp.mean(_apart(a, b)) - _mean_of_pairs(a) - _mean_of_pairs(b)


def _apart(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1) + 1e-12)


def _mean_of_pairs(a: jax.Array) -> jax.Array:
    return jnp.sum(_apart(a, a)) / max(1, len(a) * (len(a) - 1))


def _ratio(total: jax.Array, count: jax.Array) -> jax.Array:
    return total / jnp.maximum(count, 1.0)


def _in_bars(x: jax.Array, bar: int) -> jax.Array:
    return x.reshape(x.shape[0], -1, bar, *x.shape[2:])


def _centroids() -> np.ndarray:
    """What each pitch class adds to the six coordinates of a tonal centroid, float32 [12, 6]."""
    classes = np.arange(12)
    points = [r * f(classes * step * np.pi) for r, step in _CIRCLES for f in (np.sin, np.cos)]
    return np.stack(points, axis=1).astype(np.float32)
