"""Chords of unseen songs: a recogniser beside baselines, on the test split.

    python -m benchmarks.chords chord-transformer/billboard --data DIR
    python -m benchmarks.chords chord-transformer/pop909 --data DIR/pop909.tar.gz --note-seq

Weighted chord symbol recall over all songs together, as `zoo evaluate` prints it. `templates` is what chroma alone
say: each frame is compared (cosine) with the 24 binary major and minor triads, a softmax makes probabilities of that,
Viterbi smooths them, and what is nearly silent has no chord. `note_seq`, for POP909's MIDI, is its
`infer_chords_for_sequence` (Viterbi over keys and chords), which is told every beat; the others are told none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import note_seq
import numpy as np
from note_seq import chord_inference

import zoo
from zoo.data import files, pop909, read_songs
from zoo.music import chord_metrics
from zoo.music.chord_metrics import Times
from zoo.music.chords import symbols_in_time
from zoo.music.harte import NAMES, ChordSpan, pitch_classes, read_lab
from zoo.music.io import SUFFIXES, from_note_sequence, read, to_note_sequence
from zoo.tasks.chords import decode

BEAT = note_seq.NoteSequence.TextAnnotation.BEAT


@dataclass(frozen=True)
class Templates:
    """The baseline's numbers, chosen on the Billboard's validation split: of the softmax, and of smoothing."""

    labels: tuple[str, ...] = (*(f"{root}:{quality}" for quality in ("maj", "min") for root in NAMES), "N")
    sharp: float = 5.0
    stay: float = 0.99
    silent: float = 0.5

    def recognise(self, chroma: np.ndarray) -> np.ndarray:
        """Chroma [T, 24] → probabilities [T, 25]."""
        rows = np.zeros((len(self.labels) - 1, 12))
        for row, label in zip(rows, self.labels, strict=False):
            row[list(pitch_classes(label))] = 1.0
        x = chroma[:, :12] + chroma[:, 12:]
        cosine = x @ rows.T / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) / np.sqrt(3)
        odds = np.pad(np.exp(self.sharp * cosine), ((0, 0), (0, 1)), constant_values=1e-9)
        odds[x.sum(axis=1) < self.silent] = np.eye(len(self.labels))[-1] + 1e-9
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--songs", type=int, default=None, help="at most so many")
    parser.add_argument("--note-seq", action="store_true", help="that of note_seq too, for POP909's MIDI")
    args = parser.parse_args()
    model, templates = zoo.load(args.model), Templates()
    scores: dict[str, list[Times]] = {"model": [], "templates": []}
    for song in read_songs(args.data, model.codec, args.split, args.songs):
        truth, pool = song.chords["full"], model.config.pool  # type: ignore[attr-defined]
        found = templates.recognise(song.frames[: len(song.frames) // pool * pool].reshape(-1, pool, 24).mean(axis=1))
        hop, rate = pool * model.codec.hop, model.codec.sample_rate  # type: ignore[attr-defined]
        by = {
            "model": list(model.decode(song.frames, song.seconds)),  # type: ignore[attr-defined]
            "templates": decode({"chord": found}, song.seconds, templates, rate, hop),
        }
        for name, chords in by.items():
            scores[name].append(chord_metrics.compare(truth, chords))
    if args.note_seq:
        songs = list(pop909_songs(args.data, args.split))[: args.songs]
        truths = [read_lab(song / pop909.CHORDS) for song in songs]
        scores["note_seq"] = [chord_metrics.compare(*pair) for pair in zip(truths, map(inferred, songs), strict=True)]
    told = {name: chord_metrics.recall(rows) | {"songs": len(rows)} for name, rows in scores.items()}
    print(json.dumps(told, indent=2))


def pop909_songs(data: Path, split: str) -> Iterator[Path]:
    """The folders of POP909's songs in one split, in order."""
    found = [file for file in files.find(data, suffixes=SUFFIXES) if pop909.is_song(file.path)]
    split_of = files.splits(found)
    yield from (file.path.parent for file in found if split_of[file.name] == split)


def inferred(folder: Path) -> tuple[ChordSpan, ...]:
    """What note_seq infers from a song's notes and beats."""
    sequence = to_note_sequence(read(folder / f"{folder.name}.mid"))
    for time in np.loadtxt(folder / "beat_midi.txt", ndmin=2)[:, 0]:
        sequence.text_annotations.add(time=time, annotation_type=BEAT, text="beat")
    chord_inference.infer_chords_for_sequence(sequence)
    return symbols_in_time(from_note_sequence(sequence))


if __name__ == "__main__":
    main()
