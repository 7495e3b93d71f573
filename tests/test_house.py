"""The rules of the house: who may import whom, what costs no time, and that every file can be read."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[1] / "zoo"
FILES = sorted(HOUSE.rglob("*.py"))

# The rooms that each room may enter. "zoo" is the front door itself; every room raises `zoo.errors`.
ROOMS: dict[str, set[str]] = {
    "zoo": {"registry", "tasks"},
    "__main__": {"cli"},
    "cli": {"zoo", "registry", "tasks", "music", "show", "weights"},
    "readme": {"zoo", "cli", "weights"},
    "tasks": {"registry", "models", "nn", "music", "data", "training", "weights", "show"},
    "registry": {"models", "weights"},
    "models": {"nn"},
    "nn": set(),
    "music": {"nn"},  # features of sound that are worked out by JAX
    "data": {"music", "show"},  # `show` plays notes for models of sound that learn from them
    "show": {"music"},
    "training": {"weights"},  # the format of its best weights; never a model
    "weights": set(),
    "errors": set(),
}
EVERYWHERE = {"zoo.errors", "zoo.weights.cache"}  # errors, and the one way to write a file whole or not at all

# Who may import what is heavy, or would tie a room to something it should not know.
LIBRARIES: dict[str, set[str]] = {
    "orbax": {"training"},
    "optax": {"training", "tasks"},
    "note_seq": {"music"},
    "symusic": {"music"},
    "librosa": {"music"},
    "music21": {"music"},
    "matplotlib": {"show", "training"},
    "soundfile": {"show", "music"},
    "safetensors": {"weights"},
    "jax": {"models", "nn", "tasks", "training", "cli"},
    "flax": {"models", "nn", "tasks", "training"},
    "tensorflow": set(),
    "torch": set(),
    "h5py": {"weights"},
    "soxr": {"music"},
    "numba": {"nn"},
    "llvmlite": {"nn"},
    "onnx": set(),
    "pickle": {"weights"},  # the restricted reader of PyTorch's files
}
OF_WEIGHTS = {"numpy", "safetensors", "tqdm", "pickle", "h5py"}  # tqdm: the progress of a download
ONLY_WITHIN_FUNCTIONS = {"note_seq", "music21", "librosa"}  # seconds to import
LINES = 500
LONGER = {"models/music_vae.py": 600}  # all kinds of MusicVAE share one module


def test_the_rooms_are_those_named_here() -> None:
    assert {room(path) for path in FILES} - {"__init__"} | {"zoo"} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_who_imports_whom(path: Path) -> None:
    here = "zoo" if room(path) == "__init__" else room(path)
    for name, where in imports(path):
        first, *rest = name.split(".")
        if first == "zoo":
            there = rest[0] if rest and rest[0] in ROOMS else "zoo"
            allowed = there == here or there in ROOMS[here] or any(name.startswith(e) for e in EVERYWHERE)
            assert allowed, f"{path}: {here} must not import {name}"
        elif first not in sys.stdlib_module_names or first == "pickle":
            assert here in LIBRARIES.get(first, {here}), f"{path}: {first} is not for {here}"
            assert here != "weights" or first in OF_WEIGHTS, f"{path}: weights need no {first}"
            assert where == "function" or first not in ONLY_WITHIN_FUNCTIONS, f"{path}: import {first} where it is used"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_a_file_can_be_read(path: Path) -> None:
    """Not too long, and what is public says what it is."""
    name, tree = path.relative_to(HOUSE).as_posix(), parsed(path)
    assert len(path.read_text().splitlines()) <= LONGER.get(name, LINES)
    assert ast.get_docstring(tree) or not tree.body, name
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}: {node.name} has no docstring"


def test_the_rules_can_be_broken(tmp_path: Path) -> None:
    """What the tests above see of a file."""
    path = tmp_path / "x.py"
    path.write_text(
        "from zoo import registry, load\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import note_seq\n"
        "else:\n    import librosa.feature as f\n"
        "def g():\n    from zoo.music.io import read\n"
        "class C:\n    import jax\n"
    )
    found = {("zoo.registry", "file"), ("zoo.load", "file"), ("typing", "file"), ("librosa.feature", "file")}
    assert set(imports(path)) == found | {("zoo.music.io", "function"), ("jax", "file")}


def test_the_front_door_is_light() -> None:
    """`import zoo` takes under 0.2 s, and neither it nor listing and describing models needs anything heavy."""
    program = """
import json, sys, time
start = time.process_time()
import zoo
imported = time.process_time() - start
names = zoo.list_models()
zoo.list_models(task="latent", pretrained=True)
for name in names:
    zoo.info(name), zoo.cite(name)
print(json.dumps([imported, sorted({name.split(".")[0] for name in sys.modules}), names]))
"""
    runs = []
    for _ in range(3):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HOUSE.parent)
        runs.append(json.loads(done.stdout))
    seconds, modules, _ = min(runs)
    assert seconds < 0.2
    heavy = {"jax", "flax", "optax", "orbax", "scipy", "note_seq", "symusic", "matplotlib", "soundfile", "librosa"}
    assert set(modules) & heavy == set()


def room(path: Path) -> str:
    """The first part of a file's path within `zoo`, without its suffix."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every import that is executed: the module's full name, and whether at once ("file") or later ("function")."""

    def visit(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            yield from ((f"zoo.{alias.name}", where) for alias in node.names) if module == "zoo" else [(module, where)]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                yield from visit(child, where)
        else:
            inside = "function" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) else where
            for child in ast.iter_child_nodes(node):
                yield from visit(child, inside)

    yield from visit(parsed(path), "file")
