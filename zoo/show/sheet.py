"""Everything there is to see and hear of some scores, in one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.music.midi import midi_bytes
from zoo.music.score import Score
from zoo.show.audio import render, write_wav
from zoo.show.files import write
from zoo.show.html import Item, page
from zoo.show.roll import piano_roll
from zoo.show.sampler import RATE


@dataclass(frozen=True)
class Group:
    """Scores that belong together: samples of one model, or the steps of an interpolation from the first to the last.

    Attributes:
      scores, titles: the same number of each; titles are any text.
      stem: what the names of their files begin with, e.g. "sample" for sample-1.mid, or sample.mid if there is but one.
      heading: any text, "" for none.
      morph: they are an interpolation, and coloured as one.
    """

    scores: Sequence[Score]
    titles: Sequence[str]
    stem: str
    heading: str = ""
    morph: bool = False


@dataclass(frozen=True)
class Written:
    """What was written: a MIDI, WAV and PNG file a score, a PNG sheet a group of several scores, and one page."""

    midi: tuple[Path, ...]
    wav: tuple[Path, ...]
    png: tuple[Path, ...]
    sheets: tuple[Path, ...]
    page: Path


def write_all(
    scores: Sequence[Score],
    titles: Sequence[str],
    out_dir: str | os.PathLike[str],
    stem: str,
    title: str = "",
    subtitle: str = "",
) -> Written:
    """Writes `stem`-1.mid, .wav and .png and so on, `stem`.png with all of them, and index.html; see `write_groups`."""
    return write_groups([Group(scores, titles, stem)], out_dir, title or stem, subtitle)


def write_groups(groups: Sequence[Group], out_dir: str | os.PathLike[str], title: str, subtitle: str = "") -> Written:
    """Writes all of several groups, with one index.html for all; MIDI first, which takes no time.

    Each file is whole or not there. Raises InputError naming the path if one can't be written.
    """
    from tqdm import tqdm

    out = Path(out_dir)
    midi = write_midi(groups, out)
    wav: list[Path] = []
    png: list[Path] = []
    sheets: list[Path] = []
    items: list[Item] = []
    with tqdm(total=len(midi), desc="rendering", disable=None, leave=False) as bar:
        for group in groups:
            if len(group.scores) > 1:
                sheet = out / f"{group.stem}.png"
                sheets.append(piano_roll(group.scores, sheet, group.heading, group.titles, group.morph))
            for i, (score, name, stem) in enumerate(zip(group.scores, group.titles, file_stems(group), strict=True)):
                sound = render(score)
                wav.append(write_wav(out / f"{stem}.wav", sound, RATE))
                png.append(piano_roll(score, out / f"{stem}.png", name))
                share = i / max(1, len(group.scores) - 1) if group.morph else None
                items.append(Item(name, score, sound, midi_bytes(score), group.heading, share))
                bar.update()
    return Written(midi, tuple(wav), tuple(png), tuple(sheets), page(title, items, out / "index.html", subtitle))


def write_midi(groups: Sequence[Group], out_dir: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Writes the MIDI files alone. Raises InputError naming the path if one can't be written."""
    return tuple(
        write(Path(out_dir) / f"{stem}.mid", midi_bytes(score))
        for group in groups
        for score, stem in zip(group.scores, file_stems(group), strict=True)
    )


def file_stems(group: Group) -> list[str]:
    """The names, without suffix, of the files of each score of a group."""
    count = len(group.scores)
    return [group.stem] if count == 1 else [f"{group.stem}-{i:0{len(str(count))}}" for i in range(1, count + 1)]
