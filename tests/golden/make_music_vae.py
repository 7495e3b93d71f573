"""Makes `music_vae.npz`: what TensorFlow computes with Magenta's published `cat-mel_2bar_small` decoder.

Needs tensorflow (2.21), symusic, and the data and weights that `tests/shared.py` finds; from the repository's root:

    PYTHONPATH=. python tests/golden/make_music_vae.py

The decoder is written here once more, in TensorFlow's own operations and under Magenta's names of the variables. A
whole layer is `BlockLSTM`, the kernel of TensorFlow's fused LSTM cells; the same in plain operations must agree, and
makes the greedy melodies step by step.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from zoo.music.melody import MelodyCodec
from zoo.music.midi import read_midi

SHARED = Path(__file__).resolve().parents[3] / "shared"
WEIGHTS = SHARED / "weights" / "magenta-musicvae-mel-2bar-small"
TUNES = ("melody/reelsa-c8.mid", "melody/reelsd-g10.mid")  # two dances of Nottingham's collection
UNITS, CLASSES, LATENT, AT = 256, 90, 256, 17  # AT: the step of which hidden states are kept


def main() -> None:
    """Writes the archive beside this script."""
    tokens = np.repeat(melodies(), 2, axis=0)  # [4, 32], each melody with two z
    rng = np.random.default_rng(1803_05428)
    z = rng.standard_normal((4, LATENT)).astype(np.float32)
    w = variables()
    initial = tf.tanh(z @ w["z_to_initial_state/kernel"] + w["z_to_initial_state/bias"])  # [4, 1024]: c0, h0, c1, h1
    previous = tf.concat([tf.zeros((4, 1, CLASSES)), tf.one_hot(tokens, CLASSES)[:, :-1]], axis=1)  # [4, 32, 90]
    x = tf.concat([previous, tf.repeat(z[:, None], tokens.shape[1], axis=1)], axis=-1)
    hidden = block_lstm(w, initial, tf.transpose(x, (1, 0, 2)))
    logits = hidden[-1] @ w["output_projection/kernel"] + w["output_projection/bias"]  # [32, 4, 90]
    stepwise = [step_logits for step_logits, _ in steps(w, initial, z, tf.transpose(previous, (1, 0, 2)))]
    np.testing.assert_allclose(logits, stepwise, atol=2e-5)
    golden = {
        "tokens": tokens.astype(np.int32),
        "z": z,
        "initial": initial.numpy(),
        "step": np.int32(AT),
        "hidden": np.stack([layer[AT].numpy() for layer in hidden]),  # [2, 4, 256]
        "logits": tf.transpose(logits, (1, 0, 2)).numpy(),
        "greedy": np.stack([token.numpy() for _, token in steps(w, initial, z, None)], axis=1).astype(np.int32),
    }
    path = Path(__file__).with_name("music_vae.npz")
    np.savez_compressed(path, **golden)
    print(path.stat().st_size, "bytes;", *(f"{name} {array.shape}" for name, array in golden.items()))
    print(golden["tokens"][::2], golden["greedy"], np.abs(golden["logits"]).max(), sep="\n")


def melodies() -> np.ndarray:
    """The first window of each tune, as tokens [2, 32]."""
    with tarfile.open(SHARED / "data" / "nottingham.tar.gz") as archive:
        tunes = [read_midi(archive.extractfile(name).read()) for name in TUNES]
    return np.stack([MelodyCodec().windows(tune)[0] for tune in tunes])


def variables() -> dict[str, tf.Tensor]:
    """The decoder's variables by Magenta's names, less the prefix."""
    manifest = json.loads((WEIGHTS / "manifest.json").read_text())
    found = {}
    for name, entry in manifest.items():
        if name.startswith("decoder/"):
            array = np.fromfile(WEIGHTS / entry["filename"], "<f4").reshape(entry["shape"])
            found[name.removeprefix("decoder/")] = tf.constant(array)
    return found


def block_lstm(w: dict[str, tf.Tensor], initial: tf.Tensor, x: tf.Tensor) -> list[tf.Tensor]:
    """The h of both layers at every step, [32, 4, 256] each, from `x` [32, 4, 346]."""
    hidden = []
    c0, h0, c1, h1 = tf.split(initial, 4, axis=1)
    for layer, (c, h) in enumerate([(c0, h0), (c1, h1)]):
        peephole = tf.zeros(UNITS)
        x = tf.raw_ops.BlockLSTM(
            seq_len_max=tf.constant(x.shape[0], tf.int64), x=x, cs_prev=c, h_prev=h,
            w=w[f"multi_rnn_cell/cell_{layer}/lstm_cell/kernel"], wci=peephole, wcf=peephole, wco=peephole,
            b=w[f"multi_rnn_cell/cell_{layer}/lstm_cell/bias"], forget_bias=1.0, cell_clip=-1.0, use_peephole=False,
        ).h  # fmt: skip
        hidden.append(x)
    return hidden


def steps(
    w: dict[str, tf.Tensor], initial: tf.Tensor, z: np.ndarray, forced: tf.Tensor | None
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """Yields (logits [4, 90], likeliest token [4]) step by step; `forced` [32, 4, 90] are the inputs, or its own."""
    c0, h0, c1, h1 = tf.split(initial, 4, axis=1)
    state = [(c0, h0), (c1, h1)]
    previous = tf.zeros((len(z), CLASSES))
    for t in range(32):
        x = tf.concat([previous if forced is None else forced[t], z], axis=1)
        for layer, (c, h) in enumerate(state):
            name = f"multi_rnn_cell/cell_{layer}/lstm_cell/"
            gates = tf.matmul(tf.concat([x, h], axis=1), w[name + "kernel"]) + w[name + "bias"]
            i, j, f, o = tf.split(gates, 4, axis=1)
            c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
            x = tf.tanh(c) * tf.sigmoid(o)
            state[layer] = (c, x)
        logits = tf.matmul(x, w["output_projection/kernel"]) + w["output_projection/bias"]
        token = tf.argmax(logits, axis=1)
        previous = tf.one_hot(token, CLASSES)
        yield logits, token


if __name__ == "__main__":
    main()
