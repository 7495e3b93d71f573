"""Beats found beside those that are known: `python -m benchmarks.beats DIR`.

DIR holds what the model learns from, recordings with `.beats` or files of notes, which are played; of these the test
split, a minute of each piece, a row for each data set in DIR. Beside the model stands what needs no training: a tempo
from the autocorrelation of spectral flux and beats by dynamic programming (Ellis 2007), bars of four or three beats
beginning where the bass changes most; `zoo.music.metre` does the same with notes. ZOO_SOUNDFONT names a soundfont
other than the one that the model has heard.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo.data import Song, read_songs
from zoo.music import beat_metrics
from zoo.music.beats import Beat
from zoo.music.metre import RATE, bars_of, find_beats, near, smoothed

LOW = 6  # bands that count as bass


def main() -> None:
    """Prints a table, and with --json everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="beat-tcn")
    parser.add_argument("--songs", type=int, help="at most so many")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model: Any = zoo.load(args.model)
    rows: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for song in read_songs(args.data, model.codec, "test", args.songs):
        if beat_metrics.measurable(song.beats):
            heard = list(model.of_frames(song.frames, song.seconds))
            for way, beats in (("the model", heard), ("dynamic programming", by_flux(song))):
                rows[song.name.split("/")[0], way].append(beat_metrics.compare(song.beats, beats))
    table: list[dict[str, Any]] = []
    for (data, way), each in sorted(rows.items()):
        means = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        table.append({"data": data, "way": way, "songs": len(each), **means})
    if args.json:
        print(json.dumps(table, indent=1))
        return
    for row in table:
        numbers = "".join(f"{key:>14} {value:.3f}" for key, value in row.items() if isinstance(value, float))
        print(f"{row['data']:24}{row['way']:22}{row['songs']:4} pieces{numbers}")


def by_flux(song: Song) -> list[Beat]:
    """Beats of a song by what its spectrum gains from frame to frame, without a network."""
    assert abs(song.frame_seconds * RATE - 1) < 1e-6
    gained = np.diff(song.frames, axis=0, prepend=song.frames[:1]).clip(0)
    strength, low = (smoothed(part.sum(axis=1)) for part in (gained, gained[:, :LOW]))
    frames = find_beats(strength)
    if len(frames) < 4:
        return []
    count, first = bars_of(near(strength / strength.std() + low / max(low.std(), 1e-9), frames))
    return [Beat(at / RATE, (i - first) % count + 1) for i, at in enumerate(frames.tolist())]


if __name__ == "__main__":
    main()
