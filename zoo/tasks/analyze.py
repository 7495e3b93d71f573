"""Everything the zoo knows of a piece, recorded or written, on one time line.

Any model whose task has a method `describe(source) → Description` can take part; what is shown and written is made of
that, and of the bars and the keys, which need no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from zoo.errors import InputError, WeightsError, ZooError
from zoo.music import audio, io
from zoo.music.audio import AudioSource
from zoo.music.key import find_key, find_keys
from zoo.music.metre import Bars, estimate_bars, grid, keeps_grid
from zoo.music.score import Score
from zoo.registry import list_models
from zoo.show.files import write
from zoo.tasks import load
from zoo.tasks.model import Description, Model

if TYPE_CHECKING:
    from note_seq import NoteSequence

    from zoo.show.sampler import Sound
    from zoo.show.timeline import Lane

    Source: TypeAlias = AudioSource | NoteSequence | Score

MODELS = (
    "structure-transformer",
    "beat-tcn",
    "chord-crema",
    "basic-pitch",
    "crepe/tiny",
    "musicnn",
)  # one of each kind, for sound
READERS = ("structure-transformer", "chord-transformer/pop909", "melody-transformer")  # for notes
RATE = 44100  # Hz, of the sound on the page
LONGEST = 20 * 60  # seconds of sound that a page may hold


@dataclass(frozen=True)
class Analysis:
    """What is known of one piece.

    Attributes:
      title: its file's name.
      seconds: its length.
      own: what needs no model, "bars" of notes and "key", as far as it can be told.
      parts: by model, in the order they were asked.
      left_out: models that said nothing, with the reason.
      sound: for the page's player, float32 [frames, 2] at 44.1 kHz; None if it is longer than 20 minutes.
    """

    title: str
    seconds: float
    parts: Mapping[str, Description]
    left_out: Mapping[str, str] = field(default_factory=dict)
    sound: Sound | None = None
    own: Mapping[str, Description] = field(default_factory=dict)

    @property
    def lanes(self) -> list[Lane]:
        """All lanes, from top to bottom."""
        return [lane for part in (*self.own.values(), *self.parts.values()) for lane in part.lanes]

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The piece, its bars and keys, what each model says, and which were left out; also written to `path`."""
        own = {key: value for part in self.own.values() for key, value in part.table.items()}
        tables = {name: part.table for name, part in self.parts.items()}
        told = {"recording": self.title, "seconds": round(self.seconds, 4), **own, "models": tables}
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

        length = f"{int(self.seconds) // 60}:{int(self.seconds) % 60:02d} · {', '.join((*self.own, *self.parts))}"
        missing = "".join(f" · without {name}: {reason}" for name, reason in self.left_out.items())
        return timeline_page(
            [Recording(self.title, length + missing, self.seconds, self.lanes, self.sound)], path, self.title
        )

    def save(self, folder: str | os.PathLike[str], stem: str) -> list[Path]:
        """Writes `stem`.json, .png and .html into a folder."""
        base = Path(folder) / stem
        self.to_json(f"{base}.json")
        return [Path(f"{base}.json"), self.plot(f"{base}.png"), self.page(f"{base}.html")]


def analyze(source: Source, models: Iterable[str | os.PathLike[str] | Model] | None = None) -> Analysis:
    """What is known of a piece: bars, keys, and what each of `models` says of it.

    A model whose weights can't be had, or that can't say anything of this piece, is left out with the reason. Models of
    sound hear notes as the zoo plays them.

    Args:
      source: a path of a file of sound or of notes, (samples, rate), a NoteSequence or a Score.
      models: names as for `zoo.load`, or loaded models, which is cheaper for many pieces; None for one of each kind
        that suits the source.

    Raises:
      InputError: neither sound nor notes, no such model, or one that analyses nothing.
    """
    return of_notes(source, models) if io.is_notes(source) else of_sound(source, models)  # type: ignore[arg-type]


def of_sound(source: AudioSource, models: Iterable[str | os.PathLike[str] | Model] | None = None) -> Analysis:
    """`analyze` for sound. Its key is that of the notes which a model hears in it."""
    loaded, left_out = load_models(usual("sound") if models is None else models)
    title = "recording" if isinstance(source, tuple) else Path(source).name
    seconds, sound = _listen(source)
    parts = _ask(loaded, source, None, left_out)
    heard = [lane.score for part in parts.values() for lane in part.lanes if hasattr(lane, "score")]
    own = {"key": _keys(heard[0], "notes heard")} if heard and len(heard[0]) else {}
    return Analysis(title, seconds, parts, left_out, sound, own)


