"""Makes `crepe.npz`: what torchcrepe computes with CREPE's published weights, full and tiny.

Needs torchcrepe 0.0.24 with what it asks for (torchaudio apart, which only reads files), in an environment of its own;
from the repository's root:

    python tests/golden/make_crepe.py

The sound is synthesised: a voice of formants that glides, trills and rests, with breath between. torchcrepe adds noise
to the pitch of its bins ("dither", ±20 cents); here it is taken out, so that there is something to compare.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np

sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))

import torch  # noqa: E402
import torchcrepe  # noqa: E402

EDGE = 512  # samples of either end of the sound as it is resampled
STRIDE = 10  # every so many frames' activations are kept
# Without a narrower range torchcrepe's Viterbi ends at the highest pitch: the steps from the pitches at the edge are
# divided by less, which outweighs activations of under 0.7.
RANGE = {"viterbi": {"fmin": 80.0, "fmax": 1000.0}}
DECODERS = {
    "viterbi": torchcrepe.decode.viterbi,
    "weighted": torchcrepe.decode.weighted_argmax,
    "argmax": torchcrepe.decode.argmax,
}


def main() -> None:
    """Writes the archive beside this script."""
    torchcrepe.convert.dither = lambda cents: cents
    golden: dict[str, np.ndarray] = {"stride": np.int32(STRIDE)}
    for name, rate, seconds in (("sound", 16000, 2.4), ("raw", 44100, 0.9)):
        golden[name] = np.round(voice(rate, seconds) * 32767).astype(np.int16)
    resampled = torchcrepe.resample(torch.tensor(golden["raw"][None] / np.float32(32768)), 44100)[0].numpy()
    golden["raw_ends"] = np.concatenate([resampled[:EDGE], resampled[-EDGE:]])
    for size in ("tiny", "full"):
        torchcrepe.load.model("cpu", size)
        model = torchcrepe.infer.model
        for name, rate in (("sound", 16000), ("raw", 44100)):
            sound = torch.tensor(golden[name][None] / np.float32(32768))
            frames = next(torchcrepe.preprocess(sound, rate))
            with torch.no_grad():
                golden[f"{size}_{name}_activations"] = model(frames)[::STRIDE].numpy()
                if name == "sound":
                    few = frames[[40, 90, 200]]
                    first = model.layer(few[:, None, :, None], model.conv1, model.conv1_BN, (0, 0, 254, 254))
                    golden[f"{size}_first"] = first[:, ::16, ::8, 0].permute(0, 2, 1).numpy()
                    golden[f"{size}_fifth"] = model.embed(few)[:, ::2, :, 0].permute(0, 2, 1).numpy()
            for decoder, decode in DECODERS.items():
                options = {"model": size, "decoder": decode, "return_periodicity": True, **RANGE.get(decoder, {})}
                hz, periodicity = torchcrepe.predict(sound, rate, **options)
                golden[f"{size}_{name}_{decoder}_hz"] = hz[0].numpy().astype(np.float32)
                golden[f"{size}_{name}_{decoder}_periodicity"] = periodicity[0].numpy()
    path = Path(__file__).with_name("crepe.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))


def voice(rate: int, seconds: float) -> np.ndarray:
    """A voice [N] within ±1: a glide up two octaves with vibrato, a rest with breath, a trill downwards."""
    t = np.arange(round(rate * seconds)) / rate
    share = t / seconds
    octaves = np.where(share < 0.55, 2 * share / 0.55, 1.2 - np.floor(8 * share) / 12 + 0.05 * np.sin(30 * t))
    hz = 130 * 2 ** (octaves + 0.02 * np.sin(2 * np.pi * 5.5 * t))
    phase = 2 * np.pi * np.cumsum(hz) / rate
    sound = np.zeros_like(t)
    for k in range(1, 30):
        formants = sum(np.exp(-(((k * hz - centre) / width) ** 2)) for centre, width in ((700, 200), (1200, 300)))
        sound += np.where(k * hz < 0.45 * rate, (formants + 0.2 / k) * np.sin(k * phase), 0.0)
    loudness = np.clip(10 * share, 0, 1) * np.clip(10 * (1 - share), 0, 1) * ((share < 0.55) | (share > 0.65))
    breath = np.random.default_rng(1802).standard_normal(len(t))
    sound = sound * loudness + 0.02 * breath * (share > 0.1)
    return 0.8 * sound / np.abs(sound).max()


if __name__ == "__main__":
    main()
