"""Chords for unseen melodies: a harmonizer beside two baselines, on the test split.

    python -m benchmarks.harmony harmonizer/leadsheet --data DIR

DIR holds OpenEWLD, Nottingham and POP909, as folders or archives of these names. Every song is harmonised whole from
its melody alone, a chord for each slot of half a bar, and slots count alike. `accuracy`: the chord is the written one,
of 109; `root`: its root is. `chord_tones`: of the time that the melody sounds, the share in which its pitch class is
in the chord. `changes`: how often a slot's chord differs from the one before.

The baselines: the chord that is the most frequent in training once songs are in C, and note_seq's
`infer_chords_for_sequence` (Viterbi over keys and chords), which is told the melody and where the slots begin.
`teacher_forced` gives a model the true chords before each, as its likelihood does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import note_seq
import numpy as np
from note_seq import chord_inference

import zoo
from zoo.data import load_corpus, load_pieces
from zoo.errors import InputError
from zoo.music.harmony import CHORDS, HELD, LOW, MELODY, NO_CHORD, ONSET, SLOT, HarmonyCodec, pitch_classes, token_of

PATTERNS = ["openewld*", "nottingham*", "!*/melody/*", "!*/chords/*", "pop909*"]
Tokens = np.ndarray


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--songs", type=int, default=None, help="so many of the test split, drawn at random")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the drawn harmonies")
    parser.add_argument("--width", type=int, default=4, help="of the beam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-note-seq", action="store_true", help="leave out the slow baseline")
    args = parser.parse_args()
    model, codec = zoo.load(args.model), HarmonyCodec()
    songs = list(test_songs(args.data, codec))
    if args.songs:
        songs = [songs[i] for i in sorted(np.random.default_rng(args.seed).permutation(len(songs))[: args.songs])]
    counts = np.bincount(trained_chords(args.data, codec), minlength=CHORDS)
    usual = int(counts.argmax())
    writers: dict[str, Callable[[Tokens], Tokens]] = {
        "written": lambda music: music[::SLOT, 1],
        "most_frequent": lambda music: np.full(len(music) // SLOT, usual),
        "drawn": lambda music: model.write(music, key=args.seed, temperature=args.temperature)[0],
        "greedy": lambda music: model.write(music, width=1, temperature=0)[0],
        "beam": lambda music: model.write(music, width=args.width, temperature=0)[0],
        "teacher_forced": model.likeliest,
    }
    if not args.skip_note_seq:
        writers["note_seq"] = inferred
    told: dict[str, object] = {"songs": len(songs), "slots": sum(len(song) // SLOT for song in songs)}
    for name, write in writers.items():
        told[name] = compare(songs, [write(song) for song in songs])
    truth = np.concatenate([song[::SLOT, 1] for song in songs])
    told["nll"] = float(np.concatenate([model.nats(song) for song in songs]).mean())
    told["nll_most_frequent"] = float(-np.log((counts + 1) / (counts + 1).sum())[truth].mean())
    print(json.dumps(told, indent=2))


def test_songs(data: Path, codec: HarmonyCodec) -> Iterator[Tokens]:
    """Whole songs with their chords, int32 [8 S, 3]."""
    for _, score in load_pieces(data, "test", patterns=PATTERNS, codec=codec):
        try:
            tokens = codec.encode(score).tokens
        except InputError:
            continue
        if score.chords:
            yield tokens


def trained_chords(data: Path, codec: HarmonyCodec) -> Tokens:
    """All chords of the training split, in C; a song's as often as windows overlap there."""
    chords = load_corpus(data, codec, hop_bars=8, patterns=PATTERNS).train[:, ::SLOT, 1]
    return chords[chords < CHORDS]


def compare(songs: list[Tokens], written: list[Tokens]) -> dict[str, float]:
    """Chords beside the true ones, and beside the melody."""
    truth, found = np.concatenate([song[::SLOT, 1] for song in songs]), np.concatenate(written)
    in_chord = np.array([[pitch in pitch_classes(token) for pitch in range(12)] for token in range(CHORDS)])
    cells, chords = np.concatenate([song[:, 0] for song in songs]), np.repeat(found, SLOT)
    sounding = (cells >= ONSET) & (cells < MELODY)
    pitch = (np.where(cells >= HELD, cells - HELD, cells - ONSET) + LOW) % 12
    return {
        "accuracy": float((truth == found).mean()),
        "root": float((roots(truth) == roots(found)).mean()),
        "chord_tones": float(in_chord[chords[sounding], pitch[sounding]].mean()),
        "changes": float(np.mean(np.concatenate([np.diff(chords) != 0 for chords in written]))),
    }


def roots(chords: Tokens) -> Tokens:
    """The roots of chords, -1 for none."""
    return np.where(chords == NO_CHORD, -1, (chords - 1) % 12)


def inferred(music: Tokens) -> Tokens:
    """note_seq's chords for a melody [8 S, 3], one each slot of a second."""
    sequence = note_seq.NoteSequence()
    for note in note_seq_notes(music):
        sequence.notes.add(pitch=note[2], start_time=note[0], end_time=note[1], velocity=80)
    count = len(music) // SLOT
    sequence.total_time = count
    for at in range(1, count):
        sequence.text_annotations.add(time=at, text="beat", annotation_type=note_seq.NoteSequence.TextAnnotation.BEAT)
    chord_inference.infer_chords_for_sequence(sequence)
    kind = note_seq.NoteSequence.TextAnnotation.CHORD_SYMBOL
    symbols = [(a.time, a.text) for a in sequence.text_annotations if a.annotation_type == kind]
    chords = np.full(count, NO_CHORD)
    for at, symbol in sorted(symbols):
        chords[round(at) :] = token_of(symbol)
    return chords


def note_seq_notes(music: Tokens) -> Iterator[tuple[float, float, int]]:
    """(begin, end, pitch) of the notes, in slots; what a short slot lacks counts as no time."""
    cells = music[:, 0]
    slots = np.split(cells, len(cells) // SLOT)
    times = np.concatenate([i + np.minimum(np.arange(SLOT) / (slot < MELODY).sum(), 1) for i, slot in enumerate(slots)])
    times = np.append(times, len(slots))
    sounds = cells < MELODY
    kept, at = cells[sounds], np.append(times[:-1][sounds], len(slots))
    for i in np.flatnonzero((kept >= ONSET) & (kept < HELD)):
        end = i + 1
        while end < len(kept) and kept[end] >= HELD:
            end += 1
        yield float(at[i]), float(at[end]), int(kept[i]) - ONSET + LOW


if __name__ == "__main__":
    main()
