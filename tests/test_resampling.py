"""The windowed sinc: a sum like any other, whatever pieces the sound comes in."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.music import resampling
from zoo.music.resampling import SincResampler

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("native", "rate"), [(44100, 16000), (48000, 16000), (8000, 16000), (16001, 16000), (7, 5)])
def test_each_sample_is_a_weighted_sum(native: int, rate: int) -> None:
    """The definition, one sample at a time, at both ends and in the middle; sums of 550 numbers in float32."""
    x = RNG.standard_normal(3000).astype(np.float32)
    found = SincResampler(native, rate).resample_chunk(x, last=True)
    assert len(found) == 3000 * rate // native
    for t in (0, 1, 50, len(found) // 2, len(found) - 2, len(found) - 1):
        distance = min(1, rate / native) * np.abs(np.arange(3000) - t * native / rate)  # in zeros of the sinc
        near = np.minimum(distance, 50)
        window = np.i0(resampling.BETA * np.sqrt(1 - (near / 50) ** 2)) / np.i0(resampling.BETA)
        sinc = resampling.ROLLOFF * np.sinc(resampling.ROLLOFF * near)
        expected = min(1, rate / native) * np.sum(x * sinc * window * (distance < 50))
        np.testing.assert_allclose(found[t], expected, atol=2e-3)  # the table's step is a whole number of entries


@pytest.mark.parametrize("native", [8000, 11025, 44100, 44101, 192000])
def test_pieces_give_what_the_whole_gives(native: int) -> None:
    x = RNG.standard_normal(20001).astype(np.float32)
    whole = SincResampler(native, 16000).resample_chunk(x, last=True)
    for cuts in ([], [0, 0, 1, 2, 19999], list(range(77, 20000, 77))):
        stream = SincResampler(native, 16000)
        pieces = [stream.resample_chunk(piece) for piece in np.split(x, cuts)]
        pieces.append(stream.resample_chunk(x[:0], last=True))
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_it_holds_back_little() -> None:
    """At most 10 ms of sound are still to come after each piece."""
    stream, given = SincResampler(44100, 16000), 0
    for k in range(1, 50):
        given += len(stream.resample_chunk(np.zeros(441, np.float32)))
        assert 0 <= k * 160 - given <= 160
