"""`zoo generate`, `interpolate`, `encode`, `decode`, `reconstruct`, `render`: music in, music out.

All that is heard goes into one folder: MIDI, WAV and PNG files and index.html, a page with players.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.parser import DEFAULT, add_json, add_model, add_seed, add_verb, number, whole
from zoo.cli.text import print_json
from zoo.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from zoo.cli.parser import Parser, Verbs
    from zoo.show import Group

LACKS = {  # what a model is without that is not for the task
    "latent": "has no latent vectors",
    "continuation": "does not write token by token",
    "infill": "does not fill in voices",
    "harmonization": "does not harmonise melodies",
    "genie": "has no buttons",
    "phrases": "does not play along",
}
NOTES = "MIDI, MusicXML, MXL, ABC, **kern or NoteSequence"


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "generate", generate, "Draw new music from a model.",
        """
        zoo generate
        zoo generate music-vae/drums-2bar -n 8 --seed 7 --out beats
        zoo generate runs/mine -n 100 --temperature 1 --midi-only
        zoo generate music-transformer/jsb --seconds 30 --top-p 0.95
        zoo generate improv-rnn --chords "C Am F G7"
        """,
    )  # fmt: skip
    add_model(parser, DEFAULT)
    parser.add_argument("-n", type=whole(1), default=4, metavar="N", help="how many pieces (default: 4)")
    help_ = "0 takes the likeliest each time, 1 draws as trained (default: 0.8; of what writes event by event 1)"
    parser.add_argument("--temperature", type=number(0), metavar="T", help=help_)
    add_length(parser)
    help_ = "with a latent model: also go from the first to the last"
    parser.add_argument("--interpolate", type=whole(2), metavar="STEPS", help=help_)
    help_ = "with a model that improvises over chords: their symbols, a bar each"
    parser.add_argument("--chords", metavar="SYMBOLS", help=help_)
    add_seed(parser)
    add_out(parser)

    parser = add_verb(
        verbs, "interpolate", interpolate, "Go from one piece to another in steps.",
        """
        zoo interpolate music-vae a.mid b.mid
        zoo interpolate music-vae a.abc song.mxl --steps 5 --window 2 --out between
        zoo interpolate musegan --seed 3
        """,
        "The arc between their latent vectors is followed (slerp); both ends are the model's own versions. A model "
        "without an encoder goes from one draw to another.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("a", nargs="?", metavar="A", help=f"where it begins: {NOTES}")
    parser.add_argument("b", nargs="?", metavar="B", help="where it ends")
    parser.add_argument("--steps", type=whole(2), default=9, metavar="N", help="with both ends (default: 9)")
    add_window(parser)
    help_ = "0 takes the likeliest note each time, 1 draws as trained (default: 0; between draws 1)"
    parser.add_argument("--temperature", type=number(0), metavar="T", help=help_)
    add_seed(parser)
    add_out(parser)

    parser = add_verb(
        verbs, "encode", encode, "Turn pieces into latent vectors.",
        """
        zoo encode music-vae a.mid b.mid --out z.npy
        zoo encode music-vae a.mid | zoo decode music-vae -
        """,
        "Writes float32 [pieces, Z] to a .npy file, or JSON to a .json file or the terminal.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help=NOTES)
    parser.add_argument("--out", metavar="FILE", help="a .npy or .json file (default: print JSON)")
    parser.add_argument("--sample", action="store_true", help="draw from the posterior (default: its mean)")
    add_window(parser)
    add_seed(parser)
    add_json(parser)

    parser = add_verb(
        verbs, "decode", decode, "Turn latent vectors into music.",
        """
        zoo decode music-vae z.npy
        zoo decode music-vae z.json --temperature 0.5 --seed 3
        """,
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("file", metavar="FILE", help="what `zoo encode` wrote: .npy, .json, or - for JSON from a pipe")
    add_temperature(parser, 0.5)
    add_seed(parser)
    add_out(parser)

    parser = add_verb(
        verbs, "reconstruct", reconstruct, "Send whole pieces through a model and back.",
        "zoo reconstruct music-vae a.mid b.mid",
        "Each window of a piece is encoded and decoded again; the page has the piece before and after.",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help=NOTES)
    add_temperature(parser, 0.0)
    add_seed(parser)
    add_out(parser, tempo=False)

    parser = add_verb(
        verbs, "render", render, "Make sound, piano rolls and a page from files of notes.",
        """
        zoo render song.mid
        zoo render *.mid tune.abc --out heard
        """,
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help=NOTES)
    add_folder(parser)


def add_temperature(parser: Parser, default: float) -> None:
    """`--temperature`."""
    help_ = f"0 takes the likeliest note each time, 1 draws as trained (default: {default:g})"
    parser.add_argument("--temperature", type=number(0), default=default, metavar="T", help=help_)


def add_length(parser: Parser) -> None:
    """How much a sequence model writes, and what of its vocabulary it may use."""
    length = parser.add_mutually_exclusive_group()
    help_ = "how much a sequence model writes (default: as much as it learnt from at a time)"
    length.add_argument("--seconds", type=number(0, above=True), metavar="S", help=help_)
    length.add_argument("--steps", type=whole(1), metavar="N", help="the same in tokens of the model")
    help_ = "a sequence model takes only so many of the likeliest tokens (default: 0, all)"
    parser.add_argument("--top-k", type=whole(0), default=0, metavar="K", help=help_)
    help_ = "only the likeliest tokens that together have this probability (default: 1, all)"
    parser.add_argument("--top-p", type=number(0), default=1.0, metavar="P", help=help_)


def length_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_length`, `add_temperature` and `add_seed` brought, as the task has it."""
    names = ("seconds", "steps", "temperature", "top_k", "top_p")
    return {name: getattr(args, name) for name in names} | {"key": args.seed}


