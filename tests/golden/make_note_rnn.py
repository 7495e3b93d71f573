"""Makes `note_rnn.npz`: what Magenta's note RNN gives in TensorFlow. Needs tensorflow, tf_keras, numpy.

    TF_USE_LEGACY_KERAS=1 python tests/golden/make_note_rnn.py path/to/model.ckpt-1994

The graph is RL Tuner's (`note_rnn_loader.py`): `dynamic_rnn` over a `MultiRNNCell` of one `LSTMCell`, and a linear
layer. TensorFlow itself reads the checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tf_keras.src.layers.rnn.legacy_cells import LSTMCell, MultiRNNCell

SCOPE = "rnn_model/RNN/MultiRNNCell/Cell0/LSTMCell/"
B, T, V = 3, 48, 38


def main(checkpoint: str) -> None:
    """Runs the graph on melodies drawn at random, and writes the archive beside this script."""
    reader = tf.compat.v1.train.NewCheckpointReader(checkpoint)
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, V, (B, T))
    tokens[rng.random((B, T)) < 0.6] = 0
    tokens[rng.random((B, T)) < 0.1] = 1
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        cell = MultiRNNCell([LSTMCell(100)])
        inputs = tf.one_hot(tokens, V)
        hidden, state = tf.compat.v1.nn.dynamic_rnn(cell, inputs, dtype=tf.float32)
        weights = reader.get_tensor("rnn_model/fully_connected/weights")
        logits = tf.matmul(hidden, np.broadcast_to(weights, (B, *weights.shape)))
        logits += reader.get_tensor("rnn_model/fully_connected/bias")
        for variable in cell.trainable_variables:
            name = "W_0" if "kernel" in variable.name else "B"
            session.run(variable.assign(reader.get_tensor(SCOPE + name)))
        values = session.run({"hidden": hidden, "c": state[0].c, "h": state[0].h, "logits": logits})
    np.savez_compressed(Path(__file__).parent / "note_rnn.npz", tokens=tokens.astype(np.int8), **values)


if __name__ == "__main__":
    main(sys.argv[1])
