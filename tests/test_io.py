"""MIDI with the same notes as note_seq, NoteSequences, and what a file is by its content."""

from __future__ import annotations

import itertools
import os
import random
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests import shared
from tests.test_notation import ABC, KERN, two_parts
from zoo.errors import InputError
from zoo.music.io import from_note_sequence, read, to_note_sequence, write_midi
from zoo.music.midi import midi_bytes, read_midi
from zoo.music.note_sequence import note_sequence_class
from zoo.music.score import Score

Event = tuple[int, bytes]


def variable_length(number: int) -> bytes:
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(0x80 | number & 0x7F)
    return bytes(reversed(out))


def midi(*tracks: Iterable[Event], division: int = 480, kind: int = 1) -> bytes:
    """A MIDI file of tracks of (tick, event bytes), ticks ascending."""
    chunks = [struct.pack(">4sIHHH", b"MThd", 6, kind, len(tracks), division)]
    for events in tracks:
        events = list(events)
        ticks = [0, *(tick for tick, _ in events)]
        deltas = [variable_length(after - before) for before, after in itertools.pairwise(ticks)]
        body = b"".join(delta + event for delta, (_, event) in zip(deltas, events, strict=True)) + b"\x00\xff\x2f\x00"
        chunks.append(struct.pack(">4sI", b"MTrk", len(body)) + body)
    return b"".join(chunks)


