"""`zoo melody`: pieces in, their melody and the rest out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.attention import add_attention, draw_attention
from zoo.cli.listening import listen, load, say
from zoo.cli.music import NOTES, add_folder
from zoo.cli.parser import add_json, add_verb, number

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs


def add(verbs: Verbs) -> None:
    """Adds the verb of this file."""
    parser = add_verb(
        verbs, "melody", melody, "Tell the melody of pieces from the rest, whatever track it is in.",
        """
        zoo melody song.mid
        zoo melody songs/ --out melodies
        zoo melody song.mxl --threshold 0.3 --attention looked.png --json
        """,
        "Writes the melody and the accompaniment as MIDI, a picture, and a JSON file of the melody's notes.",
    )  # fmt: skip
    parser.add_argument("files", nargs="+", metavar="FILE", help=f"{NOTES}, or a folder of them")
    help_ = "which model (default: melody-transformer)"
    parser.add_argument("--model", default="melody-transformer", metavar="MODEL", help=help_)
    help_ = "how likely a note of the melody must be, 0 to 1; less gives more notes (default: 0.5)"
    parser.add_argument("--threshold", type=number(0), default=0.5, metavar="P", help=help_)
    add_folder(parser)
    add_attention(parser)
    add_json(parser)


def melody(args: argparse.Namespace) -> None:
    """`zoo melody`."""
    from zoo.music.midi import midi_bytes
    from zoo.show.files import write

    model = load(args.model, "melody")

    def tell(path: Path, stem: str) -> Any:
        found = model.find(path, args.threshold)
        base = Path(args.out) / stem
        files = {
            "melody": write(f"{base}-melody.mid", midi_bytes(found.melody)),
            "accompaniment": write(f"{base}-accompaniment.mid", midi_bytes(found.accompaniment)),
            "png": found.plot(f"{base}.png", path.name),
            "json": Path(f"{base}.json"),
        }
        notes = found.table()
        told = {"file": path.name, "model": model.name, "threshold": args.threshold, "melody": notes}
        write(files["json"], json.dumps(told, indent=1).encode(errors="replace"))
        more = draw_attention(args, model, path, stem)
        say(
            args,
            f"wrote {base}-melody.mid, -accompaniment.mid, .png and .json: {len(notes)} of {len(found.score)} notes",
        )
        return files | {"attention": more, "notes": notes}

    listen(args, tell, ("notes",))
