"""Which notes are the melody: the codec, the baseline, the task, and `zoo melody`, on a model that learned nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import shared
from tests.networks import drawn
from zoo.cli import main
from zoo.errors import InputError
from zoo.models.melody_transformer import Config, MelodyTransformer, attention, loss, probabilities
from zoo.music import io
from zoo.music.codecs import get_codec
from zoo.music.melody_notes import (
    BARLESS,
    FEATURES,
    LABEL,
    PAST,
    SIZES,
    MelodyNotesCodec,
    of_ratio_scale,
    ratio_scale,
    skyline,
)
from zoo.music.score import Score
from zoo.tasks.melody import MelodyFinder, decide, rates
from zoo.tasks.model import dotted
from zoo.weights.formats import safetensors

SMALL = Config(units=16, layers=2, heads=2, hidden=32, steps=16)


def song(notes: int = 24, names: tuple[str, ...] = ("Melody", "Piano")) -> Score:
    """A melody in quarters over chords of two notes in halves, the chords' upper notes sometimes above it."""
    rng = np.random.default_rng(0)
    at = np.arange(notes, dtype=np.float64)
    low = np.repeat(at[::2], 2)
    tune, chords = rng.integers(60, 70, notes), np.tile([48, 71], len(low) // 2)
    return Score.of(
        np.concatenate([at, low]),
        np.concatenate([at + 0.9, low + 1.9]),
        np.concatenate([tune, chords]),
        track=np.repeat([0, 1], [notes, len(low)]),
        track_names=names,
        source="song.mid",
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned nothing."""
    rng = np.random.default_rng(0)
    shapes = nnx.state(nnx.eval_shape(lambda: MelodyTransformer(SMALL, rngs=nnx.Rngs(0))))
    tensors = {
        dotted(path): rng.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in nnx.to_flat_state(shapes)
    }
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    codec = {"name": "melody-notes", "notes": 16}
    safetensors.write(path, tensors, {"architecture": "melody-transformer", "config": asdict(SMALL), "codec": codec})
    return path


@pytest.fixture(scope="module")
def model(tiny: Path) -> MelodyFinder:
    loaded = zoo.load(tiny)
    assert isinstance(loaded, MelodyFinder)
    return loaded


# --- the codec -------------------------------------------------------------------------------------------------------


def test_numbers_of_a_note() -> None:
    """A chord of three under a held note, by hand."""
    score = Score.of([0, 1.25, 1.25, 1.25], [3, 2, 2, 1.5], [80, 60, 64, 67], track=[0, 1, 1, 1], track_names=("M",))
    notes = MelodyNotesCodec(track="^m$").sequence(score).notes
    columns = {name: notes[:, i].tolist() for i, name in enumerate(FEATURES)}
    assert columns["pitch"] == [80, 60, 64, 67]
    assert columns["position"] == [0, 5, 5, 5]
    assert columns["above"] == [0, 4, 3, 13]
    assert columns["below"] == [0, 0, 4, 3]
    assert columns["higher"] == [0, 3, 2, 1]
    assert columns["since"] == [0, ratio_scale(15), 0, 0]
    assert columns["length"] == ratio_scale([36, 9, 9, 3]).tolist()
    assert notes[:, LABEL].tolist() == [1, 0, 0, 0]
    assert (notes[:, :LABEL] < SIZES).all()


def test_scale_of_ratios() -> None:
    cells = np.array([0, 1, 2, 4, 12, 48, 10**9])
    assert ratio_scale(cells).tolist() == [0, 1, 5, 9, 15, 23, 31]
    back = of_ratio_scale(ratio_scale(cells[:-1]))
    np.testing.assert_allclose(back[1:] / cells[1:-1], 1, atol=0.1)


def test_tracks_and_velocities_are_not_seen() -> None:
    """The same notes in other tracks, in another order, struck otherwise, give the same numbers but for the label."""
    score, codec = song(), MelodyNotesCodec()
    rng = np.random.default_rng(1)
    order = rng.permutation(len(score))
    columns = (score.start, score.end, score.pitch)
    other = Score.of(*(c[order] for c in columns), velocity=rng.integers(1, 128, len(score)), track=0)
    a, b = codec.sequence(score).notes, codec.sequence(other).notes
    np.testing.assert_array_equal(a[:, :LABEL], b[:, :LABEL])
    assert (b[:, LABEL] == PAST).all()


def test_doubled_notes_are_one() -> None:
    """Of the same onset and pitch the longest; it is the melody's if any is. In other orders too."""
    for tracks in ([0, 1], [1, 0]):
        score = Score.of([0, 0, 1], [1, 2, 2], [60, 60, 55], track=[*tracks, 1], track_names=("Lead", "Piano"))
        sequence = MelodyNotesCodec().sequence(score)
        assert sequence.notes[:, LABEL].tolist() == [1, 0]
        assert score.end[sequence.which].tolist() == [2, 2]


def test_pieces_without_a_grid() -> None:
    score, codec = song(), MelodyNotesCodec()
    loose = replace(score, start=score.start * 1.03, end=score.end * 1.03)
    position = FEATURES.index("position")
    assert (codec.sequence(loose).notes[:, position] == BARLESS).all()
    three = replace(score, meters=np.array([[0.0, 3, 4], [6.0, 4, 4]]))
    at = codec.sequence(three)
    melody = at.notes[at.notes[:, LABEL] == 1][:11, position]
    assert melody.tolist() == [0, 4, 8, 0, 4, 8, 0, 4, 8, 12, 0]


def test_windows_cover_and_join() -> None:
    """Every note is in a window, and what is found of windows goes back to its notes."""
    codec = MelodyNotesCodec(notes=16)
    for count in (1, 2, 15, 16, 17, 24, 33, 100):
        notes = np.arange(count * (LABEL + 1), dtype=np.int32).reshape(count, -1)
        windows = codec.cut(notes)
        assert windows.shape[1:] == (16, LABEL + 1)
        assert (windows[-1, :, LABEL] != PAST).any()
        np.testing.assert_allclose(codec.joined(windows[..., 0], count), notes[:, 0])


def test_transposed_windows() -> None:
    windows = MelodyNotesCodec(notes=16).windows(song())
    moved = MelodyNotesCodec().transpose(windows, np.full(len(windows), 100))
    there = windows[..., LABEL] != PAST
    assert moved[..., 0].max() == 127
    assert (moved[~there] == windows[~there]).all()
    np.testing.assert_array_equal(moved[..., 1:], windows[..., 1:])
    shift = (moved - windows)[..., 0]
    assert all(len(np.unique(row[seen])) == 1 for row, seen in zip(shift, there, strict=True))


def test_window_back_to_notes() -> None:
    codec, score = MelodyNotesCodec(notes=64), song(8)
    again = codec.decode(codec.windows(score)[0])
    np.testing.assert_array_equal(again.pitch, score.pitch)
    np.testing.assert_allclose(again.start, score.start, rtol=0.1)
    np.testing.assert_array_equal(again.track, score.track)
    np.testing.assert_allclose(again.end - again.start, score.end - score.start, rtol=0.12)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (Score.of([], [], [], source="a.mid"), r"^a\.mid: no pitched note"),
        (Score.of([0], [1], [40], is_drum=True, source="a.mid"), r"^a\.mid: no pitched note"),
        (song(names=("Right", "Left")), r"^song\.mid: no track is called a melody"),
        (song(names=("Melody", "Melody 2")), r"^song\.mid: no track but the melody"),
    ],
)
def test_what_teaches_nothing(score: Score, message: str) -> None:
    with pytest.raises(InputError, match=message):
        get_codec("melody-notes").windows(score)


