"""TensorFlow's tables: sorted (key, value) pairs in blocks with checksums, the layout of LevelDB's SSTable.

A table ends with a footer of 48 bytes: where the meta-index and the index block are, padding, a magic number. The
index's values say where the data blocks are. A block is entries, their restart points (not needed to read on), and
after it one byte for the compression and a masked CRC-32C. Keys are stored as what they share with the one before.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo.weights.formats import crc32c
from zoo.weights.formats.protobuf import varint

MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5


def entries(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The (key, value) pairs of a table in order. Raises `ValueError` if it is damaged."""
    footer = data[-_FOOTER:]
    if len(data) < _FOOTER or int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError("no table at its end, so it is cut short or something else")
    _, at = _handle(footer, 0)
    (start, size), _ = _handle(footer, at)
    for _, value in _block(data, start, size):
        (start, size), _ = _handle(value, 0)
        yield from _block(data, start, size)


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Where a block is, (offset, size), and the position after that."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(data: memoryview, start: int, size: int) -> Iterator[tuple[bytes, memoryview]]:
    raw = data[start : start + size + _TRAILER]
    if len(raw) != size + _TRAILER:
        raise ValueError("a block that lies beyond the end")
    if crc32c.masked(raw[: size + 1]) != int.from_bytes(raw[size + 1 :], "little"):
        raise ValueError("a block whose checksum is wrong")
    if raw[size] > 1:
        raise ValueError(f"a block of unknown compression {raw[size]}")
    block = snappy(raw[:size]) if raw[size] else raw[:size]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared + length
        if at > end or len(key) != shared + unshared:
            raise ValueError("an entry that ends beyond its block")
        yield key, block[at - length : at]


def snappy(data: memoryview) -> memoryview:
    """Snappy's decompression: a length, then literals and copies of what was written before."""
    length, at = varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag, at = data[at], at + 1
        kind, count = tag & 3, (tag >> 2) + 1
        if kind == 0:
            if count > 60:
                extra = count - 60
                count, at = int.from_bytes(data[at : at + extra], "little") + 1, at + extra
            out += data[at : at + count]
            at += count
        else:
            if kind == 1:
                count, offset, at = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at], at + 1
            else:
                width = 2 if kind == 2 else 4
                offset, at = int.from_bytes(data[at : at + width], "little"), at + width
            if not 0 < offset <= len(out):
                raise ValueError("compressed bytes that copy from before their beginning")
            start = len(out) - offset
            if offset >= count:
                out += out[start : start + count]
            else:  # the copy overlaps what it writes: a pattern repeated
                out += (bytes(out[start:]) * (count // offset + 1))[:count]
    if len(out) != length:
        raise ValueError("compressed bytes of another length than they claim")
    return memoryview(bytes(out))
