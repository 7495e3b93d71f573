"""Event RNN: its views, labels and chords are note_seq's, its attention TensorFlow's, steps are the whole."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import shared
from tests.networks import drawn
from zoo.errors import InputError, WeightsError
from zoo.models import event_rnn
from zoo.models.event_rnn import (
    PUBLISHED,
    Config,
    EventRNN,
    Memory,
    chord_features,
    event_logits,
    example,
    label_of,
    observe,
    start,
    stepper,
)
from zoo.music.chords import NO_CHORD, move_chords, pack_chord
from zoo.music.codecs import get_codec
from zoo.music.score import Score
from zoo.nn.attentive import AttentiveLSTM
from zoo.nn.precision import products
from zoo.tasks import bench

with warnings.catch_warnings():  # pydub, which note_seq imports, has invalid escape sequences
    warnings.simplefilter("ignore")
    from note_seq import chord_symbols_lib, encoder_decoder
    from note_seq.chords_encoder_decoder import PitchChordsEncoderDecoder
    from note_seq.drums_encoder_decoder import MultiDrumOneHotEncoding
    from note_seq.melodies_lib import Melody
    from note_seq.melody_encoder_decoder import KeyMelodyEncoderDecoder, MelodyOneHotEncoding

ONE_HOT = MelodyOneHotEncoding(48, 84)
STEPS = 80


def melodies(count: int, steps: int = STEPS) -> np.ndarray:
    """Tokens int32 [count, steps] with rests, held notes, and bars that come again; no note-off before a note."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 38, (count, steps))
    tokens[rng.random(tokens.shape) < 0.5] = 0
    tokens[rng.random(tokens.shape) < 0.1] = 1
    tokens[: count // 2, 16:32] = tokens[: count // 2, :16]
    tokens[: count // 3, 48:64] = tokens[: count // 3, 16:32]
    tokens[1, :40] = 0
    begun = np.maximum.accumulate(tokens >= 2, axis=1)
    return (tokens * begun).astype(np.int32)


def events_of(tokens: np.ndarray) -> Melody:
    return Melody([ONE_HOT.decode_event(int(token)) for token in tokens])


def watched(config: Config, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `observe` shows after each event [B, T, X], and the repeats it then knows [B, T, N]."""

    def body(memory: Memory, token: jax.Array) -> tuple[Memory, tuple[jax.Array, jax.Array]]:
        memory, view = observe(config, memory, token)
        return memory, (view, memory.repeats(config))

    _, (views, repeats) = jax.lax.scan(body, Memory.empty(config, len(tokens)), tokens.T)
    return np.asarray(views.swapaxes(0, 1)), np.asarray(repeats.swapaxes(0, 1))


ENCODERS = {
    "lookback_rnn": encoder_decoder.LookbackEventSequenceEncoderDecoder(ONE_HOT),
    "attention_rnn": KeyMelodyEncoderDecoder(48, 84),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_views_and_labels_are_note_seqs(name: str) -> None:
    config, encoder, tokens = PUBLISHED[name], ENCODERS[name], melodies(6)
    views, repeats = watched(config, tokens)
    assert views.shape[-1] == config.width == encoder.input_size
    places = [2 + i for i in range(36)] + [0, 1] if name == "attention_rnn" else list(range(38))
    of_theirs = np.array([*places, 38, 39])  # our label of each of theirs
    before = np.concatenate([np.full_like(repeats[:, :1], 38), repeats[:, :-1]], axis=1)
    labels = np.asarray(label_of(config, tokens, before, np.arange(STEPS)))
    seen = set()
    for row, view, label in zip(tokens, views, labels, strict=True):
        events = events_of(row)
        for t in range(STEPS):
            np.testing.assert_array_equal(view[t], encoder.events_to_input(events, t), err_msg=f"step {t}")
            theirs = encoder.events_to_label(events, t)
            assert label[t] == of_theirs[theirs]
            seen.add(int(label[t]))
    assert {38, 39} < seen


@pytest.mark.parametrize("name", ENCODERS)
def test_the_probability_of_an_event_is_that_of_its_labels(name: str) -> None:
    config, encoder, tokens = PUBLISHED[name], ENCODERS[name], melodies(2)
    labels = np.random.default_rng(1).standard_normal((2, STEPS, 40)).astype(np.float32)
    repeats = np.concatenate([np.full((2, 1, 2), 38), watched(config, tokens)[1][:, :-1]], axis=1)
    found = np.asarray(jax.nn.softmax(event_logits(config, labels, repeats)))
    order = [*range(2, 38), 0, 1, 38, 39] if name == "attention_rnn" else list(range(40))
    share = np.asarray(jax.nn.softmax(labels))[..., order]
    for row in range(2):
        for t in range(STEPS):
            events = events_of(tokens[row])[:t] if t else Melody()
            expected = np.zeros(38)
            for label in range(40):
                expected[ONE_HOT.encode_event(encoder.class_index_to_event(label, list(events)))] += share[
                    row, t, label
                ]
            np.testing.assert_allclose(found[row, t], expected, atol=1e-6)


def test_drums_have_a_counter() -> None:
    config = replace(PUBLISHED["drum_kit"], classes=512)
    encoder = encoder_decoder.LookbackEventSequenceEncoderDecoder(MultiDrumOneHotEncoding(), [], 6)
    tokens = np.random.default_rng(0).integers(0, 512, (1, 70)).astype(np.int32)
    encoding = MultiDrumOneHotEncoding()
    events = [encoding.decode_event(int(token)) for token in tokens[0]]
    views, _ = watched(config, tokens)
    for t in range(70):
        np.testing.assert_array_equal(views[0, t], encoder.events_to_input(events, t))


def test_before_the_first_event_all_is_zero() -> None:
    config = PUBLISHED["attention_rnn"]
    memory = Memory.empty(config, 2)
    after, view = observe(config, memory, jnp.array([38, 5]))
    assert not view[0].any()
    assert view[1].any()
    assert after.position.tolist() == [0, 1]


KINDS = {
    "basic": Config.tiny(),
    "lookback": replace(Config.tiny(), lookbacks=(4, 8), counter=3),
    "attention": replace(Config.tiny(), view="melody", lookbacks=(4, 8), counter=3, attention=5),
    "chords": replace(Config.tiny(), context="chord"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_whole(kind: str) -> None:
    """And nothing is seen before its time."""
    config = KINDS[kind]
    model = drawn(EventRNN, config)
    x = jnp.asarray(example(config, 3, np.random.default_rng(0))["x"])
    tokens, context = (x, None) if config.context == "none" else (x[..., 0], x[..., 1])
    advance, state, token = stepper(model), start(model, 3), jnp.full(3, config.classes)
    with jax.default_matmul_precision("highest"):
        whole = model.logits(x)
        for t in range(config.steps):
            logits, state = advance(state, token, None if context is None else context[:, t])
            np.testing.assert_allclose(logits, whole[:, t], atol=2e-6)
            token = tokens[:, t]
        later = x.at[:, 7:].set(jnp.roll(x[:, 7:], 1, axis=0))
        np.testing.assert_array_equal(model.logits(later)[:, :7], whole[:, :7])


def test_attention_is_tensorflows() -> None:
    """`AttentionCellWrapper` around a `BasicLSTMCell`, written out in NumPy."""
    layer = drawn(AttentiveLSTM, 5, 4, 3, gain=1.0)
    p = {".".join(map(str, path)): np.asarray(v[...], np.float64) for path, v in nnx.to_flat_state(nnx.state(layer))}
    x = np.random.default_rng(0).standard_normal((7, 2, 5))
    c, h, heard = np.zeros((2, 4)), np.zeros((2, 4)), np.zeros((2, 4))
    states = np.zeros((2, 3, 4))
    ours = np.asarray(layer(jnp.asarray(x, jnp.float32)))
    for t in range(7):
        inputs = np.concatenate([x[t], heard], 1) @ p["input.kernel"] + p["input.bias"]
        i, j, f, o = np.split(np.concatenate([inputs, h], 1) @ p["cell.kernel"] + p["cell.bias"], 4, axis=1)
        c = c / (1 + np.exp(-(f + 1))) + np.tanh(j) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        y = np.concatenate([c, h], 1) @ p["query.kernel"] + p["query.bias"]
        scores = (p["score"] * np.tanh(states @ p["kernel"] + y[:, None])).sum(2)
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        heard = (weights[..., None] * states).sum(1)
        out = np.concatenate([h, heard], 1) @ p["output.kernel"] + p["output.bias"]
        states = np.concatenate([states[:, 1:], out[:, None]], 1)
        np.testing.assert_allclose(ours[t], out, atol=1e-5)


def test_chords_are_note_seqs() -> None:
    encoder = PitchChordsEncoderDecoder()
    symbols = ["C", "Am7", "F#m7b5", "Bb/D", "Gsus4", "E7#9", "Abmaj7", "Bdim", "N.C.", "D6/9", "Cm(maj7)", "G7/F"]
    assert pack_chord("N.C.") == NO_CHORD
    for symbol in symbols:
        found = chord_features(jnp.array([pack_chord(symbol)]))[0]
        np.testing.assert_array_equal(found, encoder.events_to_input([symbol], 0), err_msg=symbol)
        for semitones in (0, 3, 11):
            higher = symbol if symbol == "N.C." else chord_symbols_lib.transpose_chord_symbol(symbol, semitones)
            theirs = encoder.events_to_input([higher], 0)
            moved = chord_features(jnp.asarray(move_chords(np.array([pack_chord(symbol)]), semitones)))[0]
            np.testing.assert_array_equal(moved, theirs, err_msg=f"{symbol} up {semitones}")


# --- Magenta's note RNN -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def note_rnn() -> Iterator[Any]:
    """The published weights, from the network, the cache, or the mirror beside the shared data."""
    mirror = pytest.MonkeyPatch()
    if "ZOO_MIRROR" not in os.environ and (shared.ROOT / "weights").is_dir():
        mirror.setenv("ZOO_MIRROR", str(shared.ROOT / "weights"))
    try:
        yield zoo.load("melody-rnn/note-rnn-magenta")
    except WeightsError as error:
        pytest.skip(f"its weights can't be had: {error}")
    finally:
        mirror.undo()


def test_attention_trains_in_bfloat16() -> None:
    """XLA's CPU backend doesn't know every order of a bfloat16 product's factors, and says so only when it runs."""
    architecture = event_rnn.ARCHITECTURE
    with products("bfloat16"):
        step, args = bench.program(architecture, architecture.tiny["attention"], "train", 3)
        _, metrics = step(*args)
    assert np.isfinite(float(metrics["loss"]))


def test_note_rnn_is_tensorflows(note_rnn: Any) -> None:
    """Cell, output and logits to 1e-4 of what TensorFlow gives for the same melodies (see `make_note_rnn.py`)."""
    golden = np.load(Path(__file__).parent / "golden" / "note_rnn.npz")
    model, tokens = note_rnn.module, jnp.asarray(golden["tokens"], jnp.int32)
    layer = model.layers[0]
    with jax.default_matmul_precision("highest"):
        inputs = jax.nn.one_hot(tokens.T, 38)  # theirs has no input before the first event
        hidden, (c, h) = layer(inputs, layer.constant_gates(), layer.zeros(len(tokens)))
        logits = model.output(hidden).swapaxes(0, 1)
    np.testing.assert_allclose(hidden.swapaxes(0, 1), golden["hidden"], atol=1e-4)
    np.testing.assert_allclose(c, golden["c"], atol=1e-4)
    np.testing.assert_allclose(h, golden["h"], atol=1e-4)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
    state = start(model, len(tokens))
    advance = jax.jit(stepper(model))
    for t in range(8):
        stepped, state = advance(state, tokens[:, t], None)
        np.testing.assert_allclose(stepped, golden["logits"][:, t], atol=1e-4)


def test_note_rnn_goes_on_in_the_primers_key(note_rnn: Any) -> None:
    """A melody in D is moved to C, gone on with, and moved back: a tone up from the one in C."""
    from zoo.music.io import from_note_sequence

    start = np.arange(16) * 0.5
    line = np.array([0, 2, 4, 5, 7, 9, 11, 12, 11, 9, 7, 5, 4, 2, 0, 7])
    pieces = [
        from_note_sequence(note_rnn.continue_(Score.of(start, start + 0.5, root + line), steps=32, key=1)[0])
        for root in (60, 62)
    ]
    assert pieces[0].pitch[:16].tolist() == (60 + line).tolist()
    np.testing.assert_array_equal(pieces[1].pitch, pieces[0].pitch + 2)
    assert pieces[0].quarters > 8.5
    seen = note_rnn.score(Score.of(start, start + 0.5, 62 + line))
    odd = note_rnn.score(Score.of(start, start + 0.5, 60 + np.arange(16) * 5 % 13))
    assert seen.mean < odd.mean


# --- the codec --------------------------------------------------------------------------------------------------------


def test_melodies_are_moved_to_c_as_note_seq_does() -> None:
    rng = np.random.default_rng(0)
    codec, wide = get_codec("melody-events", bars=2), get_codec("melody", bars=2)
    for _ in range(60):
        root, spread = rng.integers(22, 90), rng.integers(3, 30)
        pitch = np.clip(root + rng.integers(0, spread, 20), 21, 108)
        start = np.sort(rng.choice(31, 20, replace=False)) / 4
        score = Score.of(np.r_[0.0, start], np.r_[0.25, start + 0.25], np.r_[pitch[0], pitch], tempos=np.zeros((0, 2)))
        (window,), (ours,) = wide.windows(score, pad=True)[:1], codec.windows(score, pad=True)[:1]
        events = np.where(window >= 2, window + 19, window - 2)
        theirs = Melody([int(event) for event in events])
        theirs.squash(48, 84, 0)
        np.testing.assert_array_equal(ours, [ONE_HOT.encode_event(event) for event in theirs])


def test_the_shift_of_a_piece_is_taken_back() -> None:
    start = np.arange(12.0)
    score = Score.of(start, start + 1, 50 + np.array([2, 4, 6, 7, 9, 11, 13, 14, 13, 11, 9, 2]))
    codec = get_codec("melody-events").for_piece(score)  # type: ignore[attr-defined]
    tokens = codec.tokens(score)
    np.testing.assert_array_equal(tokens, get_codec("melody-events").tokens(score))  # type: ignore[attr-defined]
    assert len(tokens) == 48
    np.testing.assert_array_equal(codec.decode(tokens).pitch, score.pitch)
    np.testing.assert_allclose(codec.seconds(tokens, 60.0), np.arange(49) / 4)


def test_drums_as_one_sequence() -> None:
    """From the bar of the first hit to the end of the bar of the last, and back."""
    start = np.array([5.0, 5.25, 6.0, 9.5])
    score = Score.of(start, start + 0.25, [36, 42, 38, 46], is_drum=True)
    codec = get_codec("drums")
    tokens = codec.tokens(score)  # type: ignore[attr-defined]
    assert len(tokens) == 32
    np.testing.assert_array_equal(np.flatnonzero(tokens), [4, 5, 8, 22])
    again = codec.decode(tokens)
    np.testing.assert_allclose(again.start, start - 4)
    np.testing.assert_array_equal(again.pitch, score.pitch)
    np.testing.assert_allclose(codec.seconds(tokens, 60.0), np.arange(33) / 4)  # type: ignore[attr-defined]


def test_lead_sheets() -> None:
    """Each event with its chord, both moved to C together; a piece in D gives the same as one in C."""
    start = np.arange(16.0)
    line = np.array([0, 4, 7, 4, 5, 9, 12, 9, 7, 11, 14, 11, 12, 7, 4, 0])

    def sheet(root: int, symbols: list[str]) -> Score:
        chords = tuple((4.0 * bar, symbol) for bar, symbol in enumerate(symbols))
        return Score.of(start, start + 1, root + line, chords=chords)

    codec = get_codec("lead-sheet", bars=4)
    in_c, in_d = (codec.windows(s) for s in (sheet(60, ["C", "F", "G", "C"]), sheet(62, ["D", "G", "A", "D"])))
    np.testing.assert_array_equal(in_c, in_d)
    assert in_c.shape == (1, 64, 2)
    np.testing.assert_array_equal(in_c[0, :, 1], codec.chords(["C", "F", "G", "C"]))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(in_c[0], codec.tokens(sheet(62, ["D", "G", "A", "D"])))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(codec.decode(in_c[0]).pitch, 60 + line)
    bound = codec.for_piece(sheet(62, ["D"]))  # type: ignore[attr-defined]
    np.testing.assert_array_equal(bound.chords(["D", "G"]), codec.chords(["C", "F"]))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="no chord symbols"):
        codec.windows(sheet(60, []))
