"""A folder of mixed files → windows per split. The first pass reads every file; later ones read the cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zoo.data import files, jsb, nottingham, pop909
from zoo.data.files import File
from zoo.errors import InputError, ZooError
from zoo.music.codecs import Codec
from zoo.music.io import read_pieces
from zoo.music.score import Score
from zoo.weights.cache import cache_folder, write_atomically

Array: TypeAlias = npt.NDArray[Any]

METERS = ("4/4", "2/4", "2/2", "4/2", "1/4", "4/8", "8/8")
_VERSION = 3  # of what is cached; raise it whenever readers or codecs change what they return


@dataclass(frozen=True)
class Corpus:
    """Windows [W, T, ...] of each split, and where they come from.

    Attributes:
      train, valid, test: windows; all those of a piece are in one split.
      names: paths of the pieces, relative to the folder; "book.abc#2" is the second tune of a book.
      pieces: by split, int32 [W]: for each window the index of its piece in `names`.
      skipped: (path, reason) of each file or tune that gave none.
      duplicates: how many windows were dropped from `train` because an earlier one is identical.
      overlap: for valid and test, how many of their windows also occur in `train`. They stay: songs share phrases, and
        how many they share is worth reporting.
    """

    train: Array
    valid: Array
    test: Array
    names: tuple[str, ...]
    pieces: dict[str, npt.NDArray[np.int32]]
    skipped: tuple[tuple[str, str], ...]
    duplicates: int
    overlap: dict[str, int]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{split} {len(getattr(self, split))} windows of {len(np.unique(self.pieces[split]))} pieces"
            for split in ("train", "valid", "test")
        )
        shared = ", ".join(f"{count} of {split}" for split, count in self.overlap.items())
        return f"{counts}; {self.duplicates} duplicates dropped, {shared} also in train; {len(self.skipped)} skipped"


@dataclass(frozen=True)
class _Pass:
    """The first pass over a folder: all windows [W, T, ...], the piece of each [W], names, and what was skipped."""

    windows: Array
    piece: npt.NDArray[np.int32]
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def load_corpus(
    folder: str | Path,
    codec: Codec,
    *,
    hop_bars: int = 1,
    dedupe: bool | None = None,
    meters: Sequence[str] = METERS,
    patterns: Sequence[str] = ("*",),
) -> Corpus:
    """All windows of the files in a folder, at any depth, by split (see `files.splits`).

    The first pass is cached under the user's cache folder, by the files' names, sizes and times, the codec and the
    options. Files that can't be used are listed in `Corpus.skipped`. POP909's songs are put on their beats, its chords
    and Nottingham's become chord symbols, and the JSB chorales have their official split.

    Args:
      hop_bars: a window begins every so many bars.
      dedupe: drop windows from train that are identical to an earlier one; None: only for melodies.
      meters: metres whose bars are read as 4/4: two of 2/4 make one, 4/2 makes two. Magenta takes 4/4 alone. A codec of
        music in `any_meter` takes all as they are.
      patterns: which files, see `files.find`.

    Raises:
      InputError: no such folder, no file of notes in it, or none that can be used.
    """
    folder = Path(folder)
    found = files.find(folder, patterns)
    if not found:
        raise InputError(f"{folder}: no files of notes in it (MIDI, MusicXML, MXL, ABC, **kern, NoteSequence)")
    cache = cache_folder() / "corpora" / f"{_key(found, codec, hop_bars, meters)}.npz"
    done = _cached(cache)
    if done is None:
        done = _first_pass(folder, found, codec, hop_bars, meters)
        with contextlib.suppress(ZooError):  # a cache that can't be written costs time at the next start, nothing else
            write_atomically(cache, [_packed(done)])
    return _split(done, files.splits(found), codec.name == "melody" if dedupe is None else dedupe)


def load_pieces(
    folder: str | Path,
    split: str,
    *,
    meters: Sequence[str] = METERS,
    patterns: Sequence[str] = ("*",),
    codec: Codec | None = None,
) -> Iterator[tuple[str, Score]]:
    """The whole pieces of one split that can be read, by name; as `load_corpus`, but nothing is cut or cached.

    With a `codec` for music in any metre they stay in theirs.
    """
    found = files.find(Path(folder), patterns)
    split_of = files.splits(found)
    for file in found:
        with contextlib.suppress(ZooError):
            for part, score in _pieces(file)[0]:
                name = f"{file.name}#{part}" if part else file.name
                if _split_of(name, split_of) == split:
                    yield name, score if any_meter(codec) else _in_common_time(score, meters)


def _first_pass(folder: Path, found: list[File], codec: Codec, hop_bars: int, meters: Sequence[str]) -> _Pass:
    from tqdm import tqdm

    used: list[tuple[str, Array]] = []
    skipped: list[tuple[str, str]] = []
    for file in tqdm(found, "reading", unit=" files", delay=2, leave=False, disable=None, file=sys.stderr):
        for name, result in _windows(file, codec, hop_bars, meters):
            if isinstance(result, str):
                skipped.append((name, result))
            else:
                used.append((name, result))
    if not used:
        raise InputError(f"no usable files in {folder}: {len(skipped)} skipped, first: {skipped[0][1]}")
    return _Pass(
        np.concatenate([windows for _, windows in used]),
        np.repeat(np.arange(len(used), dtype=np.int32), [len(windows) for _, windows in used]),
        tuple(name for name, _ in used),
        tuple(skipped),
    )


def _windows(file: File, codec: Codec, hop_bars: int, meters: Sequence[str]) -> Iterator[tuple[str, Array | str]]:
    """For each piece of a file: its name, and its windows or why it has none.

    Not only an InputError is such a reason: one file in a hundred thousand that nobody foresaw must not end the pass.
    """
    pieces: list[tuple[str, Score]]
    errors: Sequence[Exception]
    try:
        pieces, errors = _pieces(file)
    except Exception as error:
        pieces, errors = [], [error]
    yield from ((file.name, _reason(error)) for error in errors)
    for part, score in pieces:
        name = f"{file.name}#{part}" if part else file.name
        try:
            windows = codec.windows(score if any_meter(codec) else _in_common_time(score, meters), hop_bars)
        except Exception as error:
            yield name, _reason(error)
        else:
            yield name, windows


def _pieces(file: File) -> tuple[list[tuple[str, Score]], Sequence[Exception]]:
    """The pieces of a file by what tells them apart, "" if there is but one; and why others can't be read."""
    if jsb.is_collection(file.path):
        return jsb.read_scores(file.path), []
    for reader in (pop909, nottingham):
        if reader.is_song(file.path):
            return [("", reader.read_song(file.path))], []
    scores, errors = read_pieces(file.path)
    return [(str(i) if len(scores) > 1 else "", score) for i, score in enumerate(scores, 1)], errors


