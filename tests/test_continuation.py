"""The task of sequence models, on a tiny Music Transformer: what is written, streamed, continued and scored."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.networks import drawn
from zoo.cli import main
from zoo.errors import InputError
from zoo.models import event_rnn
from zoo.models.music_transformer import ARCHITECTURE, Config, MusicTransformer
from zoo.music import io
from zoo.music.codecs import get_codec
from zoo.music.score import Score
from zoo.tasks import load
from zoo.tasks.continuation import CHUNK, Continuation
from zoo.tasks.model import Found

CONFIG = replace(Config.tiny(), layers=1, classes=47, steps=64, pitch_tokens=(1, 46), reach=32)


def build(name: str, config: Config, codec: dict[str, object]) -> Continuation:
    facts = {"architecture": ARCHITECTURE.name, "config": asdict(config), "codec": codec}
    module = drawn(MusicTransformer, config)
    return Continuation(module, Found(name, ARCHITECTURE, config, get_codec(**codec), facts, dict))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Continuation:
    return build("tiny", CONFIG, {"name": "chorale-tokens", "bars": 1})


@pytest.fixture(scope="module")
def weights(model: Continuation, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model.save(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def primer(tmp_path_factory: pytest.TempPathFactory) -> Score:
    grid = np.repeat(np.array([[40, 35, 28, 15], [38, 33, 26, 13], [37, 32, 25, 12]]), 4, axis=0)
    return get_codec("chorale-tokens").decode(grid.reshape(-1), qpm=90)


def test_sampling_lengths(model: Continuation) -> None:
    assert [len(t) for t in model.write(3)] == [64] * 3
    assert [len(t) for t in model.write(1, steps=70)] == [70]
    assert [len(t) for t in model.write(2, seconds=2.0, qpm=60)] == [2 * 4 * 4] * 2
    notes = model.sample(2, seconds=2.0, qpm=60)
    assert len(notes) == 2
    assert 0 < notes[0].total_time <= 2.0


def test_one_key_one_music(model: Continuation) -> None:
    first, again, other = (model.write(2, steps=20, key=key) for key in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.array(first) != np.array(other)).any()
    assert (first[0] != first[1]).any()


def test_a_longer_piece_begins_as_a_shorter_one(model: Continuation) -> None:
    """Through growth of the cache: 300 tokens outgrow its first room."""
    long = model.write(1, steps=300)[0]
    np.testing.assert_array_equal(long[:100], model.write(1, steps=100)[0])
    greedy = model.write(1, steps=300, temperature=0)[0]
    nats = model.nats([greedy[:32]])[0]
    x = np.full((1, 64), 47, np.int32)
    x[0, :32] = greedy[:32]
    likeliest = np.asarray(model.module.logits(x))[0, :32].argmax(axis=-1)
    np.testing.assert_array_equal(likeliest, greedy[:32])
    assert (nats < np.log(47) + 1).all()


def test_streaming_is_sampling_to_the_bit(model: Continuation, primer: Score) -> None:
    options = {"steps": 3 * CHUNK, "key": 5, "top_p": 0.9}
    streamed = list(model.stream(primer, **options))
    whole = io.from_note_sequence(model.continue_(primer, **options)[0])
    assert len(streamed) == len(whole)
    columns = sorted((round(n.start, 6), n.pitch, n.track, round(n.end, 6)) for n in streamed)
    expected = zip(whole.start.round(6), whole.pitch, whole.track, whole.end.round(6), strict=True)
    assert columns == sorted(expected)
    ends = [note.end for note in streamed]
    assert ends == sorted(ends)
    assert len(list(islice(model.stream(), 200))) == 200  # endless


def test_a_continuation_begins_with_its_primer(model: Continuation, primer: Score) -> None:
    tokens = model.tokens(primer)
    written = model.write(2, primer=tokens, steps=16)
    for joined in model.joined(tokens, written):
        np.testing.assert_array_equal(joined[:48], tokens)
        assert len(joined) == 64
    notes = model.continue_(primer, steps=16)[0]
    assert notes.tempos[0].qpm == pytest.approx(90)
    greedy = model.joined(tokens, model.write(1, primer=tokens, steps=16, temperature=0))[0]
    likeliest = np.asarray(model.module.logits(greedy[None]))[0].argmax(axis=-1)
    np.testing.assert_array_equal(greedy[48:], likeliest[48:])


def test_a_harmony_has_the_melody_for_its_soprano(model: Continuation) -> None:
    """The other voices follow from it: greedy ones are the likeliest given all before them. Upbeats rest."""
    soprano = np.array([0, 0, 40, 40, 38, 38, 37, 37])  # the others' places are filled with rests
    tune = get_codec("chorale-tokens").decode(np.stack([soprano, *np.zeros((3, 8), int)], axis=1).reshape(-1), qpm=90)
    one, two = (tokens.reshape(-1, 4) for tokens in model.harmonize_tokens(tune, 2, key=1))
    np.testing.assert_array_equal(one[:, 0], soprano)
    np.testing.assert_array_equal(two[:, 0], soprano)
    assert not one[:2].any()
    assert (one != two).any()
    greedy = model.harmonize_tokens(tune, temperature=0)[0]
    likeliest = np.asarray(model.module.logits(greedy[None]))[0].argmax(axis=-1)
    drawn = model.codec.melody(tune) < 0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(greedy[drawn], likeliest[drawn])
    assert model.harmonize(tune)[0].tempos[0].qpm == pytest.approx(90)


def test_scores_follow_from_the_logits(model: Continuation, primer: Score, tmp_path: Path) -> None:
    taken = model.score(primer)
    assert len(taken.nats) == len(taken.seconds) == 48
    assert taken.seconds[-1] == pytest.approx(11 / 4 / 90 * 60)
    x = np.full((1, 64), 47, np.int32)
    x[0, :48] = taken.tokens
    logits = np.asarray(model.module.logits(x))[0, :48].astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(taken.nats, -logits[np.arange(48), taken.tokens], rtol=1e-4)
    assert taken.mean == pytest.approx(taken.nats.mean())
    assert taken.plot(tmp_path / "surprise.png").read_bytes().startswith(b"\x89PNG")


def test_attention_of_a_piece(model: Continuation, primer: Score) -> None:
    tokens = model.tokens(primer)[: CONFIG.steps]
    found = model.attention(primer)
    assert found.weights.shape == (CONFIG.layers, CONFIG.heads, len(tokens), len(tokens))
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1.0, rtol=1e-5)
    assert len(found.rows) == len(found.columns) == len(tokens)
    assert (np.diff(found.columns) >= 0).all()
    assert (found.columns[1:] == found.rows[:-1]).all()


def test_long_pieces_are_scored_with_half_a_window_before(model: Continuation) -> None:
    tokens = np.random.default_rng(0).integers(0, 47, 150).astype(np.int32)
    nats = model.nats([tokens])[0]
    np.testing.assert_allclose(nats[:64], model.nats([tokens[:64]])[0], rtol=1e-5)
    np.testing.assert_allclose(nats[64:96], model.nats([tokens[32:96]])[0][32:], rtol=1e-5)
    np.testing.assert_allclose(nats[128:], model.nats([tokens[96:]])[0][32:], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "at least one"),
        ({"seconds": 1.0, "steps": 2}, "give one of them"),
        ({"seconds": 0.0}, "more than nothing"),
        ({"temperature": -1.0}, "negative"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 1.5}, "from 0 to 1"),
    ],
)
def test_what_cannot_be_asked_for(model: Continuation, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.write(**options)  # type: ignore[arg-type]


def test_performances(tmp_path: Path) -> None:
    """A codec whose tokens take time or not: seconds are counted, and music that stands still ends too."""
    config = replace(Config.tiny(), layers=1, classes=308, steps=64, relations=("index",), voices=1, cycle=1)
    model = build("played", config, {"name": "performance", "steps": 64})
    written = model.write(2, seconds=3.0)
    for tokens in written:
        assert model.coder.seconds(tokens)[-2] < 3.0
    stands_still = model.write(1, seconds=1.0, temperature=0)[0]
    assert len(stands_still) <= 300
    with pytest.raises(InputError, match="played: doesn't write four voices; use music-transformer/jsb or coconet"):
        model.harmonize(model.coder.decode(written[0]))
    score = model.coder.decode(written[0])
    io.write_midi(score, tmp_path / "a.mid")
    assert len(model.score(tmp_path / "a.mid").nats) == len(model.tokens(tmp_path / "a.mid"))


def test_the_command_line(
    weights: str, primer: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    io.write_midi(primer, tmp_path / "a.mid")
    assert main(["generate", weights, "-n", "2", "--steps", "32", "--top-p", "0.9", "--midi-only"]) == 0
    assert len(list(Path("out").glob("*.mid"))) == 2
    assert main(["continue", weights, "a.mid", "-n", "2", "--steps", "32", "--midi-only", "--out", "on"]) == 0
    assert len(list(Path("on").glob("*.mid"))) == 3
    capsys.readouterr()
    assert main(["score", weights, "a.mid", "--json", "--plots", "pictures", "--attention", "looks"]) == 0
    assert '"nats_a_token"' in capsys.readouterr().out
    assert Path("pictures/a.png").is_file()
    assert Path("looks/a-attention.png").is_file()
    for command, message in (
        (["continue", weights, "a.mid", "--primer", "0.0001", "--steps", "4"], ""),
        (["interpolate", weights, "a.mid", "a.mid"], "has no latent vectors"),
        (["generate", weights, "--interpolate", "3"], "has no latent vectors to interpolate"),
        (["score", weights, "nothing.mid"], "no such file"),
    ):
        code = main([*command, *([] if command[0] in ("score", "interpolate") else ["--midi-only"])])
        error = capsys.readouterr().err
        assert code == (1 if message else 0), error
        assert message in error
    assert isinstance(load(weights), Continuation)


def test_over_chords(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chords given to a model that improvises over them decide what it writes, and how much."""
    monkeypatch.chdir(tmp_path)
    config = event_rnn.Config(steps=16, units=(8,), context="chord", keep=1.0)
    facts = {"architecture": "event-rnn", "config": asdict(config), "codec": {"name": "lead-sheet", "bars": 1}}
    found = Found("improv", event_rnn.ARCHITECTURE, config, get_codec("lead-sheet", bars=1), facts, dict)
    module = drawn(event_rnn.EventRNN, config)
    module.layers[0].kernel[...] *= 20  # so that even random weights heed what they are given
    improv = str(Continuation(module, found).save(tmp_path / "improv.safetensors"))

    def written(folder: str, *options: str) -> list[Score]:
        command = ["generate", improv, "-n", "2", "--temperature", "1", "--midi-only", "--out", folder, *options]
        assert main(command) == 0
        return [io.read(path) for path in sorted(Path(folder).glob("*.mid"))]

    one, again, other = (written(f"{i}", "--chords", c) for i, c in enumerate(("C F#m7", "C F#m7", "Bb/D N.C.")))
    assert [a.pitch.tolist() for a in one] == [b.pitch.tolist() for b in again]
    assert [a.pitch.tolist() for a in one] != [b.pitch.tolist() for b in other]
    assert max(score.quarters for score in one) > 4.0
    assert max(score.quarters for score in written("3", "--chords", "C F", "--steps", "16")) <= 4.0
    capsys.readouterr()
    for name, chords, message in (
        (improv, "C Hm", "'Hm' is no chord symbol"),
        (improv, " ", "names no chord"),
        (weights, "C", "is given no chords"),
    ):
        assert main(["generate", name, "--chords", chords, "--midi-only"]) == 1
        assert message in capsys.readouterr().err
