"""Three voices side by side, a token each a sixteenth, as MusicVAE's trio models have them (Roberts et al. 2018).

"melody-bass-drums" is Magenta's `TrioConverter`: tracks are told apart by their programs, every combination of a
melody, a bass and a drum track that play at the same time gives windows, and a voice may rest for some bars.
"melody-bridge-bass" is for songs arranged like POP909, whose tracks are told apart by name and have no drums.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import drums, melody
from zoo.music.grid import (
    STEPS_PER_BAR,
    STEPS_PER_QUARTER,
    Array,
    cut,
    exchange_bars,
    quantize,
    sections,
    source,
    track_name,
)
from zoo.music.score import Score

Tokens: TypeAlias = npt.NDArray[np.int32]

_MAX_BARS = 1024  # of a stretch in one metre; what follows is left out
_MAX_COMBINATIONS = 64


@dataclass(frozen=True)
class Voice:
    """One of the three: which tracks can play it, and which of their notes.

    Attributes:
      programs: General MIDI programs of its tracks.
      track: a regular expression that the names of its tracks match, regardless of case.
      drums: it is played by drum tracks.
      lowest, below: the lowest of simultaneous notes, not the highest; only pitches under `below`.
      program: the program it is decoded to.
    """

    name: str
    programs: range = range(128)
    track: str = ""
    drums: bool = False
    lowest: bool = False
    below: int = melody.MAX_PITCH + 1
    program: int = 0


VOICES = {
    "melody-bass-drums": (
        Voice("melody", range(0, 32)),  # piano, chromatic percussion, organ, guitar
        Voice("bass", range(32, 40), program=33),
        Voice("drums", drums=True),
    ),
    "melody-bridge-bass": (
        Voice("melody", track="melody"),
        Voice("bridge", track="bridge", program=24),
        Voice("bass", track="piano|bass", lowest=True, below=60, program=33),
    ),
}


@dataclass(frozen=True)
class TrioCodec:
    """Score ⇄ windows of three voices, int32 [T, 3], by default melody (90 tokens), bass (90) and drums (512).

    Melodic voices take the highest (or lowest) of simultaneous notes. Unlike a melody's, a voice's window may begin
    with the note-off of a note that began before.

    Attributes:
      bars: length of a window; `steps` is 16 times that.
      voices: one of VOICES.
      gap_bars: how many bars a voice may rest before and after it plays.
    """

    bars: int = 16
    voices: str = "melody-bass-drums"
    gap_bars: int = 2

    name: ClassVar[str] = "trio"
    kind: ClassVar[str] = "multitrack"
    steps_per_quarter: ClassVar[int] = STEPS_PER_QUARTER

    def __post_init__(self) -> None:
        if self.voices not in VOICES:
            raise InputError(f"no voices named {self.voices!r}; there are {', '.join(VOICES)}")

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR

    @property
    def classes(self) -> tuple[int, ...]:
        return tuple(drums.CLASSES if voice.drums else melody.CLASSES for voice in VOICES[self.voices])

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> Tokens:
        """Windows of all combinations of tracks where the three voices play together, int32 [W, T, 3].

        Where there are none, `pad` makes do with an onset of each voice in a window, which may reach beyond the end,
        provided the music fills half of it.

        Raises:
          InputError: nothing usable; the message says why.
        """
        if not len(score):
            raise InputError(f"{source(score)}: no notes")
        voices = VOICES[self.voices]
        parts = [Part.of(section, voices) for section in sections(score)]
        missing = [voice.name for i, voice in enumerate(voices) if not any(part.tracks[i] for part in parts)]
        if missing:
            raise InputError(f"{source(score)}: no {' and no '.join(missing)}; pass a file with {self._wanted()}")
        found = [window for part in parts for window in self._together(part, hop_bars)]
        if pad and not any(map(len, found)):
            found = [window for part in parts for window in self._at_all(part, hop_bars)]
        if not any(map(len, found)):
            raise InputError(
                f"{source(score)}: {self._wanted()} never play together for {self.bars} bars; pass a longer piece"
            )
        return np.concatenate(found)

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0, velocity: int = 80) -> Score:
        """The notes of one window [T, 3], each voice a track."""
        columns = []
        for track, (voice, tokens) in enumerate(zip(VOICES[self.voices], np.asarray(window).T, strict=True)):
            if voice.drums:
                start, drum = np.nonzero(drums.bits(tokens))
                end, pitch = start + 1, drums.DRUM_PITCHES[drum]
            else:
                start, end, pitch = melody.Line.of_tokens(tokens)
            rest = np.broadcast_to([[track], [voice.program], [voice.drums]], (3, len(start)))
            columns.append(np.vstack([start / STEPS_PER_QUARTER, end / STEPS_PER_QUARTER, pitch, rest]))
        start, end, pitch, track, program, is_drum = np.hstack(columns)
        return Score.of(
            start,
            end,
            pitch,
            velocity,
            track,
            program,
            is_drum,
            tempos=np.array([[0.0, qpm]]),
            meters=np.array([[0.0, 4, 4]]),
            track_names=tuple(voice.name.capitalize() for voice in VOICES[self.voices]),
        )

    def transpose(self, windows: Tokens, semitones: npt.ArrayLike) -> Tokens:
        """Windows [W, T, 3] moved up by `semitones`, int or int [W], all melodic voices alike; drums stay."""
        melodic = [i for i, voice in enumerate(VOICES[self.voices]) if not voice.drums]
        out = windows.copy()
        out[..., melodic] = melody.transpose(windows[..., melodic], semitones)
        return out

    def vary(self, windows: Tokens, rng: np.random.Generator) -> Tokens:
        """Windows [W, T, 3] of other bars, see `exchange_bars`; in one of three a voice is another window's."""
        bars = exchange_bars(windows, rng)
        voice = rng.integers(0, 9, len(windows))  # 3 and more: none
        other = np.arange(3) == voice[:, None]
        return np.where(other[:, None], bars[rng.permutation(len(bars))], bars)

    def _wanted(self) -> str:
        return "{}, {} and {}".format(*(voice.name for voice in VOICES[self.voices]))

    def _together(self, part: Part, hop_bars: int) -> Iterator[Tokens]:
        """Windows of each combination of tracks, wherever all of them play but for rests of `gap_bars`."""
        gap = self.gap_bars
        bars = min(part.bars, _MAX_BARS)
        for group in part.combinations():
            playing = np.stack([_near(_sounding(notes, bars), gap) for notes in group])
            together = np.array(playing.all(axis=0))
            together[:gap] = playing[:, :gap].any()
            together[max(0, bars - gap) :] = playing[:, max(0, bars - gap) :].any()
            count = np.r_[0, np.cumsum(together)]
            first = np.flatnonzero(count[self.bars :] - count[: -self.bars] == self.bars)
            windows = self._cut(group, first[first % hop_bars == 0])
            yield windows[self._onsets(windows).any(axis=(1, 2))]

    def _at_all(self, part: Part, hop_bars: int) -> Iterator[Tokens]:
        """Windows of each combination of tracks in which every voice has an onset."""
        bars = min(part.bars, _MAX_BARS)
        bars = int(np.clip(self.bars, bars, bars + self.bars // 2))
        for group in part.combinations():
            windows = self._cut(group, np.arange(0, bars - self.bars + 1, hop_bars))
            yield windows[np.all(self._onsets(windows).any(axis=1), axis=1)]

    def _cut(self, group: tuple[Score, ...], first_bar: Array) -> Tokens:
        first = first_bar * STEPS_PER_BAR
        columns = []
        for voice, notes in zip(VOICES[self.voices], group, strict=True):
            if voice.drums:
                columns.append(cut(*drums.drum_tokens(notes), first, self.steps))
            else:
                columns.append(melody.Line.of_notes(notes, voice.lowest).cut(first, self.steps))
        return np.stack(columns, axis=-1)

    def _onsets(self, windows: Tokens) -> npt.NDArray[np.bool_]:
        """Where notes begin in windows [W, T, 3]."""
        least = np.array([drums.NO_HIT if voice.drums else melody.NOTE_OFF for voice in VOICES[self.voices]])
        return np.greater(windows, least)


@dataclass(frozen=True)
class Part:
    """A stretch of 4/4: its length in bars and, for each of the three voices, the notes of every track that fits."""

    bars: int
    tracks: tuple[list[Score], ...]

    @classmethod
    def of(cls, score: Score, voices: tuple[Voice, ...]) -> Part:
        by_track = [score.select(score.track == track) for track in np.unique(score.track)]
        usable = ([_usable(notes, voice) for notes in by_track] for voice in voices)
        bars = -(-int(quantize(score.quarters)) // STEPS_PER_BAR)
        return cls(bars, tuple([notes for notes in tracks if len(notes)] for tracks in usable))

    def combinations(self) -> Iterator[tuple[Score, ...]]:
        """Every choice of a track for each voice."""
        return islice(product(*self.tracks), _MAX_COMBINATIONS)


def _usable(notes: Score, voice: Voice) -> Score:
    """What `voice` can take of the notes of one track: none, unless all of the track is of its kind."""
    name = track_name(notes, int(notes.track[0]))
    programs = (notes.program >= voice.programs.start) & (notes.program < voice.programs.stop)
    fits = (notes.is_drum == voice.drums) & (programs | voice.drums)
    if not fits.all() or not re.search(voice.track, name, re.IGNORECASE):
        return notes.select(np.zeros(len(notes), np.bool_))
    if voice.drums:
        return drums.kit_notes(notes, "gm")
    return notes.select((notes.pitch >= melody.MIN_PITCH) & (notes.pitch < voice.below))


def _sounding(notes: Score, bars: int) -> npt.NDArray[np.bool_]:
    """In which of the bars a track sounds, bool [bars]."""
    start = quantize(notes.start)
    end = np.maximum(quantize(notes.end), start + 1)
    begins = np.bincount(np.minimum(start // STEPS_PER_BAR, bars), minlength=bars + 1)
    ends = np.bincount(np.minimum(-(-end // STEPS_PER_BAR), bars), minlength=bars + 1)
    return np.cumsum(begins - ends)[:bars] > 0


def _near(sounding: npt.NDArray[np.bool_], gap: int) -> npt.NDArray[np.bool_]:
    """Which bars are no more than `gap` from one that sounds."""
    return np.convolve(sounding, np.ones(2 * gap + 1))[gap : gap + len(sounding)] > 0
