"""Transcription: notes out of posteriorgrams, bends into MIDI, streams, and how it is measured."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import soundfile

from tests.networks import drawn
from zoo.cli import main
from zoo.errors import InputError
from zoo.models.basic_pitch import ARCHITECTURE, BasicPitch, Config
from zoo.music import io as music
from zoo.music import note_metrics, posteriorgram
from zoo.music.audio import AudioCodec
from zoo.music.midi import midi_bytes
from zoo.music.posteriorgram import GAP, Note, find_notes
from zoo.music.score import Score
from zoo.nn.rows import on_disk
from zoo.tasks import transcription
from zoo.tasks.model import Found
from zoo.tasks.transcription import Transcription

OPTIONS: dict[str, Any] = {
    "onset_threshold": 0.5, "frame_threshold": 0.3, "shortest": 11, "infer_onsets": False, "melodia": True,
}  # fmt: skip


def rolls(frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((frames, 88), np.float32), np.zeros((frames, 88), np.float32)


# --- notes ------------------------------------------------------------------------------------------------------------


def test_a_note_begins_with_its_onset_and_outlasts_gaps() -> None:
    note, onset = rolls()
    note[10:60, 40] = 0.8
    note[30 : 30 + GAP - 1, 40] = 0.1
    onset[10, 40] = 0.9
    (found,) = find_notes(note, onset, **OPTIONS)
    assert found[:3] == (10, 60, 40)
    assert found.amplitude == pytest.approx(note[10:60, 40].mean())


def test_a_long_gap_ends_it() -> None:
    note, onset = rolls()
    note[10:60, 40] = 0.8
    note[30 : 30 + GAP, 40] = 0.1
    onset[10, 40] = 0.9
    found = find_notes(note, onset, **OPTIONS | {"melodia": False})
    assert [n[:3] for n in found] == [(10, 30, 40)]
    assert len(find_notes(note, onset, **OPTIONS)) == 2


def test_short_notes_and_neighbours_are_left_out() -> None:
    note, onset = rolls()
    note[10:60, 40], note[12:58, 41], note[70:80, 10] = 0.8, 0.6, 0.9
    onset[10, 40] = onset[70, 10] = 0.9
    assert [n[:3] for n in find_notes(note, onset, **OPTIONS)] == [(10, 60, 40)]


def test_without_onset() -> None:
    """Melodia takes what has no onset, one frame short at its end as published; a rise is an onset if asked for."""
    note, onset = rolls()
    note[20:60, 30] = 0.7
    assert [n[:3] for n in find_notes(note, onset, **OPTIONS)] == [(20, 59, 30)]
    assert find_notes(note, onset, **OPTIONS | {"melodia": False}) == []
    onset[90, 80] = 0.6
    onset[5, 3] = 0.6  # the rise is as high as the highest onset
    found = find_notes(note, onset, **OPTIONS | {"infer_onsets": True, "melodia": False})
    assert [n[:3] for n in found] == [(20, 60, 30)]


def brute_force(note: np.ndarray, threshold: float, shortest: int) -> list[tuple[int, int, int]]:
    """Melodia as its definition says: the largest cell left, and a walk both ways, cell by cell."""
    left, found, frames = note.astype(np.float64), [], len(note)
    while left.max() > threshold:
        middle, place = np.unravel_index(left.argmax(), left.shape)
        left[middle, place] = 0
        ends = []
        for step, stop in ((1, frames - 1), (-1, 0)):
            at, quiet = middle + step, 0
            while at * step < stop * step and quiet < GAP:
                quiet = quiet + 1 if left[at, place] < threshold else 0
                left[at, max(0, place - 1) : place + 2] = 0
                at += step
            ends.append((at, quiet))
        (after, quiet), (before, silent) = ends
        start, end = before + 1 + silent, after - 1 - quiet
        if end - start > shortest:
            found.append((int(start), int(end), int(place)))
    return found


def test_melodia_is_its_definition() -> None:
    """On noise with runs, at every edge: the sorted order finds what searching for the largest again and again does."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        runs = np.repeat(rng.random((12, 88)) < 0.4, 8, axis=0)[:90]
        note = (runs * rng.choice([0.2, 0.5, 0.6, 0.9], (90, 88)) * rng.choice([0.5, 1.0], (90, 88))).astype(np.float32)
        found = find_notes(note, np.zeros_like(note), **OPTIONS | {"shortest": 3})
        assert [n[:3] for n in found] == brute_force(note, 0.3, 3)
        assert len(found) > 20


