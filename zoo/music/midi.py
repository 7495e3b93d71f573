"""Standard MIDI files ⇄ `Score`, through symusic: a thousand files a second.

symusic trusts its input: bytes that break the format's rules crash the process. `_track_chunks` therefore walks every
event first (a regular expression takes the channel events, so it costs little) and hands on only what is well formed.

The notes equal those of note_seq's `midi_to_note_sequence` (pretty_midi's rules), also where symusic itself differs:

- A note-off closes every open note of its channel and pitch; symusic pairs first in, first out. `_pair` undoes it.
- A note that would last no time, or that is never closed, is left out.

They still differ in two ways, on purpose: tempo and metre count in every track, not only in the first one; and a
programme change in the middle of a note leaves that note its old programme.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.music.score import Bools, Floats, Ints, Score

TICKS_PER_QUARTER = 480  # of the files we write
_DENOMINATORS = (1, 2, 4, 8, 16, 32, 64, 128)
_MAX_TICK = 10_000_000  # pretty_midi's bound: beyond it a file is corrupt

_DELTA = rb"[\x80-\xff]{0,3}[\x00-\x7f]"  # a variable-length quantity, at most four bytes
_DATA = rb"[\x00-\x7f]"
_TWO = rb"[\x80-\xbf\xe0-\xef]"  # status bytes followed by two data bytes
_ONE = rb"[\xc0-\xdf]"
_RUNNING_TWO = re.compile(rb"(?:%b%b{2})*+" % (_DELTA, _DATA))
_RUNNING_ONE = re.compile(rb"(?:%b%b)*+" % (_DELTA, _DATA))
_CHANNEL_EVENTS = re.compile(
    rb"(?:%b(?:%b%b{2}%b|%b%b%b))*+" % (_DELTA, _TWO, _DATA, _RUNNING_TWO.pattern, _ONE, _DATA, _RUNNING_ONE.pattern)
)
_STATUS = re.compile(
    rb"%b(?:(%b)%b{2}%b|%b%b%b)" % (_DELTA, _TWO, _DATA, _RUNNING_TWO.pattern, _ONE, _DATA, _RUNNING_ONE.pattern)
)
_SYSTEM_EVENT = re.compile(rb"%b(\xf0|\xf7|\xff%b)(%b)" % (_DELTA, _DATA, _DELTA))
_END_OF_TRACK = b"\xff\x2f"
_META_LENGTHS = {_END_OF_TRACK: 0, b"\xff\x51": 3, b"\xff\x58": 4, b"\xff\x59": 2}

# Appended to each track: after a very long time, a note-off for every channel and pitch. symusic forgets notes that
# are never closed, but `_pair` must see them: an earlier note-off may have closed them. One note-off closes one note in
# symusic, so where some were open it is tried again with more.
_LATE = 1 << 27
_CLOSE_ALL = b"\xc0\x80\x80\x00" + b"\x00".join(
    bytes([0x80 | channel, 0, 0]) + b"".join(bytes([0, pitch, 0]) for pitch in range(1, 128)) for channel in range(16)
)


def read_midi(data: bytes, source: str = "MIDI data") -> Score:
    """The notes, tempo and metre of a Standard MIDI File of any type. `source` names it in messages.

    Raises:
      InputError: not MIDI, truncated, corrupt, or timed in SMPTE frames, which have no quarter notes.
    """
    import symusic

    tpq, chunks = _track_chunks(data, source)
    still_open = 0
    for rounds in (1, 4, 16, 64, 256):
        try:
            midi: Any = symusic.Score.from_midi(_closed(tpq, chunks, rounds))
            tracks = [(track, track.notes.numpy(), track.name) for track in midi.tracks]
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{source}: corrupt MIDI ({error}); export it again") from None
        before, still_open = still_open, sum(int((notes["duration"] >= _LATE).sum()) for _, notes, _ in tracks)
        if still_open == before or rounds * len(chunks) > 512:
            break
    columns = [_columns(notes, track, index, source) for index, (track, notes, _) in enumerate(tracks)]
    start, end, *rest = (np.concatenate(column) for column in zip(*columns, strict=True)) if columns else [()] * 7
    tempos, meters = midi.tempos.numpy(), midi.time_signatures.numpy()
    tempo = tempos["mspq"] > 0
    meter = (meters["numerator"] > 0) & (meters["denominator"] > 0)
    return Score.of(
        np.asarray(start) / tpq,
        np.asarray(end) / tpq,
        *rest,
        tempos=_changes(tempos["time"][tempo] / tpq, 6e7 / tempos["mspq"][tempo]),
        meters=_changes(meters["time"][meter] / tpq, meters["numerator"][meter], meters["denominator"][meter]),
        bends=_bends([track for track, _, _ in tracks], tpq),
        track_names=tuple(name for _, _, name in tracks),
        source=source,
    )


def midi_bytes(score: Score) -> bytes:
    """`score` as a Standard MIDI File of type 1, 480 ticks to the quarter; a track per part.

    What MIDI can't express is rounded or left out: times before 0, tempos below 3.6, metres like 3/12.
    """
    import symusic

    def ticks(quarters: Any) -> Any:
        return np.maximum(np.round(np.asarray(quarters) * TICKS_PER_QUARTER), 0).astype(np.int32)

    midi = symusic.Score(TICKS_PER_QUARTER)
    for at, qpm in score.tempos if len(score.tempos) else [(0.0, 120.0)]:
        midi.tempos.append(symusic.Tempo(int(ticks(at)), max(qpm, 60e6 / 0xFFFFFF)))
    for at, numerator, denominator in score.meters:
        if numerator < 256 and denominator in _DENOMINATORS:
            midi.time_signatures.append(symusic.TimeSignature(int(ticks(at)), int(numerator), int(denominator)))
    start, end = ticks(score.start), ticks(score.end)
    parts = np.stack([score.track, score.program, score.is_drum.astype(np.int32)], axis=1)
    written: set[int] = set()
    for part in np.unique(parts, axis=0):
        mine = (parts == part).all(axis=1)
        index, program, is_drum = (int(x) for x in part)
        name = score.track_names[index] if index < len(score.track_names) else ""
        track = symusic.Track(name, program, bool(is_drum))
        duration = np.maximum(end[mine] - start[mine], 1)
        track.notes = symusic.Note.from_numpy(
            start[mine], duration, score.pitch[mine].astype(np.int8), score.velocity[mine].astype(np.int8)
        )
        bends = score.bends[score.bends[:, 1] == index] if index not in written else score.bends[:0]
        written.add(index)  # bends are a part's, whatever programs it has: one track of the file gets them
        for at, _, bend in bends:
            track.pitch_bends.append(symusic.PitchBend(int(ticks(at)), int(np.clip(bend, -8192, 8191))))
        midi.tracks.append(track)
    return bytes(midi.dumps_midi())


def _bends(tracks: list[Any], tpq: int) -> Floats:
    """The pitch bends of symusic's tracks, as in a Score."""
    columns = [(track.pitch_bends.numpy(), index) for index, track in enumerate(tracks)]
    rows = [np.stack([b["time"] / tpq, np.full(len(b["time"]), index), b["value"]], axis=1) for b, index in columns]
    found = np.concatenate([np.zeros((0, 3)), *rows])
    return found[np.argsort(found[:, 0], kind="stable")]


