"""Cards: what a checkpoint is, where its bytes come from, who may use it for what, and how good it was measured to be.

A card is `checkpoints/<architecture>/<variant>/card.toml`, parsed into the frozen dataclasses below. The dataclasses
are the schema: a key they don't have, a missing key or a value of another type is a `CardError` that names the file.
"""

from __future__ import annotations

import os
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from zoo.errors import CardError

FORMATS = ("safetensors", "raw-manifest", "tfjs", "tf-checkpoint", "mag", "torch", "onnx", "keras-h5")

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*/[a-z0-9][a-z0-9._-]*")
_ID_LINE = re.compile(r"""^id\s*=\s*["']([^"']*)["']""", re.MULTILINE)
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One file of the weights. All sources of a card are needed; readers know each by its `name`.

    `kind` says which of the other keys count: "bundled" (`file` beside the card), "file" (`file` anywhere on this
    machine), "url" (`url`), "pypi" (`member` of the wheel of `package` at `version`, or of its sdist where
    `archive_sha256` pins one). `mirror` is the file's path in a mirror, by default its name. `format` is the
    card's unless given, for weights that are put together (safetensors have our names already). Only a card that isn't
    `verified` may leave out `sha256`.
    """

    kind: str
    file: str = ""
    url: str = ""
    package: str = ""
    version: str = ""
    member: str = ""
    archive_sha256: str = ""
    mirror: str = ""
    format: str = ""
    sha256: str = ""
    bytes: int | None = None

    @property
    def name(self) -> str:
        """The file name readers look for: `file` if given, else the last part of the address."""
        if self.kind in ("url", "pypi") and self.file:
            return self.file
        return Path(self.file or self.member or self.url.split("?")[0]).name


@dataclass(frozen=True)
class Codec:
    """How music becomes the model's arrays: a codec of `zoo.music` and its options, such as `bars`."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Licence:
    """A licence and where its owner states it (an address or a file); `of` says what it covers if there are several."""

    name: str
    stated_at: str
    of: str = ""


@dataclass(frozen=True)
class Licences:
    """Licences of the code, the weights and the training data, which need not agree; `data` has one a data set."""

    code: Licence
    weights: Licence | None = None
    data: tuple[Licence, ...] = ()


@dataclass(frozen=True)
class Citation:
    """What to cite: a BibTeX entry and the paper's address."""

    bibtex: str
    paper: str


@dataclass(frozen=True)
class Metric:
    """A measured number. `by` is "paper", "authors" (their code or page) or "us", who then give the `command`."""

    name: str
    value: float
    data: str
    split: str
    by: str
    unit: str = ""
    command: str = ""
    note: str = ""


@dataclass(frozen=True)
class Training:
    """Where and how long the weights were trained, and what the validation curve did."""

    where: str
    time: str
    curve: str


@dataclass(frozen=True)
class Card:
    """A checkpoint's facts. `id` is "family/variant"; `architecture` is the model file, by default the family.

    A card without `sources` describes a configuration that has no weights yet (`pretrained` is False). `verified`
    says that its weights were loaded and run here. `path` is the card's own file and not a key.
    """

    id: str
    summary: str
    task: str
    config: Mapping[str, Any]
    codec: Codec
    parameters: int
    licences: Licences
    citation: Citation
    intended_use: str
    limits: str
    path: Path
    architecture: str = ""
    default: bool = False
    verified: bool = False
    format: str = "safetensors"
    converter: str = ""
    sources: tuple[Source, ...] = ()
    data: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    recipe: str = ""
    trained: Training | None = None

    @property
    def folder(self) -> Path:
        """The folder of the card, where bundled files and the recipe lie."""
        return self.path.parent

    @property
    def pretrained(self) -> bool:
        """Whether there are weights to load."""
        return bool(self.sources)


def load_card(path: str | os.PathLike[str]) -> Card:
    """Parses a card, given its file or its folder. Raises `CardError` if it is not a correct card."""
    path = Path(path)
    path = path / "card.toml" if path.is_dir() else path
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(f"{path}: can't be read ({error.strerror}); give a card.toml or the folder it is in") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: not valid TOML: {error}") from error
    card = _build(Card, table, f"{path}: ", given={"path": path.absolute()})
    if not card.architecture:
        object.__setattr__(card, "architecture", card.id.split("/")[0])
    _check(card)
    return card


