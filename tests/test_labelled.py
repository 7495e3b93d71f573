"""Folders of sound with labels: curves beside it, or a folder a class; windows that are cut when asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from zoo.data import batches, labelled, load_labelled
from zoo.data.labelled import Windows, read_curve
from zoo.errors import InputError
from zoo.music.audio import AudioCodec

CODEC = AudioCodec(sample_rate=8000)


def ramp(path: Path, seconds: float, rate: int = 8000) -> np.ndarray:
    """A sound each of whose samples is another, as a float WAV."""
    samples = np.linspace(0.1, 0.9, round(seconds * rate), dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return samples


def test_windows_are_those_of_the_padded_sounds() -> None:
    sounds = [np.arange(1, 6, dtype=np.float32), np.arange(10, 13, dtype=np.float32)]
    windows = Windows(sounds, [np.array([-2, 0, 3]), np.array([-4, 1])], 4)
    expected = [[0, 0, 1, 2], [1, 2, 3, 4], [4, 5, 0, 0], [0, 0, 0, 0], [11, 12, 0, 0]]
    np.testing.assert_array_equal(windows[np.arange(5)], expected)
    np.testing.assert_array_equal(windows[slice(1, 9)], expected[1:])
    np.testing.assert_array_equal(windows[np.array([4, 0])], [expected[4], expected[0]])
    assert len(windows) == 5
    assert windows[np.array([0])].dtype == np.float32


def test_curves_are_windows_around_their_times(tmp_path: Path) -> None:
    samples = ramp(tmp_path / "a.wav", 0.1)
    ramp(tmp_path / "sub/b.wav", 0.1)
    ramp(tmp_path / "lonely.wav", 0.1)
    (tmp_path / "a.csv").write_text("time,frequency,confidence\n0,220,0.9\n0.05,230.5,0.9\n0.06,240,0.2\n9,250,1\n")
    (tmp_path / "sub/b.csv").write_text("0.01\t0\n0.02\t300\n")
    (tmp_path / "splits.json").write_text(json.dumps({"a": "train", "sub": "test"}))
    corpus = load_labelled(tmp_path, CODEC, "curves", 64)
    np.testing.assert_allclose(corpus.train["y"], [220, 230.5, 0])  # unsure; and 9 s lies beyond the end
    np.testing.assert_array_equal(corpus.test["y"], np.array([0, 300], np.float32))
    x = corpus.train["x"][np.arange(3)]
    np.testing.assert_array_equal(x[0], np.r_[np.zeros(32, np.float32), samples[:32]])
    np.testing.assert_array_equal(x[1], samples[400 - 32 : 400 + 32])
    assert corpus.names == {"train": ("a.wav",), "valid": (), "test": ("sub/b.wav",)}
    ((name, reason),) = corpus.skipped
    assert name == "lonely.wav"
    assert "lonely.csv: can't be read" in reason
    assert str(corpus).startswith("train 3 windows of 1 files, valid 0")
    batch = next(batches(corpus.train, 5, seed=3))
    assert (batch["x"].shape, batch["y"].shape) == ((5, 64), (5,))
    at = {220.0: 0, 230.5: 1, 0.0: 2}
    for window, hz in zip(batch["x"], batch["y"], strict=True):
        np.testing.assert_array_equal(window, x[at[float(hz)]])


def test_classes_are_folders(tmp_path: Path) -> None:
    samples = ramp(tmp_path / "jazz/a.wav", 0.02)  # 160 samples: two windows of 64, and a half
    ramp(tmp_path / "jazz/deep/short.wav", 0.001)
    ramp(tmp_path / "blues/c.flac.wav", 0.008)
    ramp(tmp_path / "nowhere.wav", 0.1)
    (tmp_path / "splits.json").write_text(json.dumps(dict.fromkeys(("jazz", "blues"), "train")))
    corpus = load_labelled(tmp_path, CODEC, "classes", 64)
    assert corpus.classes == ("blues", "jazz")
    assert corpus.train["y"].tolist() == [0, 1, 1, 1]
    assert corpus.train["y"].dtype == np.int32  # type: ignore[attr-defined]
    np.testing.assert_array_equal(corpus.train["x"][np.array([2])][0], samples[64:128])
    assert [name for name, _ in corpus.skipped] == ["nowhere.wav"]
    assert str(corpus).startswith("2 classes; train 4 windows of 3 files")


def test_a_few_files_are_all_for_training(tmp_path: Path) -> None:
    name = next(f"{k}.wav" for k in range(99) if labelled.files.by_hash(f"{k}.wav") == "test")
    ramp(tmp_path / name, 0.1)
    (tmp_path / name).with_suffix(".csv").write_text("0.01 440\n")
    assert len(load_labelled(tmp_path, CODEC, "curves", 64).train["y"]) == 1


@pytest.mark.parametrize(
    ("text", "hz"),
    [
        ("time,hz\n0.0,440\n0.1,0\n", [440, 0]),
        ("0.0;440.5\n0.1;-1\n\n", [440.5, 0]),
        ("\ufeff0.0 , 440 , 0.9\n0.1, 220, 0.1\n", [440, 0]),
        ("0\t440\tword\n", None),
        ("0.0\n", None),
        ("time,frequency\n", None),
        ("0,nan\n", None),
        ("", None),
    ],
)
def test_csv_of_every_make(tmp_path: Path, text: str, hz: list[float] | None) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    if hz is None:
        with pytest.raises(InputError, match=r"a\.csv: not rows of time in seconds and pitch in Hz"):
            read_curve(path)
    else:
        np.testing.assert_allclose(read_curve(path)[1], hz)


def test_folders_without_examples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files of sound in it"):
        load_labelled(tmp_path, CODEC, "curves", 64)
    ramp(tmp_path / "a.wav", 0.1)
    with pytest.raises(InputError, match=r"no usable files in .*: 1 skipped, first: .*a\.csv: can't be read"):
        load_labelled(tmp_path, CODEC, "curves", 64)
    (tmp_path / "a.csv").write_text("50 440\n")
    with pytest.raises(InputError, match="none of its times, in seconds, lies within the sound"):
        load_labelled(tmp_path, CODEC, "curves", 64)
    with pytest.raises(InputError, match="in no class's folder"):
        load_labelled(tmp_path, CODEC, "classes", 64)
