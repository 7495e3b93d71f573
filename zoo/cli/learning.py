"""`zoo train`, `finetune`, `evaluate`, `bench`, `convert`: models made, measured, and brought in from elsewhere."""

from __future__ import annotations

import argparse
import ctypes
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from zoo.cli.parser import add_json, add_model, add_seed, add_verb, number, whole
from zoo.cli.text import print_json, print_table, short
from zoo.errors import InputError
from zoo.weights.cards import FORMATS

if TYPE_CHECKING:
    from zoo.cli.parser import Parser, Verbs
    from zoo.tasks.model import Model

SPEEDS = (  # the columns of `zoo bench` on a terminal; its CSV and JSON have all
    "operation", "batch", "median_s", "p90_s", "sequences_per_s", "steps_per_s", "gflops_per_s", "share_of_matmul",
    "compile_s", "memory_mb",
)  # fmt: skip
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
STOPPED = "; the same command goes on from the last checkpoint"


def add(verbs: Verbs) -> None:
    """Adds the verbs of this file."""
    parser = add_verb(
        verbs, "train", train, "Train a model by the recipe beside its card.",
        "zoo train music-vae/mel-2bar --data DIR --out runs/a",
        "A run that was stopped goes on, bit for bit, with the same command.",
    )  # fmt: skip
    add_run(parser)
    parser.add_argument("--steps", type=whole(1), metavar="N", help="training steps (default: the recipe's)")
    parser.add_argument("--batch-size", type=whole(1), metavar="N", help="windows a step (default: the recipe's)")
    add_seed(parser, None)

    parser = add_verb(
        verbs, "finetune", finetune, "Go on from pretrained weights with your own music.",
        """
        zoo finetune music-vae --data my_midis/ --out runs/mine
        zoo finetune music-vae --data my_midis/ --out runs/small --lora 8 --steps 200
        zoo finetune music-vae --data my_midis/ --out runs/decoder --freeze 'encoder.*'
        zoo finetune musicnn --data genres/ --out runs/genres
        """,
        "A run that was stopped goes on, bit for bit, with the same command.",
    )  # fmt: skip
    add_run(parser)
    parser.add_argument("--steps", type=whole(1), default=500, metavar="N", help="training steps (default: 500)")
    parser.add_argument("--batch-size", type=whole(1), default=64, metavar="N", help="windows a step (default: 64)")
    help_ = "the largest of its schedule (default: 3e-4; 3e-3 where only a last layer learns)"
    parser.add_argument("--learning-rate", type=number(0, above=True), metavar="R", help=help_)
    help_ = "leave parameters of such names as they are; may be given more than once, and `none` lets all learn "
    help_ += "(default: none; of a model that gets a new last layer for your folders, all but that)"
    parser.add_argument("--freeze", action="append", metavar="PATTERN", help=help_)
    parser.add_argument("--lora", type=whole(0), default=0, metavar="RANK", help="train low-rank adapters alone")
    add_seed(parser)

    parser = add_verb(
        verbs, "evaluate", evaluate, "Measure a model on music it has not seen.",
        """
        zoo evaluate music-vae --data DIR
        zoo evaluate runs/mine --data my_midis/ --split valid --samples 256 --json
        """,
    )  # fmt: skip
    add_model(parser)
    add_data(parser)
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="(default: test)")
    help_ = "also draw so many pieces and compare them with the music (default: 0)"
    parser.add_argument("--samples", type=whole(0), default=0, metavar="N", help=help_)
    parser.add_argument("--limit", type=whole(1), metavar="N", help="measure on at most so many windows")
    add_seed(parser)
    add_json(parser)

    parser = add_verb(
        verbs, "bench", bench, "Measure a model's speed on this machine.",
        """
        zoo bench music-vae
        zoo bench music-vae --batch-sizes 1 64 --out speed.csv
        zoo bench music-vae --precision bfloat16
        """,
    )  # fmt: skip
    add_model(parser)
    help_ = "(default: 1 64 512)"
    parser.add_argument("--batch-sizes", type=whole(1), nargs="+", default=[1, 64, 512], metavar="N", help=help_)
    help_ = "of the factors of matrix products (default: float32)"
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help=help_)
    parser.add_argument("--out", metavar="FILE", help="also write the rows into this CSV file")
    add_json(parser)

    parser = add_verb(
        verbs, "convert", convert, "Bring weights of another format into a .safetensors file.",
        """
        zoo convert cat-mel_2bar_big.tar --as music-vae/mel-2bar-big-magenta --out mel-big.safetensors
        zoo generate mel-big.safetensors
        """,
        "Strict both ways: a tensor without a place and a parameter without a tensor are errors.",
    )  # fmt: skip
    parser.add_argument("source", metavar="SOURCE", help="a file, a folder, or an archive of either")
    help_ = "the model whose configuration the weights have (`zoo list`)"
    parser.add_argument("--as", required=True, dest="model", metavar="MODEL", help=help_)
    parser.add_argument("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--format", choices=FORMATS, help="where it can't be told from the files")
    parser.add_argument("--half", action="store_true", help="store float16: half the size, rounded to 3 digits")


