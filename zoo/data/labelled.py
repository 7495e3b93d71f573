"""A folder of sound with labels → examples per split: windows "x" of samples, and what is to be said of each, "y".

"curves": beside each file of sound a CSV of the same stem, rows of time (s) and pitch (Hz, 0 where there is none); a
          window around each of these times, and its pitch as float32.
"classes": a folder for each class; windows one after another, and the index of their class as int32.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data import files
from zoo.data.batches import Array, Examples
from zoo.data.files import File
from zoo.errors import InputError
from zoo.music import audio
from zoo.music.audio import AudioCodec, Samples

KINDS = ("curves", "classes")
SURE = 0.5  # a row of a CSV whose third number, a confidence as `zoo pitch` writes it, is below counts as no pitch


@dataclass(frozen=True)
class Labelled:
    """Examples of each split, and where they come from.

    Attributes:
      train, valid, test: "x" float32 [W, width] and "y" [W]; all those of a file are in one split.
      classes: their names, in the order of the labels; empty for curves.
      names: paths of the files by split, relative to the folder.
      skipped: (path, reason) of each file that gave none.
    """

    train: Examples
    valid: Examples
    test: Examples
    classes: tuple[str, ...]
    names: dict[str, tuple[str, ...]]
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        counts = ", ".join(
            f"{split} {len(getattr(self, split)['y'])} windows of {len(names)} files"
            for split, names in self.names.items()
        )
        told = f"{len(self.classes)} classes; " if self.classes else ""
        return f"{told}{counts}; {len(self.skipped)} skipped"


class Windows:
    """Windows [W, width] of sounds, cut when they are asked for: each is as large as a second of sound, or larger."""

    def __init__(self, sounds: Sequence[Samples], begins: Sequence[npt.NDArray[np.int64]], width: int) -> None:
        """`begins`: where the windows of each sound begin, perhaps before its first sample; what is missing is 0."""
        self.width = width
        around = [np.zeros(width, np.float32), *(part for s in sounds for part in (s, np.zeros(width, np.float32)))]
        self.samples = np.concatenate(around)
        firsts = np.cumsum([width, *(len(sound) + width for sound in sounds)])
        self.begins = np.concatenate([np.zeros(0, np.int64), *(f + b for f, b in zip(firsts, begins, strict=False))])

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, chosen: Any) -> Array:
        """The windows that an index array or a slice chooses, float32 [n, width]."""
        return self.samples[self.begins[chosen][:, None] + np.arange(self.width)]


def load_labelled(folder: Path, codec: AudioCodec, kind: str, width: int) -> Labelled:
    """All examples of the sound in a folder, at any depth, by split (see `files.splits`); `kind` is one of `KINDS`.

    Args:
      width: samples of a window, at the codec's rate.

    Raises:
      InputError: no such folder, no sound in it, or none that has labels.
    """
    found = files.find(folder, suffixes=audio.SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no files of sound in it (WAV, FLAC, OGG, MP3)")
    classes = tuple(sorted({_class_of(file) for file in found} - {""})) if kind == "classes" else ()
    used: list[tuple[File, Samples, npt.NDArray[np.int64], Array]] = []
    skipped: list[tuple[str, str]] = []
    for file, example in _read(found, codec, kind, classes, width):
        if isinstance(example, str):
            skipped.append((file.name, example))
        else:
            used.append((file, *example))
    if not used:
        raise InputError(f"no usable files in {folder}: {len(skipped)} skipped, first: {skipped[0][1]}")
    split_of = files.splits(found)
    chosen = [split_of[file.name] for file, *_ in used]
    if "train" not in chosen:
        chosen = ["train"] * len(used)  # a handful of files, none of which the hash put there
    parts: dict[str, list[Any]] = {
        split: [each for each, c in zip(used, chosen, strict=True) if c == split] for split in files.SPLITS
    }
    examples = {split: _examples(part, width, classes) for split, part in parts.items()}
    names = {split: tuple(file.name for file, *_ in part) for split, part in parts.items()}
    return Labelled(**examples, classes=classes, names=names, skipped=tuple(skipped))


def _read(
    found: Sequence[File], codec: AudioCodec, kind: str, classes: tuple[str, ...], width: int
) -> Iterator[tuple[File, tuple[Samples, npt.NDArray[np.int64], Array] | str]]:
    """For each file its samples, where its windows begin and their labels; or why it has none."""
    from tqdm import tqdm

    for file in tqdm(found, "reading", unit=" files", delay=2, leave=False, disable=None, file=sys.stderr):
        try:
            if kind == "classes":
                yield file, _of_class(file, codec, classes, width)
            else:
                yield file, _of_curve(file, codec, width)
        except InputError as error:
            yield file, str(error)


def _of_curve(file: File, codec: AudioCodec, width: int) -> tuple[Samples, npt.NDArray[np.int64], Array]:
    times, hz = read_curve(file.path.with_suffix(".csv"))
    samples = codec.read(file.path)
    at = np.round(times * codec.sample_rate).astype(np.int64)
    inside = (at >= 0) & (at <= len(samples))
    if not inside.any():
        raise InputError(f"{file.path.with_suffix('.csv')}: none of its times, in seconds, lies within the sound")
    return samples, at[inside] - width // 2, hz[inside]


def _of_class(
    file: File, codec: AudioCodec, classes: tuple[str, ...], width: int
) -> tuple[Samples, npt.NDArray[np.int64], Array]:
    if not (name := _class_of(file)):
        raise InputError(f"{file.path}: lies in no class's folder; move it into one")
    samples = codec.read(file.path)
    begins = np.arange(max(1, round(len(samples) / width)), dtype=np.int64) * width  # the last at least half full
    return samples, begins, np.full(len(begins), classes.index(name), np.int32)


def _class_of(file: File) -> str:
    """The folder that a file lies in, "" for one in none of them."""
    return Path(file.name).parts[0] if len(Path(file.name).parts) > 1 else ""


def _examples(
    used: Sequence[tuple[File, Samples, npt.NDArray[np.int64], Array]], width: int, classes: tuple[str, ...]
) -> Examples:
    dtype = np.int32 if classes else np.float32
    labels = np.concatenate([np.zeros(0, dtype), *(label.astype(dtype) for *_, label in used)])
    return {"x": Windows([s for _, s, _, _ in used], [b for _, _, b, _ in used], width), "y": labels}


def read_curve(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times (s) and pitches (Hz, 0 where there is none), [T] each, of a CSV of such rows, with or without a head.

    Commas, semicolons, tabs and spaces divide. A third number is a confidence: below `SURE` there is no pitch.

    Raises:
      InputError: no such file, or a row that isn't such.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error}); put a CSV of times and Hz beside the sound") from None
    rows = [re.split(r"\s*[,;\t ]\s*", line.strip()) for line in lines if line.strip()]
    rows = rows[1:] if rows and not _is_number(rows[0][0]) else rows
    try:
        table = np.array([[float(cell) for cell in (*row[:3], "1")[:3]] for row in rows], np.float64)
        if not len(table) or table.shape[1] != 3 or not np.isfinite(table[:, :2]).all():
            raise ValueError
    except ValueError:
        raise InputError(f"{path}: not rows of time in seconds and pitch in Hz, such as 0.01,440.0") from None
    return table[:, 0], np.where(table[:, 2] < SURE, 0.0, np.maximum(table[:, 1], 0.0))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
