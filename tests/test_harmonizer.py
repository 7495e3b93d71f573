"""Harmonizer: what its beam promises, that padding changes nothing, and what a user asks of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import zoo
from tests import shared
from zoo.cli import main
from zoo.models import harmonizer
from zoo.models.harmonizer import Config, Harmonizer
from zoo.music import io
from zoo.music.harmony import CHORDS, MELODY, PLACES, SLOT, HarmonyCodec, pitch_classes, token_of
from zoo.music.musicxml import read_musicxml
from zoo.music.score import Score
from zoo.nn.beam import beam_search
from zoo.nn.likelihood import surprise
from zoo.nn.sampling import Sampling
from zoo.weights.formats import safetensors

SMALL = replace(Config.tiny(), classes=3, steps=16)  # 4 slots of one token: 81 harmonies
SONG = Config(units=16, heads=2, hidden=16, encoder_layers=1, decoder_layers=1, keep=1.0)
CHORALE = replace(SONG, source=47, classes=47, steps=64, slot=1, patch=1, voices=3, places=1)


KINDS = pytest.mark.parametrize(
    "config",
    [
        pytest.param(SMALL, id="chords"),
        pytest.param(harmonizer.ARCHITECTURE.tiny["voices"], id="voices", marks=pytest.mark.slow),
    ],
)


def network(config: Config, seed: int = 0) -> Harmonizer:
    """Random weights large enough that harmonies differ in likelihood."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Harmonizer(config, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    return nnx.merge(graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), state))


@pytest.fixture(scope="module", autouse=True)
def _fast_to_compile() -> Iterator[None]:
    """Compiling is most of what these tests cost."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


forward = jax.jit(lambda model, x: model.forward(x)[0])
beam = jax.jit(harmonizer.beam, static_argnums=3)
sample = jax.jit(harmonizer.sample)


def music(config: Config, rows: int = 2, seed: int = 0) -> jax.Array:
    x = harmonizer.example(config, rows, np.random.default_rng(seed))["x"]
    whole = x[..., 0].max(axis=1) < config.source
    assert whole.any()
    return jnp.asarray(np.resize(x[whole], x.shape))


def log_likelihood(model: Harmonizer, x: jax.Array, written: jax.Array) -> jax.Array:
    """Of target tokens [N, L] for the melody x [1, T, C]: [N], teacher-forced."""
    c = model.config
    columns = jnp.repeat(written.reshape(len(written), -1, c.voices), c.slot, axis=1)
    filled = jnp.repeat(x, len(written), axis=0).at[..., 1 : 1 + c.voices].set(columns)
    return -surprise(forward(model, filled), written).sum(axis=1)


# --- beam search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_a_wide_beam_finds_the_likeliest_of_all(seed: int) -> None:
    """27 prefixes of three tokens are all there are; of the 81 harmonies none is likelier than the first found."""
    model, x = network(SMALL, seed), music(SMALL, 1, seed)
    every = jnp.array(list(itertools.product(range(3), repeat=4)))
    likelihoods = log_likelihood(model, x, every)
    written, scores = beam(model, x, jnp.array([4]), 27)
    best = np.argsort(-np.asarray(likelihoods))
    np.testing.assert_array_equal(written[0, 0], every[best[0]])
    np.testing.assert_allclose(scores[0, :27], np.sort(likelihoods)[::-1][:27], rtol=1e-4, atol=1e-4)
    assert len({tuple(row) for row in written[0].tolist()}) == 27


@KINDS
def test_a_beam_of_one_is_greedy(config: Config) -> None:
    model, x = network(config), music(config, 3)
    length = config.steps // config.slot * config.voices
    greedy = sample(model, x, jax.random.key(0), Sampling(0.0))
    written, score = beam(model, x, jnp.full(3, length), 1)
    np.testing.assert_array_equal(written[:, 0], greedy)
    own = [log_likelihood(model, x[i : i + 1], greedy[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(score[:, 0], own, rtol=1e-4, atol=1e-4)


def test_a_beam_finds_what_greed_misses() -> None:
    """The first token that is likelier leads to less likely ones; a beam of two is not misled."""
    after = jnp.log(jnp.array([[0.5, 0.5], [0.05, 0.95], [0.6, 0.4]]))  # given token 0, 1, and the start

    def step(state: jax.Array, token: jax.Array, context: None) -> tuple[jax.Array, jax.Array]:
        return after[token], state

    found = {}
    for width in (1, 2):
        start = jnp.full((1, width), 2), jnp.ones((1, 2), bool)
        written, score = beam_search(step, jnp.zeros(width), *start)
        found[width] = written[0, 0].tolist(), float(jnp.exp(score[0, 0]))
    assert found[1][0][0] == 0
    assert found[1][1] == pytest.approx(0.3)
    assert found[2] == ([1, 1], pytest.approx(0.38))


def test_beams_carry_their_own_state() -> None:
    """A prefix's state goes where the prefix goes: here it is the sum of its tokens, on which the next one depends."""

    def step(state: jax.Array, token: jax.Array, context: None) -> tuple[jax.Array, jax.Array]:
        state = state + jnp.where(token == 3, 0, token)
        return jnp.sin(1.7 * state[:, None] + jnp.arange(3) * 2.3), state

    def score(tokens: tuple[int, ...]) -> float:
        total, state = 0.0, 0
        for token in tokens:
            total += float(jax.nn.log_softmax(jnp.sin(1.7 * state + jnp.arange(3) * 2.3))[token])
            state += token
        return total

    written, scores = beam_search(step, jnp.zeros(18), jnp.full((2, 9), 3), jnp.ones((2, 3), bool))
    best = max(itertools.product(range(3), repeat=3), key=score)
    for row in range(2):
        assert tuple(written[row, 0].tolist()) == best
        assert float(scores[row, 0]) == pytest.approx(score(best), abs=1e-5)