def chord_options(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What `--chords` brought: the model's context, and as many steps unless a length was asked for."""
    if args.chords is None:
        return {}
    if not hasattr(getattr(model, "coder", None), "chords"):
        raise InputError(f"{model.name}: is given no chords; leave out --chords, or choose improv-rnn")
    context = model.coder.chords(args.chords.split())
    if not len(context):
        raise InputError("--chords: names no chord; write such as 'C Am F G7', one a bar")
    return {"context": context} | ({} if args.seconds or args.steps else {"steps": len(context)})


def add_window(parser: Parser) -> None:
    """`--window`, where a model takes one window of a piece."""
    help_ = "which window of a longer piece, from 0; negative ones from its end (default: 0)"
    parser.add_argument("--window", type=int, default=0, metavar="I", help=help_)


def add_folder(parser: Parser) -> None:
    """`--out`, a folder."""
    parser.add_argument("--out", default="out", metavar="DIR", help="the folder to write into (default: out)")


def add_out(parser: Parser, tempo: bool = True) -> None:
    """Where music goes to, and in what form."""
    add_folder(parser)
    parser.add_argument("--midi-only", action="store_true", help="write MIDI files alone: no sound, pictures or page")
    if tempo:
        help_ = "quarter notes a minute (default: 120)"
        parser.add_argument("--qpm", type=number(0, above=True), default=120.0, metavar="Q", help=help_)


def generate(args: argparse.Namespace) -> None:
    """`zoo generate`."""
    from zoo.show import Group

    model = load(args.model, "latent", "continuation", "infill", "phrases")
    if args.temperature is None:  # below 1 a held chord, likeliest to be held on, ends up lasting for bars
        args.temperature = 1.0 if model.architecture.task == "continuation" else 0.8
    if model.architecture.task == "phrases" and args.interpolate:
        raise InputError(f"{model.name}: has no encoder; for a way between draws: zoo interpolate {args.model}")
    if model.architecture.task != "latent" and args.interpolate:
        raise InputError(f"{model.name}: has no latent vectors to interpolate; leave out --interpolate")
    chords = chord_options(model, args)
    if model.architecture.task == "continuation":
        options = length_options(args) | chords
        scores = model.scores(model.write(args.n, qpm=args.qpm, **options), args.qpm)
    else:
        if args.seconds or args.steps or args.top_k or args.top_p < 1:
            raise InputError(f"{model.name}: writes whole windows; leave out --seconds, --steps, --top-k and --top-p")
        scores = model.scores(model.sample_windows(args.n, key=args.seed, temperature=args.temperature), args.qpm)
    groups = [Group(scores, [f"Sample {i + 1}" for i in range(args.n)], "sample", "Samples")]
    if args.interpolate:
        windows = model.interpolate_windows(scores[0], scores[-1], args.interpolate, key=args.seed)
        titles = steps(args.interpolate, "Sample 1", f"Sample {args.n}")
        heading = f"From sample 1 to sample {args.n}, both encoded and decoded again"
        groups.append(Group(model.scores(windows, args.qpm), titles, "interpolation", heading, morph=True))
    save(groups, args, f"{model.name}: {args.n} samples", f"temperature {args.temperature:g}, seed {args.seed}")


def interpolate(args: argparse.Namespace) -> None:
    """`zoo interpolate`."""
    from zoo.show import Group

    model = load(args.model, "latent", "phrases")
    if model.architecture.task == "phrases":
        return between_draws(model, args)
    if args.b is None:
        raise InputError(f"{model.name}: goes from one piece to another; name both: zoo interpolate {args.model} A B")
    args.files, args.temperature = [args.a, args.b], args.temperature or 0.0
    names = [Path(file).name for file in args.files]
    options = {"window": args.window, "key": args.seed, "temperature": args.temperature}
    windows = model.interpolate_windows(args.a, args.b, args.steps, **options)
    given = [model.window(file, args.window) for file in args.files]
    between = model.scores(windows, args.qpm)
    groups = [
        Group(model.scores(given, args.qpm), names, "original", "As they were"),
        Group(between, steps(args.steps, *names), "interpolation", "From the first to the second", morph=True),
    ]
    save(groups, args, f"From {names[0]} to {names[1]}", f"{args.steps} steps of {model.name}")


def between_draws(model: Any, args: argparse.Namespace) -> None:
    """`zoo interpolate` with a model that has no encoder."""
    from zoo.show import Group

    if args.a is not None:
        raise InputError(f"{model.name}: has no encoder; leave out {args.a}, and it goes between two draws")
    args.temperature = 1.0 if args.temperature is None else args.temperature
    windows = model.interpolate_windows(args.steps, key=args.seed, temperature=args.temperature)
    titles = steps(args.steps, "The first draw", "The second draw")
    groups = [Group(model.scores(windows, args.qpm), titles, "interpolation", morph=True)]
    save(groups, args, f"{model.name}: from one draw to another", f"{args.steps} steps, seed {args.seed}")


def steps(count: int, first: str, last: str) -> list[str]:
    """Titles of an interpolation."""
    return [first, *(f"{100 * i / (count - 1):.0f} %" for i in range(1, count - 1)), last]


def encode(args: argparse.Namespace) -> None:
    """`zoo encode`."""
    if args.out and Path(args.out).suffix not in (".npy", ".json"):
        raise InputError(f"{args.out}: its name must end in .npy or .json")
    model = load(args.model)
    z = model.encode(args.files, window=args.window, sample=args.sample, key=args.seed)
    told = {"model": model.name, "files": args.files, "window": args.window, "z": z.tolist()}
    if args.out:
        write_latents(Path(args.out), z, told)
    if args.json or not args.out:
        print_json(told) if args.json else print(json.dumps(told))
    else:
        print(f"wrote {args.out}: {len(z)} vectors of {z.shape[1]} numbers")


def write_latents(path: Path, z: np.ndarray, told: dict[str, Any]) -> None:
    """Writes vectors as .npy, or `told` as .json, whole or not at all."""
    import io

    import numpy as np

    from zoo.show.files import write

    buffer = io.BytesIO()
    np.save(buffer, z)
    write(path, buffer.getvalue() if path.suffix == ".npy" else json.dumps(told).encode())


def read_latents(name: str) -> np.ndarray:
    """Vectors [n, Z] from .npy or JSON: an object whose "z" they are, or a list of lists. "-" is standard input.

    Raises InputError if the file can't be read as such.
    """
    import numpy as np

    try:
        if name != "-" and Path(name).suffix == ".npy":
            return np.atleast_2d(np.load(name, allow_pickle=False))
        found = json.loads(sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8"))
        return np.atleast_2d(np.array(found["z"] if isinstance(found, dict) else found, np.float32))
    except OSError as error:
        raise InputError(f"{name}: can't be read ({error.strerror or error}); check the path") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        mend = "pass what `zoo encode` wrote"
        raise InputError(
            f'{name}: not latent vectors, neither .npy nor JSON with a list "z" ({error}); {mend}'
        ) from error


def decode(args: argparse.Namespace) -> None:
    """`zoo decode`."""
    from zoo.show import Group

    z, model = read_latents(args.file), load(args.model)
    scores = model.scores(model.decode_windows(z, key=args.seed, temperature=args.temperature), args.qpm)
    groups = [Group(scores, [f"Vector {i + 1}" for i in range(len(scores))], "decoded")]
    save(groups, args, f"{model.name}: {len(scores)} decoded", f"temperature {args.temperature:g}, seed {args.seed}")


def reconstruct(args: argparse.Namespace) -> None:
    """`zoo reconstruct`."""
    from zoo.music import io
    from zoo.show import Group

    model, groups = load(args.model), []
    for file, stem in zip(args.files, stems(args.files), strict=True):
        before = io.read(file)
        after = io.read(model.reconstruct(before, key=args.seed, temperature=args.temperature))
        groups.append(Group([before, after], [Path(file).name, "through the model"], stem, Path(file).name))
    save(groups, args, f"Through {model.name} and back", f"temperature {args.temperature:g}, seed {args.seed}")


def render(args: argparse.Namespace) -> None:
    """`zoo render`."""
    from zoo.music import io
    from zoo.show import Group

    scores = [io.read(file) for file in args.files]
    groups = [
        Group([score], [Path(file).name], stem)
        for score, file, stem in zip(scores, args.files, stems(args.files), strict=True)
    ]
    save(groups, args, ", ".join(Path(file).name for file in args.files[:3]), "")


def stems(files: Sequence[str]) -> list[str]:
    """How the files made of each of `files` are called: its name without suffix, numbered where two are the same."""
    names: list[str] = []
    for file in files:
        name, again = Path(file).stem, 2
        while name in names:
            name, again = f"{Path(file).stem}-{again}", again + 1
        names.append(name)
    return names


def load(name: str, *tasks: str) -> Any:
    """The model of a verb, of one of the `tasks` that can do what is asked; InputError for a model of another."""
    from zoo.music.io import SUFFIXES

    if Path(name).suffix.lower() in SUFFIXES:
        raise InputError(f"{name}: notes where the model's name goes; write, for example: zoo VERB {DEFAULT} {name}")
    model: Any = zoo.load(name)
    if model.architecture.task not in (tasks or ("latent",)):
        lacks = LACKS[tasks[0] if tasks else "latent"]
        raise InputError(f"{name}: a model for {model.architecture.task}, which {lacks}; see `zoo list`")
    return model


def save(groups: Sequence[Group], args: argparse.Namespace, title: str, subtitle: str) -> None:
    """Writes all there is to see and hear, or MIDI alone, and says where; InputError rather than lose an input."""
    from zoo.show import file_stems, write_groups, write_midi

    out = Path(args.out)
    given = [Path(file).resolve() for file in getattr(args, "files", [])]
    for stem in (stem for group in groups for stem in file_stems(group)):
        if (out / f"{stem}.mid").resolve() in given:
            raise InputError(f"{out / stem}.mid: it is read, and would be overwritten; choose another --out")
    if getattr(args, "midi_only", False):
        names = write_midi(groups, out)
        print(f"wrote {len(names)} MIDI files: {names[0]} … {names[-1]}" if len(names) > 1 else f"wrote {names[0]}")
        return
    written = write_groups(groups, out, title, subtitle)
    pictures = len(written.png) + len(written.sheets)
    print(f"wrote {len(written.midi)} MIDI, {len(written.wav)} WAV and {pictures} PNG files into {out}")
    print(f"open {written.page} to see and hear them")
    if "seed" in args and not args.seed and args.temperature:
        print("the same command gives the same music; for other music: --seed 1")
