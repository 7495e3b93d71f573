"""What a model says of a piece from one time to the next, as files: text, JSON and a picture."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo.show.files import write

if TYPE_CHECKING:
    from zoo.show.timeline import Lane


class Spans(ABC):
    """Chords, sections or beats, as `of` says, one after another over `seconds`.

    A file that can't be written is an InputError.
    """

    of: ClassVar[str]
    seconds: float

    @abstractmethod
    def lab(self) -> str:
        """Lines of start, end and label."""

    @abstractmethod
    def table(self) -> dict[str, Any]:
        """The length and the spans as plain lists."""

    @abstractmethod
    def lanes(self) -> list[Lane]:
        """What a timeline shows of it."""

    def to_lab(self, path: str | os.PathLike[str] | None = None) -> str:
        """`lab`, also written to `path`."""
        return _told(self.lab(), path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`table` as JSON, also written to `path`."""
        return _told(json.dumps(self.table(), indent=1), path)

    def plot(self, path: str | os.PathLike[str], title: str = "") -> Path:
        """A PNG of the lanes."""
        from zoo.show.timeline import draw

        return draw(self.lanes(), self.seconds, path, title)


def _told(text: str, path: str | os.PathLike[str] | None) -> str:
    if path is not None:
        write(path, text.encode())
    return text
