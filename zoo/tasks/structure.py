"""Structure: a recording or notes → sections, what they are for, which are alike, and how sure their beginnings are.

A model of this task needs

- `codec.features(source)` → (chroma [N, 24] of bass and treble from C on, seconds), `codec.sample_rate`, `codec.hop`;
- a kernel "listen": features "x" [1, T, F] and "mask" [1, L] → what `zoo.models.structure_transformer.Heard` names;
- `config.hops`, `patch`, `scales`, `functions`, and what its answers are read by: `threshold`, `share`, `apart`,
  `cosine`, `width`, `trust` and `same`.

Notes work too: their chroma are made by the codec "note-chroma". The network of the zoo has learnt from recordings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
import numpy.typing as npt

from zoo.data import Song, read_songs
from zoo.errors import InputError
from zoo.music import io, section_metrics
from zoo.music.chroma import NoteChromaCodec
from zoo.music.score import Score
from zoo.music.sections import Section, likeness, tidy, to_lab
from zoo.music.self_similarity import novelty, repetition_novelty, similarity
from zoo.tasks.model import Description, Found, Model
from zoo.tasks.spans import Spans

if TYPE_CHECKING:
    from flax import nnx

    from zoo.music.audio import AudioSource
    from zoo.show.attention import Attention
    from zoo.show.timeline import Lane

Floats = npt.NDArray[np.float32]

PAIR = 2  # frames that are put together before they are compared with each other
CHROMA = 24  # the first of a frame's features
LIVELY = 5.0  # brings novelty to the size of chroma
STRETCH, ALIKE, SMOOTH = 8, 0.04, 12  # of `repetition_novelty`, in such pairs
LONGEST = 20 * 60  # seconds
MARGIN = 4  # frames at a song's ends where no section begins
LIKELIEST = 0.98  # the quantile of the boundaries of a song: one in fifty of its frames
ROOM = 64  # tokens: a song is padded to a multiple of these, so that few programs are compiled


@dataclass(frozen=True)
class Structure(Spans):
    """The sections of a song.

    Attributes:
      sections: one after another without gaps, to the song's end; letters name those that are alike, in the order in
        which they come, and silence has none. A section's confidence is of its boundary.
      seconds: the song's length.
      functions: the network's names for what sections are for, C.
      frame_seconds: from one frame of `boundary` to the next; a token takes several.
      boundary: float32 [T], how likely a section begins there.
      function: float32 [L, C], of each token, sums to 1.
    """

    of: ClassVar[str] = "sections"
    sections: tuple[Section, ...]
    seconds: float
    functions: tuple[str, ...]
    frame_seconds: float
    boundary: Floats
    function: Floats

    def __iter__(self) -> Iterator[Section]:
        return iter(self.sections)

    def __len__(self) -> int:
        return len(self.sections)

    @property
    def boundaries(self) -> list[tuple[float, float]]:
        """When sections begin, in seconds, and how sure that is; without the song's own beginning."""
        return [(section.start, section.confidence) for section in self.sections[1:]]

    def lab(self) -> str:
        """Lines of start, end and "letter, function"."""
        return to_lab(self.sections)

    def table(self) -> dict[str, Any]:
        """The length and the sections as plain lists."""
        rows = [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(section).items()}
            for section in self.sections
        ]
        return {"seconds": round(self.seconds, 4), "sections": rows}

    def lanes(self) -> list[Lane]:
        """What a timeline shows: sections in a colour a letter, how likely each function is, and boundaries."""
        from zoo.show import timeline

        keys = {
            letter: 7 * i % 12 for i, letter in enumerate(dict.fromkeys(part.letter for part in self if part.letter))
        }
        spans = [
            (part.start, part.end, f"{part.letter} {part.label}".strip(), keys.get(part.letter))
            for part in self.sections
        ]
        token = self.frame_seconds * len(self.boundary) / max(1, len(self.function))
        return [
            timeline.Spans("sections", spans),
            timeline.Heat("functions", self.function, token, self.functions),
            timeline.Heat("boundaries", self.boundary[:, None], self.frame_seconds, ("",)),
        ]


