"""Optimisers as optax compositions, from the `[optimizer]` table of a recipe.

Its `[optimizer.players.NAME]` are for networks that play against each other: each names the parameters that an
optimiser of their own moves, `patterns` over dotted names, and how often, `every` so many steps from the first on;
whatever else it sets goes before the table's own. Between its turns a player's parameters, moments and schedule stand
still. All of it is a function of the state and the gradient, so that a run resumes like any other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from zoo.errors import TrainingError
from zoo.training.lora import label
from zoo.training.muon import muon


@dataclasses.dataclass(frozen=True)
class OptimizerRecipe:
    """The keys of `[optimizer]` and what they are where the table leaves them out."""

    name: str = "adam"  # "adam" | "adamw" | "muon"
    learning_rate: float = 1e-3  # the highest
    schedule: str = "constant"  # "constant" | "cosine" | "exponential", each after the warm-up
    end_learning_rate: float = 0.0  # cosine ends there; exponential tends to it
    steps: int | None = None  # cosine: the step, warm-up included, at which it has come down
    decay_rate: float = 0.9999  # exponential: end + (peak − end) · rate^k, as MusicVAE's from 1e-3 to 1e-5
    warmup_steps: int = 0  # linear from 0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0  # adamw, on what has two dimensions or more; muon, on kernels
    clip_norm: float | None = None  # of the gradient's global norm
    clip_value: float | None = None  # of each entry of the gradient
    accumulate: int = 1  # batches whose gradients are averaged for one update; schedules count updates


def make_optimizer(table: Mapping[str, Any]) -> optax.GradientTransformation:
    """The optimiser of a recipe's `[optimizer]` table; TrainingError for unknown keys and values."""
    if players := table.get("players"):
        return _for_players({key: value for key, value in table.items() if key != "players"}, players)
    recipe = _parse(table)
    schedule = make_schedule(table)
    moments = {"b1": recipe.b1, "b2": recipe.b2, "eps": recipe.eps}
    parts = []
    if recipe.clip_value is not None:
        parts.append(optax.clip(recipe.clip_value))
    if recipe.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(recipe.clip_norm))
    if recipe.name == "adam":
        parts.append(optax.adam(schedule, **moments))
    elif recipe.name == "muon":
        parts.append(muon(schedule, **moments, weight_decay=recipe.weight_decay))
    else:
        parts.append(optax.adamw(schedule, **moments, weight_decay=recipe.weight_decay, mask=_matrices))
    tx = optax.chain(*parts)
    return optax.MultiSteps(tx, recipe.accumulate).gradient_transformation() if recipe.accumulate > 1 else tx


def _for_players(table: Mapping[str, Any], players: Mapping[str, Mapping[str, Any]]) -> optax.GradientTransformation:
    """An optimiser for each player, of the parameters that its patterns match."""
    made: dict[str, optax.GradientTransformation] = {}
    for name, player in players.items():
        every = player.get("every", 1)
        own = {key: value for key, value in player.items() if key not in ("patterns", "every")}
        if every > 1:  # a schedule counts updates, and a table's steps are all of the run's
            own = {key: table[key] // every for key in ("steps", "warmup_steps") if key in table} | own
        tx = make_optimizer({**table, **own})
        made[name] = optax.conditionally_mask(tx, partial(_has_turn, every)) if every > 1 else tx
    patterns = {name: player["patterns"] for name, player in players.items()}
    return optax.multi_transform(made, partial(label, patterns))


def _has_turn(every: int, step: jax.Array) -> jax.Array:
    return step % every == 0


def make_schedule(table: Mapping[str, Any]) -> optax.Schedule:
    """The learning rate as a function of the number of updates made."""
    recipe = _parse(table)
    peak, end, warmup = recipe.learning_rate, recipe.end_learning_rate, recipe.warmup_steps
    if recipe.schedule == "constant":
        main = optax.constant_schedule(peak)
    elif recipe.schedule == "exponential":
        fall = math.log(recipe.decay_rate)  # here, in double precision: a float32 0.9999^10⁵ is off by 2 in a thousand
        main = lambda count: end + (peak - end) * jnp.exp(fall * count)  # noqa: E731
    else:
        assert recipe.steps is not None  # _parse has seen to it
        main = optax.cosine_decay_schedule(peak, recipe.steps - warmup, alpha=end / peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup]) if warmup else main


def _parse(table: Mapping[str, Any]) -> OptimizerRecipe:
    known = [field.name for field in dataclasses.fields(OptimizerRecipe)]
    if unknown := sorted(set(table) - set(known)):
        raise TrainingError(f"[optimizer] has no key {', '.join(unknown)}; its keys are {', '.join(known)}")
    recipe = OptimizerRecipe(**table)
    for key, value, choices in (
        ("name", recipe.name, ("adam", "adamw", "muon")),
        ("schedule", recipe.schedule, ("constant", "cosine", "exponential")),
    ):
        if value not in choices:
            raise TrainingError(f"[optimizer] {key} = '{value}' is not one of {', '.join(choices)}")
    if recipe.learning_rate <= 0:
        raise TrainingError(f"[optimizer] learning_rate = {recipe.learning_rate} is not above zero")
    if recipe.accumulate < 1:
        raise TrainingError(f"[optimizer] accumulate = {recipe.accumulate} is not at least 1")
    if recipe.schedule == "cosine" and (recipe.steps is None or recipe.steps <= recipe.warmup_steps):
        raise TrainingError("[optimizer] schedule = 'cosine' needs steps, and more of them than warmup_steps")
    return recipe


def _matrices(params: Any) -> Any:
    """Decay kernels and embeddings, not biases and scales."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
