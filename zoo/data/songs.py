"""Whole songs with their chords, sections and beats: the McGill Billboard, and folders of one's own.

The Billboard is for models whose codec is that of its chroma. Of one's own: beside each file of sound, `song.wav`, its
chords in `song.lab`, its sections in `song.sections.lab` and its beats in `song.beats`, or one of them; the codec makes
features of the sound. For a codec of notes a song is a file of notes, whose chords may also be symbols in it, or
POP909's. For one of mel spectra, by which beats are heard, files of notes are played (`zoo.data.played`): their beats
are known. A model's task turns a song into examples:

    load_songs(folder, codec, lambda song: {"x": …, "y": …})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data import billboard, files, played, pop909
from zoo.data.batches import Array, Examples
from zoo.data.files import File
from zoo.errors import InputError, ZooError
from zoo.music import audio, beats, harte, io, sections
from zoo.music.beats import Beat
from zoo.music.chords import symbols_in_time
from zoo.music.chroma import NnlsChromaCodec
from zoo.music.harte import ChordSpan
from zoo.music.log_mel import LogMelCodec
from zoo.music.sections import Section

PLAYED, PLAYED_WHOLE = 20.0, 60.0  # seconds of notes that are played, for examples and for what is to be a whole song

Maker = Callable[["Song"], Mapping[str, Array]]  # a song → examples, arrays [n, …] of one n


@dataclass(frozen=True)
class Song:
    """A song as a model hears it, and what people say of it.

    Attributes:
      name: the song's number, or the file's path within its folder.
      frames: features, float32 [T, …]; of the Billboard bass and treble chroma from C on, [T, 24].
      frame_seconds: from one frame to the next.
      seconds: its length.
      chords: by level of detail, "full" and perhaps what `billboard.LEVELS` names; empty where there are none.
      sections, beats: empty where there are none.
    """

    name: str
    frames: npt.NDArray[np.float32]
    frame_seconds: float
    seconds: float
    chords: Mapping[str, tuple[ChordSpan, ...]]
    sections: tuple[Section, ...]
    beats: tuple[Beat, ...] = ()


@dataclass(frozen=True)
class Songs:
    """Examples of each split, and where they come from.

    Attributes:
      train, valid, test: arrays [W, …] by name; all those of a song, and of its other recordings, are in one split.
      names: of the songs, by split.
      skipped: (song, reason) of each that gave none.
    """

    train: Examples
    valid: Examples
    test: Examples
    names: dict[str, tuple[str, ...]]
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        counts = (
            f"{split} {len(next(iter(getattr(self, split).values()), ()))} examples of {len(names)} songs"
            for split, names in self.names.items()
        )
        return f"{', '.join(counts)}; {len(self.skipped)} skipped"


def load_songs(folder: Path, codec: Any, examples: Maker) -> Songs:
    """The examples that `examples` makes of the songs in a folder, by split; for a song of no use it raises InputError.

    Raises:
      InputError: no such folder, no songs in it, or none that gives examples.
    """
    parts: dict[str, list[tuple[str, Mapping[str, Array]]]] = {split: [] for split in files.SPLITS}
    skipped: list[tuple[str, str]] = []
    for name, split, song in _read(folder, codec, PLAYED):
        try:
            parts[split].append((name, examples(song())))
        except ZooError as error:
            skipped.append((name, str(error)))
    used = [part for rows in parts.values() for part in rows]
    if not used:
        raise InputError(f"no usable songs in {folder}: {len(skipped)} skipped, first: {skipped[0][1]}")
    if not parts["train"]:
        parts = {"train": used, "valid": [], "test": []}  # a handful of files, none of which the hash put there
    like = used[0][1]
    arrays = {split: _joined([rows for _, rows in part], like) for split, part in parts.items()}
    names = {split: tuple(name for name, _ in part) for split, part in parts.items()}
    return Songs(**arrays, names=names, skipped=tuple(skipped))


def read_songs(folder: Path, codec: Any, split: str, limit: int | None = None) -> Iterator[Song]:
    """The whole songs of one split that can be read, at most `limit`. Raises InputError if there are no songs."""
    left = sys.maxsize if limit is None else limit
    for _, there, song in _read(folder, codec, PLAYED_WHOLE):
        if there == split and left > 0:
            try:
                read = song()
            except ZooError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            left -= 1
            yield read


def _read(folder: Path, codec: Any, seconds: float) -> Iterator[tuple[str, files.Split, Callable[[], Song]]]:
    """Each song's name, its split, and what reads it."""
    from tqdm import tqdm

    if not folder.exists():
        raise InputError(f"{folder}: no such folder; pass one of songs with labels")
    entries = billboard.find(folder) if isinstance(codec, NnlsChromaCodec) and folder.is_dir() else []
    found: list[tuple[str, files.Split, Callable[[], Song]]] = []
    if entries:
        found = [(entry.name, _split_of(entry), lambda entry=entry: _of_entry(entry)) for entry in entries]  # type: ignore[misc]
    elif there := files.find(folder, suffixes=_suffixes(codec)):
        split_of = files.splits(there)
        found = [(file.name, split_of[file.name], lambda file=file: _of_file(file, codec, seconds)) for file in there]  # type: ignore[misc]
    if not found:
        raise InputError(f"{folder}: neither {_wanted(codec)}")
    yield from tqdm(found, "reading", unit=" songs", delay=2, leave=False, disable=None, file=sys.stderr)


