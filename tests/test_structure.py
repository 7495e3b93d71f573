"""Structure Transformer: its features, what it reads from them, how its answers become sections, and their measures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import shared
from tests.networks import drawn
from zoo import training
from zoo.data import Song
from zoo.errors import InputError, WeightsError
from zoo.models.structure_transformer import ARCHITECTURE, Config, Heard, StructureTransformer, turned
from zoo.music import section_metrics
from zoo.music.sections import Section, tidy
from zoo.music.self_similarity import novelty, repetition_novelty, similarity
from zoo.tasks import structure as task
from zoo.tasks.structure import Structure, StructureModel, decode, examples, features, letters_of, peaks, pooled

TINY = Config.tiny()
RNG = np.random.default_rng(0)


def song_of(form: str, length: int = 40, seconds: float = 0.25) -> Song:
    """A song whose sections, named by letters, are each a chroma of their own with some noise; A is a verse."""
    kinds = {letter: RNG.uniform(0, 1, 24) ** 4 for letter in sorted(set(form))}
    frames = np.concatenate([kinds[letter] + RNG.uniform(0, 0.1, (length, 24)) for letter in form]).astype(np.float32)
    words = {"A": "verse", "B": "chorus", "Z": "silence"}
    parts = tuple(
        Section(
            i * length * seconds, (i + 1) * length * seconds, words.get(letter, ""), "" if letter == "Z" else letter
        )
        for i, letter in enumerate(form)
    )
    return Song(form, frames, seconds, len(frames) * seconds, {}, parts)


# --- features --------------------------------------------------------------------------------------------------------


def test_novelty_is_greatest_where_blocks_meet() -> None:
    frames = np.repeat(np.eye(3), [20, 12, 8], axis=0).astype(np.float32)
    found = novelty(similarity(frames), (4, 8))
    assert found.shape == (41, 2)
    np.testing.assert_allclose(found[[20, 32]], 2, atol=1e-5)
    np.testing.assert_allclose(found[[0, 10, 40]], 0, atol=1e-5)
    assert sorted(np.argsort(found[:, 0])[-2:]) == [20, 32]
    # By the definition, at an instant whose kernel is cut by the song's end:
    alike = similarity(RNG.uniform(0, 1, (9, 5)).astype(np.float32))
    expected = alike[5:7, 5:7].mean() + alike[7:, 7:].mean() - 2 * alike[5:7, 7:].mean()
    np.testing.assert_allclose(novelty(alike, (4,))[7, 0], expected, rtol=1e-5)


def test_repetition_changes_where_what_is_repeated_ends() -> None:
    """In the mean of twenty songs: in one of them a few frames are alike by chance."""
    rng, curves = np.random.default_rng(0), []
    for _ in range(20):
        phrase, other = rng.uniform(0, 1, (40, 12)), rng.uniform(0, 1, (2, 40, 12))
        frames = np.concatenate([phrase, other[0], phrase, other[1]]).astype(np.float32)
        curves.append(repetition_novelty(frames, memory=3, neighbours=0.02, width=2))
        assert (curves[-1].shape, curves[-1].max()) == ((160,), 1.0)
    found = np.mean(curves, axis=0)
    near = np.abs(np.arange(160)[:, None] - (40, 80, 120)) <= 4
    elsewhere = found[8:152][~near.any(axis=1)[8:152]]
    assert all(found[edge].max() > 1.5 * elsewhere.max() for edge in near.T)
    assert repetition_novelty(frames[:1], 3, 0.1, 2).tolist() == [0.0]


def test_pooled_frames_are_means_and_the_last_may_be_short() -> None:
    np.testing.assert_array_equal(pooled(np.arange(10, dtype=np.float32).reshape(5, 2), 2), [[1, 2], [5, 6], [8, 9]])


def test_features_do_not_depend_on_loudness_and_turn_with_the_key() -> None:
    frames = song_of("ABA").frames
    once = features(frames, TINY)
    assert (once.shape, once.dtype) == ((30, TINY.features), np.float32)
    np.testing.assert_allclose(features(7 * frames, TINY), once, atol=1e-5)
    higher = np.concatenate([np.roll(frames[:, :12], 3, axis=1), np.roll(frames[:, 12:], 3, axis=1)], axis=1)
    np.testing.assert_allclose(features(higher, TINY), turned(jnp.asarray(once)[None], jnp.array([3]))[0], atol=1e-5)
    assert np.isfinite(features(np.zeros((1, 24), np.float32), TINY)).all()


# --- what it learns from ---------------------------------------------------------------------------------------------


def test_examples_say_where_sections_begin_and_what_they_are() -> None:
    song = song_of("ZABB", 24)  # six frames of the network each, three tokens
    config = replace(TINY, smear=0.5)
    found = examples(song, config)
    assert found["x"].shape == (1, 24, config.features)
    assert found["mask"].all()
    assert np.flatnonzero(found["boundary"][0] > 0.99).tolist() == [6, 12, 18]
    assert found["boundary"][0, 0] < 0.01
    assert found["function"][0].tolist() == [0] * 3 + [1] * 3 + [2] * 6
    letters = found["letter"][0]
    assert letters[6] == letters[11] != letters[3] != letters[0]
    longer, shorter = (examples(song_of("AB", length), config) for length in (80, 10))
    assert longer["x"].shape == found["x"].shape
    assert shorter["mask"][0].sum() == 2  # half a token at its end is left out
    with pytest.raises(InputError, match="no sections beside it"):
        examples(replace(song, sections=()), config)
    nameless = examples(replace(song, sections=(Section(0, 6, ""), Section(6, 24, "yodel"))), config)
    assert set(nameless["function"][0].tolist()) == {-1}  # the tiny vocabulary has no "other"
    assert set(nameless["letter"][0].tolist()) == {-1}


def test_what_nobody_said_costs_nothing() -> None:
    model = drawn(StructureTransformer, TINY)
    batch = {name: jnp.asarray(rows) for name, rows in ARCHITECTURE.example(TINY, 2, RNG).items()}
    unsaid = batch | {"function": jnp.full_like(batch["function"], -1), "letter": jnp.full_like(batch["letter"], -1)}
    graph, state = nnx.split(model)
    loss = jax.jit(lambda state, key: ARCHITECTURE.loss(nnx.merge(graph, state), unsaid, key, jnp.int32(0)))
    _, parts = loss(state, jax.random.key(0))
    assert (float(parts["function_loss"]), float(parts["alike_loss"])) == (0, 0)
    assert float(parts["boundary_loss"]) > 0


def test_nothing_past_the_end_is_heard() -> None:
    model = drawn(StructureTransformer, TINY)
    batch = {name: jnp.asarray(rows) for name, rows in ARCHITECTURE.example(TINY, 4, RNG).items()}
    end = int(batch["mask"][3].sum())
    x = batch["x"].at[3, end * TINY.patch :].set(9.0)
    graph, state = nnx.split(model)
    hear = jax.jit(lambda state, x: nnx.merge(graph, state)(x, batch["mask"]))
    once, again = (hear(state, given) for given in (batch["x"], x))
    np.testing.assert_allclose(again.boundary[3, : end * TINY.patch], once.boundary[3, : end * TINY.patch], atol=1e-5)
    np.testing.assert_allclose(again.embedding[3, :end], once.embedding[3, :end], atol=1e-5)
    assert float(once.attention[3, ..., :end, end:].max()) < 1e-6


@pytest.mark.slow
def test_it_learns_the_sections_of_songs_it_has_not_heard() -> None:
    """Songs of two kinds of section in random keys, after a minute's worth of a tiny network's time."""
    config = replace(TINY, steps=20, smear=1.0)
    forms = ["ABAB", "AABA", "BABA", "ABBA", "ABAA", "BBAB"]
    rows = [examples(song_of(form, 20), config) for form in forms * 4]
    batch = {name: jnp.asarray(np.concatenate([row[name] for row in rows])) for name in rows[0]}
    graph, params = nnx.split(StructureTransformer(config, rngs=nnx.Rngs(0)))
    tx = training.make_optimizer({"learning_rate": 3e-3})
    step = training.make_train_step(graph, ARCHITECTURE.loss, tx)
    state = training.TrainState.create(params, tx, jax.random.key(0))
    for _ in range(120):
        state, _ = step(state, batch)
    model = nnx.merge(graph, state.params)
    unheard = [song_of(form, 20) for form in ("BAAB", "ABAB")]
    for song in unheard:
        row = examples(song, config)
        heard = model(jnp.asarray(row["x"], jnp.float32), jnp.asarray(row["mask"]))
        heard = jax.tree.map(lambda array: np.asarray(array), heard)
        heard = heard._replace(
            boundary=heard.boundary[0, :20],
            function=heard.function[0, :10],
            embedding=heard.embedding[0, :10],
            alike=heard.alike[0],
        )
        found = decode(heard, row["x"][0, :20], song.seconds, replace(config, threshold=0.3, apart=2.0), 1.0)
        assert section_metrics.compare(song.sections, found.sections)["boundary_f1_3"] > 0.6


# --- from what it says to sections -----------------------------------------------------------------------------------


def test_peaks_are_apart_and_likely() -> None:
    p = np.zeros(60, np.float32)
    p[[2, 10, 13, 30, 40, 58]] = [0.9, 0.6, 0.8, 0.15, 0.5, 0.9]
    assert peaks(p, 0.2, 5) == [13, 40]  # 2 and 58 are too near the ends, 10 too near 13, 30 too weak
    assert peaks(p, 0.2, 3) == [10, 13, 40]
    assert peaks(p, 0.1, 5) == [13, 30, 40]
    assert peaks(p[:1], 0.1, 5) == []


def test_letters_come_in_the_order_of_the_song() -> None:
    kinds = np.array([9, 2, 5, 2, 9, 5])
    alike = np.where(kinds[:, None] == kinds, 0.9, 0.1).astype(np.float32)
    assert letters_of(alike, [True, False, False, False, False, False], 0.5) == ["", "A", "B", "A", "C", "B"]
    assert letters_of(alike, [False] * 6, 0.05) == ["A"] * 6
    assert letters_of(np.ones((1, 1), np.float32), [False], 0.5) == ["A"]
    assert letters_of(np.ones((2, 2), np.float32), [True, True], 0.5) == ["", ""]
    many = letters_of(np.eye(28, dtype=np.float32), [False] * 28, 0.5)
    assert many[25:] == ["Z", "A'", "B'"]


def spoken() -> Heard:
    """What a network that is sure would say of 20 frames: silence, verse A, chorus, verse A."""
    boundary = np.full(20, -9.0, np.float32)
    boundary[[4, 10, 16]] = [3, 2, 1]
    kind = np.array([0, 0, 1, 1, 1, 2, 2, 2, 1, 1])
    function = 5 * np.eye(3, dtype=np.float32)[kind]
    embedding = np.eye(6, dtype=np.float32)[kind]
    return Heard(boundary, function, embedding, np.array([8.0, -4.0], np.float32), np.zeros(()))  # type: ignore[arg-type]


def chroma() -> np.ndarray:
    """The chroma of these frames."""
    return np.eye(24, dtype=np.float32)[np.repeat([0, 1, 2, 1], [4, 6, 6, 4])]


def test_sections_of_what_is_heard(tmp_path: Path) -> None:
    found = decode(spoken(), chroma(), 10.2, replace(TINY, threshold=0.5, apart=1.0), 0.5)
    assert [(part.start, part.end, part.label, part.letter) for part in found] == [
        (0.0, 2.0, "silence", ""),
        (2.0, 5.0, "verse", "A"),
        (5.0, 8.0, "chorus", "B"),
        (8.0, 10.2, "verse", "A"),
    ]
    np.testing.assert_allclose([sure for _, sure in found.boundaries], 1 / (1 + np.exp([-3.0, -2.0, -1.0])), rtol=1e-5)
    np.testing.assert_allclose(found.function.sum(axis=1), 1, rtol=1e-5)
    assert found.to_lab(tmp_path / "a.lab").splitlines()[1] == "2.000000\t5.000000\tA, verse"
    assert '"label": "chorus"' in found.to_json(tmp_path / "a.json")
    assert found.plot(tmp_path / "a.png", "a").read_bytes()[:4] == b"\x89PNG"
    spans = found.lanes()[0].spans  # type: ignore[union-attr]
    assert spans[1][3] == spans[3][3] != spans[2][3]
    assert spans[0][3] is None
    sure = decode(spoken(), chroma(), 10.2, replace(TINY, threshold=0.99, share=1.2, apart=1.0), 0.5)
    assert len(sure) == 1
    unsure = spoken()._replace(boundary=spoken().boundary - 6)
    assert len(decode(unsure, chroma(), 10.2, replace(TINY, threshold=0.5, share=0.5, apart=1.0), 0.5)) == 2


def model_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny model with random weights."""
    monkeypatch.setattr("zoo.tasks.model.use_compilation_cache", lambda: None)
    codec = SimpleNamespace(
        sample_rate=100, hop=25, features=lambda source: (np.abs(source[0]).reshape(-1, 24), len(source[0]) / 24 / 4)
    )
    found: Any = SimpleNamespace(name="tiny", architecture=ARCHITECTURE, config=TINY, card=None, codec=codec, facts={})
    return StructureModel(drawn(StructureTransformer, TINY), found)


