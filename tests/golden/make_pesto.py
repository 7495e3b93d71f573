"""Makes `pesto.npz`: what the package pesto-pitch computes with the published weights.

Needs pesto-pitch (2.0.1), torch and omegaconf; from the repository's root:

    PYTHONPATH=. python tests/golden/make_pesto.py

The package imports torchaudio to read files, which is not done here: where it is missing an empty module stands for it.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

RATE, SECONDS, STEP = 16000, 4.0, 16  # STEP: of long arrays every so many frames are kept


def sound() -> np.ndarray:
    """Four seconds: a voice that glides over an octave with vibrato, breathes, and goes on lower. float32 [N]."""
    rng = np.random.default_rng(2309_02265)
    time = np.arange(int(SECONDS * RATE)) / RATE
    semitones = np.where(time < 2.0, 57 + 6 * time, 50 - 2 * (time - 2)) + 0.4 * np.sin(2 * np.pi * 5.5 * time)
    phase = 2 * np.pi * np.cumsum(440.0 * 2.0 ** ((semitones - 69) / 12)) / RATE
    sung = sum(np.sin(k * phase) / k**1.3 for k in range(1, 9))
    envelope = np.clip(np.minimum(time / 0.05, (1.8 - time) / 0.1), 0, 1) + np.clip((time - 2.3) / 0.1, 0, 1)
    out = envelope * sung + 0.01 * rng.standard_normal(len(time))
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def main() -> None:
    """Writes the archive beside this script."""
    if importlib.util.find_spec("torchaudio") is None:
        sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    import pesto
    import torch

    audio = torch.tensor(sound())
    model = pesto.load_model("mir-1k_g7", step_size=10.0, sampling_rate=RATE)
    kept: dict[str, torch.Tensor] = {}
    model.encoder.layernorm.register_forward_pre_hook(lambda _, x: kept.update(features=x[0].clone()))
    model.encoder.conv_layers.register_forward_pre_hook(lambda _, x: kept.update(hidden=x[0].clone()))
    with torch.inference_mode():
        semitones, confidence, _, activations = model(audio, sr=RATE)
    golden = {
        "sound": audio[:64].numpy(),
        "semitones": semitones.numpy(),
        "confidence": confidence.numpy(),
        "activations": activations[::STEP].numpy(),
        "features": kept["features"][::STEP, 0].numpy(),  # [T, F], logarithms of energies
        "hidden": kept["hidden"][:: 8 * STEP].numpy().transpose(0, 2, 1),  # [T, F, C]
    }
    target = Path(__file__).with_name("pesto.npz")
    np.savez_compressed(target, **golden)
    print(target.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))


if __name__ == "__main__":
    main()