# --- padding, steps ---------------------------------------------------------------------------------------------------


@KINDS
def test_padding_behind_a_piece_changes_nothing(config: Config) -> None:
    model, x = network(config), music(config)
    fill = jnp.array([config.source] + [config.classes] * config.voices + [0] * (config.places > 1))
    padded = jnp.concatenate([x, jnp.broadcast_to(fill, (len(x), 2 * config.slot, len(fill)))], axis=1)
    short, long = forward(model, x), forward(model, padded)
    np.testing.assert_allclose(long[:, : short.shape[1]], short, rtol=1e-4, atol=1e-5)
    evaluate = jax.jit(lambda model, x: harmonizer.evaluate(model, {"x": x}, jax.random.key(0)))
    one, two = (evaluate(model, each) for each in (x, padded))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, two)


def test_a_beam_ends_where_the_piece_ends() -> None:
    model, x = network(SMALL), music(SMALL)
    longer = jnp.concatenate([x, x[:, : 2 * SMALL.slot].at[..., 0].set(SMALL.source)], axis=1)
    written, score = beam(model, longer, jnp.array([4, 4]), 3)
    assert not np.asarray(written[..., 4:]).any()
    own = [log_likelihood(model, x[i : i + 1], written[i, :, :4]) for i in range(2)]
    np.testing.assert_allclose(score, own, rtol=1e-4, atol=1e-4)


def test_step_by_step_is_all_at_once_and_looks_at_no_later_harmony() -> None:
    model, x = network(SMALL), music(SMALL)
    y, place = harmonizer.targets(SMALL, x), harmonizer.places(SMALL, x)
    logits = forward(model, x)
    state = jax.jit(lambda model, x: model.decoder.start(*model.encode(x), 4))(model, x)
    step, token, stepped = jax.jit(lambda model, *args: model.step(*args)), jnp.full(2, 3), []
    for at in range(4):
        one, state = step(model, state, token, place[:, at])
        stepped.append(one)
        token = y[:, at]
    np.testing.assert_allclose(jnp.stack(stepped, axis=1), logits, rtol=1e-4, atol=1e-5)
    other = x.at[:, 2 * SMALL.slot :, 1].set((x[:, 2 * SMALL.slot :, 1] + 1) % 3)
    changed = np.abs(forward(model, other) - logits).max(axis=(0, 2))
    assert changed[:3].max() < 1e-6 < changed[3]
    melody = x.at[:, -1, 0].set((x[:, -1, 0] + 1) % SMALL.source)  # the melody is known as a whole
    assert np.abs(forward(model, melody) - logits)[:, 0].max() > 1e-4


# --- what a user asks -------------------------------------------------------------------------------------------------


