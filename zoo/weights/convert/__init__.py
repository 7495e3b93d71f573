"""Other people's names of tensors → ours, strictly: nothing is dropped in silence and nothing stays unfilled.

A converter "music-vae" is the module `music_vae.py` here with a list `RULES`, and a function `prepare` where several
tensors have to become one first.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.errors import WeightsError

# What optimisers keep beside the weights, which no model needs.
OPTIMISER_SLOTS = (
    r"(.*/)?(global_step|beta[12]_power|learning_rate)(_\d+)?",
    r".*/(Adam|Adagrad|RMSProp|Momentum|Adadelta|Ftrl)(_\d+)?",
    r"optimizer_weights/.*",
)


@dataclass(frozen=True)
class Rule:
    r"""Tensors whose whole name matches the regular expression `source` become `target`, which may refer to \1.

    `transform` changes the array where ours is laid out in another way.
    """

    source: str
    target: str
    transform: Callable[[np.ndarray], np.ndarray] | None = None


def convert(tensors: Mapping[str, np.ndarray], converter: str, where: str) -> dict[str, np.ndarray]:
    """Applies a converter by its name; `where` is what the tensors came from. Raises `WeightsError`."""
    module = f"{__name__}.{converter.replace('-', '_')}"
    if not converter.replace("-", "").isalnum() or importlib.util.find_spec(module) is None:
        raise WeightsError(f"{where}: there is no converter {converter!r}; correct the card")
    found = importlib.import_module(module)
    prepared = found.prepare(tensors) if hasattr(found, "prepare") else tensors
    return apply_rules(prepared, found.RULES, where)


def fold_batch_norms(
    tensors: Mapping[str, np.ndarray],
    epsilon: float,
    names: Sequence[str] = ("gamma", "beta", "moving_mean", "moving_variance"),
) -> dict[str, np.ndarray]:
    """Each batch norm's four vectors become two: `scale` = γ / √(variance + ε) and `shift` = β − mean · scale.

    `names` are the last parts of the four's names. γ or β may be missing, which is 1 or 0.
    """
    gamma, beta, mean, variance = names
    folded = dict(tensors)
    for prefix in [name.removesuffix(mean) for name in tensors if name.endswith(mean)]:
        if prefix + variance in folded:  # else strictness says what is left over
            scale = folded.pop(prefix + gamma, 1.0) / np.sqrt(folded.pop(prefix + variance) + np.float64(epsilon))
            shift = folded.pop(prefix + beta, 0.0) - folded.pop(prefix + mean) * scale
            folded |= {f"{prefix}scale": scale.astype(np.float32), f"{prefix}shift": shift.astype(np.float32)}
    return folded


def apply_rules(
    tensors: Mapping[str, np.ndarray], rules: Sequence[Rule], where: str, ignore: Iterable[str] = OPTIMISER_SLOTS
) -> dict[str, np.ndarray]:
    """The tensors under the names that the first matching rule of each gives; those matching `ignore` are left out.

    Raises `WeightsError` if a tensor has no rule or two become the same. That no target stays unfilled is for
    `check_fit` to say, which knows the model.
    """
    result: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    unused = []
    for name, tensor in tensors.items():
        if any(re.fullmatch(pattern, name) for pattern in ignore):
            continue
        match, rule = next(((m, r) for r in rules if (m := re.fullmatch(r.source, name))), (None, None))
        if match is None or rule is None:
            unused.append(name)
            continue
        target = match.expand(rule.target)
        if target in result:
            raise WeightsError(
                f"{where}: {origin[target]} and {name} both become {target}; give the weights of one model"
            )
        result[target], origin[target] = rule.transform(tensor) if rule.transform else tensor, name
    if unused:
        raise WeightsError(
            f"{where}: no place for {_listed(unused, origin.values())}; these are another model's weights"
        )
    return result


def check_fit(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises `WeightsError` unless the tensors are those that a model needs, in name and shape, no more and no less.

    `shapes` are the model's parameters. The message lists names, each with the nearest one on the other side.
    """
    unfilled = [name for name in shapes if name not in tensors]
    unused = [name for name in tensors if name not in shapes]
    wrong = [n for n, shape in shapes.items() if n in tensors and tuple(tensors[n].shape) != tuple(shape)]
    problems = []
    if unfilled:
        problems.append(f"gives nothing for {_listed(unfilled, unused)}")
    if unused:
        problems.append(f"has no place for {_listed(unused, unfilled)}")
    if wrong:
        first = wrong[0]
        given, needed = tuple(tensors[first].shape), tuple(shapes[first])
        problems.append(f"has {first} of shape {given} where the model needs {needed} (and {len(wrong) - 1} more such)")
    if problems:
        raise WeightsError(f"{where}: {', '.join(problems)}; use the weights and the config of the same model")


def _listed(names: Sequence[str], others: Iterable[str]) -> str:
    """The first three names, each with the nearest of `others`."""
    others = list(others)
    parts = []
    for name in names[:3]:
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.7)
        parts.append(f"{name} (nearest: {near[0]})" if near else name)
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return ", ".join(parts + more)
