"""`zoo.analyze`, the time line it is shown on, and the verbs of the command line that listen, on a tiny model."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from flax import nnx
from PIL import Image

import zoo
from zoo.cli import main
from zoo.errors import InputError
from zoo.models.chord_crema import ChordCrema, Config
from zoo.music import io
from zoo.music.score import Score
from zoo.show.timeline import NEUTRAL, Curve, Heat, Notes, Spans, draw, pitch_range, pooled
from zoo.show.timeline_page import Recording, timeline_page
from zoo.tasks.analyze import load_models, usual
from zoo.tasks.model import Description, Model, dotted
from zoo.weights.formats import safetensors

RNG = np.random.default_rng(0)
CODEC = {"name": "harmonic-cqt", "sample_rate": 8000, "hop": 1024, "octaves": 1, "bins_per_octave": 12, "lowest": 220.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chord recogniser that has learned nothing."""
    shapes = nnx.state(nnx.eval_shape(lambda: ChordCrema(Config.tiny(), rngs=nnx.Rngs(0))))
    tensors = {
        dotted(path): RNG.normal(0, 0.3, leaf.shape).astype(np.float32) for path, leaf in nnx.to_flat_state(shapes)
    }
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    safetensors.write(path, tensors, {"architecture": "chord-crema", "config": asdict(Config.tiny()), "codec": CODEC})
    return path


@pytest.fixture
def songs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two recordings and something that is none."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "songs"
    (folder / "more").mkdir(parents=True)
    soundfile.write(folder / "a.wav", 0.1 * RNG.standard_normal((16000, 2)), 8000)
    soundfile.write(folder / "more" / "a.flac", 0.1 * RNG.standard_normal(24000), 16000)
    (folder / "b.wav").write_text("no sound")
    return folder