def on(pitch: int, velocity: int = 80, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def program(number: int, channel: int = 0) -> bytes:
    return bytes([0xC0 | channel, number])


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + struct.pack(">I", microseconds)[1:]


def note_seq_notes(data: bytes) -> np.ndarray:
    """Rows of (start, end, pitch, velocity, program, is_drum) by note_seq, sorted; times in seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # note_seq, pydub and pretty_midi all warn
        from note_seq import midi_io

        notes = midi_io.midi_to_note_sequence(data).notes
    return sorted_rows([(n.start_time, n.end_time, n.pitch, n.velocity, n.program, n.is_drum) for n in notes])


def our_notes(data: bytes) -> np.ndarray:
    s = read_midi(data)
    columns = (s.seconds_at(s.start), s.seconds_at(s.end), s.pitch, s.velocity, s.program, s.is_drum)
    return sorted_rows(np.stack(columns, axis=1).tolist())


def sorted_rows(rows: list) -> np.ndarray:
    table = np.round(np.array(rows, np.float64).reshape(-1, 6), 6)
    return table[np.lexsort(table.T)]


WEIRD = {
    "overlap, two note-offs": [(0, on(60)), (5, on(60, 81)), (10, off(60)), (15, off(60))],
    "overlap, one note-off": [(0, on(60)), (5, on(60, 81)), (10, off(60))],
    "struck again before it ends": [(0, on(60)), (10, on(60, 81)), (10, off(60)), (20, off(60))],
    "struck again as it ends": [(0, on(60)), (10, off(60)), (10, on(60, 81)), (20, off(60))],
    "no length": [(0, on(60)), (0, off(60)), (10, on(61)), (20, off(61))],
    "never ends": [(0, on(60)), (5, on(62)), (15, off(62))],
    "note-off alone": [(0, off(60)), (5, on(60)), (15, off(60)), (20, off(60))],
    "velocity 0": [(0, on(60)), (5, on(60, 0)), (15, on(60)), (20, on(60, 0))],
    "running status": [(0, on(60)), (5, bytes([60, 0])), (9, bytes([64, 70])), (12, bytes([64, 0]))],
    "running status after a meta event": [(0, on(60)), (0, b"\xff\x01\x02hi"), (5, bytes([60, 0]))],
    "drums and programmes": [
        (0, program(3, 2)),
        (0, on(36, 99, 9)),
        (1, on(60, 80, 2)),
        (2, off(60, 2)),
        (2, program(7, 2)),
        (3, on(60, 80, 2)),
        (4, off(60, 2)),
        (20, off(36, 9)),
    ],
    "tempo changes": [
        (0, tempo(500_000)),
        (0, tempo(400_000)),
        (0, on(60)),
        (480, tempo(400_000)),
        (960, tempo(250_000)),
        (960, tempo(200_000)),
        (1920, off(60)),
    ],
}


@pytest.mark.parametrize("name", WEIRD)
def test_midi_weird_notes_equal_note_seq(name: str) -> None:
    data = midi(WEIRD[name])
    np.testing.assert_array_equal(our_notes(data), note_seq_notes(data))


def test_midi_random_notes_equal_note_seq() -> None:
    """Notes that overlap, collide and stay open, in any order, no two events of a pitch in one tick."""
    rng = random.Random(0)
    for _ in range(60):
        ticks = sorted(rng.sample(range(300), 60))
        events = [rng.choice([on, off])(rng.randrange(60, 63), channel=rng.choice([0, 9])) for _ in ticks]
        data = midi(zip(ticks, events, strict=True), [(5, on(1)), (9, off(1))])
        np.testing.assert_array_equal(our_notes(data), note_seq_notes(data))


@pytest.mark.shared
@pytest.mark.parametrize("archive", ["pop909", "nottingham", "groove"])
def test_midi_real_files_equal_note_seq(archive: str) -> None:
    files = archived_midi(archive, 6)
    assert len(files) == 6
    for data in files:
        ours, theirs = our_notes(data), note_seq_notes(data)
        assert len(ours) > 20
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


def archived_midi(name: str, count: int) -> list[bytes]:
    """The first `count` MIDI files of a shared archive."""
    import tarfile

    found = []
    with tarfile.open(shared.path(f"data/{name}.tar.gz")) as archive:
        for member in archive:
            if member.name.endswith(".mid") and (file := archive.extractfile(member)):
                found.append(file.read())
            if len(found) == count:
                break
    return found


def test_midi_metre_tempo_and_names() -> None:
    meta = [(0, b"\xff\x03\x04Lead"), (0, b"\xff\x58\x04\x03\x02\x18\x08"), (0, tempo(600_000)), (960, tempo(500_000))]
    late = [(1440, b"\xff\x58\x04\x06\x03\x18\x08"), (1440, b"\xff\x58\x04\x06\x03\x18\x08"), (1440, on(60))]
    score = read_midi(midi([*meta, *late, (1920, off(60))]))
    assert score.meters.tolist() == [[0, 3, 4], [3, 6, 8]]
    assert score.tempos.tolist() == [[0, 100], [2, 120]]
    assert (score.start.tolist(), score.end.tolist(), score.track_names) == ([3.0], [4.0], ("Lead",))


def test_midi_round_trip(tmp_path: Path) -> None:
    start = np.arange(40) / 4
    score = Score.of(
        start,
        start + 1 / 3,
        48 + np.arange(40),
        velocity=1 + np.arange(40),
        track=np.arange(40) % 20,
        program=np.where(np.arange(40) % 20 == 3, 0, 12),
        is_drum=np.arange(40) % 20 == 3,
        tempos=np.array([[0, 90.0], [4, 150.0]]),
        meters=np.array([[0, 2, 2.0], [8, 6, 8]]),
        track_names=tuple(f"part {i}" for i in range(20)),
    )
    path = tmp_path / "new" / "piece.mid"
    write_midi(score, path)
    again = read(path)
    np.testing.assert_allclose(again.start, score.start)
    np.testing.assert_allclose(again.end, score.end)
    for name in ("pitch", "velocity", "program", "is_drum", "meters"):
        np.testing.assert_array_equal(getattr(again, name), getattr(score, name))
    np.testing.assert_allclose(again.tempos, score.tempos, rtol=1e-6)  # whole microseconds
    assert sorted(again.track_names) == sorted(score.track_names)
    assert os.listdir(path.parent) == ["piece.mid"]


def test_what_midi_cannot_express() -> None:
    meters = np.array([[0, 3, 12.0], [4, 300, 4], [8, 3, 4]])
    score = Score.of([-0.1, 2], [0.5, 2], [60, 62], tempos=np.array([[0, 1.0]]), meters=meters)
    again = read_midi(midi_bytes(score))
    assert (again.start.tolist(), again.end.tolist()) == ([0, 2], [0.5, 2 + 1 / 480])
    assert again.meters.tolist() == [[8, 3, 4]]
    assert again.tempos[0, 1] == pytest.approx(3.576, abs=0.001)


def test_note_sequence_round_trip(tmp_path: Path) -> None:
    score = Score.of(
        [0, 1, 2.5, 7],
        [1, 2, 3, 8],
        [60, 62, 64, 36],
        velocity=[1, 64, 127, 90],
        track=[0, 0, 1, 2],
        program=[0, 0, 40, 0],
        is_drum=[False, False, False, True],
        tempos=np.array([[0, 90.0], [2, 60.0], [6.5, 200.0]]),
        meters=np.array([[0, 3, 4.0], [3, 4, 4]]),
        chords=((0.0, "Am7"), (3.0, "N.C.")),
        track_names=("melody", "", "drums"),
    )
    sequence = to_note_sequence(score)
    assert sequence.notes[2].start_time == pytest.approx(2 * 60 / 90 + 0.5)
    binary, text = tmp_path / "a.pb", tmp_path / "a.pbtxt"
    binary.write_bytes(sequence.SerializeToString())
    text.write_text(str(sequence))
    for again in (from_note_sequence(sequence), read(sequence), read(binary), read(text)):
        for name in ("start", "end", "tempos", "meters"):
            np.testing.assert_allclose(getattr(again, name), getattr(score, name), atol=1e-9)
        for name in ("pitch", "velocity", "track", "program", "is_drum"):
            np.testing.assert_array_equal(getattr(again, name), getattr(score, name))
        assert [symbol for _, symbol in again.chords] == ["Am7", "N.C."]
        assert again.track_names == score.track_names


def test_note_sequence_is_the_class_of_note_seq() -> None:
    ours = note_sequence_class()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import note_seq

        chord = note_seq.NoteSequence.TextAnnotation.CHORD_SYMBOL
    assert ours is note_seq.NoteSequence
    assert chord == ours.TextAnnotation.CHORD_SYMBOL


def test_note_sequence_of_steps_and_without_velocity() -> None:
    sequence = note_sequence_class()()
    sequence.quantization_info.steps_per_quarter = 4
    sequence.tempos.add(qpm=90)
    sequence.notes.add(pitch=60, quantized_start_step=2, quantized_end_step=5)
    sequence.notes.add(pitch=61, quantized_start_step=3, quantized_end_step=3)
    score = from_note_sequence(sequence)
    np.testing.assert_allclose([score.start[0], score.end[0], score.velocity[0]], [0.5, 1.25, 80])
    assert len(score) == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.mid", b"", "empty"),
        ("a.mid", b"hello", "not MIDI, nor any other"),
        ("a.mid", b"<!DOCTYPE html><html>", "an HTML page"),
        ("a.mid", b"RIFF\x00\x00\x00\x00WAVE", "WAV audio"),
        ("a.mxl", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("a.pb", b"hello world", "not a serialised NoteSequence"),
        ("a.pbtxt", b"notes { pitch: x }", "not a NoteSequence in text form"),
        ("a.txt", midi([], division=0xE728), "SMPTE"),
        ("a.abc", b"X:1\nK:C\n", "no notes"),
        ("a.krn", b"**kern\n*M4/4\n*-\n", "no notes"),
    ],
)
def test_read_errors(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_read_by_content(tmp_path: Path) -> None:
    data = midi([(0, on(60)), (480, off(60))])
    rmid = b"RIFF" + struct.pack("<I", len(data) + 12) + b"RMIDdata" + struct.pack("<I", len(data)) + data
    contents = {
        "a.txt": data,
        "b.mid": rmid,
        "c.mid": two_parts(),
        "d.xml": KERN.encode(),
        "e": ABC.split("\n\n")[0].encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert len(read(tmp_path / name)) > 0


def test_read_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {"missing.mid": "no such file", ".": "a folder", "pipe": "not a regular file", "a\0b": "can't be read"}
    for name, message in cases.items():
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_read_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(midi([]))
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read(path)


def test_read_without_permission_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mid"
    path.write_bytes(midi([]))

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"can't be read \(Permission denied\)"):
        read(path)
