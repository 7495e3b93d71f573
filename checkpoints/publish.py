"""Puts trained weights beside their card: `python checkpoints/publish.py runs/a checkpoints/music-vae/mel-2bar`.

Takes the best weights of a run (or a .safetensors file), checks that they fit the card's configuration, stores them as
float16 and writes sha256 and size into card.toml. Metrics are written by hand, from
`zoo evaluate`. A card that had no weights yet gains its source, and is verified. A third argument, such as "encoder.*",
keeps only the parameters it matches, for a card whose other sources give the rest.
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from zoo.tasks.model import BEST, build, from_card
from zoo.weights.cards import load_card
from zoo.weights.formats import safetensors

SOURCE = """
[[sources]]
kind = "bundled"
file = "weights.safetensors"
sha256 = ""
bytes = 0
"""


def publish(source: Path, folder: Path, pattern: str = "*") -> None:
    """Writes `folder`/weights.safetensors and brings `folder`/card.toml up to date."""
    tensors, _ = safetensors.load(source / BEST if source.is_dir() else source)
    found = from_card(load_card(folder))
    build(replace(found, tensors=lambda: tensors))  # raises where they do not fit
    kept = {name: tensor for name, tensor in tensors.items() if fnmatchcase(name, pattern)}
    safetensors.write(folder / "weights.safetensors", kept, found.facts, half=True)
    written = (folder / "weights.safetensors").read_bytes()
    facts = {
        "sha256": f'"{hashlib.sha256(written).hexdigest()}"',
        "bytes": str(len(written)),
    }
    card = folder / "card.toml"
    text = card.read_text(encoding="utf-8")
    if "bundled" not in text:
        text = text.replace("\ntask = ", "\nverified = true\ntask = ", 1) + SOURCE
        if found.card is not None and found.card.format != "safetensors":
            text += 'format = "safetensors"\n'
    before, bundled, after = text.partition('kind = "bundled"')
    for key, value in facts.items():
        after = re.sub(rf"^{key} = .*$", f"{key} = {value}", after, count=1, flags=re.MULTILINE)
    card.write_text(before + bundled + after, encoding="utf-8")
    print(f"{folder}: {len(written) / 1e6:.1f} MB, {len(kept)} of {len(tensors)} tensors")


if __name__ == "__main__":
    publish(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
