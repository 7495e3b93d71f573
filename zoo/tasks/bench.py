"""How fast a model is on this machine: each kernel of its architecture and the training step, measured alike anywhere.

Weights are random: time does not depend on them. Compilation is timed apart, first fresh and then from the compilation
cache on disk. Every call is waited for (`block_until_ready`), and the first of each program is not counted.

Operations are the matrix products and convolutions that the program states (`matmul_flops`), by what the best matrix
product reached in the same run: XLA's own `cost_analysis` counts the body of a loop once, however often it runs, and
here nearly everything happens inside loops.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache
from jax.interpreters import partial_eval
from tqdm import tqdm

from zoo.errors import InputError
from zoo.models.architecture import Architecture
from zoo.nn import native
from zoo.nn.precision import check_precision, products
from zoo.tasks.model import find
from zoo.training import TrainState, make_train_step

FIELDS = (
    "device",  # what computed, e.g. "AMD EPYC, 1 core"
    "platform",  # cpu, gpu, tpu
    "system",  # "zoo", or the name of a peer
    "version",
    "model",
    "operation",  # a kernel of the architecture, or "train"
    "batch",
    "runs",
    "median_s",  # seconds a call
    "p90_s",
    "cores_used",  # processor time by wall time: below the cores of `device` when others were using them too
    "compile_s",  # trace, lower and compile
    "cached_compile_s",  # the same with the program in the compilation cache
    "sequences_per_s",
    "steps_per_s",  # steps of music (sixteenth notes, say): sequences × config.steps
    "real_time",  # seconds of sound a second, for models of sound: sequences × config.seconds
    "gflops_per_s",  # matrix products and convolutions alone
    "matmul_gflops_per_s",  # the best float32 matrix product in the same run
    "share_of_matmul",
    "memory_mb",  # arguments, results and temporaries of the compiled program; its code apart
)
Row = dict[str, Any]
Clock = Callable[[], float]  # seconds since some moment


def bench(
    name: str | os.PathLike[str],
    *,
    batch_sizes: Sequence[int] = (1, 64, 512),
    out: str | os.PathLike[str] | None = None,
    seconds: float = 3.0,
    precision: str = "float32",
) -> list[Row]:
    """Times every kernel of a model at each batch size, and its training step at the largest.

    Args:
      name: anything `zoo.load` takes, or a card without weights.
      batch_sizes: sequences a call.
      out: a CSV file to write the rows to.
      seconds: how long each program is run, at the least three times.
      precision: "float32", or "bfloat16" for the factors of products, as in `zoo.load`; rows name it as a system.

    Returns a row for each program, its fields as in `FIELDS`; None is what can't be known.

    Raises:
      InputError: no such model or precision, no sensible batch size, or `out` can't be written.
    """
    if not batch_sizes or min(batch_sizes) < 1:
        raise InputError(f"batch_sizes={tuple(batch_sizes)}: give one size or more, each at least 1")
    check_precision(precision)
    found = find(name)
    if out is not None:
        write_csv([], out)  # should it fail, then now
    rows = measure(found.name, found.architecture, found.config, batch_sizes, seconds, precision)
    if out is not None:
        write_csv(rows, out)
    return rows


def measure(
    name: str,
    architecture: Architecture,
    config: Any,
    batch_sizes: Sequence[int],
    seconds: float,
    precision: str = "float32",
    clock: Clock = time.perf_counter,
) -> list[Row]:
    """As `bench`, for an architecture and a configuration that need no card.

    With `time.process_time` for a clock all is in processor time: on one core, where others are using it too.
    """
    plan = [(kernel, size) for kernel in architecture.kernels for size in batch_sizes] + [("train", max(batch_sizes))]
    system = "zoo" if precision == "float32" else f"zoo {precision}"
    same: Row = {"device": device_name(), "platform": jax.default_backend(), "system": system, "model": name}
    same |= {"version": f"jax {jax.__version__}"}
    peak, rows = matmul_peak(clock) / 1e9, []
    for operation, size in tqdm(plan, desc=f"timing {name}", unit="program", disable=None):
        with products(precision):
            function, args = program(architecture, config, operation, size)
            compiled, compile_s, cached_s = compile_timed(function, args, clock)
        times, used = timed(compiled, args, operation == "train", seconds, clock)
        measured = summary(times, size, config.steps, getattr(config, "seconds", None))
        measured |= {"operation": operation, "cores_used": used}
        measured |= {"compile_s": compile_s, "cached_compile_s": cached_s, "memory_mb": memory(compiled) / 1e6}
        measured |= {"gflops_per_s": matmul_flops(function, *args) / measured["median_s"] / 1e9}
        rows.append(same | measured)
    peak = max(peak, matmul_peak(clock) / 1e9)  # again: the machine may have been busier at first
    shares = [{"matmul_gflops_per_s": peak, "share_of_matmul": row["gflops_per_s"] / peak} for row in rows]
    return [{name: _known((row | share)[name]) for name in FIELDS} for row, share in zip(rows, shares, strict=True)]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def program(
    architecture: Architecture, config: Any, operation: str, size: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """A jitted kernel or training step, and arguments for it; the training step donates its first."""
    graph, params = nnx.split(architecture.module(config, rngs=nnx.Rngs(0)))
    batch = jax.device_put(architecture.example(config, size, np.random.default_rng(0)))
    key = jax.random.key(0)
    if operation == "train":
        tx = optax.adam(1e-3)
        return make_train_step(graph, architecture.loss, tx), (TrainState.create(params, tx, key), batch)
    kernel = architecture.kernels[operation]
    batch |= {"prepared": prepared(architecture, graph, params)}
    return jax.jit(lambda params, batch, key: kernel(nnx.merge(graph, params), batch, key)), (params, batch, key)


def prepared(architecture: Architecture, graph: Any, params: Any) -> Any:
    """What a task works out once of a model's parameters, in the products' format of now; None if it has none."""
    prepare = architecture.prepare
    return prepare and jax.jit(lambda params: prepare(nnx.merge(graph, params)))(params)


def summary(times: Sequence[float], size: int, steps: int, seconds: float | None = None) -> Row:
    """The columns that follow from the seconds of each call; `seconds` of sound are in a sequence, if it is sound."""
    median = statistics.median(times)
    return {
        "batch": size,
        "runs": len(times),
        "median_s": median,
        "p90_s": float(np.percentile(times, 90)),
        "sequences_per_s": size / median,
        "steps_per_s": size * steps / median,
        "real_time": None if seconds is None else size * seconds / median,
    }


def timed(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    feed_back: bool,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> tuple[list[float], float]:
    """Seconds of each call after a first that isn't counted, and how many processor cores were in use meanwhile.

    With `feed_back` the first of a call's results is the first argument of the next: a training state, whose buffers
    the call before was given.
    """
    result = jax.block_until_ready(function(*args))
    times: list[float] = []
    processor, begin = time.process_time(), clock()
    while len(times) < 3 or clock() - begin < seconds:
        if feed_back:
            args = (result[0], *args[1:])
        start = clock()
        result = jax.block_until_ready(function(*args))
        times.append(clock() - start)
    return times, (time.process_time() - processor) / (clock() - begin)


def compile_timed(function: Any, args: tuple[Any, ...], clock: Clock = time.perf_counter) -> tuple[Any, float, float]:
    """(compiled program, seconds to compile it, seconds with the compilation cache filled)."""
    seconds = []
    with fresh_compilation_cache():
        for _ in range(2):
            jax.clear_caches()  # what this process remembers; the second time only the cache on disk is left
            begin = clock()
            compiled = function.lower(*args).compile()
            seconds.append(clock() - begin)
    return compiled, seconds[0], seconds[1]


@contextlib.contextmanager
def fresh_compilation_cache() -> Iterator[None]:
    """An empty compilation cache on disk, that keeps even what compiles at once; afterwards all is as before."""
    settings = {
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_compilation_cache_dir": None,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        try:
            _configure(settings | {"jax_compilation_cache_dir": folder})
            yield
        finally:
            _configure(before)


def _configure(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it would keep to the folder that it met first


def matmul_peak(clock: Clock = time.perf_counter) -> float:
    """Operations a second of the best float32 matrix product n × n, n = 1024 and up while one takes under 0.1 s."""
    best, n, took = 0.0, 1024, 0.0
    product = jax.jit(jnp.matmul)
    while took < 0.1 and n <= 16384:
        square = jax.random.normal(jax.random.key(0), (n, n))
        took = min(timed(product, (square, square), False, 0.5, clock)[0])
        best, n = max(best, 2 * n**3 / took), 2 * n
    return best


def matmul_flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of one call's matrix products and convolutions; a multiply and an add are two.

    Read off the traced program without what its results don't need: a scan counts its body as often as it runs, a
    conditional its dearest branch. NaN where a `while_loop`, whose trips nobody knows, holds a product. What kernels
    of `zoo.nn.native` multiply, unseen from here, is counted as XLA would do it.
    """
    jitted = isinstance(function, jax.stages.Wrapped)
    inner = function.__wrapped__ if jitted else function  # type: ignore[attr-defined]
    with native.left_to_xla():  # anew: what was jitted would give an earlier trace
        traced = jax.make_jaxpr(lambda *args: inner(*args))(*args).jaxpr
    return _flops(partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))[0])