def _split_of(entry: billboard.Entry) -> files.Split:
    """By a hash of artist and title; one whose annotation can't be read is skipped later, wherever it is put."""
    try:
        return files.by_hash(entry.work)
    except InputError:
        return "train"


def _of_entry(entry: billboard.Entry) -> Song:
    frames, seconds = entry.chroma(), billboard.HOP / billboard.RATE
    return Song(entry.name, frames, seconds, len(frames) * seconds, entry.chords(), entry.sections())


def _suffixes(codec: Any) -> frozenset[str]:
    if codec.kind == "notes":
        return io.SUFFIXES
    return audio.SUFFIXES | io.SUFFIXES if isinstance(codec, LogMelCodec) else audio.SUFFIXES


def _wanted(codec: Any) -> str:
    if codec.kind == "notes":
        return "MIDI nor other files of notes"
    if isinstance(codec, LogMelCodec):
        return "sound with .beats files beside it nor files of notes"
    return "the Billboard's chroma nor sound with .lab files"


def _of_file(file: File, codec: Any, seconds: float) -> Song:
    """The song of a file; of one of notes that is to be played at most `seconds`."""
    if codec.kind != "notes" and io.is_notes(file.path):
        return _of_played(file, codec, seconds)
    chords, parts, told = _chords(file, codec), *(file.path.with_suffix(f".{x}") for x in ("sections.lab", "beats"))
    if not chords and not parts.is_file() and not told.is_file():
        raise InputError(
            f"{file.path}: no labels beside it; put {file.path.stem}.lab, {parts.name} or {told.name} there"
        )
    frames, seconds = codec.features(file.path)
    return Song(
        file.name,
        np.array(frames),  # a codec may leave them on disk
        codec.hop / codec.sample_rate,
        seconds,
        {"full": chords} if chords else {},
        tuple(sections.read_lab(parts)) if parts.is_file() else (),
        tuple(beats.read(told)) if told.is_file() else (),
    )


def _of_played(file: File, codec: Any, seconds: float) -> Song:
    sound, known = played.play(file.path, file.name, seconds)
    frames, seconds = codec.features((sound, played.RATE))
    return Song(file.name, frames, codec.hop / codec.sample_rate, seconds, {}, (), tuple(known))


def _chords(file: File, codec: Any) -> tuple[ChordSpan, ...]:
    """The chords of a file, from beside it or from its chord symbols; none if there are none."""
    if codec.kind == "notes" and pop909.is_song(file.path):
        return tuple(harte.read_lab(file.path.parent / pop909.CHORDS))
    if file.path.with_suffix(".lab").is_file():
        return tuple(harte.read_lab(file.path.with_suffix(".lab")))
    return symbols_in_time(io.read(file.path)) if codec.kind == "notes" else ()


def _joined(parts: list[Mapping[str, Array]], like: Mapping[str, Array]) -> dict[str, Array]:
    return {key: np.concatenate([rows[:0], *(part[key] for part in parts)]) for key, rows in like.items()}