def saved(folder: Path, config: Config, codec: dict[str, object]) -> Path:
    _, state = nnx.split(network(config))
    flat = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}
    facts = {"architecture": "harmonizer", "config": asdict(config), "codec": codec}
    path = folder / "model.safetensors"
    safetensors.write(path, flat, facts)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Random weights: one that writes chords, one that writes voices."""
    chords = saved(tmp_path_factory.mktemp("chords"), SONG, {"name": "harmony"})
    voices = saved(tmp_path_factory.mktemp("voices"), CHORALE, {"name": "chorale", "bars": 4, "whole": True})
    return SimpleNamespace(chords=chords, voices=voices, of_chords=zoo.load(chords), of_voices=zoo.load(voices))


def waltz(**options: object) -> Score:
    """Four bars of 3/4 in G, a quarter a note, at 90."""
    pitches = [67, 71, 74, 72, 71, 69, 66, 69, 72, 71, 67, 67]
    facts = {"tempos": np.array([[0.0, 90.0]]), "meters": np.array([[0.0, 3, 4]]), "track_names": ("Melody",)}
    return Score.of(range(12), range(1, 13), pitches, **(facts | options))


def test_chords_for_a_melody(models: SimpleNamespace) -> None:
    model, tune = models.of_chords, waltz()
    one, two = model.harmonize_scores(tune, 2, key=3)
    assert [note for note in zip(one.start, one.pitch, strict=True) if note[1] >= 64] == list(
        zip(tune.start, tune.pitch, strict=True)
    )
    assert one.chords != two.chords
    assert {at % 3 for at, _ in one.chords} <= {0, 2}  # on the slots of a bar
    for at, symbol in one.chords:
        sounding = (one.track == 1) & (one.start <= at) & (one.end > at)
        assert {pitch % 12 for pitch in one.pitch[sounding]} == pitch_classes(token_of(symbol))
    assert model.harmonize_scores(tune, 2, key=3)[0].chords == one.chords
    assert model.harmonize_scores(tune, 1, key=4)[0].chords != one.chords
    assert model.chords(tune, key=3) != ()
    assert model.chords(tune, temperature=0) == model.chords(tune, temperature=0)
    up = model.chords(replace(tune, pitch=tune.pitch + 3), key=3)
    assert [token_of(symbol) for _, symbol in up] == [token_of(symbol, 3) for _, symbol in model.chords(tune, key=3)]


def test_voices_for_a_melody(models: SimpleNamespace) -> None:
    one, two = models.of_voices.harmonize_scores(waltz(), 2, key=3)
    assert one.track_names == ("Soprano", "Alto", "Tenor", "Bass")
    soprano = one.select(one.track == 0)
    line = models.of_voices.codec.melody(waltz())
    np.testing.assert_array_equal(models.of_voices.codec.encode(one)[:, 0][: len(line)], line)
    assert len(soprano)
    assert one.pitch.tolist() != two.pitch.tolist()
    with pytest.raises(zoo.InputError, match="writes voices, not chords"):
        models.of_voices.chords(waltz())


def test_likelihood_of_a_piece(models: SimpleNamespace) -> None:
    """It is that of the network; a beam's harmony is likelier than what one draws."""
    model = models.of_chords
    nats = model.score(waltz(chords=((0.0, "G"), (3.0, "D7"), (9.0, "G"))))
    assert nats.shape == (8,)
    assert (nats > 0).all()
    piece = model.piece(waltz())
    likeliest, drawn = model.write(piece.music, temperature=0)[0], model.write(piece.music, temperature=1, key=0)[0]
    assert model.nats(model.filled(piece.music, likeliest)).sum() < model.nats(model.filled(piece.music, drawn)).sum()
    with pytest.raises(zoo.InputError, match="no chord symbols"):
        model.score(waltz())


def test_attention(models: SimpleNamespace) -> None:
    for model, rows, columns in ((models.of_chords, 8, 32), (models.of_voices, 144, 48)):
        found = model.attention(waltz())
        assert found.weights.shape == (1, 2, rows, columns)
        np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-5)
        assert len(found.rows) == rows
        assert len(found.columns) == columns
        assert found.rows[-1] == pytest.approx(found.columns[-1], abs=1.5)
        assert (np.diff(found.columns) >= 0).all()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n": 0}, "n=0"),
        ({"n": 3, "width": 2}, "width=2"),
        ({"temperature": -1}, "temperature -1"),
        ({"width": 1000}, "width=1000"),
    ],
)
def test_what_cant_be_asked(models: SimpleNamespace, options: dict[str, float], error: str) -> None:
    with pytest.raises(zoo.InputError, match=error):
        models.of_chords.harmonize(waltz(), **options)


