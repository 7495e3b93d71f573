"""Beats: the network, bars made of what it says, notes that are played so that it can learn, and files."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import zoo
from tests import sounds
from tests.networks import drawn
from zoo.cli import main
from zoo.data import Song, load_songs, played
from zoo.errors import InputError, WeightsError
from zoo.models import beat_tcn
from zoo.models.beat_tcn import ARCHITECTURE, BeatTCN, Config
from zoo.music import beat_metrics, beats, io
from zoo.music.beats import Beat
from zoo.music.log_mel import LogMelCodec
from zoo.music.score import Score
from zoo.nn import bar_pointer
from zoo.tasks import beats as task
from zoo.tasks.beats import BeatTracker, decode, examples

TINY = Config.tiny()
RNG = np.random.default_rng(0)


def walking(quarters: int = 64, meter: int = 4, qpm: float = 120.0, drums: bool = False) -> Score:
    """A note a quarter, low where a bar begins."""
    at = np.arange(quarters, dtype=np.float64)
    pitch = np.where(at % meter == 0, 36, 42 if drums else 60)
    tempos, meters = np.array([[0.0, qpm]]), np.array([[0.0, meter, 4.0]])
    return Score.of(at, at + 0.5, pitch, is_drum=drums, tempos=tempos, meters=meters, source="walk")


# --- bars of what is heard -------------------------------------------------------------------------------------------


def test_the_path_is_the_likeliest_of_all() -> None:
    """Beside every path through a small model, one by one."""
    meter, shortest, longest, steady, count = 2, 2, 3, 4.0, 7
    lengths = range(shortest, longest + 1)
    p = RNG.uniform(0.05, 0.95, count).astype(np.float32)
    d = (p * RNG.uniform(0.1, 0.9, count)).astype(np.float32)
    log = -steady * np.abs(np.array([[to / of - 1 for to in lengths] for of in lengths]))
    log -= np.log(np.exp(log).sum(axis=1, keepdims=True))

    def likelihood(place: int, age: int, chosen: tuple[int, ...]) -> tuple[float, list[tuple[int, int]]]:
        """Of starting `age` frames into a beat and then giving beats these lengths."""
        total, begun, at = -np.log(meter * sum(lengths)), [], 0
        length, *rest = chosen
        for t in range(count):
            age += 1
            if age == length:
                age, (length, *rest), place = 0, (rest or [length]) if rest else [length], (place + 1) % meter
                total += log[chosen[at] - shortest, length - shortest]
                at += 1
                begun.append((t, place))
            heard = max(p[t] - d[t], 1e-6) if place else d[t]
            total += np.log(heard if age < max(1, length / 16) else (1 - p[t]) / 15)
        return float(total), begun

    ways = [
        likelihood(place, age, chosen)
        for place in range(meter)
        for chosen in product(lengths, repeat=count)
        for age in range(chosen[0])
    ]
    best, begun = max(ways)
    found = bar_pointer.track(p, d, meter, shortest, longest, steady)
    assert found.likelihood == pytest.approx(best, abs=1e-4)
    assert list(zip(found.frames.tolist(), found.places.tolist(), strict=True)) == begun


@pytest.mark.parametrize("meter", [3, 4])
def test_bars_through_a_change_of_tempo_and_silence(meter: int) -> None:
    lengths = np.round(np.linspace(20, 30, 60)).astype(int)
    at = 7 + np.cumsum(lengths)
    heard = np.full((at[-1] + 200, 2), 0.01, np.float32)
    heard[at, 0] = 0.9
    heard[at[2::meter], 1] = 0.8
    heard[at[20:24], 0] = 0.02  # four beats that nobody hears
    found_meter, found = decode(heard, Config(), 0.02)
    assert found_meter == meter
    frames = np.round(np.array([beat.time for beat in found]) / 0.02).astype(int)
    assert len(frames) == len(at)
    assert np.abs(frames - at).max() <= 3
    assert [beat.place for beat in found] == [(i - 2) % meter + 1 for i in range(len(at))]
    assert found[10].confidence > 0.8 > 0.1 > found[21].confidence


def test_nothing_is_heard_in_silence() -> None:
    assert decode(np.full((300, 2), 0.001, np.float32), Config(), 0.02) == (4, [])
    assert decode(np.full((1, 2), 0.9, np.float32), Config(), 0.02)[0] in (3, 4)


# --- the network -----------------------------------------------------------------------------------------------------


def test_it_hears_as_far_as_it_says() -> None:
    model = drawn(BeatTCN, TINY)
    x = jnp.asarray(RNG.uniform(0, 1, (1, 4 * TINY.reach, TINY.bands)), jnp.float32)
    middle = 2 * TINY.reach
    touched = np.abs(jax.grad(lambda x: model(x)[0, middle].sum())(x)[0]).sum(axis=1)
    assert np.flatnonzero(touched).tolist()[0] == middle - TINY.reach
    assert np.flatnonzero(touched).tolist()[-1] == middle + TINY.reach


def test_frames_that_are_not_there_teach_nothing() -> None:
    model = drawn(BeatTCN, TINY)
    batch = ARCHITECTURE.example(TINY, 3, np.random.default_rng(1))
    odds = model(jnp.asarray(batch["x"]))
    changed = dict(batch, beat=np.where(batch["mask"], batch["beat"], 1.0))
    np.testing.assert_array_equal(beat_tcn.cross_entropy(odds, batch)[1], beat_tcn.cross_entropy(odds, changed)[1])
    near = beat_tcn.widened(jnp.zeros((1, 9, 2)).at[0, 4, 0].set(1.0))
    assert near[0, :, 0].tolist() == [0, 0, 0, 0.5, 1, 0.5, 0, 0, 0]
    assert not near[..., 1].any()


def test_colours_leave_silence_silent() -> None:
    x = jnp.concatenate([jnp.zeros((4, 5, 9)), jnp.ones((4, 5, 9))], axis=1)
    found = np.asarray(beat_tcn.coloured(x, jax.random.key(0)))
    assert not found[:, :5].any()
    assert (found >= 0).all()
    assert found[:, 5:].std() > 0.1


def tracker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model with random weights."""
    monkeypatch.setattr("zoo.tasks.model.use_compilation_cache", lambda: None)
    codec = LogMelCodec(sample_rate=8000, hop=160, size=512, bands=TINY.bands, high=3500.0)
    found: Any = SimpleNamespace(name="tiny", architecture=ARCHITECTURE, config=TINY, card=None, codec=codec, facts={})
    return BeatTracker(drawn(BeatTCN, TINY), found)


