"""`zoo transcribe`, `chords`, `structure`, `beats`, `analyze`: recordings in, what is heard in them out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.attention import add_attention, draw_attention
from zoo.cli.music import NOTES, add_folder, stems
from zoo.cli.parser import add_json, add_verb, number
from zoo.cli.text import print_json
from zoo.errors import InputError, ZooError

if TYPE_CHECKING:
    from zoo.cli.parser import Parser, Verbs

SOUND = "WAV, FLAC, OGG or MP3, or a folder of them"


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "transcribe", transcribe, "Write down the notes of recordings: MIDI with pitch bends.",
        """
        zoo transcribe song.mp3
        zoo transcribe album/ --out notes --separate
        zoo transcribe solo.wav --onset 0.3 --posteriorgrams --json
        """,
        "Writes a .mid and a .png file for each.",
    )  # fmt: skip
    add_recordings(parser)
    parser.add_argument("--model", default="basic-pitch", metavar="MODEL", help="which model (default: basic-pitch)")
    help_ = "how sure a note's beginning must be, 0 to 1; less gives more notes (default: 0.5)"
    parser.add_argument("--onset", type=number(0, above=True), default=0.5, metavar="P", help=help_)
    help_ = "how sure that it still sounds; less gives longer notes (default: 0.3)"
    parser.add_argument("--frame", type=number(0, above=True), default=0.3, metavar="P", help=help_)
    help_ = "seconds of the shortest note (default: 0.1277)"
    parser.add_argument("--shortest", type=number(0), default=0.1277, metavar="S", help=help_)
    help_ = "a part for each pitch: notes that sound together keep their bends"
    parser.add_argument("--separate", action="store_true", help=help_)
    parser.add_argument("--posteriorgrams", action="store_true", help="draw what the network heard below the notes")
    add_folder(parser)
    add_json(parser)

    parser = add_verb(
        verbs, "chords", chords, "Recognise the chords of recordings, or of MIDI.",
        """
        zoo chords song.wav
        zoo chords album/ --out labels
        zoo chords *.mp3 --json
        zoo chords song.wav --model chord-transformer --attention looks.png
        zoo chords song.mid --model chord-transformer/pop909
        """,
        "Prints lines of start, end (seconds) and chord; with --out writes .lab, .json and .png files.",
    )  # fmt: skip
    add_recordings(parser)
    parser.add_argument("--model", default="chord-crema", metavar="MODEL", help="which model (default: chord-crema)")
    parser.add_argument("--out", metavar="DIR", help="the folder to write into (default: print)")
    add_attention(parser)
    add_json(parser)

    parser = add_verb(
        verbs, "structure", structure, "Find the sections of songs: verse, chorus, … and which are alike.",
        """
        zoo structure song.wav
        zoo structure album/ --out labels
        zoo structure song.mid --attention picture.png --json
        """,
        "Prints lines of start, end (s), letter and function; with --out writes .sections.lab, .json and .png files.",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help=f"{SOUND}, or files of notes such as MIDI")
    help_ = "which model (default: structure-transformer)"
    parser.add_argument("--model", default="structure-transformer", metavar="MODEL", help=help_)
    parser.add_argument("--out", metavar="DIR", help="the folder to write into (default: print)")
    add_attention(parser)
    add_json(parser)

    parser = add_verb(
        verbs, "beats", beats, "Find the beats, the bars and the tempo of recordings.",
        """
        zoo beats song.wav
        zoo beats album/ --out labels
        zoo beats *.mp3 --json
        """,
        "Prints lines of a time (s) and a place in the bar; with --out writes .beats, .json and .png files.",
    )  # fmt: skip
    add_recordings(parser)
    parser.add_argument("--model", default="beat-tcn", metavar="MODEL", help="which model (default: beat-tcn)")
    parser.add_argument("--out", metavar="DIR", help="the folder to write into (default: print)")
    add_json(parser)

    parser = add_verb(
        verbs, "analyze", analyze, "Find out all that the zoo can tell of recordings and of files of notes.",
        """
        zoo analyze song.wav
        zoo analyze song.mid score.mxl --out report
        zoo analyze album/ --out report
        zoo analyze song.mp3 --models chord-crema --json
        """,
        "Writes a JSON file, a picture and a page with a player for each; one that can't be read stops none.",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help=f"{SOUND}; or {NOTES}")
    parser.add_argument("--models", metavar="A,B,…", help="which models (default: one of each kind that suits a file)")
    add_folder(parser)
    add_json(parser)


def add_recordings(parser: Parser) -> None:
    """The files of a verb."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=SOUND)


def load(name: str, task: str) -> Any:
    """The model of a verb. Raises InputError if it is of a kind that can't do its task."""
    model = zoo.load(name)
    if model.architecture.task != task:
        raise InputError(f"{name}: a model for {model.architecture.task}, not for {task}; see `zoo list`")
    return model


