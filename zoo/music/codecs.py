"""`get_codec`: the codecs by name, and what each of them offers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.audio import AudioCodec
from zoo.music.chorale import ChoraleCodec
from zoo.music.chroma import NnlsChromaCodec, NoteChromaCodec
from zoo.music.drums import DrumsCodec
from zoo.music.groove import GrooveCodec
from zoo.music.harmonic_cqt import HarmonicCqtCodec
from zoo.music.harmony import HarmonyCodec
from zoo.music.keys import KeysCodec
from zoo.music.lead_sheet import LeadSheetCodec
from zoo.music.log_mel import LogMelCodec
from zoo.music.melody import MelodyCodec
from zoo.music.melody_events import MelodyEventsCodec
from zoo.music.melody_notes import MelodyNotesCodec
from zoo.music.performance import PerformanceCodec
from zoo.music.phrases import PhrasesCodec
from zoo.music.pianoroll import PianorollCodec
from zoo.music.score import Score
from zoo.music.serial import SerialCodec
from zoo.music.trio import TrioCodec


class SequenceCodec(Protocol):
    """Score ⇄ one sequence of tokens as long as the piece, for models that write token by token.

    One for models that know a single key also has `for_piece(score)`: the codec that decodes into the piece's own.
    """

    classes: int

    def tokens(self, score: Score) -> npt.NDArray[np.int32]:
        """The whole piece, int32 [T]; [T, 2] where each token has a context, such as the chord it stands in.

        Raises InputError if there is none.
        """
        ...

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The notes of tokens [T], of which there may be any number."""
        ...

    def seconds(self, tokens: npt.ArrayLike, qpm: float = 120.0) -> npt.NDArray[np.float64]:
        """When each token's event is, float64 [T + 1]; the last is where the sequence ends."""
        ...


class Codec(Protocol):
    """Score ⇄ windows of fixed length, `T` steps each.

    Attributes:
      name: as `get_codec` takes it.
      kind: "categorical" (one token a step), "multitrack" (a token a track and step), "groove" (real values),
        "pianoroll" (0 or 1 a key and step), "phrases" (a piano roll for each track), "notes" (some numbers a note), or
        "sequence" (a `SequenceCodec`).
      bars, steps, steps_per_quarter: length of a window and its grid; `steps` is T.
      classes: number of tokens; a tuple, one number a track, for "multitrack"; numbers a step for the others.
    """

    name: str
    kind: str
    bars: int
    steps_per_quarter: int

    @property
    def steps(self) -> int: ...

    @property
    def classes(self) -> int | tuple[int, ...]: ...

    def windows(self, score: Score, hop_bars: int = 1, pad: bool = False) -> npt.NDArray[Any]:
        """Windows [W, T, ...], each with an onset, every `hop_bars` bars, part by part in order of time.

        Without `pad` they are those Magenta takes; with it, for a single file of a user, a piece that has none of
        those may contain rests and is padded with silence if it fills half a window.

        Raises:
          InputError: there is none; the message says why.
        """
        ...

    def decode(self, window: npt.ArrayLike, qpm: float = 120.0) -> Score:
        """The notes of one window [T, ...]."""
        ...

    def transpose(self, windows: npt.NDArray[Any], semitones: npt.ArrayLike) -> npt.NDArray[Any]:
        """Windows [W, T, ...] moved up by `semitones`, int or int [W]; drums stay as they are."""
        ...


_ALL = (
    MelodyCodec,
    MelodyEventsCodec,
    MelodyNotesCodec,
    LeadSheetCodec,
    HarmonyCodec,
    DrumsCodec,
    TrioCodec,
    GrooveCodec,
    ChoraleCodec,
    SerialCodec,
    PerformanceCodec,
    PianorollCodec,
    PhrasesCodec,
    KeysCodec,
    AudioCodec,
    HarmonicCqtCodec,
    NnlsChromaCodec,
    NoteChromaCodec,
    LogMelCodec,
)
CODECS: dict[str, type] = {codec.name: codec for codec in _ALL}


def get_codec(name: str, **options: Any) -> Codec:
    """The codec `name` with its options, e.g. `get_codec("melody", bars=16)`.

    Raises:
      InputError: no such codec or option.
    """
    if name not in CODECS:
        raise InputError(f"no codec named {name!r}; there are {', '.join(CODECS)}")
    known = [field.name for field in fields(CODECS[name])]
    for option in options:
        if option not in known:
            raise InputError(f"the {name} codec has no option {option!r}; there are {', '.join(known)}")
    codec: Codec = CODECS[name](**options)
    if getattr(codec, "bars", 1) < 1:
        raise InputError(f"bars={codec.bars}: a window has at least one bar")
    return codec