def _flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        kind, params = equation.primitive.name, equation.params
        result = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if kind == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            total += 2 * result * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        elif kind == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += 2 * result * math.prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
        else:
            inner = [_flops(body) for body in _bodies(params.values())]
            if kind == "while" and any(inner):
                total = math.nan
            total += params.get("length", 1) * (max(inner) if kind == "cond" else sum(inner))
    return total


def _bodies(values: Iterable[Any]) -> Iterator[Any]:
    """The programs among an equation's parameters."""
    for value in values:
        for item in value if isinstance(value, tuple) else (value,):
            body = getattr(item, "jaxpr", item)
            if hasattr(body, "eqns"):
                yield body


def memory(compiled: Any) -> float:
    """Bytes that a compiled program needs for arguments, results and temporaries; NaN where the device won't say."""
    use = compiled.memory_analysis()
    if use is None:
        return math.nan
    sizes = use.argument_size_in_bytes + use.output_size_in_bytes + use.temp_size_in_bytes
    return float(sizes - use.alias_size_in_bytes)


def device_name() -> str:
    """What JAX computes on: "NVIDIA H100 80GB HBM3", or the processor's name and how many of its cores we may use."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return str(device.device_kind)
    return f"{_processor()}, {native.cores()} core{'s' if native.cores() > 1 else ''}"


def _processor() -> str:
    """The processor's name; where a cloud's says no more than "AMD EPYC", its family tells the generations apart."""
    with contextlib.suppress(OSError):
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        facts = {key.strip(): value.strip() for key, _, value in lines}
        if name := facts.get("model name"):
            return name if re.search(r"\d", name) else f"{name}, family {facts.get('cpu family', 'unknown')}"
    return platform.processor() or platform.machine()


def write_csv(rows: Iterable[Row], path: str | os.PathLike[str], fields: Sequence[str] = FIELDS) -> None:
    """Writes rows as CSV under the names in `fields`; a field that a row lacks, or that is None, stays empty."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, fields, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); choose another file for the results") from None
