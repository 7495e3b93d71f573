"""`zoo doctor`: what this machine has, what the zoo makes of it, and what would help."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.cli.parser import add_json, add_verb
from zoo.cli.text import print_fields, print_json, size
from zoo.errors import ZooError
from zoo.weights.cache import cache_folder

if TYPE_CHECKING:
    from zoo.cli.parser import Verbs

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "safetensors", "note-seq", "symusic")
SETTINGS = {
    "ZOO_CACHE": "the cache's folder",
    "ZOO_CARDS": "more folders of cards",
    "ZOO_MIRROR": "a folder or address that has the weights",
    "ZOO_OFFLINE": "1: never leave this machine",
    "ZOO_SOUNDFONT": "an .sf2 file to render with",
    "ZOO_DEBUG": "1: show tracebacks",
    "JAX_PLATFORMS": "cpu, cuda or tpu, in place of JAX's choice",
    "JAX_COMPILATION_CACHE_DIR": "where compiled programs are kept",
}


def add(verbs: Verbs) -> None:
    """Adds the verb of this file."""
    add_json(
        add_verb(verbs, "doctor", doctor, "Show versions, devices, cache, sound, and what is missing.", "zoo doctor")
    )


def doctor(args: argparse.Namespace) -> None:
    """`zoo doctor`."""
    devices = _devices()
    facts = {
        "zoo": f"{zoo.__version__} in {Path(zoo.__file__).parent}",
        "python": f"{platform.python_version()} in {sys.prefix}",
        "system": f"{platform.platform()}, {os.cpu_count()} processors",
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": devices,
        "models": _models(),
        "cache": _cache(),
        "settings": {name: os.environ.get(name) for name in SETTINGS},
        "sound": _sound(),
        "advice": _advice(devices),
    }
    if args.json:
        return print_json(facts)
    shown: dict[str, Any] = {
        **facts,
        "packages": ", ".join(f"{name} {number or 'MISSING'}" for name, number in facts["packages"].items()),  # type: ignore[attr-defined]
        "settings": [f"{name}={os.environ.get(name, '')}  ({what})" for name, what in SETTINGS.items()],
        "advice": facts["advice"] or "nothing is missing",
    }
    return print_fields(shown)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    """What JAX computes on; asking starts its backend, which may fail in any way."""
    try:
        import jax

        return [f"{device.platform}: {device.device_kind}" for device in jax.devices()]
    except Exception as error:
        return [f"JAX does not start: {' '.join(str(error).split())[:200]}"]


def _models() -> str:
    try:
        names, weighted = zoo.list_models(), zoo.list_models(pretrained=True)
    except ZooError as error:
        return f"not readable: {error}"
    return f"{len(names)}, {len(weighted)} of them with weights"


def _cache() -> str:
    folder = cache_folder()
    if not folder.exists():
        return f"{folder}: not there yet"
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    writable = "" if os.access(folder, os.W_OK) else "; it can't be written: set ZOO_CACHE to another folder"
    return f"{folder}: {size(used)}, {size(shutil.disk_usage(folder).free)} free on its disk{writable}"


def _sound() -> str:
    from zoo.show.audio import audio_status

    return audio_status()


def _advice(devices: list[str]) -> list[str]:
    """What would make things work, or work faster."""
    missing = [name for name in PACKAGES if _version(name) is None]
    advice = [f"{', '.join(missing)}: not installed: pip install music-zoo"] if missing else []
    on_cpu = all(device.startswith("cpu") for device in devices)
    if on_cpu and shutil.which("nvidia-smi"):
        advice.append("there is an NVIDIA driver, but JAX computes on the CPU: pip install 'music-zoo[cuda]'")
    return advice
