"""Where bytes come from: cut lines, wrong bytes, mirrors, no network, packages, full and read-only folders, races."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import http.server
import logging
import multiprocessing
import os
import re
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.test_cards import card_file
from zoo.errors import WeightsError
from zoo.weights import cache, sources
from zoo.weights.cards import Card, Source, load_card

BYTES = np.random.default_rng(0).bytes(3_000_000)
SHA = hashlib.sha256(BYTES).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `BYTES` at any address on 127.0.0.1 and misbehaves as told."""

    daemon_threads = True
    body = BYTES
    cut_after: tuple[int, ...] = ()  # bytes sent by the first, second … answer before the line is cut
    statuses: tuple[int, ...] = ()  # statuses of the first, second … answer instead of the file
    ranges = True  # whether it understands Range

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str | None] = []  # the Range header of every request
        self.url = f"http://127.0.0.1:{self.server_port}/w.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, turn = self.server, len(self.server.seen)
        wanted = self.headers.get("Range")
        server.seen.append(wanted)
        if turn < len(server.statuses):
            return self.send_error(server.statuses[turn])
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
        if start >= len(server.body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        rest = server.body[start:]
        self.wfile.write(rest[: server.cut_after[turn]] if turn < len(server.cut_after) else rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZOO_MIRROR", "ZOO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(sources, "DELAY", 0.001)
    monkeypatch.setattr(sources, "TIMEOUT", 5.0)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return load_card(card_file(tmp_path / "cards"))


def source_of(url: str, sha256: str = SHA, size: int | None = len(BYTES)) -> Source:
    return Source("url", url=url, sha256=sha256, bytes=size)


def error_of(card: Card, source: Source) -> str:
    with pytest.raises(WeightsError) as caught:
        sources.resolve(card, source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_download_is_verified_and_cached(card: Card, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    path = sources.resolve(card, source_of(server.url))
    assert path.read_bytes() == BYTES
    assert sources.resolve(card, source_of(server.url)) == path
    assert server.seen == [None]
    assert capfd.readouterr() == ("", "")  # no progress bar where there is no terminal


def test_a_cut_line_is_resumed(card: Card, server: Server) -> None:
    server.cut_after = (1000, 500_000, 0)
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES
    assert server.seen == [None, "bytes=1000-", "bytes=501000-", "bytes=501000-"]


def test_a_cut_line_without_ranges_begins_again(card: Card, server: Server) -> None:
    server.cut_after, server.ranges = (1000,), False
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES


def test_a_cut_line_is_noticed_without_a_known_size(card: Card, server: Server) -> None:
    server.cut_after = (1000,)
    assert sources.resolve(card, source_of(server.url, size=None)).read_bytes() == BYTES


def test_passing_faults_are_retried(card: Card, server: Server) -> None:
    server.statuses = (503, 429, 500)
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES


def test_it_gives_up_and_a_later_try_goes_on(card: Card, server: Server) -> None:
    server.cut_after = (1000, *[0] * 9)
    message = error_of(card, source_of(server.url))
    assert server.url in message
    assert "cut at 1000 bytes, 5 times in a row; what came is kept: try again" in message
    assert len(server.seen) == 5
    server.cut_after = ()
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES
    assert server.seen[-1] == "bytes=1000-"


def test_a_missing_address_is_not_retried(card: Card, server: Server) -> None:
    server.statuses = (404,) * 9
    assert "answers 404 Not Found; check the address" in error_of(card, source_of(server.url))
    assert len(server.seen) == 1


def test_nobody_listens(card: Card, server: Server) -> None:
    server.server_close()
    assert "refused" in error_of(card, source_of(server.url))


def test_other_bytes_are_refused(card: Card, server: Server) -> None:
    server.body = b"x" + BYTES[1:]
    assert "does not have the sha256" in error_of(card, source_of(server.url))
    server.body = BYTES + b"more"
    assert f"sends more than the {len(BYTES)} bytes" in error_of(card, source_of(server.url))
    server.body = BYTES
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES


@pytest.mark.parametrize("left", [b"of another file", BYTES[:-1] + b"!", BYTES + b"too long"])
def test_a_foreign_beginning_is_thrown_away(card: Card, server: Server, left: bytes) -> None:
    part = cache.cache_folder() / "partial" / SHA
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES


def test_a_corrupted_cache_is_mended(card: Card, server: Server) -> None:
    path = sources.resolve(card, source_of(server.url))
    path.write_bytes(BYTES[:-1])
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES
    path.write_bytes(BYTES[:-1] + b"!")
    assert sources.resolve(card, source_of(server.url)).read_bytes() == BYTES
    assert len(server.seen) == 3


def test_offline_never_leaves_the_machine(card: Card, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_MIRROR", server.url)
    message = error_of(card, source_of(server.url))
    assert "w.bin (3.0 MB) is not on this machine" in message
    assert f"get it from {server.url} and set ZOO_MIRROR" in message
    assert server.seen == []
    monkeypatch.delenv("ZOO_OFFLINE")
    monkeypatch.delenv("ZOO_MIRROR")
    sources.resolve(card, source_of(server.url))
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    path = sources.resolve(card, source_of(server.url))
    path.write_bytes(b"short")
    assert "has 5 bytes instead of 3000000" in error_of(card, source_of(server.url))


@pytest.mark.parametrize("mirror", ["", "magenta/mel/w.bin"])
def test_a_mirror_folder(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    place = tmp_path / "mirror" / (mirror or "w.bin")
    place.parent.mkdir(parents=True)
    place.write_bytes(BYTES)
    monkeypatch.setenv("ZOO_MIRROR", os.pathsep.join([str(tmp_path / "nothing"), str(tmp_path / "mirror")]))
    source = dataclasses.replace(source_of("http://127.0.0.1:9/w.bin"), mirror=mirror)
    assert sources.resolve(card, source) == place
    place.write_bytes(BYTES[:-1] + b"!")
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert f"the mirror's {place} does not have the sha256" in error_of(card, source)


def test_a_mirror_address(card: Card, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_MIRROR", server.url.removesuffix("/w.bin"))
    assert sources.resolve(card, source_of("http://127.0.0.1:9/w.bin")).read_bytes() == BYTES


@pytest.mark.parametrize("sha256", [SHA, ""])
def test_a_broken_mirror_is_passed_over(
    card: Card, server: Server, monkeypatch: pytest.MonkeyPatch, sha256: str
) -> None:
    monkeypatch.setenv("ZOO_MIRROR", server.url.replace("/w.bin", "/mirror"))
    server.cut_after = (1000, *[0] * (sources.ATTEMPTS - 1))
    assert sources.resolve(card, source_of(server.url, sha256)).read_bytes() == BYTES
    assert server.seen[-1] == ("bytes=1000-" if sha256 else None)


def test_without_sha256_the_first_download_counts(card: Card, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    source = source_of(server.url, sha256="", size=None)
    with caplog.at_level(logging.WARNING):
        path = sources.resolve(card, source)
    assert f"unverified; got {SHA}" in caplog.text
    assert path == sources.resolve(card, source) == cache.blob(SHA)
    assert server.seen == [None]


def test_bundled_files(card: Card) -> None:
    path = card.folder / "weights.safetensors"
    source = dataclasses.replace(card.sources[0], sha256=SHA, bytes=len(BYTES))
    assert "is missing" in error_of(card, source)
    for bad, problem in ((BYTES[:-9], "bytes instead of"), (BYTES[:-1] + b"!", "does not have the sha256")):
        path.write_bytes(bad)
        message = error_of(card, source)
        assert problem in message
        assert "reinstall music-zoo" in message
    path.write_bytes(BYTES)
    assert sources.resolve(card, source) == path


def test_a_card_without_weights(card: Card) -> None:
    with pytest.raises(WeightsError, match=r"train it with: zoo train music-vae/tiny"):
        sources.resolve_all(dataclasses.replace(card, sources=()))


# ---- folders that can't be written ----


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "can't be written"), (errno.EACCES, "can't be written")],
)
@pytest.mark.parametrize("call", ["mkdir", "open", "replace"])
def test_a_cache_that_refuses(
    card: Card, server: Server, monkeypatch: pytest.MonkeyPatch, number: int, message: str, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os if call == "replace" else Path, call, refuse)
    text = error_of(card, source_of(server.url))
    assert message in text
    assert "set ZOO_CACHE to another folder" in text


def test_a_cache_below_a_file(card: Card, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert "set ZOO_CACHE to another folder" in error_of(card, source_of(server.url))


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache on a disk of 1 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.name == "nt" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    monkeypatch.setenv("ZOO_CACHE", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(card: Card, server: Server, small_disk: Path) -> None:
    assert "the disk is full; free some space or set ZOO_CACHE" in error_of(card, source_of(server.url))
    with pytest.raises(WeightsError, match="the disk is full"):
        cache.write_atomically(small_disk / "x", [BYTES])
    assert not list(small_disk.glob("*x*"))


def test_a_read_only_disk_serves_what_it_has(card: Card, server: Server, small_disk: Path) -> None:
    server.body = BYTES[:1000]
    small = source_of(server.url, hashlib.sha256(server.body).hexdigest(), 1000)
    path = sources.resolve(card, small)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert sources.resolve(card, small) == path
    assert "can't be written; make it writable or set ZOO_CACHE" in error_of(card, source_of(server.url))


# ---- several processes ----


def resolve_in_process(card: Card, source: Source) -> str:
    return sources.resolve(card, source).as_posix()


def test_two_processes_download_once(card: Card, server: Server) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        jobs = [pool.apply_async(resolve_in_process, (card, source_of(server.url))) for _ in range(4)]
        paths = {job.get(30) for job in jobs}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == BYTES
    assert server.seen == [None]


def hold_lock(ready: object) -> None:
    with cache.lock("x"):
        ready.set()  # type: ignore[attr-defined]
        threading.Event().wait(60)


def test_a_lock_dies_with_its_process() -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold_lock, args=(ready,))
    holder.start()
    assert ready.wait(30)
    got = threading.Event()

    def wait() -> None:
        with cache.lock("x"):
            got.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    assert not got.wait(0.2)
    holder.kill()
    assert got.wait(10)
    holder.join()
    waiter.join()


# ---- members of packages, through pip ----


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the package index, with one wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tinyweights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tinyweights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinyweights/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr("tinyweights/assets/w.bin", BYTES[:5000])
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


MEMBER = Source(
    "pypi",
    package="tinyweights",
    version="1.0",
    member="tinyweights/assets/w.bin",
    sha256=hashlib.sha256(BYTES[:5000]).hexdigest(),
    bytes=5000,
)


@pytest.mark.usefixtures("index")
def test_a_member_of_a_wheel(card: Card) -> None:
    path = sources.resolve(card, MEMBER)
    assert path.read_bytes() == BYTES[:5000]
    os.environ["ZOO_OFFLINE"] = "1"
    try:
        assert sources.resolve(card, MEMBER) == path
    finally:
        del os.environ["ZOO_OFFLINE"]


@pytest.mark.slow
@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2.0"}, "pip could not download it (ERROR: "),
        ({"member": "tinyweights/none.bin"}, "has no member tinyweights/none.bin"),
        ({"bytes": 4000}, "is larger than its card says"),
        ({"bytes": 6000}, "has 5000 bytes instead of 6000"),
        ({"sha256": SHA}, "does not have the sha256"),
    ],
)
def test_a_wrong_member(card: Card, change: dict[str, object], message: str) -> None:
    source = dataclasses.replace(MEMBER, **change)
    assert message in error_of(card, source)
    assert not cache.blob(source.sha256).exists()


@pytest.mark.slow
def test_an_sdist_only_by_its_hash(card: Card, index: Path) -> None:
    (index / "tinyweights-1.0-py3-none-any.whl").unlink()
    archive = index / "tinyweights-1.0.tar.gz"
    folder = index / "tinyweights-1.0"
    (folder / "tinyweights" / "assets").mkdir(parents=True)
    (folder / "tinyweights" / "assets" / "w.bin").write_bytes(BYTES[:5000])
    ran = index / "ran"
    (folder / "setup.py").write_text(f"open({str(ran)!r}, 'w').close()")
    with tarfile.open(archive, "w:gz") as sdist:
        sdist.add(folder, "tinyweights-1.0")
    assert "pip could not download it" in error_of(card, MEMBER)
    pinned = dataclasses.replace(MEMBER, archive_sha256=SHA)
    assert "pip could not download it" in error_of(card, pinned)
    assert not ran.exists()
    chunks = sources._member(archive, MEMBER)
    assert b"".join(chunks) == BYTES[:5000]
