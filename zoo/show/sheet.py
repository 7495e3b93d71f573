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
      stem: what the names of their files begin with, e.g. "sample".
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
    """The paths of what was written: a MIDI, WAV and PNG file a score, a PNG with all scores a group, and one page."""

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
    """Writes all of several groups, with one index.html for all.

    Each file is whole or not there. Raises InputError naming the path if one can't be written.
    """
    from tqdm import tqdm

    out = Path(out_dir)
    midi: list[Path] = []
    wav: list[Path] = []
    png: list[Path] = []
    sheets: list[Path] = []
    items: list[Item] = []
    with tqdm(total=sum(len(group.scores) for group in groups), desc="rendering", disable=None, leave=False) as bar:
        for group in groups:
            sheets.append(piano_roll(group.scores, out / f"{group.stem}.png", group.heading, group.titles, group.morph))
            for i, (score, name) in enumerate(zip(group.scores, group.titles, strict=True)):
                base = f"{group.stem}-{i + 1:0{len(str(len(group.scores)))}}"
                sound, notes = render(score), midi_bytes(score)
                midi.append(write(out / f"{base}.mid", notes))
                wav.append(write_wav(out / f"{base}.wav", sound, RATE))
                png.append(piano_roll(score, out / f"{base}.png", name))
                share = i / max(1, len(group.scores) - 1) if group.morph else None
                items.append(Item(name, score, sound, notes, group.heading, share))
                bar.update()
    return Written(tuple(midi), tuple(wav), tuple(png), tuple(sheets), page(title, items, out / "index.html", subtitle))
