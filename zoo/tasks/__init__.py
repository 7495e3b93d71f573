"""What a user does with a model, a file a task. `load` makes the task's object from a name or a path."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from zoo.tasks.model import Found, Model, build, find

if TYPE_CHECKING:
    from flax import nnx


def load(name: str | os.PathLike[str]) -> Model:
    """A model with its weights, ready to use.

    Args:
      name: an id ("music-vae/mel-2bar"), a family ("music-vae", its default variant), a run directory, a folder that
        holds a card, or a .safetensors file that the zoo wrote.

    Raises:
      InputError: no such model or path.
      WeightsError: the weights are missing, corrupted, or do not fit.
      CardError: the card is not correct.
    """
    found = find(name)
    return bind(build(found), found)


def bind(module: nnx.Module, found: Found) -> Model:
    """A network with what its task can do."""
    task = importlib.import_module(f"zoo.tasks.{found.architecture.task}")
    model: Model = task.Task(module, found)
    return model


__all__ = ["Model", "bind", "load"]
