"""The loops of `native.py`, compiled by numba into handlers that XLA's FFI calls.

A kernel works on rows: one unit, all columns of the batch. Each pass over a row is a function of its own with few
arrays, for only such loops does LLVM turn into vectors; what lies between two passes stays in the first-level cache.

The second part reads what XLA passes, `struct XLA_FFI_CallFrame` of `xla/ffi/api/c_api.h`, as 8-byte words. All of
version 0 have this layout; XLA of any other major version refuses to register the handlers.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, float32, int32, int64, njit, types, uint16, uint32
from numba.extending import intrinsic, overload

MAJOR_VERSION, METADATA, FLOAT32 = 0, 1, 11  # XLA_FFI_API_MAJOR, XLA_FFI_Extension_Metadata, XLA_FFI_DataType_F32
ARGUMENTS, RESULTS = 9, 14  # words of XLA_FFI_CallFrame
OPTIONS: dict[str, Any] = {"fastmath": {"contract", "nsz", "arcp", "afn"}, "error_model": "numpy"}  # NaN stays NaN
SUMS: dict[str, Any] = {**OPTIONS, "fastmath": {*OPTIONS["fastmath"], "reassoc"}}  # in any order

ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
# tanh as a fraction of two polynomials, the coefficients of Eigen and XLA; exact to 5e-7.
LIMIT = np.float32(7.90531110763549805)
P1, P3, P5, P7 = (
    np.float32(p) for p in (4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08)
)
P9, P11, P13 = (np.float32(p) for p in (-8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16))
Q0, Q2, Q4, Q6 = (
    np.float32(q) for q in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)

Row = Any  # [B], float32 or the bits of bfloat16
Array = Any


@intrinsic
def to_bits(context: Any, x: Any) -> Any:
    """The bits of a float32; `to_float` is the inverse."""
    return uint32(float32), lambda _, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def to_float(context: Any, x: Any) -> Any:
    """The float32 with these bits."""
    return float32(uint32), lambda _, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@njit(**OPTIONS)
def tanh(x: Any) -> Any:
    """Of NaN it is NaN."""
    x = LIMIT if x > LIMIT else x
    x = -LIMIT if x < -LIMIT else x
    y = x * x
    above = x * (P1 + y * (P3 + y * (P5 + y * (P7 + y * (P9 + y * (P11 + y * P13))))))
    return above / (Q0 + y * (Q2 + y * (Q4 + y * Q6)))


@njit(**OPTIONS)
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(−x))."""
    return HALF + HALF * tanh(HALF * x)


@njit(**OPTIONS)
def to_half(x: Any) -> Any:
    """The bits of the nearest bfloat16, of two the even one; a NaN whose payload is all ones would become zero."""
    bits = to_bits(x)
    return uint16((bits + uint32(0x7FFF) + ((bits >> uint32(16)) & uint32(1))) >> uint32(16))


@njit(**OPTIONS)
def from_half(bits: Any) -> Any:
    """The float32 of a bfloat16's bits."""
    return to_float(uint32(bits) << uint32(16))


def get(x: Row, b: int) -> Any:
    """A number of a row, as float32. numba takes one way or the other by the row's type."""


def put(x: Row, b: int, value: Any) -> None:
    """Writes a number into a row, rounded if the row is of bfloat16."""


@overload(get, jit_options=OPTIONS)
def _get(x: Any, b: Any) -> Any:
    def half(x: Any, b: Any) -> Any:
        return from_half(x[b])

    def single(x: Any, b: Any) -> Any:
        return x[b]

    return half if x.dtype == uint16 else single


@overload(put, jit_options=OPTIONS)
def _put(x: Any, b: Any, value: Any) -> Any:
    def half(x: Any, b: Any, value: Any) -> Any:
        x[b] = to_half(value)

    def single(x: Any, b: Any, value: Any) -> Any:
        x[b] = value

    return half if x.dtype == uint16 else single


# --- passes over a row


@njit(**OPTIONS)
def added(x: Row, y: Row, out: Row) -> None:
    """The sum of two rows."""
    for b in range(len(out)):
        out[b] = x[b] + y[b]


@njit(**OPTIONS)
def accumulated(x: Row, out: Row) -> None:
    """Adds a row to `out`. (`added` would do it number by number, for what it reads and writes would overlap.)"""
    for b in range(len(x)):
        out[b] += get(x, b)


def _squashing(squash: Any) -> Any:
    @njit(**OPTIONS)
    def row(x: Row, by: Any, out: Row, kept: Row) -> None:
        for b in range(len(x)):
            value = squash(x[b] + by)
            out[b] = value
            put(kept, b, value)

    return row


