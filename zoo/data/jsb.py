"""Bach's chorales of the JSB data set, with the official split: sixteenths with the voices apart, or piano rolls.

The split is that of Boulanger-Lewandowski et al. (2012). The file, `Jsb16thSeparated.json` of
https://github.com/czhuang/JSB-Chorales-dataset, maps "train", "valid" and "test" to lists of pieces, and a piece is a
list of [soprano, alto, tenor, bass], MIDI pitches with -1 for a rest. Beside it lies the same as
`Jsb16thSeparated.npz`, whose arrays are pickles, which are not read here. The piano rolls, as Boulanger-Lewandowski et
al. measured on them in quarters, are `jsb-chorales-{quarter,8th,16th}.json`: a piece is a list of the pitches that
sound at each step, transposed to C major or C minor.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.chorale import VOICES, score_of
from zoo.music.score import Score

NAME = "Jsb16thSeparated.json"
ROLLS = {"jsb-chorales-quarter.json": 1, "jsb-chorales-8th.json": 2, "jsb-chorales-16th.json": 4}  # steps a quarter
SPLITS = ("train", "valid", "test")


def is_collection(path: Path) -> bool:
    """Whether `path` is one of the data set's files."""
    return path.name == NAME or path.name in ROLLS


def is_roll(name: str) -> bool:
    """Whether a file of this name holds piano rolls, which are the same chorales once more."""
    return name.rpartition("/")[2] in ROLLS


def read(path: Path) -> dict[str, list[npt.NDArray[np.int32]]]:
    """The pieces of each split, int32 [T, K] each: MIDI pitches, -1 for a rest.

    K is 4, soprano first, where the voices stand apart; in a piano roll as many as sound at once at most.

    Raises:
      InputError: it can't be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pieces = {split: [_rows(piece) for piece in content[split]] for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: the chorales can't be read ({reason}); unpack or download it again") from None
    for piece in (piece for split in pieces.values() for piece in split):
        apart = path.name == NAME
        if piece.ndim != 2 or (apart and piece.shape[1] != len(VOICES)) or piece.max(initial=-1) > 127:
            raise InputError(f"{path}: holds something else than chords of four pitches; unpack or download it again")
    return pieces


def _rows(piece: list[list[int]]) -> npt.NDArray[np.int32]:
    """Lists of pitches, filled up with -1 to the longest."""
    width = max(map(len, piece))
    return np.array([[*pitches, *[-1] * (width - len(pitches))] for pitches in piece], np.int32)


def read_scores(path: Path) -> list[tuple[str, Score]]:
    """Every piece as a `Score`, by its name in the collection: "train/0", "train/1", …, "test/76". Errors as `read`."""
    score = score_of if path.name == NAME else partial(_roll_score, steps_per_quarter=ROLLS[path.name])
    return [
        (f"{split}/{i}", replace(score(piece), source=f"{path}#{split}/{i}"))
        for split, pieces in read(path).items()
        for i, piece in enumerate(pieces)
    ]


def _roll_score(pitches: npt.NDArray[np.int32], steps_per_quarter: int) -> Score:
    """Notes of one track, each as long as its pitch goes on."""
    step, place = np.nonzero(pitches >= 0)
    down = np.zeros((128, len(pitches) + 2), np.int8)  # a silent step before and after
    down[pitches[step, place], step + 1] = 1
    changes = np.diff(down, axis=1)
    pitch, start = np.nonzero(changes == 1)
    end = np.nonzero(changes == -1)[1]  # in the same order: a note ends before the next of its pitch begins
    return Score.of(start / steps_per_quarter, end / steps_per_quarter, pitch)