def test_skyline() -> None:
    """The highest of each onset; with `held` not below what still sounds."""
    score = Score.of([0, 0, 1, 1, 2], [2, 1, 2, 2, 3], [72, 60, 64, 67, 65])
    sequence = MelodyNotesCodec().sequence(score)
    assert score.pitch[sequence.which][skyline(sequence)].tolist() == [72, 67, 65]
    assert score.pitch[sequence.which][skyline(sequence, held=True)].tolist() == [72, 65]


# --- the network -----------------------------------------------------------------------------------------------------


def test_what_is_missing_does_not_matter() -> None:
    """Probabilities of notes are those of a window that ends with them; nothing looks at what isn't there."""
    network = drawn(MelodyTransformer, SMALL)
    x = jnp.asarray(MelodyNotesCodec(notes=16).windows(song(5))[:1])
    count = int((x[0, :, LABEL] != PAST).sum())
    assert count < 16
    whole, short = (np.asarray(probabilities(network, each)) for each in (x, x[:, :count]))
    np.testing.assert_allclose(whole[:, :count], short, atol=1e-5)
    weights = np.asarray(attention(network, x))
    assert weights.shape == (1, 2, 2, 16, 16)
    assert weights[..., count:].max() == 0
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


def test_labels_are_not_seen() -> None:
    network = drawn(MelodyTransformer, SMALL)
    x = jnp.asarray(MelodyNotesCodec(notes=16).windows(song(24))[:1])
    other = x.at[..., LABEL].set(jnp.where(x[..., LABEL] == PAST, PAST, 1 - x[..., LABEL]))
    np.testing.assert_array_equal(probabilities(network, x), probabilities(network, other))
    assert float(loss(network, {"x": x}, jax.random.key(0), jnp.int32(0))[0]) != pytest.approx(
        float(loss(network, {"x": other}, jax.random.key(0), jnp.int32(0))[0])
    )


# --- the task --------------------------------------------------------------------------------------------------------