def transcribe(args: argparse.Namespace) -> None:
    """`zoo transcribe`."""
    from zoo.music.io import write_midi
    from zoo.show.timeline import draw
    from zoo.tasks.transcription import check_options

    options = {"onset_threshold": args.onset, "frame_threshold": args.frame, "shortest": args.shortest}
    check_options(**options)
    model = load(args.model, "transcription")

    def tell(path: Path, stem: str) -> Any:
        heard = model.hear(path)
        score = model.decode(heard, source=str(path), separate=args.separate, **options)
        midi, picture = Path(args.out) / f"{stem}.mid", Path(args.out) / f"{stem}.png"
        write_midi(score, midi)
        lanes = model.lanes(score, heard if args.posteriorgrams else None)
        draw(lanes, model.seconds(heard), picture, path.name)
        say(args, f"wrote {midi} and {picture.name}: {len(score)} notes")
        return {"midi": midi, "png": picture, "notes": model.table(score)}

    listen(args, tell)


def chords(args: argparse.Namespace) -> None:
    """`zoo chords`."""
    model = load(args.model, "chords")
    tell_spans(args, model, model.chords, ".lab", ("notes",) if model.codec.kind == "notes" else ("sound",))


def structure(args: argparse.Namespace) -> None:
    """`zoo structure`."""
    model = load(args.model, "structure")
    tell_spans(args, model, model.sections, ".sections.lab", ("sound", "notes"))


def beats(args: argparse.Namespace) -> None:
    """`zoo beats`."""
    model = load(args.model, "beats")
    tell_spans(args, model, model.beats, ".beats", ("sound",))


def tell_spans(
    args: argparse.Namespace, model: Any, find: Callable[[Path], Any], suffix: str, kinds: tuple[str, ...]
) -> None:
    """What `find` says of each file: printed, or written as `suffix`, JSON and a picture, with attention if asked."""

    def tell(path: Path, stem: str) -> Any:
        found = find(path)
        if args.out:
            base = Path(args.out) / stem
            found.to_lab(f"{base}{suffix}")
            found.to_json(f"{base}.json")
            found.plot(f"{base}.png", path.name)
            say(args, f"wrote {base}{suffix}, .json and .png: {len(found)} {found.of}")
        elif not args.json:
            heading = f"# {path}\n" if args.files != [str(path)] else ""
            print(heading + found.to_lab(), end="")
        if drawn := draw_attention(args, model, path, stem):
            say(args, f"wrote {drawn}")
        return found.table()

    listen(args, tell, kinds)


def analyze(args: argparse.Namespace) -> None:
    """`zoo analyze`."""
    from zoo.music.io import is_notes
    from zoo.tasks.analyze import load_models, usual

    ready: dict[str, list[Any]] = {}

    def models(kind: str) -> list[Any]:
        """Those for files of one kind, loaded when the first comes."""
        if kind not in ready:
            names = [name.strip() for name in args.models.split(",")] if args.models else usual(kind)
            loaded, left_out = load_models(names)
            for name, reason in left_out.items():
                print(f"zoo: warning: without {name}: {reason}", file=sys.stderr)
            if not loaded:
                raise InputError("no model is left to analyse with; see the lines above")
            ready[kind] = list(loaded.values())
        return ready[kind]

    def tell(path: Path, stem: str) -> Any:
        found = zoo.analyze(path, models("notes" if is_notes(path) else "sound"))
        for name, reason in found.left_out.items():
            print(f"zoo: warning: {path}: without {name}: {reason}", file=sys.stderr)
        json, picture, page = found.save(args.out, stem)
        say(args, f"wrote {json}, {picture.name} and {page.name}")
        return {"json": json, "png": picture, "page": page}

    listen(args, tell, ("sound", "notes"))


def say(args: argparse.Namespace, text: str) -> None:
    """Prints a line unless the answer is for a program."""
    if not args.json:
        print(text)


def listen(args: argparse.Namespace, tell: Callable[[Path, str], Any], kinds: tuple[str, ...] = ("sound",)) -> None:
    """Calls `tell(path, stem of its files)` for each file, and prints the answers together as JSON if asked to.

    Of folders those of the `kinds` "sound" and "notes" are taken. One that fails is told on stderr and stops none; that
    there was one is an InputError at the end.
    """
    from tqdm import tqdm

    from zoo.music import audio, io

    rooms = [{"sound": audio, "notes": io}[kind] for kind in kinds]
    suffixes = frozenset().union(*(room.SUFFIXES for room in rooms))
    paths = audio.find(args.files, suffixes, ", and no files of ".join(room.FILES for room in rooms))
    told, failed = {}, 0
    for path, stem in zip(tqdm(paths, unit="file", delay=2, disable=None), stems([*map(str, paths)]), strict=True):
        try:
            told[str(path)] = tell(path, stem)
        except ZooError as error:
            if len(paths) == 1:
                raise
            print(f"zoo: error: {' '.join(str(error).split())}", file=sys.stderr)
            failed += 1
    if args.json:
        print_json(told)
    if failed:
        raise InputError(f"{failed} of {len(paths)} files failed, as told above")
