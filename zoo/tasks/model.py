"""`Model`: a network with its card, and how names, cards and files become one."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import registry, weights
from zoo.errors import InputError, WeightsError
from zoo.models.architecture import Architecture
from zoo.music.codecs import Codec, get_codec
from zoo.music.score import Score
from zoo.nn.precision import check_precision, products
from zoo.weights import cards
from zoo.weights.cache import cache_folder
from zoo.weights.convert import check_fit
from zoo.weights.formats import safetensors

if TYPE_CHECKING:
    from zoo.show.timeline import Lane

BEST = "best.safetensors"


@dataclass(frozen=True)
class Found:
    """A model before it is built: what it is called, of which architecture and numbers, and where its weights are."""

    name: str
    architecture: Architecture
    config: Any
    codec: Codec
    facts: Mapping[str, Any]  # architecture, config and codec as plain tables: what a .safetensors header carries
    tensors: Callable[[], dict[str, np.ndarray]]
    card: cards.Card | None = None


def find(name: str | os.PathLike[str]) -> Found:
    """The model that a name or path means; reads no weights yet. Errors as in `zoo.load`."""
    path = Path(name)
    if path.is_dir() and (path / "card.toml").is_file():
        return from_card(cards.load_card(path))
    if path.is_dir() and (path / "config.json").is_file():
        if not (path / BEST).is_file():
            raise InputError(f"{path}: a run without {BEST} yet; train until its first evaluation")
        return from_file(path / BEST)
    if path.suffix == ".safetensors" or path.is_file():
        return from_file(path)
    if path.is_dir():
        raise InputError(f"{path}: neither a run directory (config.json) nor a card's folder (card.toml)")
    return from_card(registry.info(str(name)))


def from_card(card: cards.Card) -> Found:
    """A model of the zoo."""
    facts = {
        "architecture": card.architecture,
        "config": dict(card.config),
        "codec": {"name": card.codec.name, **card.codec.options},
    }
    return _found(card.id, facts, lambda: weights.load(card), card)


def from_file(path: Path) -> Found:
    """A model from a .safetensors file that carries its configuration."""
    tensors, facts = safetensors.load(path)
    if not {"architecture", "config", "codec"} <= facts.keys():
        raise WeightsError(f"{path}: says nothing of its architecture; `zoo convert` writes a file that does")
    return _found(str(path), facts, lambda: tensors, None)


def _found(
    name: str, facts: Mapping[str, Any], tensors: Callable[[], dict[str, np.ndarray]], card: cards.Card | None
) -> Found:
    architecture = registry.architecture(facts["architecture"])
    config = architecture.make_config(facts["config"], name)
    return Found(name, architecture, config, get_codec(**facts["codec"]), facts, tensors, card)


def build(found: Found) -> nnx.Module:
    """The network, its parameters filled from the weights; both must match name for name and shape for shape."""
    return fill(found.architecture.module, found.config, found.tensors(), found.name)


def fill(module: Callable[..., nnx.Module], config: Any, tensors: Mapping[str, np.ndarray], name: str) -> nnx.Module:
    """`module(config)` with parameters from `tensors`, made without drawing random ones first."""
    graph, state = nnx.split(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))
    flat = nnx.to_flat_state(state)
    check_fit(tensors, {dotted(path): tuple(variable.shape) for path, variable in flat}, name)
    filled = [(path, variable.replace(jnp.asarray(tensors[dotted(path)], jnp.float32))) for path, variable in flat]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def dotted(path: tuple[Any, ...]) -> str:
    """("encoder", "mu", "kernel") → "encoder.mu.kernel": the names that weight files carry."""
    return ".".join(map(str, path))


class Description(NamedTuple):
    """What a model says of a recording: `table`, for JSON, and `lanes`, to be drawn on a time line."""

    table: dict[str, Any]
    lanes: list[Lane]


@runtime_checkable
class MeasuresPieces(Protocol):
    """What a model offers whose quality shows in whole pieces, not in windows of them."""

    def measure(self, pieces: Iterable[Score]) -> dict[str, float]:
        """Metrics over all pieces."""
        ...


class Model:
    """A network and what is known of it; the tasks add what it can do.

    Attributes:
      module: the nnx.Module, for those who want arrays.
      config: its numbers.
      card: its facts, None for a file or a run that has no card.
      codec: music ⇄ arrays.
    """

    def __init__(self, module: nnx.Module, found: Found) -> None:
        self.module, self.config, self.card, self.codec = module, found.config, found.card, found.codec
        self.name, self.architecture, self.facts = found.name, found.architecture, found.facts
        self.graph, self.state = nnx.split(module)
        self.precision = "float32"
        use_compilation_cache()

    def jit(self, kernel: Callable[..., Any], *static: int, donate: Sequence[int] = ()) -> Callable[..., Any]:
        """`kernel(model, …)` compiled, with this model's parameters.

        `static` are the numbers of the arguments that are sizes, `donate` of those whose buffers the results may take.
        """

        def program(state: Any, *rest: Any) -> Any:
            with products(self.precision):
                return kernel(nnx.merge(self.graph, state), *rest)

        compiled = jax.jit(program, static_argnums=static, donate_argnums=donate)
        return lambda *rest: compiled(self.state, *rest)

    @functools.cached_property
    def prepared(self) -> Any:
        """What kernels take among their inputs as "prepared": see `Architecture.prepare`; None if it has none."""
        return self.architecture.prepare and self.jit(self.architecture.prepare)()

    def set_precision(self, precision: str) -> None:
        """The format of products, see `zoo.load`; to be called before the model is first used."""
        check_precision(precision)
        self.precision = precision

    def save(self, path: str | os.PathLike[str], half: bool = False) -> Path:
        """Writes a .safetensors file that `zoo.load` takes; `half` stores float16."""
        path = Path(path)
        tensors = {dotted(key): np.asarray(variable[...]) for key, variable in nnx.to_flat_state(self.state)}
        safetensors.write(path, tensors, self.facts, half=half)
        return path

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state))

    def __repr__(self) -> str:
        return f"<{type(self).__module__.split('.')[-1]} model {self.name}, {self.parameters:,} parameters>"


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk between processes, unless the user has already decided where."""
    if jax.config.values["jax_compilation_cache_dir"] is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
