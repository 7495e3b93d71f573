"""Makes `musicnn.npz`: what the package musicnn 0.1.0 answers to three short sounds, with all four of its models.

Needs musicnn, tensorflow (2.21) with tf_keras, librosa and soundfile; from the repository's root:

    TF_USE_LEGACY_KERAS=1 PYTHONPATH=. python tests/golden/make_musicnn.py

The sounds are those of `tests/sounds.py`. Patches are exact in float16, which is what the package computes them in.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import soundfile
from musicnn.extractor import batch_data, extractor

from tests.sounds import RATE, SOUNDS

FRAMES, HOP = 187, 61  # three seconds, and a step of one, in frames
MODELS = ("MTT_musicnn", "MSD_musicnn", "MTT_vgg", "MSD_vgg")
KEPT = {"musicnn": ("max_pool", "penultimate"), "vgg": ("pool4", "pool5")}


def main() -> None:
    """Writes the archive beside this script."""
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, sound in SOUNDS.items():
            path = str(Path(folder, f"{name}.wav"))
            soundfile.write(path, sound(), RATE, subtype="FLOAT")
            patches, _ = batch_data(path, FRAMES, HOP)
            assert np.isfinite(patches).all()
            golden[f"{name}/patches"] = patches  # float16 [n, 187, 96]
            for model in MODELS:
                taggram, _, features = extractor(path, model=model, input_overlap=1.0)
                golden[f"{name}/{model}/tags"] = taggram
                for kind in KEPT[model.split("_")[1]]:
                    # The first patch's: for those after it the package repeats the first one's middle and last layers.
                    kept = features[kind].reshape(len(taggram), -1)[0]
                    golden[f"{name}/{model}/{kind}"] = kept[:: max(1, len(kept) // 200)]
    path = Path(__file__).with_name("musicnn.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()), sep="\n")


if __name__ == "__main__":
    main()
