"""The McGill Billboard (Burgoyne, Wild, Fujinaga, ISMIR 2011): chroma of pop songs with their chords and sections.

The recordings are not public, their NNLS chroma (Mauch and Dixon 2010) are: bass 12 and treble 12, a frame every 2048
samples at 44.1 kHz. Their pitch classes begin at A (summed over chords by `majmin.lab`, most energy lies three places
above the root's number); here they begin at C. Two layouts are read:

- packed: `billboard-chroma.npz`, by song uint8 [T, 24] with x = 5 · (q / 255)², and beside it
  `billboard-labels.tar.gz`, or what that unpacks to, a folder a song;
- as McGill distributes it: a folder a song with `bothchroma.csv` and the labels.

Labels are `salami_chords.txt` (title, artist, lines of a phrase each with section, chords in bars, and the time of its
beginning), `majmin.lab` and `majmin7.lab`, and perhaps `full.lab`. 833 entries are 701 songs: some were drawn several
times.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.data.archives import unpack
from zoo.errors import InputError
from zoo.music import harte
from zoo.music.harte import NO_CHORD, ChordSpan
from zoo.music.sections import Section, parse

RATE, HOP = 44100, 2048  # Hz, samples from one frame to the next
LEVELS = ("full", "majmin7", "majmin")

_CHROMA, _LABELS, _SALAMI, _CSV = "billboard-chroma.npz", "billboard-labels", "salami_chords.txt", "bothchroma.csv"
_LARGEST = 5.0  # of the companded values
_ASIDE = re.compile(r"^\(|\)$|^fade ?(in|out)$|^$")  # "(voice" begins it, "voice)" ends it; none of it is a section


@dataclass(frozen=True)
class Entry:
    """One song where it lies; nothing is read before it is asked for, and what can't be read is an InputError.

    Attributes:
      name: the number that McGill gave it: "0003".
      labels: the folder of its labels.
    """

    name: str
    labels: Path
    _archive: Any = None

    @property
    def work(self) -> str:
        """What it is a recording of, for splits: entries with the same artist and title are the same song."""
        return "|".join(re.sub(r"\W+", " ", self._lines[1].get(key, "")).strip().lower() for key in ("artist", "title"))

    def chroma(self) -> npt.NDArray[np.float32]:
        """Bass and treble chroma, each from C on, float32 [T, 24]."""
        try:
            if self._archive is None:
                table = np.loadtxt(self.labels / _CSV, delimiter=",", usecols=range(2, 26), dtype=np.float32, ndmin=2)
            else:
                table = _LARGEST * (self._archive[self.name].astype(np.float32) / 255) ** 2
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.labels}: its chroma can't be read ({error}); download it again") from None
        if table.ndim != 2 or table.shape[1] != 24 or not len(table) or not np.isfinite(table).all():
            raise InputError(f"{self.labels}: its chroma are no rows of 24 numbers; download it again")
        return np.roll(table.reshape(-1, 2, 12), -3, axis=2).reshape(-1, 24)

    def chords(self) -> dict[str, tuple[ChordSpan, ...]]:
        """The chords by level of detail, see `LEVELS`, from the recording's beginning to its end.

        "full" are the transcriber's own. Where `full.lab` is missing they are read from the bars of
        `salami_chords.txt` and take the times of `majmin7.lab`, which names the same chords one by one, reduced;
        phrases whose numbers of chords differ by more than what was left open at their ends keep the reduced label.
        """
        levels = {level: tuple(harte.read_lab(self.labels / f"{level}.lab")) for level in LEVELS[1:]}
        if (self.labels / "full.lab").is_file():
            return {"full": tuple(harte.read_lab(self.labels / "full.lab"))} | levels
        return {"full": tuple(self._full(levels["majmin7"]))} | levels

    def sections(self) -> tuple[Section, ...]:
        """The sections one after another to the recording's end; "fadeout" alone begins none."""
        rows, end = self._lines[0], self._lines[0][-1][0]
        starts: list[tuple[float, str, str]] = []
        for time, text in rows[:-1]:
            parts = re.split(r"\s*,\s*", text.split("|")[0])
            letter, label = parse(", ".join(part for part in parts if not _ASIDE.search(part)))
            if letter or label:
                starts.append((time, letter, label))
        ends = [*(time for time, _, _ in starts[1:]), end]
        return tuple(Section(a, b, label, letter) for (a, letter, label), b in zip(starts, ends, strict=True) if b > a)

    @cached_property
    def _lines(self) -> tuple[list[tuple[float, str]], dict[str, str]]:
        """The timed lines of `salami_chords.txt` (s, text), the last being its end, and what its head says."""
        path = self.labels / _SALAMI
        try:
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            heads = (line.lstrip("# ").partition(":") for line in lines if line.startswith("#"))
            timed = [line.partition("\t") for line in lines if not line.startswith("#")]
            rows = [(float(time), text.strip()) for time, _, text in timed]
            if len(rows) < 2 or any(b[0] < a[0] for a, b in pairwise(rows)):
                raise ValueError("its times don't ascend")
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: no annotation can be read ({error}); download it again") from None
        return rows, {key.strip(): value.strip() for key, _, value in heads}

    def _full(self, reduced: tuple[ChordSpan, ...]) -> Iterator[ChordSpan]:
        """`reduced` with the transcriber's labels."""
        starts = np.array([span.start for span in reduced])
        rows = self._lines[0]
        bounds = [0, *np.searchsorted(starts, [time - 1e-3 for time, _ in rows[1:]]).tolist()]
        for (_, text), first, after in zip(rows, bounds, [*bounds[1:], len(reduced)], strict=False):
            spans = reduced[first:after]
            labels = _aligned(_chords_of(text), [span.label for span in spans])
            for span, label in zip(spans, labels, strict=True):
                yield ChordSpan(span.start, span.end, label)