def test_notes_are_the_same_however_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Piece by piece from disk, as from one array; with all pitches or some."""
    rng = np.random.default_rng(1)
    runs = np.repeat(rng.random((20, 88)) < 0.4, 7, axis=0)
    note, onset = (runs * rng.random((140, 88))).astype(np.float32), rng.random((140, 88), np.float32) ** 4
    options = OPTIONS | {"infer_onsets": True, "shortest": 2}
    within = (np.arange(88) > 20).astype(np.float32)
    for weights in (None, within):
        whole = find_notes(note, onset, **options, within=weights)
        assert len(whole) > 50
        with monkeypatch.context() as patch:
            for size in (3, 10, 139, 140):
                patch.setattr(posteriorgram, "AT_ONCE", size)
                kept = on_disk(iter([(note[:50], onset[:50]), (note[50:], onset[50:])]))
                assert find_notes(*kept, **options, within=weights) == whole
    assert whole == find_notes(note * within, onset * within, **options)


def test_silence_has_no_notes() -> None:
    note, onset = rolls()
    assert find_notes(note, onset, **OPTIONS | {"infer_onsets": True}) == []
    assert find_notes(note[:0], onset[:0], **OPTIONS) == []


# --- bends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 5, 40, 87])
def test_bends_follow_the_contour(place: int) -> None:
    contour = np.full((50, 264), 0.05, np.float32)
    path = np.clip(3 * place + np.array([0, 1, 2, 1, 0, -1, -2, 0, 1, 0]), 0, 263)
    contour[np.arange(20, 30), path] = 0.9
    (bends,) = posteriorgram.find_bends(contour, [Note(20, 30, place, 0.8)], 3)
    np.testing.assert_array_equal(bends, path - 3 * place)


def test_bends_come_back_from_midi() -> None:
    """One voice keeps its bends; a note after it is in tune; of notes that overlap none has any."""
    times = np.arange(400) / 86.0
    notes = [Note(10, 40, 39, 0.9), Note(60, 90, 41, 0.8), Note(100, 160, 43, 0.7), Note(120, 170, 47, 0.7)]
    bends = [np.repeat([0, 1, 2], 10), np.repeat([-1, -8], 15), np.full(60, 1), np.full(50, 1)]
    score = posteriorgram.to_score(notes, bends, times, lowest=21, per_semitone=3, program=4)
    midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_bytes(score)))
    (part,) = midi.instruments
    assert part.program == 4
    found = np.array([(bend.time, bend.pitch) for bend in part.pitch_bends])
    assert len(found) == 30 + 30 + 1
    np.testing.assert_array_equal(np.unique(found[:30, 1]), [0, 1365, 2731])  # thirds of 4096
    assert found[30:60, 1].min() == -8192  # further than two semitones is two
    assert found[-1].tolist() == [pytest.approx(times[100], abs=2e-3), 0]
    np.testing.assert_allclose(found[:30, 0], np.linspace(times[10], times[40], 30), atol=2e-3)

    score = posteriorgram.to_score(notes, bends, times, lowest=21, per_semitone=3, separate=True)
    midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_bytes(score)))
    assert [len(part.pitch_bends) for part in midi.instruments] == [30, 30, 60, 50]
    again = music.read(music.to_note_sequence(score))
    np.testing.assert_allclose(again.bends, score.bends, atol=1e-9)
    data = midi_bytes(again)
    np.testing.assert_array_equal(midi_bytes(music.read_midi(data)), data)


# --- sound ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Transcription:
    """A transcriber of an octave with random weights."""
    module = drawn(BasicPitch, Config.tiny())
    return Transcription(module, Found("tiny", ARCHITECTURE, Config.tiny(), AudioCodec(22050), {}, dict))  # type: ignore[arg-type]


def noise(seconds: float, rate: int = 22050) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(seconds * rate)).astype(np.float32) * 0.1


@pytest.mark.parametrize("samples", [1, 255, 2048, 22050, 40001])
def test_a_frame_every_hop(tiny: Transcription, samples: int) -> None:
    found = tiny.posteriorgrams((noise(3)[:samples], 22050))
    config = tiny.config
    advance = config.samples - config.overlap * config.hop
    whole, rest = divmod(samples, advance)
    assert len(found.note) == whole * (config.steps - config.overlap) + min(
        config.steps - config.overlap, -(-rest // config.hop)
    )
    assert found.note.shape == found.onset.shape == (len(found.note), 12)
    assert found.contour.shape == (len(found.note), 36)


@pytest.mark.parametrize("chunk", [441, 5000, 44100])
def test_a_stream_is_the_whole(tiny: Transcription, chunk: int) -> None:
    """Whatever the pieces it comes in; and another length compiles nothing new."""
    sound = noise(2.3, 44100)
    whole = tiny.posteriorgrams((sound, 44100))

    def pieces() -> Iterator[np.ndarray]:
        yield from (sound[at : at + chunk] for at in range(0, len(sound), chunk))

    parts = list(tiny.stream((pieces(), 44100)))
    assert len(parts) > 20
    for name in whole._fields:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole, name), atol=1e-6, err_msg=name)


def test_another_length_compiles_nothing(tiny: Transcription, caplog: pytest.LogCaptureFixture) -> None:
    import jax

    tiny.posteriorgrams((noise(1.0), 22050))
    with jax.log_compiles():
        for seconds in (0.01, 0.7, 2.9):
            tiny.posteriorgrams((noise(seconds), 22050))
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]


@pytest.mark.parametrize("rate", [8000, 192000])
def test_odd_files(tiny: Transcription, tmp_path: Path, rate: int) -> None:
    """Any rate, 24 bits, stereo, silence, clipping."""
    path = tmp_path / "x.wav"
    for sound in (np.zeros((rate // 4, 2)), np.clip(50 * noise(0.3, rate), -1, 1)):
        soundfile.write(path, sound, rate, subtype="PCM_24")
        found = tiny.posteriorgrams(path)
        assert np.isfinite(found.contour).all()
        assert len(found.note) == pytest.approx(len(sound) / rate * 22050 / 256, rel=0.2)
    assert isinstance(tiny.transcribe(path).total_time, float)


@pytest.mark.parametrize(
    "options",
    [
        {"onset_threshold": 0.0},
        {"frame_threshold": 1.5},
        {"shortest": -1.0},
        {"qpm": 0.0},
        {"fmin": 500.0, "fmax": 400.0},
    ],
)
def test_options_that_make_no_sense(tiny: Transcription, options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        tiny.score((noise(0.1), 22050), **options)  # type: ignore[arg-type]


def test_bad_input(tiny: Transcription, tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    path.write_text("not a sound")
    with pytest.raises(InputError, match=r"song\.wav"):
        tiny.score(path)
    with pytest.raises(InputError, match="not finite"):
        tiny.score((np.array([0.0, np.nan]), 22050))


# --- measures ---------------------------------------------------------------------------------------------------------


def score(*notes: tuple[float, float, int]) -> Score:
    return Score.of(*np.array(notes, float).T, tempos=np.array([[0.0, 60.0]]), source="played")


def test_measures() -> None:
    played = score((0, 1, 60), (1, 2, 62), (2, 3, 64), (3, 4, 65))
    assert set(note_metrics.compare(played, played).values()) == {1.0}
    late = score((0.04, 1, 60), (1.06, 2, 62), (2, 2.5, 64), (3, 4, 66))
    found = note_metrics.compare(played, late)
    assert found["note_precision"] == found["note_recall"] == found["note_f1"] == 0.5
    assert found["note_with_offset_f1"] == 0.25
    assert found["frame_recall"] == pytest.approx((0.96 + 0.94 + 0.5) / 4, abs=0.01)
    assert note_metrics.compare(played, played.select(np.zeros(4, bool)))["note_f1"] == 0.0


def test_evaluate(tiny: Transcription, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        transcription.evaluate(tiny, tmp_path / "none")
    soundfile.write(tmp_path / "a.flac", noise(0.5), 22050)
    with pytest.raises(InputError, match="has its notes beside it"):
        transcription.evaluate(tiny, tmp_path)
    (tmp_path / "a.tsv").write_text("# onset offset pitch velocity\n0.1\t0.4\t60\t80\n")
    measured = transcription.evaluate(tiny, tmp_path)
    assert measured["recordings"] == 1
    assert 0 <= measured["note_f1"] <= 1
    (tmp_path / "a.tsv").write_text("onset offset\n")
    with pytest.raises(InputError, match=r"a\.tsv"):
        transcription.evaluate(tiny, tmp_path)


# --- the command ------------------------------------------------------------------------------------------------------

CARD = """
id = "basic-pitch/tiny"
summary = "Random weights, for tests."
task = "transcription"
parameters = {parameters}
intended_use = "Tests."
limits = "It has learnt nothing."
[config]
{config}
[codec]
name = "audio"
options = {{sample_rate = 22050}}
[licences]
code = {{name = "Apache-2.0", stated_at = "LICENSE"}}
weights = {{name = "Apache-2.0", stated_at = "LICENSE"}}
[citation]
bibtex = "@inproceedings{{tiny}}"
paper = "https://arxiv.org/abs/2203.09893"
[[sources]]
kind = "bundled"
file = "weights.safetensors"
"""


@pytest.fixture
def tiny_card(tiny: Transcription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny transcriber as a model that the zoo knows during the test."""
    folder = tmp_path / "cards" / "basic-pitch" / "tiny"
    folder.mkdir(parents=True)
    tiny.save(folder / "weights.safetensors")
    table = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(tiny.config).items()}
    config = "\n".join(f"{name} = {value}" for name, value in table.items())
    (folder / "card.toml").write_text(CARD.format(parameters=tiny.parameters, config=config))
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path / "cards"))
    return "basic-pitch/tiny"


def test_command(tiny_card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two recordings of which one is broken: the other is written down, and the command fails."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    soundfile.write(sounds / "a.wav", noise(0.4), 22050)
    (sounds / "b.wav").write_text("not a sound")
    out = tmp_path / "out"
    command = ["transcribe", "--model", tiny_card, "--out", str(out), "--frame", "0.01", "--onset", "0.01"]
    assert main([*command, str(sounds), "--json", "--posteriorgrams", "--shortest", "0.02"]) == 1
    printed = capsys.readouterr()
    told = json.loads(printed.out)[str(sounds / "a.wav")]
    assert "b.wav" in printed.err
    notes = pretty_midi.PrettyMIDI(str(out / "a.mid")).instruments[0].notes
    assert len(notes) == len(told["notes"]) > 0
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, str(sounds / "a.wav"), "--onset", "1.5"]) == 1
    assert capsys.readouterr().err.startswith("zoo: error: onset_threshold=1.5")
    assert main(["transcribe", str(sounds / "a.wav"), "--model", "music-vae/mel-2bar"]) == 1
    assert "not for transcription" in capsys.readouterr().err
