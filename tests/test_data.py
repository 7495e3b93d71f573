"""Folders of music → windows per split, and batches that any step can be resumed from."""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tests import shared
from zoo.data import archives, batches, files, load_corpus, pop909
from zoo.errors import InputError
from zoo.music.codecs import get_codec
from zoo.music.io import write_midi
from zoo.music.midi import midi_bytes
from zoo.music.score import Score


def tune(key: int, bars: int = 4, meter: tuple[int, int] = (4, 4)) -> Score:
    """A line of eighths in bars of four quarters, its intervals drawn by `key`."""
    start = np.arange(8 * bars) / 2
    pitch = 60 + np.random.default_rng(key).integers(0, 12, len(start))
    return Score.of(start, start + 0.5, pitch, meters=np.array([[0.0, *meter]]))


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty tunes in two folders, and what can't be used."""
    for i in range(30):
        write_midi(tune(i), tmp_path / ("a" if i % 2 else "b/deep") / f"{i}.mid")
    (tmp_path / "broken.mid").write_bytes(b"MThd\x00")
    (tmp_path / "page.xml").write_text("<html></html>")
    write_midi(tune(99, meter=(3, 4)), tmp_path / "waltz.mid")
    (tmp_path / "notes.txt").write_text("not a file of notes")
    (tmp_path / ".hidden.mid").write_bytes(b"")
    return tmp_path


@dataclass(frozen=True)
class Counting:
    """A codec that counts how often it is used."""

    name: str = "melody"
    calls: list[str] = field(default_factory=list, repr=False)

    def windows(self, score: Score, hop_bars: int = 1) -> np.ndarray:
        self.calls.append(score.source)
        return get_codec("melody").windows(score, hop_bars)


def of_split(corpus: object, split: str) -> set[str]:
    return {corpus.names[i] for i in np.unique(corpus.pieces[split])}  # type: ignore[attr-defined]


def test_corpus(folder: Path) -> None:
    corpus = load_corpus(folder, get_codec("melody"))
    counts = [len(corpus.train), len(corpus.valid), len(corpus.test)]
    assert sum(counts) == 30 * 3
    assert min(counts) > 0
    assert counts[0] > 45
    split = [of_split(corpus, name) for name in ("train", "valid", "test")]
    assert sum(map(len, split)) == len(set.union(*split)) == 30, "all windows of a piece are in one split"
    i = 7
    piece = corpus.names[corpus.pieces["train"][i]]
    expected = get_codec("melody").windows(tune(int(Path(piece).stem)))
    assert (corpus.train[i] == expected).all(axis=1).any()
    reasons = dict(corpus.skipped)
    assert set(reasons) == {"broken.mid", "page.xml", "waltz.mid"}
    assert "truncated MIDI" in reasons["broken.mid"]
    assert "in 3/4" in reasons["waltz.mid"]
    assert "3 skipped" in str(corpus)


def test_first_pass_is_cached(folder: Path) -> None:
    codec = Counting()
    first = load_corpus(folder, codec)
    assert len(codec.calls) == 30
    again = load_corpus(folder, codec)
    assert len(codec.calls) == 30
    for name in ("train", "valid", "test"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        np.testing.assert_array_equal(first.pieces[name], again.pieces[name])
    assert (first.names, first.skipped) == (again.names, again.skipped)

    os.utime(folder / "a" / "1.mid", (0, 0))
    load_corpus(folder, codec)
    assert len(codec.calls) == 60, "a changed file is read again, with all others"
    load_corpus(folder, codec, hop_bars=2)
    load_corpus(folder, replace(codec, name="other"))
    assert len(codec.calls) == 120, "so it is with other options or another codec"

    for cached in (Path(os.environ["ZOO_CACHE"]) / "corpora").iterdir():
        cached.write_bytes(cached.read_bytes()[:1000])
    load_corpus(folder, codec)
    assert len(codec.calls) == 150, "a damaged cache is made anew"


def test_cache_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(folder / "notes.txt"))  # a file where a folder is needed
    assert len(load_corpus(folder, get_codec("melody")).train)


def test_unforeseen_error_is_a_reason(folder: Path) -> None:
    class Fragile(Counting):
        def windows(self, score: Score, hop_bars: int = 1) -> np.ndarray:
            if score.source.endswith("7.mid"):
                raise ZeroDivisionError("a bug")
            return super().windows(score, hop_bars)

    corpus = load_corpus(folder, Fragile())
    assert dict(corpus.skipped)["a/17.mid"] == "ZeroDivisionError: a bug"
    assert len(corpus.names) == 27