def test_the_command(models: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune = tmp_path / "tune.mid"
    io.write_midi(waltz(), tune)
    out = ["--out", str(tmp_path / "out"), "--midi-only"]
    assert (
        main(["harmonize", str(models.chords), str(tune), "-n", "2", "--attention", str(tmp_path / "a.png"), *out]) == 0
    )
    assert (tmp_path / "a.png").is_file()
    sheet = tmp_path / "out" / "tune-harmonized-1.musicxml"
    read = read_musicxml(sheet.read_bytes())
    played = io.read(tmp_path / "out" / "tune-harmonized-1.mid")
    assert read.chords
    np.testing.assert_array_equal(read.pitch, waltz().pitch)
    assert (played.track == 1).any()
    for wrong, said in (
        (["--steps", "3"], "no Gibbs chain"),
        (["--beam", "2", "-n", "3", "--temperature", "0"], "as the beam is wide"),
    ):
        capsys.readouterr()
        assert main(["harmonize", str(models.chords), str(tune), *wrong, *out]) != 0
        assert said in capsys.readouterr().err


def test_fine_tuning_on_lead_sheets(models: SimpleNamespace, tmp_path: Path) -> None:
    from zoo.music.musicxml_out import musicxml_bytes

    folder = tmp_path / "sheets"
    folder.mkdir()
    (folder / "waltz.musicxml").write_bytes(
        musicxml_bytes(waltz(chords=((0.0, "G"), (3.0, "D7"), (9.0, "G"))), (0,), 7)
    )
    tuned = zoo.finetune(models.chords, folder, tmp_path / "run", steps=60, batch_size=2, learning_rate=2e-2)
    before, after = (zoo.evaluate(each, folder, split="train") for each in (models.chords, tmp_path / "run"))
    assert after["nll"] < before["nll"] / 4
    assert [symbol for _, symbol in tuned.chords(waltz(), temperature=0)] == ["G", "D7", "G"]  # type: ignore[attr-defined]


def test_the_published_chords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the zoo harmonises a scale's cadence as anyone would, in any key."""
    tune = Score.of(range(8), range(1, 9), [67, 64, 60, 64, 65, 62, 59, 55], tempos=np.array([[0.0, 100.0]]))
    tune = Score.of(
        np.r_[tune.start, 8 + tune.start, 16], np.r_[tune.end, 8 + tune.end, 20], np.r_[tune.pitch, tune.pitch, 60]
    )
    model = zoo.load("harmonizer")
    symbols = [symbol for _, symbol in model.chords(tune, temperature=0)]  # type: ignore[attr-defined]
    assert symbols[0] == symbols[-1] == "C"
    assert {"G", "G7"} & set(symbols)


def test_unseen_tunes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tunes of Nottingham's test split, teacher-forced, it is right far more often than the most frequent chord."""
    archive = shared.path("data/nottingham.tar.gz")
    from zoo.data import load_pieces

    model, codec = zoo.load("harmonizer"), HarmonyCodec()
    pieces = load_pieces(
        archive.parent, "test", patterns=["nottingham*/jigs*", "!*/melody/*", "!*/chords/*"], codec=codec
    )
    songs = [codec.encode(score).tokens for _, score in itertools.islice(pieces, 5)]
    truth = np.concatenate([song[::SLOT, 1] for song in songs])
    found = np.concatenate([model.likeliest(song) for song in songs])  # type: ignore[attr-defined]
    assert len(songs) == 5
    assert (found == truth).mean() > (truth == np.bincount(truth).argmax()).mean() + 0.2


def test_the_numbers_fit() -> None:
    assert (Config().source, Config().classes, Config().places, Config().slot) == (MELODY, CHORDS, PLACES, SLOT)
    with pytest.raises(ValueError, match="patches of 3"):
        Config(patch=3)
    assert json.loads(json.dumps(asdict(Config()))) == asdict(Config())
