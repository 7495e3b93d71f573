"""BTC: what each half of a layer sees, that a song may be moved, songs of any length, learning from songs, scores."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from flax import nnx

import zoo
from tests import shared
from tests.golden.make_nnls_chroma import sound
from tests.networks import drawn
from tests.sounds import chords as plucked
from zoo.cli import main
from zoo.errors import InputError
from zoo.models import chord_transformer
from zoo.models.chord_transformer import ARCHITECTURE, ChordTransformer, Config, Layer, as_majmin, turned
from zoo.music import chord_metrics
from zoo.music.chords import from_symbol, symbols_in_time
from zoo.music.chroma import NnlsChromaCodec, NoteChromaCodec, ring_windows
from zoo.music.harte import ChordSpan, simplified
from zoo.music.io import write_midi
from zoo.music.score import Score
from zoo.nn import nnls_chroma
from zoo.nn.dropout import Dropout
from zoo.tasks.chords import Chords, evaluate, examples, frame_chords

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GOLDEN = Path(__file__).with_name("golden") / "nnls_chroma.npz"
RNG = np.random.default_rng(0)
TINY = Config.tiny()


@pytest.fixture(scope="module")
def tiny() -> ChordTransformer:
    return drawn(ChordTransformer, TINY)


# --- the network ------------------------------------------------------------------------------------------------------


def test_one_half_looks_back_and_one_ahead() -> None:
    """By the gradient: attention over frames of kernel 1 sees its own side alone; a layer joins both."""
    layer = drawn(Layer, Config(units=8, heads=2, kernel=1, buckets=4, reach=8))
    x = jnp.asarray(RNG.standard_normal((1, 6, 8)), jnp.float32)
    position = jnp.arange(6)

    def sees(half: object) -> list[bool]:
        gradient = jax.grad(lambda x: jnp.sum(half(x)[0, 2] ** 2))(x)  # type: ignore[operator]
        return (np.abs(np.asarray(gradient)[0]).max(axis=-1) > 1e-9).tolist()

    assert sees(lambda x: layer.behind(x, position, Dropout())[0]) == [True, True, True, False, False, False]
    assert sees(lambda x: layer.ahead(x, -position, Dropout())[0]) == [False, False, True, True, True, True]
    assert sees(lambda x: layer(x, Dropout())[0]) == [True] * 6


def test_attention_of_both_halves(tiny: ChordTransformer) -> None:
    """Each row of weights sums to 1; the first heads look back only, the others ahead."""
    weights = np.asarray(tiny.attend(jnp.asarray(ARCHITECTURE.example(TINY, 1, RNG)["x"])))[0]
    assert weights.shape == (2, 4, 10, 10)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    assert not np.triu(weights[:, :2], 1).any()
    assert not np.tril(weights[:, 2:], -1).any()


def test_turning_moves_chroma_and_chords_alike() -> None:
    config = Config()
    label = {name: i for i, name in enumerate(config.labels)}
    assert len(label) == 170
    y = jnp.array([[label["A#:min7"], label["N"], label["X"], -1]])
    x = jnp.zeros((1, 4, 24)).at[0, 0, 10].set(1.0).at[0, 0, 12 + 11].set(2.0)
    moved, chords = turned(config, x, y, jnp.array([3]))
    assert [config.labels[i] for i in chords[0, :3]] == ["C#:min7", "N", "X"]
    assert int(chords[0, 3]) == -1
    assert np.flatnonzero(moved[0, 0]).tolist() == [1, 12 + 2]
    back, same = turned(config, moved, chords, jnp.array([9]))
    np.testing.assert_array_equal(back, x)
    np.testing.assert_array_equal(same, y)


def test_majmin_of_the_vocabulary() -> None:
    """As mir_eval reduces labels."""
    from mir_eval import chord

    config, labels = Config(), Config().labels
    reduced = as_majmin(config)
    for i, label in enumerate(labels):
        same = chord.majmin([label] * len(labels), list(labels))
        np.testing.assert_array_equal(same > 0, (reduced == reduced[i]) & (reduced[i] >= 0))
        assert (same[0] < 0) == (reduced[i] < 0), label


def test_features() -> None:
    """Square roots of what is at most 5, two frames in one, and what is over is a frame too."""
    chroma = np.zeros((5, 24), np.float32)
    chroma[0], chroma[1], chroma[4] = 5.0, 20.0, 1.25
    assert Config().features_of(chroma)[:, 0].tolist() == [1.0, 0.0, 0.5]


def test_songs_of_any_length(tiny: ChordTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of overlapping windows the middles, in order; one program for all lengths."""
    monkeypatch.setattr(chord_transformer, "AT_ONCE", 3)
    program = jax.jit(partial(ChordTransformer.recognise, tiny))
    run = tiny.by_pieces(lambda kernel: program)
    for frames in (1, 9, 10, 11, 15, 16, 47):
        chroma = RNG.uniform(0, 5, (2 * frames, 24)).astype(np.float32)
        found, x = np.asarray(run(chroma).chord), TINY.features_of(chroma)
        assert found.shape == (frames, 26)
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
        at = max(0, (frames - 3) // 5 * 5 - 5) if frames > 10 else 0  # a window that holds a middle we look at
        window = np.pad(x, ((0, 60), (0, 0)))[at : at + 10]
        alone = np.asarray(program(window[None]).chord)[0]
        middle = slice(2, 7) if frames > 10 else slice(0, min(frames, 7))
        np.testing.assert_allclose(found[at:][middle], alone[middle][: len(found[at:][middle])], atol=1e-5)
    assert program._cache_size() == 2  # type: ignore[attr-defined]  # one of them is the one above


# --- chroma -----------------------------------------------------------------------------------------------------------


def test_windows_of_bass_and_treble() -> None:
    """Against values that the plugin's source gives, and each pitch in its class."""
    windows = ring_windows()
    assert windows.shape == (84, 24)
    assert windows[0, 9] == pytest.approx(0.001769, abs=1e-6)  # A0 in the bass
    assert windows[18].max() == pytest.approx(0.999803, abs=1e-6)
    assert windows[36, 9] == pytest.approx(0.004909, abs=1e-6)
    assert windows[3, 12] == pytest.approx(0.017037, abs=1e-6)  # C1 in the treble
    assert windows[41, 12 + 2] == pytest.approx(0.999650, abs=1e-6)
    assert not windows[37:, :12].any()


def test_nnls_is_scipys() -> None:
    """Within 1e-5 of the active-set method's solution, and 0 where it may not be more."""
    from scipy.optimize import nnls

    profiles = nnls_chroma.note_profiles()
    notes = np.where(RNG.random((12, 84)) < 0.08, 3 * RNG.random((12, 84)), 0)
    y = np.maximum(notes @ profiles.T + 0.1 * RNG.standard_normal((12, 256)), 0).astype(np.float32)
    allowed = RNG.random((12, 84)) < 0.7
    run = jax.jit(partial(nnls_chroma.nnls, profiles, iterations=nnls_chroma.ITERATIONS))
    for mask in (np.ones_like(allowed), allowed):
        expected = np.zeros((12, 84))
        for row, target, kept in zip(expected, y, mask, strict=True):
            row[kept] = nnls(profiles[:, kept].astype(np.float64), target)[0]
        np.testing.assert_allclose(run(y, mask), expected, atol=1e-5)


def test_chroma_is_the_plugins() -> None:
    """By the golden file: log-frequency spectra, notes and chroma of the authors' own program (values up to 4)."""
    golden, samples = np.load(GOLDEN), sound()
    padded = np.pad(samples, nnls_chroma.SIZE // 2)
    spectra = nnls_chroma.log_spectra(np.lib.stride_tricks.sliding_window_view(padded, nnls_chroma.SIZE)[::2048], 44100)
    np.testing.assert_allclose(spectra, golden["log_spectra"], atol=2e-5 * golden["log_spectra"].max())
    np.testing.assert_allclose(np.concatenate([*nnls_chroma.transcribe(spectra)]), golden["notes"], atol=1e-3)
    frames, _ = NnlsChromaCodec().features((samples, 44100))
    np.testing.assert_allclose(frames, golden["chroma"], atol=1e-3)


def tone(pitches: list[float], seconds: float = 1.5, rate: int = 44100) -> np.ndarray:
    """Notes with eight partials each."""
    t = np.arange(round(seconds * rate)) / rate
    hz = 440 * 2 ** ((np.array(pitches) - 69) / 12)
    return (0.05 * sum(0.6**h * np.sin(2 * np.pi * f * (h + 1) * t) for f in hz for h in range(8))).astype(np.float32)


@pytest.mark.parametrize("cents", [0, 30, -40])
def test_chroma_of_a_chord(cents: int) -> None:
    """C major over its fifth: three pitch classes above, one below, whatever the tuning, which is found."""
    samples = tone([43 + cents / 100, *(pitch + cents / 100 for pitch in (60, 64, 67))])
    frames, seconds = NnlsChromaCodec().features((samples, 44100))
    assert seconds == pytest.approx(1.5)
    assert frames.shape == (len(samples) // 2048 + 1, 24)
    middle = frames[12:20].mean(axis=0)
    assert set(np.argsort(middle[12:])[-3:]) == {0, 4, 7}
    assert middle[:12].argmax() == 7
    assert np.sort(middle[12:])[-3] > 4 * np.sort(middle[12:])[-4]
    spectra = nnls_chroma.log_spectra(
        np.lib.stride_tricks.sliding_window_view(samples, nnls_chroma.SIZE)[::8192], 44100
    )
    assert nnls_chroma.tuning(spectra) == pytest.approx(cents / 100, abs=0.06)


def test_chroma_of_nothing() -> None:
    frames, _ = NnlsChromaCodec().features((np.zeros(30000, np.float32), 44100))
    assert not frames.any()
    with pytest.raises(InputError, match=r"0\.023 s are too short for chords; give at least 0\.046 s"):
        NnlsChromaCodec().features((np.zeros(1000, np.float32), 44100))


def test_chroma_of_notes_is_like_that_of_their_sound() -> None:
    """At the same times, the same classes; drums don't count."""
    score = Score.of([0, 0, 0, 0, 2], [2, 2, 2, 2, 4], [43, 60, 64, 67, 65], 100, is_drum=[0, 0, 0, 0, 1])
    frames, seconds = NoteChromaCodec().features(score)
    assert seconds == pytest.approx(2.0)
    assert len(frames) == 44
    heard, _ = NnlsChromaCodec().features((tone([43, 60, 64, 67], 1.0), 44100))
    assert np.corrcoef(frames[4:18].mean(axis=0), heard[4:18].mean(axis=0))[0, 1] > 0.9
    assert not frames[23:].any()
    with pytest.raises(InputError, match="no notes that chords could be made of"):
        NoteChromaCodec().features(Score.of([0], [1], [38], is_drum=True))


# --- labels and scores ------------------------------------------------------------------------------------------------


def test_simplified() -> None:
    told = {
        "Bb:min9(*5)/b3": "A#:min7", "C": "C:maj", "Cb:maj/3": "B:maj", "G:sus4(b7,9)": "G:sus4", "D:13": "D:7",
        "E:5": "X", "F:(1,5)": "X", "N": "N", "X": "X", "H:maj": "X", "A:hdim7": "A:hdim7", "A:nonsense": "X",
    }  # fmt: skip
    assert {label: simplified(label) for label in told} == told


@pytest.mark.filterwarnings("ignore")  # pydub, which note_seq imports, warns of ffmpeg, audioop and its own escapes
def test_from_symbol() -> None:
    told = {"C": "C:maj", "F#m7": "F#:min7", "Bb7/D": "A#:7", "Gsus": "G:sus4", "Dm7b5": "D:hdim7", "N.C.": "N",
            "C9": "C:7", "???": "X"}  # fmt: skip
    assert {symbol: from_symbol(symbol) for symbol in told} == told
    score = Score.of([0], [8], [60], chords=((0.0, "C"), (4.0, "G7")))
    assert symbols_in_time(score) == (ChordSpan(0, 2, "C:maj"), ChordSpan(2, 4, "G:7"))
    assert symbols_in_time(Score.of([0], [8], [60])) == ()


def test_frames_take_the_chord_in_their_middle() -> None:
    spans = [ChordSpan(0.1, 0.3, "C:maj"), ChordSpan(0.3, 0.5, "A:min7"), ChordSpan(0.5, 0.6, "C:5")]
    labels = TINY.labels
    found = frame_chords(spans, 7, 0.1, labels)
    assert [labels[i] for i in found] == ["N", "C:maj", "C:maj", "X", "X", "X", "N"]  # sevenths aren't in the tiny one


def test_recall_weighs_by_time() -> None:
    """Three of four seconds are right to all measures, in the second song none; what isn't known isn't asked for."""
    truth = [ChordSpan(0, 3, "C:maj7"), ChordSpan(3, 4, "A:min"), ChordSpan(4, 6, "G:sus4")]
    first = chord_metrics.compare(truth, [ChordSpan(0, 3, "C:maj"), ChordSpan(3, 9, "E:min")])
    assert first["majmin"] == pytest.approx((3, 4))
    assert first["root"] == pytest.approx((3, 6))
    assert first["sevenths"] == pytest.approx((0, 4))
    second = chord_metrics.compare([ChordSpan(0, 6, "C:maj")], [ChordSpan(0, 1, "no label")])
    assert second["majmin"] == pytest.approx((0, 6))
    assert chord_metrics.recall([first, second])["majmin"] == pytest.approx(0.3)


# --- from songs to chords ---------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny_file(path: Path, codec: str) -> Path:
    """A model with random weights as a file."""
    from dataclasses import asdict

    from zoo.training.params import flatten
    from zoo.weights.formats import safetensors

    facts = {"architecture": "chord-transformer", "config": asdict(TINY), "codec": {"name": codec}}
    tensors = {name: np.asarray(array) for name, array in flatten(nnx.state(drawn(ChordTransformer, TINY))).items()}
    safetensors.write(path, tensors, facts)
    return path


LAB = "0.0 1.0 C:maj\n1.0 2.0 F:maj/3\n2.0 4.0 G:7\n"


def test_windows_of_a_song() -> None:
    from zoo.data import Song

    spans = {"full": (ChordSpan(0, 1, "C:maj"), ChordSpan(1, 3, "G:min"))}
    song = Song("a", np.ones((44, 24), np.float32), 0.05, 2.2, spans, ())
    made = examples(song, TINY)
    assert made["x"].shape == (4, 10, 24)
    assert [TINY.labels[i] for i in made["y"][1]] == ["C:maj"] * 5 + ["G:min"] * 5
    assert (made["y"][3] == -1).tolist() == [False] * 7 + [True] * 3  # frames 15 to 24, of 22
    assert not made["x"][3, 7:].any()
    with pytest.raises(InputError, match="a: has no chords"):
        examples(Song("a", song.frames, 0.05, 2.2, {}, ()), TINY)


def test_a_folder_of_sound(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fine-tuned on three recordings with .lab files, measured, and asked for chords and its attention."""
    for name in "abc":
        soundfile.write(house / f"{name}.wav", plucked(4.0, 22050), 22050)
        (house / f"{name}.lab").write_text(LAB)
    soundfile.write(house / "d.wav", plucked(1.0, 22050), 22050)
    model = zoo.finetune(
        tiny_file(house / "tiny.safetensors", "nnls-chroma"), house, house / "run", steps=2, batch_size=2
    )
    assert "d.wav: no labels beside it; put d.lab" in (house / "run" / "skipped.txt").read_text()
    assert isinstance(model, Chords)
    scores = evaluate(model, house, split="train")
    assert scores["songs"] >= 1
    assert 0 <= scores["majmin"] <= 1
    assert main(["chords", "a.wav", "--model", "run", "--out", "out", "--attention", "looks.png", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["a.wav"]
    assert told["seconds"] == pytest.approx(4.0)
    assert told["chords"][-1]["end"] == pytest.approx(4.0)
    assert (house / "looks.png").read_bytes()[:4] == (house / "out" / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_a_folder_of_notes(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MIDI, with chords beside it; a folder of it is recognised file by file."""
    score = Score.of([0, 0, 0, 2, 2, 2, 4, 4, 4], [2, 2, 2, 4, 4, 4, 8, 8, 8], [60, 64, 67, 60, 65, 69, 59, 62, 67])
    for name in "ab":
        write_midi(score, house / "songs" / f"{name}.mid")
        (house / "songs" / f"{name}.lab").write_text(LAB)
    path = tiny_file(house / "tiny.safetensors", "note-chroma")
    model = zoo.finetune(path, house / "songs", house / "run", steps=1, batch_size=1)
    assert len(model.chords(score).frames["chord"]) == 44  # type: ignore[attr-defined]
    assert main(["chords", "songs", "--model", "run"]) == 0
    assert capsys.readouterr().out.count("# songs/") == 2
    (house / "songs" / "a.lab").unlink()
    (house / "songs" / "b.lab").unlink()
    with pytest.raises(InputError, match=r"no labels beside it; put a\.lab"):
        zoo.finetune(path, house / "songs", house / "again", steps=1)
    (house / "empty").mkdir()
    assert main(["chords", "empty", "--model", "run"]) == 1
    assert "no files of notes" in capsys.readouterr().err


# --- the published weights --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pitches", [(0, 4, 7), (0, 3, 7)])
def test_chords_of_sound(pitches: tuple[int, ...]) -> None:
    """Major and minor triads on D, as sound through our own chroma."""
    sound = tone([38, *(62 + pitch for pitch in pitches)], 6.0)
    found = zoo.load("chord-transformer/billboard").chords((sound, 44100))  # type: ignore[attr-defined]
    longest = max(found, key=lambda span: span.end - span.start)
    assert longest.label.startswith("D:maj" if pitches[1] == 4 else "D:min")
    assert longest.end - longest.start > 4


def test_chords_of_midi() -> None:
    """C, A minor, F and G as notes, two seconds each."""
    triads = [(48, 60, 64, 67), (45, 60, 64, 69), (41, 60, 65, 69), (43, 59, 62, 67)]
    notes = [(4 * bar, 4 * bar + 4, pitch) for bar, triad in enumerate(triads) for pitch in triad]
    found = zoo.load("chord-transformer/pop909").chords(Score.of(*zip(*notes, strict=True)))  # type: ignore[attr-defined]
    assert [chord.label for chord in found] == ["C:maj", "A:min", "F:maj", "G:maj"]
    np.testing.assert_allclose([chord.start for chord in found], [0, 2, 4, 6], atol=0.2)


@pytest.mark.slow
def test_billboard_recall() -> None:
    """A few unseen songs are about as well heard as the card says of all."""
    shared.path("data/billboard-chroma.npz")
    model = zoo.load("chord-transformer/billboard")
    assert isinstance(model, Chords)
    scores = evaluate(model, shared.ROOT / "data", limit=10)
    assert scores["majmin"] > 0.7
