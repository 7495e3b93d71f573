"""Piano Genie: parity with TensorFlow, the laws of its paper, and what a user asks of it."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import shared
from tests.networks import drawn
from zoo.models import piano_genie
from zoo.models.piano_genie import Config, PianoGenie
from zoo.music.keys import KeysCodec, bins
from zoo.music.score import Score
from zoo.tasks.genie import Genie

GOLDEN = Path(__file__).parent / "golden" / "piano_genie.npz"


@pytest.fixture(scope="module")
def published() -> Genie:
    """Magenta's weights, from the cache or a mirror; skips the tests where there are none."""
    with pytest.MonkeyPatch.context() as patch:
        if (mirror := shared.ROOT / "weights").is_dir():
            patch.setenv("ZOO_MIRROR", str(mirror))
        patch.setenv("ZOO_OFFLINE", "1")
        try:
            return zoo.load("piano-genie")  # type: ignore[return-value]
        except zoo.WeightsError as error:
            pytest.skip(f"no published weights: {error}")


@pytest.fixture(scope="module")
def tiny() -> PianoGenie:
    return drawn(PianoGenie, Config.tiny())


def test_parity_with_tensorflow(published, monkeypatch):
    """Line and logits within 1e-4, both directions' and both layers' hidden states on the way; the same keys."""
    golden = np.load(GOLDEN)
    model, music, at = published.module, jnp.asarray(golden["music"]), golden["step"]
    hidden: list[jax.Array] = []
    whole = piano_genie.LSTM.__call__

    def recorded(layer, *args, **kwargs):
        out = whole(layer, *args, **kwargs)
        hidden.append(out[0])
        return out

    monkeypatch.setattr(piano_genie.LSTM, "__call__", recorded)
    with jax.default_matmul_precision("highest"):
        line = model.encode(music)
        logits = model.logits(piano_genie.on_line(model.config, golden["buttons"]), music)
    np.testing.assert_allclose(np.stack([hidden[1][at], hidden[3][at]]), golden["encoder"], atol=1e-4)
    np.testing.assert_allclose(np.stack([h[at] for h in hidden[4:]]), golden["decoder"], atol=1e-4)
    np.testing.assert_allclose(line, golden["line"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(piano_genie.quantize(model.config, line), golden["buttons"])
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)
    keys = piano_genie.press(model, golden["buttons"], music[..., 1], jax.random.key(0), 0.0)
    np.testing.assert_array_equal(keys, golden["greedy"])


def test_a_press_knows_nothing_of_what_follows(tiny):
    """Logits of a note depend on the notes before it and the presses up to it."""
    example = piano_genie.example(tiny.config, 1, np.random.default_rng(0))
    music, line = jnp.asarray(example["x"]), jnp.linspace(-1, 1, 8)[None]
    logits = jax.jit(tiny.logits)
    before = logits(line, music)
    after = logits(line.at[:, 5].set(0.9), music.at[:, 4, 0].set(11))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.abs(before[:, 5:] - after[:, 5:]).max() > 1e-3


def test_the_contour_loss_is_zero_where_buttons_rise_and_fall_with_the_notes(tiny, monkeypatch):
    music = jnp.asarray(np.stack([[1, 3, 2, 6, 4, 4, 5, 1], np.ones(8, int)], axis=-1)[None], jnp.int32)
    model = nnx.merge(*nnx.split(tiny))
    for slope, penalty in ((1.0, 1 / 7), (-1.0, None)):  # one step of seven holds its note: a hinge of the whole margin
        monkeypatch.setattr(PianoGenie, "encode", lambda self, music, s=slope: s * music[..., 0].astype(jnp.float32))
        _, metrics = piano_genie.loss(model, {"x": music}, jax.random.key(0), jnp.int32(0))
        assert metrics["contour"] > 1 if penalty is None else metrics["contour"] == pytest.approx(penalty)


def test_every_button_is_its_own_nearest():
    config = Config()
    buttons = jnp.arange(8)
    np.testing.assert_array_equal(piano_genie.quantize(config, piano_genie.on_line(config, buttons)), buttons)
    assert piano_genie.quantize(config, jnp.array([-3.0, 3.0])).tolist() == [0, 7]


def test_notes_and_bins():
    """Notes in order of time and height; a bin is 32 ms, the first and long ones are the last bin."""
    codec = KeysCodec(steps=4)
    score = Score.of([0, 1, 1, 5], [1, 2, 2, 6], [60, 67, 64, 72], tempos=np.array([[0.0, 120.0]]))
    notes, onset = codec.encode(score)
    np.testing.assert_array_equal(notes, [[39, 32], [43, 16], [46, 0], [51, 32]])
    np.testing.assert_allclose(onset, [0, 0.5, 0.5, 2.5])
    again, _ = codec.encode(codec.decode(notes))
    np.testing.assert_array_equal(again, notes)
    np.testing.assert_array_equal(bins([0.0, 0.032, 0.032, 9.0]), [32, 1, 0, 32])
    assert codec.transpose(notes[None], 100)[0, :, 0].max() == 87
    with pytest.raises(zoo.InputError, match="4 notes, a window has 8"):
        KeysCodec(steps=8).windows(score)


def test_presses_become_notes(published):
    """Rising buttons rise, the same key gives the same notes, and only allowed pitches sound."""
    (score,) = published.press_scores("01234567", temperature=0.0)
    assert len(score) == 8
    assert score.pitch[-1] > score.pitch[0]
    assert score.seconds_at(score.start).tolist() == pytest.approx(np.arange(8) / 4)
    scale = [60, 62, 64, 65, 67, 69, 71, 72]
    one, other = published.press_scores([3, 1, 4, 1, 5], 2, pitches=scale, temperature=1.0, key=3)
    assert set(one.pitch) | set(other.pitch) <= set(scale)
    again = published.press_scores([3, 1, 4, 1, 5], 2, pitches=scale, temperature=1.0, key=3)
    assert [s.pitch.tolist() for s in again] == [one.pitch.tolist(), other.pitch.tolist()]
    assert len(published.press("0246")[0].notes) == 4


def test_notes_become_presses(published):
    score = Score.of(np.arange(8) / 2, np.arange(8) / 2 + 0.5, [60, 62, 64, 65, 67, 69, 71, 72])
    buttons, onset = published.buttons(score)
    assert (np.diff(buttons) >= 0).all()
    assert buttons[-1] > buttons[0]
    np.testing.assert_allclose(onset, np.arange(8) / 4)


@pytest.mark.parametrize("presses", ["", "0189", "do re mi", [1, -1], None])
def test_what_is_no_button(published, presses):
    with pytest.raises(zoo.InputError, match="presses are buttons from 0 to 7"):
        published.press(presses)
