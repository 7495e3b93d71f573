"""`Architecture`: what a model file tells the registry, the conformance tests, the trainer and the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np
from flax import nnx

from zoo.errors import CardError

Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class Stepping:
    """How a sequence model is driven token by token; `zoo.tasks.continuation` needs no more of it.

    Tokens are int32 in 0 … V − 1, and V is the token before the first. The state is a pytree, passed in and returned.

    Attributes:
      start: (model, batch size, capacity) → the state before the first token, with room for so many tokens.
      stepper: (model, what `Architecture.prepare` gives, or None) → a function (state, token [B], context) → (logits
        [B, V] of the next token, new state), made outside the loop that steps; `context` is this step's row [B, ...] of
        what the model is given beside its own tokens, None for most models.
      grow: (state, capacity) → the same state with room for more tokens; for a state of fixed size, itself.
    """

    start: Callable[[Any, int, int], Any]
    stepper: Callable[[Any, Any], Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]]
    grow: Callable[[Any, int], Any] = lambda state, capacity: state


@dataclass(frozen=True)
class Head:
    """How a classifier learns other classes than its own: a new last layer reads what all before it make.

    Attributes:
      adapt: (model, names of the classes, nnx.Rngs) → the same model with a new last layer for these classes.
      trunk: patterns over the names of all other parameters, which stay as they are unless one says otherwise.
      embed: (model, x) → what the last layer reads, [B, E]; `loss` and `evaluate` take it as "embedding" in place of x.
    """

    adapt: Callable[[Any, tuple[str, ...], nnx.Rngs], Any]
    trunk: tuple[str, ...]
    embed: Callable[[Any, jax.Array], jax.Array]


@dataclass(frozen=True)
class Architecture:
    """One model file's offer to the rest of the house.

    Attributes:
      name: as cards call it, e.g. "music-vae".
      config: the frozen dataclass of its numbers.
      module: builds the network, `module(config, rngs=nnx.Rngs(0))`.
      loss: (model, batch, key, step) → (scalar, scalar metrics).
      evaluate: (model, batch, key) → metrics of one batch, whatever a training curve and a card should say. A scalar is
        the mean over the batch's examples; what is a mean over some of them, or of other things, is (sum, count), [2].
      monitor: the metric of `evaluate` that picks the best weights, and "min" or "max".
      example: (config, batch size, generator) → a random batch, for tests and benchmarks.
      kernels: inference by name: (model, inputs, key) → arrays, to be jitted; `inputs` are those of `example`.
      task: the file of `zoo.tasks` that binds the kernels to music.
      tiny: small configurations by name, one for each kind of the model, for the conformance tests.
      settle: puts the model where its schedules end, for fine-tuning: warm-ups are for random weights. Most models have
        none and stay as they are.
      conclude: (model, some windows that it learnt from) → the model with what is worked out from both when training
        has ended.
      prepare: model → what its kernels work out from the parameters alone, such as spectra of convolution kernels or
        kernels turned for products in a loop; they find it among their inputs as "prepared", or work it out again. None
        where there is no such thing.
      stepping: of a model that writes token by token, None for others. Its kernel "forward" gives logits [B, T, V] of
        every token of `x` [B, T] from those before it.
      data: what it learns from: "notes", or sound with labels, "curves" or "classes" (see `zoo.data.labelled`), or
        "songs" (see `zoo.data.songs`), of which the task's `examples(song, config)` makes arrays [n, ...] by name.
      head: of a classifier, how it learns other classes.
      players: of adversaries, config → the tables `[optimizer.players]` of a recipe: which parameters an optimiser of
        their own moves, and how often (see `zoo.training.optimizer`).
    """

    name: str
    config: type
    module: Callable[..., nnx.Module]
    loss: Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Metrics]]
    evaluate: Callable[[Any, Any, jax.Array], Metrics]
    monitor: tuple[str, str]
    example: Callable[[Any, int, np.random.Generator], dict[str, Any]]
    kernels: Mapping[str, Callable[[Any, Any, jax.Array], Any]]
    task: str
    tiny: Mapping[str, Any]
    settle: Callable[[Any], Any] = lambda model: model
    conclude: Callable[[Any, np.ndarray], Any] | None = None
    prepare: Callable[[Any], Any] | None = None
    stepping: Stepping | None = None
    data: str = "notes"
    head: Head | None = None
    players: Callable[[Any], Mapping[str, Mapping[str, Any]]] = lambda config: {}

    def make_config(self, table: Mapping[str, Any], where: str) -> Any:
        """The configuration of a card's table; lists become tuples. `where` names the card in errors."""
        known = {field.name for field in fields(self.config)}
        for key in table:
            if key not in known:
                raise CardError(
                    f"{where}: config has the unknown key {key!r}; {self.name} knows {', '.join(sorted(known))}"
                )
        values = {key: _fixed(value) for key, value in table.items()}
        try:
            return self.config(**values)
        except (TypeError, ValueError) as error:
            raise CardError(f"{where}: config: {error}") from error


def _fixed(value: Any) -> Any:
    """Lists, and lists in them, as tuples."""
    return tuple(_fixed(item) for item in value) if isinstance(value, list) else value
