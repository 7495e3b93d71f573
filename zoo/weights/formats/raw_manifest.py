"""Raw manifests, as early magenta.js wrote them: `manifest.json` and a file of little-endian float32 a variable."""

from __future__ import annotations

import json

import numpy as np

from zoo.weights.formats.files import Files


def read(files: Files) -> dict[str, np.ndarray]:
    """float32 tensors by variable name; `manifest.json` maps each to {"filename": …, "shape": […]}."""
    manifest = files.the("manifest.json", "*.json")
    tensors = {}
    for name, entry in json.loads(files.read(manifest)).items():
        file = files.beside(manifest, entry["filename"])
        if files.chosen and file not in files.paths:
            continue
        data = files.read(file)
        expected = 4 * int(np.prod(entry["shape"], dtype=object))
        if len(data) != expected:
            raise ValueError(f"{entry['filename']} has {len(data)} bytes instead of {expected}")
        tensors[name] = np.frombuffer(data, "<f4").reshape(entry["shape"]).astype(np.float32)
    return tensors
