"""RNN-NADE: its fast likelihood and its fast sampling are those of the definition, key by key."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import shared
from tests.networks import drawn
from zoo.data import load_corpus
from zoo.errors import InputError
from zoo.models import rnn_nade
from zoo.models.rnn_nade import Config, Nade, RnnNade
from zoo.music.codecs import get_codec
from zoo.music.pianoroll import LOWEST, PAST, tonic
from zoo.music.score import Score

KEYS, HIDDEN, MOST = 6, 5, 3


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@pytest.fixture(scope="module")
def nade() -> Nade:
    return drawn(Nade, KEYS, HIDDEN, MOST)


@pytest.fixture(scope="module")
def biases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, KEYS)).astype(np.float32), rng.standard_normal((8, HIDDEN)).astype(np.float32)


def by_key(
    nade: Nade, b: np.ndarray, c: np.ndarray, v: np.ndarray | None = None, noise: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The definition, one key after another: log-odds of each, and the vector given or drawn. One row."""
    into, out = np.asarray(nade.into[...], np.float64), np.asarray(nade.out[...], np.float64)
    odds, drawn, pre = np.zeros(KEYS), np.zeros(KEYS), c.astype(np.float64)
    for i in range(KEYS):
        odds[i] = b[i] + sigmoid(pre) @ out[:, i]
        drawn[i] = v[i] if v is not None else odds[i] + noise[i] > 0 and drawn.sum() < MOST
        pre = pre + drawn[i] * into[i]
    return odds, drawn


def test_all_keys_at_once_are_key_by_key(nade: Nade, biases: tuple[np.ndarray, np.ndarray]) -> None:
    b, c = biases
    v = (np.random.default_rng(1).random((8, KEYS)) < 0.4).astype(np.int8)
    v *= np.cumsum(v, axis=1) <= MOST
    v[0] = 0
    assert set(v.sum(1).tolist()) == {0, 1, 2, 3}
    with jax.default_matmul_precision("highest"):
        found = jax.jit(nade.logits)(v, b, c)
    for row in range(8):
        np.testing.assert_allclose(found[row], by_key(nade, b[row], c[row], v[row])[0], atol=1e-5)


def test_probabilities_sum_to_one(biases: tuple[np.ndarray, np.ndarray]) -> None:
    """Over all 64 vectors of six keys; so it is a distribution and its likelihood is exact."""
    nade = drawn(Nade, KEYS, HIDDEN, KEYS)
    v = np.array(list(itertools.product([0, 1], repeat=KEYS)), np.int8)
    b, c = (np.repeat(bias[:1], len(v), axis=0) for bias in biases)
    logits = nade.logits(jnp.asarray(v), b, c)
    log_p = jnp.sum(v * logits - jax.nn.softplus(logits), axis=1)
    assert float(jnp.sum(jnp.exp(log_p))) == pytest.approx(1.0, abs=1e-5)


def test_drawing_is_key_by_key(nade: Nade, biases: tuple[np.ndarray, np.ndarray]) -> None:
    """The same noise gives the same vector, and never more keys than the model allows."""
    b, c = biases
    noise = np.random.default_rng(2).logistic(size=(8, KEYS)).astype(np.float32)
    drawn = np.asarray(jax.jit(nade.draw)(b + 1.0, c, noise, 1.0))
    assert drawn.sum(1).max() == MOST
    for row in range(8):
        np.testing.assert_array_equal(drawn[row], by_key(nade, b[row] + 1.0, c[row], noise=noise[row])[1])


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_reading_step_by_step(cell: str) -> None:
    """The likelihood while reading is that of the whole; later steps and steps past the end change nothing before."""
    config = Config(steps=5, keys=KEYS, cell=cell, recurrent=4, hidden=HIDDEN, polyphony=MOST)
    model = drawn(RnnNade, config)
    x = np.asarray(rnn_nade.example(config, 3, np.random.default_rng(0))["x"])
    whole, counts = (np.asarray(a) for a in jax.jit(lambda v: rnn_nade.log_likelihood(model, v))(x))
    _, read = jax.jit(lambda v: rnn_nade.read(model, v))(x)
    np.testing.assert_allclose(np.asarray(read)[1:], whole[1:], atol=1e-5)
    assert counts[0].tolist() == [1, 1, 0, 0, 0]
    assert not whole[0, 2:].any()
    np.testing.assert_allclose(np.asarray(read)[0, :2], whole[0, :2], atol=1e-5)