def of_notes(source: Any, models: Iterable[str | os.PathLike[str] | Model] | None = None) -> Analysis:
    """`analyze` for notes."""
    from zoo.show.audio import render
    from zoo.show.timeline import Notes

    score = io.read(source)
    if not len(score):
        raise InputError(f"{score.source or 'the piece'}: no notes; pass a piece that has some")
    loaded, left_out = load_models(usual("notes") if models is None else models)
    seconds = float(score.seconds_at(score.quarters))
    sound: Sound | None = render(score, RATE) if seconds <= LONGEST else None
    parts = _ask(loaded, sound, score, left_out)
    bars = find_bars(score)
    own = {} if bars is None else {"bars": _bars(bars, seconds)}
    own |= {"key": _keys(score, "notes")} if (~score.is_drum).any() else {}
    if not any(isinstance(lane, Notes) for part in parts.values() for lane in part.lanes):
        own["notes"] = Description({}, [Notes("notes", score)])
    title = Path(score.source).name if score.source else "piece"
    return Analysis(title, seconds, parts, left_out, sound, own)


def usual(kind: str) -> list[str]:
    """The models that are asked about "sound" or "notes" unless one says otherwise: those the zoo has weights of."""
    known = list_models(pretrained=True)
    wanted = MODELS if kind == "sound" else READERS
    return [name for name in wanted if name in known or any(other.startswith(f"{name}/") for other in known)]


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


def _ask(
    loaded: Mapping[str, Any], sound: AudioSource | Sound | None, score: Score | None, left_out: dict[str, str]
) -> dict[str, Description]:
    """What each model says; why others say nothing goes to `left_out`. Those whose codec is of sound get that."""
    parts = {}
    for name, model in loaded.items():
        hears = getattr(model.codec, "kind", "") == "audio"
        try:
            if hears and sound is None:
                raise InputError(f"longer than {LONGEST // 60} minutes, which are not rendered")
            if not hears and score is None:
                raise InputError("reads notes, and this is sound; pass what `zoo transcribe` makes of it")
            played = isinstance(sound, np.ndarray)
            heard = (sound.mean(axis=1), RATE) if played else sound  # type: ignore[union-attr]
            parts[name] = model.describe(heard if hears else score)
        except ZooError as error:
            left_out[name] = " ".join(str(error).split())
    return parts


def find_bars(score: Score) -> Bars | None:
    """Where bars begin: by the metre of the file if it states one and the notes keep to it, else as estimated."""
    if len(score.meters) and keeps_grid(score):
        starts, _ = grid(score, score.quarters)
        return Bars(score.seconds_at(starts[:-1]), int(score.meters[0, 1]), "file")
    return estimate_bars(score)


def _bars(bars: Bars, seconds: float) -> Description:
    from zoo.show.timeline import Spans

    title = "bars" if bars.known_by == "file" else "bars (est.)"
    table = {"starts": bars.starts.round(4).tolist(), "beats": bars.beats, "known_by": bars.known_by}
    return Description({"bars": table}, [Spans.numbered(title, bars.starts.tolist(), seconds)])


def _keys(score: Score, by: str) -> Description:
    from zoo.show.timeline import Spans

    spans, whole = find_keys(score), find_key(score)
    rows = [{"start": round(s.start, 4), "end": round(s.end, 4), "key": s.name, "fit": round(s.fit, 4)} for s in spans]
    table = {"key": {"whole": whole.name if whole else None, "known_by": by, "spans": rows}}
    return Description(table, [Spans("key", [(s.start, s.end, s.name, s.key // 2) for s in spans])])


def _listen(source: AudioSource) -> tuple[float, Sound | None]:
    """How long a recording is, and its sound if a page can hold it."""
    count, kept = 0, list[audio.Samples]()
    for block in audio.blocks(source, RATE):
        count += len(block)
        kept = [*kept, block] if count <= LONGEST * RATE else []
    mono: Any = np.concatenate(kept) if kept else None
    return count / RATE, None if mono is None else np.stack([mono, mono], axis=1)
