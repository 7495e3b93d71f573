"""LSTM loops on a CPU that XLA can't make in one, compiled by numba and called through XLA's FFI.

**Training.** XLA's CPU backend writes one result at a time. Of a training step of MusicVAE the products of its LSTMs
take half; the rest went into some forty kernels a step that read and write the same numbers, and into zeros and copies
for what the way back needs. Here one kernel does what is left of a step after its product: gates, cell and state, each
put where the way back finds it. XLA's loops use all cores, these one: they are for one or two.

**Drawing a single sequence.** Its products are of a matrix and a vector, and the rest of a step are twenty programs of
a microsecond each. `rollout` is the whole loop, and reads a matrix of bfloat16 at the speed of the cache.

MusicVAE on one core with AMX, in bfloat16: a training step at batch 512 takes .80 of the time that XLA alone takes, a
melody .49; on a Zen 4, whose products take longer, the step .96. `native_lstm.py` and `native_rollout.py` have the
loops. Where they can't be compiled XLA does without.

`T` steps, `X` inputs, `H` units, `B` columns, `K` = X + H. `n` steps stand together in what a product sums over later.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

COLUMNS = 16  # fewer make no vectors
CORES = 2  # XLA's loops use all cores, these one


class State(NamedTuple):
    """A layer in training: the [x; h] of a step, and of all steps what the way back needs.

    `xh` [K, B], `cells` [T + 1, H, B] before each step and after the last, `inputs` [⌈(T + 1) / n⌉, K, n, B] the [x; h]
    likewise, `gates` [T, 4H, B].
    """

    xh: jax.Array
    cells: jax.Array
    inputs: jax.Array
    gates: jax.Array


_allowed: ContextVar[bool] = ContextVar("native", default=True)


@contextlib.contextmanager
def left_to_xla() -> Iterator[None]:
    """While a function is traced in here, it does without the kernels of this file."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def usable(columns: int, dtype: DTypeLike) -> bool:
    """Whether a layer trains by these: on a CPU of few cores, not spread over several devices, with enough columns."""
    return columns >= COLUMNS and cores() <= CORES and _on_cpu() and _registered("lstm", jnp.dtype(dtype).name)


def draws(columns: int, dtype: DTypeLike) -> bool:
    """Whether `rollout` is to draw a sequence, the only one of its batch, on any CPU.

    In float32 XLA is nearly as fast, and to load numba takes longer than a sequence.
    """
    return columns == 1 and dtype == jnp.bfloat16 and _on_cpu() and _registered("rollout", "bfloat16")


def rollout(
    token: jax.Array,
    noise: jax.Array,
    rows: jax.Array,
    output: tuple[jax.Array, jax.Array],
    layers: Sequence[tuple[jax.Array, jax.Array, jax.Array, jax.Array]],
) -> jax.Array:
    """A sequence of tokens int32 [T], each the likeliest by its logits and `noise` float32 [T, V].

    `token` int32 [1] comes before the first; `rows` float32 [X, 4H] are what a token adds to the first layer's gates.
    `output` is a kernel [V, H] and a bias [V, 1]; each layer has a kernel [4H, K], a bias [4H, 1] (the first layer's
    with what constant inputs add), c and h [H, 1]. K is what a layer reads from the one before, zeros, and its own h;
    for the first layer h alone; it has to be even. Kernels are bfloat16, all else is float32.
    """
    flat = [array for layer in layers for array in layer]
    return _call("rollout", "bfloat16", [(noise.shape[:1], jnp.int32)], {})(token, noise, rows, *output, *flat)[0]


