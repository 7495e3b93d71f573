"""Makes `basic_pitch.npz`: what ONNX Runtime and the package basic-pitch compute with the published weights.

Needs basic-pitch (0.4.0), onnx, onnxruntime and soundfile; from the repository's root:

    PYTHONPATH=. python tests/golden/make_basic_pitch.py

The sound is made here, so that the file holds only what came out of it; of long arrays every few frames are kept.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RATE, SECONDS = 22050, 8.0
FEATURES = "model_1/batch_normalization/FusedBatchNormV3;model_1/batch_normalization/FusedBatchNormV33"
HIDDEN = "Relu__38:0"  # after the contour's first convolution
OUTPUTS = {
    "note": "StatefulPartitionedCall:1", "onset": "StatefulPartitionedCall:2", "contour": "StatefulPartitionedCall:0",
}  # fmt: skip
STEP = {"hidden": 43, "heads": 6, "features": 16, "audio": 16}  # which frames are kept: every so many


def sound() -> np.ndarray:
    """Eight seconds: a gliding voice with vibrato over plucked chords, and a little noise. float32 [N]."""
    rng = np.random.default_rng(2203_09893)
    time = np.arange(int(SECONDS * RATE)) / RATE
    out = 1e-3 * rng.standard_normal(len(time))
    for beat in range(8):
        since = np.maximum(time - beat, 0.0)
        for pitch in np.array([36, 52, 55, 60]) + [0, 5, 7, 2][beat % 4]:
            hz = 440.0 * 2.0 ** ((pitch - 69) / 12)
            partials = sum(np.sin(2 * np.pi * k * hz * since) * np.exp(-k * since) / k for k in range(1, 9))
            out += 0.08 * partials * (time >= beat)
    for start, pitch, glide in ((0.5, 72, 0.0), (2.2, 76, 1.5), (4.1, 74, -2.0), (6.0, 79, 0.5)):
        since = np.clip(time - start, 0.0, 1.4)
        semitones = pitch + glide * np.clip(since - 0.5, 0, 0.5) / 0.5 + 0.3 * np.sin(2 * np.pi * 5.5 * since)
        phase = 2 * np.pi * np.cumsum(440.0 * 2.0 ** ((semitones - 69) / 12)) / RATE
        envelope = np.minimum(since / 0.05, 1.0) * np.clip((1.4 - since) / 0.1, 0.0, 1.0)
        out += 0.2 * envelope * sum(np.sin(k * phase) / k**1.5 for k in range(1, 7))
    return (out / np.abs(out).max() * 0.8).astype(np.float32)


def spectrum() -> np.ndarray:
    """What the convolutions might see, float32 [1, 172, 309]: random lines that last, as high as real ones."""
    rng = np.random.default_rng(17)
    lines = np.repeat(rng.random((1, 22, 309)) ** 3, 8, axis=1)[:, :172]
    return (2.4808 * (0.7 * lines + 0.3 * rng.random((1, 172, 309))) - 0.8769).astype(np.float32)


def main() -> None:
    """Writes the archive beside this script."""
    import onnx
    import onnxruntime
    import soundfile
    from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
    from basic_pitch.inference import Model, predict

    path = build_icassp_2022_model_path(FilenameSuffix.onnx)
    audio = sound()
    golden: dict[str, Any] = {"audio_head": audio[:64], "rate": np.int32(RATE)}

    with tempfile.TemporaryDirectory() as folder:
        heads = f"{folder}/heads.onnx"
        onnx.utils.extract_model(str(path), heads, [FEATURES], [HIDDEN, *OUTPUTS.values()])
        session = onnxruntime.InferenceSession(heads, providers=["CPUExecutionProvider"])
        hidden, *outputs = session.run([HIDDEN, *OUTPUTS.values()], {FEATURES: spectrum()[..., None]})
        golden["hidden"] = hidden.transpose(0, 2, 3, 1)[0, :: STEP["hidden"]]  # [T, F, 8]
        golden |= {f"heads_{name}": out[0, :: STEP["heads"]] for name, out in zip(OUTPUTS, outputs, strict=True)}

        front = f"{folder}/front.onnx"
        onnx.utils.extract_model(str(path), front, ["serving_default_input_2:0"], [FEATURES])
        session = onnxruntime.InferenceSession(front, providers=["CPUExecutionProvider"])
        (features,) = session.run([FEATURES], {"serving_default_input_2:0": audio[None, :43844, None]})
        golden["features"] = features[0, :: STEP["features"], :, 0]

        soundfile.write(f"{folder}/sound.wav", audio, RATE, subtype="FLOAT")
        found, midi, events = predict(f"{folder}/sound.wav", Model(path), multiple_pitch_bends=True)
    golden["frames"] = np.int32(len(found["note"]))
    golden |= {f"audio_{name}": found[name][:: STEP["audio"]] for name in OUTPUTS}
    events = sorted(events, key=lambda event: event[:3])
    golden["events"] = np.array([event[:4] for event in events], np.float64)  # start s, end s, pitch, amplitude
    golden["bends"] = np.concatenate([event[4] for event in events]).astype(np.int8)  # thirds, a frame each
    parts = sorted(midi.instruments, key=lambda part: part.notes[0].pitch)  # a part a pitch
    rows = [(b.time, part.notes[0].pitch, b.pitch) for part in parts[:12] for b in part.pitch_bends]
    golden["midi_bends"] = np.array(rows, np.float32)  # seconds, pitch, bend: those of the twelve lowest pitches
    target = Path(__file__).with_name("basic_pitch.npz")
    np.savez_compressed(target, **golden)
    print(target.stat().st_size, "bytes;", *(f"{name} {np.shape(array)}" for name, array in golden.items()))


if __name__ == "__main__":
    main()
