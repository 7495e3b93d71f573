"""Everything the zoo knows of a recording, on one time line.

Any model whose task has a method `describe(source) → Description` can take part; what is shown and written is made of
that alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import InputError, WeightsError, ZooError
from zoo.music import audio
from zoo.music.audio import AudioSource
from zoo.show.files import write
from zoo.tasks import load
from zoo.tasks.model import Description, Model

if TYPE_CHECKING:
    from zoo.show.sampler import Sound
    from zoo.show.timeline import Lane

MODELS = ("chord-crema", "basic-pitch", "crepe/tiny", "musicnn")  # one of each kind
RATE = 44100  # Hz, of the sound on the page
LONGEST = 20 * 60  # seconds of sound that a page may hold


@dataclass(frozen=True)
class Analysis:
    """What models say of one recording.

    Attributes:
      title: its file's name.
      seconds: its length.
      parts: by model, in the order they were asked.
      left_out: models that said nothing, with the reason.
      sound: for the page's player, float32 [frames, 2] at 44.1 kHz; None if it is longer than 20 minutes.
    """

    title: str
    seconds: float
    parts: Mapping[str, Description]
    left_out: Mapping[str, str] = field(default_factory=dict)
    sound: Sound | None = None

    @property
    def lanes(self) -> list[Lane]:
        """All lanes, from top to bottom."""
        return [lane for part in self.parts.values() for lane in part.lanes]

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The recording, what each model says of it, and which were left out; also written to `path`."""
        tables = {name: part.table for name, part in self.parts.items()}
        told = {"recording": self.title, "seconds": round(self.seconds, 4), "models": tables}
        text = json.dumps(told | {"left_out": dict(self.left_out)}, indent=1)
        if path is not None:
            write(path, text.encode(errors="replace"))
        return text

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """A PNG of all lanes."""
        from zoo.show.timeline import draw

        return draw(self.lanes, self.seconds, path, self.title)

    def page(self, path: str | os.PathLike[str]) -> Path:
        """One HTML page with all lanes and a player."""
        from zoo.show.timeline_page import Recording, timeline_page

        length = f"{int(self.seconds) // 60}:{int(self.seconds) % 60:02d} · {', '.join(self.parts)}"
        missing = "".join(f" · without {name}: {reason}" for name, reason in self.left_out.items())
        return timeline_page(
            [Recording(self.title, length + missing, self.seconds, self.lanes, self.sound)], path, self.title
        )

    def save(self, folder: str | os.PathLike[str], stem: str) -> list[Path]:
        """Writes `stem`.json, .png and .html into a folder."""
        base = Path(folder) / stem
        self.to_json(f"{base}.json")
        return [Path(f"{base}.json"), self.plot(f"{base}.png"), self.page(f"{base}.html")]


def analyze(source: AudioSource, models: Iterable[str | os.PathLike[str] | Model] = MODELS) -> Analysis:
    """What each of `models` says of a recording.

    A model whose weights can't be had, or that can't say anything of this recording, is left out with the reason.

    Args:
      source: a path of an audio file, or (samples, rate).
      models: names as for `zoo.load`, or loaded models, which is cheaper for many recordings.

    Raises:
      InputError: no audio, no such model, or one that analyses no recordings.
    """
    loaded, left_out = load_models(models)
    title = "recording" if isinstance(source, tuple) else Path(source).name
    seconds, sound = _listen(source)
    parts = {}
    for name, model in loaded.items():
        try:
            parts[name] = model.describe(source)
        except ZooError as error:
            left_out[name] = " ".join(str(error).split())
    return Analysis(title, seconds, parts, left_out, sound)


def load_models(models: Iterable[str | os.PathLike[str] | Model]) -> tuple[dict[str, Any], dict[str, str]]:
    """The models by their names, and those whose weights can't be had, with the reason.

    Raises InputError if there is no such model, or one that analyses no recordings.
    """
    loaded: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in models:
        try:
            model = name if isinstance(name, Model) else load(name)
        except WeightsError as error:
            left_out[str(name)] = " ".join(str(error).split())
            continue
        if not hasattr(model, "describe"):
            task = model.architecture.task
            raise InputError(f"{model.name}: a model for {task}, which analyses no recordings; see `zoo list`")
        loaded[model.name] = model
    return loaded, left_out


def _listen(source: AudioSource) -> tuple[float, Sound | None]:
    """How long a recording is, and its sound if a page can hold it."""
    count, kept = 0, list[audio.Samples]()
    for block in audio.blocks(source, RATE):
        count += len(block)
        kept = [*kept, block] if count <= LONGEST * RATE else []
    mono: Any = np.concatenate(kept) if kept else None
    return count / RATE, None if mono is None else np.stack([mono, mono], axis=1)
