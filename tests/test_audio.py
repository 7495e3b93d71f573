"""Files and streams of sound of every kind: the right samples, or one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from zoo.errors import InputError
from zoo.music import audio

RATE = 16000


def tone(rate: int, seconds: float = 0.5) -> np.ndarray:
    """A sine of 440 Hz at half of full scale."""
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_any_rate_gives_the_tone_itself(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate), rate, subtype="FLOAT")
    found = audio.read(tmp_path / "a.wav", RATE)
    assert found.dtype == np.float32
    assert abs(len(found) - RATE // 2) <= 1
    inside = slice(800, 7200)  # a filter rings at the ends
    np.testing.assert_allclose(found[inside], tone(RATE)[inside], atol=2e-3)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 1 / 120), ("wav", "PCM_16", 1 / 32000), ("wav", "PCM_24", 1 / 8e6), ("wav", "FLOAT", 0),
        ("wav", "DOUBLE", 1e-7), ("flac", "PCM_24", 1 / 8e6), ("aiff", "PCM_16", 1 / 32000), ("ogg", "VORBIS", 0.05),
        ("wav", "ULAW", 0.05),
    ],
)  # fmt: skip
def test_any_width(tmp_path: Path, suffix: str, subtype: str, tolerance: float) -> None:
    samples = tone(RATE).astype(np.float32)
    soundfile.write(tmp_path / f"a.{suffix}", samples, RATE, subtype=subtype)
    np.testing.assert_allclose(audio.read(tmp_path / f"a.{suffix}", RATE), samples, atol=tolerance)


def test_channels_are_averaged(tmp_path: Path) -> None:
    samples = tone(RATE).astype(np.float32)
    for channels in (1, 2, 6):
        each = samples[:, None] * np.arange(1, channels + 1, dtype=np.float32) / channels
        soundfile.write(tmp_path / "a.wav", each, RATE, subtype="FLOAT")
        np.testing.assert_allclose(audio.read(tmp_path / "a.wav", RATE), each.mean(axis=1), atol=1e-7)
        np.testing.assert_allclose(audio.read((each, RATE), RATE), each.mean(axis=1), atol=1e-7)


def test_whole_numbers_are_brought_to_one() -> None:
    np.testing.assert_allclose(audio.read((np.array([0, 16384, -32768], np.int16), RATE), RATE), [0, 0.5, -1])
    np.testing.assert_allclose(audio.read((np.array([2**30], np.int32), RATE), RATE), [0.5])


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
def test_a_stream_gives_what_the_whole_gives(rate: int) -> None:
    samples = np.random.default_rng(0).standard_normal(30001).astype(np.float32)
    whole = audio.read((samples, rate), RATE)
    for cuts in ([1, 2, 700, 29000], list(range(999, 30000, 999)), [0, 0, 30001]):
        pieces = list(audio.blocks((iter(np.split(samples, cuts)), rate), RATE))
        np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks((samples, rate), RATE, seconds=0.01))), whole)


def test_a_stream_is_not_held_back() -> None:
    """After each chunk of 100 ms at most 50 ms of sound are still to come."""
    given = 0

    def chunks():  # type: ignore[no-untyped-def]
        nonlocal given
        for _ in range(20):
            given += 4410
            yield np.zeros(4410, np.float32)

    received = 0
    for piece in audio.blocks((chunks(), 44100), RATE):
        received += len(piece)
        assert given / 44100 - received / RATE < 0.05
    assert received == 2 * RATE


@pytest.mark.parametrize(("width", "hop"), [(1024, 160), (64, 64), (5, 7), (100, 333), (2, 1)])
def test_windows_are_those_of_the_padded_whole(width: int, hop: int) -> None:
    samples = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    for length in (1, hop - 1, hop, 4999, 5000):
        whole = samples[:length]
        padded = np.pad(whole, (width // 2, width - width // 2))
        expected = np.stack([padded[at : at + width] for at in range(0, length + 1, hop)])
        for cuts in ([], [1, 2, 3], list(range(0, 5000, 170))):
            pieces = np.split(whole, cuts)
            np.testing.assert_array_equal(np.concatenate(list(audio.windows(pieces, width, hop))), expected)


def test_a_truncated_mp3_gives_what_is_left(tmp_path: Path) -> None:
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile has no MP3")
    soundfile.write(tmp_path / "a.mp3", tone(44100, 4.0), 44100)
    whole, data = audio.read(tmp_path / "a.mp3", 44100), (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(data[: len(data) // 2])
    part = audio.read(tmp_path / "cut.mp3", 44100)
    assert 0.4 * len(whole) < len(part) < 0.6 * len(whole)
    np.testing.assert_allclose(part[:-2500], whole[: len(part) - 2500], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, I am text", "can't be read as audio"),
        (b"", "can't be read as audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "can't be read as audio"),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_what_is_no_sound(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        audio.read(path, RATE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_that_cant_be_used(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "one.wav", np.ones(1), 192000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    for name, message in (
        ("empty.wav", "has no samples"), ("one.wav", "shorter than one sample at 16000 Hz"),
        ("nan.wav", "not finite"), ("gone.wav", "no such file"), (".", "is a folder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            audio.read(tmp_path / name, RATE)
    for source, message in (
        ((np.zeros(0), RATE), "empty"), ((np.array([np.inf]), RATE), "not finite"), ((np.zeros(4), 0), "sample rate"),
        ((np.zeros((1, 2, 3)), RATE), "shape"), ((iter([]), RATE), "shorter than one sample"),
        ((iter([np.array([np.nan])]), RATE), "the stream: has samples that are not finite"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            audio.read(source, RATE)
    assert len(audio.read((np.ones(1), RATE), RATE)) == 1


def test_files_are_found_in_folders(tmp_path: Path) -> None:
    for name in ("b.wav", "a.FLAC", "deep/c.mp3", ".hidden/d.wav", "notes.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in audio.find([tmp_path, tmp_path / "x.wav"])]
    assert names == ["a.FLAC", "b.wav", "deep/c.mp3", "x.wav"]
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match="void: no files of sound"):
        audio.find([tmp_path / "void"])
    soundfile.write(tmp_path / "b.wav", np.zeros(8000), RATE)
    assert audio.duration(tmp_path / "b.wav") == 0.5
    assert audio.duration(tmp_path / "a.FLAC") is None
