"""CRC-32C (Castagnoli), which TensorFlow's files carry: in numpy, 100 MB/s, where Python alone would do 5.

The data is laid out as lanes of equal length whose checksums advance together, four bytes a step. Neighbouring lanes
are then joined in pairs: crc(a + b) = shift(crc(a), len(b)) ^ crc(b), where `shift` appends zero bytes and is linear
over GF(2), so a 32 × 32 matrix of bits (here 32 column words) that squares whenever the lanes double.
"""

from __future__ import annotations

import numpy as np

_LANES = 1 << 12
_POLYNOMIAL = 0x82F63B78


def masked(data: bytes | memoryview) -> int:
    """The checksum as TensorFlow and LevelDB store it: rotated by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """The CRC-32C of some bytes, as an unsigned 32-bit integer."""
    values = np.frombuffer(data, np.uint8)
    length = len(values) // _LANES // 4 * 4
    crc = 0xFFFFFFFF
    if length >= 16:  # below, the lanes would cost more than they save
        body, values = values[: length * _LANES].view("<u4").reshape(_LANES, -1), values[length * _LANES :]
        lanes = np.zeros(_LANES, np.uint32)
        lanes[0] = crc
        for column in np.ascontiguousarray(body.T):
            lanes ^= column
            lanes = _LOW[lanes & 0xFFFF] ^ _HIGH[lanes >> 16]
        shift = _zero_bytes(length)
        while len(lanes) > 1:
            lanes = _apply(shift, lanes[::2]) ^ lanes[1::2]
            shift = _apply(shift, shift)
        crc = int(lanes[0])
    for byte in values.tolist():
        crc = _WORDS[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _zero_bytes(count: int) -> np.ndarray:
    """The matrix that appends `count` zero bytes, by squaring."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    result, power = bits, _advance(bits, 1)
    while count:
        if count & 1:
            result = _apply(power, result)
        power, count = _apply(power, power), count >> 1
    return result


def _apply(matrix: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Matrix · words over GF(2): the matrix is 32 words, the images of each single bit."""
    result = np.zeros_like(words)
    for bit in range(32):
        result ^= np.where(words >> np.uint32(bit) & 1, matrix[bit], np.uint32(0))
    return result


def _table() -> np.ndarray:
    """The checksum's change for each value of a byte."""
    words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        words = np.where(words & 1, (words >> 1) ^ np.uint32(_POLYNOMIAL), words >> 1)
    return words


def _advance(words: np.ndarray, count: int) -> np.ndarray:
    """Checksums after `count` zero bytes."""
    for _ in range(count):
        words = _TABLE[words & 0xFF] ^ (words >> 8)
    return words


_TABLE = _table()
_WORDS = _TABLE.tolist()
_LOW, _HIGH = (_advance(np.arange(1 << 16, dtype=np.uint32) << shift, 4) for shift in (0, 16))
