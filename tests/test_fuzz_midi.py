"""Hostile files: whatever the bytes, a `Score` or one clear line; never a crash, a hang or a heap of memory.

symusic is C++ and dies of malformed events, so the parent process only looks on while a child reads.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_io import Event, midi, off, on, program, tempo
from tests.test_notation import ABC, KERN, two_parts, zipped
from zoo.errors import InputError
from zoo.music.io import read, to_note_sequence
from zoo.music.midi import midi_bytes, read_midi
from zoo.music.score import Score


def healthy() -> bytes:
    """Two tracks with every kind of event."""
    meta: list[Event] = [
        (0, b"\xff\x03\x05Piano"),
        (0, tempo(500_000)),
        (0, b"\xff\x58\x04\x04\x02\x18\x08"),
        (0, b"\xff\x59\x02\x00\x00"),
        (960, tempo(400_000)),
        (960, b"\xf0\x03\x01\x02\xf7"),
    ]
    notes: list[Event] = [(0, program(5)), (0, b"\xb0\x07\x64"), (0, b"\xe0\x00\x40")]
    for i in range(40):
        notes += [(i * 120, on(40 + i, channel=9 * (i % 2))), (i * 120 + 100, off(40 + i, channel=9 * (i % 2)))]
    return midi(meta, sorted(notes, key=lambda event: event[0]))


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """Truncated, overwritten, spliced and random files."""
    rng = random.Random(seed)
    original = healthy()
    for _ in range(count):
        data = bytearray(original)
        match rng.randrange(6):
            case 0:
                del data[rng.randrange(len(data)) :]
            case 1:
                for _ in range(rng.randrange(1, 30)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
            case 2:
                data[14:] = rng.randbytes(rng.randrange(500))
            case 3:
                for _ in range(rng.randrange(1, 10)):
                    at = rng.randrange(len(data))
                    data[at:at] = bytes(rng.choices([0xFF, 0x80, 0xF0, 0xF7, 0x90, 0x00], k=rng.randrange(1, 8)))
            case 4:
                body = rng.randbytes(rng.randrange(300))
                data[14:] = b"MTrk" + len(body).to_bytes(4, "big") + body
            case 5:
                for _ in range(rng.randrange(1, 5)):
                    data[rng.randrange(60)] = rng.randrange(256)
        yield bytes(data)


def read_mutations(seed: int, count: int) -> int:
    """How many of them can be read; runs in the child."""
    readable = 0
    refused = []
    for data in mutations(seed, count):
        try:
            score = read_midi(data, "fuzz.mid")
        except InputError as error:
            refused.append(str(error))
            continue
        readable += 1
        assert (score.end > score.start).all()
        assert ((score.pitch >= 0) & (score.pitch < 128)).all()
        midi_bytes(score)
    assert all(message.startswith("fuzz.mid: ") and "\n" not in message for message in refused)
    return readable


def test_midi_mutations_never_crash() -> None:
    command = "from tests.test_fuzz_midi import read_mutations; print(read_mutations(0, 5000))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 50 < int(done.stdout) < 4000, "mutations are neither all harmless nor all fatal"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not a MIDI file", id="empty"),
        pytest.param(b"MThd", "header is cut", id="header only"),
        pytest.param(b"RIFF" + healthy(), "not a MIDI file", id="wrong header"),
        pytest.param(healthy()[:-1], "truncated", id="last byte"),
        pytest.param(healthy()[:200], "truncated", id="half"),
        pytest.param(healthy().replace(b"MTrk", b"MTrx", 1), "1 of 2 tracks", id="track header"),
        pytest.param(midi([(0, on(60))], division=0xE728), "SMPTE", id="SMPTE"),
        pytest.param(midi([(0, on(60))], division=0), "corrupt MIDI header", id="no ticks"),
        pytest.param(midi([(0, on(60))], kind=7), "corrupt MIDI header", id="type 7"),
        pytest.param(midi([(0, bytes([0x90, 200, 80]))]), "no valid event", id="pitch 200"),
        pytest.param(midi([(0, bytes([60, 80]))]), "no valid event", id="running status of nothing"),
        pytest.param(midi([(0, b"\xf8")]), "no valid event", id="system real time"),
        pytest.param(midi([(0, b"\xff\x51\x02\x01\x01")]), "bad length", id="short tempo"),
        pytest.param(midi([(0, b"\xff\x01\xff\xff\xff\x7f")]), "bad length", id="text beyond the end"),
        pytest.param(midi([(20_000_000, on(60)), (20_000_001, off(60))]), "at tick 20000000", id="hours away"),
        pytest.param(
            midi([*((200_000_000 * i, b"\xff\x01\x00") for i in range(13)), (2_500_000_000, on(60))]),
            "corrupt MIDI",
            id="ticks that overflow",
        ),
    ],
)
def test_midi_errors(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_midi(data, "x.mid")
    assert str(error.value).startswith("x.mid: ")
    assert "\n" not in str(error.value)


def quickly(make: Callable[[], Score], seconds: float) -> Score:
    began = time.process_time()
    score = make()
    assert time.process_time() - began < seconds
    return score


def test_ten_thousand_tracks() -> None:
    data = midi(*[[(0, on(60)), (10, off(60))]] * 10_000)
    score = quickly(lambda: read_midi(data), 20)
    assert len(score) == 10_000
    assert score.track.max() == 9_999


def test_many_empty_tracks() -> None:
    assert len(quickly(lambda: read_midi(midi(*[[]] * 65_535)), 20)) == 0


def test_huge_tempo_map() -> None:
    changes = [(i, tempo(1 + i * 40)) for i in range(200_000)]
    score = quickly(lambda: read_midi(midi([*changes, (200_000, on(60)), (200_480, off(60))])), 20)
    assert len(score.tempos) == 200_000
    assert np.isfinite(score.seconds_at(score.end)).all()


def test_many_notes_left_open() -> None:
    score = quickly(lambda: read_midi(midi([(i, on(60)) for i in range(5000)])), 20)
    assert len(score) == 0


def test_tempo_zero_and_impossible_metre_are_left_out() -> None:
    score = read_midi(
        midi(
            [
                (0, tempo(0)),
                (0, b"\xff\x58\x04\x00\x02\x18\x08"),
                (1, b"\xff\x58\x04\x04\xff\x18\x08"),
                (2, on(60)),
                (482, off(60)),
            ]
        )
    )
    assert (len(score), len(score.tempos), len(score.meters)) == (1, 0, 0)


def test_names_that_are_no_unicode() -> None:
    data = midi([(0, b"\xff\x03\x04\xff\xfe\xfa\x80"), (0, on(60)), (10, off(60))])
    assert len(read_midi(data)) == 1


def test_midi_without_notes_is_read() -> None:
    assert len(read_midi(midi([], [(0, tempo(500_000))]))) == 0


FILES = {
    ".xml": two_parts(),
    ".mxl": zipped({"a.xml": two_parts()}),
    ".krn": KERN.encode(),
    ".abc": ABC.split("\n\n")[0].encode(),
    ".pb": bytes(to_note_sequence(read_midi(healthy())).SerializeToString()),
}


@pytest.mark.parametrize("suffix", FILES)
def test_other_formats_mutated(suffix: str, tmp_path: Path) -> None:
    """A wrong digit, a lost line, a stray byte: a `Score` with possible notes or an InputError."""
    original = FILES[suffix]
    rng = random.Random(0)
    path = tmp_path / f"fuzz{suffix}"
    readable = 0
    refused = []
    for _ in range(300):
        data = bytearray(original)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at] = rng.choice(b"0123456789-./|:[]()<>\t\n *")
                case 2:
                    del data[at : at + rng.randrange(20)]
                case 3:
                    data[at:at] = data[at // 2 : at // 2 + rng.randrange(30)]
        path.write_bytes(bytes(data) or b"x")
        try:
            score = read(path)
        except InputError as error:
            refused.append(str(error))
            continue
        readable += 1
        assert np.isfinite(score.start).all()
        assert (score.end > score.start).all()
        assert ((score.pitch >= 0) & (score.pitch < 128)).all()
    assert readable
    assert refused
    assert all(message.startswith(str(path)) and "\n" not in message for message in refused)
