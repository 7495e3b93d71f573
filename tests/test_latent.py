"""Latent models through the front door: what a user asks of them, and what they answer to nonsense."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.music.midi import midi_bytes
from zoo.music.score import Score
from zoo.tasks.latent import slerp

with warnings.catch_warnings():  # pydub, which note_seq imports, warns of ffmpeg and of its own escapes
    warnings.simplefilter("ignore")
    import note_seq


@pytest.fixture
def model(tiny_model: str) -> zoo.tasks.latent.Latent:
    return zoo.load(tiny_model)


def test_samples_are_notes_and_the_same_for_the_same_key(model):
    a, b, c = (model.sample(3, key=key, temperature=0.8) for key in (0, 0, 1))
    assert all(isinstance(sequence, note_seq.NoteSequence) for sequence in a)
    assert [s.SerializeToString() for s in a] == [s.SerializeToString() for s in b]
    assert [s.SerializeToString() for s in a] != [s.SerializeToString() for s in c]


def test_more_samples_do_not_change_the_shape_of_one(model):
    assert model.sample_windows(3).shape == (3, 32)
    assert model.sample_windows(1).shape == (1, 32)


def test_encode_gives_the_posterior_mean_and_on_request_a_draw(model, melody_file):
    z = model.encode([melody_file, str(melody_file)])
    assert z.shape == (2, 8)
    np.testing.assert_array_equal(z[0], z[1])
    np.testing.assert_allclose(z[:1], model.encode(melody_file), atol=1e-6)
    draw = model.encode(melody_file, sample=True, key=3)
    assert np.abs(draw - z[:1]).max() > 1e-3
    np.testing.assert_array_equal(draw, model.encode(melody_file, sample=True, key=3))


def test_padding_a_batch_does_not_change_its_rows(model):
    windows = np.random.default_rng(0).integers(0, 90, (5, 32))
    mean, scale = model.posterior(windows)
    for row in range(5):
        one = model.posterior(windows[row : row + 1])
        np.testing.assert_allclose(mean[row], one[0][0], atol=1e-6)
        np.testing.assert_allclose(scale[row], one[1][0], atol=1e-6)


def test_a_long_file_is_cut_into_windows(model, tmp_path):
    file = tmp_path / "scale.mid"
    file.write_bytes(midi_bytes(Score.of(np.arange(16), np.arange(16) + 1, 50 + np.arange(16))))
    windows = model.windows(file)
    assert windows.shape == (2, 32)
    np.testing.assert_array_equal(model.window(file, -1), windows[1])
    assert not np.array_equal(model.encode(file, window=1), model.encode(file))
    with pytest.raises(zoo.InputError, match=r"scale\.mid: has 2 windows, there is no window 2"):
        model.encode(file, window=2)
    assert len(model.reconstruct(file).notes) > 0


def test_interpolation_has_its_ends_and_goes_along_the_arc(model, melody_file):
    other = Score.of(np.arange(8), np.arange(8) + 1, 72 - np.arange(8))
    sequences = model.interpolate(melody_file, other, steps=5)
    assert len(sequences) == 5
    ends = model.decode(model.encode([melody_file, other]), temperature=0.0)
    assert sequences[0] == ends[0]
    assert sequences[-1] == ends[1]
    a, b = np.array([2.0, 0.0]), np.array([0.0, 2.0])
    np.testing.assert_allclose(np.linalg.norm(slerp(a, b, np.linspace(0, 1, 7)), axis=1), 2.0)
    np.testing.assert_allclose(slerp(a, a, np.array([0.3])), a[None])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, f: m.sample(0), "at least one"),
        (lambda m, f: m.sample(1, temperature=-1), "negative"),
        (lambda m, f: m.decode(np.zeros((2, 5))), r"shape \(2, 5\), the model needs \[n, 8\]"),
        (lambda m, f: m.interpolate(f, f, steps=1), "its two ends"),
        (lambda m, f: m.encode("nowhere.mid"), "nowhere.mid"),
        (lambda m, f: m.encode(Score.of([0, 0, 0], [4, 4, 4], [60, 64, 67])), "polyphonic|short|melody"),
        (lambda m, f: m.encode(Score.of([], [], [])), "no notes"),
    ],
)
def test_nonsense_is_answered_in_one_line(model, melody_file, call, message):
    with pytest.raises(zoo.InputError, match=message) as error:
        call(model, melody_file)
    assert "\n" not in str(error.value)


def test_a_saved_model_is_the_same_model(model, tmp_path: Path):
    again = zoo.load(model.save(tmp_path / "mine.safetensors"))
    np.testing.assert_array_equal(again.sample_windows(2), model.sample_windows(2))
    assert again.card is None
    assert again.parameters == model.parameters == model.parameters


def test_unknown_names_suggest_near_ones(tiny_model):
    with pytest.raises(zoo.InputError, match="did you mean music-vae"):
        zoo.load("music-vea")
    with pytest.raises(zoo.InputError, match="music-vae/tiny"):
        zoo.load("music-vae/tyni")


def test_products_in_bfloat16(tiny_model: str) -> None:
    """The same z to three digits, and of so many windows not to the bit; an unknown precision is refused."""
    windows = np.random.default_rng(0).integers(0, 90, (16, 32)).astype(np.int32)
    exact, rounded = (zoo.load(tiny_model, precision=p).posterior(windows)[0] for p in ("float32", "bfloat16"))
    np.testing.assert_allclose(rounded, exact, atol=2e-2)
    assert not np.array_equal(rounded, exact)
    with pytest.raises(zoo.InputError, match="precision 'float16' is not known; choose float32 or bfloat16"):
        zoo.load(tiny_model, precision="float16")