def start(c: jax.Array, h: jax.Array, dtype: DTypeLike, inputs: int, steps: int, together: int) -> State:
    """What `feed` and `forward` go on from: `c`, `h` float32 [H, B]; `inputs` X, `dtype` the products' format."""
    (units, columns), kept, rows = c.shape, _kept(dtype), inputs + len(h)
    results = [((rows, columns), dtype), ((steps + 1, units, columns), jnp.float32)]
    results += [((steps // together + 1, rows, together, columns), kept), ((steps, 4 * units, columns), kept)]
    return State(*_call("start", jnp.dtype(dtype).name, results, {})(c, h))


def feed(t: jax.Array, at: jax.Array, x: jax.Array, state: State) -> State:
    """Step `t` is to read `x[at]`: `x` [·, X', B], float32 or in the products' format; X' ≤ X. In place.

    The rest of X, by which sums are filled up, are zeros.
    """
    places = state.xh, state.inputs
    call = _call("feed", state.xh.dtype.name, [(a.shape, a.dtype) for a in places], {3: 0, 4: 1})
    xh, inputs = call(t, at, x, *places)
    return state._replace(xh=xh, inputs=inputs)


def forward(t: jax.Array, z: jax.Array, constant: jax.Array, state: State) -> State:
    """Step `t`, whose product with the kernel `z` [4H, B] is; `constant` [4H, B] or [4H, 1]. In place."""
    results = [(a.shape, a.dtype) for a in state]
    return State(*_call("forward", state.xh.dtype.name, results, {3 + n: n for n in range(4)})(t, z, constant, *state))


def backward(
    t: jax.Array,
    gates: jax.Array,
    cells: jax.Array,
    d_hidden: jax.Array,
    parts: list[jax.Array],
    d_c: jax.Array,
    d_constant: jax.Array,
    kept: list[jax.Array],
) -> tuple[jax.Array, jax.Array, list[jax.Array], list[jax.Array]]:
    """Step `t` on the way back: d_c and d_constant, in place, the gates' gradients, and `kept`, in place.

    Gates go in pairs, input and candidate, forget and output: [2H, B] each. The sum of the two `parts` [H, B] is the
    gradient of the state after the step, but for `d_hidden` [T, H, B], or [0, H, B]. `kept`, twice [2H, n, B], takes
    the gates' gradients at n steps, or at none, [0, 1, B].
    """
    dtype = jnp.dtype(jnp.bfloat16 if gates.dtype == jnp.uint16 else gates.dtype)
    pair = (2 * d_c.shape[0], d_c.shape[1]), dtype
    results = [(d_c.shape, d_c.dtype), (d_constant.shape, d_constant.dtype), pair, pair]
    results += [(a.shape, a.dtype) for a in kept]
    call = _call("backward", dtype.name, results, {6: 0, 7: 1, 8: 4, 9: 5})
    d_c, d_constant, *rest = call(t, gates, cells, d_hidden, *parts, d_c, d_constant, *kept)
    return d_c, d_constant, rest[:2], rest[2:]


def _kept(dtype: DTypeLike) -> DTypeLike:
    """The format of what a loop cuts slices from: XLA's CPU backend would turn all of a bfloat16 array to float32."""
    return jnp.uint16 if dtype == jnp.bfloat16 else dtype


def _call(name: str, dtype: str, results: list[tuple[Any, Any]], aliases: dict[int, int]) -> Any:
    shapes = [jax.ShapeDtypeStruct(*result) for result in results]
    return jax.ffi.ffi_call(f"zoo_lstm_{name}_{dtype}", shapes, input_output_aliases=aliases)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_cpu() -> bool:
    return _allowed.get() and jax.default_backend() == "cpu" and jax.device_count() == 1


@functools.cache
def _registered(kind: str, dtype: str) -> bool:
    """Compiles and registers the kernels of a file for `dtype`; False where that can't be: XLA does without."""
    if sys.maxsize < 2**32 or sys.byteorder != "little":
        return False
    try:
        handlers = _compiled(kind, dtype == "bfloat16")
        for name, handler in handlers.items():
            jax.ffi.register_ffi_target(f"zoo_lstm_{name}_{dtype}", _capsule(handler.address), platform="cpu")
    except Exception:
        return False
    _handlers.extend(handlers.values())
    return True


def _compiled(kind: str, half: bool) -> dict[str, Any]:
    module = importlib.import_module(f"zoo.nn.native_{kind}")
    handlers = module.handlers if kind == "rollout" else functools.partial(module.handlers, half)
    try:
        return handlers(cache=True)
    except Exception:  # no folder to keep them in, no room, or what was kept is broken
        return handlers(cache=False)


_handlers: list[Any] = []  # whose code XLA calls


def _capsule(address: int) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(address, None, None)
