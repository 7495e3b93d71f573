"""`Score` ⇄ NoteSequence, the message that note_seq and Magenta's models exchange."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from zoo.errors import InputError
from zoo.music.score import Score

NoteSequence: TypeAlias = Any  # note_seq.NoteSequence, a protobuf message without static types

_MESSAGES = "note_seq.protobuf.music_pb2"
_VELOCITY = 80  # where a note has none
_LONGEST, _FASTEST = 1e6, 1e5  # seconds and quarter notes a minute; beyond them a message is damaged


def note_sequence_class() -> Any:
    """The class `note_seq.NoteSequence`, without the rest of note_seq.

    `import note_seq` takes seconds: it loads notebook tools (pandas, bokeh). The messages are a module of their own;
    loaded by its file under its full name, it is the very module a later `import note_seq` finds.
    """
    if _MESSAGES not in sys.modules:
        package = importlib.util.find_spec("note_seq")
        if package is None or package.origin is None:
            raise ImportError("note_seq is not installed; pip install note-seq")
        spec = importlib.util.spec_from_file_location(
            _MESSAGES, Path(package.origin).parent / "protobuf" / "music_pb2.py"
        )
        if spec is None or spec.loader is None:
            raise ImportError("note_seq has no music_pb2; pip install --force-reinstall note-seq")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[_MESSAGES] = module
    return sys.modules[_MESSAGES].NoteSequence


def to_note_sequence(score: Score) -> NoteSequence:
    """`score` with its times in seconds through the tempo map; chord symbols become text annotations."""
    message = note_sequence_class()
    sequence = message(ticks_per_quarter=220)
    tempos = score.tempos if len(score.tempos) else np.array([[0.0, 120.0]])
    for time, qpm in zip(score.seconds_at(tempos[:, 0]), tempos[:, 1], strict=True):
        sequence.tempos.add(time=time, qpm=qpm)
    for at, numerator, denominator in score.meters:
        time = float(score.seconds_at(at))
        sequence.time_signatures.add(time=time, numerator=int(numerator), denominator=int(denominator))
    for index, name in enumerate(score.track_names):
        if name:
            sequence.instrument_infos.add(instrument=index, name=name)
    columns: dict[str, Any] = {
        "start_time": score.seconds_at(score.start),
        "end_time": score.seconds_at(score.end),
        "pitch": score.pitch,
        "velocity": score.velocity,
        "instrument": score.track,
        "program": score.program,
        "is_drum": score.is_drum,
    }
    for note in zip(*(column.tolist() for column in columns.values()), strict=True):
        sequence.notes.add(**dict(zip(columns, note, strict=True)))
    parts = {int(track): i for i, track in reversed(list(enumerate(score.track)))}  # the first note of each
    for at, track, bend in score.bends:
        first = parts.get(int(track))
        program, is_drum = (0, False) if first is None else (int(score.program[first]), bool(score.is_drum[first]))
        sequence.pitch_bends.add(
            time=float(score.seconds_at(at)), bend=int(bend), instrument=int(track), program=program, is_drum=is_drum
        )
    for at, symbol in score.chords:
        kind = message.TextAnnotation.CHORD_SYMBOL
        sequence.text_annotations.add(time=float(score.seconds_at(at)), text=symbol, annotation_type=kind)
    sequence.total_time = float(score.seconds_at(score.quarters))
    return sequence


def from_note_sequence(sequence: NoteSequence, source: str = "") -> Score:
    """A NoteSequence with its times in quarter notes; a quantised one without times by its steps.

    Notes that last no time are left out; a velocity of 0 (not set) becomes 80.

    Raises:
      InputError: a pitch, time or tempo no music has.
    """
    source = source or sequence.filename or "the NoteSequence"
    changes = sorted({tempo.time: tempo.qpm for tempo in sequence.tempos}.items())
    if not all(0 < qpm < _FASTEST and 0 <= time < _LONGEST for time, qpm in changes):
        raise InputError(f"{source}: an impossible tempo; it is quarter notes a minute, above 0, at a time in seconds")
    notes = sequence.notes
    rows = np.array([(n.start_time, n.end_time) for n in notes], np.float64).reshape(-1, 2)
    steps_per_quarter = sequence.quantization_info.steps_per_quarter
    if steps_per_quarter > 0 and not rows.any():
        rows = np.array([(n.quantized_start_step, n.quantized_end_step) for n in notes], np.float64).reshape(-1, 2)
        rows *= 60.0 / (steps_per_quarter * (changes[0][1] if changes else 120.0))
    pitch = np.array([n.pitch for n in notes], np.int64)
    velocity = np.array([n.velocity or _VELOCITY for n in notes], np.int64)
    possible = (rows >= 0).all() and (rows < _LONGEST).all() and (pitch >= 0).all() and (pitch < 128).all()
    if not possible:
        raise InputError(f"{source}: a note with an impossible time or pitch; MIDI pitch is 0 to 127, time 0 or later")

    clock = Score.of([], [], [], tempos=_tempos(changes))
    start, end = clock.quarters_at(rows[:, 0]), clock.quarters_at(rows[:, 1])
    tracks = np.array([n.instrument for n in notes], np.int64)
    names = {info.instrument: info.name for info in sequence.instrument_infos if 0 <= info.instrument < 65536}
    meters = {
        s.time: (s.numerator, s.denominator)
        for s in sequence.time_signatures
        if s.numerator > 0 and s.denominator > 0 and 0 <= s.time < _LONGEST
    }
    chord = note_sequence_class().TextAnnotation.CHORD_SYMBOL
    score = Score.of(
        start,
        end,
        pitch,
        np.clip(velocity, 1, 127),
        tracks,
        np.clip([n.program for n in notes], 0, 127),
        [n.is_drum for n in notes],
        tempos=clock.tempos,
        meters=np.array([(clock.quarters_at(at), *value) for at, value in sorted(meters.items())]).reshape(-1, 3),
        bends=np.array(
            [
                (clock.quarters_at(b.time), b.instrument, np.clip(b.bend, -8192, 8191))
                for b in sorted(sequence.pitch_bends, key=lambda b: b.time)
                if 0 <= b.time < _LONGEST
            ]
        ).reshape(-1, 3),
        chords=tuple(
            (float(clock.quarters_at(text.time)), text.text)
            for text in sorted(sequence.text_annotations, key=lambda text: text.time)
            if text.annotation_type == chord
        ),
        track_names=tuple(names.get(i, "") for i in range(max(names, default=-1) + 1)),
        source=source,
    )
    return score.select(score.end > score.start)


def _tempos(changes: list[tuple[float, float]]) -> np.ndarray:
    """The tempo map [M, 2] in quarters from (seconds, qpm), sorted; 120 until the first."""
    rows: list[tuple[float, float]] = []
    at, time, qpm = 0.0, 0.0, 120.0
    for change, new_qpm in changes:
        at += (change - time) * qpm / 60.0
        rows.append((at, new_qpm))
        time, qpm = change, new_qpm
    return np.array(rows).reshape(-1, 2)