def _pair(start: Ints, end: Ints, pitch: Ints) -> tuple[Bools, Ints]:
    """Which of a track's notes are kept (bool [N]) and the ends of those: the first note-off after their onset."""
    key = pitch.astype(np.int64) << 32
    offs = np.unique((key + end)[end < _LATE])
    if not len(offs):
        return np.zeros(len(start), np.bool_), end[:0]
    after = np.searchsorted(offs, key + start, side="right")
    off = offs[np.minimum(after, len(offs) - 1)]
    kept = (after < len(offs)) & (off >> 32 == pitch) & (end > start)
    return kept, (off & 0xFFFFFFFF).astype(np.int32)[kept]


def _columns(notes: dict[str, Any], track: Any, index: int, source: str) -> tuple[Any, ...]:
    """A track's notes as the columns of a `Score`, start and end in ticks."""
    if len(notes["time"]) and (notes["time"].min() < 0 or notes["time"].max() > _MAX_TICK):
        raise InputError(f"{source}: corrupt MIDI (a note at tick {notes['time'].max()}); export it again")
    kept, end = _pair(notes["time"], notes["time"] + notes["duration"], notes["pitch"].astype(np.int32))
    start, pitch, velocity = (notes[name][kept] for name in ("time", "pitch", "velocity"))
    of_track = (np.full(len(start), value) for value in (index, track.program, track.is_drum))
    return (start, end, pitch, velocity, *of_track)