def test_a_song_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(monkeypatch)
    song = song_of("ABAB", 33)
    source = (song.frames.ravel(), 100)
    found = model.sections(source)
    assert isinstance(found, Structure)
    assert found.seconds == song.seconds == found.sections[-1].end
    assert all(a.end == b.start for a, b in pairwise(found.sections))
    assert (len(found.boundary), len(found.function)) == (33, 17)
    assert model.embed(source).shape == (17, TINY.embedding)
    attention = model.attention(source)
    assert attention.weights.shape == (TINY.layers, TINY.heads, 17, 17)
    np.testing.assert_allclose(attention.weights.sum(axis=-1), 1, atol=1e-5)
    assert attention.rows[1] == 0.25 * TINY.hops * TINY.patch
    table, lanes = model.describe(source)
    assert len(table["sections"]) == len(found)
    assert len(lanes) == 3
    assert len(model.sections((song.frames[:1].ravel(), 100))) == 1


def test_evaluation_needs_songs_with_sections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, songs = model_of(monkeypatch), [song_of("ABAB"), replace(song_of("AB"), sections=())]
    monkeypatch.setattr(task, "read_songs", lambda *args: iter(songs))
    measured = task.evaluate(model, tmp_path)
    assert measured["songs"] == 1
    assert {"boundary_f1_0.5", "boundary_f1_3", "pairwise_f1", "v_measure", "function_accuracy"} <= set(measured)
    songs = songs[1:]
    with pytest.raises(InputError, match="falls into test"):
        task.evaluate(model, tmp_path)


