"""What a user does with a model, a file a task. `load` makes the task's object from a name or a path."""

from __future__ import annotations

import importlib
import os

from zoo.tasks.model import Model, build, find


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
    task = importlib.import_module(f"zoo.tasks.{found.architecture.task}")
    model: Model = task.Task(build(found), found)
    return model


__all__ = ["Model", "load"]