class Tags(HTMLParser):
    """Counts elements and checks that they are closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# --- analyze ---------------------------------------------------------------------------------------------------------


def test_analyze(tiny: Path, songs: Path, tmp_path: Path) -> None:
    found = zoo.analyze(songs / "a.wav", [tiny])
    assert found.seconds == 2.0
    assert list(found.parts) == [str(tiny)]
    assert [type(lane) for lane in found.lanes] == [Spans, Heat]
    written = found.save(tmp_path / "out", "a")
    assert [path.name for path in written] == ["a.json", "a.png", "a.html"]
    table = json.loads(written[0].read_text())
    chords = table["models"][str(tiny)]["chords"]
    assert (table["recording"], table["seconds"], table["left_out"]) == ("a.wav", 2.0, {})
    assert (chords[0]["start"], chords[-1]["end"]) == (0.0, 2.0)
    page = Tags(written[2].read_text())
    assert page.open == []
    assert [tag for tag, _ in page.found].count("audio") == 1


def test_a_model_whose_weights_are_missing_is_left_out(
    tiny: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_CACHE", str(songs / "cache"))
    monkeypatch.delenv("ZOO_MIRROR", raising=False)
    found = zoo.analyze(songs / "a.wav", ["chord-crema", tiny])
    assert list(found.parts) == [str(tiny)]
    assert "is not on this machine and ZOO_OFFLINE=1 forbids fetching it" in found.left_out["chord-crema"]


def test_the_default_models() -> None:
    """One of each kind that listens, none twice, all with weights."""
    cards = [zoo.info(name) for name in usual("sound")]
    assert all(card.pretrained for card in cards)
    assert sorted(card.task for card in cards) == ["beats", "chords", "pitch", "structure", "tags", "transcription"]


def test_a_model_that_says_nothing_is_left_out(tiny: Path) -> None:
    """A recording too short for one frame, and one that is none."""
    models, _ = load_models([tiny])
    found = zoo.analyze((np.zeros(100, np.float32), 8000), models.values())
    assert "too short for chords" in found.left_out[str(tiny)]
    assert found.lanes == []
    with pytest.raises(InputError, match="no such file"):
        zoo.analyze("nothing.wav", models.values())
    with pytest.raises(InputError, match="a model for latent, which analyses no recordings"):
        load_models(["music-vae"])
    with pytest.raises(InputError, match="chord-crema"):
        load_models(["chord-creme"])


# --- the time line ---------------------------------------------------------------------------------------------------


def lanes() -> list[Any]:
    times = np.arange(0, 40, 0.01)
    pitch = 60 + 3 * np.sin(times)
    pitch[1000:1500] = np.nan
    score = Score.of(pitch=[60, 64], start=[0, 2], end=[2, 4])
    heat = Heat("heat", RNG.uniform(size=(400, 3)), 0.1, ("low", "<middle>", "high"))
    spans = Spans("chords <&>", [(0.0, 20.0, "C:maj/3", 0), (20.0, 40.0, "N", None)])
    return [spans, heat, Curve("pitch", times, pitch), Notes("notes", score)]


def test_draw(tmp_path: Path) -> None:
    """A line for each half minute; an hour gets no taller than 24 lines."""
    heights = []
    for seconds, shown in ((1.0, lanes()), (40.0, lanes()), (3600.0, lanes()[:1])):
        with Image.open(draw(shown, seconds, tmp_path / "a.png", "Title")) as picture:
            heights.append(picture.size[1])
    assert heights[1] - heights[0] == pytest.approx(heights[0] - 2 * 0.25 * 160 - 0.35 * 160, abs=2)
    assert heights[2] < 24.5 * heights[0]


def test_page(tmp_path: Path) -> None:
    """Every lane is there; what a text says is shown, never obeyed; a gap in the pitch is a gap in the line."""
    sound = np.zeros((44100, 2), np.float32)
    given = Recording("<script>alert(1)</script>", "facts", 40.0, lanes(), sound)
    page = timeline_page([given], tmp_path / "a.html", "A & B").read_text()
    tags = Tags(page)
    assert tags.open == []
    names = [tag for tag, _ in tags.found]
    assert names.count("script") == 1
    assert names.count("image") == 1
    assert len(re.findall(r"M\d", next(attrs["d"] or "" for tag, attrs in tags.found if tag == "path"))) == 2
    spans = [attrs for tag, attrs in tags.found if attrs.get("class") == "note span"]
    assert [(span["x"], span["width"]) for span in spans] == [("0.0000%", "50.0000%"), ("50.0000%", "50.0000%")]
    silent = timeline_page([Recording("a", "", 0.0, [])], tmp_path / "b.html", "").read_text()
    assert "<audio" not in silent


def test_pooled() -> None:
    """The strongest of neighbours survives, whatever the width."""
    x = np.zeros((1000, 2))
    x[123, 1] = 1
    assert pooled(x, 10).shape == (10, 2)
    assert pooled(x, 10).max() == 1
    assert pooled(x, 2000) is x


def test_pitch_range() -> None:
    nothing = Curve("", np.zeros(3), np.full(3, np.nan))
    assert pitch_range(nothing) == (54, 66)
    low, high = pitch_range(Curve("", np.zeros(1), np.array([60.0])))
    assert low <= 60 <= high
    assert high - low == 12


# --- the command line ------------------------------------------------------------------------------------------------


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_chords_of_one_file(tiny: Path, songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("chords", songs / "a.wav", "--model", tiny) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0.000000\t")
    assert lines[-1].split("\t")[1] == "2.000000"


def test_chords_of_a_folder(tiny: Path, songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be read stops nothing, and the exit code tells."""
    assert run("chords", songs, "--model", tiny, "--out", "out", "--json") == 1
    said = capsys.readouterr()
    assert sorted(Path(name).name for name in json.loads(said.out)) == ["a.flac", "a.wav"]
    assert "b.wav: can't be read as audio" in said.err
    assert said.err.splitlines()[-1] == "zoo: error: 1 of 3 files failed, as told above"
    written = sorted(path.name for path in Path("out").iterdir())
    assert written == ["a-2.json", "a-2.lab", "a-2.png", "a.json", "a.lab", "a.png"]


