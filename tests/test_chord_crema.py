"""crema's chord recogniser: its parity with the original, its smoothing, and a recording cut into pieces."""

from __future__ import annotations

import json
import tracemalloc
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

import zoo
from tests.golden.make_chord_crema import RATE, song
from zoo.errors import InputError, WeightsError
from zoo.models import chord_crema
from zoo.models.chord_crema import ARCHITECTURE, GRU, ChordCrema, Config
from zoo.music import harte
from zoo.music.harmonic_cqt import HarmonicCqtCodec
from zoo.music.harte import ChordSpan
from zoo.tasks import chords as task
from zoo.tasks.chords import Progression, decode, smooth
from zoo.tasks.model import dotted, fill

GOLDEN = Path(__file__).with_name("golden") / "chord_crema.npz"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def crema() -> Any:
    """The published weights; skips where they can't be had."""
    try:
        return zoo.load("chord-crema")
    except WeightsError as error:
        pytest.skip(f"needs the published weights: {error}")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as archive:
        return dict(archive)


# --- parity with crema 0.2.0 -----------------------------------------------------------------------------------------


def test_network_is_the_original(crema: Any, golden: dict[str, np.ndarray]) -> None:
    """Given the same features: both intermediates and all outputs within 1e-4; measured 3e-6."""
    x, network = golden["features"], crema.module
    mask = np.ones((1, len(x)), bool)

    def layers(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        convolved = network.convolve(jnp.pad(x, ((2, 2), (0, 0), (0, 0)))[None], jnp.pad(mask, ((0, 0), (2, 2))))
        return convolved, network.layers[0](convolved, mask)

    with jax.default_matmul_precision("highest"):
        convolved, first = jax.jit(layers)(x)
        found = heard(network)(x[None], mask)
    np.testing.assert_allclose(convolved[0, ::4], golden["convolved"], atol=1e-4)
    np.testing.assert_allclose(first[0, ::4], golden["first"], atol=1e-4)
    for ours, theirs in (("chord", "tag"), ("root", "root"), ("bass", "bass"), ("pitch", "pitch")):
        np.testing.assert_allclose(getattr(found, ours)[0], golden[theirs], atol=1e-4, err_msg=ours)


def test_from_the_sound_to_the_chords(crema: Any, golden: dict[str, np.ndarray]) -> None:
    """From raw audio: features within 1e-3 of their 80 dB and mostly of a dB, outputs within 1e-3, the same chords."""
    features, seconds = crema.codec.features((song(), RATE))
    error = np.abs(features - golden["features"])
    assert error.max() < 0.08  # of 80 dB; measured 0.004, in bins 70 dB below the loudest
    assert np.mean(error > 1e-3) < 0.03
    found = crema.chords((song(), RATE))
    assert found.seconds == seconds == 8.0
    for ours, theirs in (("chord", "tag"), ("root", "root"), ("bass", "bass"), ("pitch", "pitch")):
        np.testing.assert_allclose(found.frames[ours], golden[theirs], atol=1e-3, err_msg=ours)
    assert (
        [chord.label for chord in found] == golden["labels"].tolist() == ["C:maj", "A:min", "F:maj", "G:7/3", "C:maj"]
    )
    starts, ends, confidence = golden["times"].T
    assert [chord.start for chord in found] == starts.tolist()
    assert [chord.end for chord in found][:-1] == ends[:-1].tolist()
    assert found.chords[-1].end == 8.0 < ends[-1]  # the original goes a frame past the end
    np.testing.assert_allclose([chord.confidence for chord in found], confidence, atol=1e-3)
    assert crema.embed((song(), RATE)).shape == (86, 256)


def test_the_card(crema: Any) -> None:
    """The vocabulary is the published one: 170 chords in the order of the encoder, 602 with inversions."""
    labels = crema.config.labels
    assert labels == Config().labels
    assert len(labels) == 170
    assert (labels[:2], labels[13:15], labels[-3:]) == (("A#:7", "A#:aug"), ("A#:sus4", "A:7"), ("G:sus4", "N", "X"))
    assert set(chord_crema.QUALITIES) == set(harte.QUALITIES)
    assert sum(max(1, len(harte.pitch_classes(label))) for label in labels) == 602
    assert chord_crema.NAMES == harte.NAMES


@pytest.mark.parametrize(
    ("samples", "labels"),
    [(np.zeros(44100), {"N"}), (np.sign(np.sin(2 * np.pi * 220 * np.arange(44100) / 44100)), None)],
    ids=["silence", "clipped"],
)
def test_sounds_of_no_music(crema: Any, samples: np.ndarray, labels: set[str] | None) -> None:
    found = crema.chords((samples.astype(np.float32), 44100))
    assert found.chords[0].start == 0.0
    assert found.chords[-1].end == 1.0
    assert labels is None or {chord.label for chord in found} == labels


@pytest.mark.parametrize(("rate", "subtype"), [(8000, "PCM_16"), (192_000, "PCM_24"), (48_000, "FLOAT")])
def test_files_of_every_kind(crema: Any, tmp_path: Path, rate: int, subtype: str) -> None:
    """Any rate and width, stereo: the chord that is played."""
    time = np.arange(2 * rate) / rate
    hz = 440 * 2.0 ** ((np.array([48, 60, 64, 67])[:, None, None] - 69) / 12) * np.arange(1, 6)[:, None]
    sound = 0.02 * np.sin(2 * np.pi * hz * time).sum(axis=(0, 1))
    soundfile.write(tmp_path / "c.wav", np.stack([sound, sound], axis=1), rate, subtype)
    assert [chord.label for chord in crema.chords(tmp_path / "c.wav")] == ["C:maj"]


def test_no_sound(crema: Any, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not a sound")
    for source, said in (
        (tmp_path / "text.wav", "can't be read as audio"),
        (tmp_path / "none.wav", "no such file"),
        ((np.full(44100, np.nan, np.float32), 44100), "not finite"),
        ((np.zeros(1, np.float32), 44100), "too short"),
    ):
        with pytest.raises(InputError, match=said):
            crema.chords(source)


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> ChordCrema:
    """Random numbers, drawn here since JAX would compile an initialiser for each shape."""
    shapes = nnx.state(nnx.eval_shape(lambda: ChordCrema(Config.tiny(), rngs=nnx.Rngs(0))))
    drawn = {dotted(path): RNG.normal(0, 0.4, leaf.shape) for path, leaf in nnx.to_flat_state(shapes)}
    network = fill(ChordCrema, Config.tiny(), drawn, "tiny")
    assert isinstance(network, ChordCrema)
    return network


def heard(network: ChordCrema) -> Any:
    """The network over whole recordings, compiled."""
    return jax.jit(lambda x, mask: network(x, mask))


def test_gru_step_by_step() -> None:
    """One loop for both directions gives what the equations give, written out."""
    layer = GRU(3, 4, rngs=nnx.Rngs(1))
    x = RNG.standard_normal((2, 5, 3)).astype(np.float32)
    found = jax.jit(lambda x: layer(x, jnp.ones((2, 5), bool)))(x)

    def sigma(x: np.ndarray) -> np.ndarray:
        return np.clip(0.2 * x + 0.5, 0, 1)

    for way, order, columns in (
        (layer.forward, range(5), slice(0, 4)),
        (layer.backward, range(4, -1, -1), slice(4, 8)),
    ):
        h = np.zeros((2, 4))
        (wz, wr, wc), (uz, ur, uc) = (np.split(np.asarray(k[...]), 3, axis=1) for k in (way.kernel, way.recurrent))
        bz, br, bc = np.split(np.asarray(way.bias[...]), 3)
        for t in order:
            z, r = sigma(x[:, t] @ wz + h @ uz + bz), sigma(x[:, t] @ wr + h @ ur + br)
            h = z * h + (1 - z) * np.tanh(x[:, t] @ wc + (r * h) @ uc + bc)
            np.testing.assert_allclose(found[:, t, columns], h, atol=1e-5)


def test_what_is_masked_changes_nothing(tiny: ChordCrema) -> None:
    """A shorter recording in a batch is heard as if it were alone."""
    batch = ARCHITECTURE.example(tiny.config, 2, RNG)
    noisy = np.where(batch["mask"][..., None, None], batch["x"], 1e3)
    whole = heard(tiny)(noisy, batch["mask"])
    alone = heard(tiny)(batch["x"][1:, :-1], np.ones((1, 8), bool))
    for together, apart in zip(whole, alone, strict=True):
        np.testing.assert_allclose(together[1, :-1], apart[0], atol=1e-5)


def test_by_pieces(tiny: ChordCrema, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of any length cut into pieces gives what the whole gives."""
    monkeypatch.setattr(chord_crema, "PIECE", 8)
    run, at_once = tiny.by_pieces(lambda kernel: jax.jit(partial(kernel, tiny))), heard(tiny)
    for frames in (1, 7, 8, 9, 31):
        x = RNG.uniform(-3, 3, (frames, 12, 2)).astype(np.float32)
        padded = np.pad(x, ((0, 31 - frames), (0, 0), (0, 0)))[None]
        expected = at_once(padded, np.arange(31)[None] < frames)
        for pieces, whole in zip(run(x), expected, strict=True):
            assert len(pieces) == frames
            np.testing.assert_allclose(pieces, whole[0, :frames], atol=1e-5)


def test_no_length_compiles_again(tiny: ChordCrema) -> None:
    """Four programs, two of them for the layers, whatever is heard after the first recording."""
    compiled: list[Any] = []

    def jit(kernel: Any) -> Any:
        compiled.append(jax.jit(partial(kernel, tiny)))
        return compiled[-1]

    run = tiny.by_pieces(jit)
    for frames in (3, 600, 1100, 40):
        assert run(RNG.uniform(-3, 3, (frames, 12, 2)).astype(np.float32)).chord.shape == (frames, 26)
        assert [program._cache_size() for program in compiled] == [1, 1, 1, 1]


def test_long_recordings_take_no_more_memory(tiny: ChordCrema) -> None:
    """From a stream to the chords: twelve minutes take what two do, but for the decoder's byte a frame and chord."""
    codec = HarmonicCqtCodec(sample_rate=8000, hop=256, lowest=220.0, octaves=1, bins_per_octave=12)
    run, noise = tiny.by_pieces(lambda kernel: jax.jit(partial(kernel, tiny))), RNG.normal(0, 0.1, 80_000)

    def peak(minutes: int) -> tuple[float, int]:
        stream = (noise.astype(np.float32) for _ in range(6 * minutes))
        tracemalloc.start()
        frames, seconds = codec.features((stream, 8000))
        found = run(frames)
        decode(found._asdict(), seconds, Config.tiny(), 8000, 256)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, sum(rows.shape[0] * int(np.prod(rows.shape[1:])) * 4 for rows in found)

    peak(1)  # compiles
    (short, _), (long, outputs) = peak(2), peak(12)
    frames = 10 * 60 * 8000 / 256
    assert outputs > 5e6, "what is kept on disk"
    assert long - short < frames * (len(Config.tiny().labels) + 3 * 8) + 2e5


# --- smoothing and decoding ------------------------------------------------------------------------------------------


def test_smoothing_is_the_likeliest_of_all_paths() -> None:
    """Against every path there is, for chords of any probability."""
    for stay in (0.3, 0.9, 0.99):
        probability = RNG.dirichlet([0.5] * 4, 6).astype(np.float32)
        move = np.full((4, 4), (1 - stay) / 3)
        np.fill_diagonal(move, stay)

        def likelihood(path: tuple[int, ...], p: np.ndarray = probability, move: np.ndarray = move) -> float:
            steps = sum(np.log(move[a, b]) for a, b in pairwise(path))
            return float(np.log(p[np.arange(6), path]).sum() + steps)

        best = max(product(range(4), repeat=6), key=likelihood)
        assert smooth(probability, stay).tolist() == list(best)


def test_smoothing_keeps_still() -> None:
    """A single weak frame does not change the chord, a strong one does; a ruled-out chord is no error."""
    p = np.tile(np.array([0.9, 0.1], np.float32), (9, 1))
    p[4] = 0.4, 0.6
    assert smooth(p, 0.95).tolist() == [0] * 9
    for weak in (0.001, 0.0):
        p[4] = weak, 1 - weak
        assert smooth(p, 0.95).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_decode() -> None:
    """Segments without gaps to the recording's end; the bass makes an inversion only of a note of the chord."""
    config = Config.tiny()
    order = ["C:maj", "C:maj", "G:min", "N"]
    chord = np.stack([np.eye(26, dtype=np.float32)[config.labels.index(label)] for label in order]) * 0.998 + 0.002 / 26
    bass = np.full((4, 13), 0.01, np.float32)
    bass[[0, 1, 2, 3], [4, 4, 0, 7]] = 0.88  # E under C, then C under G minor, which has none
    spans = decode({"chord": chord, "bass": bass}, 4.5, config, rate=1.0, hop=1)
    assert [(span.start, span.end, span.label) for span in spans] == [
        (0, 2, "C:maj/3"),
        (2, 3, "G:min"),
        (3, 4.5, "N"),
    ]
    assert spans[2].confidence == pytest.approx(0.998, abs=0.001)
    assert spans[1].confidence == pytest.approx(0.499, abs=0.001)  # with the frame after it
    assert [span.label for span in decode({"chord": chord}, 4.5, config, 1.0, 1)] == ["C:maj", "G:min", "N"]


def test_harte() -> None:
    assert harte.pitch_classes("D:hdim7") == {2, 5, 8, 0}
    assert harte.pitch_classes("C:maj/3") == {0, 4, 7}
    assert harte.pitch_classes("N") == frozenset()
    assert [harte.with_bass("A:min7", bass) for bass in (9, 7, 2, 12)] == ["A:min7", "A:min7/b7", "A:min7", "A:min7"]
    assert harte.root("A#:7") == 10
    assert harte.root("X") is None


def test_written(tmp_path: Path) -> None:
    """A .lab file, JSON and a picture."""
    spans = (ChordSpan(0.0, 1.5, "C:maj/3", 0.5), ChordSpan(1.5, 2.0, "N", 0.25))
    frames = {"chord": np.full((20, 26), 1 / 26, np.float32), "pitch": RNG.uniform(size=(20, 12)).astype(np.float32)}
    found = Progression(spans, 2.0, Config.tiny().labels, 0.1, frames)
    assert found.to_lab(tmp_path / "a.lab") == "0.000000\t1.500000\tC:maj/3\n1.500000\t2.000000\tN\n"
    assert harte.read_lab(tmp_path / "a.lab") == [ChordSpan(s.start, s.end, s.label) for s in spans]
    found.to_json(tmp_path / "a.json")
    table = json.loads((tmp_path / "a.json").read_text())
    assert table["chords"][0] == {"start": 0.0, "end": 1.5, "label": "C:maj/3", "confidence": 0.5}
    assert found.plot(tmp_path / "a.png", "A song").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "b.lab").write_text("one two\n")
    with pytest.raises(InputError, match=r"b\.lab: no chords can be read"):
        harte.read_lab(tmp_path / "b.lab")


def test_the_task_is_the_cards() -> None:
    assert zoo.info("chord-crema").task == ARCHITECTURE.task == "chords"
    assert task.Task is task.Chords