def _changes(quarters: Floats, *values: Any) -> Floats:
    """A table of changes, one a row: of several at one time the last holds, and repetitions are dropped."""
    last = np.append(np.diff(quarters) > 0, True)[: len(quarters)]
    table = np.stack([quarters, *values], axis=1).astype(np.float64)[last]
    new = np.any(np.diff(table[:, 1:], axis=0, prepend=0.0) != 0, axis=1)
    return table[new]


def _closed(tpq: int, tracks: list[bytes], rounds: int) -> bytes:
    """The file rebuilt from its tracks' events, with `_CLOSE_ALL` at the end of those that have any."""
    end = b"\x00" + _END_OF_TRACK + b"\x00"
    close = _CLOSE_ALL + (rounds - 1) * (b"\x00" + _CLOSE_ALL[4:])
    bodies = [track + close + end if track else end for track in tracks]
    header = struct.pack(">4sIHHH", b"MThd", 6, 1, len(tracks), tpq)
    return header + b"".join(struct.pack(">4sI", b"MTrk", len(body)) + body for body in bodies)


def _track_chunks(data: bytes, source: str) -> tuple[int, list[bytes]]:
    """Ticks per quarter and the events of each track, all of them well formed, without the end-of-track."""
    if data[:4] != b"MThd":
        raise InputError(f"{source}: not a MIDI file (it doesn't start with MThd)")
    if len(data) < 14:
        raise InputError(f"{source}: truncated MIDI (the header is cut); copy or download it again")
    length, kind, count, division = struct.unpack(">IHHH", data[4:14])
    if division & 0x8000:
        raise InputError(f"{source}: timed in SMPTE frames; export it again with ticks per quarter note")
    if length < 6 or kind > 2 or division == 0:
        raise InputError(f"{source}: corrupt MIDI header; export it again")
    tracks: list[bytes] = []
    at = 8 + length
    while len(tracks) < count:
        if at + 8 > len(data):
            raise InputError(f"{source}: truncated MIDI ({len(tracks)} of {count} tracks); copy or download it again")
        name, size = struct.unpack(">4sI", data[at : at + 8])
        at, end = at + 8, at + 8 + size
        if name == b"MTrk":
            if end > len(data):
                raise InputError(f"{source}: truncated MIDI (track {len(tracks)} is cut); copy or download it again")
            tracks.append(data[at : _events_end(data, at, end, source)])
        at = end
    return division, tracks


def _events_end(data: bytes, at: int, end: int, source: str) -> int:
    """Where a track's last event before its end-of-track ends; every event up to there is well formed."""
    channel_events = None
    while at < end:
        begin, at = at, _end(_CHANNEL_EVENTS, data, at, end)
        if at > begin:
            channel_events = begin, at
        if at == end:
            break
        system = _SYSTEM_EVENT.match(data, at, end)
        if system:
            size = 0
            for byte in system[2]:
                size = size << 7 | byte & 0x7F
            if system[1] == _END_OF_TRACK:
                return at
            if system.end() + size > end or _META_LENGTHS.get(system[1], size) != size:
                raise InputError(f"{source}: corrupt MIDI (bad length at byte {at}); export it again")
            at = system.end() + size
        else:
            begin = at
            if channel_events:  # running status goes on after a meta event, as many programs have it
                *_, last = _STATUS.finditer(data, *channel_events)
                at = _end(_RUNNING_TWO if last[1] else _RUNNING_ONE, data, at, end)
            if at == begin:
                raise InputError(f"{source}: corrupt MIDI (no valid event at byte {at}); export it again")
    return at


def _end(pattern: re.Pattern[bytes], data: bytes, at: int, end: int) -> int:
    match = pattern.match(data, at, end)
    return match.end() if match else at
