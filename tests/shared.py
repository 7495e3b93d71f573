"""Where tests find the real data and published weights, which are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("ZOO_SHARED") or Path(__file__).resolve().parents[2] / "shared")


def path(name: str) -> Path:
    """The file or folder `name` under the shared root; skips the test, saying so, where it is missing."""
    found = ROOT / name
    if not found.exists():
        pytest.skip(f"needs {name}: set ZOO_SHARED to the folder that holds it")
    return found
