"""Every model of sound, given what is not quite sound: a right answer, or one clear line.

Models are found, not named: each architecture whose task describes recordings is tried in its small configuration, with
random weights and the input that its family's card says.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from flax import nnx

from tests.sounds import chords
from tests.test_analyze import CODEC
from tests.test_conformance import architectures
from zoo import registry
from zoo.errors import InputError
from zoo.models import beat_tcn
from zoo.models.architecture import Architecture
from zoo.music.codecs import get_codec
from zoo.tasks.model import Description, Found, Model, dotted, fill

RATE = 22050
SOUND = np.round(chords(0.8, RATE) * 2.0**20).astype(np.float32) / np.float32(2.0**20)  # exact in 24 bits
SMALL_CODECS: dict[str, dict[str, Any]] = {  # for small configurations that don't take their card's
    "chord-crema": CODEC,
    "beat-tcn": {"name": "log-mel", "bands": beat_tcn.Config.tiny().bands},
}


def hears(architecture: Architecture) -> bool:
    """Whether it says something of recordings; others read notes."""
    if not hasattr(importlib.import_module(f"zoo.tasks.{architecture.task}").Task, "describe"):
        return False
    codec = registry.info(architecture.name).codec
    return get_codec(codec.name, **codec.options).kind == "audio"


HEARING = [architecture for architecture in architectures() if hears(architecture)]


@pytest.fixture(scope="module", params=HEARING, ids=lambda architecture: architecture.name)
def model(request: pytest.FixtureRequest) -> Any:
    architecture: Architecture = request.param
    config = next(iter(architecture.tiny.values()))
    card = registry.info(architecture.name)
    codec = get_codec(**SMALL_CODECS.get(architecture.name, {"name": card.codec.name, **card.codec.options}))
    shapes = nnx.state(nnx.eval_shape(lambda: architecture.module(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    drawn = {dotted(path): 0.3 * rng.standard_normal(leaf.shape) for path, leaf in nnx.to_flat_state(shapes)}
    module = fill(architecture.module, config, drawn, "tiny")
    facts = {"architecture": architecture.name, "config": asdict(config), "codec": {}}
    task: type[Model] = importlib.import_module(f"zoo.tasks.{architecture.task}").Task
    return task(module, Found("tiny", architecture, config, codec, facts, dict))


def told(description: Description) -> Any:
    """What a model says, as a program would read it; a number that is none would be an error."""
    return json.loads(json.dumps(description.table, allow_nan=False))


def test_there_are_models_that_hear() -> None:
    assert {"chord-crema", "crepe", "musicnn"} <= {architecture.name for architecture in HEARING}


@pytest.mark.parametrize(
    "samples",
    [np.zeros(RATE // 2), np.sign(SOUND), 30 * SOUND, np.full(RATE // 2, 1e-30)],
    ids=["silence", "clipped", "beyond full scale", "nearly silence"],
)
def test_odd_samples(model: Any, samples: np.ndarray) -> None:
    assert told(model.describe((samples.astype(np.float32), RATE)))


@pytest.mark.parametrize("rate", [8000, 44100])
def test_one_sample(model: Any, rate: int) -> None:
    """An answer, or one line that says it is too short."""
    try:
        answer = told(model.describe((np.ones(1, np.float32), rate)))
    except InputError as error:
        answer = str(error)
    assert isinstance(answer, dict) or re.fullmatch(r"the samples: .*(too short|shorter than one sample).*", answer)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.wav", {"subtype": "PCM_24"}), ("a.wav", {"subtype": "DOUBLE"}), ("a.flac", {"subtype": "PCM_24"}),
     ("stereo.wav", {"subtype": "FLOAT"})],
    ids=["24 bits", "64 bits", "FLAC", "two channels"],
)  # fmt: skip
def test_the_same_sound_in_other_files(model: Any, tmp_path: Path, name: str, options: dict[str, str]) -> None:
    """The answer is the same, to the last digit."""
    samples = np.stack([SOUND, SOUND], axis=1) if name.startswith("stereo") else SOUND
    soundfile.write(tmp_path / name, samples, RATE, **options)
    assert _without_source(told(model.describe(tmp_path / name))) == _without_source(
        told(model.describe((SOUND, RATE)))
    )


def _without_source(table: Any) -> Any:
    return {key: value for key, value in table.items() if key != "source"}


@pytest.mark.parametrize("rate", [8000, 192000])
def test_other_rates(model: Any, tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", chords(0.8, rate), rate)
    assert told(model.describe(tmp_path / "a.wav"))


@pytest.mark.parametrize("name", ["a.mp3", "a.wav"])
def test_half_a_file(model: Any, tmp_path: Path, name: str) -> None:
    """A download that broke off: what is there is heard, or one line says that nothing can be."""
    soundfile.write(tmp_path / name, chords(2.0, RATE), RATE)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert told(model.describe(tmp_path / name))


def test_what_can_not_be_heard(model: Any, tmp_path: Path) -> None:
    """One line, with the file's name."""
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(RATE) == 999, np.nan, 0.1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "inf.wav", np.where(np.arange(RATE) == 999, np.inf, 0.1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    (tmp_path / "text.wav").write_text("Not a sound.\n" * 100)
    (tmp_path / "nothing.mp3").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    for name in ("nan.wav", "inf.wav", "empty.wav", "text.wav", "nothing.mp3", "folder.wav", "missing.wav"):
        with pytest.raises(InputError) as caught:
            model.describe(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