sigmoid_row, tanh_row = _squashing(sigmoid), _squashing(tanh)  # of x + by, in the formats of both results


@njit(**OPTIONS)
def cell_row(i: Row, j: Row, f: Row, c: Row) -> None:
    """The new cell, f c + i j, in place of i."""
    for b in range(len(c)):
        i[b] = f[b] * c[b] + i[b] * j[b]


@njit(**OPTIONS)
def hidden_row(o: Row, c: Row, h: Row) -> None:
    """The new state, o tanh(c)."""
    for b in range(len(c)):
        put(h, b, o[b] * tanh(c[b]))


@njit(**OPTIONS)
def converted(x: Row, out: Row) -> None:
    """A row in the format of `out`."""
    for b in range(len(x)):
        put(out, b, get(x, b))


@njit(**OPTIONS)
def copied(x: Row, out: Row) -> None:
    """A row as it is."""
    for b in range(len(x)):
        out[b] = x[b]


@njit(**OPTIONS)
def d_cell_row(d_h: Row, o: Row, c: Row, tanh_c: Row, d_c: Row) -> None:
    """Adds to d_c' what comes by way of h' = o tanh(c'), and keeps tanh(c')."""
    for b in range(len(d_h)):
        value = tanh(c[b])
        tanh_c[b] = value
        d_c[b] += d_h[b] * get(o, b) * (ONE - value * value)


@njit(**SUMS)
def d_sigmoid_row(d: Row, other: Row, gate: Row, out: Row) -> Any:
    """The gradient of a sigmoid gate, `d` being that of the product of the gate and `other`; and its sum."""
    sum_ = ZERO
    for b in range(len(d)):
        value = get(gate, b)
        value = d[b] * get(other, b) * value * (ONE - value)
        put(out, b, value)
        sum_ += value
    return sum_


@njit(**SUMS)
def d_tanh_row(d: Row, other: Row, gate: Row, out: Row) -> Any:
    """The same for the candidate, a tanh."""
    sum_ = ZERO
    for b in range(len(d)):
        value = get(gate, b)
        value = d[b] * get(other, b) * (ONE - value * value)
        put(out, b, value)
        sum_ += value
    return sum_


@njit(**OPTIONS)
def times(x: Row, out: Row) -> None:
    """Multiplies `out` by x."""
    for b in range(len(out)):
        out[b] *= get(x, b)


# --- an LSTM's steps


@njit(**OPTIONS)
def start(c: Array, h: Array, xh: Array, cells: Array, inputs: Array) -> None:
    """What comes before the first step: c and h, and zeros for x and what it is filled with."""
    width = len(xh) - len(h)
    xh[:width] = 0
    inputs[:, :width] = 0
    for u in range(len(c)):
        copied(c[u], cells[0, u])
        converted(h[u], xh[width + u])
        copied(xh[width + u], inputs[0, width + u, 0])


