"""Tagging as a task: files, streams, bad input, the command line; on a tiny model with random weights."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

import zoo
from tests.sounds import RATE, chords, drums
from tests.test_musicnn import drawn
from zoo.cli import main
from zoo.errors import InputError
from zoo.models.musicnn import ARCHITECTURE, Config
from zoo.music.codecs import get_codec
from zoo.tasks.heads import embedded
from zoo.tasks.model import Found
from zoo.tasks.tags import Taggram, Tags, joined
from zoo.training.params import flatten

CONFIG = replace(Config.tiny(), size=512, hop=256)
SECONDS = CONFIG.seconds


@pytest.fixture(scope="module")
def model() -> Tags:
    facts = {"architecture": "musicnn", "config": asdict(CONFIG), "codec": {"name": "audio", "sample_rate": RATE}}
    codec = get_codec("audio", sample_rate=RATE)
    return Tags(drawn(CONFIG), Found("tiny", ARCHITECTURE, CONFIG, codec, facts, dict))


@pytest.fixture(scope="module")
def saved(model: Tags, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model.save(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


def test_tag(model: Tags) -> None:
    sound = (chords(2.0), RATE)
    taggram = model.taggram(sound)
    assert taggram.values.shape == (int(2.0 / SECONDS), 3)
    np.testing.assert_allclose(taggram.times, SECONDS * np.arange(len(taggram)))
    tags = model.tag(sound, top=2)
    assert len(tags) == 2
    assert tags[0][1] >= tags[1][1]
    assert dict(tags)[tags[0][0]] == pytest.approx(taggram.values.mean(axis=0).max())
    assert len(model.tag(sound, top=50)) == 3


def test_hop(model: Tags) -> None:
    """Patches that overlap begin a hop apart, and those that also begin where another taggram's do are the same."""
    sound = (chords(2.0), RATE)
    sparse, dense = model.taggram(sound), model.taggram(sound, hop=(CONFIG.frames / 2 * 256 + 256) / RATE)
    np.testing.assert_allclose(np.diff(dense.times), SECONDS / 2)
    np.testing.assert_allclose(dense.values[::2], sparse.values, atol=1e-6)
    with pytest.raises(InputError, match="shorter than a frame"):
        model.taggram(sound, hop=0.01)


@pytest.mark.parametrize("cuts", [1, 3, 700, 40000])
def test_a_stream_is_the_whole(model: Tags, cuts: int) -> None:
    """In chunks of any size, to the bit; a patch comes with the chunk that completes it."""
    sound = chords(1.5)[: 3000 if cuts < 100 else None]
    pieces = list(model.stream((sound[at : at + cuts] for at in range(0, len(sound), cuts)), RATE, hop=0.2))
    whole = model.taggram((sound, RATE), hop=0.2)
    np.testing.assert_array_equal(joined(pieces).values, whole.values)
    np.testing.assert_array_equal(joined(pieces).times, whole.times)


def test_latency(model: Tags) -> None:
    """The first patch needs half a window less sound than its length."""
    given = 0

    def chunks() -> Any:
        nonlocal given
        for at in range(0, len(sound), 256):
            given = at + 256
            yield sound[at : at + 256]

    sound = chords(2.0)
    next(model.stream(chunks(), RATE))
    assert given == CONFIG.window - CONFIG.size // 2


def test_short_sound_is_repeated(model: Tags) -> None:
    short = chords(0.2)
    long = np.resize(short, (CONFIG.frames - 1) * 256)
    np.testing.assert_array_equal(model.taggram((short, RATE)).values, model.taggram((long, RATE)).values)
    assert model.taggram((np.ones(1, np.float32), RATE)).values.shape == (1, 3)


def test_another_length_compiles_nothing(model: Tags) -> None:
    model.tag((chords(1.0), RATE))
    model.embed((chords(1.0), RATE))
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    try:
        model.tag((chords(1.7), RATE))
        model.embed((chords(0.1), RATE))
    finally:
        jax.monitoring.clear_event_listeners()
    assert [event for event in compiled if "compile" in event] == []


def test_embed(model: Tags) -> None:
    sound = (chords(2.0), RATE)
    patches = len(model.taggram(sound))
    assert model.embed(sound).shape == (patches, CONFIG.units)
    assert model.embed(sound, "cnn1").shape == (patches, CONFIG.frames, CONFIG.middle)
    pooled = model.embed(sound, "cnn3").mean(axis=1)
    np.testing.assert_allclose(model.embed(sound, "mean_pool")[:, -CONFIG.middle :], pooled, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"has no layer 'last'; there are cnn1, .*penultimate"):
        model.embed(sound, "last")


