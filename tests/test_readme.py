"""The README says what is so: its tables are those of the cards, its commands parse, its Python runs."""

from __future__ import annotations

import functools
import importlib
import re
import shutil
from pathlib import Path

import pytest

import zoo
from benchmarks import table
from zoo import readme
from zoo.cli.parser import parse

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in code]
    return found


def test_table_of_models_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_CARDS", raising=False)
    assert readme.filled(README) == README, "run: make readme"


def test_table_of_speeds_is_up_to_date() -> None:
    assert table.insert(README, table.markdown()) == README, "run: make readme"


def test_a_table_is_made_from_cards(tiny_model: str) -> None:
    made = readme.filled(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert made.startswith(f"before\n{readme.BEGIN}\n| Model |")
    assert made.endswith(f"|\n{readme.END}\nafter\n")
    assert "| [music-vae/tiny](checkpoints/music-vae/tiny/card.toml) | Random weights, for tests. | 12 k |" in made
    assert readme.filled(made) == made
    with pytest.raises(ValueError, match="marks"):
        readme.filled("no table")


def test_shell_lines_parse() -> None:
    lines = [line.split("#")[0].split() for line in block("sh", "zoo list").splitlines()]
    assert len(lines) > 10
    for command, *words in lines:
        assert command == "zoo"
        parse(words)


def test_what_other_models_are_asked_exists() -> None:
    """Each line of the second block of Python: the model's task has that method, the zoo that function."""
    for line in block("python", "voice = ").splitlines():
        found = re.search(r'= zoo\.(?:load\("([\w-]+)"\)\.)?(\w+)\(', line)
        assert found, line
        model, verb = found.groups()
        owner = importlib.import_module(f"zoo.tasks.{zoo.info(model).task}").Task if model else zoo
        assert callable(getattr(owner, verb)), line


def test_make_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (\w+) ", block("sh", "make demo"))) <= set(targets)


@pytest.mark.slow
def test_python_lines_run(tiny_model: str, melody_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, but on a tiny model and for two steps of fine-tuning."""
    code = block("python", "import zoo").replace('"music-vae"', f'"{tiny_model}"')
    assert len([line for line in code.splitlines() if line and line != "import zoo"]) == 10
    (tmp_path / "my_midis").mkdir()
    for name in ("a.mid", "b.mid", *(f"my_midis/{i}.mid" for i in range(40))):
        shutil.copy(melody_file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "finetune", functools.partial(zoo.finetune, steps=2, batch_size=2))
    names: dict = {}
    exec(code, names)
    assert len(names["notes"]) == 4
    assert len(names["between"]) == 9
    assert names["z"].shape == (2, 8)
    assert names["measured"]["loss"] > 0
    assert zoo.load("runs/mine").parameters == names["card"].parameters
