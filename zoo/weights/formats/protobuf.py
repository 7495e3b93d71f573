"""Protocol buffers without their library: a message is a sequence of (field number, value)."""

from __future__ import annotations

from collections.abc import Iterator

Value = int | memoryview


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The unsigned variable-length integer at `at` and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message in order: integers and fixed-width numbers as unsigned int, the rest as bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = varint(data, at)
        else:
            length = {1: 8, 5: 4}[kind]
        part, at = data[at : at + length], at + length
        if len(part) != length:
            raise ValueError("a message that ends too early")
        yield key >> 3, part if kind == 2 else int.from_bytes(part, "little")


def message(data: Value) -> dict[int, list[Value]]:
    """All values of each field of a message."""
    if isinstance(data, int):
        raise ValueError("a number in the place of a message")
    found: dict[int, list[Value]] = {}
    for number, value in fields(data):
        found.setdefault(number, []).append(value)
    return found


def number(found: dict[int, list[Value]], field: int, default: int = 0) -> int:
    """The last value of an integer field, signed as int64."""
    value = found.get(field, [default])[-1]
    if not isinstance(value, int):
        raise ValueError("a message in the place of a number")
    return value - (1 << 64) if value >> 63 else value


def numbers(found: dict[int, list[Value]], field: int) -> list[int]:
    """All values of a repeated integer field, packed or not, signed as int64."""
    values: list[int] = []
    for part in found.get(field, []):
        if isinstance(part, int):
            values.append(part)
            continue
        at = 0
        while at < len(part):
            value, at = varint(part, at)
            values.append(value)
    return [value - (1 << 64) if value >> 63 else value for value in values]


def text(found: dict[int, list[Value]], field: int) -> str:
    """The last value of a string field."""
    return raw(found, field).tobytes().decode()


def raw(found: dict[int, list[Value]], field: int) -> memoryview:
    """The last value of a bytes or message field; empty if there is none."""
    value = found.get(field, [memoryview(b"")])[-1]
    if isinstance(value, int):
        raise ValueError("a number in the place of bytes")
    return value
