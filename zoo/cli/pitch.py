"""`zoo pitch`: the pitch of one voice in files of sound, as CSV, picture and notes."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.music import stems
from zoo.cli.parser import MODEL, add_json, add_verb, number
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs
    from zoo.music.audio import Samples

DEFAULT = "crepe"
SOUND = "WAV, FLAC, OGG or MP3 at any rate, or a folder of such"

log = logging.getLogger("zoo")


def add(verbs: Verbs) -> None:
    """Adds the verb."""
    parser = add_verb(
        verbs, "pitch", pitch, "Follow the pitch of one voice in recordings.",
        """
        zoo pitch voice.wav
        zoo pitch recordings/ --model crepe/tiny --out contours
        zoo pitch voice.wav --json > voice.json
        """,
        "For each file a CSV of times, Hz and confidence, a picture, and the notes as MIDI.",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help=SOUND)
    parser.add_argument("--model", default=DEFAULT, help=f"{MODEL} (default: {DEFAULT})")
    parser.add_argument("--out", metavar="DIR", help="the folder to write into (default: out)")
    help_ = "seconds from one frame to the next (default: 0.01)"
    parser.add_argument("--hop", type=number(0, above=True), default=0.01, metavar="S", help=help_)
    help_ = "average, weighted, argmax or viterbi (default: average)"
    parser.add_argument("--decoder", default="average", metavar="NAME", help=help_)
    for option, default, what in (("--fmin", 50.0, "lowest"), ("--fmax", 2006.0, "highest")):
        help_ = f"the {what} pitch to consider, in Hz (default: {default:g})"
        parser.add_argument(option, type=number(0), default=default, metavar="HZ", help=help_)
    help_ = "confidence from which on there is a note, 0 to 1 (default: 0.5)"
    parser.add_argument("--threshold", type=number(0), default=0.5, metavar="C", help=help_)
    add_json(parser)


def pitch(args: argparse.Namespace) -> None:
    """`zoo pitch`. A file that can't be used is said so, the others are done, and the exit code is 1."""
    from zoo.music import audio
    from zoo.music.io import write_midi

    files = audio.find(args.files)
    model: Any = zoo.load(args.model)
    if model.architecture.task != "pitch":
        raise InputError(
            f"{args.model}: a model for {model.architecture.task}, not for pitch; see `zoo list --task pitch`"
        )
    options = {"hop": args.hop, "decoder": args.decoder, "fmin": args.fmin, "fmax": args.fmax}
    out = Path(args.out or "out")
    told, refused = [], []
    for file, samples, stem in _watched(files, model.codec.sample_rate):
        try:
            track = model.track((samples, model.codec.sample_rate), **options)
        except InputError as error:
            refused.append(str(error))
            continue
        score = track.to_score(args.threshold)
        if args.json:
            told.append({"file": str(file)} | json.loads(track.to_json()))
        if args.out or not args.json:
            track.to_csv(out / f"{stem}.csv")
            track.plot(out / f"{stem}.png", file.name, args.threshold)
            write_midi(score, out / f"{stem}.mid")
        if not args.json:
            voiced = float((track.confidence >= args.threshold).mean())
            print(f"{out / stem}.csv, .png, .mid: {len(track)} frames, {voiced:.0%} with a pitch, {len(score)} notes")
    if args.json:
        print(json.dumps(told))
    if refused:
        for reason in refused[:-1]:
            log.warning(reason)
        raise InputError(refused[-1])


def _watched(files: list[Path], rate: int) -> Iterator[tuple[Path, Iterator[Samples], str]]:
    """Each file, its samples, and the stem of what is made of it; a bar counts seconds of sound."""
    from tqdm import tqdm

    from zoo.music import audio

    total = sum(filter(None, map(audio.duration, files)))
    with tqdm(total=round(total), unit=" s of sound", delay=2, leave=False, disable=None, file=sys.stderr) as bar:

        def samples(file: Path) -> Iterator[Samples]:
            for block in audio.blocks(file, rate, seconds=5.0):
                yield block
                bar.update(len(block) / rate)

        for file, stem in zip(files, stems([str(file) for file in files]), strict=True):
            yield file, samples(file), stem
