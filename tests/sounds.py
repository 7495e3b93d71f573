"""Sounds that any machine makes again to the bit or nearly: what golden files of audio models were made from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 16000


def voice(seconds: float = 4.0, rate: int = RATE) -> npt.NDArray[np.float32]:
    """A gliding vowel with vibrato and pauses, [N]: ten harmonics under two formants."""
    t = np.arange(round(seconds * rate)) / rate
    hz = 220 * 2 ** (0.5 * np.sin(2 * np.pi * 0.31 * t) + 0.02 * np.sin(2 * np.pi * 5.5 * t))
    phase = 2 * np.pi * np.cumsum(hz) / rate
    harmonics = np.arange(1, 11)[:, None]
    formants = np.exp(-(((harmonics * hz - 700) / 500) ** 2)) + 0.5 * np.exp(-(((harmonics * hz - 1900) / 700) ** 2))
    sound = (formants * np.sin(harmonics * phase)).sum(axis=0)
    return (0.1 * sound * np.clip(2 * np.sin(2 * np.pi * 0.7 * t) + 1, 0, 1)).astype(np.float32)


def chords(seconds: float = 4.0, rate: int = RATE) -> npt.NDArray[np.float32]:
    """Plucked four-note chords, one every half second, [N]."""
    t = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(t))
    for beat in range(round(seconds * 2)):
        since = t - beat / 2
        envelope = np.where(since >= 0, np.exp(-4 * np.maximum(since, 0)), 0)
        for pitch in np.array([48, 60, 64, 67]) + (0, 5, 7, 0)[beat % 4]:
            hz = 440 * 2 ** ((pitch - 69) / 12)
            sound += envelope * sum(np.sin(2 * np.pi * hz * k * since) / k**2 for k in range(1, 7))
    return (0.05 * sound).astype(np.float32)


def drums(seconds: float = 4.0, rate: int = RATE) -> npt.NDArray[np.float32]:
    """A bass drum on the beats, noise on the off-beats, [N]."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.sin(1e4 * np.sin(np.arange(len(t)) * 12.9898) ** 3 * 4.7)  # no generator that may change some day
    since = t % 0.5
    kick = np.exp(-18 * since) * np.sin(2 * np.pi * (50 * since - 12 * np.exp(-30 * since)))
    snare = np.exp(-25 * ((t + 0.25) % 0.5)) * noise
    return (0.1 * kick + 0.06 * snare).astype(np.float32)


SOUNDS = {"voice": voice, "chords": chords, "drums": drums}