@njit(**OPTIONS)
def feed(t: int, x: Array, xh: Array, inputs: Array) -> None:
    """Puts the inputs of step t in their place."""
    together = inputs.shape[2]
    for n in range(len(x)):
        converted(x[n], xh[n])
        copied(xh[n], inputs[t // together, n, t % together])


@njit(**OPTIONS)
def gate_row(z: Array, constant: Array, gate: int, u: int, row: Row, out: Row, kept: Row) -> None:
    """A gate of a unit, from the product `z` and `constant`; `row` is scratch."""
    at = gate * (len(z) // 4) + u
    x, by = z[at], ONE if gate == 2 else ZERO
    if constant.shape[1] == 1:
        by += constant[at, 0]
    else:
        added(x, constant[at], row)
        x = row
    if gate == 1:
        tanh_row(x, by, out, kept)
    else:
        sigmoid_row(x, by, out, kept)


@njit(**OPTIONS)
def forward(t: int, z: Array, constant: Array, xh: Array, cells: Array, inputs: Array, gates: Array) -> None:
    """Step t, of whose [x; h] the product is z: the state after it, and the gates."""
    units, columns, together = len(z) // 4, z.shape[1], inputs.shape[2]
    width, at, place = len(xh) - units, (t + 1) // together, (t + 1) % together
    row = np.empty((5, columns), np.float32)
    for u in range(units):
        for gate in range(4):
            gate_row(z, constant, gate, u, row[4], row[gate], gates[t, gate * units + u])
        cell_row(row[0], row[1], row[2], cells[t, u])
        copied(row[0], cells[t + 1, u])
        hidden_row(row[3], row[0], xh[width + u])
        copied(xh[width + u], inputs[at, width + u, place])


@njit(**OPTIONS)
def backward(
    t: int,
    gates: Array,
    cells: Array,
    d_hidden: Array,
    parts: Array,
    d_c: Array,
    d_constant: Array,
    d_gates: Array,
    kept: Array,
) -> None:
    """Step t on the way back, as `native.backward` has it."""
    units, columns = d_c.shape
    row = np.empty((2, columns), np.float32)
    d_h, tanh_c = row[0], row[1]
    place = t % max(kept[0].shape[1], 1)
    for u in range(units):
        added(parts[0][u], parts[1][u], d_h)
        if len(d_hidden):
            accumulated(d_hidden[t, u], d_h)
        i, j, f, o = gates[t, u], gates[t, units + u], gates[t, 2 * units + u], gates[t, 3 * units + u]
        d_i, d_j, d_f, d_o = d_gates[0][u], d_gates[0][units + u], d_gates[1][u], d_gates[1][units + u]
        d_cell_row(d_h, o, cells[t + 1, u], tanh_c, d_c[u])
        sums = (
            d_sigmoid_row(d_c[u], j, i, d_i),
            d_tanh_row(d_c[u], i, j, d_j),
            d_sigmoid_row(d_c[u], cells[t, u], f, d_f),
            d_sigmoid_row(d_h, tanh_c, o, d_o),
        )
        times(f, d_c[u])
        for gate in range(4):
            d_gate = d_gates[gate // 2][gate % 2 * units + u]
            if len(kept[0]):
                copied(d_gate, kept[gate // 2][gate % 2 * units + u, place])
            if d_constant.shape[1] == 1:
                d_constant[gate * units + u, 0] += sums[gate]
            else:
                accumulated(d_gate, d_constant[gate * units + u])


# --- what XLA passes


def cast_to(kind: Any) -> Any:
    """A function that makes an address a pointer to numbers of this kind."""

    @intrinsic
    def cast(context: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(int64), code

    return cast


_words, _ints, _floats, _halves = (cast_to(kind) for kind in (int64, int32, float32, uint16))


@njit
def asks_version(frame: int) -> bool:
    """Whether XLA only asks about the handler, as it does once at registration; the answer is then written."""
    call = carray(_words(frame), 3)  # size, extension, api
    if call[1] == 0 or call[2] == 0:
        return False
    extension = carray(_words(call[1]), 4)  # size, type, next, metadata
    if carray(_ints(call[1]), 4)[2] != METADATA:
        return False
    theirs = carray(_ints(call[2]), 10)  # words: size, extension, (size, extension, [major, minor])
    ours = carray(_ints(extension[3]), 8)  # words: size, (size, extension, [major, minor])
    ours[6], ours[7] = MAJOR_VERSION, theirs[9]
    return True


@njit
def buffer(frame: int, list_at: int, n: int) -> Any:
    """Address and dimensions of the n-th argument (`list_at` 9) or result (14): XLA_FFI_Buffer."""
    pointers = carray(_words(carray(_words(frame), 15)[list_at]), n + 1)
    words = carray(_words(pointers[n]), 6)  # size, extension, dtype, data, rank, dims
    return words[3], carray(_words(words[5]), words[4])


@njit
def format_of(frame: int, list_at: int, n: int) -> int:
    """The number by which XLA knows the format of the n-th argument or result: XLA_FFI_DataType."""
    pointers = carray(_words(carray(_words(frame), 15)[list_at]), n + 1)
    return carray(_ints(pointers[n]), 5)[4]


@njit
def floats(frame: int, list_at: int, n: int, shape: Any) -> Array:
    """The n-th argument or result as float32."""
    return carray(_floats(buffer(frame, list_at, n)[0]), shape)


@njit
def ints(frame: int, list_at: int, n: int, size: int) -> Array:
    """As int32."""
    return carray(_ints(buffer(frame, list_at, n)[0]), size)


def view(frame: int, list_at: int, n: int, shape: Any, like: Any) -> Array:
    """As `floats`, of numbers of the type of `like`."""


@overload(view)
def _view(frame: Any, list_at: Any, n: Any, shape: Any, like: Any) -> Any:
    def half(frame: Any, list_at: Any, n: Any, shape: Any, like: Any) -> Any:
        return carray(_halves(buffer(frame, list_at, n)[0]), shape)

    def single(frame: Any, list_at: Any, n: Any, shape: Any, like: Any) -> Any:
        return floats(frame, list_at, n, shape)

    return half if like == uint16 else single


# Each of these is `start`, `feed`, `forward` or `backward` on the arguments and results that `native.py` passes; `like`
# is a number as the products' format has it, float32 or the bits of a bfloat16.


@njit
def call_start(frame: int, like: Any) -> None:
    """`start`."""
    (_, c), (_, cells), (_, inputs) = (
        buffer(frame, ARGUMENTS, 0),
        buffer(frame, RESULTS, 1),
        buffer(frame, RESULTS, 2),
    )
    units, columns, blocks, rows, together = c[0], c[1], inputs[0], inputs[1], inputs[2]
    start(
        floats(frame, ARGUMENTS, 0, (units, columns)),
        floats(frame, ARGUMENTS, 1, (units, columns)),
        view(frame, RESULTS, 0, (rows, columns), like),
        floats(frame, RESULTS, 1, (cells[0], units, columns)),
        view(frame, RESULTS, 2, (blocks, rows, together, columns), like),
    )


@njit
def call_feed(frame: int, like: Any) -> None:
    """`feed` of x[at], which is of float32 or of the products' format, whichever it is passed in."""
    (_, x), (_, inputs) = buffer(frame, ARGUMENTS, 2), buffer(frame, RESULTS, 1)
    steps, width, columns = x[0], x[1], x[2]
    t, at = ints(frame, ARGUMENTS, 0, 1)[0], ints(frame, ARGUMENTS, 1, 1)[0]
    xh = view(frame, RESULTS, 0, (inputs[1], columns), like)
    kept = view(frame, RESULTS, 1, (inputs[0], inputs[1], inputs[2], columns), like)
    if format_of(frame, ARGUMENTS, 2) == FLOAT32:
        feed(t, floats(frame, ARGUMENTS, 2, (steps, width, columns))[at], xh, kept)
    else:
        feed(t, view(frame, ARGUMENTS, 2, (steps, width, columns), like)[at], xh, kept)


@njit
def call_forward(frame: int, like: Any) -> None:
    """`forward`."""
    (_, z), (_, constant) = buffer(frame, ARGUMENTS, 1), buffer(frame, ARGUMENTS, 2)
    (_, cells), (_, inputs) = buffer(frame, RESULTS, 1), buffer(frame, RESULTS, 2)
    gates, columns, blocks, rows, together = z[0], z[1], inputs[0], inputs[1], inputs[2]
    forward(
        ints(frame, ARGUMENTS, 0, 1)[0],
        floats(frame, ARGUMENTS, 1, (gates, columns)),
        floats(frame, ARGUMENTS, 2, (gates, constant[1])),
        view(frame, RESULTS, 0, (rows, columns), like),
        floats(frame, RESULTS, 1, (cells[0], gates // 4, columns)),
        view(frame, RESULTS, 2, (blocks, rows, together, columns), like),
        view(frame, RESULTS, 3, (cells[0] - 1, gates, columns), like),
    )


@njit
def call_backward(frame: int, like: Any) -> None:
    """`backward`."""
    (_, gates), (_, d_hidden) = buffer(frame, ARGUMENTS, 1), buffer(frame, ARGUMENTS, 3)
    (_, d_constant), (_, kept) = buffer(frame, RESULTS, 1), buffer(frame, RESULTS, 4)
    steps, units, columns = gates[0], gates[1] // 4, gates[2]
    one, pair, several = (units, columns), (2 * units, columns), (kept[0], kept[1], columns)
    backward(
        ints(frame, ARGUMENTS, 0, 1)[0],
        view(frame, ARGUMENTS, 1, (steps, 4 * units, columns), like),
        floats(frame, ARGUMENTS, 2, (steps + 1, units, columns)),
        floats(frame, ARGUMENTS, 3, (d_hidden[0], units, columns)),
        (floats(frame, ARGUMENTS, 4, one), floats(frame, ARGUMENTS, 5, one)),
        floats(frame, RESULTS, 0, one),
        floats(frame, RESULTS, 1, (4 * units, d_constant[1])),
        (view(frame, RESULTS, 2, pair, like), view(frame, RESULTS, 3, pair, like)),
        (view(frame, RESULTS, 4, several, like), view(frame, RESULTS, 5, several, like)),
    )


def handlers(half: bool, cache: bool) -> dict[str, Any]:
    """The handlers by name, compiled; `half`: for products of bfloat16. With `cache` numba keeps them on disk."""
    like = np.uint16(0) if half else ZERO

    def start_of(frame: int) -> int:
        if not asks_version(frame):
            call_start(frame, like)
        return 0  # no error

    def feed_of(frame: int) -> int:
        if not asks_version(frame):
            call_feed(frame, like)
        return 0

    def forward_of(frame: int) -> int:
        if not asks_version(frame):
            call_forward(frame, like)
        return 0

    def backward_of(frame: int) -> int:
        if not asks_version(frame):
            call_backward(frame, like)
        return 0

    compiled = numba.cfunc(int64(int64), cache=cache)
    return {
        "start": compiled(start_of),
        "feed": compiled(feed_of),
        "forward": compiled(forward_of),
        "backward": compiled(backward_of),
    }
