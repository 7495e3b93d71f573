"""The files that weights consist of: a folder, one file with its neighbours, an archive, or a card's sources."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from zoo.errors import WeightsError
from zoo.weights import cache

LIMIT = 8 << 30  # bytes an archive may unpack to
RATIO = 200  # times its own size that it may unpack to; weights hardly shrink, so more is a bomb
MEMBERS = 10_000  # files an archive may have


@dataclass(frozen=True)
class Files:
    """Files by their names relative to a common folder.

    `where` is what the user named, for messages. `chosen` says that a card chose the files, of which a manifest may
    list more; elsewhere a file that a manifest lists and that isn't there is an error.
    """

    where: str
    paths: Mapping[str, Path]
    chosen: bool = False

    def find(self, *patterns: str) -> str | None:
        """The one name that a pattern fits, the first pattern with any; None if there is none."""
        for pattern in patterns:
            names = sorted(name for name in self.paths if fnmatch(PurePosixPath(name).name, pattern))
            if len(names) > 1:
                raise WeightsError(f"{self.where}: holds several models ({', '.join(names[:3])}, …); name one of them")
            if names:
                return names[0]
        return None

    def the(self, *patterns: str) -> str:
        """As `find`, but there has to be one."""
        name = self.find(*patterns)
        if name is None:
            raise WeightsError(f"{self.where}: has no file {' or '.join(patterns)}; name the folder that has it")
        return name

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises `WeightsError` if it isn't one of these."""
        if name not in self.paths:
            raise WeightsError(f"{self.where}: the file {name} is missing; put it beside the others")
        return self.paths[name].read_bytes()

    def beside(self, name: str, other: str) -> str:
        """The name of `other`, as the file `name` calls it. Names that lead elsewhere are never files of ours."""
        return str(PurePosixPath(name).parent / other)


def open_files(path: Path, scratch: Path) -> Files:
    """The files at `path`, which may be the common beginning of their names; archives are unpacked into `scratch`."""
    if path.is_dir():
        return Files(str(path), {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()})
    if path.is_file():
        return unpacked(path, scratch) or Files(str(path), {path.name: path, **_neighbours(path)})
    siblings = {p.name: p for p in sorted(path.parent.glob(f"{path.name}.*")) if p.is_file()}
    if not siblings:
        raise WeightsError(f"{path}: no such file or folder; check the path")
    return Files(str(path), siblings)


def unpacked(path: Path, scratch: Path) -> Files | None:
    """What the archive at `path` holds, unpacked into the empty folder `scratch`; None if it is no archive."""
    if not unpack(path, scratch):
        return None
    return Files(str(path), open_files(scratch, scratch).paths)


def _neighbours(path: Path) -> dict[str, Path]:
    """Files that belong to `path`: the shards of a manifest or of a TensorFlow checkpoint."""
    if path.suffix == ".json":
        return {p.name: p for p in sorted(path.parent.iterdir()) if p.is_file() and p.suffix != ".json"}
    if path.suffix == ".index":
        return {p.name: p for p in sorted(path.parent.glob(f"{path.stem}.data-*")) if p.is_file()}
    return {}


def unpack(path: Path, folder: Path) -> bool:
    """Unpacks a tar (compressed or not) or zip into `folder`; returns False if it is neither.

    Only plain files are written, under names that stay inside `folder`; anything else an archive might hold is an
    error, and so is one that unpacks to more than `LIMIT` or `RATIO` times its size. Raises `WeightsError`.
    """
    with path.open("rb") as file:
        head = file.read(262)
    left = min(LIMIT, RATIO * path.stat().st_size)
    try:
        if head[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                if any(PurePosixPath(name).name == "data.pkl" for name in archive.namelist()):
                    return False  # PyTorch's own use of zip
                _write_members(path, folder, _zip_members(path, archive, left))
            return True
        for start, magic, opener in _TARS:
            if head[start:].startswith(magic):
                with opener(path) as file:
                    limited = _Limited(path, file, left)
                    with tarfile.open(fileobj=limited, mode="r|") as tar:
                        _write_members(path, folder, _tar_members(path, tar))
                    while limited.read(1 << 20):  # to the end, where the compression keeps its checksum
                        pass
                return True
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise WeightsError(f"{path}: not a whole archive ({error}); fetch it again") from error
    except (RuntimeError, NotImplementedError, ValueError) as error:
        raise WeightsError(
            f"{path}: an archive that can't be read ({error}); pack it anew without a password"
        ) from error
    return False


# Where which bytes are in a tar that is compressed so, and what opens it.
_TARS: tuple[tuple[int, bytes, Callable[..., Any]], ...] = (
    (0, b"\x1f\x8b", gzip.open),
    (0, b"BZh", bz2.open),
    (0, b"\xfd7zXZ", lzma.open),
    (257, b"ustar", partial(open, mode="rb")),
)


class _Limited(io.RawIOBase):
    """A file that ends with an error after `left` bytes, whatever the archive in it claims."""

    def __init__(self, path: Path, file: IO[bytes], left: int) -> None:
        self._path, self._file, self._left = path, file, left

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise WeightsError(f"{self._path}: unpacks to far more than weights could; don't trust it")
        return data


def _zip_members(path: Path, archive: zipfile.ZipFile, left: int) -> Iterator[tuple[str, IO[bytes]]]:
    for info in archive.infolist():
        if info.is_dir():
            continue
        if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000):
            raise WeightsError(f"{path}: its member {info.filename!r} is a link or device; don't trust it")
        left -= info.file_size  # the library reads no more of a member than this
        if left < 0:
            raise WeightsError(f"{path}: unpacks to far more than weights could; don't trust it")
        with archive.open(info) as file:
            yield info.filename, file


def _tar_members(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        if member.isdir():
            continue
        file = tar.extractfile(member) if member.isreg() else None
        if file is None:
            raise WeightsError(f"{path}: its member {member.name!r} is a link or device; don't trust it")
        with file:
            yield member.name, file


def _write_members(path: Path, folder: Path, members: Iterator[tuple[str, IO[bytes]]]) -> None:
    seen: set[str] = set()
    for name, file in members:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or "\0" in name:
            raise WeightsError(f"{path}: its member {name!r} would be written outside its folder; don't trust it")
        if str(pure) in seen or len(seen) == MEMBERS:
            raise WeightsError(f"{path}: holds a file twice or more than {MEMBERS} files; don't trust it")
        seen.add(str(pure))
        with cache.writing(folder / pure):
            (folder / pure).parent.mkdir(parents=True, exist_ok=True)
            with (folder / pure).open("xb") as out:
                shutil.copyfileobj(file, out)
