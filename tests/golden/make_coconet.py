"""Makes `coconet.npz`: what PyTorch computes with George Ogden's published Coconet.

Needs torch (2.13), a checkout of https://github.com/George-Ogden/coconet (0057fdc), whose own code and pickled module
are run, and the JSB chorales that `tests/shared.py` finds; from the repository's root:

    PYTHONPATH=. python tests/golden/make_coconet.py CHECKOUT

Two windows of a chorale of the test split, with half of the notes hidden behind coin flips and with all but the
soprano hidden. Hooks keep the outputs of two layers at one step, before skip and ReLU.
"""

from __future__ import annotations

import json
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import torch

SHARED = Path(__file__).resolve().parents[3] / "shared"
LAYERS, AT, STEPS, LOWEST, PITCHES = (6, 18), 17, 64, 36, 46


def main() -> None:
    """Writes the archive beside this script."""
    checkout = sys.argv[1]
    sys.path.insert(0, checkout)
    sys.modules["pypianoroll"] = types.ModuleType("pypianoroll")  # only writes MIDI files, not asked for here
    model = torch.load(f"{checkout}/pretrained/model.pth", map_location="cpu", weights_only=False).eval()
    x = inputs()  # [2, T, P, 8]
    kept: dict[int, np.ndarray] = {}
    for i in LAYERS:  # [B, F, P, T] → [B, P, F] at one step
        model.layers[i].register_forward_hook(
            lambda _, __, out, i=i: kept.update({i: out[..., AT].permute(0, 2, 1).numpy()})
        )
    with torch.no_grad():
        logits = model(torch.tensor(x, dtype=torch.float32).permute(0, 3, 2, 1)).permute(0, 3, 2, 1).numpy()
    golden = {
        "x": np.packbits(x),
        "shape": np.array(x.shape),
        "step": np.int32(AT),
        "layers": np.array(LAYERS),
        "hidden": np.stack([kept[i] for i in LAYERS]),  # [2 layers, B, P, F]
        "logits": logits.astype(np.float32),  # [B, T, P, 4]
    }
    path = Path(__file__).with_name("coconet.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))
    print(np.abs(golden["hidden"]).max(axis=(1, 2, 3)), np.abs(logits).max())


def inputs() -> np.ndarray:
    """Rolls and masks as the network has them, bool [2, T, P, 4 rolls and 4 masks]."""
    with tarfile.open(SHARED / "data" / "jsb-chorales.tar.gz") as archive:
        member = next(name for name in archive.getnames() if name.endswith("Jsb16thSeparated.json"))
        piece = np.array(json.load(archive.extractfile(member))["test"][0])
    music = np.stack([piece[:STEPS], piece[STEPS : 2 * STEPS]])  # [2, T, 4]
    roll = music[:, :, None, :] == LOWEST + np.arange(PITCHES)[:, None]
    rng = np.random.default_rng(1903_07227)
    hidden = rng.random(music.shape) < 0.5
    hidden[1] = np.arange(4) > 0
    mask = np.broadcast_to(hidden[:, :, None, :], roll.shape)
    return np.concatenate([np.where(mask, rng.random(roll.shape) < 0.5, roll), mask], axis=-1)


if __name__ == "__main__":
    main()