def test_parts_make_the_same_piece() -> None:
    model = drawn(RnnNade, Config.tiny())
    key = jax.random.key(3)
    write = jax.jit(lambda state, t: rnn_nade.write(model, state, t, key, 1.0))
    _, whole = write(model.zeros(2), jnp.arange(6))
    state, first = write(model.zeros(2), jnp.arange(3))
    _, second = write(state, jnp.arange(3, 6))
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)


# --- the codec --------------------------------------------------------------------------------------------------------


def test_roll() -> None:
    """A key is down at a step if it sounds there; windows follow one another, the last filled up."""
    score = Score.of([4.0, 4.5, 6.0, 8.0], [6.0, 4.9, 6.5, 9.0], [60, 61, 60, 108])
    codec = get_codec("pianoroll", steps=4)
    windows = codec.windows(score)
    assert windows.shape == (2, 4, 88)
    assert [np.flatnonzero(step > 0).tolist() for step in windows[0]] == [[39], [39], [39], []]
    assert np.flatnonzero(windows[1, 0] > 0).tolist() == [87]
    assert (windows[1, 1:] == PAST).all()
    again = codec.windows(codec.decode(windows[0]))[0]
    np.testing.assert_array_equal(again[:3], windows[0, :3])


def test_rolls_move_as_far_as_they_can() -> None:
    codec = get_codec("pianoroll", steps=4)
    windows = codec.windows(Score.of([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [LOWEST + 1, 60, 107]))
    for semitones, moved in ((0, 0), (5, 1), (-5, -1)):
        found = codec.transpose(windows, np.array([semitones]))
        assert [int(np.argmax(step)) for step in found[0, :3]] == [1 + moved, 39 + moved, 86 + moved]
        assert (found[0, 3] == PAST).all()


def test_keys_of_tunes() -> None:
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12, 7, 4, 0, 4, 7, 12])
    minor = np.array([0, 2, 3, 5, 7, 8, 11, 12, 7, 3, 0, 3, 7, 12])
    for root in range(12):
        for line in (scale, minor):
            start = np.arange(len(line))
            assert tonic(Score.of(start, start + 1, 60 + root + line)) == root
    moved = get_codec("pianoroll", steps=14, in_c=True).windows(Score.of(start, start + 1, 62 + scale))
    assert np.argmax(moved[0, 0]) + LOWEST == 60


def test_what_a_roll_refuses() -> None:
    codec = get_codec("pianoroll", polyphony=2)
    with pytest.raises(InputError, match="3 keys at once"):
        codec.windows(Score.of([0, 0, 0], [1, 1, 1], [60, 62, 64]))
    with pytest.raises(InputError, match="no pitched note"):
        codec.windows(Score.of([0], [1], [36], is_drum=True))


def test_the_jsb_chorales_are_those_of_the_paper(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """229, 76 and 77 pieces, and as many steps as the files have."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    archive = shared.path("data/jsb-chorales.tar.gz")
    corpus = load_corpus(archive, get_codec("pianoroll", steps=160), patterns=["*quarter.json"])
    rolls = (corpus.train, corpus.valid, corpus.test)
    assert [len(part) for part in rolls] == [229, 76, 77]
    assert [int((part[..., 0] >= 0).sum()) for part in rolls] == [13807, 4602, 4725]
    assert [int((part > 0).sum()) for part in rolls] == [53824, 17811, 18367]


def test_the_task(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """What is sampled, continued and scored of the published model; one key, one piece."""
    import zoo
    from zoo.music.io import from_note_sequence

    model = zoo.load("rnn-nade/jsb")
    one, again = (model.sample(1, steps=8, key=3)[0] for _ in range(2))
    assert one == again != model.sample(1, steps=8, key=4)[0]
    primer = Score.of([0, 0, 0, 0, 4], [4, 4, 4, 4, 5], [48, 55, 64, 72, 60], tempos=np.array([[0.0, 70.0]]))
    longer = from_note_sequence(model.continue_(primer, steps=8)[0])
    assert longer.quarters > 5
    assert {48, 55, 64, 72} <= set(longer.pitch[longer.start == 0].tolist())
    common = model.score(Score.of([0, 0, 0, 0], [4, 4, 4, 4], [48, 55, 64, 72]))
    odd = model.score(Score.of([0, 0, 0, 0], [4, 4, 4, 4], [48, 49, 50, 51]))
    assert common.shape == (4,)
    assert common[0] > odd[0] + 5
