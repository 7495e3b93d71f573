"""Train, fine-tune and evaluate through the front door, on a folder of music made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo.music import io
from zoo.music.midi import midi_bytes
from zoo.music.score import Score
from zoo.training.params import flatten

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve melodies of eight bars, split by splits.json, a file of noise and one of no notes."""
    root = tmp_path_factory.mktemp("music")
    split = {f"{k}.mid": "valid" if k in (0, 1) else "test" if k in (2, 3) else "train" for k in range(12)}
    (root / "splits.json").write_text(json.dumps(split))
    for k in range(12):
        rng = np.random.default_rng(k)
        pitch = 60 + rng.choice([0, 2, 4, 5, 7, 9, 11, 12], 64)
        (root / f"{k}.mid").write_bytes(midi_bytes(Score.of(np.arange(64) / 2, np.arange(64) / 2 + 0.5, pitch)))
    (root / "noise.mid").write_bytes(b"MThd nonsense")
    (root / "empty.mid").write_bytes(midi_bytes(Score.of([], [], [])))
    return root


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_train_by_the_recipe_and_load_the_run(tiny_model, folder, tmp_path):
    model = zoo.train(tiny_model, folder, tmp_path / "run")
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "recipe.toml", "metrics.jsonl", "curve.png", "best.safetensors"} <= written
    skipped = (tmp_path / "run" / "skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in skipped] == ["empty.mid", "noise.mid"]
    np.testing.assert_array_equal(model.sample_windows(2), zoo.load(tmp_path / "run").sample_windows(2))
    prior, codec = model.module.prior, model.codec
    mean, scale = model.posterior(np.concatenate([codec.windows(io.read(folder / f"{k}.mid")) for k in range(4, 12)]))
    np.testing.assert_allclose(prior.mean[...], mean.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(
        np.sum(prior.factor[...] ** 2, axis=0), mean.var(axis=0) + np.mean(scale**2, axis=0), 1e-4
    )
    with pytest.raises(zoo.TrainingError, match=r"steps|recipe"):
        zoo.train(tiny_model, folder, tmp_path / "run", steps=5)


def test_finetuning_starts_from_the_weights_and_freezes_what_it_is_told(tiny_model, folder, tmp_path):
    base = zoo.load(tiny_model)
    tuned = zoo.finetune(tiny_model, folder, tmp_path / "run", steps=3, batch_size=4, freeze=["encoder.*"])
    before, after = flatten(base.state), flatten(tuned.state)
    for name in before:
        same = np.array_equal(before[name], after[name])
        assert same == name.startswith("encoder."), name


def test_lora_changes_kernels_only_a_little_and_nothing_else(tiny_model, folder, tmp_path):
    base = zoo.load(tiny_model)
    tuned = zoo.finetune(tiny_model, folder, tmp_path / "run", steps=3, batch_size=4, lora=2)
    before, after = flatten(base.state), flatten(tuned.state)
    for name in before:
        difference = np.asarray(after[name]) - np.asarray(before[name])
        if name.startswith("prior."):  # fitted to the folder
            assert difference.any(), name
        elif difference.ndim == 2:
            assert np.linalg.matrix_rank(difference, tol=1e-6) <= 2, name
        else:
            assert not difference.any(), name


def test_finetuning_pays_at_once(tiny_model, folder, tmp_path):
    before = zoo.evaluate(tiny_model, folder, split="valid")
    options = {"steps": 150, "batch_size": 16, "learning_rate": 1e-2}
    after = zoo.evaluate(zoo.finetune(tiny_model, folder, tmp_path / "run", **options), folder, split="valid")
    assert after["nll"] < 0.7 * before["nll"]


def test_evaluate_says_how_samples_compare_with_held_out_music(tiny_model, folder):
    found = zoo.evaluate(tiny_model, folder, split="train", samples=8, limit=10)
    assert found["nll"] > 0
    assert found["kl"] >= 0
    assert 0 <= found["sampled"] <= 1
    assert found["real_copied"] == 1.0  # of the training split itself
    assert 0 <= found["pitch_class_overlap"] <= 1
    assert found["real_density"] > 0


def test_errors_name_the_folder_and_the_mend(tiny_model, folder, tmp_path):
    with pytest.raises(zoo.InputError, match="no split 'tset'"):
        zoo.evaluate(tiny_model, folder, split="tset")
    with pytest.raises(zoo.InputError, match="nowhere: no such folder"):
        zoo.finetune(tiny_model, tmp_path / "nowhere", tmp_path / "run")
    (tmp_path / "void").mkdir()
    with pytest.raises(zoo.InputError, match="void: no files of notes"):
        zoo.train(tiny_model, tmp_path / "void", tmp_path / "run")
    with pytest.raises(zoo.TrainingError, match=r"encodr"):
        zoo.finetune(tiny_model, folder, tmp_path / "run", freeze=["encodr.*"])
