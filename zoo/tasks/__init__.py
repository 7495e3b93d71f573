"""What a user does with a model, a file a task. `load` makes the task's object from a name or a path."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from zoo.tasks.model import Found, Model, build, find

if TYPE_CHECKING:
    from flax import nnx


def load(name: str | os.PathLike[str], *, precision: str = "float32") -> Model:
    """A model with its weights, ready to use.

    Args:
      name: an id ("music-vae/mel-2bar"), a family ("music-vae", its default variant), a run directory, a folder that
        holds a card, or a .safetensors file that the zoo wrote.
      precision: "float32", or "bfloat16": the factors of matrix products are rounded to three digits, which is up to
        twice as fast on a GPU, a TPU and a CPU with AVX-512 BF16, and changes what is likeliest where it is a near tie.

    Raises:
      InputError: no such model or path, or no such precision.
      WeightsError: the weights are missing, corrupted, or do not fit.
      CardError: the card is not correct.
    """
    found = find(name)
    return bind(build(found), found, precision)


def bind(module: nnx.Module, found: Found, precision: str = "float32") -> Model:
    """A network with what its task can do."""
    task = importlib.import_module(f"zoo.tasks.{found.architecture.task}")
    model: Model = task.Task(module, found)
    model.set_precision(precision)
    return model


__all__ = ["Model", "bind", "load"]