def test_decisions() -> None:
    """Above the threshold, the likeliest of an onset alone."""
    sequence = MelodyNotesCodec().sequence(Score.of([0, 0, 1, 1, 2], [1, 1, 2, 2, 3], [60, 64, 60, 64, 60]))
    likely = np.array([0.9, 0.6, 0.3, 0.4, 0.7])
    assert decide(sequence, likely).tolist() == [True, False, False, False, True]
    assert decide(sequence, likely, 0.2).tolist() == [True, False, False, True, True]


def test_rates() -> None:
    assert rates(np.array([3, 4, 6, 16, 20])) == pytest.approx(
        {"f1": 0.6, "precision": 0.75, "recall": 0.5, "accuracy": 0.8}
    )
    assert rates(np.zeros(5))["f1"] == 0


def test_find(model: MelodyFinder) -> None:
    """Parts of a piece, and a model that doesn't care how its windows lie side by side in a batch."""
    score = song(100)
    found = model.find(score)
    assert len(found.melody) + len(found.accompaniment) == len(score)
    assert (found.probability[found.chosen] > 0.5).all()
    np.testing.assert_array_equal(model.melody(score).pitch, found.melody.pitch)
    assert [note["pitch"] for note in found.table()] == found.melody.pitch.tolist()
    assert len(model.find(score, threshold=1.0).melody) == 0
    unnamed = replace(score, track_names=())
    np.testing.assert_array_equal(model.find(unnamed).probability, found.probability)


def test_measure(model: MelodyFinder) -> None:
    """Beside the skyline; a piece whose melody nobody names counts for nothing."""
    one = model.measure([song()])
    assert one.keys() == {
        f"{who}{what}"
        for who in ("", "skyline_", "skyline_held_")
        for what in ("f1", "precision", "recall", "accuracy")
    }
    assert 0.4 < one["skyline_f1"] < 1
    assert model.measure([song(), song(names=())]) == one
    assert model.measure([]) == {}


def test_attention(model: MelodyFinder, tmp_path: Path) -> None:
    looked = model.attention(song(100), window=1)
    assert looked.weights.shape == (2, 2, 16, 16)
    assert len(looked.rows) == len(looked.row_labels) == 16
    assert looked.rows[0] > 0
    assert looked.plot(tmp_path / "a.png").is_file()
    with pytest.raises(InputError, match="no window 99"):
        model.attention(song(100), window=99)


# --- the command line ------------------------------------------------------------------------------------------------


def test_melody_of_a_folder(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of all kinds; one that can't be read stops none."""
    (tmp_path / "in").mkdir()
    io.write_midi(song(), tmp_path / "in" / "song.mid")
    (tmp_path / "in" / "tune.abc").write_text("X:1\nK:C\nCDEF GABc|\n")
    (tmp_path / "in" / "bad.mid").write_text("no notes")
    out = tmp_path / "out"
    command = ["melody", str(tmp_path / "in"), "--model", str(tiny), "--out", str(out), "--json"]
    assert main([*command, "--attention", str(tmp_path / "looked")]) == 1
    said = capsys.readouterr()
    assert "bad.mid: not MIDI" in said.err
    assert said.err.splitlines()[-1] == "zoo: error: 1 of 3 files failed, as told above"
    told = json.loads(said.out)
    assert sorted(Path(name).name for name in told) == ["song.mid", "tune.abc"]
    names = [f"song{end}" for end in ("-accompaniment.mid", "-melody.mid", ".json", ".png")]
    assert sorted(path.name for path in out.glob("song*")) == names
    assert (tmp_path / "looked" / "tune-attention.png").is_file()
    parts = [io.read(out / f"song-{part}.mid") for part in ("melody", "accompaniment")]
    assert sum(map(len, parts)) == len(song())
    written = json.loads((out / "song.json").read_text())
    assert written["melody"] == told[str(tmp_path / "in" / "song.mid")]["notes"]
    assert len(written["melody"]) == len(parts[0])


def test_mistakes(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["melody", str(tmp_path / "none.mid"), "--model", str(tiny)]) == 1
    assert "none.mid: no such file" in capsys.readouterr().err
    assert main(["melody", "x.mid", "--model", "music-vae"]) == 1
    assert "not for melody" in capsys.readouterr().err
    (tmp_path / "void").mkdir()
    assert main(["melody", str(tmp_path / "void"), "--model", str(tiny)]) == 1
    assert "no files of notes in it" in capsys.readouterr().err


@pytest.mark.slow
def test_published_weights() -> None:
    """On unseen songs the published model is far better than the skyline."""
    found = zoo.evaluate("melody-transformer/pop909", shared.path("data/pop909.tar.gz"), limit=24)
    assert found["f1"] > 0.69
    assert found["f1"] > max(found["skyline_f1"], found["skyline_held_f1"]) + 0.1
