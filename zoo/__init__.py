"""The model zoo for music in JAX: pretrained networks that generate and analyse music.

    import zoo

    model = zoo.load("music-vae")               # pretrained; also a run directory, a card's folder, a .safetensors file
    notes = model.sample(4, key=0)              # list of NoteSequences
    z = model.encode(["a.mid", "b.mid"])        # [2, Z]
    zoo.finetune("music-vae", "my_midis/", "runs/mine")

Everything is imported when first used: `import zoo` and listing models need no JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.errors import CardError, InputError, TrainingError, WeightsError, ZooError
    from zoo.registry import cite, info, list_models
    from zoo.tasks import load
    from zoo.tasks.analyze import analyze
    from zoo.tasks.bench import bench
    from zoo.tasks.learning import evaluate, finetune, train

__version__ = "0.1.0"

_HOMES = {
    "load": "zoo.tasks",
    "list_models": "zoo.registry",
    "info": "zoo.registry",
    "cite": "zoo.registry",
    "train": "zoo.tasks.learning",
    "finetune": "zoo.tasks.learning",
    "evaluate": "zoo.tasks.learning",
    "analyze": "zoo.tasks.analyze",
    "bench": "zoo.tasks.bench",
    "ZooError": "zoo.errors",
    "InputError": "zoo.errors",
    "WeightsError": "zoo.errors",
    "CardError": "zoo.errors",
    "TrainingError": "zoo.errors",
}

__all__ = [
    "CardError",
    "InputError",
    "TrainingError",
    "WeightsError",
    "ZooError",
    "analyze",
    "bench",
    "cite",
    "evaluate",
    "finetune",
    "info",
    "list_models",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
