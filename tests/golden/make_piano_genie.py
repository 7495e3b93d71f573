"""Makes `piano_genie.npz`: what TensorFlow computes with Magenta's published Piano Genie.

Needs tensorflow (2.21) and the weights that `tests/shared.py` finds; from the repository's root:

    PYTHONPATH=. python tests/golden/make_piano_genie.py

The network is written here once more, in TensorFlow's operations and under Magenta's names: a layer is `BlockLSTM`, the
kernel of TensorFlow's fused LSTM cells, and both directions of the encoder have one cell's variables.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights" / "magenta-piano-genie"
UNITS, AT, STEPS = 128, 11, 24


def main() -> None:
    """Writes the archive beside this script."""
    rng = np.random.default_rng(1810_05246)
    keys = np.clip(40 + np.cumsum(rng.integers(-4, 5, (2, STEPS)), axis=1), 0, 87)
    times = np.where(np.arange(STEPS) == 0, 32, rng.choice([0, 4, 8, 16, 32], (2, STEPS)))
    w = variables()
    features = tf.concat([tf.one_hot(keys, 88), tf.one_hot(times, 33)], axis=-1)
    x = tf.transpose(dense(w, "encoder/rnn_input", features), (1, 0, 2))
    name = "encoder/rnn/bidirectional_rnn/fw"
    ahead = layers(w, name, x)
    back = [tf.reverse(h, [0]) for h in layers(w, name, tf.reverse(x, [0]))]
    line = tf.transpose(dense(w, "stp_emb_iq/pre_iq", tf.concat([ahead[-1], back[-1]], axis=-1))[..., 0])
    buttons = tf.round(7 * tf.clip_by_value((line + 1) / 2, 0, 1))
    previous = np.pad(keys[:, :-1] + 1, ((0, 0), (1, 0)))
    hidden = decoder(w, buttons, previous, times)
    logits = dense(w, "decoder/pitches", tf.transpose(hidden[-1], (1, 0, 2)))
    greedy = np.zeros((2, STEPS + 1), np.int64)  # behind a 0 for the key before the first
    for t in range(STEPS):
        last = decoder(w, buttons[:, : t + 1], greedy[:, : t + 1], times[:, : t + 1])[-1][-1]
        greedy[:, t + 1] = np.argmax(dense(w, "decoder/pitches", last), axis=-1) + 1
    golden = {
        "music": np.stack([keys, times], axis=-1).astype(np.int32),
        "line": line.numpy(),
        "buttons": buttons.numpy().astype(np.int32),
        "step": np.int32(AT),
        "encoder": np.stack([ahead[-1][AT], back[-1][AT]]),  # [2 directions, B, H]
        "decoder": np.stack([layer[AT] for layer in hidden]),  # [2 layers, B, H]
        "logits": logits.numpy(),
        "greedy": (greedy[:, 1:] - 1).astype(np.int32),
    }
    path = Path(__file__).with_name("piano_genie.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))
    print(keys[0], golden["line"][0].round(2), golden["buttons"][0], golden["greedy"][0], sep="\n")


def variables() -> dict[str, tf.Tensor]:
    """The variables by Magenta's names, less the prefix."""
    (group,) = json.loads((WEIGHTS / "weights_manifest.json").read_text())
    data, at, found = (WEIGHTS / group["paths"][0]).read_bytes(), 0, {}
    for entry in group["weights"]:
        count = int(np.prod(entry["shape"]))
        array = np.frombuffer(data, "<f4", count, at).reshape(entry["shape"])
        found[entry["name"].removeprefix("phero_model/")], at = tf.constant(array), at + 4 * count
    return found


def dense(w: dict[str, tf.Tensor], name: str, x: tf.Tensor) -> tf.Tensor:
    """A dense layer on the last axis."""
    return tf.tensordot(x, w[f"{name}/dense/kernel"], 1) + w[f"{name}/dense/bias"]


def decoder(w: dict[str, tf.Tensor], buttons: tf.Tensor, previous: np.ndarray, times: np.ndarray) -> list[tf.Tensor]:
    """The h of both layers, [T, B, H] each."""
    scaled = 2 * tf.cast(buttons, tf.float32)[..., None] / 7 - 1
    x = tf.concat([scaled, tf.one_hot(previous, 89), tf.one_hot(times, 33)], axis=-1)
    return layers(w, "decoder/rnn/rnn", tf.transpose(dense(w, "decoder/rnn_input", x), (1, 0, 2)))


def layers(w: dict[str, tf.Tensor], name: str, x: tf.Tensor) -> list[tf.Tensor]:
    """The h of both layers at every step, [T, B, H] each, from zeros."""
    hidden, zeros, peephole = [], tf.zeros((x.shape[1], UNITS)), tf.zeros(UNITS)
    for layer in (0, 1):
        cell = f"{name}/multi_rnn_cell/cell_{layer}/lstm_cell/"
        x = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.constant(x.shape[0], tf.int64), x=x, cs_prev=zeros, h_prev=zeros, w=w[cell + "kernel"],
            wci=peephole, wcf=peephole, wco=peephole, b=w[cell + "bias"], forget_bias=1.0, cell_clip=-1.0,
            use_peephole=False,
        ).h  # fmt: skip
        hidden.append(x)
    return hidden


if __name__ == "__main__":
    main()
