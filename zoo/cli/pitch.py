"""`zoo pitch`: the pitch of one voice in files of sound, as CSV, picture and notes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.listening import add_recordings, listen, say
from zoo.cli.parser import MODEL, add_json, add_verb, number
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs
    from zoo.music.audio import AudioCodec, Samples

DEFAULT = "crepe"


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
    add_recordings(parser)
    parser.add_argument("--model", default=DEFAULT, metavar="MODEL", help=f"{MODEL} (default: {DEFAULT})")
    parser.add_argument("--out", metavar="DIR", help="the folder to write into (default: out; none with --json)")
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
    """`zoo pitch`."""
    from zoo.music.io import write_midi

    model: Any = zoo.load(args.model)
    if model.architecture.task != "pitch":
        raise InputError(
            f"{args.model}: a model for {model.architecture.task}, not for pitch; see `zoo list --task pitch`"
        )
    options = {"hop": args.hop, "decoder": args.decoder, "fmin": args.fmin, "fmax": args.fmax}

    def tell(path: Path, stem: str) -> Any:
        with watched(path, model.codec) as samples:
            track = model.track((samples, model.codec.sample_rate), **options)
        score = track.to_score(args.threshold)
        if args.out or not args.json:
            base = Path(args.out or "out") / stem
            track.to_csv(f"{base}.csv")
            track.plot(f"{base}.png", path.name, args.threshold)
            write_midi(score, f"{base}.mid")
            voiced = float((track.confidence >= args.threshold).mean())
            told = f"{len(track)} frames, {voiced:.0%} with a pitch, {len(score)} notes"
            say(args, f"wrote {base}.csv, .png and .mid: {told}")
        return track.table()

    listen(args, tell)


@contextmanager
def watched(path: Path, codec: AudioCodec) -> Iterator[Iterator[Samples]]:
    """The samples of a file as a codec reads them, block by block; a bar counts their seconds."""
    from tqdm import tqdm

    from zoo.music import audio

    total = round(audio.duration(path) or 0)
    with tqdm(total=total, unit=" s of sound", delay=2, leave=False, disable=None, file=sys.stderr) as bar:

        def blocks() -> Iterator[Samples]:
            for block in codec.blocks(path, seconds=5.0):
                yield block
                bar.update(len(block) / codec.sample_rate)

        yield blocks()