def add_data(parser: Parser) -> None:
    """`--data`."""
    help_ = (
        "a folder of music: MIDI, MusicXML, MXL, ABC, **kern or NoteSequence; for a model of pitch sound with CSVs of "
        "time and Hz beside it, for a tagger sound in a folder for each class"
    )
    parser.add_argument("--data", required=True, metavar="DIR", help=help_)


def add_run(parser: Parser) -> None:
    """What training verbs share."""
    add_model(parser)
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the run directory, e.g. runs/mine")
    parser.add_argument("--verbose", action="store_true", help="print progress also where there is no terminal")
    parser.set_defaults(when_stopped=STOPPED)


def keep_memory() -> None:
    """Lets glibc keep what is freed, for a training step asks for the same again: before JAX starts its threads.

    By default memory of this size goes back to the system and comes anew at every step, each page cleared. A step of
    MusicVAE at batch 512 (500 MB, 120 000 pages) takes 1.12 s so, and .93 s with this (one core of a Xeon).
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


def train(args: argparse.Namespace) -> None:
    """`zoo train`."""
    keep_memory()
    options = {"steps": args.steps, "batch_size": args.batch_size, "seed": args.seed, "verbose": args.verbose}
    _say_trained(args.out, zoo.train(args.model, args.data, args.out, **options))


def finetune(args: argparse.Namespace) -> None:
    """`zoo finetune`."""
    keep_memory()
    trained = zoo.finetune(
        args.model,
        args.data,
        args.out,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        freeze=() if args.freeze == ["none"] else args.freeze,
        lora=args.lora,
        seed=args.seed,
        verbose=args.verbose,
    )
    _say_trained(args.out, trained)


def _say_trained(out: str, model: Model) -> None:
    print(f"trained: {Path(out, 'best.safetensors')} has the best weights, {Path(out, 'curve.png')} the curve")
    verbs = {
        "pitch": f"zoo pitch FILE --model {out}",
        "tags": f"zoo tag FILE --model {out}",
        "latent": f"zoo generate {out}",
        "continuation": f"zoo generate {out}",
        "infill": f"zoo generate {out}",
        "harmonization": f"zoo harmonize {out} FILE",
        "phrases": f"zoo generate {out}",
    }
    if verb := verbs.get(model.architecture.task):
        print(f"use it: {verb}")


def evaluate(args: argparse.Namespace) -> None:
    """`zoo evaluate`."""
    options = {"split": args.split, "samples": args.samples, "seed": args.seed, "limit": args.limit}
    measured = zoo.evaluate(args.model, args.data, **options)
    if args.json:
        return print_json(measured)
    return print_table([(name, short(value)) for name, value in measured.items()])


def bench(args: argparse.Namespace) -> None:
    """`zoo bench`."""
    rows = zoo.bench(args.model, batch_sizes=tuple(args.batch_sizes), out=args.out, precision=args.precision)
    if args.json:
        return print_json(rows)
    print(f"{rows[0]['device']}, {rows[0]['version']}: {rows[0]['model']}\n")
    return print_table([SPEEDS, *([short(row[name]) for name in SPEEDS] for row in rows)])


def convert(args: argparse.Namespace) -> None:
    """`zoo convert`."""
    from dataclasses import replace

    from zoo.tasks.model import Model, build, from_card
    from zoo.weights.convert import convert as rename
    from zoo.weights.formats import read_weights

    if Path(args.out).suffix != ".safetensors":
        raise InputError(f"{args.out}: its name must end in .safetensors")
    card = zoo.info(args.model)
    tensors = read_weights(args.source, args.format)
    if Path(args.source).suffix != ".safetensors":
        tensors = rename(tensors, card.converter or card.architecture, args.source)
    found = replace(from_card(card), name=args.source, tensors=lambda: tensors)
    path = Model(build(found), found).save(args.out, half=args.half)
    print(f"wrote {path}: {len(tensors)} tensors as {card.id}; try: zoo info {path}")
