"""The loop of `native.rollout`, compiled by numba: one sequence drawn from a stack of LSTM layers, token by token.

With one column a step is three products of a matrix with a vector, and nearly all of its time goes into reading the
matrices. A bfloat16 is the upper half of a float32, so two that lie side by side are read as one number of 32 bits and
taken apart by a shift and a mask; vectors come as their even and their odd numbers.
"""

from __future__ import annotations

import inspect
import zlib
from typing import Any

import numba
import numpy as np
from numba import carray, int64, njit, uint32

from zoo.nn import native_lstm
from zoo.nn.native_lstm import (
    ARGUMENTS,
    ONE,
    OPTIONS,
    RESULTS,
    SUMS,
    ZERO,
    Array,
    Row,
    accumulated,
    asks_version,
    buffer,
    cast_to,
    cell_row,
    copied,
    floats,
    from_half,
    hidden_row,
    ints,
    sigmoid,
    tanh,
    to_float,
    to_half,
)

LOWER, UPPER = uint32(16), uint32(0xFFFF0000)
FIRST = 5  # argument of the layers, four each: kernel, bias, c, h

_pairs, _words = cast_to(uint32), cast_to(int64)


@njit(**SUMS)
def dots_of_pairs(kernel: Array, even: Row, odd: Row, out: Row) -> None:
    """Kernel · x, its kernel [Y, X / 2] in pairs, x [X] in halves; eight rows at once: as many streams of memory."""
    whole = len(kernel) // 8 * 8
    for y in range(0, whole, 8):
        a, b, c, d, e, f, g, h = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
        for n in range(len(even)):
            a += _pair(kernel[y, n], even[n], odd[n])
            b += _pair(kernel[y + 1, n], even[n], odd[n])
            c += _pair(kernel[y + 2, n], even[n], odd[n])
            d += _pair(kernel[y + 3, n], even[n], odd[n])
            e += _pair(kernel[y + 4, n], even[n], odd[n])
            f += _pair(kernel[y + 5, n], even[n], odd[n])
            g += _pair(kernel[y + 6, n], even[n], odd[n])
            h += _pair(kernel[y + 7, n], even[n], odd[n])
        out[y], out[y + 1], out[y + 2], out[y + 3] = a, b, c, d
        out[y + 4], out[y + 5], out[y + 6], out[y + 7] = e, f, g, h
    for y in range(whole, len(kernel)):
        a = ZERO
        for n in range(len(even)):
            a += _pair(kernel[y, n], even[n], odd[n])
        out[y] = a


@njit(**SUMS)
def _pair(both: Any, even: Any, odd: Any) -> Any:
    return to_float(both << LOWER) * even + to_float(both & UPPER) * odd


@njit(**OPTIONS)
def multiply(address: int, x: Row, halves: Array, out: Row) -> None:
    """The product of the kernel at `address` and x rounded; `halves` is scratch."""
    width = len(x) // 2
    even, odd = halves[0, :width], halves[1, :width]
    for n in range(width):
        even[n], odd[n] = from_half(to_half(x[2 * n])), from_half(to_half(x[2 * n + 1]))
    dots_of_pairs(carray(_pairs(address), (len(out), width)), even, odd, out)


@njit(**OPTIONS)
def gates_and_cell(z: Row, c: Row, h: Row) -> None:
    """The new c and h of a layer, from its pre-activations [4H]."""
    units = len(c)
    for gate in range(4):
        row = z[gate * units : (gate + 1) * units]
        for u in range(units):
            row[u] = tanh(row[u]) if gate == 1 else sigmoid(row[u] + (ONE if gate == 2 else ZERO))
    cell_row(z[:units], z[units : 2 * units], z[2 * units : 3 * units], c)
    copied(z[:units], c)
    hidden_row(z[3 * units :], c, h)


@njit
def rollout(frame: int) -> None:
    """Tokens [T], from the arguments of `native.rollout`."""
    _, shape = buffer(frame, ARGUMENTS, 1)
    steps, classes = shape[0], shape[1]
    layers = 0
    while FIRST + 4 * layers < carray(_words(frame), 8)[7]:
        layers += 1
    address, widths, units = np.empty(layers, np.int64), np.empty(layers, np.int64), np.empty(layers, np.int64)
    for layer in range(layers):
        address[layer], shape = buffer(frame, ARGUMENTS, FIRST + 4 * layer)
        units[layer], widths[layer] = shape[0] // 4, shape[1]
    x = np.zeros((layers, widths.max()), np.float32)  # [x; zeros; h] of each layer
    z, c = np.empty(4 * units.max(), np.float32), np.empty((layers, units.max()), np.float32)
    for layer in range(layers):
        copied(floats(frame, ARGUMENTS, FIRST + 4 * layer + 2, (units[layer],)), c[layer])
        copied(
            floats(frame, ARGUMENTS, FIRST + 4 * layer + 3, (units[layer],)), x[layer, widths[layer] - units[layer] :]
        )
    noise = floats(frame, ARGUMENTS, 1, (steps, classes))
    rows = floats(frame, ARGUMENTS, 2, (buffer(frame, ARGUMENTS, 2)[1][0], 4 * units[0]))
    output_at, bias = buffer(frame, ARGUMENTS, 3)[0], floats(frame, ARGUMENTS, 4, (classes,))
    token, tokens = ints(frame, ARGUMENTS, 0, 1)[0], ints(frame, RESULTS, 0, steps)
    logits = np.empty(classes, np.float32)
    scratch = np.empty((2, x.shape[1]), np.float32)
    for t in range(steps):
        for layer in range(layers):
            width, size = widths[layer], units[layer]
            pre, h = z[: 4 * size], x[layer, width - size : width]
            multiply(address[layer], x[layer, :width], scratch, pre)
            accumulated(floats(frame, ARGUMENTS, FIRST + 4 * layer + 1, (4 * size,)), pre)
            if layer == 0 and token < len(rows):
                accumulated(rows[token], pre)
            gates_and_cell(pre, c[layer, :size], h)
            if layer + 1 < layers:
                copied(h, x[layer + 1])
        top = layers - 1
        multiply(output_at, x[top, widths[top] - units[top] : widths[top]], scratch, logits)
        token = 0
        best = -np.float32(np.inf)
        for n in range(classes):
            value = (logits[n] + bias[n]) + noise[t, n]
            if value > best:
                token, best = n, value
        tokens[t] = token


def handlers(cache: bool) -> dict[str, Any]:
    """As `native_lstm.handlers`."""
    # To see whether what it kept is of old, numba looks at this file alone, and at what a function closes over.
    shared = zlib.crc32(inspect.getsource(native_lstm).encode())

    def rollout_of(frame: int) -> int:
        if shared and not asks_version(frame):
            rollout(frame)
        return 0  # no error

    return {"rollout": numba.cfunc(int64(int64), cache=cache)(rollout_of)}
