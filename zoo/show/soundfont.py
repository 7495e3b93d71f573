"""SoundFont 2 files: which samples sound for a key of a General MIDI program, and with what settings.

Source: "SoundFont Technical Specification", version 2.04, E-mu Systems 2006; section numbers below are its. A preset
(a General MIDI program) is a list of zones that point to instruments, an instrument a list of zones that point to
samples. A zone holds generators (numbered settings): an instrument's replace the defaults, a preset's are added.
Read here: tuning, loops, volume and filter envelopes. Not read: low-frequency oscillators, modulators, effects.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError

Ints = npt.NDArray[np.int64]

DRUM_BANK = 128


class Gen(IntEnum):
    """The generators used here, by number (8.1.2)."""

    START, END, LOOP_START, LOOP_END, START_COARSE = 0, 1, 2, 3, 4
    MOD_TO_PITCH, CUTOFF, RESONANCE, MOD_TO_CUTOFF, END_COARSE, PAN = 7, 8, 9, 11, 12, 17
    MOD_ENVELOPE, VOLUME_ENVELOPE = 25, 33  # the first of eight: delay … release, two for key scaling
    INSTRUMENT, KEYS, VELOCITIES, LOOP_START_COARSE, FIXED_KEY, FIXED_VELOCITY = 41, 43, 44, 45, 46, 47
    ATTENUATION, LOOP_END_COARSE, COARSE_TUNE, FINE_TUNE, SAMPLE, LOOP_MODE = 48, 50, 51, 52, 53, 54
    SCALE_TUNING, ROOT_KEY = 56, 58


COUNT = 61
DEFAULTS = np.zeros(COUNT, np.int64)  # 8.1.3
DEFAULTS[Gen.CUTOFF] = 13500
for _first in (Gen.MOD_ENVELOPE, Gen.VOLUME_ENVELOPE):
    DEFAULTS[[_first, _first + 1, _first + 2, _first + 3, _first + 5]] = -12000
DEFAULTS[[Gen.FIXED_KEY, Gen.FIXED_VELOCITY, Gen.ROOT_KEY]] = -1
DEFAULTS[Gen.SCALE_TUNING] = 100
NOTHING_ADDED = np.zeros(COUNT, np.int64)
for _settings in (DEFAULTS, NOTHING_ADDED):
    _settings[[Gen.KEYS, Gen.VELOCITIES]] = 127 << 8  # a range is its low byte to its high byte

# What a preset may not add to (8.5): places in the sample, and settings that are choices, not amounts.
_INSTRUMENT_ONLY = [0, 1, 2, 3, 4, 12, 41, 43, 44, 45, 46, 47, 50, 53, 54, 57, 58]

_PRESET = np.dtype([("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("rest", "<u4", 3)])
_INSTRUMENT = np.dtype([("name", "S20"), ("bag", "<u2")])
_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("number", "<u2"), ("amount", "<i2")])
_PLACES = [("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4")]
_TUNING = [("rate", "<u4"), ("key", "u1"), ("cents", "i1"), ("link", "<u2"), ("type", "<u2")]
_SAMPLE = np.dtype([("name", "S20"), *_PLACES, *_TUNING])


@dataclass(frozen=True)
class Envelope:
    """Delay, attack, hold, decay and release in seconds; `sustain` is what decay loses, in the envelope's own unit.

    The unit is decibels for volume and a share 0–1 of the peak for the filter. `decay` and `release` are the times for
    a fall of 100 dB, or of the whole peak.
    """

    delay: float
    attack: float
    hold: float
    decay: float
    sustain: float
    release: float


@dataclass(frozen=True)
class Region:
    """One sample as it sounds for one key and velocity.

    Attributes:
      sample: int16 [frames], from the sample's start to its end.
      rate: frames a second.
      loop: (first frame, frame after the last), or None for a sample played once.
      loop_while_held: the loop ends with the key and the sample plays on to its end.
      cents: pitch of the note above the sample's own.
      gain: linear, from the attenuation and the velocity.
      pan: −0.5 (left) to 0.5 (right).
      volume, filter: the envelopes.
      filter_cents, pitch_cents: how far the filter envelope's peak moves cutoff and pitch.
      cutoff: Hz, of the low-pass filter.
      resonance: dB.
    """

    sample: npt.NDArray[np.int16]
    rate: float
    loop: tuple[int, int] | None
    loop_while_held: bool
    cents: float
    gain: float
    pan: float
    volume: Envelope
    filter: Envelope
    filter_cents: float
    pitch_cents: float
    cutoff: float
    resonance: float


class SoundFont:
    """A SoundFont 2 file. `regions` looks up what sounds for a note."""

    def __init__(self, path: str | Path) -> None:
        """Raises InputError if `path` is not a SoundFont 2 file that can be read here."""
        self.path = Path(path)
        try:
            chunks = _read_chunks(np.memmap(self.path, np.uint8, mode="r"))
            self._samples = chunks["smpl"].view("<i2")
            self._presets = chunks["phdr"].view(_PRESET)
            self._instruments = chunks["inst"].view(_INSTRUMENT)
            self._headers = chunks["shdr"].view(_SAMPLE)
            self._preset_zones = _Zones(chunks["pbag"], chunks["pgen"])
            self._instrument_zones = _Zones(chunks["ibag"], chunks["igen"])
        except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
            raise InputError(f"{path}: not a SoundFont 2 file ({error}): give an .sf2 file") from error
        if (self._headers["type"] & 0x10).any():
            raise InputError(f"{path}: its samples are compressed (.sf3): give an uncompressed .sf2 file")
        self._bags: dict[tuple[int, int], int] = {}
        for i, preset in enumerate(self._presets[:-1]):
            self._bags.setdefault((int(preset["bank"]), int(preset["program"])), i)

    @lru_cache(maxsize=4096)  # noqa: B019 - the cache may live as long as its soundfont: there is one
    def regions(self, program: int, is_drum: bool, key: int, velocity: int) -> tuple[Region, ...]:
        """What sounds for a note; () if the soundfont has nothing for it.

        `program` is General MIDI's, 0–127; for drums it chooses the kit, and a kit that is missing is the standard one.
        Raises InputError if the file contradicts itself.
        """
        bank = DRUM_BANK if is_drum else 0
        preset = self._bags.get((bank, program), self._bags.get((bank, 0)))
        if preset is None:
            return ()
        try:
            found = tuple(self._find(preset, key, velocity))
        except (IndexError, ValueError) as error:
            raise InputError(f"{self.path}: damaged soundfont ({error}): give another .sf2 file") from error
        return found

    def _find(self, preset: int, key: int, velocity: int) -> Iterator[Region]:
        bags = self._presets["bag"][preset : preset + 2]
        for added in self._preset_zones.matching(bags, Gen.INSTRUMENT, key, velocity, NOTHING_ADDED):
            bags = self._instruments["bag"][added[Gen.INSTRUMENT] :][:2]
            added[_INSTRUMENT_ONLY] = 0
            for zone in self._instrument_zones.matching(bags, Gen.SAMPLE, key, velocity, DEFAULTS):
                header = self._headers[zone[Gen.SAMPLE]]
                if not header["type"] & 0x8000:  # in the ROM of a sound card
                    yield self._region(zone + added, header, key, velocity)

    def _region(self, g: Ints, header: Any, key: int, velocity: int) -> Region:
        key = int(g[Gen.FIXED_KEY]) if g[Gen.FIXED_KEY] >= 0 else key
        velocity = int(g[Gen.FIXED_VELOCITY]) if g[Gen.FIXED_VELOCITY] > 0 else velocity
        start = int(header["start"]) + g[Gen.START] + 32768 * g[Gen.START_COARSE]
        end = int(header["end"]) + g[Gen.END] + 32768 * g[Gen.END_COARSE]
        loop_start = int(header["loop_start"]) + g[Gen.LOOP_START] + 32768 * g[Gen.LOOP_START_COARSE] - start
        loop_end = int(header["loop_end"]) + g[Gen.LOOP_END] + 32768 * g[Gen.LOOP_END_COARSE] - start
        sample = self._samples[max(start, 0) : max(end, 0)]
        if len(sample) < 2 or header["rate"] == 0:
            raise ValueError(f"sample {bytes(header['name']).decode('latin-1')!r} is empty")
        loops = g[Gen.LOOP_MODE] & 1 and 0 <= loop_start < loop_end <= len(sample)
        root = g[Gen.ROOT_KEY] if g[Gen.ROOT_KEY] >= 0 else min(int(header["key"]), 127)
        # The default modulator from velocity to attenuation (8.4.1) comes to the square of the velocity. Hardware and
        # every player since take 0.4 dB for each dB of attenuation asked for, and soundfonts are voiced for that.
        gain = (velocity / 127) ** 2 * 10 ** (-0.4 * max(int(g[Gen.ATTENUATION]), 0) / 10 / 20)
        return Region(
            sample=sample,
            rate=float(header["rate"]),
            loop=(int(loop_start), int(loop_end)) if loops else None,
            loop_while_held=g[Gen.LOOP_MODE] == 3,
            cents=float(
                (key - root) * g[Gen.SCALE_TUNING] + 100 * g[Gen.COARSE_TUNE] + g[Gen.FINE_TUNE] + int(header["cents"])
            ),
            gain=float(gain),
            pan=float(np.clip(g[Gen.PAN] / 1000, -0.5, 0.5)),
            volume=_envelope(g, Gen.VOLUME_ENVELOPE, key, 1 / 10, 144.0),
            filter=_envelope(g, Gen.MOD_ENVELOPE, key, 1 / 1000, 1.0),
            filter_cents=float(g[Gen.MOD_TO_CUTOFF]),
            pitch_cents=float(g[Gen.MOD_TO_PITCH]),
            cutoff=float(8.176 * 2 ** (np.clip(g[Gen.CUTOFF], 1500, 13500) / 1200)),
            resonance=float(np.clip(g[Gen.RESONANCE], 0, 960) / 10),
        )


class _Zones:
    """The zones of all presets or of all instruments: generators as a table, int64 [zones, 61], and which are set."""

    def __init__(self, bags: npt.NDArray[np.uint8], generators: npt.NDArray[np.uint8]) -> None:
        starts = bags.view(_BAG)["generator"].astype(np.int64)
        listed = generators.view(_GENERATOR)[: starts[-1]]
        zone = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        known = listed["number"] < COUNT
        self._set = np.zeros((len(starts) - 1, COUNT), np.bool_)
        self._amounts = np.zeros((len(starts) - 1, COUNT), np.int64)
        self._set[zone[known], listed["number"][known]] = True
        self._amounts[zone[known], listed["number"][known]] = listed["amount"][known]

    def matching(self, bags: Ints, target: Gen, key: int, velocity: int, defaults: Ints) -> Ints:
        """The generators [matches, 61] of zones bags[0] to bags[1] that have a `target` and sound for the note.

        A first zone without a target is global: its settings are the defaults of the others (7.3, 7.7).
        """
        part = slice(int(bags[0]), int(bags[1]))
        zones, given = self._amounts[part], self._set[part]
        if len(zones) and not given[0, target]:
            defaults = np.where(given[0], zones[0], defaults)
        zones = np.where(given, zones, defaults)
        fits = given[:, target]
        for generator, value in ((Gen.KEYS, key), (Gen.VELOCITIES, velocity)):
            low, high = zones[:, generator] & 0xFF, zones[:, generator] >> 8 & 0xFF
            fits = fits & (low <= value) & (value <= high)
        return zones[fits]


def _envelope(g: Ints, first: int, key: int, sustain_unit: float, sustain_limit: float) -> Envelope:
    def seconds(offset: int, key_scale: int = 0) -> float:
        timecents = g[first + offset] + (60 - key) * (g[first + key_scale] if key_scale else 0)
        return float(2 ** (np.clip(timecents, -12000, 8000) / 1200))

    sustain = float(np.clip(g[first + 4] * sustain_unit, 0, sustain_limit))
    return Envelope(seconds(0), seconds(1), seconds(2, 6), seconds(3, 7), sustain, seconds(5))


def _read_chunks(data: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.uint8]]:
    """The leaf chunks of a RIFF file by their four letters. Raises ValueError, struct.error or KeyError if damaged."""
    if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"sfbk":
        raise ValueError("no RIFF sfbk header")
    found: dict[str, npt.NDArray[np.uint8]] = {}
    pending = [(12, len(data))]
    while pending:
        position, stop = pending.pop()
        while position + 8 <= stop:
            name, size = struct.unpack("<4sI", bytes(data[position : position + 8]))
            body = position + 8
            if body + size > stop:
                raise ValueError(f"chunk {name!r} is cut short")
            if name == b"LIST":
                pending.append((body + 4, body + size))
            else:
                found[name.decode("latin-1")] = data[body : body + size]
            position = body + size + size % 2
    return found
