"""Cards: what they refuse, how they are found, and how long that takes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from zoo.errors import CardError
from zoo.weights import cards

CARD = """
id = "music-vae/tiny"
summary = "A model for tests."
task = "latent"
parameters = 12
intended_use = "Tests."
limits = "Everything else."
verified = true
data = ["POP909"]

[config]
layers = [2, 3]
[codec]
name = "melody"
options = {bars = 2}
[licences]
code = {name = "Apache-2.0", stated_at = "LICENSE"}
weights = {name = "Apache-2.0", stated_at = "LICENSE"}
data = [{name = "MIT", stated_at = "https://example.org", of = "POP909"}]
[citation]
bibtex = "@inproceedings{a}"
paper = "https://example.org/paper"
[[sources]]
kind = "bundled"
file = "weights.safetensors"
sha256 = "SHA"
bytes = 20
[[metrics]]
name = "accuracy"
value = 1
unit = "%"
data = "POP909"
split = "test"
by = "us"
command = "zoo evaluate music-vae/tiny"
""".replace("SHA", "0" * 64)


def card_file(folder: Path, text: str = CARD, name: str = "music-vae/tiny") -> Path:
    path = folder / name / "card.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_a_card_is_read(tmp_path: Path) -> None:
    path = card_file(tmp_path)
    card = cards.load_card(path)
    assert card == cards.load_card(path.parent)
    assert (card.id, card.architecture, card.config, card.codec.options) == (
        "music-vae/tiny",
        "music-vae",
        {"layers": [2, 3]},
        {"bars": 2},
    )
    assert card.metrics[0].value == 1.0
    assert isinstance(card.metrics[0].value, float)
    assert card.sources[0].name == "weights.safetensors"
    assert card.folder == path.parent
    assert card.pretrained
    assert card.verified
    assert not card.default


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("parameters", "paramters", "unknown key 'paramters'; did you mean 'parameters'?"),
        ("sha256 =", "sha265 =", "sources[0]: unknown key 'sha265'; did you mean 'sha256'?"),
        ("stated_at = \"LICENSE\"", "stated = 1", "licences: code: unknown key 'stated'; did you mean 'stated_at'?"),
        ("summary =", "path = 'x'\nsummary =", "unknown key 'path'"),
        ("task = \"latent\"", "", "the key 'task' is missing"),
        ("parameters = 12", "parameters = '12'", "parameters must be int, not str"),
        ("parameters = 12", "parameters = true", "parameters must be int, not bool"),
        ("options = {bars = 2}", "options = 2", "codec: options must be a table"),
        ("data = [\"POP909\"]", "data = 'POP909'", "data must be a list"),
        ("kind = \"bundled\"", "kind = \"bundle\"", "unknown kind 'bundle'; did you mean 'bundled'?"),
        ("kind = \"bundled\"", "kind = \"url\"", "needs the key 'url'"),
        ("kind = \"bundled\"", "kind = 'url'\nurl = 'file:///etc/passwd'", "must begin with https:// or http://"),
        ("sha256 = \"" + "0" * 64 + "\"", "", "needs the sha256 of every source"),
        ("0" * 64, "0" * 63, "must be 64 digits"),
        ("by = \"us\"", "by = \"me\"", "by must be paper, authors or us, not 'me'"),
        ("command = ", "note = ", "no command that measures it"),
        ("id = \"music-vae/tiny\"", "id = \"tiny\"", "must be family/variant"),
        ("verified = true", "format = \"safetensor\"", "unknown format 'safetensor'; did you mean 'safetensors'?"),
        ("weights = {name", "# {name", "has sources but no licences.weights"),
        ("[citation]", "[citation", "not valid TOML"),
    ],
)  # fmt: skip
def test_what_a_card_refuses(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = card_file(tmp_path, CARD.replace(old, new))
    with pytest.raises(CardError) as caught:
        cards.load_card(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_card(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"card\.toml: can't be read"):
        cards.load_card(tmp_path)


def test_cards_are_found_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = card_file(tmp_path / "one")
    second = card_file(tmp_path / "two", CARD.replace("music-vae/tiny", "groovae/x"), "any/name")
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path / "two"))
    roots = [tmp_path / "one", *cards.checkpoint_roots()]
    found = cards.find_cards(roots)
    assert found["music-vae/tiny"] == first
    assert found["groovae/x"] == second
    assert list(found) == sorted(found)


def test_two_cards_of_one_id(tmp_path: Path) -> None:
    card_file(tmp_path / "one")
    card_file(tmp_path / "two")
    with pytest.raises(CardError, match="is taken by"):
        cards.find_cards([tmp_path / "one", tmp_path / "two"])


def test_zoo_cards_must_be_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CARDS", str(tmp_path / "nowhere"))
    with pytest.raises(CardError, match="not a folder; correct or unset ZOO_CARDS"):
        cards.checkpoint_roots()


def test_sixty_cards_take_under_a_tenth_of_a_second(tmp_path: Path) -> None:
    for i in range(60):
        card_file(tmp_path, CARD.replace("music-vae/tiny", f"music-vae/v{i}"), f"music-vae/v{i}")
    times = []
    for _ in range(5):
        start = time.process_time()
        found = cards.find_cards([tmp_path])
        parsed = [cards.load_card(path) for path in found.values()]
        times.append(time.process_time() - start)
    assert [card.id for card in parsed] == list(found)
    assert len(parsed) == 60
    assert min(times) < 0.1


@pytest.mark.parametrize("card", cards.find_cards(cards.checkpoint_roots()).items(), ids=lambda item: item[0])
def test_our_own_cards(card: tuple[str, Path]) -> None:
    name, path = card
    parsed = cards.load_card(path)
    assert parsed.id == name == "/".join(path.parts[-3:-1])
    for source in parsed.sources:
        assert source.kind != "bundled" or (path.parent / source.file).is_file()
    assert not parsed.recipe or (path.parent / parsed.recipe).is_file()
