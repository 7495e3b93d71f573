"""Tags of music: sound → how likely each tag is, patch by patch or for the whole, and embeddings.

A tagger's configuration names its `tags` and says how many samples a patch has (`window`) and how they become frames
(`size`, `hop`); its kernel "layers" gives all it computes of patches float32 [B, window], the probabilities as "tags".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music import audio
from zoo.music.audio import AudioSource, Samples
from zoo.show.files import write
from zoo.tasks.model import Description, Found, Model

if TYPE_CHECKING:
    from flax import nnx

AT_ONCE = 16  # patches of one compiled call; on a CPU one, whose layers fill its caches


@dataclass(frozen=True)
class Taggram:
    """How likely each tag is over time.

    Attributes:
      tags: V names.
      times: float64 [P], seconds at which each patch begins.
      length: seconds of a patch.
      values: float32 [P, V], 0 to 1.
      source: what it was made of.
    """

    tags: tuple[str, ...]
    times: npt.NDArray[np.float64]
    length: float
    values: npt.NDArray[np.float32]
    source: str = ""

    def __len__(self) -> int:
        return len(self.times)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest tags of the whole, each with its mean over time, the likeliest first."""
        mean = self.values.mean(axis=0)
        return [(self.tags[k], float(mean[k])) for k in np.argsort(-mean, kind="stable")[:count]]

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """An object of the names `tags`, the `times`, and `values`, a list for each time; also into a file."""
        table = {
            "source": self.source,
            "tags": self.tags,
            "times": np.round(self.times, 4).tolist(),
            "length": round(self.length, 4),
            "values": np.round(self.values.astype(np.float64), 5).tolist(),
        }
        if path is not None:
            write(path, json.dumps(table, ensure_ascii=False).encode())
        return json.dumps(table, ensure_ascii=False)

    def plot(self, path: str | os.PathLike[str], title: str = "", count: int = 15) -> Path:
        """Draws the `count` likeliest tags over time into a PNG."""
        from zoo.show.taggram import taggram

        return taggram(self.times, self.length, self.values, self.tags, path, title, count)


