"""The command line as a user meets it: every verb, every kind of mistake, and how fast it answers."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.cli.parser import _build

VERBS = (
    "list info cite generate interpolate encode decode reconstruct render continue score harmonize "
    "accompany infill genie transcribe chords structure beats analyze melody pitch tag train finetune evaluate "
    "bench convert doctor"
)


def run(*words: str | Path) -> int:
    """The exit code of a command in this process."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:
        return int(str(stop.code))


def run_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "zoo", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    said = capsys.readouterr().err
    assert said.startswith("zoo: error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the command runs in, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    return tmp_path


# --- help and mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS.split())
def test_every_verb_has_help_with_an_example_that_parses(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    shown = capsys.readouterr().out
    examples = re.findall(r"^  zoo (.*)$", shown.split("examples:")[1], re.MULTILINE)
    assert any(example.startswith(verb) for example in examples)
    for example in examples:
        for command in re.split(">+", example)[0].split("| zoo"):
            _build()[0].parse_args(shlex.split(command))


def test_help_lists_every_verb_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == run("--help") == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^  (\w+) +[A-Z].*\.$", shown, re.MULTILINE) == 2 * VERBS.split()
    assert run("help", "encode") == 0
    assert "zoo encode" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"zoo {zoo.__version__}\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("genrate", "there is no verb 'genrate' (did you mean generate?); `zoo --help`"),
        ("xyzzy", "there is no verb 'xyzzy'; `zoo --help`"),
        ("generate --temprature 1", "no option --temprature (did you mean --temperature?); `zoo generate --help`"),
        ("generate -n 0", "argument -n: '0' is not a whole number of at least 1"),
        ("generate -n four", "'four' is not a whole number"),
        ("generate --temperature -1", "'-1' is not a number of at least 0"),
        ("generate --qpm 0", "'0' is not a number above 0"),
        ("generate --seed -5", "'-5' is not a whole number of at least 0"),
        ("generate --temperature nan", "'nan' is not a number"),
        ("continue music-transformer", "the following arguments are required: FILE"),
        ("cite music-vae again", "'again' is one argument too many"),
        ("train music-vae --out runs/a", "required: --data"),
        ("evaluate music-vae --data d --split tets", "invalid choice: 'tets'"),
    ],
)
def test_a_command_that_cannot_be_understood_ends_with_2(
    command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command.split()) == 2
    assert message in error(capsys)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("info music-vea/tiny", "did you mean music-vae/tiny"),
        ("cite nothing-like-it", "no model named 'nothing-like-it'"),
        ("list --task nothing", "no model is like that"),
        ("generate musik-vae/tiny", "did you mean music-vae/tiny"),
        ("generate music-vae/tiny --out card.txt", "card.txt"),
        ("interpolate a.mid b.mid", "a.mid: notes where the model's name goes"),
        ("encode song.mid other.mid", "song.mid: notes where the model's name goes"),
        ("encode music-vae/tiny song.mid", "song.mid: no such file"),
        ("encode music-vae/tiny song.mid --out z.txt", "z.txt: its name must end in .npy or .json"),
        ("decode music-vae/tiny z.npy", "z.npy: can't be read (No such file or directory)"),
        ("decode music-vae/tiny card.txt", "card.txt: not latent vectors"),
        ("decode music-vae/tiny narrow.json", "z has shape (1, 2), the model needs [n, 8]"),
        ("decode music-vae/tiny objects.npy", "objects.npy: not latent vectors"),
        ("render card.txt", "card.txt: in no known format"),
        ("render nothing.mid", "nothing.mid: no such file"),
        ("convert card.txt --as music-vae/tiny --out x.safetensors", "its format can't be told"),
        ("convert card.txt --as music-vae/tiny --out x.npz", "x.npz: its name must end in .safetensors"),
        ("convert nothing --as music-vae/tiny --out x.safetensors", "nothing: "),
        ("info empty", "empty: neither a run with best.safetensors in it nor a folder with a card.toml"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_ends_with_1(
    command: str, message: str, tiny_model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "card.txt").write_text("not music")
    (folder / "narrow.json").write_text("[[1.0, 2.0]]")
    (folder / "empty").mkdir()
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    assert run(*command.split()) == 1
    assert message in error(capsys)


def test_an_unexpected_error_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> str:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(zoo, "cite", fail)
    assert run("cite", "music-vae") == 1
    said = capsys.readouterr().err
    assert "zoo: error: unexpected ZeroDivisionError: two lines\n" in said
    assert "please report it" in said
    with pytest.raises(ZeroDivisionError):
        run("cite", "music-vae", "--debug")
    monkeypatch.setenv("ZOO_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run("cite", "music-vae")


def test_stopping_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "train", stop)
    assert run("train", "music-vae", "--data", "d", "--out", "o") == 130
    assert "stopped; the same command goes on" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(tiny_model: str) -> None:
    command = f"{sys.executable} -m zoo info music-vae/tiny --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")  # 0 where all was written before the reader left


