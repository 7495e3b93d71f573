"""Pitch as a task: whole files, many, streams; decoders; notes; what is written; and learning from one's own sound."""

from __future__ import annotations

import csv
import hashlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile
from flax import nnx

import zoo
from tests.networks import drawn
from zoo.cli import main
from zoo.models.crepe import Config, Crepe
from zoo.music import audio, contour
from zoo.tasks.model import build, dotted, find
from zoo.tasks.pitch import Pitch, Track

CARD = """
id = "crepe/random"
summary = "Random weights, for tests."
task = "pitch"
parameters = 1
intended_use = "Tests."
limits = "It has learnt nothing."
verified = true
[config]
window = 64
channels = [8, 6, 8]
widths = [16, 8, 8]
pitches = 60
cents = 100.0
[codec]
name = "audio"
options = {sample_rate = 4000}
[licences]
code = {name = "Apache-2.0", stated_at = "LICENSE"}
weights = {name = "Apache-2.0", stated_at = "LICENSE"}
[citation]
bibtex = "@inproceedings{tiny}"
paper = "https://arxiv.org/abs/1802.06182"
[[sources]]
kind = "bundled"
file = "weights.safetensors"
sha256 = "SHA"
"""
RATE = 4000
CONFIG = Config(window=64, channels=(8, 6, 8), widths=(16, 8, 8), pitches=60, cents=100.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cards with one small network of random weights."""
    from zoo.weights.formats import safetensors

    folder = tmp_path_factory.mktemp("cards") / "crepe" / "random"
    folder.mkdir(parents=True)
    state = nnx.to_flat_state(nnx.state(drawn(Crepe, CONFIG)))
    safetensors.write(folder / "weights.safetensors", {dotted(p): np.asarray(v[...]) for p, v in state}, {})
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "card.toml").write_text(CARD.replace("SHA", digest))
    return folder.parents[1]


@pytest.fixture(autouse=True)
def name(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    monkeypatch.setenv("ZOO_CARDS", str(root))
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return "crepe/random"


@pytest.fixture(scope="module")
def traced(root: Path) -> tuple[Pitch, list[int]]:
    """The small model, and the batch size of each program that it compiles."""
    found, sizes = find(root / "crepe" / "random"), []

    def kernel(model: Any, batch: Any, key: jax.Array) -> jax.Array:
        sizes.append(batch["x"].shape[0])
        return model(batch["x"], batch["prepared"])

    counted = replace(found, architecture=replace(found.architecture, kernels={"activations": kernel}))
    return Pitch(build(found), counted), sizes


def sound(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Tones and noise."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (np.sin(2 * np.pi * 200 * 2 ** np.sin(t) * t) + 0.1 * noise).astype(np.float32)


@pytest.mark.parametrize("decoder", contour.DECODERS)
def test_a_stream_gives_what_the_whole_gives(traced: tuple[Pitch, list[int]], decoder: str) -> None:
    model, _ = traced
    samples = sound(3.0, 5000)
    options: Any = {"decoder": decoder, "hop": 0.02, "fmax": 900.0}
    whole = model.track((samples, 5000), **options)
    assert len(whole) == 1 + 12000 // 80
    np.testing.assert_allclose(whole.times, 0.02 * np.arange(len(whole)))
    for cuts in ([1, 2, 9000], list(range(250, 15000, 250))):
        pieces = list(model.stream(np.split(samples, cuts), 5000, **options))
        np.testing.assert_array_equal(np.concatenate([piece.times for piece in pieces]), whole.times)
        np.testing.assert_allclose(np.concatenate([piece.hz for piece in pieces]), whole.hz, rtol=1e-5)
        np.testing.assert_allclose(np.concatenate([piece.confidence for piece in pieces]), whole.confidence, atol=1e-6)


def test_frames_come_as_soon_as_they_are_complete(traced: tuple[Pitch, list[int]]) -> None:
    """With a decoder that needs no future, after each chunk only half a window and the resampler's 30 ms are open."""
    model, _ = traced
    given = 0

    def chunks():  # type: ignore[no-untyped-def]
        nonlocal given
        for chunk in np.split(sound(4.0), 40):
            given += len(chunk)
            yield chunk

    behind = [given / RATE - piece.times[-1] for piece in model.stream(chunks(), RATE) if len(piece)]
    assert max(behind[:-1]) <= CONFIG.window / 2 / RATE + 0.01


def test_many_sources_share_batches_and_compile_two_programs(traced: tuple[Pitch, list[int]]) -> None:
    """Of whatever length: one for files and one for streams, as ever."""
    model, sizes = traced
    sources = [(sound(seconds, seed=k), RATE) for k, seconds in enumerate((0.5, 2.0, 0.0003, 3.0, 1.28, 0.1))]
    together = list(model.tracks(sources))
    assert [len(track) for track in together] == [51, 201, 1, 301, 129, 11]
    for source, track in zip(sources, together, strict=True):
        alone = model.track(source)
        np.testing.assert_allclose(track.hz, alone.hz, rtol=1e-5)
        np.testing.assert_allclose(track.confidence, alone.confidence, atol=1e-6)
    list(model.stream([sound(0.3)], RATE))
    assert sorted(set(sizes)) == sorted(sizes)
    assert len(sizes) <= 2


def test_range_of_pitches(traced: tuple[Pitch, list[int]]) -> None:
    model, _ = traced
    for decoder in contour.DECODERS:
        track = model.track((sound(1.0), RATE), fmin=200.0, fmax=400.0, decoder=decoder)
        assert track.hz.min() > 185
        assert track.hz.max() < 430
    for options, message in (
        ({"fmin": 500.0, "fmax": 400.0}, "no pitch between them"),
        ({"fmin": 5000.0}, "no pitch between them"),
        ({"fmin": float("nan")}, "no pitch between them"),
        ({"hop": 0.0}, "not between a sample"),
        ({"hop": float("nan")}, "not between a sample"),
        ({"hop": float("inf")}, "not between a sample"),
        ({"decoder": "viterby"}, "no decoder named 'viterby'; there are average"),
    ):
        with pytest.raises(zoo.InputError, match=message):
            model.track((sound(0.1), RATE), **options)  # type: ignore[arg-type]


def test_no_bounds_are_all_pitches(traced: tuple[Pitch, list[int]]) -> None:
    model, _ = traced
    free = model.track((sound(0.5), RATE), fmin=0.0, fmax=float("inf"), decoder="argmax")
    frames = np.concatenate(list(audio.windows([sound(0.5)], CONFIG.window, 40)))
    np.testing.assert_allclose(free.hz, CONFIG.frequencies[model.activations(frames).argmax(axis=1)])


def plain_viterbi(activations: np.ndarray) -> np.ndarray:
    """The best path by the textbook, over all steps from every place to every other."""
    places = activations.shape[1]
    tiny = np.finfo(np.float32).tiny
    distance = np.abs(np.subtract.outer(np.arange(places), np.arange(places)))
    steps = np.maximum(12 - distance, 0).astype(np.float64)
    log_steps = np.log(steps / steps.sum(axis=1, keepdims=True) + tiny)
    raised = np.exp(activations - activations.max(axis=1, keepdims=True))
    emissions = np.log(raised / raised.sum(axis=1, keepdims=True) + tiny)
    value, origins = emissions[0], []
    for emission in emissions[1:]:
        scores = value[:, None] + log_steps
        origins.append(scores.argmax(axis=0))
        value = scores.max(axis=0) + emission
    path = [int(value.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


def test_viterbi_in_pieces_is_the_textbooks_path() -> None:
    rng = np.random.default_rng(0)
    for places, scale in ((60, 1.0), (60, 20.0), (200, 200.0)):
        activations = (scale * rng.random((80, places))).astype(np.float32)
        activations[20:40, :30] = -np.inf
        decoder = contour.make_decoder("viterbi")
        pieces = [decoder(part) for part in np.split(activations, [1, 2, 50, 50, 70])]
        path = np.concatenate([piece.places for piece in [*pieces, decoder.finish()]])
        np.testing.assert_array_equal(path, plain_viterbi(activations))
        assert sum(len(piece.places) for piece in pieces) > 0, "some of it is known before the end"


def test_viterbi_waits_no_longer_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of paths that never meet, in a silence of equal activations, the best so far counts, however it comes in."""
    monkeypatch.setattr(contour.Viterbi, "HOLD", 20)
    activations = np.random.default_rng(0).normal(0, 1e-3, (150, 200)).astype(np.float32)
    activations[:, [*range(30), *range(170, 200)]] = -np.inf
    paths = []
    for cuts in ([], [7, 90], list(range(150))):
        decoder, found = contour.Viterbi(), []
        for part in np.split(activations, cuts):
            found.append(decoder(part).places)
            assert len(decoder.activations) == len(decoder.origins) < 40
        paths.append(np.concatenate([*found, decoder.finish().places]))
        assert len(paths[-1]) == 150
        np.testing.assert_array_equal(paths[0], paths[-1])


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_its_track(traced: tuple[Pitch, list[int]]) -> None:
    model, _ = traced

    def hour():  # type: ignore[no-untyped-def]
        for second in range(3600):
            yield sound(1.0, seed=second)

    model.track((sound(2.0), RATE))  # compiles
    tracemalloc.start()
    track = model.track((hour(), RATE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(track) == 360001
    assert peak < 35e6, "the samples alone are 58 MB, the frames 92"


def test_local_decoders() -> None:
    """By hand: a peak of 0.8 with 0.4 beside it, and one at the edge."""
    activations = np.full((2, 20), 0.0, np.float32)
    activations[0, [7, 8]] = 0.8, 0.4
    activations[1, 0] = 0.5
    assert contour.make_decoder("argmax")(activations).places.tolist() == [7, 0]
    average = contour.make_decoder("average")(activations)
    np.testing.assert_allclose(average.places, [7 + 0.4 / 1.2, 0], atol=1e-6)
    np.testing.assert_allclose(average.confidence, [0.8, 0.5])
    logistic = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    total = logistic(0.8) + logistic(0.4) + 7 * 0.5
    moved = (logistic(0.4) - 0.5) * 1
    np.testing.assert_allclose(contour.make_decoder("weighted")(activations).places[0], 7 + moved / total, atol=1e-6)


def curve(pieces: list[tuple[float, float, float]], hop: float = 0.01) -> Track:
    """A track of (seconds, pitch, confidence), with vibrato of 40 cents."""
    pitch = np.concatenate([np.full(round(seconds / hop), pitch) for seconds, pitch, _ in pieces])
    confidence = np.concatenate([np.full(round(seconds / hop), sure) for seconds, _, sure in pieces])
    times = hop * np.arange(len(pitch))
    pitch = pitch + 0.4 * np.sin(2 * np.pi * 6 * times)
    return Track(times, 440 * 2 ** ((pitch - 69) / 12), confidence.astype(np.float32), "a.wav")


def test_notes_of_a_contour() -> None:
    """Vibrato, a glitch and a short gap make no notes; rests, steps and a repeated note do."""
    track = curve(
        [(0.3, 50, 0.1), (0.5, 60, 0.9), (0.02, 72, 0.9), (0.3, 60, 0.9), (0.02, 60, 0.1), (0.2, 60, 0.9),
         (0.5, 62, 0.8), (0.2, 62, 0.1), (0.4, 62, 0.9), (0.03, 66, 0.9), (0.4, 30, 0.2)]
    )  # fmt: skip
    score = track.to_score()
    assert score.pitch.tolist() == [60, 62, 62]
    np.testing.assert_allclose(score.seconds_at(score.start), [0.3, 1.34, 2.04], atol=0.03)
    np.testing.assert_allclose(score.seconds_at(score.end), [1.34, 1.84, 2.45], atol=0.03)
    notes = track.to_notes()
    assert [note.pitch for note in notes.notes] == [60, 62, 62]
    assert notes.notes[1].start_time == pytest.approx(1.34, abs=0.03)


def test_notes_in_a_tuning_of_their_own() -> None:
    track = curve([(0.5, 60.45, 0.9), (0.5, 62.45, 0.9), (0.5, 64.45, 0.9)])
    assert track.to_score().pitch.tolist() == [60, 62, 64]
    assert len(curve([(1.0, 60, 0.2)]).to_score()) == 0
    assert len(curve([(0.01, 60, 0.9)]).to_score()) == 0


def test_what_is_written(tmp_path: Path) -> None:
    track = curve([(0.3, 60, 0.9), (0.1, 60, 0.1)])
    assert track.to_csv(tmp_path / "a.csv") == (tmp_path / "a.csv").read_text()
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(rows) == len(track)
    assert float(rows[3]["frequency"]) == pytest.approx(track.hz[3], abs=1e-3)
    told = json.loads(track.to_json(tmp_path / "a.json"))
    assert told == json.loads((tmp_path / "a.json").read_text())
    assert (told["source"], len(told["times"]), told["confidence"][-1]) == ("a.wav", len(track), 0.1)
    assert [type(lane).__name__ for lane in track.lanes()] == ["Curve", "Notes", "Heat"]
    for each in (track, curve([(70.0, 60, 0.9)]), curve([(1.0, 60, 0.1)])):
        assert each.plot(tmp_path / "a.png", "a title").read_bytes().startswith(b"\x89PNG")


def test_the_command(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", sound(0.5), RATE)
    soundfile.write(tmp_path / "b.flac", sound(0.3, 8000), 8000)
    (tmp_path / "text.wav").write_text("words")
    out = tmp_path / "out"
    assert main(["pitch", str(tmp_path), "--model", name, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "text.wav: can't be read as audio" in said.err
    assert "1 of 3 files failed" in said.err
    assert {path.name for path in out.iterdir()} == {f"{stem}{s}" for stem in "ab" for s in (".csv", ".png", ".mid")}
    assert main(["pitch", str(tmp_path / "a.wav"), "--model", name, "--json", "--hop", "0.05"]) == 0
    (told,) = json.loads(capsys.readouterr().out).values()
    assert len(told["times"]) == 11
    for words, message in (
        (["x.wav"], "x.wav: no such file"), ([str(tmp_path / "a.wav"), "--model", "music-vae"], "a model for latent"),
        ([str(tmp_path / "a.wav"), "--decoder", "best"], "no decoder named 'best'"),
    ):  # fmt: skip
        assert main(["pitch", "--model", name, *words]) == 1
        assert message in capsys.readouterr().err


def test_it_learns_from_sound_with_curves(name: str, tmp_path: Path) -> None:
    """Two hundred steps on tones of a few pitches; what was held out is better known than before."""
    rng = np.random.default_rng(0)
    for k in range(6):
        hz = np.repeat(rng.choice([150.0, 300.0, 450.0], 8), RATE // 10)
        soundfile.write(tmp_path / f"{k}.wav", 0.5 * np.sin(2 * np.pi * np.cumsum(hz) / RATE), RATE, subtype="FLOAT")
        times = np.arange(0.02, 0.79, 0.02)
        rows = [f"{time:.3f},{hz[round(time * RATE)]:.1f}\n" for time in times]
        (tmp_path / f"{k}.csv").write_text("".join(rows))
    split = {"0": "test", "1": "valid"} | dict.fromkeys("2345", "train")
    (tmp_path / "splits.json").write_text(json.dumps(split))
    before = zoo.evaluate(name, tmp_path)
    tuned = zoo.finetune(name, tmp_path, tmp_path / "run", steps=200, batch_size=32, learning_rate=1e-2)
    after = zoo.evaluate(tuned, tmp_path)
    assert before["pitch_accuracy"] < 0.5
    assert after["pitch_accuracy"] > 0.75
    assert after["loss"] < before["loss"]
    assert isinstance(zoo.load(tmp_path / "run"), Pitch)
    with pytest.raises(zoo.InputError, match="draws nothing"):
        zoo.evaluate(tuned, tmp_path, samples=3)