class Tags(Model):
    """A tagger of music. A source is an audio file, at any rate, or a pair (samples or a stream of them, rate).

    A patch has three seconds. `hop` is seconds from one patch to the next, by default a patch's length; what is left at
    the end and fills no patch is left out, and sound shorter than a patch is repeated until it fills one.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        super().__init__(module, found)
        self.module: Any
        self.codec: Any
        self._programs: dict[tuple[str, ...], Any] = {}
        self._at_once = 1 if jax.default_backend() == "cpu" else AT_ONCE

    def tag(self, source: AudioSource, top: int = 5, *, hop: float | None = None) -> list[tuple[str, float]]:
        """The `top` likeliest tags of a source, each with how likely it is on average, the likeliest first.

        Raises InputError if the source can't be read.
        """
        return self.taggram(source, hop=hop).top(top)

    def taggram(self, source: AudioSource, *, hop: float | None = None) -> Taggram:
        """How likely each tag is over time; memory grows with the taggram alone. Raises InputError as `tag` does."""
        return joined(list(self.pieces(source, hop=hop)))

    def pieces(self, source: AudioSource, *, hop: float | None = None) -> Iterator[Taggram]:
        """The taggram of a source piece by piece, as each is ready."""
        rate, count = self.codec.sample_rate, 0
        name = "" if isinstance(source, tuple) else os.fspath(source)
        for found in self.layers(source, ["tags"], hop=hop):
            times = (count + np.arange(len(found["tags"]))) * self._step(hop) / rate
            yield Taggram(self.config.tags, times, self.config.seconds, found["tags"], name)
            count += len(times)

    def stream(self, chunks: Iterable[npt.NDArray[Any]], rate: int, *, hop: float | None = None) -> Iterator[Taggram]:
        """The taggram of a stream of samples [n] or [n, channels], piece by piece; together that of the whole.

        A patch comes with the chunk that completes it: 16 ms before the three seconds after its beginning are full.
        """
        yield from self.pieces((chunks, rate), hop=hop)

    def describe(self, source: AudioSource) -> Description:
        """Its ten likeliest tags over time, for `zoo.analyze`."""
        from zoo.show.timeline import Heat

        taggram = self.taggram(source)
        top = [tag for tag, _ in reversed(taggram.top(10))]
        shown = taggram.values[:, [taggram.tags.index(tag) for tag in top]]
        return Description(json.loads(taggram.to_json()), [Heat("tags", shown, taggram.length, top)])

    def embed(self, source: AudioSource, layer: str | None = None, *, hop: float | None = None) -> npt.NDArray[Any]:
        """What a layer makes of each patch of a source: float32 [P, ...].

        `layer` is by default the last hidden one. musicnn has "timbral", "temporal", "cnn1", "cnn2" and "cnn3", all
        over time, "mean_pool", "max_pool" and "penultimate"; vgg has "pool1" to "pool5".

        Raises:
          InputError: no such layer, or the source can't be read.
        """
        layer = layer or self.module.embedding
        return np.concatenate([found[layer] for found in self.layers(source, [layer], hop=hop)])

    def layers(
        self, source: AudioSource, names: Sequence[str], *, hop: float | None = None
    ) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """The named layers of the patches of a source, as many patches at a time as are ready: [n, ...] each."""
        compiled = self._program(tuple(names))
        for patches in self._patches(source, hop):
            for at in range(0, len(patches), self._at_once):
                part = patches[at : at + self._at_once]
                padded = np.zeros((self._at_once, part.shape[1]), np.float32)
                padded[: len(part)] = part
                found = compiled(jnp.asarray(padded))
                yield {name: np.asarray(found[name])[: len(part)] for name in names}

    def _program(self, names: tuple[str, ...]) -> Any:
        """What gives these layers and no other: to hand over all of them costs the VGG a sixth of its time."""
        if names not in self._programs:
            kernel = self.architecture.kernels["layers"]

            def some(model: Any, x: jax.Array) -> dict[str, jax.Array]:
                found = kernel(model, {"x": x}, jax.random.key(0))
                if unknown := [name for name in names if name not in found]:
                    raise InputError(f"{self.name}: has no layer {unknown[0]!r}; there are {', '.join(sorted(found))}")
                return {name: found[name] for name in names}

            self._programs[names] = self.jit(some)
        return self._programs[names]

    def _patches(self, source: AudioSource, hop: float | None) -> Iterator[Samples]:
        """Patches [n, window] of the sound, with zeros around it for the frames at its ends."""
        margin, window, step = self.config.size // 2, self.config.window, self._step(hop)
        sound = at_least(audio.blocks(source, self.codec.sample_rate), window - 2 * margin)
        return audio.windows(sound, window, step, margin=margin)

    def _step(self, hop: float | None) -> int:
        """Samples from one patch to the next: whole frames, counted as musicnn's package counts them."""
        if hop is None:
            return int(self.config.frames * self.config.hop)
        frames = (int(hop * self.codec.sample_rate) - self.config.size // 2) // self.config.hop
        if frames < 1:
            raise InputError(f"hop={hop:g}: shorter than a frame; from one patch to the next take 0.05 s at least")
        return int(frames * self.config.hop)


Task = Tags


def joined(pieces: Sequence[Taggram]) -> Taggram:
    """One taggram of consecutive pieces."""
    first = pieces[0]
    times, values = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("times", "values"))
    return Taggram(first.tags, times, first.length, values, first.source)


def at_least(pieces: Iterator[Samples], count: int) -> Iterator[Samples]:
    """The pieces of a sound; one of fewer than `count` samples is repeated until it has as many."""
    first: list[Samples] = []
    for piece in pieces:
        first.append(piece)
        if sum(map(len, first)) >= count:
            return chain(first, pieces)
    return iter([np.resize(np.concatenate(first), count)])