def test_duplicates_and_overlap(tmp_path: Path) -> None:
    table = {"a.mid": "train", "b.mid": "train", "c.mid": "valid", "d.mid": "test"}
    for name, key in {"a.mid": 1, "b.mid": 1, "c.mid": 1, "d.mid": 2}.items():
        write_midi(tune(key), tmp_path / name)
    (tmp_path / "splits.json").write_text(json.dumps(table))
    corpus = load_corpus(tmp_path, get_codec("melody"))
    assert (len(corpus.train), corpus.duplicates) == (3, 3)
    assert of_split(corpus, "train") == {"a.mid"}
    assert corpus.overlap == {"valid": 3, "test": 0}
    assert len(corpus.valid) == 3, "overlap is reported, not removed"
    assert len(load_corpus(tmp_path, get_codec("melody"), dedupe=False).train) == 6


def test_splits_files(tmp_path: Path) -> None:
    names = ["songs/001/001.mid", "songs/002/002.mid", "songs/melody/x.mid", "songs/y.mid", "drums/d1/e.mid", "z.mid"]
    for name in names:
        write_midi(tune(1), tmp_path / name)
    (tmp_path / "songs" / "splits.json").write_text(
        json.dumps({"001": "test", "002/002": "valid", "x.mid": "test", "y": "validation", "README.txt": "train"})
    )
    (tmp_path / "drums" / "info.csv").write_text("drummer,midi_filename,split\nd1,d1/e.mid,validation\n")
    (tmp_path / "splits.json").write_text(json.dumps({"songs": "train", "z.mid": "train"}))
    assert files.splits(files.find(tmp_path)) == {
        "songs/001/001.mid": "test",
        "songs/002/002.mid": "valid",
        "songs/melody/x.mid": "test",
        "songs/y.mid": "valid",
        "drums/d1/e.mid": "valid",
        "z.mid": "train",
    }


def test_split_by_hash_is_stable_and_about_80_10_10(tmp_path: Path) -> None:
    found = [files.File(f"{i}.mid", tmp_path / f"{i}.mid", tmp_path) for i in range(2000)]
    split = files.splits(found)
    share = {name: sum(value == name for value in split.values()) / 2000 for name in ("train", "valid", "test")}
    assert share == pytest.approx({"train": 0.8, "valid": 0.1, "test": 0.1}, abs=0.03)
    assert files.splits(found[:100]) == dict(list(split.items())[:100])


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "trian"}', '{"a": 1}'])
def test_splits_file_that_cannot_be_understood(tmp_path: Path, text: str) -> None:
    write_midi(tune(1), tmp_path / "a.mid")
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(InputError, match="splits can't be read"):
        load_corpus(tmp_path, get_codec("melody"))


def test_one_file_alone_is_trained_on(tmp_path: Path) -> None:
    name = next(f"{i}.mid" for i in itertools.count() if files.by_hash(f"{i}.mid") == "test")
    write_midi(tune(1), tmp_path / name)
    assert len(load_corpus(tmp_path, get_codec("melody")).train) == 3


def test_patterns(folder: Path) -> None:
    names = [file.name for file in files.find(folder, ["*", "!b/*", "!*.xml", "!waltz*"])]
    assert names == sorted(["broken.mid", *(f"a/{i}.mid" for i in range(1, 30, 2))])


def test_metres(tmp_path: Path) -> None:
    for numerator, denominator in ((4, 4), (2, 4), (2, 2), (4, 2), (3, 4)):
        write_midi(tune(1, meter=(numerator, denominator)), tmp_path / f"{numerator}-{denominator}.mid")
    corpus = load_corpus(tmp_path, get_codec("melody"), dedupe=False)
    assert set(corpus.names) == {"4-4.mid", "2-4.mid", "2-2.mid", "4-2.mid"}
    corpus = load_corpus(tmp_path, get_codec("melody"), meters=("4/4",))
    assert corpus.names == ("4-4.mid",)
    assert "in 2/4, and only 4/4 are taken" in dict(corpus.skipped)["2-4.mid"]


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files of notes in it"):
        load_corpus(tmp_path, get_codec("melody"))
    for i in range(3):
        (tmp_path / f"{i}.mid").write_bytes(b"")
    with pytest.raises(InputError, match=r"no usable files in .*: 3 skipped, first: .*0.mid: empty"):
        load_corpus(tmp_path, get_codec("melody"))
    with pytest.raises(InputError, match="no such folder"):
        load_corpus(tmp_path / "nowhere", get_codec("melody"))
    with pytest.raises(InputError, match="not a folder"):
        load_corpus(tmp_path / "0.mid", get_codec("melody"))


