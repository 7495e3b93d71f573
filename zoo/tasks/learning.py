"""Train, fine-tune and evaluate any architecture of the zoo on a folder of music."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo import data as corpora
from zoo import training
from zoo.errors import CardError, InputError, WeightsError
from zoo.music.codecs import get_codec
from zoo.nn.precision import check_precision, products
from zoo.tasks import bind, heads, load
from zoo.tasks.model import Found, MeasuresPieces, Model, build, dotted, fill, find, use_compilation_cache
from zoo.training.params import as_params, flatten, matching

Path_ = str | os.PathLike[str]

RATE, HEAD_RATE = 3e-4, 3e-3  # of fine-tuning: a whole network's, a new last layer's
EVALUATION_BATCH = 256
EVALUATION_NUMBERS = 1 << 20  # in a batch at most, of long examples
LEARNING = ("codec", "patterns", "samples", "transpose", "vary")  # what a [data] table says beside how to cut windows
VALIDATION_WINDOWS = 1024  # a fixed draw of them is enough to see the curve
CONCLUDING_WINDOWS = 4096  # of training, for what is worked out when it has ended


def train(
    name: Path_,
    data: Path_,
    out: Path_,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    verbose: bool = False,
) -> Model:
    """Trains a model of the zoo by its recipe, the one that made the published checkpoint.

    It begins with random weights, or with those of the model that the recipe's `start` names; parameters that its
    `keep` matches are the model's own published ones and stay as they are. With `samples` in its [data] table the model
    also learns from so many windows that it draws itself before it starts.

    Args:
      name: a model whose card has a recipe.
      data: a folder of music; see `zoo.data`.
      out: the run directory. The same command again continues a run that was stopped, bit for bit.
      steps, batch_size, seed: in place of the recipe's.
      verbose: print a line at each log where there is no terminal.

    Returns the trained model, as `zoo.load(out)` would.
    """
    found = find(name)
    recipe = _recipe(found)
    recipe["optimizer"] = _with_players(recipe["optimizer"], found)
    for key, value in {"steps": steps, "batch_size": batch_size, "seed": seed}.items():
        if value is not None:
            recipe["train"][key] = value
    if steps is not None and recipe["optimizer"].get("schedule") == "cosine":
        recipe["optimizer"]["steps"] = steps
        recipe["optimizer"]["warmup_steps"] = min(recipe["optimizer"].get("warmup_steps", 0), steps // 10)
    if start := recipe["train"].get("start"):
        module = fill(found.architecture.module, found.config, find(start).tensors(), start)
    else:
        module = found.architecture.module(found.config, rngs=nnx.Rngs(recipe["train"].get("seed", 0)))
    if kept := recipe["train"].get("keep"):
        module = keep(module, found, kept)
    return _run(found, module, recipe, data, out, verbose)


def finetune(
    name: Path_,
    data: Path_,
    out: Path_,
    *,
    steps: int = 500,
    batch_size: int = 64,
    learning_rate: float | None = None,
    freeze: Sequence[str] | None = None,
    lora: int = 0,
    seed: int = 0,
    verbose: bool = False,
) -> Model:
    """Goes on from pretrained weights with music of one's own; the best weights on its validation pieces are kept.

    A model whose prior is fitted to its training music gets one fitted to this music: its samples begin there.

    Args:
      name: a model, or anything `zoo.load` takes.
      data, out, verbose: as for `train`.
      learning_rate: the largest of its schedule, by default 3e-4, or 3e-3 where only a last layer learns.
      freeze: patterns over parameter names ("encoder.*") that stay as they are. A classifier gets a new last layer for
        the folders of `data`, its classes, and by default only that layer learns; `()` lets all of it learn.
      lora: rank of low-rank adapters; then only these are trained, on every kernel that is not frozen.
    """
    found = find(name)
    head = found.architecture.head
    if freeze is None:
        freeze = head.trunk if head is not None and not lora else ()
    if learning_rate is None:
        learning_rate = HEAD_RATE if head is not None and tuple(freeze) == head.trunk else RATE
    optimizer = {"learning_rate": learning_rate, "schedule": "cosine", "steps": steps, "clip_norm": 1.0}
    recipe: dict[str, Any] = {
        "train": {"steps": steps, "batch_size": batch_size, "seed": seed, "evaluate_every": max(1, steps // 10)},
        "optimizer": _with_players(optimizer | {"warmup_steps": min(50, steps // 10)}, found),
        "data": _data_table(found),
        "finetune": {"base": str(name), "freeze": list(freeze), "lora": lora},
    }
    return _run(found, build(found), recipe, data, out, verbose)


def evaluate(
    model: Model | Path_, data: Path_, *, split: str = "test", samples: int = 0, seed: int = 0, limit: int | None = None
) -> dict[str, float]:
    """Metrics on the pieces of one split ("train", "valid" or "test"), averaged over windows.

    Args:
      model: a loaded model, or anything `zoo.load` takes.
      data: a folder of music, split by piece; see `zoo.data`.
      samples: also draw so many windows and compare them with the split's own; see `zoo.tasks.statistics`.
      limit: at most so many windows, drawn by `seed`.

    A model that can `measure` whole pieces adds what it finds there: one that writes token by token its `nll`, see
    `Continuation.measure`, one that finds melodies their F1 beside a baseline's, see `MelodyFinder.measure`.

    A task that has an `evaluate` of its own, such as transcription, says there what it measures on which data.
    """
    model = model if isinstance(model, Model) else load(model)
    task = importlib.import_module(f"zoo.tasks.{model.architecture.task}")
    if hasattr(task, "evaluate"):
        own: dict[str, float] = task.evaluate(model, data, limit=limit)
        return own
    found = find(model.name)
    corpus = _corpus(data, found, _data_table(found))
    if isinstance(corpus, corpora.Labelled) and corpus.classes:
        heads.check_classes(found, corpus.classes)
    windows = getattr(corpus, split, None)
    if split not in ("train", "valid", "test") or windows is None:
        raise InputError(f"no split {split!r}; there are train, valid and test")
    if not corpora.count_of(corpora.named(windows)):
        raise InputError(f"{data}: no piece of it falls into {split}; add pieces, or choose another split")
    compiled = _compile_evaluation(model.architecture.evaluate, model.graph)
    measured = measure(compiled, model.state, _draw(windows, limit, seed), seed)
    if isinstance(model, MeasuresPieces):
        named = {key: value for key, value in _data_table(found).items() if key in ("patterns", "meters")}
        pieces = corpora.load_pieces(Path(data), split, **(named if _holds(data, named) else {}))
        measured |= model.measure(score for _, score in pieces)
    if samples:
        from zoo.tasks import statistics

        if not isinstance(corpus, corpora.Corpus):
            raise InputError(f"{model.name}: draws nothing to compare with its data; leave out samples")

        measured |= statistics.compare(model, corpus, split, samples, seed)
    return measured


def measure(
    compiled: Callable[..., Any], params: Any, windows: np.ndarray | corpora.Examples, seed: int = 0
) -> dict[str, float]:
    """Means over all `windows` of the metrics that `compiled(params, batch, key)` gives.

    They are taken in random order: what compares a batch as a whole, such as the distance of what is drawn from it, is
    then about all of them and not about the piece or two that lie side by side.
    """
    examples = corpora.named(windows)
    order = np.random.default_rng(seed).permutation(corpora.count_of(examples))
    sums: dict[str, np.ndarray] = {}  # of each metric: its sum, and of how many
    numbers = sum(rows.size for rows in corpora.take(examples, slice(1)).values())
    at_once = min(EVALUATION_BATCH, max(1, EVALUATION_NUMBERS // max(1, numbers)))
    for at in range(0, corpora.count_of(examples), at_once):
        part = corpora.take(examples, order[at : at + at_once])
        batch, size = {name: jnp.asarray(rows) for name, rows in part.items()}, corpora.count_of(part)
        key = jax.random.fold_in(jax.random.key(seed), at)
        for name, value in compiled(params, batch, key).items():
            value = np.asarray(value, np.float64)
            counted = value if value.ndim else np.array([value * size, size])
            sums[name] = sums.get(name, np.zeros(2)) + counted
    return {name: float(total / max(count, 1)) for name, (total, count) in sums.items()}


def _run(found: Found, module: nnx.Module, recipe: dict[str, Any], data: Path_, out: Path_, verbose: bool) -> Model:
    """Trains `module` by `recipe` in the run directory `out`, or continues there."""
    use_compilation_cache()
    architecture, settings, tuning = found.architecture, recipe["train"], recipe.get("finetune", {})
    corpus = _corpus(data, found, recipe["data"])
    if tuning:
        module = architecture.settle(module)
    seed = settings.get("seed", 0)
    train_windows, valid = corpus.train, corpus.valid
    head = architecture.head
    if tuning and head is not None and isinstance(corpus, corpora.Labelled):
        found, module = heads.with_classes(found, module, head, corpus.classes, seed)
        if tuple(tuning["freeze"]) == head.trunk:
            train_windows, valid = (heads.embedded(module, head, each) for each in (corpus.train, corpus.valid))
    if drawn := recipe["data"].get("samples", 0):  # the model's own music, of which it knows the z it means
        itself: Any = bind(module, found)
        train_windows = np.concatenate([train_windows, itself.sample_windows(drawn, key=seed)])
    graph, params = nnx.split(module)
    adapters = None
    if tuning.get("lora"):
        kernels = [name for name, leaf in flatten(params).items() if leaf.ndim == 2]
        frozen = matching(tuning["freeze"], kernels) if tuning["freeze"] else set()
        adapted = [name for name in kernels if name not in frozen]
        adapters = training.lora_init(params, adapted, tuning["lora"], jax.random.key(seed))
    tx = training.make_optimizer(recipe["optimizer"])
    freeze = () if adapters is not None else tuple(tuning.get("freeze") or settings.get("keep", ()))
    ema = settings.get("ema")
    state = training.TrainState.create(
        params, tx, jax.random.key(seed), ema=ema is not None, freeze=freeze, adapters=adapters
    )
    rounding = _rounding(architecture.loss, settings.get("precision", "float32"))
    step = training.make_train_step(graph, rounding, tx, ema=ema)
    valid = valid if corpora.count_of(corpora.named(valid)) else train_windows
    compiled = _compile_evaluation(architecture.evaluate, graph)
    chosen = _draw(valid, settings.get("validation_windows", VALIDATION_WINDOWS), seed)
    monitor, mode = architecture.monitor
    with training.Run.create_or_resume(Path(out), found.facts, recipe) as run:
        _tell(corpus, data, run.path / "skipped.txt", verbose)
        training.fit(
            state,
            step,
            partial(_batches, train_windows, found, recipe),
            steps=settings["steps"],
            run=run,
            evaluate=lambda weights: measure(compiled, weights, chosen),
            evaluate_every=settings.get("evaluate_every", 250),
            checkpoint_every=settings.get("evaluate_every", 250),
            log_every=settings.get("log_every", 50),
            monitor=monitor,
            mode=mode,
            patience=settings.get("patience"),
            moments=settings.get("moments", ()),
            verbose=verbose,
        )
        if architecture.conclude is not None:
            windows = np.asarray(_draw(corpus.train, CONCLUDING_WINDOWS, seed)["x"])
            run.save_best(as_params(nnx.state(architecture.conclude(load(out).module, windows))))
    return load(out)


def _tell(corpus: corpora.Corpus | corpora.Labelled | corpora.Songs, data: Path_, path: Path, verbose: bool) -> None:
    """What the folder held; the files that can't be used go to `path` with the reason, a line each."""
    if corpus.skipped:
        path.write_text("".join(f"{name}: {reason}\n" for name, reason in corpus.skipped), encoding="utf-8")
    if verbose or sys.stderr.isatty():
        listed = f", listed in {path}" if corpus.skipped else ""
        print(f"{data}: {corpus}{listed}", file=sys.stderr)


