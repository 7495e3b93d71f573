"""`LogMelCodec`: a recording as the logarithm of its mel spectrum, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.music import audio
from zoo.music.audio import AudioSource

ROOM = 512  # frames: what is worked out at once is padded to a multiple of these, so that few programs are compiled


class Features(NamedTuple):
    """`frames` float32 [T, F], none below 0; `seconds`, the length of the recording."""

    frames: npt.NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class LogMelCodec:
    """log₁₀(1 + gain · power) of mel bands.

    Attributes:
      sample_rate: Hz; recordings at other rates are resampled.
      hop, size: samples from one frame to the next, and of a frame.
      bands, low, high: F, and the lowest and highest frequency of them in Hz.
      gain: below its inverse a band counts as silent.
    """

    sample_rate: int = 22050
    hop: int = 441
    size: int = 1024
    bands: int = 45
    low: float = 30.0
    high: float = 10000.0
    gain: float = 1000.0

    name: ClassVar[str] = "log-mel"
    kind: ClassVar[str] = "audio"

    def features(self, source: AudioSource) -> Features:
        """The frames of a whole recording, frame t around its sample t · hop.

        Raises:
          InputError: no audio, or less than one hop of it.
        """
        from zoo.nn import spectral

        pieces, found = audio.Counted(source, self.sample_rate), []
        shape = self.sample_rate, self.bands, self.low, self.high, self.gain
        for frames in audio.windows(pieces, self.size, self.hop):
            padded = np.pad(frames, ((0, -len(frames) % ROOM), (0, 0)))
            found.append(np.asarray(spectral.log_mel(padded, *shape))[: len(frames)])
        pieces.check(self.hop, "a spectrum")
        return Features(np.concatenate(found), pieces.seconds)
