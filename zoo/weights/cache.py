"""A folder of verified files: content-addressed, written atomically, shared by any number of processes.

The folder is `ZOO_CACHE`, or `music-zoo` in the platform's cache folder. `blobs/<sha256>` is a finished file,
`partial/` holds downloads under way and `locks/` one lock file a download. What is in the cache can be used where the
folder is read-only; what must be written there and can't be is an error that says so, rather than a silent download
into a temporary folder at every start. A file that is already on this machine (bundled, in a mirror folder) is used
where it lies and never copied here.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from zoo.errors import WeightsError


def cache_folder() -> Path:
    """The cache's folder, which need not exist yet."""
    if folder := os.environ.get("ZOO_CACHE"):
        return Path(folder).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".cache") / "music-zoo"


def blob(sha256: str) -> Path:
    """Where the cache keeps the file with this digest."""
    return cache_folder() / "blobs" / sha256


def digest(path: Path) -> str:
    """The sha256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mismatch(path: Path, sha256: str, size: int | None) -> str:
    """Why the file isn't the one expected, in words; empty if it is. An empty `sha256` or no `size` goes unchecked."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"has {found} bytes instead of {size}"
    if sha256 and digest(path) != sha256:
        return f"does not have the sha256 {sha256[:12]}… that its card gives"
    return ""


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a temporary file beside `path` that takes its place only when it is whole and on disk."""
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()  # there is one only if something went wrong


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write `path` into a `WeightsError` that says what would help."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = "the disk is full; free some space"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            problem = "the folder can't be written; make it writable"
        elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EEXIST):
            problem = "its folder can't be made; check the path"
        else:
            raise
        mend = " or set ZOO_CACHE to another folder" if path.is_relative_to(cache_folder()) else " or write elsewhere"
        raise WeightsError(f"{path}: {problem}{mend}") from error


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Waits until no other process holds the lock `name`; the system frees it if the process that holds it dies."""
    path = cache_folder() / "locks" / f"{name}.lock"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        _acquire(file)
        yield


def progress(total: int | None, label: str, done: int = 0) -> Any:
    """A tqdm bar that counts bytes; silent where stderr is no terminal, and for the first two seconds."""
    from tqdm import tqdm  # 20 ms, and most loads download nothing

    options = {"unit": "B", "unit_scale": True, "delay": 2, "leave": False, "disable": None}  # None: if no terminal
    return tqdm(total=total, initial=done, desc=label, file=sys.stderr, **options)


if sys.platform == "win32":
    import msvcrt
    import time

    def _acquire(file: IO[bytes]) -> None:
        while True:
            try:
                file.seek(0)
                return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                time.sleep(0.1)

else:
    import fcntl

    def _acquire(file: IO[bytes]) -> None:
        # A network folder may know no locks. Then two processes may spoil each other's partial file, which its sha256
        # reveals and a new start mends.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