def find_cards(roots: Iterable[Path]) -> dict[str, Path]:
    """Every `<family>/<variant>/card.toml` under `roots` by the card's id, sorted; reads ids only, so it is cheap.

    Raises `CardError` where a card has no id or two cards have the same one.
    """
    found: dict[str, Path] = {}
    for path in (path for root in roots for path in root.glob("*/*/card.toml")):
        match = _ID_LINE.search(path.read_text(encoding="utf-8", errors="replace"))
        if not match:
            raise CardError(f"{path}: has no id; begin it with a line such as: id = 'music-vae/mel-2bar'")
        if match[1] in found:
            raise CardError(f"{path}: its id {match[1]!r} is taken by {found[match[1]]}; give one of them another id")
        found[match[1]] = path
    return dict(sorted(found.items()))


def checkpoint_roots() -> list[Path]:
    """Where cards are: `checkpoints/` of a source checkout or `zoo/_checkpoints` of an install, then `ZOO_CARDS`."""
    package = Path(__file__).resolve().parents[1]
    ours = [package.parent / "checkpoints", package / "_checkpoints"]
    extra = [Path(root).expanduser() for root in os.environ.get("ZOO_CARDS", "").split(os.pathsep) if root]
    missing = [root for root in extra if not root.is_dir()]
    if missing:
        raise CardError(f"{missing[0]}: ZOO_CARDS names it but it is not a folder; correct or unset ZOO_CARDS")
    return [root for root in ours if root.is_dir()][:1] + extra


def _check(card: Card) -> None:
    """The rules between keys that types alone don't say."""
    if not _ID.fullmatch(card.id):
        raise CardError(f"{card.path}: id {card.id!r} must be family/variant in lower case, such as music-vae/mel-2bar")
    for format in (card.format, *(source.format or card.format for source in card.sources)):
        if format not in FORMATS:
            raise CardError(f"{card.path}: unknown format {format!r}{_nearest(format, FORMATS)}")
    if card.pretrained and card.licences.weights is None:
        raise CardError(f"{card.path}: has sources but no licences.weights; state under what licence they are given")
    for metric in card.metrics:
        if metric.by not in ("paper", "authors", "us"):
            raise CardError(f"{card.path}: metric {metric.name!r}: by must be paper, authors or us, not {metric.by!r}")
        if metric.by == "us" and not metric.command:
            raise CardError(f"{card.path}: metric {metric.name!r} is ours but has no command that measures it again")
    for source in card.sources:
        _check_source(card, source)
    names = [source.name for source in card.sources]
    if len(set(names)) < len(names):
        raise CardError(f"{card.path}: two sources have the same name; tell them apart with the key file")


def _check_source(card: Card, source: Source) -> None:
    needed = {"bundled": ("file",), "file": ("file",), "url": ("url",), "pypi": ("package", "version", "member")}
    where = f"{card.path}: source {source.name or source.kind!r}"
    if source.kind not in needed:
        raise CardError(f"{where}: unknown kind {source.kind!r}{_nearest(source.kind, needed)}")
    for key in needed[source.kind]:
        if not getattr(source, key):
            raise CardError(f"{where}: a source of kind {source.kind} needs the key {key!r}")
    if source.url and not source.url.startswith(("https://", "http://")):
        raise CardError(f"{where}: its url must begin with https:// or http://")
    if card.verified and not source.sha256:
        raise CardError(f"{where}: a verified card needs the sha256 of every source")
    for key in ("sha256", "archive_sha256"):
        value = getattr(source, key)
        if value and not _SHA256.fullmatch(value):
            raise CardError(f"{where}: {key} must be 64 digits of 0-9a-f, not {value!r}")


@cache
def _schema(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Field name → (type, required) of a dataclass."""
    hints = get_type_hints(cls)
    return {f.name: (hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(cls)}


def _build(cls: type[T], table: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None) -> T:
    """Makes the dataclass `cls` of a TOML table; `where` is the file and the keys so far; `given` are no keys."""
    schema, values = _schema(cls), dict(given or {})  # type: ignore[arg-type]
    keys = [key for key in schema if key not in values]
    for key, value in table.items():
        if key not in keys:
            raise CardError(f"{where}unknown key {key!r}{_nearest(key, keys)}")
        values[key] = _convert(schema[key][0], value, f"{where}{key}")
    missing = [key for key in keys if schema[key][1] and key not in values]
    if missing:
        raise CardError(f"{where}the key {missing[0]!r} is missing; add it")
    return cls(**values)


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Checks that a TOML value has the type a dataclass field declares, and builds nested dataclasses."""
    origin = get_origin(kind)
    if origin in (types.UnionType, Union):
        return _convert(get_args(kind)[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise CardError(f"{where} must be a list")
        return tuple(_convert(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if is_dataclass(kind) or origin is not None:
        if not isinstance(value, dict):
            raise CardError(f"{where} must be a table")
        return value if origin is not None else _build(kind, value, f"{where}: ")  # type: ignore[arg-type]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise CardError(f"{where} must be {kind.__name__}, not {type(value).__name__}")
    return value


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib  # only errors need it

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