def test_minute_by_minute_as_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tracker(monkeypatch)
    frames = RNG.uniform(0, 3, (7 * 40 + 11, TINY.bands)).astype(np.float32)
    whole = model.hear(frames)
    assert whole.shape == (len(frames), 2)
    monkeypatch.setattr(task, "PIECE", 40)
    inner = slice(TINY.reach, -TINY.reach)
    np.testing.assert_allclose(model.hear(frames)[inner], whole[inner], atol=1e-5)


def test_a_recording_from_end_to_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tracker(monkeypatch)
    found = model.beats((sounds.drums(6.0, 8000), 8000))
    assert found.seconds == pytest.approx(6.0)
    assert all(0 <= a.time < b.time < 6 for a, b in pairwise(found))
    assert [b.place for b in found if b.place == 1] == [1] * len(found.bars)
    table = json.loads(found.to_json(tmp_path / "a.json"))
    assert len(table["beats"]) == len(found)
    assert table["bars"]["starts"] == [pytest.approx(bar, abs=1e-4) for bar in found.bars]
    assert found.plot(tmp_path / "a.png", "a").read_bytes()[:4] == b"\x89PNG"
    described, lanes = model.describe((sounds.drums(6.0, 8000), 8000))
    assert sorted(described) == ["bars", "beats", "tempo"]
    assert len(lanes) == 2
    again = beats.read(tmp_path / "b.beats") if found.to_lab(tmp_path / "b.beats") else []
    assert [beat.place for beat in again] == [beat.place for beat in found]
    with pytest.raises(InputError, match=r"too short for a spectrum; give at least 0\.020 s"):
        model.beats((np.zeros(50, np.float32), 8000))


# --- the spectrum ----------------------------------------------------------------------------------------------------


def test_features_in_pieces_as_of_the_whole() -> None:
    codec = LogMelCodec(sample_rate=8000, hop=160, size=512, bands=20, high=3500.0)
    sound = sounds.chords(3.0, 8000)
    frames, seconds = codec.features((sound, 8000))
    assert (frames.shape, seconds) == ((151, 20), 3.0)
    assert frames.min() >= 0
    pieces = codec.features((iter(np.split(sound, [1000, 1001, 9000])), 8000)).frames
    np.testing.assert_allclose(pieces, frames, atol=1e-6)
    silent = codec.features((np.zeros(8000, np.float32), 8000)).frames
    assert not silent.any()


# --- beats that are known --------------------------------------------------------------------------------------------


