"""How well a chord recogniser hears POP909's songs, played by the zoo: `python -m benchmarks.chords_pop909 DIR`.

DIR is the unpacked data set with its `splits.json`. Songs of the test split are rendered from MIDI through the
soundfont that `zoo.show.audio` finds; the truth is the data set's `chord_midi.txt`. Scores are mir_eval's (which has to
be installed): the share of time in which the root, or the chord as major or minor, is right; chords that are neither
are left out there. With `--keep FOLDER` the sound and the chords stay as .wav and .lab.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mir_eval
import numpy as np

import zoo
from zoo.music.io import read
from zoo.show.audio import render, write_wav

RATE = 44100
SCORES = ("root", "majmin", "majmin_inv", "sevenths")


def main() -> None:
    """Prints each song's scores and their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="chord-crema")
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    model, rows = zoo.load(args.model), []
    for song in test_songs(args.data)[: args.songs]:
        sound = render(read(args.data / song / f"{song}.mid"), RATE)
        found = model.chords((sound, RATE))  # type: ignore[attr-defined]
        if args.keep:
            write_wav(args.keep / f"{song}.wav", sound, RATE)
            found.to_lab(args.keep / f"{song}.lab")
        truth = mir_eval.io.load_labeled_intervals(str(args.data / song / "chord_midi.txt"))
        scores = mir_eval.chord.evaluate(*truth, *intervals(found))
        rows.append([scores[name] for name in SCORES])
        print(song, *(f"{name} {value:.3f}" for name, value in zip(SCORES, rows[-1], strict=True)), flush=True)
    print(len(rows), "songs:", *(f"{name} {value:.4f}" for name, value in zip(SCORES, np.mean(rows, 0), strict=True)))


def test_songs(data: Path) -> list[str]:
    """The songs of the test split, in order."""
    splits = json.loads((data / "splits.json").read_text())
    return sorted(song for song, split in splits.items() if split == "test")


def intervals(chords: zoo.tasks.chords.Progression) -> tuple[np.ndarray, list[str]]:  # type: ignore[name-defined]
    """Chords as mir_eval takes them: times [n, 2] and labels."""
    return np.array([(chord.start, chord.end) for chord in chords]), [chord.label for chord in chords]


if __name__ == "__main__":
    main()
