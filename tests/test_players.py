"""Networks that play against each other: an optimiser each, and turns."""

from __future__ import annotations

from functools import partial
from itertools import islice

import jax
import numpy as np
import pytest

from tests.train_toy import (
    CONFIG,
    PLAYERS,
    RECIPE,
    TX,
    batch,
    batches,
    evaluate,
    identical,
    new_state,
    split,
    train_step,
)
from tests.train_toy import train as train_toy
from zoo.errors import TrainingError
from zoo.training import Run, TrainState, fit, lora_init, make_optimizer, make_train_step
from zoo.training.params import flatten
from zoo.weights.formats import safetensors


def test_a_player_moves_in_its_turn_and_rests_between():
    state, moved = new_state("players"), []
    for step in range(7):
        before = {name: np.array(leaf) for name, leaf in flatten(state.params).items()}
        state, _ = train_step(tx="players")(state, batch(step))
        moved.append(
            {name.split(".")[0] for name, leaf in flatten(state.params).items() if np.any(leaf != before[name])}
        )
    assert [step for step, names in enumerate(moved) if "encoder" in names] == [0, 3, 6]
    assert all({"layers", "head"} <= names for names in moved)


def test_a_resting_player_keeps_its_moments():
    """Its third update, at step 6, is what it would be had it been shown batches 0, 3 and 6 alone."""
    player, tx = PLAYERS["encoder"], TX["players"]
    alone = make_optimizer({**RECIPE["optimizer"], "b1": player["b1"]})
    params = jax.tree.map(np.asarray, new_state().params)
    gradient = lambda step: jax.tree.map(lambda x: np.cos(x + step).astype(np.float32), params)  # noqa: E731
    state, own = tx.init(params), alone.init(params["encoder"])
    for step in range(7):
        updates, state = tx.update(gradient(step), state, params)
        if step % 3 == 0:
            expected, own = alone.update(gradient(step)["encoder"], own, params["encoder"])
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), updates["encoder"], expected)
        else:
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates["encoder"]))


def test_schedules_end_with_the_run():
    """A cosine over 30 steps has come down for a player of every third step too."""
    table = {"learning_rate": 1.0, "schedule": "cosine", "steps": 30, "players": PLAYERS}
    tx = make_optimizer(table)
    params = {"encoder": np.ones(3, np.float32), "other": np.ones(3, np.float32)}
    tx = make_optimizer({**table, "players": {**PLAYERS, "encoder": {"patterns": ["encoder"], "every": 3}}})
    state, seen = tx.init(params), []
    for _ in range(30):
        updates, state = tx.update(params, state, params)
        seen.append(float(np.abs(updates["encoder"]).max()))
    turns = seen[::3]
    assert turns[0] == pytest.approx(1.0, abs=1e-3)
    assert turns[-1] < 0.1
    assert turns == sorted(turns, reverse=True)


def test_frozen_and_adapted_parameters_have_players_too():
    graphdef, params = split()
    adapters = lora_init(params, ["*kernel"], 2, jax.random.key(0))
    loss = lambda model, batch, key, step: ((model(batch["x"]) - batch["y"]).var(), {})  # noqa: E731
    for options in ({"adapters": adapters}, {"freeze": ["head.*"]}):
        state = TrainState.create(params, TX["players"], jax.random.key(0), **options)
        after, _ = make_train_step(graphdef, loss, TX["players"])(state, batch(0))
        assert int(after.step) == 1
        assert int(after.bad_steps) == 0


def test_a_parameter_without_a_player_is_an_error():
    with pytest.raises(TrainingError, match=r"no player moves 'head\.bias'|no player moves 'head\.kernel'"):
        make_optimizer({"players": {"a": {"patterns": ["encoder.*", "layers.*"]}}}).init(new_state().params)
    with pytest.raises(TrainingError, match="no key speed"):
        make_optimizer({"players": {"a": {"patterns": ["*"], "speed": 2}}})


def test_resuming_between_turns_is_bit_for_bit(tmp_path):
    whole = train_toy(tmp_path / "whole", tx="players")
    broken = tmp_path / "broken"

    def interrupted(start):
        yield from islice(batches(start), 25 - start)
        raise ConnectionError

    often = {"evaluate_every": 20, "checkpoint_every": 10, "log_every": 5, "evaluate": evaluate()}
    with Run.create_or_resume(broken, CONFIG, RECIPE) as run, pytest.raises(ConnectionError):
        fit(new_state("players", ema=True), train_step(0.9, "players"), interrupted, steps=40, run=run, **often)
    assert identical(train_toy(broken, tx="players"), whole)
    assert (broken / "best.safetensors").read_bytes() == (tmp_path / "whole" / "best.safetensors").read_bytes()


def test_moments_are_kept(tmp_path):
    state = train_toy(tmp_path, moments=[3, 40])
    assert sorted(path.name for path in (tmp_path / "moments").iterdir()) == ["3.safetensors", "40.safetensors"]
    last, config = safetensors.load(tmp_path / "moments" / "40.safetensors")
    assert config == CONFIG
    assert all(np.array_equal(last[name], leaf) for name, leaf in flatten(state.weights).items())
    first, _ = safetensors.load(tmp_path / "moments" / "3.safetensors")
    assert not all(np.array_equal(first[name], last[name]) for name in last)
