"""crema's chord recogniser on TensorFlow, from a decoded waveform to the chords; see `benchmarks/listening.py`.

The package no longer loads its own model with today's Keras: the script that made our golden file puts it together.
"""

from __future__ import annotations

import os
import sys

import librosa
import tensorflow as tf

from benchmarks.peers.turns import answer
from tests.golden.make_chord_crema import original


def main(path: str) -> None:
    threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    recogniser = original()
    sound, rate = librosa.load(path, sr=None)
    names = recogniser.model.output_names

    def predict() -> None:
        features = recogniser.pump["cqt"].transform(sound, rate)["cqt/mag"]
        found = recogniser.model.predict(features.reshape(1, -1, 216, 2), verbose=0)
        recogniser.predict(y=sound, sr=rate, outputs={name: x[0] for name, x in zip(names, found, strict=True)})

    answer({"predict": predict}, f"crema 0.2.0, tensorflow {tf.__version__}")


if __name__ == "__main__":
    main(sys.argv[1])
