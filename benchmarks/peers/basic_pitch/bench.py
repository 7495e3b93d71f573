"""Basic Pitch as its authors run it on ONNX Runtime; `benchmarks/listening.py` tells it when.

Operations: "network", 16 windows of two seconds in memory; "predict", the package's own, from a file to the notes.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import numpy as np
import onnxruntime
from basic_pitch import FilenameSuffix, build_icassp_2022_model_path
from basic_pitch.inference import Model, predict

from benchmarks.peers.turns import answer

WINDOWS, SAMPLES = 16, 43844


def main(path: str) -> None:
    threads = onnxruntime.SessionOptions()  # by default more than cores, and those that wait keep one busy
    threads.intra_op_num_threads = threads.inter_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    onnxruntime.InferenceSession = partial(onnxruntime.InferenceSession, sess_options=threads)
    model = Model(build_icassp_2022_model_path(FilenameSuffix.onnx))
    audio = np.random.default_rng(0).standard_normal((WINDOWS, SAMPLES, 1)).astype(np.float32)
    operations = {"network": lambda: model.predict(audio), "predict": lambda: predict(path, model)}
    answer(operations, f"basic-pitch 0.4.0, onnxruntime {onnxruntime.__version__}")


if __name__ == "__main__":
    main(sys.argv[1])
