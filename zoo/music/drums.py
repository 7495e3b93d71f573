"""Drums as MusicVAE has them (Roberts et al. 2018): the drums struck in a sixteenth are the bits of its token.

Bit 0 is the kick, then snare, closed and open hi-hat, low, mid and high tom, crash and ride cymbal: 512 tokens. Which
pitch is which drum, and the pitch a drum is decoded to (the first of each), are Magenta's `DrumsConverter`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.grid import STEPS_PER_BAR, STEPS_PER_QUARTER, Array, cut, quantize, sections, source, window_starts
from zoo.music.score import Score

Tokens: TypeAlias = npt.NDArray[np.int32]

DRUMS = ("kick", "snare", "closed hi-hat", "open hi-hat", "low tom", "mid tom", "high tom", "crash", "ride")
CLASSES = 2 ** len(DRUMS)
_CLOSED, _TOMS, _RIDE = 2, slice(4, 7), 8
NO_HIT = 0

# MIDI pitches of each drum. "gm" takes in all percussion of General MIDI (Magenta's REDUCED_DRUM_PITCH_CLASSES);
# "roland" is the electronic kit of the Groove MIDI Dataset (its ROLAND_DRUM_PITCH_CLASSES): other toms, no percussion.
KITS: dict[str, tuple[tuple[int, ...], ...]] = {
    "gm": (
        (36, 35),
        (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
        (42, 44, 54, 68, 69, 70, 71, 73, 78, 80, 22),
        (46, 67, 72, 74, 79, 81, 26),
        (45, 29, 41, 43, 61, 64, 84),
        (48, 47, 60, 63, 77, 86, 87),
        (50, 30, 62, 76, 83),
        (49, 52, 55, 57, 58),
        (51, 53, 59, 82),
    ),
    "roland": (
        (36,),
        (38, 37, 40),
        (42, 22, 44),
        (46, 26),
        (43, 58),
        (47, 45),
        (50, 48),
        (49, 52, 55, 57),
        (51, 53, 59),
    ),
}
DRUM_PITCHES = np.array([pitches[0] for pitches in KITS["gm"]])


@dataclass(frozen=True)
class DrumsCodec:
    """Score ⇄ windows of drum tokens, int32 [T] in 0..511. Every drum track is part of the one drum kit.

    Decoded drums have the pitches of General MIDI, whatever the kit.

    Attributes:
      bars: length of a window; `steps` is 16 times that.
      kit: which pitches are which drum when encoding: "gm", or "roland" for the Groove MIDI Dataset.
    """

    bars: int = 2
    kit: str = "gm"

    name: ClassVar[str] = "drums"
    kind: ClassVar[str] = "categorical"
    classes: ClassVar[int] = CLASSES
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER
    gap_bars: ClassVar[float] = 1.0  # a rest this long ends a drum track; windows lie within one

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """All windows of the score's drums that have a hit, every `hop_bars` bars, int32 [W, T].

        Raises:
          InputError: nothing usable; the message says why.
        """
        hits = [drum_tokens(part) for part in kit_sections(score, self.kit)]
        return cut_hits(hits, self.bars, hop_bars, self.gap_bars, pad, source(score))

    def tokens(self, score: Score) -> Tokens:
        """The first stretch of 4/4 from the bar where its drums begin to the end of their last bar, int32 [S].

        Raises:
          InputError: nothing usable; the message says why.
        """
        step, struck = drum_tokens(kit_sections(score, self.kit)[0])
        first = int(step[0]) // STEPS_PER_BAR * STEPS_PER_BAR
        length = -(-(int(step[-1]) + 1 - first) // STEPS_PER_BAR) * STEPS_PER_BAR
        tokens: Tokens = cut(step, struck, np.array([first]), length)[0]
        return tokens

    def seconds(self, tokens: npt.ArrayLike, qpm: float = 120.0) -> npt.NDArray[np.float64]:
        """When each step of tokens [T] is, float64 [T + 1]; the last is where the sequence ends."""
        return np.arange(len(np.asarray(tokens)) + 1) / STEPS_PER_QUARTER * (60.0 / qpm)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The hits of one window [T], or of any number of steps, a sixteenth long each."""
        step, drum = np.nonzero(bits(np.asarray(window)))
        return drum_score(step, DRUM_PITCHES[drum], velocity, qpm)

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """The windows as they are: drums have no key."""
        return windows

    def vary(self, windows: Tokens, rng: np.random.Generator) -> Tokens:
        """Windows [W, T] as another drummer might have played them, for training.

        In one of two the bars come in another order. In one of four the closed hi-hat and the ride change places; in
        one of two the toms do, whichever with whichever; and in one of three a drum is silent.
        """
        order = np.argsort(
            rng.random((len(windows), self.bars)) * rng.integers(0, 2, (len(windows), 1)), axis=1, kind="stable"
        )
        bars = windows.reshape(len(windows), self.bars, STEPS_PER_BAR)
        moved = np.take_along_axis(bars, order[..., None], axis=1).reshape(windows.shape)
        drum = np.tile(np.arange(len(DRUMS)), (len(windows), 1))  # [W, 9]: the drum that plays this one's part
        swapped = rng.random(len(windows)) < 1 / 4
        drum[swapped, _CLOSED], drum[swapped, _RIDE] = _RIDE, _CLOSED
        mixed = rng.random(len(windows)) < 1 / 2
        drum[mixed, _TOMS] = rng.permuted(drum[mixed, _TOMS], axis=1)
        weight = 1 << drum
        silent = rng.integers(0, len(DRUMS), len(windows))
        weight[(np.arange(len(DRUMS)) == silent[:, None]) & (rng.random((len(windows), 1)) < 1 / 3)] = 0
        found: Tokens = np.einsum("wtd,wd->wt", bits(moved), weight).astype(windows.dtype)
        return found


