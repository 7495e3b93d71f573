"""Files of notes ⇄ `Score`: MIDI, MusicXML and MXL, **kern, ABC, NoteSequences; what a file is, its content decides.

read(path) → Score                 one piece; also takes a NoteSequence
read_pieces(path) → scores, errors every piece: an ABC tunebook holds many
write_midi(score, path)
to_note_sequence, from_note_sequence
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.errors import InputError
from zoo.music.abc import read_abc
from zoo.music.kern import read_kern
from zoo.music.midi import midi_bytes, read_midi
from zoo.music.musicxml import read_musicxml, read_mxl
from zoo.music.note_sequence import NoteSequence, from_note_sequence, note_sequence_class, to_note_sequence
from zoo.music.score import Score
from zoo.weights.cache import write_atomically

__all__ = ["SUFFIXES", "from_note_sequence", "read", "read_pieces", "to_note_sequence", "write_midi"]

SUFFIXES = frozenset(
    [
        ".mid",
        ".midi",
        ".kar",
        ".rmi",
        ".xml",
        ".musicxml",
        ".mxl",
        ".krn",
        ".abc",
        ".pb",
        ".notesequence",
        ".pbtxt",
        ".textproto",
    ]
)  # by which files are found in a folder
FILES = "notes in it; MIDI, MusicXML, MXL, ABC, **kern and NoteSequences are"  # for messages
_MAX_BYTES = 64 << 20

_FOREIGN = {  # how files that hold no notes begin
    b"RIFF": "WAV audio",
    b"OggS": "Ogg audio",
    b"fLaC": "FLAC audio",
    b"ID3": "MP3 audio",
    b"\xff\xfb": "MP3 audio",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "a gzip archive (unpack it first)",
    b"version https://git-lfs": "a Git LFS pointer (run git lfs pull)",
    b"<!doctype html": "an HTML page (download the file itself)",
    b"<html": "an HTML page (download the file itself)",
}


def is_notes(source: Any) -> bool:
    """Whether a source is notes and not sound: of a file its name's ending decides; samples come with their rate."""
    if isinstance(source, str | os.PathLike):
        return Path(source).suffix.lower() in SUFFIXES
    return not isinstance(source, tuple)


def read(source: str | os.PathLike[str] | NoteSequence) -> Score:
    """One piece from a file or a NoteSequence.

    Raises:
      InputError: the file can't be read, is in no known format, is damaged, or holds more than one piece.
    """
    if isinstance(source, Score):
        return source
    if hasattr(source, "SerializeToString"):
        return from_note_sequence(source)
    scores, errors = read_pieces(source)
    if len(scores) + len(errors) > 1:
        raise InputError(f"{source}: holds {len(scores) + len(errors)} tunes; pass a file with one")
    if errors:
        raise errors[0]
    return scores[0]


def read_pieces(path: str | os.PathLike[str]) -> tuple[list[Score], list[InputError]]:
    """Every piece of a file that can be read, and why others of the same file can't be.

    Raises:
      InputError: the file as a whole can't be read; as for `read`.
    """
    data = _bytes(Path(path))
    parse = _parser(data, Path(path))
    try:
        found = parse(data, str(path))
    except RecursionError:
        raise InputError(f"{path}: nested too deeply for a score; export it again") from None
    return found if isinstance(found, tuple) else ([found], [])


def write_midi(piece: Score | NoteSequence, path: str | os.PathLike[str]) -> None:
    """Writes a Standard MIDI File: it is there whole or not at all."""
    write_atomically(Path(path), [midi_bytes(read(piece))])


def _bytes(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path}: a folder; pass a file")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a regular file; pass a file")
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; is it a file of notes?")
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{path}: can't be read ({reason}); check the path and its permissions") from None
    if not data:
        raise InputError(f"{path}: empty; copy or download it again")
    return data


def _parser(data: bytes, path: Path) -> Callable[[bytes, str], Any]:
    """What reads these bytes: by content and, for binary NoteSequences, which bear no mark, by suffix."""
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"MThd"):
        return read_midi
    if data.startswith(b"RIFF") and data[8:12] == b"RMID":
        return lambda data, source: read_midi(data[20:], source)
    if data.startswith(b"PK\x03\x04"):
        return read_mxl
    for mark, name in _FOREIGN.items():
        if start[:32].lower().startswith(mark.lower()):
            raise InputError(f"{path}: not notes but {name}; pass MIDI, MusicXML, MXL, **kern, ABC or a NoteSequence")
    if start.startswith(b"<") or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return read_musicxml
    if path.suffix in (".pb", ".notesequence"):
        return _read_binary
    if path.suffix in (".pbtxt", ".textproto"):
        return _read_text
    if re.search(rb"^\*\*\w", data, re.MULTILINE):
        return lambda data, source: read_kern(_text(data), source)
    if re.search(rb"^X:\s*\d", data, re.MULTILINE):
        return lambda data, source: read_abc(_text(data), source)
    expected = {".mid": "MIDI", ".midi": "MIDI", ".mxl": "MXL", ".abc": "ABC", ".krn": "**kern"}.get(path.suffix, "")
    wrong = f"not {expected}, nor any other" if expected else "in no"
    raise InputError(f"{path}: {wrong} known format (MIDI, MusicXML, MXL, **kern, ABC, NoteSequence)")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _read_binary(data: bytes, source: str) -> Score:
    from google.protobuf.message import DecodeError

    try:
        return from_note_sequence(note_sequence_class().FromString(data), source)
    except DecodeError:
        raise InputError(f"{source}: not a serialised NoteSequence, or damaged; write it again") from None


def _read_text(data: bytes, source: str) -> Score:
    from google.protobuf import text_format

    try:
        return from_note_sequence(text_format.Parse(_text(data), note_sequence_class()()), source)
    except text_format.ParseError as error:
        raise InputError(f"{source}: not a NoteSequence in text form ({error}); write it again") from None
