"""The files of notes in a folder, and which split each belongs to."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeAlias

from zoo.data import jsb
from zoo.data.archives import is_archive, unpack
from zoo.errors import InputError
from zoo.music.io import SUFFIXES

Split: TypeAlias = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_SPLITS: dict[str, Split] = {"train": "train", "valid": "valid", "validation": "valid", "test": "test"}
_SPLIT_FILE, _TABLE = "splits.json", "info.csv"
_SIDECARS = frozenset({".json", ".csv", ".txt"})


class File(NamedTuple):
    """A file of notes: its name for people and splits, relative to the folder asked for, and where it lies.

    `root` is the folder it was found under, or that its archive was unpacked to. The name of a file out of an archive
    begins with the archive's: "pop909.tar.gz/001/001.mid".
    """

    name: str
    path: Path
    root: Path


def find(folder: Path, patterns: Sequence[str] = ("*",), suffixes: frozenset[str] = SUFFIXES) -> list[File]:
    """The files of notes in a folder or archive and in the archives in it, at any depth, sorted; none that are hidden.

    Args:
      patterns: shell patterns for the names; those that begin with "!" exclude: ["*", "!chords/*"]. The piano rolls of
        the JSB chorales, the same pieces once more, are chosen only by a pattern that ends in ".json".
      suffixes: of the files, those of notes unless given.

    Raises:
      InputError: no such folder, it can't be listed, or an archive that can't be unpacked.
    """
    if folder.is_file() and is_archive(folder):
        return find(unpack(folder, suffixes | _SIDECARS), patterns, suffixes)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; pass a folder of music files")
    return sorted(file for file in _walk(folder, suffixes) if _chosen(file.name, patterns))


def splits(found: Iterable[File]) -> dict[str, Split]:
    """The split of each file, by name.

    The nearest `splits.json` above a file decides. It maps keys to "train", "valid" or "test", where a key is, relative
    to the json's folder, the file's path (with or without suffix), a folder that holds it, or else just the file's
    name. Groove's `info.csv` (columns midi_filename, split) counts as one. What neither names is split 80/10/10 by a
    hash of its name, so that it stays where it is when other files come and go.

    Raises:
      InputError: a `splits.json` or `info.csv` that can't be understood.
    """
    tables: dict[Path, Mapping[str, Split]] = {}
    result: dict[str, Split] = {}
    for name, path, root in found:
        split = None
        for parent in path.parents:
            if parent not in tables:
                tables[parent] = _table(parent)
            split = split or _look_up(tables[parent], PurePosixPath(path.relative_to(parent).as_posix()))
            if parent == root:
                break
        result[name] = split or by_hash(name)
    return result


def _walk(folder: Path, suffixes: frozenset[str]) -> Iterator[File]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: can't be listed ({error.strerror}); check its permissions") from None

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            name = path.relative_to(folder).as_posix()
            if path.suffix.lower() in suffixes or jsb.is_collection(path):
                yield File(name, path, folder)
            elif is_archive(path):
                unpacked = unpack(path, suffixes | _SIDECARS)
                yield from (File(f"{name}/{inner.name}", inner.path, unpacked) for inner in _walk(unpacked, suffixes))


def _chosen(name: str, patterns: Sequence[str]) -> bool:
    chosen = False
    if jsb.is_roll(name):
        patterns = [pattern for pattern in patterns if pattern.endswith(".json")]
    for pattern in patterns:
        if fnmatchcase(name, pattern.removeprefix("!")):
            chosen = not pattern.startswith("!")
    return chosen


def _table(folder: Path) -> dict[str, Split]:
    """What the folder's own `splits.json` or `info.csv` says; empty if it has none."""
    try:
        if (folder / _SPLIT_FILE).is_file():
            named = json.loads((folder / _SPLIT_FILE).read_text(encoding="utf-8"))
            return {key: _SPLITS[split] for key, split in named.items()}
        if (folder / _TABLE).is_file():
            with (folder / _TABLE).open(encoding="utf-8", newline="") as file:
                return {row["midi_filename"]: _SPLITS[row["split"]] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, csv.Error, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{folder}: its splits can't be read ({reason}); use train, valid and test") from None
    return {}


def _look_up(table: Mapping[str, Split], path: PurePosixPath) -> Split | None:
    keys = [path, path.with_suffix(""), *path.parents, path.name, path.stem]
    return next((table[str(key)] for key in keys if str(key) in table), None)


def by_hash(name: str) -> Split:
    """80/10/10 by a hash of a name."""
    bucket = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[0] % 10
    return "test" if bucket == 0 else "valid" if bucket == 1 else "train"
