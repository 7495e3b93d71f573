"""Run directories: everything a training run leaves on disk, and all it needs to go on after being killed.

runs/mine/config.json, recipe.toml    what is trained, and how
          metrics.jsonl, curve.png    what was measured
          checkpoints/                the last two whole training states (Orbax)
          best.safetensors            the best weights by validation, for `zoo.load("runs/mine")`
          moments/                    the weights after some steps, if a recipe asks for them
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from zoo.errors import TrainingError, WeightsError
from zoo.training.metrics import MetricsLog, cannot_write, reason, replace_file
from zoo.training.params import Params, flatten
from zoo.training.state import TrainState
from zoo.weights.formats import safetensors

logger = logging.getLogger(__name__)

MOMENTS = "moments"
MARGIN = 2**20  # bytes that a checkpoint takes beside its arrays, at most
KEPT = 2  # checkpoints: the last, and the one before should the last turn out damaged


class Run:
    """A run directory, open for training by this process alone. Close it, or use it in a `with` block."""

    def __init__(self, path: Path, config: Mapping[str, Any], lock: int):
        self.path = path
        self.config = config
        self.metrics = MetricsLog(path / "metrics.jsonl")
        self._lock = lock
        for litter in [
            *path.glob(".best.safetensors.*"),
            *path.glob(f"{MOMENTS}/.*"),
        ]:  # of a process killed while it wrote
            litter.unlink()
        self._manager = ocp.CheckpointManager(
            path / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
            ),
            item_names=("state", "digest"),
        )

    @classmethod
    def create_or_resume(cls, path: str | Path, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> Run:
        """Open `path` for training: a new directory, or the one that the same config and recipe began.

        Args:
            path: the directory; made if it is missing.
            config: what is trained, JSON values; best.safetensors carries the same in its header.
            recipe: how, TOML values in nested tables.

        Raises:
            TrainingError: the directory is another run's, or no run's and not empty, or in use, or can't be written.
        """
        path = Path(path).absolute()
        facts = {"config.json": json.dumps(config, indent=2) + "\n", "recipe.toml": to_toml(recipe)}
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            _hold(lock, path)
            if (path / "config.json").exists():
                _check_same(path, config, recipe)
            else:
                _check_empty(path)
                for name in ("recipe.toml", "config.json"):  # config.json last: where it is, all is
                    replace_file(path / name, facts[name].encode())
            return cls(path, config, lock)
        except BaseException:
            os.close(lock)
            raise

    def save(self, state: TrainState) -> None:
        """Write the whole state as a checkpoint; a process killed meanwhile leaves the earlier ones as they were."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        path = self.path / "checkpoints" / str(step)
        arrays = _arrays(state)
        if shutil.disk_usage(self.path).free < sum(array.nbytes for array in arrays.values()) + MARGIN:
            # Found out here, since Orbax, finding it out midway, prints pages of tracebacks.
            raise cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), digest=ocp.args.JsonSave({"sha256": _digest(arrays)})
        )
        try:
            self._manager.save(step, args=items)
        except Exception as error:  # Orbax and TensorStore raise many kinds for a full disk
            raise cannot_write(path, error) from error

    def restore(self, state: TrainState) -> TrainState:
        """The newest whole checkpoint, placed on devices as `state` is; `state` itself where there is none yet."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return _like(state, self._read(step))
            except TrainingError:
                raise
            except Exception as error:  # a damaged file shows itself in as many ways as there are bytes
                logger.warning("%s: checkpoint %d is damaged and skipped (%s)", self.path, step, reason(error))
                self._manager.delete(step)
        if steps:
            raise TrainingError(f"{self.path}: every checkpoint is damaged; start again with a new directory")
        return state

    def save_best(self, params: Params) -> None:
        """Put the parameters at best.safetensors, by their dotted names, with the config as its metadata."""
        self._write(self.path / "best.safetensors", params)

    def save_moment(self, step: int, params: Params) -> None:
        """The same at moments/STEP.safetensors."""
        self._write(self.path / MOMENTS / f"{step}.safetensors", params)

    def _write(self, path: Path, params: Params) -> None:
        try:
            path.parent.mkdir(exist_ok=True)
            safetensors.write(path, {name: np.asarray(leaf) for name, leaf in flatten(params).items()}, self.config)
        except (WeightsError, OSError) as error:
            raise cannot_write(path, error.__cause__ or error) from error

    def close(self) -> None:
        """Let another process have the directory."""
        self._manager.close()
        os.close(self._lock)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, step: int) -> dict[str, np.ndarray]:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(), digest=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        if _digest(restored.state) != restored.digest["sha256"]:
            raise ValueError("its content does not have the digest saved with it")
        return restored.state


def _arrays(state: TrainState) -> dict[str, np.ndarray]:
    """The state's leaves by their path; typed keys as the integers they are made of. Orbax refuses empty arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    arrays = {jax.tree_util.keystr(path): np.asarray(_raw(leaf)) for path, leaf in leaves}
    return {name: array for name, array in arrays.items() if array.size}


def _like(state: TrainState, arrays: Mapping[str, np.ndarray]) -> TrainState:
    """`arrays` as a state with the structure, types and placement of `state`."""
    expected = {name: (array.shape, array.dtype) for name, array in _arrays(state).items()}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if expected != found:
        odd = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        raise TrainingError(f"the checkpoint is of another model or optimiser: {', '.join(odd[:3])} differ")

    def place(path: Any, leaf: jax.Array) -> jax.Array:
        array = jnp.array(arrays[jax.tree_util.keystr(path)]) if leaf.size else leaf
        if _is_key(leaf):
            array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        return jax.device_put(array, leaf.sharding)

    return jax.tree_util.tree_map_with_path(place, state)


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _hold(lock: int, path: Path) -> None:
    """Take the lock of the directory `path`; the system drops it when the process ends, however it ends."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a process's own, so children it forks do not hold it on
    except OSError as error:
        owner = os.read(lock, 32).decode(errors="replace").strip()
        raise TrainingError(
            f"{path}: process {owner} is training here; wait for it, stop it, or use another directory"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _check_empty(path: Path) -> None:
    ours = {".lock", "recipe.toml", "recipe.toml.tmp", "config.json.tmp"}
    if strangers := sorted(entry.name for entry in path.iterdir() if entry.name not in ours):
        raise TrainingError(f"{path}: holds {strangers[0]} and is not a run's directory; name a new or empty one")


def _check_same(path: Path, config: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """TrainingError unless the directory's config and recipe are these."""
    try:
        old_config = json.loads((path / "config.json").read_text())
        old_recipe = tomllib.loads((path / "recipe.toml").read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path}: its config.json or recipe.toml can't be read ({error}); use another directory"
        ) from error
    new_config, new_recipe = json.loads(json.dumps(config)), tomllib.loads(to_toml(recipe))
    for kind, old, new in (("config", old_config, new_config), ("recipe", old_recipe, new_recipe)):
        old, new = _leaves(old), _leaves(new)
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                there, here = (json.dumps(facts.get(key)) for facts in (old, new))
                raise TrainingError(f"{path}: began with {kind} {key} = {there}, now {here}; use another directory")


def _leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return leaves


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """TOML of nested tables of numbers, strings, booleans and lists of them; what is None is left out."""
    lines = [f"{_key(k)} = {_toml(v)}" for k, v in table.items() if v is not None and not isinstance(v, Mapping)]
    text = "".join(line + "\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, Mapping):
            text += f"\n[{prefix}{_key(key)}]\n" + to_toml(value, f"{prefix}{_key(key)}.")
    return text


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # JSON has no inf
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