# --- measures --------------------------------------------------------------------------------------------------------


def test_measures_of_sections() -> None:
    true = (Section(0, 10, "verse", "A"), Section(10, 20, "chorus", "B'"), Section(20, 30, "verse", "A"))
    same = section_metrics.compare(true, tuple(replace(part, letter=part.letter.rstrip("'") * 2) for part in true))
    assert all(value == pytest.approx(1) for value in same.values())
    late = tuple(replace(part, start=part.start + (part.start > 0)) for part in true)
    late = tuple(
        replace(part, end=after.start) for part, after in zip(late, [*late[1:], Section(30, 0, "")], strict=True)
    )
    found = section_metrics.compare(true, late)
    assert found["boundary_f1_0.5"] == pytest.approx(0.5)  # the song's beginning and end alone
    assert found["trimmed_f1_0.5"] == 0
    assert found["boundary_f1_3"] == found["trimmed_f1_3"] == 1
    assert found["function_accuracy"] == pytest.approx(28 / 30)
    one = section_metrics.compare(true, (Section(0, 30, "verse", "A"),))
    assert one["trimmed_f1_3"] == 0
    assert one["pairwise_recall"] == 1
    assert one["pairwise_precision"] < 0.7


def test_tidy_sections_cover_the_song() -> None:
    parts = (
        Section(0.0, 0.4, "silence"), Section(0.4, 9.0, "verse", "A"), Section(9.0, 20.0, "outro", "B"),
        Section(20.0, 20.5, "silence"),
    )  # fmt: skip
    found = tidy(parts, 21.4)
    assert [(part.start, part.end, part.label) for part in found] == [
        (0.0, 9.0, "verse"), (9.0, 20.0, "outro"), (20.0, 21.4, "silence")
    ]  # fmt: skip
    assert [part.end for part in tidy(parts, 20.8)] == [9.0, 20.8]
    assert tidy((), 3.0) == (Section(0.0, 3.0, ""),)


# --- the trained model -----------------------------------------------------------------------------------------------


def test_the_functions_are_those_of_labels() -> None:
    from zoo.music.sections import FUNCTIONS

    assert Config().functions == FUNCTIONS


@pytest.mark.slow
def test_trained_weights_find_sections() -> None:
    """Half of the boundaries of some songs it has not learnt from, to three seconds: better than none every 20 s."""
    data = shared.path("data/billboard-chroma.npz").parent
    try:
        from zoo.tasks import load

        model: Any = load("structure-transformer")
    except (WeightsError, InputError) as error:
        pytest.skip(f"needs the weights: {error}")
    measured = task.evaluate(model, data, limit=12)
    assert measured["boundary_f1_3"] > 0.5
    assert measured["pairwise_f1"] > 0.4
