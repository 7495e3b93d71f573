"""Chroma: how strongly each pitch class sounds, in the bass and above it, frame by frame.

Mauch and Dixon, "Approximate note transcription for the improved identification of difficult chords", ISMIR 2010.

A frame has 24 numbers, 12 for the bass and 12 for what lies higher, each from C to B: pitches weighted by two windows
over the keyboard and summed over octaves. Frames and windows are those of the NNLS Chroma plugin, with which the McGill
Billboard's chroma were made.

    NnlsChromaCodec().features("song.wav")     # from sound, by `zoo.nn.nnls_chroma`
    NoteChromaCodec().features("song.mid")     # from notes
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import audio, io
from zoo.music.audio import AudioSource
from zoo.music.score import Score

Frames = npt.NDArray[np.float32]

PITCHES = 12
LOWEST, COUNT = 21, 84  # the pitches that are told apart: A0 and seven octaves
LENGTHS = (112 / 3, 84.0)  # in semitones, of the windows for bass and treble
LOUD = 100.0  # the velocity that counts as 1


class Features(NamedTuple):
    """`frames` float32 [T, 24], none below 0; `seconds`, the length of the piece."""

    frames: Frames
    seconds: float


@dataclass(frozen=True)
class NnlsChromaCodec:
    """Chroma of a recording.

    Attributes:
      sample_rate: Hz; recordings at other rates are resampled.
      hop: samples from one frame to the next.
    """

    sample_rate: int = 44100
    hop: int = 2048

    name: ClassVar[str] = "nnls-chroma"
    kind: ClassVar[str] = "audio"

    def features(self, source: AudioSource) -> Features:
        """The frames of a whole recording, frame t around its sample t · hop; its tuning is estimated from all of it.

        Raises:
          InputError: no audio, or less than one hop of it.
        """
        from zoo.nn import nnls_chroma
        from zoo.nn.rows import Rows

        pieces, spectra = audio.Counted(source, self.sample_rate), Rows((nnls_chroma.BINS,))
        for frames in audio.windows(pieces, nnls_chroma.SIZE, self.hop):
            spectra.append(nnls_chroma.log_spectra(frames, self.sample_rate))
        pieces.check(self.hop, "chords")
        rings = ring_windows()
        chroma = [(notes @ rings).astype(np.float32) for notes in nnls_chroma.transcribe(spectra)]
        return Features(np.concatenate(chroma), pieces.seconds)


@dataclass(frozen=True)
class NoteChromaCodec:
    """Chroma of notes, at the same times as those of a recording.

    A note counts for the share of a frame in which it sounds, and by its velocity; drums don't count.

    Attributes:
      sample_rate, hop: their quotient is the time from one frame to the next.
    """

    sample_rate: int = 44100
    hop: int = 2048

    name: ClassVar[str] = "note-chroma"
    kind: ClassVar[str] = "notes"

    def features(self, source: str | os.PathLike[str] | Score) -> Features:
        """The frames of a whole piece.

        Raises:
          InputError: no file of notes, or none that could make chords.
        """
        score = io.read(source)
        seconds = float(score.seconds_at(score.quarters))
        score = score.select(~score.is_drum & (score.pitch >= LOWEST) & (score.pitch < LOWEST + COUNT))
        if not len(score):
            raise InputError(f"{score.source or 'the notes'}: no notes that chords could be made of")
        rate = self.sample_rate / self.hop
        keys = np.zeros((max(1, math.ceil(seconds * rate)), COUNT))
        times = (score.seconds_at(score.start) * rate, score.seconds_at(score.end) * rate)
        for start, end, pitch, velocity in zip(*times, score.pitch - LOWEST, score.velocity, strict=True):
            frames = np.arange(int(start), min(len(keys), math.ceil(end)))
            keys[frames, pitch] += velocity / LOUD * (np.minimum(frames + 1, end) - np.maximum(frames, start))
        return Features((np.minimum(keys, 1.0) @ ring_windows()).astype(np.float32), seconds)


def ring_windows() -> npt.NDArray[np.float64]:
    """Weights of the 84 pitches from A0 in the 24 numbers of a frame, [84, 24].

    Both windows are raised cosines, ½ − ½ cos(2π (k + ½) / L): the treble's over all L = 84 pitches, the bass's over
    the lowest L = 112 / 3.
    """
    at = np.arange(COUNT) + 0.5
    bass, treble = (np.where(at < length, 0.5 - 0.5 * np.cos(2 * np.pi * at / length), 0.0) for length in LENGTHS)
    classes = np.eye(PITCHES)[(np.arange(COUNT) + LOWEST) % PITCHES]
    return np.concatenate([bass[:, None] * classes, treble[:, None] * classes], axis=1)