def any_meter(codec: Codec | None) -> bool:
    """Whether a codec takes music in any metre as it is."""
    return getattr(codec, "any_meter", False)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _in_common_time(score: Score, meters: Sequence[str]) -> Score:
    """The notes that begin under one of `meters`, in 4/4.

    Raises:
      InputError: there are none.
    """
    if not len(score.meters):
        return score
    named = [f"{numerator:.0f}/{denominator:.0f}" for _, numerator, denominator in score.meters]
    known = np.array([name in meters for name in named])
    segment = np.searchsorted(score.meters[:, 0], score.start, side="right") - 1
    kept = known[segment] | (segment < 0)
    if len(score) and not kept.any():
        metres = ", ".join(sorted(set(named)))
        raise InputError(f"{score.source}: in {metres}, and only {', '.join(meters)} are taken; leave it out")
    changes = score.meters.copy()
    changes[known, 1:] = 4
    return replace(score.select(kept), meters=changes)


def _split(done: _Pass, split_of: dict[str, files.Split], dedupe: bool) -> Corpus:
    of_piece = np.array([_split_of(name, split_of) for name in done.names])
    if not (of_piece == "train").any():
        of_piece = np.full(len(of_piece), "train")  # a handful of files, none of which the hash put there
    split = of_piece[done.piece]
    keys = _rows_as_bytes(done.windows)
    train, valid, test = (np.flatnonzero(split == name) for name in ("train", "valid", "test"))
    duplicates = 0
    if dedupe:
        _, first = np.unique(keys[train], return_index=True)
        duplicates = len(train) - len(first)
        train = train[np.sort(first)]
    held_out = {"valid": valid, "test": test}
    return Corpus(
        train=done.windows[train],
        valid=done.windows[valid],
        test=done.windows[test],
        names=done.names,
        pieces={"train": done.piece[train], "valid": done.piece[valid], "test": done.piece[test]},
        skipped=done.skipped,
        duplicates=duplicates,
        overlap={name: int(np.isin(keys[rows], keys[train]).sum()) for name, rows in held_out.items()},
    )


def _split_of(name: str, split_of: dict[str, files.Split]) -> str:
    """The split of a piece: that of its file, unless its name in a collection says it: "…json#test/3"."""
    if name in split_of:
        return split_of[name]
    file, _, part = name.rpartition("#")
    split = part.partition("/")[0]
    return split if split in jsb.SPLITS else split_of[file]


def _rows_as_bytes(windows: Array) -> Array:
    """One opaque value a window, equal where the windows are."""
    rows = np.ascontiguousarray(windows).reshape(len(windows), -1)
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def _key(found: list[File], codec: Codec, hop_bars: int, meters: Sequence[str]) -> str:
    """Changes with anything the first pass depends on."""
    stats = [file.path.stat() for file in found]
    facts = [(file.name, stat.st_size, stat.st_mtime_ns) for file, stat in zip(found, stats, strict=True)]
    everything = [_VERSION, repr(codec), hop_bars, sorted(meters), facts]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _packed(done: _Pass) -> bytes:
    buffer = io.BytesIO()
    texts = json.dumps([done.names, done.skipped])
    np.savez(buffer, windows=done.windows, piece=done.piece, texts=np.array(texts))
    return buffer.getvalue()


def _cached(path: Path) -> _Pass | None:
    """What an earlier first pass left; None where there is nothing, or nothing whole."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names, skipped = json.loads(str(archive["texts"]))
            windows, piece = archive["windows"], archive["piece"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return _Pass(windows, piece, tuple(names), tuple((path, reason) for path, reason in skipped))