def test_analyze_a_folder(tiny: Path, songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyze", songs, "--models", tiny, "--out", "out") == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert sorted(path.suffix for path in Path("out").iterdir()) == [".html", ".html", ".json", ".json", ".png", ".png"]
    (songs / "b.wav").unlink()
    assert run("analyze", songs / "a.wav", "--models", tiny, "--json") == 0
    assert Path(json.loads(capsys.readouterr().out)[str(songs / "a.wav")]["page"]).is_file()


def test_mistakes(tiny: Path, songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (("chords", songs / "b.wav", "--model", tiny), "can't be read as audio"),
        (("chords", songs / "a.wav", "--model", "music-vae"), "a model for latent, not for chords"),
        (("analyze", songs / "a.wav", "--models", "chord-creme"), "chord-crema"),
        (("chords", songs / "a.wav", "--model", tiny, "--out", songs / "a.wav"), "write elsewhere"),
    ):
        assert run(*words) == 1
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


# --- notes -----------------------------------------------------------------------------------------------------------


def piece(meters: bool = True) -> Score:
    """Eight bars in D major, half a minute."""
    at = np.arange(32, dtype=np.float64)
    pitch = np.tile([62, 66, 69, 74, 73, 69, 67, 64], 4)
    score = Score.of(
        np.concatenate([at, at[::4]]),
        np.concatenate([at + 0.9, at[::4] + 3.9]),
        np.concatenate([pitch, np.tile([38, 45], 4)]),
        tempos=np.array([[0.0, 60.0]]),
        meters=np.array([[0.0, 4, 4]]) if meters else np.zeros((0, 3)),
        source="piece.mid",
    )
    return score


class Reader(Model):
    """Says of notes how many there are, without a network."""

    name, architecture, codec = "reader", SimpleNamespace(task="counting"), SimpleNamespace(kind="notes")

    def __init__(self) -> None:
        pass

    def describe(self, source: Any) -> Description:
        return Description({"count": len(source)}, [])


def test_notes_on_the_time_line() -> None:
    """Bars from the file, the key, the notes, and what a model that reads says."""
    found = zoo.analyze(piece(), [Reader()])
    told = json.loads(found.to_json())
    assert told["recording"] == "piece.mid"
    assert told["seconds"] == pytest.approx(31.9)
    assert told["bars"] == {"starts": [4.0 * bar for bar in range(8)], "beats": 4, "known_by": "file"}
    assert told["key"]["whole"] == "D major"
    assert [(row["key"], row["start"]) for row in told["key"]["spans"]] == [("D major", 0)]
    assert told["models"] == {"reader": {"count": 40}}
    assert [lane.title for lane in found.lanes] == ["bars", "key", "notes"]
    assert found.sound is not None
    assert found.sound.shape[1] == 2


def test_bars_that_the_file_does_not_tell() -> None:
    """No metre, or notes that keep to none: they are estimated, and the lane says so."""
    loose = replace(piece(), start=piece().start * 1.037, end=piece().end * 1.037)
    for score in (piece(meters=False), loose):
        found = zoo.analyze(score, [Reader()])
        assert json.loads(found.to_json())["bars"]["known_by"] == "estimated"
        assert found.lanes[0].title == "bars (est.)"


def test_who_gets_what(tiny: Path, songs: Path) -> None:
    """Models of sound hear notes played; those that read are left out of sound, and it is said why."""
    found = zoo.analyze(piece(), [tiny])
    assert [*found.parts] == [str(tiny)]
    heard = zoo.analyze(songs / "a.wav", [tiny, Reader()])
    assert [*heard.parts] == [str(tiny)]
    assert heard.left_out == {"reader": "reads notes, and this is sound; pass what `zoo transcribe` makes of it"}
    with pytest.raises(InputError, match="no notes"):
        zoo.analyze(Score.of([], [], []), [Reader()])


def test_usual_models_are_those_there_are() -> None:
    assert all(zoo.list_models(name, pretrained=True) for name in (*usual("notes"), *usual("sound")))
    assert {"chord-crema", "basic-pitch", "crepe/tiny", "musicnn"} <= {*usual("sound")}


def test_folder_of_both(tiny: Path, songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    io.write_midi(piece(), songs / "tune.mid")
    (songs / "bad.mid").write_text("none")
    assert main(["analyze", str(songs), "--models", str(tiny), "--json"]) == 1
    said = capsys.readouterr()
    assert sorted(Path(name).name for name in json.loads(said.out)) == ["a.flac", "a.wav", "tune.mid"]
    assert said.err.splitlines()[-1] == "zoo: error: 2 of 5 files failed, as told above"
    text = Path("out/tune.html").read_text()
    assert Tags(text).open == []
    assert ">D major<" in text


def test_marked_notes(tmp_path: Path) -> None:
    """The melody stands out in the picture and on the page."""
    score = piece()
    lane = Notes("melody", score, score.pitch > 60)
    text = timeline_page([Recording("a", "", 32.0, [lane])], tmp_path / "a.html", "a").read_text()
    assert text.count(f"fill:{NEUTRAL}") == 8
    assert text.count("fill:var(--c0)") == 32
    plain, marked = (draw([each], 32.0, tmp_path / "a.png").read_bytes() for each in (Notes("melody", score), lane))
    assert plain != marked