# --- what there is ---------------------------------------------------------------------------------------------------


def test_list(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "music-vae/tiny" in capsys.readouterr().out
    assert run("list", "music-vae/tin*", "--json", "--task", "latent", "--pretrained") == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["id"], model["parameters"], model["pretrained"]) == ("music-vae/tiny", 11746, True)
    assert run("list", "nothing", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_is_fast_and_needs_no_jax(tiny_model: str) -> None:
    code = "import sys, zoo.cli; zoo.cli.main(['list']); sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # processor time: other work on the machine doesn't count
    assert min(seconds) < 1.0


def test_info_and_cite(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", tiny_model) == 0
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("11,746 parameters", "melody bars 2", "Apache-2.0", "weights.safetensors"))
    assert run("info", tiny_model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["config"]["latent"] == 8
    assert run("info", os.environ["ZOO_CARDS"] + "/music-vae/tiny") == 0
    assert "11,746 parameters" in capsys.readouterr().out
    assert run("cite", tiny_model) == 0
    assert capsys.readouterr().out == "@inproceedings{tiny}\n"


def test_doctor(
    tiny_model: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(folder / "cache"))
    assert run("doctor", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["jax"]
    assert facts["devices"]
    assert facts["settings"]["ZOO_OFFLINE"] == "1"
    assert str(folder / "cache") in facts["cache"]
    monkeypatch.setenv("ZOO_SOUNDFONT", "missing.sf2")
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("python", "cpu", "missing.sf2", "ZOO_OFFLINE=1"))


# --- music -----------------------------------------------------------------------------------------------------------


def test_generate_writes_all_there_is_to_see_and_hear(
    tiny_model: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", tiny_model, "-n", 2, "--interpolate", 3) == 0
    shown = capsys.readouterr()
    assert "open out/index.html" in shown.out
    assert shown.err == ""  # no progress where there is no terminal
    names = {path.name for path in (folder / "out").iterdir()}
    pieces = ["sample-1", "sample-2", "interpolation-1", "interpolation-2", "interpolation-3"]
    assert {f"{piece}.{suffix}" for piece in pieces for suffix in ("mid", "wav", "png")} <= names
    assert (folder / "out" / "index.html").read_text().count("<audio") == 5


def test_the_same_seed_gives_the_same_music(tiny_model: str, folder: Path) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run("generate", tiny_model, "-n", 3, "--seed", seed, "--out", out, "--midi-only") == 0
    music = [[path.read_bytes() for path in sorted((folder / out).iterdir())] for out in "abc"]
    assert music[0] == music[1] != music[2]
    assert [path.name for path in sorted((folder / "a").iterdir())] == ["sample-1.mid", "sample-2.mid", "sample-3.mid"]


def test_interpolate(tiny_model: str, folder: Path, melody_file: Path) -> None:
    assert run("interpolate", tiny_model, melody_file, melody_file, "--steps", 3, "--window", -1, "--midi-only") == 0
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == [
        "interpolation-1.mid",
        "interpolation-2.mid",
        "interpolation-3.mid",
        "original-1.mid",
        "original-2.mid",
    ]


def test_encode_and_decode(
    tiny_model: str,
    folder: Path,
    melody_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in ("z.npy", "z.json"):
        assert run("encode", tiny_model, melody_file, melody_file, "--out", file) == 0
        assert run("decode", tiny_model, file, "--out", file[2:], "--midi-only") == 0
    capsys.readouterr()
    z = np.load(folder / "z.npy")
    assert z.shape == (2, 8)
    assert (folder / "npy/decoded-2.mid").read_bytes() == (folder / "json/decoded-2.mid").read_bytes()
    assert run("encode", tiny_model, melody_file) == 0
    told = capsys.readouterr().out
    np.testing.assert_allclose(json.loads(told)["z"], z[:1], atol=1e-6)
    monkeypatch.setattr("sys.stdin", io.StringIO((folder / "z.json").read_text()))
    assert run("decode", tiny_model, "-", "--out", "pipe", "--midi-only") == 0
    assert (folder / "pipe/decoded-2.mid").read_bytes() == (folder / "npy/decoded-2.mid").read_bytes()
    assert run("encode", tiny_model, melody_file, "--sample", "--seed", 3, "--json") == 0
    assert np.abs(json.loads(capsys.readouterr().out.split("\n", 1)[1])["z"] - z[:1]).max() > 1e-4


def test_reconstruct_and_render(tiny_model: str, folder: Path, melody_file: Path) -> None:
    assert run("reconstruct", tiny_model, melody_file, "--midi-only") == 0
    assert (folder / "out" / "melody-2.mid").is_file()
    assert run("render", melody_file) == 0
    assert {path.name for path in (folder / "out").iterdir()} >= {"melody.mid", "melody.wav", "melody.png"}
    assert (folder / "out" / "index.html").read_text().count("<audio") == 1


@pytest.mark.parametrize("command", ["render melody.mid --out .", "render ./melody.mid --out x/.."])
def test_no_input_is_overwritten(
    command: str, folder: Path, melody_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = melody_file.read_bytes()
    (folder / "x").mkdir()
    assert run(*command.split()) == 1
    assert "melody.mid: it is read, and would be overwritten; choose another --out" in error(capsys)
    assert melody_file.read_bytes() == before


# --- learning --------------------------------------------------------------------------------------------------------


def test_convert(tiny_model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path(os.environ["ZOO_CARDS"], "music-vae/tiny/weights.safetensors")
    assert run("convert", weights, "--as", tiny_model, "--out", "x.safetensors") == 0
    assert run("generate", "x.safetensors", "-n", 1, "--midi-only") == 0
    assert run("generate", tiny_model, "-n", 1, "--midi-only", "--out", "same") == 0
    assert (folder / "out/sample.mid").read_bytes() == (folder / "same/sample.mid").read_bytes()
    capsys.readouterr()
    assert run("info", "x.safetensors") == 0
    assert "11,746" in capsys.readouterr().out


def test_training_verbs_pass_their_arguments_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    names = ("device", "version", "model", "operation", "batch", "median_s", "p90_s", "sequences_per_s", "steps_per_s")
    speed = dict.fromkeys((*names, "gflops_per_s", "share_of_matmul", "compile_s", "memory_mb"), 0.12345)

    def record(verb: str, answer: object = None) -> None:
        monkeypatch.setattr(zoo, verb, lambda *args, **options: calls.append((verb, args, options)) or answer)

    trained = SimpleNamespace(architecture=SimpleNamespace(task="latent"))
    for verb, answer in (
        ("train", trained),
        ("finetune", trained),
        ("evaluate", {"loss": 1.23456}),
        ("bench", [speed]),
    ):
        record(verb, answer)
    assert run("train", "m", "--data", "d", "--out", "o", "--steps", 3) == 0
    assert run("finetune", "m", "--data", "d", "--out", "o", "--freeze", "a.*", "--freeze", "b", "--lora", 4) == 0
    assert run("evaluate", "m", "--data", "d", "--limit", 7) == 0
    assert run("bench", "m", "--batch-sizes", 1, 2) == 0
    assert calls == [
        ("train", ("m", "d", "o"), {"steps": 3, "batch_size": None, "seed": None, "verbose": False}),
        (
            "finetune",
            ("m", "d", "o"),
            {
                "steps": 500, "batch_size": 64, "learning_rate": None, "freeze": ["a.*", "b"], "lora": 4, "seed": 0,
                "verbose": False,
            },
        ),
        ("evaluate", ("m", "d"), {"split": "test", "samples": 0, "seed": 0, "limit": 7}),
        ("bench", ("m",), {"batch_sizes": (1, 2), "out": None, "precision": "float32"}),
    ]  # fmt: skip
    assert "loss  1.235" in capsys.readouterr().out
    assert run("evaluate", "m", "--data", "d", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"loss": 1.23456}


@pytest.mark.slow
def test_a_cold_generate_gives_its_first_melody_soon(tiny_model: str, folder: Path) -> None:
    """Processor time with a warm compilation cache, which other work on the machine does not change much."""
    environment = {"ZOO_CACHE": str(folder / "cache")}
    assert run_process("generate", tiny_model, "-n", "1", **environment).returncode == 0
    before, began = os.times(), time.monotonic()
    assert run_process("generate", tiny_model, "-n", "1", **environment).returncode == 0
    after = os.times()
    assert min(time.monotonic() - began, sum(after[2:4]) - sum(before[2:4])) < 12
