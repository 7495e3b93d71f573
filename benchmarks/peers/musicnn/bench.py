"""Times the package musicnn from a decoded waveform to its taggram: `python bench.py --seconds 30`.

Prints a JSON line for each model and way of calling it: the seconds of every call after a first that isn't counted.
"package" is `musicnn.extractor.extractor` as its users call it, which builds the network and reads its weights at each
call; "session" is the same with both done once before: the spectrogram by its own `batch_data`, then its own graph, a
patch at a time as the package has it. Set TF_USE_LEGACY_KERAS=1.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import librosa
import musicnn
import numpy as np
import tensorflow as tf
from musicnn import extractor as package
from musicnn import models

FRAMES, BANDS, TAGS = 187, 96, 50
MODELS = ("MTT_musicnn", "MTT_vgg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the sound")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 0)))
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    sound = noise(options.seconds)
    librosa.load = lambda path, sr: (sound, sr)  # from a decoded waveform: reading a file isn't what is compared
    for name, operation, call in operations(sound):
        times = []
        for _ in range(options.runs + 1):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        row = {"system": f"musicnn {operation}", "version": f"musicnn 0.1.0, tensorflow {tf.__version__}"}
        row |= {"model": name, "operation": "taggram", "seconds_of_sound": options.seconds, "times": times[1:]}
        print(json.dumps(row), flush=True)


def operations(sound: np.ndarray) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(model, way, call), one after another."""
    for name in MODELS:
        graph = tf.Graph()
        with graph.as_default(), tf.name_scope("model"):
            x = tf.compat.v1.placeholder(tf.float32, [None, FRAMES, BANDS])
            training = tf.compat.v1.placeholder(tf.bool)
            tags = tf.nn.sigmoid(models.define_model(x, training, name, TAGS)[0])
        session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            tf.compat.v1.train.Saver().restore(session, f"{os.path.dirname(musicnn.__file__)}/{name}/")

        def taggram(session: Any = session, x: Any = x, training: Any = training, tags: Any = tags) -> np.ndarray:
            patches, _ = package.batch_data("", FRAMES, FRAMES)
            parts = [session.run(tags, {x: patch[None], training: False}) for patch in patches]
            return np.concatenate(parts)

        yield name, "session", taggram
        yield name, "package", lambda name=name: package.extractor("", model=name, extract_features=False)


def noise(seconds: float) -> np.ndarray:
    """Quiet pink noise at 16 kHz, float32: loud sound overflows the package's float16."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(int(16000 * seconds)))
    sound = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))))
    return (0.05 * sound / np.abs(sound).max()).astype(np.float32)


if __name__ == "__main__":
    main()