def test_tune_book(tmp_path: Path) -> None:
    book = "\n".join(f"X:{i}\nM:4/4\nL:1/8\nK:C\nCDEF GABc|c8|CDEF GABc|c{i}z{8 - i}|\n" for i in (1, 2)) + "X:3\nK:C\n"
    (tmp_path / "book.abc").write_text(book)
    corpus = load_corpus(tmp_path, get_codec("melody"), dedupe=False)
    assert corpus.names == ("book.abc#1", "book.abc#2")
    ((name, reason),) = corpus.skipped
    assert name == "book.abc"
    assert "tune 3: no notes" in reason


def packed(members: dict[str, bytes], path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_archives(tmp_path: Path, suffix: str) -> None:
    members = {f"s/{i}.mid": midi_bytes(tune(i)) for i in range(5)}
    members |= {"splits.json": json.dumps({f"s/{i}.mid": "train" if i else "test" for i in range(5)}).encode()}
    archive = packed({**members, "s/huge.wav": bytes(1000)}, tmp_path / f"set{suffix}")
    inside = load_corpus(tmp_path, get_codec("melody"))
    assert of_split(inside, "test") == {f"set{suffix}/s/0.mid"}
    assert of_split(inside, "train") == {f"set{suffix}/s/{i}.mid" for i in range(1, 5)}
    alone = load_corpus(archive, get_codec("melody"))
    np.testing.assert_array_equal(inside.train, alone.train)
    assert of_split(alone, "test") == {"s/0.mid"}
    unpacked = Path(os.environ["ZOO_CACHE"]) / "unpacked"
    assert not list(unpacked.rglob("*.wav"))
    assert len(list(unpacked.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize("name", ["../evil.mid", "/evil.mid", "a/../../evil.mid", "..\\evil.mid"])
def test_archive_that_would_escape(tmp_path: Path, suffix: str, name: str) -> None:
    archive = packed({"good.mid": midi_bytes(tune(1)), name: b"x"}, tmp_path / f"set{suffix}")
    with pytest.raises(InputError, match="would be written outside"):
        load_corpus(archive, get_codec("melody"))
    assert not list(tmp_path.rglob("evil.mid"))
    assert not list(Path(os.environ["ZOO_CACHE"]).rglob("*.mid"))


def test_archive_with_links(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for kind, name in (
            (tarfile.SYMTYPE, "link.mid"),
            (tarfile.LNKTYPE, "hard.mid"),
            (tarfile.FIFOTYPE, "pipe.mid"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    with pytest.raises(InputError, match="no files of notes"):
        load_corpus(tmp_path, get_codec("melody"))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.tar"])
@pytest.mark.parametrize("cut", [0, 40, 200])
def test_broken_archive(tmp_path: Path, name: str, cut: int) -> None:
    whole = packed({"a.mid": midi_bytes(tune(1))}, tmp_path / f"whole{'.zip' if name == 'a.zip' else '.tar.gz'}")
    data = whole.read_bytes()[:cut]
    whole.unlink()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=r"broken archive|no files of notes"):
        load_corpus(tmp_path, get_codec("melody"))


def test_archive_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MAX_BYTES", 1000)
    archive = packed({f"{i}.mid": bytes(300) for i in range(5)}, tmp_path / "set.zip")
    with pytest.raises(InputError, match="unpacks to more than"):
        load_corpus(archive, get_codec("melody"))


WINDOWS = np.arange(10 * 3).reshape(10, 3)


def first_batches(count: int, **options: object) -> np.ndarray:
    stream = batches(WINDOWS, **{"batch_size": 4, "seed": 5} | options)  # type: ignore[arg-type]
    return np.stack([batch["x"] for batch in itertools.islice(stream, count)])


def test_batches_walk_through_permutations() -> None:
    rows = first_batches(10)[..., 0].reshape(4, 10) // 3  # ten batches of four are four epochs of ten
    assert all(sorted(epoch) == list(range(10)) for epoch in rows.tolist())
    assert len({tuple(epoch) for epoch in rows.tolist()}) == 4


def test_batch_is_a_function_of_seed_and_step() -> None:
    def noisy(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return batch + rng.integers(0, 1000, batch.shape)

    whole = first_batches(12, augment=noisy)
    for start in (1, 5, 11):
        np.testing.assert_array_equal(first_batches(12 - start, augment=noisy, start_step=start), whole[start:])
    assert (first_batches(12, augment=noisy, seed=6) != whole).any(axis=(1, 2)).all()
    far = next(batches(WINDOWS, 4, 5, start_step=10**9))["x"]
    assert far.shape == (4, 3)


def test_batch_larger_than_the_corpus() -> None:
    rows = first_batches(1, batch_size=25)[0, :, 0] // 3
    assert np.bincount(rows, minlength=10).tolist().count(0) == 0
    assert np.bincount(rows).max() <= 3


def test_batches_dtype_and_shape() -> None:
    trio = np.zeros((5, 32, 3), np.int32)
    batch = next(batches(trio, 2))["x"]
    assert (batch.shape, batch.dtype) == ((2, 32, 3), np.int32)


def test_batches_end_their_thread_and_pass_on_errors() -> None:
    before = threading.active_count()
    stream = batches(WINDOWS, 4)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    forgotten = batches(WINDOWS, 4)
    next(forgotten)
    del forgotten
    assert threading.active_count() == before

    def fail(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise ValueError("augmentation failed")

    with pytest.raises(ValueError, match="augmentation failed"):
        next(batches(WINDOWS, 4, augment=fail))
    assert threading.active_count() == before


def test_batches_of_nothing() -> None:
    with pytest.raises(InputError, match="no windows"):
        batches(WINDOWS[:0], 4)
    with pytest.raises(InputError, match="batch_size=0"):
        batches(WINDOWS, 0)


def test_pop909_bars() -> None:
    votes = np.zeros(60)
    votes[2:30:4] = 3
    votes[32::4] = 3  # a bar of six beats, then the next phase
    votes[7] = votes[40] = 2  # errors of the annotators
    downbeats = pop909._bars(votes, 4)
    assert set(np.diff(downbeats)) <= {2, 4, 6}
    assert downbeats[:7].tolist() == [2, 6, 10, 14, 18, 22, 26]
    assert downbeats[-6:].tolist() == [36, 40, 44, 48, 52, 56]


def test_pop909_song(tmp_path: Path) -> None:
    """Notes a third of a beat off the ticks' grid, at a tempo that is not the file's, with a pickup of one beat."""
    beats = 0.37 + 0.6 * np.arange(33)
    onset = np.arange(1, 32)
    score = Score.of(beats[onset] * 2, beats[onset] * 2 + 0.5, 60 + onset % 5, track_names=("MELODY",))  # at 120
    song = tmp_path / "001" / "001.mid"
    write_midi(score, song)
    down = (np.arange(33) % 4 == 2).astype(float)
    np.savetxt(song.parent / "beat_midi.txt", np.stack([beats, down, down], axis=1))
    np.savetxt(song.parent / "beat_audio.txt", np.stack([beats + 0.05, (np.arange(33) - 2) % 4 + 1], axis=1))
    chords = "".join(f"{beat}\t{beat + 2.4}\tC:maj\n" for beat in beats[2::4])
    (song.parent / "chord_midi.txt").write_text(chords)
    (song.parent / "chord_audio.txt").write_text(chords)
    assert pop909.is_song(song)
    read = pop909.read_song(song)
    np.testing.assert_allclose(read.start, onset + 2, atol=0.01)  # beat 2 lies on the bar line at 4
    assert read.meters.tolist() == [[0, 4, 4]]
    np.testing.assert_allclose(np.diff(read.seconds_at(read.start)), 0.6, atol=0.01)
    corpus = load_corpus(tmp_path, get_codec("melody"), dedupe=False)
    assert (corpus.train[0][[4 * 3, 4 * 4]] > 1).all()

    (song.parent / "beat_audio.txt").write_text("no numbers")
    with pytest.raises(InputError, match="POP909's beats or chords can't be read"):
        pop909.read_song(song)


@pytest.mark.shared
def test_shared_archives_by_their_splits() -> None:
    archive = shared.path("data/nottingham.tar.gz")
    corpus = load_corpus(archive, get_codec("melody"), patterns=["melody/*"])
    assert 500 < len(corpus.names) < 700
    assert len(corpus.train) > 7000
    with tarfile.open(archive) as tar:
        table = json.load(tar.extractfile("splits.json"))  # type: ignore[arg-type]
    for split in ("train", "valid", "test"):
        assert {table[Path(name).name] for name in of_split(corpus, split)} == {split}
