"""Files of notes as recordings of which every beat is known, for models of sound that learn where beats are.

Some seconds from the middle of a piece are played through the soundfont. A piano alone would teach what beats of pianos
sound like, so some pieces get other instruments, a drummer who plays along, and another tempo; which ones follows from
the name of the file, so that a piece always sounds the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.data import pop909
from zoo.errors import InputError
from zoo.music import beats, io
from zoo.music.beats import Beat
from zoo.music.metre import grid
from zoo.music.score import Score

RATE = 22050  # Hz
INSTRUMENTS = (0, 1, 4, 5, 11, 24, 25, 26, 27, 48, 50, 56, 61, 65, 73, 80, 81)  # pianos, guitars, strings, winds, leads
BASSES = (32, 33, 34, 38)
TEMPO = (0.85, 1.18)  # factors
KICK, SNARE, HAT, RIDE = 36, 38, 42, 51
LEVELS = 24  # of velocity, from one that is told apart to the next
LOWEST = 48  # a bass may play what lies below

# A bar of drums in sixteenths, by metre: where the kick is and where the snare is.
PATTERNS: dict[int, tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]] = {
    4: (
        ((0, 8), (4, 12)),
        ((0, 6, 8), (4, 12)),
        ((0, 10), (4, 12)),
        ((0, 4, 8, 12), (4, 12)),
        ((0, 3, 8, 11), (4, 12)),
        ((0, 7, 10), (4, 12, 15)),
        ((0,), (8,)),
    ),
    3: (((0,), (4, 8)), ((0,), (8,)), ((0, 6), (4,))),
}


class Played(NamedTuple):
    """Sound, float32 [N] at `RATE` Hz, and its beats."""

    samples: npt.NDArray[np.float32]
    beats: list[Beat]


def play(path: Path, name: str, seconds: float) -> Played:
    """`seconds` of a file of notes, or all of it if it is shorter; `name` decides how it sounds.

    Raises:
      InputError: no file of notes, none in it, or its notes don't keep to its beats.
    """
    from zoo.show.audio import render

    score = pop909.read_song(path) if pop909.is_song(path) else io.read(path)
    if not len(score):
        raise InputError(f"{path}: no notes; leave it out")
    if not beats.keeps_beats(score):
        raise InputError(f"{path}: its notes don't keep to its beats; quantise it, or leave it out")
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest(), "u4"))
    score = arranged(excerpt(score, seconds), rng)
    sound = render(score, RATE).mean(axis=1)
    return Played(sound, [beat for beat in beats.of_score(score) if beat.time < len(sound) / RATE])


def excerpt(score: Score, seconds: float) -> Score:
    """`seconds` from the middle, from the beginning of a bar on."""
    first = score.seconds_at(score.start[0])
    begin = max(first, (first + score.seconds_at(score.quarters) - seconds) / 2)
    bars = grid(score, score.quarters)[0]
    at = float(bars[max(0, int(np.searchsorted(bars, score.quarters_at(begin), side="right")) - 1)])
    end = score.quarters_at(score.seconds_at(at) + seconds)
    within = score.select((score.start >= at - 0.1) & (score.start < end))
    return replace(
        within,
        start=np.maximum(within.start - at, 0.0),
        end=np.minimum(np.maximum(within.end - at, 0.05), float(end) - at),
        tempos=_from(score.tempos, at, (120.0,)),
        meters=_from(score.meters, at, (4.0, 4.0)),
        bends=score.bends[:0],
        chords=(),
    )


def _from(rows: npt.NDArray[np.float64], at: float, usual: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Rows (quarter, …) of a piece that begins at quarter `at`: what holds there stands at 0."""
    before = rows[rows[:, 0] <= at]
    here = before[-1, 1:] if len(before) else np.array(usual)
    after = rows[rows[:, 0] > at] - np.eye(1, rows.shape[1]) * at
    return np.vstack([[0.0, *here], after])


def arranged(score: Score, rng: np.random.Generator) -> Score:
    """With other instruments, perhaps drums, and at another tempo."""
    tempo = np.exp(rng.uniform(*np.log(TEMPO)))
    softer = np.clip(score.velocity // LEVELS * LEVELS + LEVELS // 2, 1, 127)  # alike notes are worked out once
    score = replace(score, tempos=score.tempos * [1.0, tempo], velocity=softer, end=score.start + _coarse(score))
    if score.is_drum.all():
        return score
    tracks = int(score.track.max()) + 1
    programs = rng.choice(INSTRUMENTS, tracks)[score.track]
    if rng.random() < 0.4:
        programs = score.program
    low = (score.pitch < LOWEST) & (rng.random() < 0.5)
    score = replace(score, program=np.where(low & ~score.is_drum, rng.choice(BASSES), programs).astype(np.int32))
    if rng.random() < 0.6 and not score.is_drum.any():
        return with_drums(score, rng)
    return score


def _coarse(score: Score) -> npt.NDArray[np.float64]:
    """Lengths of notes, made a sixteenth, an eighth, a quarter, …, whichever is next: most are alike then."""
    lengths = np.maximum(score.end - score.start, 0.25)
    return np.asarray(2.0 ** np.ceil(np.log2(lengths)), np.float64)


def with_drums(score: Score, rng: np.random.Generator) -> Score:
    """A drummer plays along, a pattern of bars of four or three quarters and a fill now and then."""
    bars = grid(score, score.quarters)[0]
    notes: list[tuple[float, int, int]] = []
    choice, hat, loud = rng.random(), int(rng.choice([HAT, HAT, RIDE])), int(rng.integers(70, 110))
    every = int(rng.choice([1, 2, 2, 4]))  # sixteenths from one stroke of the hi-hat to the next
    for begin, end in pairwise(bars):
        patterns = PATTERNS.get(round(end - begin))
        if patterns is None:
            continue
        kicks, snares = patterns[int(choice * len(patterns))]
        strokes = [(k, KICK) for k in kicks] + [(k, SNARE) for k in snares]
        steps = round(4 * (end - begin))
        strokes += [(k, hat) for k in range(0, steps, every)]
        if rng.random() < 0.1:
            strokes += [(k, SNARE) for k in range(steps - 4, steps)]
        notes += [(begin + k / 4, pitch, loud - 25 * (k % 4 != 0)) for k, pitch in strokes]
    if not notes:
        return score
    at, pitch, velocity = (np.array(column) for column in zip(*notes, strict=True))
    late = np.clip(rng.normal(0.0, 0.01, len(at)), -0.03, 0.03)
    return Score.of(
        np.concatenate([score.start, np.maximum(at + late, 0.0)]),
        np.concatenate([score.end, np.maximum(at + late, 0.0) + 0.2]),
        np.concatenate([score.pitch, pitch]),
        np.concatenate([score.velocity, np.clip(velocity + rng.integers(-8, 9, len(at)), 1, 127)]),
        np.concatenate([score.track, np.full(len(at), score.track.max(initial=0) + 1)]),
        np.concatenate([score.program, np.zeros(len(at), np.int32)]),
        np.concatenate([score.is_drum, np.ones(len(at), bool)]),
        tempos=score.tempos,
        meters=score.meters,
        source=score.source,
    )
