"""Bach's chorales of the JSB data set in sixteenths, the four voices apart, with the official split.

The split is that of Boulanger-Lewandowski et al. (2012). The file, `Jsb16thSeparated.json` of
https://github.com/czhuang/JSB-Chorales-dataset, maps "train", "valid" and "test" to lists of pieces, and a piece is a
list of [soprano, alto, tenor, bass], MIDI pitches with -1 for a rest. Beside it lies the same as
`Jsb16thSeparated.npz`, whose arrays are pickles, which are not read here.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.chorale import VOICES, score_of
from zoo.music.score import Score

NAME = "Jsb16thSeparated.json"
SPLITS = ("train", "valid", "test")


def is_collection(path: Path) -> bool:
    """Whether `path` is the data set's file."""
    return path.name == NAME


def read(path: Path) -> dict[str, list[npt.NDArray[np.int32]]]:
    """The pieces of each split, int32 [T, 4] each: MIDI pitches, soprano first, -1 for a rest.

    Raises:
      InputError: it can't be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pieces = {split: [np.array(piece, np.int32) for piece in content[split]] for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: the chorales can't be read ({reason}); unpack or download it again") from None
    for piece in (piece for split in pieces.values() for piece in split):
        if piece.ndim != 2 or piece.shape[1] != len(VOICES) or piece.max(initial=-1) > 127:
            raise InputError(f"{path}: holds something else than chords of four pitches; unpack or download it again")
    return pieces


def read_scores(path: Path) -> list[tuple[str, Score]]:
    """Every piece as a `Score`, by its name in the collection: "train/0", "train/1", …, "test/76". Errors as `read`."""
    return [
        (f"{split}/{i}", replace(score_of(piece), source=f"{path}#{split}/{i}"))
        for split, pieces in read(path).items()
        for i, piece in enumerate(pieces)
    ]