def test_beats_of_notes() -> None:
    found = beats.of_score(walking(7, 3, 60.0))
    assert [(beat.time, beat.place) for beat in found[:5]] == [(0, 1), (1, 2), (2, 3), (3, 1), (4, 2)]
    compound = replace(walking(12), meters=np.array([[0.0, 6.0, 8.0]]))
    assert [(beat.time, beat.place) for beat in beats.of_score(compound)[:4]] == [
        (0, 1),
        (0.75, 2),
        (1.5, 1),
        (2.25, 2),
    ]
    changing = replace(walking(12), meters=np.array([[0.0, 4.0, 4.0], [4.0, 3.0, 4.0]]))
    assert [beat.place for beat in beats.of_score(changing)[:8]] == [1, 2, 3, 4, 1, 2, 3, 1]


def test_who_keeps_to_beats() -> None:
    late = RNG.uniform(-0.04, 0.04, 64)
    human = replace(walking(drums=True), start=np.arange(64) / 3 + late)  # triplets
    assert beats.keeps_beats(human)
    assert beats.keeps_beats(walking())
    lost = np.sort(RNG.uniform(0, 64, 64))
    assert not beats.keeps_beats(replace(walking(), start=lost))
    assert not beats.keeps_beats(replace(walking(drums=True), start=lost))


def test_beat_files(tmp_path: Path) -> None:
    path = tmp_path / "a.beats"
    path.write_text("0.5\t1\n1.0 2\n\n1.5\n")
    assert beats.read(path) == [Beat(0.5, 1), Beat(1.0, 2), Beat(1.5, 1)]
    assert beats.to_text(beats.read(path)) == "0.500\t1\n1.000\t2\n1.500\t1\n"
    for text in ("", "one two", "2.0 1\n1.0 2", "nan 1", "1 inf"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"a\.beats: "):
            beats.read(path)
    with pytest.raises(InputError, match="no beats can be read"):
        beats.read(tmp_path / "none.beats")


# --- notes that are played -------------------------------------------------------------------------------------------


def written(folder: Path, count: int = 3, **options: Any) -> list[Path]:
    paths = [folder / f"{i}.mid" for i in range(count)]
    for i, path in enumerate(paths):
        io.write_midi(walking(qpm=100.0 + 10 * i, **options), path)
    return paths