def keep(module: nnx.Module, found: Found, patterns: Sequence[str]) -> nnx.Module:
    """`module` with the parameters that `patterns` match taken from the model's published weights."""
    tensors = found.tensors()
    graph, params = nnx.split(module)
    names = matching(patterns, flatten(params).keys())
    if missing := sorted(names - tensors.keys()):
        raise WeightsError(f"{found.name}: its weights have no {missing[0]} to keep; correct `keep` in its recipe")
    flat = [
        (path, variable.replace(jnp.asarray(tensors[dotted(path)])) if dotted(path) in names else variable)
        for path, variable in nnx.to_flat_state(params)
    ]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _batches(
    windows: np.ndarray | corpora.Examples, found: Found, recipe: Mapping[str, Any], start: int
) -> Iterator[dict[str, Any]]:
    """Batches from step `start` on, transposed by the recipe's range of semitones, and varied as its codec can."""
    settings, codec = recipe["train"], cast(Any, found.codec)
    (lowest, highest), vary = recipe["data"].get("transpose", (0, 0)), recipe["data"].get("vary", False)
    transpose = (lowest, highest) != (0, 0)

    def augmented(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if transpose:
            batch = codec.transpose(batch, rng.integers(lowest, highest + 1, len(batch)))
        return codec.vary(batch, rng) if vary else batch

    augment = augmented if transpose or vary else None
    if buckets := settings.get("buckets"):  # pieces of unlike length, which the codec has padded
        padded = np.asarray(windows)
        order = settings["batch_size"], settings.get("seed", 0), start
        return corpora.bucketed(padded, codec.lengths(padded), buckets, *order, augment)
    return corpora.batches(windows, settings["batch_size"], settings.get("seed", 0), start, augment)


def _rounding(loss: Callable[..., Any], precision: str) -> Callable[..., Any]:
    """`loss` with the factors of its matrix products in `precision`; evaluation stays in float32."""
    check_precision(precision)

    def rounded(*args: Any) -> Any:
        with products(precision):
            return loss(*args)

    return rounded


def _compile_evaluation(evaluate: Callable[..., Any], graph: Any) -> Callable[..., Any]:
    return jax.jit(lambda params, batch, key: evaluate(nnx.merge(graph, params), batch, key))


def _recipe(found: Found) -> dict[str, Any]:
    """The tables of the recipe beside a model's card."""
    if found.card is None or not found.card.recipe:
        raise InputError(f"{found.name}: has no recipe to train by; `zoo list` shows models that have, or fine-tune it")
    path = found.card.folder / found.card.recipe
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise CardError(f"{path}: can't be read ({error}); install the zoo again") from error
    for table in ("train", "optimizer", "data"):
        recipe.setdefault(table, {})
    return recipe


def _with_players(optimizer: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """An [optimizer] table with the players of an architecture that has some, as far as it does not set them itself."""
    players = found.architecture.players(found.config)
    if not players:
        return dict(optimizer)
    told = optimizer.get("players", {})
    return {**optimizer, "players": {name: {**player, **told.get(name, {})} for name, player in players.items()}}


def _data_table(found: Found) -> dict[str, Any]:
    """The recipe's [data] table, empty for a model without a recipe."""
    return dict(_recipe(found)["data"]) if found.card is not None and found.card.recipe else {}


def _corpus(data: Path_, found: Found, table: Mapping[str, Any]) -> corpora.Corpus | corpora.Labelled | corpora.Songs:
    """The corpus of a folder by a recipe's [data] table; for a model that learns from labelled sound or songs, that.

    The table's `patterns` name data sets and its `codec` says what to take of their pieces. A folder that holds none of
    them is someone's own music: all of it is taken, as the model takes a single file.
    """
    codec: Any = found.codec
    if found.architecture.data == "songs":
        task = importlib.import_module(f"zoo.tasks.{found.architecture.task}")
        return corpora.load_songs(Path(data), codec, partial(task.examples, config=found.config))
    if found.architecture.data != "notes":
        return corpora.load_labelled(Path(data), codec, found.architecture.data, found.config.window)
    options = {key: value for key, value in table.items() if key not in LEARNING}
    patterns = table.get("patterns", ("*",))
    if patterns == ("*",) or not _holds(data, table):
        return corpora.load_corpus(Path(data), found.codec, **options)
    codec = get_codec(**{**found.facts["codec"], **table.get("codec", {})})
    return corpora.load_corpus(Path(data), codec, patterns=patterns, **options)


def _holds(data: Path_, table: Mapping[str, Any]) -> bool:
    """Whether a folder holds any of the data sets that a [data] table names."""
    return bool(corpora.find(Path(data), table.get("patterns", ("*",))))


def _draw(windows: np.ndarray | corpora.Examples, limit: int | None, seed: int) -> corpora.Examples:
    """At most `limit` of the windows, the same ones for the same seed."""
    examples = corpora.named(windows)
    size = corpora.count_of(examples)
    if limit is None or size <= limit:
        return examples
    return corpora.take(examples, np.random.default_rng(seed).permutation(size)[:limit])
