"""Makes `chord_crema.npz`: what crema 0.2.0 says of a little song, from the sound to the chords.

Needs the packages crema (0.2.0), pumpp (0.6.0), jams, mir_eval, librosa (0.11), tensorflow (2.21) and tf_keras; from
the repository's root:

    PYTHONPATH=. python tests/golden/make_chord_crema.py

Keras 3 no longer reads the package's model, and today's scikit-learn not its encoder of labels. So the network is built
by tf_keras from the configuration in its HDF5 file, and the package's own methods are called with it and with its pump.
The pump is a pickle: this script runs it, the zoo never does.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

RATE = 22050
CHORDS = ((48, 64, 67, 72), (45, 60, 64, 69), (41, 57, 60, 65), (47, 62, 65, 67), (52, 60, 67, 72))  # MIDI pitches
SECONDS = 1.6  # each; the fourth is G7 over its third, the last C over its third


def song() -> np.ndarray:
    """Plucked chords, ten harmonics a note, with a little noise: float32 [176400] at `RATE`."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    rng = np.random.default_rng(2017)
    parts = []
    for chord in CHORDS:
        sound = 0.001 * rng.standard_normal(len(time))
        for note in chord:
            for harmonic in range(1, 11):
                hz = harmonic * 440 * 2 ** ((note - 69) / 12)
                sound += 0.08 / harmonic * np.exp(-harmonic * time) * np.sin(2 * np.pi * hz * time + harmonic)
        parts.append(sound)
    return np.concatenate(parts).astype(np.float32)


def main() -> None:
    """Writes the archive beside this script."""
    recogniser = original()
    sound = song()
    operator = recogniser.pump["cqt"]
    features = np.asarray(operator.transform(sound, RATE)["cqt/mag"]).reshape(-1, 216, 2)
    inner = [recogniser.model.get_layer(name).output for name in ("squeeze_layer_1", "bidirectional_1")]
    network = type(recogniser.model)(recogniser.model.inputs, [*inner, *recogniser.model.outputs])
    convolved, first, *outputs = [array[0] for array in network.predict(features[None], verbose=0)]
    named = dict(zip(recogniser.model.output_names, outputs, strict=True))
    spans = [
        (chord.time, chord.time + chord.duration, chord.confidence, chord.value)
        for chord in recogniser.predict(y=sound, sr=RATE, outputs=named)
    ]
    golden = {
        "features": features,
        "convolved": convolved[::4],
        "first": first[::4],
        **{name.removeprefix("chord_"): array for name, array in named.items()},
        "times": np.array([span[:3] for span in spans]),  # start, end, confidence
        "labels": np.array([str(span[3]) for span in spans]),
    }
    path = Path(__file__).with_name("chord_crema.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))
    print(*spans, sep="\n")


def original() -> Any:
    """Crema's `ChordModel` with its network and pump, as far as today's libraries can make them."""
    import json
    import pickle
    import sys

    import h5py
    import librosa
    import tf_keras

    class Unpickler(pickle.Unpickler):
        """NumPy has moved its core since."""

        def find_class(self, module: str, name: str) -> Any:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    class SqueezeLayer(tf_keras.layers.Layer):
        """crema's own layer."""

        def __init__(self, axis: int = -1, **options: Any) -> None:
            super().__init__(**options)
            self.axis = axis

        def call(self, x: Any) -> Any:
            return tf_keras.backend.squeeze(x, self.axis)

    # The package asks for modules that have gone or want other versions; only `ChordModel.predict` is wanted of it.
    for name in ("keras.models", "pkg_resources", "crema.layers"):
        sys.modules[name] = SimpleNamespace(model_from_config=None, resource_filename=None)  # type: ignore[assignment]
    from crema.models.chord import ChordModel

    duration = librosa.get_duration
    librosa.get_duration = lambda **given: duration(**{k: v for k, v in given.items() if k != "filename"})
    folder = Path(sys.modules[ChordModel.__module__].__file__ or "").parent / "chord"
    recogniser = ChordModel.__new__(ChordModel)
    with (folder / "pump.pkl").open("rb") as file:
        recogniser.pump = Unpickler(file).load()
    tag = recogniser.pump["chord_tag"]
    names = tag.encoder.classes_
    tag.encoder = SimpleNamespace(classes_=names, inverse_transform=lambda index: names[np.atleast_1d(index)])
    with h5py.File(folder / "model.h5") as file:
        config = json.loads(file.attrs["model_config"])
    recogniser.model = tf_keras.models.model_from_config(config, custom_objects={"SqueezeLayer": SqueezeLayer})
    recogniser.model.load_weights(folder / "model.h5")
    recogniser.version = ""
    return recogniser


if __name__ == "__main__":
    main()
