"""musicnn's package, from a decoded waveform to the taggram; `benchmarks/listening.py` tells it when.

Operations are such as "MTT_vgg package": `musicnn.extractor.extractor` as its users call it, which builds the network
and reads its weights at each call; and "MTT_vgg session", the same with both done once before: the spectrogram by its
own `batch_data`, then its own graph, a patch at a time as the package has it. Set TF_USE_LEGACY_KERAS=1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import librosa
import musicnn
import numpy as np
import tensorflow as tf
from musicnn import extractor as package
from musicnn import models

from benchmarks.peers.turns import answer

FRAMES, BANDS, TAGS = 187, 96, 50
MODELS = ("MTT_musicnn", "MTT_vgg")


def main(path: str) -> None:
    threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    sound, _ = librosa.load(path, sr=16000)
    librosa.load = lambda path, sr: (sound, sr)  # from a decoded waveform: reading a file isn't what is compared
    answer(dict(operations()), f"musicnn 0.1.0, tensorflow {tf.__version__}")


def operations() -> Iterator[tuple[str, Callable[[], Any]]]:
    """(model and way, call), one after another."""
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

        yield f"{name} session", taggram
        yield f"{name} package", partial(package.extractor, "", model=name, extract_features=False)


if __name__ == "__main__":
    main(sys.argv[1])