def find(folder: Path) -> list[Entry]:
    """The songs of the data set in a folder, by name; none where it isn't there.

    Raises InputError if the chroma or the labels' archive are broken, or labels are missing beside the chroma.
    """
    if not (folder / _CHROMA).is_file():
        return [Entry(path.parent.name, path.parent) for path in sorted(folder.rglob(_CSV))]
    labels = _labels(folder)
    try:
        archive: Mapping[str, Any] = np.load(folder / _CHROMA, allow_pickle=False)
        return [Entry(name, labels[name], archive) for name in sorted(archive) if name in labels]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder / _CHROMA}: can't be read ({error}); download it again") from None


def _labels(folder: Path) -> dict[str, Path]:
    """The folder of each song's labels."""
    packed = folder / f"{_LABELS}.tar.gz"
    roots = [folder, folder / _LABELS, *([unpack(packed, frozenset({".lab", ".txt"}))] if packed.is_file() else [])]
    found = {path.parent.name: path.parent for root in roots for path in root.glob(f"*/{_SALAMI}")}
    if not found:
        raise InputError(f"{folder / _CHROMA}: no labels beside it; put {packed.name} or its folders there")
    return found


def _chords_of(text: str) -> list[str]:
    """The chords of a phrase's bars: "| C:maj | G:7 . . F:maj | x2" → three, twice."""
    if "|" not in text:
        return []
    bars, rest = text[text.index("|") : text.rindex("|")], text[text.rindex("|") + 1 :]
    chords = re.findall(r"(?<![^\s|])[A-G][#b]*:[^\s|]+|(?<![^\s|])N(?![^\s|])|&pause", re.sub(r",\s+", ",", bars))
    times = re.match(r"\s*x(\d+)", rest)
    return [NO_CHORD if chord == "&pause" else chord for chord in chords] * (int(times[1]) if times else 1)


def _aligned(full: list[str], reduced: list[str]) -> list[str]:
    """For each chord of `reduced` its label in `full`; there may be more silence around it, and its last repeated."""
    first, after = 0, len(reduced)
    while after - first > len(full) and reduced[first] == NO_CHORD:
        first += 1
    while after - first > len(full) and reduced[after - 1] == NO_CHORD:
        after -= 1
    extra = after - first - len(full)
    if not full or extra < 0 or len(set(reduced[after - 1 - extra : after])) > 1:
        return reduced
    return [*reduced[:first], *full, *full[-1:] * extra, *reduced[after:]]
