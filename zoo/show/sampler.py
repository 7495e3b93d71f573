"""Notes to sound: a soundfont's samples, or plain sines and noise where there is no soundfont. NumPy and SciPy only.

Symbols: `F` frames at 44.1 kHz, the rate of everything here.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from zoo.show.soundfont import Envelope, Region, SoundFont

Floats = npt.NDArray[np.float64]
Sound = npt.NDArray[np.float32]

RATE = 44100  # frames a second
SILENCE_DB = 80.0  # a voice ends once it is this far below its peak
SHORTEST_RELEASE = 0.1  # seconds for 100 dB; a shorter one clicks
LONGEST_RELEASE = 6.0  # seconds for 100 dB
FILTER_STEP = 50.0  # cents; a moving filter moves in steps this small
OPEN_FILTER = 16000.0  # Hz; a low-pass filter above this is not heard


class Instrument(Protocol):
    """Anything that plays notes."""

    def play(self, program: int, is_drum: bool, pitch: int, velocity: int, seconds: float) -> Sound:
        """One note held for `seconds`, its release included, as float32 [F, 2]; [0, 2] if it has no sound for it."""


class Sampler:
    """Plays notes through a soundfont."""

    def __init__(self, soundfont: SoundFont) -> None:
        self._soundfont = soundfont

    def play(self, program: int, is_drum: bool, pitch: int, velocity: int, seconds: float) -> Sound:
        """See `Instrument`."""
        sounds = [_play(region, seconds) for region in self._soundfont.regions(program, is_drum, pitch, velocity)]
        mixed = np.zeros((max(map(len, sounds), default=0), 2), np.float32)
        for sound in sounds:
            mixed[: len(sound)] += sound
        return mixed


class SineSynth:
    """Plays notes as a few decaying harmonics and drums as a falling sine and noise; all programs sound alike."""

    def play(self, program: int, is_drum: bool, pitch: int, velocity: int, seconds: float) -> Sound:
        """See `Instrument`."""
        voice = _drum(pitch) if is_drum else _tone(pitch, seconds)
        return np.repeat((0.3 * (velocity / 127) ** 2 * voice).astype(np.float32)[:, None], 2, axis=1)


def _play(region: Region, held: float) -> Sound:
    """One region of a soundfont, held for so many seconds, as sound [F, 2]."""
    release = float(np.clip(region.volume.release, SHORTEST_RELEASE, LONGEST_RELEASE))
    t = np.arange(round((held + release * SILENCE_DB / 100) * RATE)) / RATE
    speed = region.rate / RATE * 2 ** ((region.cents + region.pitch_cents * _share(region.filter, t, held)) / 1200)
    position = _follow_loop(region, np.cumsum(speed) - speed, int(held * RATE))
    t = t[: len(position)]
    sound = _low_pass(region, _interpolate(region, position), t, held)
    sound *= region.gain * _amplitude(region.volume, release, t, held)
    angle = (region.pan + 0.5) * np.pi / 2
    return (sound[:, None] * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32)


def _follow_loop(region: Region, position: Floats, released: int) -> Floats:
    """Positions in the sample, the loop followed, up to the sample's end; `released` is the frame the key goes up."""
    if region.loop is not None:
        start, end = region.loop
        turns = np.floor(np.maximum(position - start, 0) / (end - start))
        if region.loop_while_held:
            turns[released:] = turns[min(released, len(turns) - 1)]
        position = position - turns * (end - start)
    beyond = position >= len(region.sample)
    return position[: beyond.argmax()] if beyond.any() else position


def _interpolate(region: Region, position: Floats) -> Floats:
    """The sample, as −1…1, at fractional positions, by Hermite's cubic through four neighbours."""
    body, after = region.sample, np.zeros(3, np.int16)
    if region.loop is not None and not region.loop_while_held:  # what follows the loop's end is its beginning
        body, after = body[: region.loop[1]], np.resize(body[slice(*region.loop)], 3)
    padded = np.concatenate([body[:1], body, after]).astype(np.float32) / 32768
    i = position.astype(np.intp)
    x = (position - i).astype(np.float32)
    a, b, c, d = (padded[k:].take(i) for k in range(4))
    return b + 0.5 * x * (c - a + x * (2 * a - 5 * b + 4 * c - d + x * (3 * (b - c) + d - a)))