def test_what_is_played_has_its_beats_where_they_sound(tmp_path: Path) -> None:
    (path,) = written(tmp_path, 1, drums=True)
    sound, found = played.play(path, "a name", 10.0)
    assert 9 < len(sound) / played.RATE < 13
    assert [beat.place for beat in found[:5]] == [1, 2, 3, 4, 1]
    loud = np.abs(sound[: len(sound) // 100 * 100]).reshape(-1, 100).max(axis=1)  # 4.5 ms
    for beat in found[1:-1]:
        at = round(beat.time * played.RATE / 100)
        assert loud[at : at + 8].max() > 5 * loud[at - 12 : at - 2].max()
    same, other = (played.play(path, name, 10.0) for name in ("a name", "another"))
    np.testing.assert_array_equal(same.samples, sound)
    assert other.beats[1] != found[1]  # at another tempo


def test_some_are_accompanied(tmp_path: Path) -> None:
    arranged = [played.arranged(walking(), np.random.default_rng(seed)) for seed in range(20)]
    drummed = [score.is_drum.any() for score in arranged]
    assert 4 < sum(drummed) < 18
    assert len({tuple(score.program.tolist()) for score in arranged}) > 5
    drums = next(score for score in arranged if score.is_drum.any())
    kicks = drums.start[drums.is_drum & (drums.pitch == played.KICK)]
    assert np.abs(kicks * 4 - np.round(kicks * 4)).max() < 0.2
    io.write_midi(Score.of(np.sort(RNG.uniform(0, 60, 200)), 61.0, 60), tmp_path / "lost.mid")
    with pytest.raises(InputError, match="don't keep to its beats"):
        played.play(tmp_path / "lost.mid", "lost", 10.0)


def test_an_excerpt_begins_with_a_bar() -> None:
    score = replace(walking(400), tempos=np.array([[0.0, 120.0], [350.0, 60.0]]))
    found = played.excerpt(score, 20.0)
    assert found.pitch[0] == 36
    assert found.start[0] == 0
    assert found.quarters == pytest.approx(40, abs=1)
    np.testing.assert_array_equal(found.tempos[0], [0.0, 120.0])
    late = played.excerpt(replace(walking(400), tempos=np.array([[0.0, 120.0], [100.0, 60.0]])), 20.0)
    assert late.tempos.tolist() == [[0.0, 60.0]]


def test_folders_of_sound_and_of_notes(tmp_path: Path) -> None:
    codec = LogMelCodec(sample_rate=8000, hop=160, size=512, bands=TINY.bands, high=3500.0)
    written(tmp_path, 2, drums=True)
    for name in ("told", "untold"):
        soundfile.write(tmp_path / f"{name}.wav", sounds.drums(4.0, 8000), 8000)
    (tmp_path / "told.beats").write_text("".join(f"{i / 2} {i % 4 + 1}\n" for i in range(8)))
    found = load_songs(tmp_path, codec, lambda song: examples(song, TINY))
    assert sum(map(len, found.names.values())) == 3
    assert [name for name, _ in found.skipped] == ["untold.wav"]
    assert "untold.beats" in found.skipped[0][1]
    assert found.train["x"].shape[1:] == (TINY.steps, TINY.bands)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither sound with \.beats files beside it nor files of notes"):
        load_songs(tmp_path / "empty", codec, lambda song: examples(song, TINY))


def test_examples_say_where_beats_are() -> None:
    frames = np.ones((95, TINY.bands), np.float32)
    told = tuple(Beat(0.02 * at, 1 + i % 2) for i, at in enumerate((3, 13, 23, 94)))
    song = Song("a", frames, 0.02, 1.9, {}, (), told)
    found = examples(song, TINY)
    assert found["x"].shape == (2, 40, TINY.bands)  # 15 frames are less than half a window
    assert np.flatnonzero(found["beat"].ravel()).tolist() == [3, 13, 23]
    assert np.flatnonzero(found["downbeat"].ravel()).tolist() == [3, 23]
    longer = examples(replace(song, frames=np.ones((105, TINY.bands), np.float32)), TINY)
    assert longer["mask"].sum() == 105
    assert longer["mask"].shape == (3, 40)
    with pytest.raises(InputError, match="no beats beside it"):
        examples(replace(song, beats=()), TINY)


def test_evaluation_needs_songs_with_beats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tracker(monkeypatch)
    told = tuple(Beat(i / 2, 1 + i % 4) for i in range(24))
    songs = [Song("a", RNG.uniform(0, 1, (600, TINY.bands)).astype(np.float32), 0.02, 12.0, {}, (), told)]
    monkeypatch.setattr(task, "read_songs", lambda *args: iter(songs))
    assert set(task.evaluate(model, tmp_path)) == {"beat_f1", "downbeat_f1", "cmlt", "amlt", "songs"}
    songs = [replace(songs[0], beats=())]
    with pytest.raises(InputError, match="falls into test"):
        task.evaluate(model, tmp_path)


# --- measures --------------------------------------------------------------------------------------------------------


def test_measures_of_beats() -> None:
    true = [Beat(0.5 * i, 1 + i % 4) for i in range(60)]
    assert beat_metrics.compare(true, true) == {"beat_f1": 1, "downbeat_f1": 1, "cmlt": 1, "amlt": 1}
    half = beat_metrics.compare(true, true[::2])
    assert (half["cmlt"], half["amlt"]) == (0, pytest.approx(1, abs=0.05))
    turned = beat_metrics.compare(true, [beat._replace(place=1 + (i + 2) % 4) for i, beat in enumerate(true)])
    assert (turned["beat_f1"], turned["downbeat_f1"]) == (1, 0)
    assert set(beat_metrics.compare(true, []).values()) == {0.0}
    assert beat_metrics.measurable(true)
    assert not beat_metrics.measurable(true[:13])  # six seconds


# --- the trained model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Any:
    try:
        return zoo.load("beat-tcn")
    except (WeightsError, InputError) as error:
        pytest.skip(f"needs the weights: {error}")


def test_a_drum_machine_is_at_120(trained: Any) -> None:
    assert trained.beats((sounds.drums(16.0), sounds.RATE)).tempo == pytest.approx(120, abs=1.5)


@pytest.mark.parametrize("drums", [False, True])
def test_bars_of_music_it_has_not_heard(trained: Any, drums: bool) -> None:
    """Eight bars at 120: a bass that walks, alone or with a drummer."""
    from zoo.show.audio import render

    score = walking(64)
    score = played.with_drums(score, np.random.default_rng(3)) if drums else score
    found = trained.beats((render(score, played.RATE).mean(axis=1), played.RATE))
    assert beat_metrics.compare(beats.of_score(score), found.beats)["beat_f1"] > 0.9


def test_zoo_beats(trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "drums.wav"
    soundfile.write(path, sounds.drums(8.0), sounds.RATE)
    assert main(["beats", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 14
    assert main(["beats", str(path), "--out", str(tmp_path / "labels")]) == 0
    assert sorted(file.name for file in (tmp_path / "labels").iterdir()) == ["drums.beats", "drums.json", "drums.png"]
    assert main(["beats", str(tmp_path / "nothing.wav")]) != 0
    assert "no such file" in capsys.readouterr().err