def test_taggram_as_json_and_png(model: Tags, tmp_path: Path) -> None:
    taggram = model.taggram((chords(2.0), RATE))
    table = json.loads(taggram.to_json(tmp_path / "t.json"))
    assert table == json.loads((tmp_path / "t.json").read_text())
    np.testing.assert_allclose(table["values"], taggram.values, atol=1e-5)
    assert taggram.plot(tmp_path / "t.png", "a title").read_bytes().startswith(b"\x89PNG")
    one = Taggram(("a",), np.zeros(1), 3.0, np.ones((1, 1), np.float32))
    assert one.plot(tmp_path / "one.png").stat().st_size > 1000


def test_analysis(model: Tags) -> None:
    """On the time line of `zoo.analyze` the likeliest tag is on top."""
    table, (lane,) = model.describe((chords(2.0), RATE))
    taggram = model.taggram((chords(2.0), RATE))
    assert lane.names[-1] == taggram.top(1)[0][0]
    np.testing.assert_array_equal(lane.values[:, -1], taggram.values[:, taggram.tags.index(lane.names[-1])])
    assert len(table["times"]) == len(taggram)


def test_command_line(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of files at other rates and with two channels; what can't be read is said, and the rest is done."""
    folder = tmp_path / "album"
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.stack([chords(1.0, 44100)] * 2, axis=1), 44100)
    soundfile.write(folder / "b.flac", chords(1.0, 8000), 8000)
    assert main(["tag", str(folder), "--model", saved, "--top", "2", "--json", "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(Path(file).name, len(tags)) for file, tags in found.items()] == [("a.wav", 2), ("b.flac", 2)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png", "b.json", "b.png"]

    (folder / "c.wav").write_text("not a sound")
    assert main(["tag", str(folder), "--model", saved]) == 1
    said = capsys.readouterr()
    assert "a.wav" in said.out
    assert "c.wav: can't be read as audio" in said.err
    assert said.err.strip().endswith("1 of 3 files failed, as told above")


# --- classes of one's own ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in what they sound like, 10 files each; split by a file."""
    folder, splits = tmp_path_factory.mktemp("classes"), {}
    for number in range(10):
        for name, sound in (("chords", chords), ("drums", drums)):
            (folder / name).mkdir(exist_ok=True)
            path = folder / name / f"{number}.wav"
            soundfile.write(path, np.roll(sound(1.2), 1000 * number), RATE)
            splits[f"{name}/{number}.wav"] = "train" if number < 6 else "valid" if number < 8 else "test"
    (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def test_learning_classes(saved: str, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the last layer learns, the classes' names go into the run, and it tells them apart in other files."""
    options = ["--steps", "60", "--batch-size", "8", "--learning-rate", "0.03"]
    run = str(tmp_path / "run")
    assert main(["finetune", saved, "--data", str(classes), "--out", run, *options]) == 0
    assert f"zoo tag FILE --model {run}" in capsys.readouterr().out
    tuned = zoo.load(run)
    assert tuned.config.tags == ("chords", "drums")
    before, after = (flatten(nnx.state(zoo.load(name).module)) for name in (saved, run))
    changed = {name for name in before if name.startswith("output") or not np.array_equal(before[name], after[name])}
    assert changed == {"output.kernel", "output.bias"}

    measured = zoo.evaluate(run, classes, split="test")
    assert measured["accuracy"] > 0.8
    assert measured["loss"] < np.log(2)
    (best, likelihood), (_, other) = tuned.tag(classes / "drums" / "9.wav")
    assert best == "drums"
    assert likelihood + other == pytest.approx(1)

    again = zoo.finetune(run, classes, tmp_path / "again", steps=1, batch_size=8, learning_rate=1e-6)
    np.testing.assert_allclose(again.module.output.kernel[...], tuned.module.output.kernel[...], atol=1e-5)


@pytest.mark.slow
def test_all_of_it_can_learn(saved: str, classes: Path, tmp_path: Path) -> None:
    tuned = zoo.finetune(saved, classes, tmp_path / "run", steps=2, batch_size=4, freeze=())
    assert not np.array_equal(zoo.load(saved).module.dense.kernel[...], tuned.module.dense.kernel[...])


def test_classes_that_can_not_be(saved: str, classes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answers loud, soft, high, and the folders are chords, drums; fine-tune it"):
        zoo.evaluate(saved, classes)
    (tmp_path / "alone" / "drums").mkdir(parents=True)
    soundfile.write(tmp_path / "alone" / "drums" / "a.wav", drums(1.0), RATE)
    with pytest.raises(InputError, match="one class alone"):
        zoo.finetune(saved, tmp_path / "alone", tmp_path / "run", steps=1)


def test_embeddings_are_those_of_the_network(model: Tags) -> None:
    """Learning from embeddings worked out before is learning from sound: the same loss."""
    head = ARCHITECTURE.head
    assert head is not None
    batch = ARCHITECTURE.example(CONFIG, 5, np.random.default_rng(0))
    examples = embedded(model.module, head, batch)
    measure = model.jit(lambda module, batch: ARCHITECTURE.evaluate(module, batch, jax.random.key(0)))
    one, other = (measure({name: jnp.asarray(rows) for name, rows in each.items()}) for each in (batch, examples))
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-5)
