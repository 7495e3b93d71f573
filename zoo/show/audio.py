"""Scores to sound, offline: General MIDI through a soundfont on this machine, or plain sines where there is none.

The soundfont is the one given, else the environment's ZOO_SOUNDFONT, else TimGM6mb.sf2, which the package pretty_midi
brings along. symusic's own synthesizer is not used: 0.5.8 plays this soundfont's loops off key (its issue 55; an A of
440 Hz came out as 1658) and cuts every note's release.
"""

from __future__ import annotations

import importlib.util
import io
import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.score import Score
from zoo.show.files import write
from zoo.show.layout import ROLAND
from zoo.show.sampler import RATE, Instrument, Sampler, SineSynth, Sound
from zoo.show.soundfont import SoundFont

PEAK = 10 ** (-1 / 20)  # −1 dBFS
GAIN = 1.5  # a loud piano note then peaks near −7 dBFS; chords that would clip are made softer as a whole
LONGEST = 30 * 60.0  # seconds
LONGEST_NOTE = 60.0  # seconds; a longer one is held no longer
VOICES = 64  # so many notes are kept, for when they come again
CHOKES = ({22, 26, 42, 44, 46}, {71, 72}, {73, 74}, {78, 79}, {80, 81})  # drums of which one silences the others
CHOKE_FADE = 0.02  # seconds


def render(score: Score, sample_rate: int = RATE, soundfont: str | os.PathLike[str] | None = None) -> Sound:
    """`score` as sound, float32 [frames, 2] within ±1: never louder than −1 dBFS, and made softer only if it would be.

    Time 0 is the score's beginning; the sound ends when the last note has died away.
    Raises InputError if the score is over half an hour long or the soundfont can't be read.
    """
    onsets, offsets = score.seconds_at(score.start), score.seconds_at(score.end)
    length = float(offsets.max(initial=0.0))
    if not length <= LONGEST:
        raise InputError(f"{score.source or 'score'}: {length / 60:.0f} minutes are too long to render: cut it to 30")
    play = lru_cache(maxsize=VOICES)(_instrument(find_soundfont(soundfont)).play)
    out = np.zeros((round((length + 10.0) * RATE), 2), np.float32)
    last = round(length * RATE)
    for i, stop in enumerate(_chokes(score, onsets)):
        program, is_drum, pitch = int(score.program[i]), bool(score.is_drum[i]), int(score.pitch[i])
        held = round(float(np.clip(offsets[i] - onsets[i], 0.01, LONGEST_NOTE)), 3)
        voice = play(program, is_drum, ROLAND.get(pitch, pitch) if is_drum else pitch, int(score.velocity[i]), held)
        if np.isfinite(stop):
            voice = _cut(voice, stop - onsets[i])
        at = round(onsets[i] * RATE)
        out[at : at + len(voice)] += voice[: len(out) - at]
        last = max(last, at + len(voice))
    out = _resample(GAIN * out[: min(last, len(out))], sample_rate)
    peak = float(np.abs(out).max(initial=0.0))
    return out * np.float32(PEAK / peak) if peak > PEAK else out


def find_soundfont(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The soundfont to use: `given`, else ZOO_SOUNDFONT, else the one shipped with pretty_midi; None if there is none.

    Raises InputError if `given` or ZOO_SOUNDFONT names a file that isn't there.
    """
    for where, name in (("soundfont", given), ("ZOO_SOUNDFONT", os.environ.get("ZOO_SOUNDFONT"))):
        if name:
            if not Path(name).is_file():
                raise InputError(f"{name}: no such soundfont: give {where} the path of an .sf2 file")
            return Path(name)
    spec = importlib.util.find_spec("pretty_midi")  # finds the folder without importing it
    shipped = Path(spec.origin).with_name("TimGM6mb.sf2") if spec and spec.origin else None
    return shipped if shipped and shipped.is_file() else None


def audio_status() -> str:
    """One line for `zoo doctor`: what notes are rendered with, and what would make it better."""
    try:
        path = find_soundfont()
        if path is None:
            return "plain sines (no soundfont found): pip install pretty_midi, or set ZOO_SOUNDFONT to an .sf2 file"
        SoundFont(path)
    except InputError as error:
        return f"not working: {error}"
    return f"General MIDI through {path}" + ("" if "MP3" in _formats() else "; no MP3 in libsndfile, pages embed WAV")


def write_wav(path: str | os.PathLike[str], audio: npt.NDArray[np.floating], rate: int) -> Path:
    """Writes sound within ±1, [frames] or [frames, channels], as 16-bit WAV. Raises InputError if it can't."""
    return write(path, _encode(audio, rate, "WAV", "PCM_16"))


def compress(sound: Sound) -> tuple[bytes, str]:
    """Sound at 44.1 kHz made small for a page, as (file, MIME type).

    Mono MP3, which every browser plays, or WAV at half the rate where libsndfile has no MP3 (before 1.1).
    """
    mono = sound.mean(axis=1, keepdims=True)
    if "MP3" in _formats():
        return _encode(mono, RATE, "MP3", "MPEG_LAYER_III"), "audio/mpeg"
    return _encode(_resample(mono, RATE // 2), RATE // 2, "WAV", "PCM_16"), "audio/wav"


def _encode(audio: npt.NDArray[np.floating], rate: int, format_: str, subtype: str) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, audio, rate, format=format_, subtype=subtype)
    return buffer.getvalue()


def _formats() -> dict[str, str]:
    import soundfile

    return soundfile.available_formats()


@lru_cache(maxsize=1)
def _instrument(path: Path | None) -> Instrument:
    return SineSynth() if path is None else Sampler(SoundFont(path))


def _chokes(score: Score, onsets: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each note the second at which another drum silences it (a closed hi-hat the open one), else infinity."""
    stops = np.full(len(score), np.inf)
    for group in CHOKES:
        hits = np.flatnonzero(score.is_drum & np.isin(score.pitch, list(group)))
        later = np.searchsorted(onsets[hits], onsets[hits], side="right")
        stops[hits] = np.append(onsets[hits], np.inf)[later]
    return stops


def _cut(voice: Sound, seconds: float) -> Sound:
    """`voice` faded out from `seconds` on."""
    start = round(seconds * RATE)
    fade = np.clip(1 - (np.arange(len(voice)) - start) / (CHOKE_FADE * RATE), 0, 1)[:, None]
    return (voice * fade)[: start + round(CHOKE_FADE * RATE)].astype(np.float32)


def _resample(sound: Sound, rate: int) -> Sound:
    """Sound at 44.1 kHz brought to another rate."""
    if rate == RATE:
        return sound
    from scipy.signal import resample_poly

    common = math.gcd(rate, RATE)
    return resample_poly(sound, rate // common, RATE // common, axis=0).astype(np.float32)