def kit_notes(score: Score, kit: str) -> Score:
    """The drum notes of a score, their pitches replaced by the number of the drum, 0 to 8; others are left out."""
    drum_of = np.full(128, -1, np.int32)
    for drum, pitches in enumerate(KITS[kit]):
        drum_of[list(pitches)] = drum
    drums = drum_of[score.pitch]
    return replace(score, pitch=drums).select(score.is_drum & (drums >= 0))


def kit_sections(score: Score, kit: str) -> list[Score]:
    """The stretches of 4/4 of `kit_notes`.

    Raises:
      InputError: there are none, or no such kit.
    """
    if kit not in KITS:
        raise InputError(f"no drum kit named {kit!r}; there are {', '.join(KITS)}")
    notes = kit_notes(score, kit)
    if not len(notes):
        what = "no drum of the kit" if score.is_drum.any() else "no drums" if len(score) else "no notes"
        raise InputError(f"{source(score)}: {what}; pass a file with a drum track (MIDI channel 10)")
    return sections(notes)


def drum_tokens(notes: Score) -> tuple[Array, Tokens]:
    """What `kit_notes` gives as (steps where there are hits, ascending; their tokens)."""
    step, index = np.unique(quantize(notes.start), return_inverse=True)
    struck = np.zeros((len(step), len(DRUMS)), np.int32)
    struck[index, notes.pitch] = 1
    return step, struck @ (1 << np.arange(len(DRUMS), dtype=np.int32))


def cut_hits(
    hits: list[tuple[Array, Array]], bars: int, hop_bars: int, gap_bars: float, pad: bool, where: str
) -> Array:
    """Windows [W, T, ...] of stretches of hits, each (steps, what is struck); see `window_starts`."""
    spans = [(step, step + 1) for step, _ in hits]
    starts = window_starts(spans, bars, hop_bars, gap_bars, pad, where)
    return np.concatenate([cut(*hit, first, bars * STEPS_PER_BAR) for hit, first in zip(hits, starts, strict=True)])


def bits(tokens: Array) -> npt.NDArray[np.bool_]:
    """Which drums tokens [...] strike, bool [..., 9]."""
    return (tokens[..., None] >> np.arange(len(DRUMS)) & 1).astype(np.bool_)


def drum_score(step: Array, pitch: Array, velocity: npt.ArrayLike, qpm: float) -> Score:
    """Hits, a sixteenth long, at `step` (it may have a fraction) as a score of one drum track."""
    start = step / STEPS_PER_QUARTER
    return Score.of(
        start,
        start + 1 / STEPS_PER_QUARTER,
        pitch,
        velocity,
        is_drum=True,
        tempos=np.array([[0.0, qpm]]),
        meters=np.array([[0.0, 4, 4]]),
        track_names=("Drums",),
    )
