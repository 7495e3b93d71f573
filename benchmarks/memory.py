"""How much memory an hour of sound takes: `python -m benchmarks.memory RECORDINGS`.

The recordings of a folder, one after another and again from the first, make files of ten minutes and of an hour; each
is heard by each operation in a process of its own, whose largest resident memory is told, that of Python, JAX and the
weights included. What a model does in constant memory takes as much for an hour as for ten minutes. Rows go to
`memory.csv` in place of older ones; the numbers of the cards' `limits` are from there.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import table

RATE = 16000  # Hz
TABLE = Path(__file__).with_name("memory.csv")
FIELDS = ("operation", "minutes", "peak_mb", "disk_mb")
OPERATIONS: dict[str, Callable[[Path, Path], Any]] = {
    "pitch, crepe/tiny": lambda path, out: load("crepe/tiny").track(path),
    "pitch, crepe/full, every 100 ms": lambda path, out: load("crepe/full").track(path, hop=0.1),  # 10 ms: half an hour
    "pitch, pesto": lambda path, out: load("pesto").track(path),
    "tag, musicnn/mtt": lambda path, out: load("musicnn/mtt").tag(path),
    "transcribe, basic-pitch": lambda path, out: load("basic-pitch").score(path),
    "chords, chord-crema": lambda path, out: load("chord-crema").chords(path),
    "chords, chord-transformer": lambda path, out: load("chord-transformer").chords(path),
    "analyze": lambda path, out: analyze(path, out),
}


def load(name: str) -> Any:
    """A model of the zoo."""
    import zoo

    return zoo.load(name)


def analyze(path: Path, out: Path) -> None:
    """What `zoo analyze` does, files included."""
    import zoo

    zoo.analyze(path).save(out, "report")


def write_sound(recordings: list[Path], minutes: float, path: Path) -> None:
    """A file of so many minutes, mono at `RATE`; block by block, for this process hands its own peak to others."""
    import soundfile

    from zoo.music import audio

    left = round(minutes * 60 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for block in itertools.chain.from_iterable(
            audio.blocks(source, RATE) for source in itertools.cycle(recordings)
        ):
            file.write(block[:left])
            left -= len(block[:left])
            if not left:
                return


def measure(operation: str, minutes: float, path: Path) -> dict[str, Any]:
    """A row of the table, from a process that does nothing else; its temporary files are looked at while it runs."""
    disk = 0.0
    command = [sys.executable, "-m", "benchmarks.memory", "--serve", operation, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            disk = max(disk, unnamed(process.pid))
            time.sleep(0.5)
        assert process.stdout is not None
        peak = process.stdout.read().split()
    if process.returncode:
        raise SystemExit(f"{operation}: failed; see its message above")
    values = (operation, f"{minutes:g}", f"{float(peak[-1]):.0f}", f"{disk:.0f}")
    return dict(zip(FIELDS, values, strict=True))


def unnamed(process: int) -> float:
    """MB of the files without a name that a process holds open; 0 where the system doesn't tell."""
    total = 0
    for link in Path(f"/proc/{process}/fd").glob("*"):
        try:
            total += link.stat().st_size if "(deleted)" in os.readlink(link) else 0
        except OSError:
            continue
    return total / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("recordings", type=Path, nargs="?", help="a folder of sound")
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 60])
    help_ = f"by default all of: {'; '.join(OPERATIONS)}"
    parser.add_argument("--operation", action="append", choices=OPERATIONS, metavar="NAME", help=help_)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        operation, path = options.serve
        OPERATIONS[operation](Path(path), Path(path).parent)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
        return
    from zoo.music import audio

    recordings = audio.find([options.recordings])
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            path = Path(folder) / f"{minutes:g}.flac"
            write_sound(recordings, minutes, path)
            for operation in options.operation or OPERATIONS:
                row = measure(operation, minutes, path)
                print(row, flush=True)
                table.put([row], TABLE, ("operation", "minutes"), FIELDS)


if __name__ == "__main__":
    main()
