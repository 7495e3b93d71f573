"""Archives of music files, unpacked once into the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from zoo.errors import InputError
from zoo.weights.cache import cache_folder

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_MAX_BYTES = 4 << 30
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError)
_LOCKED = RuntimeError  # a password, or a compression that zipfile does not know


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive which `unpack` takes."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, wanted: frozenset[str]) -> Path:
    """The folder in the cache with the archive's members that have a `wanted` suffix, unpacked now if need be.

    The folder appears only when it is whole. Links and special files are left out.

    Raises:
      InputError: the archive is broken, has a member that would land outside the folder, or unpacks to more than 4 GiB;
        or the cache can't be written.
    """
    try:
        stat = archive.stat()
        facts = [archive.name, stat.st_size, stat.st_mtime_ns, sorted(wanted)]
        folder = cache_folder() / "unpacked" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-", ignore_cleanup_errors=True) as name:
            _unpack_into(Path(name) / "members", archive, wanted)
            try:
                (Path(name) / "members").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
        return folder
    except (*_BROKEN, _LOCKED) as error:
        raise InputError(f"{archive}: a broken archive ({error}); download it again") from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{archive}: can't be unpacked to {cache_folder()} ({reason}); set ZOO_CACHE elsewhere"
        ) from None


def _unpack_into(folder: Path, archive: Path, wanted: frozenset[str]) -> None:
    folder.mkdir()
    total = 0
    for name, size, file in _members(archive):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise InputError(f"{archive}: its member {name!r} would be written outside; don't trust this archive")
        if path.suffix.lower() not in wanted:
            continue
        total += size
        if total > _MAX_BYTES:
            raise InputError(f"{archive}: unpacks to more than {_MAX_BYTES >> 30} GiB; unpack what you need yourself")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with file, target.open("xb") as out:
            shutil.copyfileobj(file, out)


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of each regular file."""
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.file_size, opened.open(entry)
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isreg() and (file := tar.extractfile(member)):
                    yield member.name, member.size, file
