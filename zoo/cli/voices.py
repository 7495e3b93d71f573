"""`zoo harmonize`, `accompany`, `infill`, `genie`: music of which a melody, some voices or a rhythm is given."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.attention import add_attention, draw_attention
from zoo.cli.music import NOTES, add_out, add_temperature, load, save, stems
from zoo.cli.parser import Parser, add_model, add_seed, add_verb, number, whole
from zoo.errors import InputError

HARMONIZER = "harmonizer"  # the model of a bare `zoo harmonize tune.mid`
GENIE = "piano-genie"  # the model of a bare `zoo genie 0123`

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs
    from zoo.music.score import Score


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "harmonize", harmonize, "Give a melody chords, or three more voices.",
        """
        zoo harmonize tune.mid
        zoo harmonize tune.abc -n 3 --temperature 0 --attention looked-at.png
        zoo harmonize harmonizer/chorale hymn.musicxml
        zoo harmonize coconet hymn.musicxml -n 8 --seed 3 --out harmonies
        zoo harmonize music-transformer/jsb hymn.musicxml
        """,
        "The melody is the track so named, or the highest notes. harmonizer/leadsheet gives it chord symbols and "
        "writes a lead sheet as MusicXML beside MIDI, sound and pictures; the others move it by octaves to where a "
        "soprano sings and give it alto, tenor and bass.",
    )  # fmt: skip
    add_model(parser, HARMONIZER)
    parser.add_argument("file", metavar="FILE", help=f"the melody: {NOTES}")
    parser.add_argument("-n", type=whole(1), default=4, metavar="N", help="how many versions (default: 4)")
    help_ = "1 draws as trained, 0 takes the likeliest, a harmonizer by beam search (default: 0.7; coconet 0.9)"
    parser.add_argument("--temperature", type=number(0), metavar="T", help=help_)
    help_ = "with --temperature 0: how many harmonies a harmonizer follows at a time (default: 4, or -n if more)"
    parser.add_argument("--beam", type=whole(1), metavar="W", help=help_)
    parser.add_argument("--steps", type=whole(1), metavar="N", help="coconet: length of its Gibbs chain")
    add_attention(parser)
    add_seed(parser)
    add_out(parser, tempo=False)

    parser = add_verb(
        verbs, "accompany", accompany, "Let a band play to one part of a piece.",
        """
        zoo accompany musegan tune.mid
        zoo accompany musegan song.mid --part piano -n 8 --seed 3 --out band
        """,
        "Parts are told apart by the names of tracks; in a file without such names the highest track is the melody.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("file", metavar="FILE", help=f"the piece: {NOTES}")
    help_ = "which part stays: melody, bridge or piano; the others are drawn (default: melody)"
    parser.add_argument("--part", default="melody", metavar="P", help=help_)
    parser.add_argument("-n", type=whole(1), default=4, metavar="N", help="how many versions (default: 4)")
    help_ = "0 is what is most usual, 1 draws as trained (default: 1)"
    parser.add_argument("--temperature", type=number(0), default=1.0, metavar="T", help=help_)
    add_seed(parser)
    add_out(parser, tempo=False)

    parser = add_verb(
        verbs, "infill", infill, "Write part of a piece for four voices anew.",
        """
        zoo infill coconet chorale.mid --voices alto,tenor
        zoo infill coconet chorale.mxl --from 8 --to 16 -n 8 --seed 3
        """,
        "What is not named stays as it is.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("file", metavar="FILE", help=f"the piece: {NOTES}")
    help_ = "which to write, of soprano, alto, tenor and bass (default: all)"
    parser.add_argument("--voices", default="soprano,alto,tenor,bass", metavar="A,B", help=help_)
    parser.add_argument("--from", dest="begin", type=number(0), default=0.0, metavar="Q", help="from this quarter note")
    parser.add_argument("--to", dest="end", type=number(0), default=math.inf, metavar="Q", help="up to this one")
    add_chain(parser)

    parser = add_verb(
        verbs, "genie", genie, "Play a piano by eight buttons.",
        """
        zoo genie 01234567
        zoo genie 0246-7-642-0 --every 0.2 -n 8 --seed 3
        zoo genie song.mid --out again
        """,
        "Buttons are 0 to 7 from low to high, - waits. A file of notes is turned into presses first, and played anew.",
    )  # fmt: skip
    add_model(parser, GENIE)
    parser.add_argument("presses", metavar="PRESSES", help=f"buttons, or a file: {NOTES}")
    parser.add_argument("-n", type=whole(1), default=4, metavar="N", help="how many versions (default: 4)")
    help_ = "seconds from one button or wait to the next (default: 0.25)"
    parser.add_argument("--every", type=number(0, above=True), default=0.25, metavar="S", help=help_)
    add_temperature(parser, 0.5)
    add_seed(parser)
    add_out(parser)


def add_chain(parser: Parser) -> None:
    """How often and how it is drawn, and where it goes."""
    parser.add_argument("-n", type=whole(1), default=4, metavar="N", help="how many versions (default: 4)")
    add_temperature(parser, 0.9)
    help_ = "length of the Gibbs chain (default: the model's)"
    parser.add_argument("--steps", type=whole(1), metavar="N", help=help_)
    add_seed(parser)
    add_out(parser, tempo=False)


def harmonize(args: argparse.Namespace) -> None:
    """`zoo harmonize`."""
    from zoo.music import io

    model, score = load(args.model, "harmonization", "infill", "continuation"), io.read(args.file)
    task = model.architecture.task
    if args.temperature is None:
        args.temperature = 0.9 if task == "infill" else 0.7
    options = {"key": args.seed, "temperature": args.temperature}
    if task != "harmonization" and (args.beam or args.attention):
        raise InputError(f"{model.name}: is no encoder-decoder; leave out --beam and --attention")
    if task == "infill":
        windows = model.harmonize_windows(score, args.n, **options, steps=args.steps)
        return show(args, model.scores(windows, score.qpm), "harmonized")
    if args.steps:
        raise InputError(f"{model.name}: has no Gibbs chain; leave out --steps")
    if task == "continuation":
        return show(args, model.scores(model.harmonize_tokens(score, args.n, **options), score.qpm), "harmonized")
    piece = model.piece(score)
    scores = [piece.score(row) for row in model.write(piece.music, args.n, **options, width=args.beam)]
    show(args, scores, "harmonized", [piece.sheet(each) for each in scores])
    if drawn := draw_attention(args, model, score, stems([args.file])[0]):
        print(f"wrote {drawn}: what the chords or voices look at in the melody")


def accompany(args: argparse.Namespace) -> None:
    """`zoo accompany`."""
    from zoo.music import io

    model, score = load(args.model, "phrases"), io.read(args.file)
    options = {"key": args.seed, "temperature": args.temperature}
    show(args, model.scores(model.accompany_rolls(score, args.part, args.n, **options), score.qpm), "accompanied")


def infill(args: argparse.Namespace) -> None:
    """`zoo infill`."""
    from zoo.music import io

    model, score = load(args.model, "infill"), io.read(args.file)
    music = model.chorale.encode(score)
    free = model.free(music, args.voices.split(","), (args.begin, args.end))
    options = {"key": args.seed, "temperature": args.temperature, "steps": args.steps}
    show(args, model.scores(model.fill(music, free, args.n, **options), score.qpm), "infilled")


def show(args: argparse.Namespace, scores: list[Score], what: str, sheets: Sequence[bytes] = ()) -> None:
    """The piece as it was and its versions, and those as MusicXML where `sheets` has them."""
    from zoo.music import io
    from zoo.show import Group, file_stems
    from zoo.show.files import write

    args.files = [args.file]
    name, stem = Path(args.file).name, stems(args.files)[0]
    groups = [
        Group([io.read(args.file)], [name], f"{stem}-given", "As it was"),
        Group(scores, [f"Version {i + 1}" for i in range(args.n)], f"{stem}-{what}", what.capitalize()),
    ]
    save(groups, args, f"{name}, {what}", f"{args.model}, temperature {args.temperature:g}, seed {args.seed}")
    written = [
        write(Path(args.out) / f"{stem}.musicxml", sheet)
        for stem, sheet in zip(file_stems(groups[-1]), sheets, strict=False)
    ]
    if written:
        print(f"wrote {len(written)} MusicXML files for notation programs: {written[0]}" + " …" * (len(written) > 1))


def genie(args: argparse.Namespace) -> None:
    """`zoo genie`."""
    from zoo.music import io
    from zoo.show import Group

    model = load(args.model, "genie")
    options = {"key": args.seed, "temperature": args.temperature, "qpm": args.qpm}
    if io.is_notes(args.presses):
        args.files = [args.presses]
        score = io.read(args.presses)
        buttons, onset = model.buttons(score)
        given, stem = [Group([score], [Path(args.presses).name], "given", "As it was")], stems(args.files)[0]
    else:
        buttons, given, stem = args.presses.replace("-", ""), [], "genie"
        onset = [i * args.every for i, press in enumerate(args.presses) if press != "-"]
    scores = model.press_scores(buttons, args.n, onset=onset, **options)
    pressed = "".join(map(str, buttons))
    heading = f"Pressed: {pressed[:64]}{'…' if len(pressed) > 64 else ''}"
    groups = [*given, Group(scores, [f"Version {i + 1}" for i in range(args.n)], f"{stem}-played", heading)]
    save(groups, args, f"{model.name}: {args.presses}", f"temperature {args.temperature:g}, seed {args.seed}")