def _amplitude(envelope: Envelope, release: float, t: Floats, held: float) -> Floats:
    """The volume envelope at times `t`: a straight attack, then straight lines in decibels (SoundFont 9.1.7)."""

    def while_held(t: Floats) -> Floats:
        attack = np.clip((t - envelope.delay) / envelope.attack, 0, 1)
        decaying = t - (envelope.delay + envelope.attack + envelope.hold)
        lost = np.clip(100 * decaying / envelope.decay, 0, envelope.sustain)
        return attack * 10 ** (-lost / 20)

    return while_held(np.minimum(t, held)) * 10 ** (-100 / 20 * np.maximum(t - held, 0) / release)


def _share(envelope: Envelope, t: Floats, held: float) -> Floats:
    """The filter envelope at times `t`, 0–1: straight lines throughout."""
    attack = np.clip((np.minimum(t, held) - envelope.delay) / envelope.attack, 0, 1)
    decaying = np.minimum(t, held) - (envelope.delay + envelope.attack + envelope.hold)
    level = attack - np.clip(decaying / envelope.decay, 0, envelope.sustain)
    return np.maximum(level - np.maximum(t - held, 0) / envelope.release, 0)


def _low_pass(region: Region, sound: Floats, t: Floats, held: float) -> Floats:
    """The region's resonant low-pass filter of two poles (SoundFont 9.1.5), its cutoff moved by the filter envelope."""
    from scipy.signal import lfilter

    moved = region.filter_cents * _share(region.filter, t, held)
    cutoff = region.cutoff * 2 ** (np.round(moved / FILTER_STEP) * FILTER_STEP / 1200)
    if len(sound) == 0 or cutoff.min() >= OPEN_FILTER:
        return sound
    starts = np.append(0, np.flatnonzero(np.diff(cutoff)) + 1)
    # Bristow-Johnson's low-pass biquad; the gain falls by half the resonance, as the specification asks.
    q = 10 ** ((region.resonance - 3.01) / 20)
    w = 2 * np.pi * np.clip(cutoff[starts], 20, 0.45 * RATE) / RATE
    alpha = np.sin(w) / (2 * q)
    b = np.outer((1 - np.cos(w)) / (1 + alpha), [0.5, 1, 0.5]) * 10 ** (-region.resonance / 40)
    a = np.stack([1 + alpha, -2 * np.cos(w), 1 - alpha], axis=1) / (1 + alpha)[:, None]
    state = np.zeros(2)
    filtered = np.empty(len(sound))
    for k, (start, stop) in enumerate(zip(starts, [*starts[1:], len(sound)], strict=True)):
        filtered[start:stop], state = lfilter(b[k], a[k], sound[start:stop], zi=state)
    return filtered


def _tone(pitch: int, held: float) -> Floats:
    """A struck string, roughly: harmonics below the limit of hearing, the higher the softer and the shorter [F]."""
    t = np.arange(round((held + 0.25) * RATE)) / RATE
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    tone = np.zeros(len(t))
    for k in range(1, 9):
        if k * hertz < 0.45 * RATE:
            tone += np.sin(2 * np.pi * k * hertz * t) * np.exp(-0.8 * k * t) / k**1.5
    return tone * np.minimum(t / 0.004, 1) * np.exp(-np.maximum(t - held, 0) * 25)


def _drum(pitch: int) -> Floats:
    """A drum by its General MIDI key: bass drums and toms fall in pitch, the rest is noise, cymbals' longest [F]."""
    length = 1.2 if pitch in (49, 51, 52, 53, 55, 57, 59) else 0.45 if pitch in (46, 38, 40, 39) else 0.3
    t = np.arange(round(length * RATE)) / RATE
    fade = np.exp(-5 * t / length) * np.minimum(t / 0.001, 1)
    if pitch in (35, 36, 41, 43, 45, 47, 48, 50):
        hertz = 55.0 if pitch < 40 else 90.0 + 8 * (pitch - 41)
        return 2 * fade * np.sin(2 * np.pi * (hertz * t + 0.03 * hertz * (1 - np.exp(-t / 0.03))))
    noise = np.random.default_rng(pitch).uniform(-1, 1, len(t))
    return fade * (np.diff(noise, prepend=0) if pitch in (42, 44, 46) or length > 1 else noise)
