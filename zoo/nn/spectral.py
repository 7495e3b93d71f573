"""Spectrograms as librosa defines them, in JAX: `N` samples, `T` frames, `F` = size / 2 + 1 frequencies, `M` mel bands.

    power(frames(x, 512, 256)) @ mel_filters(16000, 512, 96)         # [T, 96], librosa's `feature.melspectrogram`

Frames are centred: frame t is around sample t · hop, with zeros beyond both ends. For sound that comes piece by piece,
`zoo.music.audio.windows` cuts the same frames. Values are librosa's to float32's rounding (tests/test_spectral).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

_LINEAR = 200.0 / 3.0  # Hz a mel below 1 kHz, which is mel 15 (Slaney, Auditory Toolbox 1998)
_LOG_FROM = 1000.0
_LOG_STEP = np.log(6.4) / 27.0  # of ln Hz a mel above


def frames(x: jax.Array, size: int, hop: int) -> jax.Array:
    """Frames of `size` samples around the samples 0, hop, 2 hop, … of `x` [..., N]: [..., 1 + N // hop, size]."""
    count = 1 + x.shape[-1] // hop
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(size // 2, size - size // 2)])
    return x[..., hop * np.arange(count)[:, None] + np.arange(size)]


def stft(frames: jax.Array) -> jax.Array:
    """The spectra of frames [..., size] under a periodic Hann window: complex64 [..., F]."""
    return jnp.fft.rfft(frames * hann(frames.shape[-1]))


def power(frames: jax.Array) -> jax.Array:
    """|STFT|² of frames [..., size]: float32 [..., F]."""
    spectrum = stft(frames)
    return spectrum.real**2 + spectrum.imag**2


def hann(size: int) -> npt.NDArray[np.float32]:
    """The periodic Hann window [size]: ½ − ½ cos(2π n / size)."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def mel_filters(
    rate: float, size: int, bands: int, low: float = 0.0, high: float | None = None
) -> npt.NDArray[np.float32]:
    """Slaney's mel filterbank [F, M]: triangles of area 1 that overlap by half, from `low` to `high` Hz.

    `rate`: samples a second; `size`: of a frame; `high`: by default half the rate.
    """
    edges = mel_to_hz(np.linspace(hz_to_mel(low), hz_to_mel(rate / 2 if high is None else high), bands + 2))
    frequencies = np.fft.rfftfreq(size, 1 / rate)[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)).astype(np.float32)


def hz_to_mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Slaney's mels: linear below 1 kHz, logarithmic above."""
    hz = np.asarray(hz, np.float64)
    above = _LOG_FROM / _LINEAR + np.log(np.maximum(hz, _LOG_FROM) / _LOG_FROM) / _LOG_STEP
    return np.where(hz < _LOG_FROM, hz / _LINEAR, above)


def mel_to_hz(mel: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    corner = _LOG_FROM / _LINEAR
    return np.where(mel < corner, mel * _LINEAR, _LOG_FROM * np.exp(_LOG_STEP * (np.maximum(mel, corner) - corner)))


@partial(jax.jit, static_argnames=("rate", "bands", "low", "high"))
def log_mel(frames: jax.Array, rate: float, bands: int, low: float, high: float, gain: float) -> jax.Array:
    """`log_compressed` power of frames [..., size] in `bands` mel bands from `low` to `high` Hz: [..., bands]."""
    return log_compressed(power(frames) @ mel_filters(rate, frames.shape[-1], bands, low, high), gain)


def log_compressed(power: jax.Array, gain: float) -> jax.Array:
    """log₁₀(1 + gain · power): 0 for silence, and about decibels / 10 for what is loud."""
    return jnp.log10(1.0 + gain * power)