class StructureModel(Model):
    """A model that finds sections. A source is a path of sound or notes, samples and their rate, or a Score.

    It hears the whole song before it says anything. Memory grows with the square of its length, as each part is
    compared with each, 3 MB a minute and minute: what is longer than `LONGEST`, and no song any more, is refused.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.codec: Any
        self._listen = self.jit(found.architecture.kernels["listen"])

    def sections(self, source: AudioSource | Score) -> Structure:
        """The sections of a song.

        Raises:
          InputError: no sound or notes, too short for a single frame, or longer than 20 minutes.
        """
        frames, seconds = self._features(source)
        return self.of_chroma(frames, seconds)

    def of_chroma(self, frames: Floats, seconds: float) -> Structure:
        """The sections of a song whose chroma [N, 24], as the codec makes them, are at hand."""
        x = features(frames, self.config)
        return decode(self.hear(x), x, seconds, self.config, self._frame_seconds)

    def describe(self, source: AudioSource | Score) -> Description:
        """For `zoo.analyze`."""
        found = self.sections(source)
        return Description({"sections": found.table()["sections"]}, found.lanes())

    def embed(self, source: AudioSource | Score) -> Floats:
        """What the network makes of each token in its song: float32 [L, E], near each other where parts are alike."""
        embedding: Floats = self.hear(features(self._features(source)[0], self.config)).embedding
        return embedding

    def attention(self, source: AudioSource | Score) -> Attention:
        """What each token listens to, the tokens being sections' pieces of `patch` frames."""
        from zoo.show.attention import Attention

        weights = self.hear(features(self._features(source)[0], self.config)).attention
        at = np.arange(weights.shape[-1]) * self._frame_seconds * self.config.patch
        return Attention(weights, at, at, asks="from", asked="to")

    def _features(self, source: AudioSource | Score) -> tuple[Floats, float]:
        codec: Any = NoteChromaCodec(self.codec.sample_rate, self.codec.hop) if io.is_notes(source) else self.codec
        frames, seconds = codec.features(source)
        if seconds > LONGEST:
            name = source if isinstance(source, str | os.PathLike) else "the piece"
            limit = (
                f"{seconds / 60:.0f} minutes are too long for sections; cut it into songs of {LONGEST // 60} at most"
            )
            raise InputError(f"{name}: {limit}")
        return frames, seconds

    @property
    def _frame_seconds(self) -> float:
        return float(self.config.hops * self.codec.hop / self.codec.sample_rate)

    def hear(self, x: Floats) -> Any:
        """What the network says of a song's features [T, F]: NumPy arrays without the batch's axis and the padding."""
        patch = self.config.patch
        tokens = -(-len(x) // patch)
        room = -(-tokens // ROOM) * ROOM
        batch = {
            "x": np.pad(x, ((0, room * patch - len(x)), (0, 0)))[None],
            "mask": (np.arange(room) < tokens)[None],
        }
        heard = jax.device_get(self._listen(batch, jax.random.key(0)))
        return heard._replace(
            boundary=heard.boundary[0, : len(x)],
            function=heard.function[0, :tokens],
            embedding=heard.embedding[0, :tokens],
            alike=heard.alike[0],
            attention=heard.attention[0, :, :, :tokens, :tokens],
        )


Task = StructureModel


def features(frames: Floats, config: Any) -> Floats:
    """A codec's chroma [N, 24] → the network's features [T, F], T = N / hops rounded up.

    The root of the chroma in units of the song's mean; novelty at the configuration's scales; novelty of repetition.
    """
    chroma = np.sqrt(pooled(frames / max(float(frames.mean()), 1e-6), config.hops))
    coarse = pooled(chroma, PAIR)
    changes = LIVELY * novelty(similarity(coarse), config.scales)[:-1]
    repeats = repetition_novelty(coarse, STRETCH, ALIKE, SMOOTH)
    at, known = np.arange(len(chroma)) / PAIR, np.arange(len(coarse))
    finer = [np.interp(at, known, column) for column in (*changes.T, repeats)]
    return np.concatenate([chroma, np.stack(finer, axis=1)], axis=1).astype(np.float32)


def pooled(frames: Floats, count: int) -> Floats:
    """Means of every `count` frames of [T, F]; the last one may have fewer."""
    starts = np.arange(0, len(frames), count)
    sums = np.add.reduceat(frames, starts, axis=0)
    counts = np.minimum(count, len(frames) - starts).astype(np.float32)
    return (sums / counts[:, None]).astype(np.float32)


def decode(heard: Any, x: Floats, seconds: float, config: Any, frame_seconds: float) -> Structure:
    """Sections from what the network says of a song: `heard` without the batch's axis, of features `x` [T, F].

    A boundary is the likeliest frame for `apart` seconds around, if it is likely enough; a section is for what its
    tokens say most, in the geometric mean. Sections are alike by the network's word and by the cosine of their mean
    chroma, log odds added up, in clusters of average linkage: neither alone does as well.
    The song's length is `seconds`, a frame's `frame_seconds`.
    """
    boundary = sigmoid(heard.boundary)
    threshold = min(config.threshold, config.share * float(np.quantile(boundary, LIKELIEST)))
    starts = [0, *peaks(boundary, threshold, config.apart / frame_seconds)]
    ends = [*starts[1:], len(boundary)]
    log = heard.function - np.logaddexp.reduce(heard.function, axis=1, keepdims=True)
    tokens = [
        slice(a // config.patch, max(a // config.patch + 1, b // config.patch))
        for a, b in zip(starts, ends, strict=True)
    ]
    labels = [config.functions[int(log[part].mean(axis=0).argmax())] for part in tokens]
    odds = heard.alike[0] * (heard.embedding @ heard.embedding.T) + heard.alike[1]
    network = np.array([[sigmoid(odds[a, b]).mean() for b in tokens] for a in tokens])
    chroma = similarity(np.array([x[a:b, :CHROMA].mean(axis=0) for a, b in zip(starts, ends, strict=True)]))
    told = config.trust * (np.log(network) - np.log1p(-network))
    between = sigmoid(told + (chroma - config.cosine) / config.width)
    letters = letters_of(between, [label == "silence" for label in labels], config.same)
    times = [*(start * frame_seconds for start in starts), seconds]
    sure = [1.0, *boundary[starts[1:]].tolist()]
    spans = zip(pairwise(times), labels, letters, sure, strict=True)
    sections = tuple(Section(a, b, label, letter, p) for (a, b), label, letter, p in spans)
    return Structure(sections, seconds, config.functions, frame_seconds, boundary, np.exp(log))


def peaks(probability: Floats, threshold: float, apart: float) -> list[int]:
    """Frames of at least `threshold`, each the likeliest of all less than `apart` frames away; none at an end."""
    chosen: list[int] = []
    for frame in np.argsort(-probability, kind="stable").tolist():
        if probability[frame] < threshold:
            break
        if min(frame, len(probability) - frame) >= MARGIN and all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
    return sorted(chosen)


def letters_of(alike: Floats, silent: list[bool], same: float) -> list[str]:
    """A letter for each section: those that are alike [S, S] share one; "A" comes first, silence has none."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    sounding = np.flatnonzero(~np.array(silent))
    groups = np.zeros(len(silent), int)
    if len(sounding) > 1:
        distance = 1 - (alike + alike.T)[np.ix_(sounding, sounding)] / 2
        np.fill_diagonal(distance, 0)
        groups[sounding] = fcluster(linkage(squareform(distance, checks=False), "average"), 1 - same, "distance")
    names: dict[int, str] = {}
    for i in sounding.tolist():
        names.setdefault(int(groups[i]), ascii_uppercase[len(names) % 26] + "'" * (len(names) // 26))
    return ["" if silent[i] else names[int(groups[i])] for i in range(len(silent))]


def sigmoid(x: Floats) -> Floats:
    """Probabilities of log odds."""
    return (1 / (1 + np.exp(-np.clip(x, -60, 60)))).astype(np.float32)


def examples(song: Song, config: Any) -> dict[str, npt.NDArray[Any]]:
    """A song as the network learns from it, see `losses` in its file; what lies past `config.frames` is left out.

    Raises InputError if nobody said where its sections are.
    """
    if not song.sections:
        raise InputError(f"{song.name}: no sections beside it; put lines of start, end and label there")
    x = features(song.frames, config)[: config.frames].astype(np.float16)
    frame = config.hops * song.frame_seconds
    parts = tidy(song.sections, song.seconds)
    starts = np.array([part.start for part in parts])
    nearest = np.abs(np.arange(config.frames)[:, None] - starts[None, 1:] / frame).min(axis=1, initial=np.inf)
    here = np.searchsorted(starts, (np.arange(config.steps) + 0.5) * config.patch * frame, side="right") - 1
    letters = {letter: i for i, letter in enumerate(sorted({likeness(part) for part in parts} - {""}))}
    function = np.array([_index(config.functions, part) for part in parts])
    letter = np.array([letters.get(likeness(part), -1) for part in parts])
    return {
        "x": np.pad(x, ((0, config.frames - len(x)), (0, 0)))[None],
        "mask": (np.arange(config.steps) < max(1, len(x) // config.patch))[None],
        "boundary": np.exp(-0.5 * (nearest / config.smear) ** 2).astype(np.float32)[None],
        "function": function[here].astype(np.int32)[None],
        "letter": letter[here].astype(np.int32)[None],
    }


def _index(functions: tuple[str, ...], part: Section) -> int:
    return functions.index(part.function) if part.label and part.function in functions else -1


def evaluate(model: StructureModel, data: str | os.PathLike[str], limit: int | None = None) -> dict[str, float]:
    """How near a model's sections are to the annotated ones, averaged over the songs of the test split.

    See `zoo.music.section_metrics.compare` for the measures.

    Args:
      data: a folder of songs with sections, see `zoo.data.songs`.
      limit: at most so many songs.

    Raises:
      InputError: no such folder, or no song of it with sections falls into the test split.
    """
    songs = (song for song in read_songs(Path(data), model.codec, "test", limit) if song.sections)
    measured = [measure(song, model.of_chroma(song.frames, song.seconds).sections) for song in songs]
    if not measured:
        raise InputError(f"{data}: no song of it with sections falls into test; add songs")
    names = dict.fromkeys(name for one in measured for name in one)
    means = {name: float(np.mean([one[name] for one in measured if name in one])) for name in names}
    return means | {"songs": len(measured)}


def measure(song: Song, found: tuple[Section, ...]) -> dict[str, float]:
    """Measures of one song; see `zoo.music.section_metrics.compare`."""
    return section_metrics.compare(tidy(song.sections, song.seconds), found)
