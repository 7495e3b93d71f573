"""The package as others get it: what the wheel holds, and that it works elsewhere with the network off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import zoo

ROOT = Path(__file__).resolve().parents[1]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_of_code_is_packaged() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "zoo").rglob("*.py")}
    found = {".".join(folder.parts) for folder in folders} | {"zoo._checkpoints"}
    assert sorted(found) == sorted(project()["tool"]["setuptools"]["packages"])


def test_one_version() -> None:
    assert project()["project"]["version"] == zoo.__version__
    assert f"## {zoo.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_import_is_light() -> None:
    """Processor time, the best of three, over that of an interpreter that imports nothing."""

    def seconds(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    empty = min(seconds("pass") for _ in range(3))
    assert min(seconds("import zoo") for _ in range(3)) - empty < 0.2
    subprocess.run(
        [sys.executable, "-c", "import sys, zoo; assert not {'jax', 'numpy', 'note_seq'} & set(sys.modules)"],
        check=True, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built by way of an sdist from a copy of what the project file names."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("build")
    for name in ("zoo", "checkpoints"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


@pytest.mark.slow
def test_wheel_has_every_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "zoo").rglob("*.py")}
    kept = {path.relative_to(ROOT / "checkpoints") for path in (ROOT / "checkpoints").rglob("*") if path.is_file()}
    missing = (code | {f"zoo/_checkpoints/{path}" for path in kept}) - names
    assert not missing
    assert not [name for name in names if name.split("/")[0] not in ("zoo", wheel.name.split("-py3")[0] + ".dist-info")]


@pytest.mark.slow
def test_wheel_loads_every_bundled_checkpoint_elsewhere_offline(wheel: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", elsewhere, wheel]
    subprocess.run(pip, check=True)
    code = """
import json, pathlib, zoo
bundled = [name for name in zoo.list_models(pretrained=True)
           if all(source.kind == "bundled" for source in zoo.info(name).sources)]
loaded = {name: zoo.load(name).parameters == zoo.info(name).parameters for name in bundled}
print(json.dumps([str(pathlib.Path(zoo.__file__).parents[1]), zoo.list_models(), loaded]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZOO_")}
    environment |= {"PYTHONPATH": str(elsewhere), "ZOO_OFFLINE": "1", "ZOO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    place, listed, loaded = json.loads(done.stdout.splitlines()[-1])
    assert Path(place) == elsewhere
    assert listed == sorted(
        f"{card.parts[-3]}/{card.parts[-2]}" for card in (ROOT / "checkpoints").glob("*/*/card.toml")
    )
    assert all(loaded.values()), loaded
