"""Piano rolls, plots, sound and pages: what is drawn and heard is what the notes say."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import shared
from zoo import show
from zoo.errors import InputError, ZooError
from zoo.music.metre import grid
from zoo.music.score import Score
from zoo.show import audio, files, soundfont
from zoo.show.layout import layout, pitch_name, summary
from zoo.show.plots import durations, overlap, pitch_classes
from zoo.show.sampler import RATE, SineSynth

MELODY = Score.of([0, 1, 2, 3], [1, 2, 3, 4], [60, 64, 67, 72], [40, 70, 100, 127])
DRUMS = Score.of([0, 1, 2, 3], [0.25, 1.25, 2.25, 3.25], [36, 42, 38, 46], 100, 1, is_drum=True)
TRIO = Score.of(
    [0, 0, 0, 2, 2, 2],
    [2, 4, 0.25, 4, 4, 2.25],
    [72, 48, 36, 74, 43, 38],
    track=[0, 1, 2, 0, 1, 2],
    program=[0, 32, 0, 0, 32, 0],
    is_drum=[False, False, True] * 2,
    track_names=("Melody", "Bass", "Drums"),
    chords=((0.0, "C"), (2.0, "G7")),
)
EMPTY = Score.of([], [], [])


def hertz(pitch: float) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def cents_off(sound: np.ndarray, pitch: int) -> float:
    """How far the strongest partial within a third of the pitch lies from it."""
    size = 1 << 19
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size))
    f = np.arange(len(spectrum)) * RATE / size
    spectrum[(f < 0.8 * hertz(pitch)) | (f > 1.25 * hertz(pitch))] = 0
    return 1200 * np.log2(f[spectrum.argmax()] / hertz(pitch))


def onset(sound: np.ndarray, after: float) -> float:
    """Seconds at which the sound, silent just before `after`, reaches a tenth of its peak."""
    part = np.abs(sound[round((after - 0.02) * RATE) : round((after + 0.3) * RATE)])
    return float(np.argmax(part > 0.1 * part.max()) / RATE + after - 0.02)


# --- Layout --------------------------------------------------------------------------------------------------------


def test_layout_has_a_row_for_each_semitone_used_and_each_drum() -> None:
    rolled = layout(TRIO)
    names = dict(rolled.labels)
    assert rolled.drums == 2
    assert names[0] == "Bass drum"
    assert names[1] == "Snare"
    melody = TRIO.pitch == 72
    assert rolled.row[melody] - rolled.row[TRIO.pitch == 48] == 24
    assert names[int(rolled.row[melody][0])] == "C5"
    by_row = {row: text for row, text in layout(MELODY).labels}
    assert [by_row[int(row)] for row in layout(MELODY).row] == ["C4", "E4", "G4", "C5"]
    assert rolled.parts == ("Melody", "Bass", "Drums")


def test_layouts_beside_each_other_share_rows_and_length() -> None:
    high = Score.of([0, 8], [1, 9], [90, 91])
    low, other = layout(MELODY, beside=[high]), layout(high, beside=[MELODY])
    assert (low.rows, low.labels, low.end) == (other.rows, other.labels, other.end)
    assert low.end == 12


def test_grid_follows_the_metre() -> None:
    bars, beats = grid(Score.of(0, 9, 60, meters=np.array([[0.0, 3, 4], [6.0, 6, 8]])), 9)
    assert bars.tolist() == [0, 3, 6, 9]
    assert beats.tolist() == [1, 2, 4, 5, 7.5]
    assert grid(Score.of(0, 1, 60, meters=np.array([[0.0, 3, 4], [0.0, 2, 4]])), 1)[0].tolist() == [0, 2]
    assert grid(EMPTY, 0)[0].tolist() == [0, 4]
    assert grid(Score.of(0, 5, 60, meters=np.array([[0.0, 0, 0]])), 5)[0].tolist() == [0, 4, 8]
    assert sum(map(len, grid(EMPTY, 1e9))) < 10_000


def test_names() -> None:
    assert [pitch_name(p) for p in (0, 21, 60, 69, 127)] == ["C-1", "A0", "C4", "A4", "G9"]
    assert summary(MELODY) == "1 bar · 120 bpm · 4 notes · C4–C5"


# --- PNG -----------------------------------------------------------------------------------------------------------


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)[..., :3]


def near(image: np.ndarray, colour: str) -> int:
    """How many pixels are of a colour."""
    wanted = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=-1) < 0.02).sum())


def test_piano_roll_draws_each_note_in_its_colour(tmp_path: Path) -> None:
    one = Score.of([0, 2], [1, 4], [60, 64], 127)
    image = pixels(show.piano_roll(one, tmp_path / "a.png", "A title with $math_ and <tags>"))
    ink = near(image, "#4f6df5")
    both = pixels(show.piano_roll(Score.of([0, 2], [1, 4], [60, 64], 127, [0, 1]), tmp_path / "b.png"))
    assert ink > 1000
    assert near(both, "#e8743b") == pytest.approx(2 * near(both, "#4f6df5"), rel=0.15)  # two quarters and one
    assert near(pixels(show.piano_roll(EMPTY, tmp_path / "c.png")), "#4f6df5") == 0


def test_sheets_are_as_tall_as_their_scores_are_many(tmp_path: Path) -> None:
    titles = [f"step {i}" for i in range(5)]
    one = pixels(show.piano_roll([MELODY], tmp_path / "1.png", titles=titles[:1]))
    five = pixels(show.piano_roll([MELODY] * 5, tmp_path / "5.png", titles=titles, morph=True))
    assert five.shape[0] > 4 * one.shape[0] * 0.8
    assert near(five, "#4f6df5") > 100  # the first in the one colour, the last in the other
    assert near(five, "#e8743b") > 100


@pytest.mark.parametrize("score", [TRIO, DRUMS, EMPTY, Score.of(0, 200, 60), Score.of(np.arange(150.0), 150, 0)])
def test_any_score_can_be_drawn(score: Score, tmp_path: Path) -> None:
    image = pixels(show.piano_roll(score, tmp_path / "x.png", "音楽 \ud800"))
    assert max(image.shape) < 20_000


def test_histograms(tmp_path: Path) -> None:
    assert pitch_classes([MELODY, DRUMS])[[0, 4, 7]].tolist() == [0.5, 0.25, 0.25]
    assert durations([Score.of([0, 1], [0.24, 2.4], [60, 60])]).tolist() == [0, 0.5, 0, 0, 0, 0.5, 0, 0, 0]
    assert overlap(pitch_classes([MELODY]), pitch_classes([MELODY])) == pytest.approx(1)
    assert pitch_classes([]).sum() == 0
    assert pixels(show.histograms([MELODY], [TRIO], tmp_path / "h.png", "title")).shape[1] == 1600


# --- Sound ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "pitch"), [(0, 60), (0, 69), (4, 57), (24, 64), (40, 76), (56, 57), (80, 81)])
def test_pitch_is_the_notes(program: int, pitch: int) -> None:
    sound = audio.render(Score.of(0, 3, pitch, 100, program=program)).mean(axis=1)
    assert abs(cents_off(sound[4410:66150], pitch)) < 12


def test_onsets_and_length_are_the_notes() -> None:
    tempos = np.array([[0.0, 60.0], [2.0, 120.0]])
    notes = Score.of([1, 2, 4, 7], [1.5, 3, 5, 8], [60, 64, 67, 72], 100, tempos=tempos)
    sound = audio.render(notes)
    for wanted in (1.0, 2.0, 3.0, 4.5):
        assert onset(sound.mean(axis=1), wanted) == pytest.approx(wanted, abs=0.01)
    assert np.abs(sound[: RATE - 100]).max() == 0
    assert 5.0 <= len(sound) / RATE < 8.0
    before, after = (np.abs(sound[round(t * RATE) :][:2000]).max() for t in (4.99, 5.05))
    assert 0 < after < before  # the release is kept, and dies away
    assert np.abs(sound[-200:]).max() < 1e-3


def test_drums_sound_as_drums_and_in_time() -> None:
    sound = audio.render(DRUMS).mean(axis=1)
    for wanted in (0.5, 1.0, 1.5):
        assert onset(sound, wanted) == pytest.approx(wanted, abs=0.01)
    spectrum = np.abs(np.fft.rfft(sound[: RATE // 2]))
    assert spectrum[:100].sum() > spectrum[1000:].mean() * 1000  # the bass drum is low, below 200 Hz
    piano = audio.render(Score.of(DRUMS.start, DRUMS.end, DRUMS.pitch, 100)).mean(axis=1)
    n = min(len(sound), len(piano))
    assert np.abs(sound[:n] - piano[:n]).max() > 0.1


def test_a_closed_hi_hat_silences_the_open_one() -> None:
    both = audio.render(Score.of([0, 1], [0.5, 1.2], [46, 42], 100, is_drum=True))
    alone = audio.render(Score.of([0], [0.5], [46], 100, is_drum=True))
    assert len(both) < 0.7 * len(alone)
    roland = audio.render(Score.of([0], [0.5], [26], 100, is_drum=True))
    np.testing.assert_array_equal(roland, alone)


def test_sound_never_clips_and_is_softer_only_if_it_would() -> None:
    loud = audio.render(Score.of(np.zeros(40), 4, np.arange(40, 80), 127, program=19))
    assert np.abs(loud).max() == pytest.approx(10 ** (-1 / 20), rel=1e-5)
    soft, softer = (np.abs(audio.render(Score.of(0, 1, 60, v))).max() for v in (80, 40))
    assert 0.02 < softer < soft < 0.5


def test_other_rates_and_empty_scores() -> None:
    sound = audio.render(MELODY, 16000)
    assert sound.dtype == np.float32
    assert len(sound) / 16000 == pytest.approx(len(audio.render(MELODY)) / RATE, abs=1e-3)
    assert audio.render(EMPTY).shape == (0, 2)
    with pytest.raises(InputError, match=r"too long to render.*cut it"):
        audio.render(Score.of(0, 1e6, 60))


def test_without_a_soundfont_sines_play(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_SOUNDFONT", raising=False)
    monkeypatch.setattr(audio.importlib.util, "find_spec", lambda name: None)
    assert "plain sines" in show.audio_status()
    sound = audio.render(Score.of([0, 4], [3, 5], [69, 36], 100, is_drum=[False, True])).mean(axis=1)
    assert abs(cents_off(sound[4410:44100], 69)) < 1
    assert onset(sound, 2.0) == pytest.approx(2.0, abs=0.01)
    for pitch in range(128):
        voice = SineSynth().play(0, True, pitch, 127, 0.1)
        assert np.isfinite(voice).all()
        assert np.abs(voice).max() < 1


def test_soundfont_given_or_named_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.sf2"
    path.write_bytes(small_soundfont())
    monkeypatch.setenv("ZOO_SOUNDFONT", str(path))
    assert str(path) in show.audio_status()
    assert audio.find_soundfont() == path
    monkeypatch.setenv("ZOO_SOUNDFONT", str(tmp_path / "gone.sf2"))
    with pytest.raises(InputError, match=r"gone\.sf2: no such soundfont"):
        audio.render(MELODY)
    assert "gone.sf2" in show.audio_status()


def test_files_hold_the_sound(tmp_path: Path) -> None:
    sound = audio.render(MELODY)
    read, rate = soundfile.read(show.write_wav(tmp_path / "deep" / "a.wav", sound, RATE))
    assert rate == RATE
    assert np.abs(read - sound).max() < 1e-4


@pytest.mark.parametrize("mp3", [True, False])
def test_compressed_sound_starts_and_ends_with_the_sound(mp3: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not mp3:
        monkeypatch.setattr(audio, "_formats", dict)
    elif "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    sound = audio.render(MELODY)
    data, kind = audio.compress(sound)
    assert kind == ("audio/mpeg" if mp3 else "audio/wav")
    read, rate = soundfile.read(io.BytesIO(data))
    assert len(read) / rate == pytest.approx(len(sound) / RATE, abs=1e-3)
    assert np.abs(read - sound.mean(axis=1)[:: RATE // rate][: len(read)]).max() < 0.05


# --- SoundFont files, against one whose sound is known ---------------------------------------------------------------


def small_soundfont(preset: tuple[tuple[int, int], ...] = (), zone: tuple[tuple[int, int], ...] = ()) -> bytes:
    """A soundfont with one looped sine of 441 Hz at 44.1 kHz for key 69; generators of the preset and the zone."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack("<4sI", name, len(data)) + data

    def generators(*pairs: tuple[int, int]) -> bytes:
        return b"".join(struct.pack("<Hh", *pair) for pair in pairs)

    sine = (16384 * np.sin(2 * np.pi * np.arange(1000) / 100)).astype("<i2").tobytes() + bytes(92)
    instrument = [*zone, (54, 1), (53, 0)]
    chosen = [*preset, (41, 0)]
    tables = {
        b"phdr": struct.pack("<20sHHHIII", b"A", 0, 0, 0, 0, 0, 0)
        + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0),
        b"pbag": struct.pack("<4H", 0, 0, len(chosen), 0),
        b"pmod": bytes(10),
        b"pgen": generators(*chosen, (0, 0)),
        b"inst": struct.pack("<20sH", b"I", 0) + struct.pack("<20sH", b"EOI", 1),
        b"ibag": struct.pack("<4H", 0, 0, len(instrument), 0),
        b"imod": bytes(10),
        b"igen": generators(*instrument, (0, 0)),
        b"shdr": struct.pack("<20s5IBbHH", b"S", 0, 1000, 100, 900, 44100, 69, 0, 0, 1) + bytes(46),
    }
    body = chunk(b"LIST", b"sdta" + chunk(b"smpl", sine))
    body += chunk(b"LIST", b"pdta" + b"".join(chunk(name, data) for name, data in tables.items()))
    return chunk(b"RIFF", b"sfbk" + body)


def play(tmp_path: Path, score: Score, **settings: tuple[tuple[int, int], ...]) -> np.ndarray:
    path = tmp_path / f"{abs(hash(str(settings)))}.sf2"
    path.write_bytes(small_soundfont(**settings))
    return audio.render(score, soundfont=path)


def test_a_looped_sine_comes_out_pure_at_every_pitch(tmp_path: Path) -> None:
    for pitch in (45, 69, 70, 93):
        sound = play(tmp_path, Score.of(0, 2, pitch, 127)).mean(axis=1)
        assert abs(cents_off(sound[: RATE // 2], pitch) - 1200 * np.log2(441 / 440)) < 0.5
        assert np.abs(sound[1000:40000]).max() == pytest.approx(audio.GAIN * 0.5 * np.sqrt(0.5), rel=0.01)
        spectrum = np.abs(np.fft.rfft(sound[4410:26460] * np.hanning(22050))) ** 2
        around = slice(spectrum.argmax() - 5, spectrum.argmax() + 6)
        assert spectrum[around].sum() > 0.9999 * spectrum.sum()  # the loop's seam is not heard


def test_generators_of_zone_and_preset_count(tmp_path: Path) -> None:
    note = Score.of(0, 1, 69, 127)
    plain = play(tmp_path, note)
    tuned = play(tmp_path, note, zone=((51, 5), (52, 30)), preset=((51, 7), (52, 20))).mean(axis=1)
    assert cents_off(tuned[:22050], 81) == pytest.approx(50 + 3.9, abs=0.5)
    left = play(tmp_path, note, zone=((17, -500),))
    assert np.abs(left[:, 1]).max() < 1e-6
    assert np.abs(left[:, 0]).max() == pytest.approx(np.sqrt(2) * np.abs(plain[:, 0]).max(), rel=0.01)
    softer = play(tmp_path, note, zone=((48, 500),))
    assert 20 * np.log10(np.abs(softer).max() / np.abs(plain).max()) == pytest.approx(-20, abs=0.1)
    low_key = ((43, 60 << 8),)  # sounds for keys 0–60
    assert np.abs(play(tmp_path, note, zone=low_key)).max() == 0
    assert np.abs(play(tmp_path, Score.of(0, 1, 50, 127), zone=low_key)).max() > 0.1
    muffled = play(tmp_path, note, zone=((8, 4500),))  # 110 Hz: two octaves, two poles
    assert 20 * np.log10(np.abs(muffled[4410:]).max() / np.abs(plain).max()) == pytest.approx(-24, abs=1)
    assert np.abs(play(tmp_path, Score.of(0, 1, 69, 64))).max() / np.abs(plain).max() == pytest.approx(0.254, abs=0.003)


def test_volume_envelope(tmp_path: Path) -> None:
    second = 0  # timecents
    zone = ((34, second), (36, second), (37, 200), (38, second))  # attack, decay, 20 dB of sustain, release
    sound = np.abs(play(tmp_path, Score.of(0, 8, 69, 127), zone=zone)).max(axis=1)

    def level(t: float) -> float:
        return float(20 * np.log10(sound[round(t * RATE) :][:400].max() / sound.max()))

    assert level(0.5) == pytest.approx(-6, abs=0.2)
    assert level(1.1) == pytest.approx(-10, abs=1)
    assert level(3.0) == pytest.approx(-20, abs=0.3)
    assert level(4.3) == pytest.approx(-50, abs=1)  # 100 dB a second
    assert len(sound) / RATE == pytest.approx(4.8, abs=0.01)


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.5, 0.85, 0.9, 0.95, 0.99])
def test_damaged_soundfonts_are_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "bad.sf2"
    path.write_bytes(small_soundfont()[: int(share * len(small_soundfont()))])
    with pytest.raises(InputError, match=r"bad\.sf2: not a SoundFont 2 file .*give an \.sf2 file"):
        audio.render(MELODY, soundfont=path)


def test_scrambled_soundfonts_never_crash(tmp_path: Path) -> None:
    good = bytearray(small_soundfont())
    random = np.random.default_rng(0)
    tables = good.index(b"pdta")
    for i in range(60):
        bad = good.copy()
        for _ in range(4):
            bad[random.integers(tables, len(bad))] = random.integers(256)
        path = tmp_path / f"{i}.sf2"
        path.write_bytes(bad)
        with contextlib.suppress(InputError):
            regions = soundfont.SoundFont(path).regions(0, False, 69, 100)
            assert all(len(region.sample) > 1 for region in regions)


# --- Pages ---------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page as (tag, attributes), and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.found if t == tag and attributes.items() <= a.items()]


def test_page_plays_shows_and_offers_each_item(tmp_path: Path) -> None:
    sound = audio.render(MELODY)
    items = [show.Item("One", MELODY, sound, b"MThd1", "Samples"), show.Item("Two", TRIO, None, b"", "Others")]
    text = show.page("Title", items, tmp_path / "index.html", "below").read_text("utf-8")
    page = Elements(text)
    (player,) = page.all("audio")
    assert "controls" in player
    kind, data = str(player["src"]).removeprefix("data:").split(";base64,")
    assert (base64.b64decode(data), kind) == audio.compress(sound)
    (link,) = page.all("a")
    assert base64.b64decode(str(link["href"]).split(",")[1]) == b"MThd1"
    assert link["download"] == "One.mid"
    notes = [n for n in page.all("rect") if n.get("class") == "note"]
    assert [(n["x"], n["width"]) for n in notes[:4]] == [(f"{25 * i:.3f}%", "25.000%") for i in range(4)]
    assert len(notes) == len(MELODY) + len(TRIO)
    assert all(word in page.text for word in ("Title", "below", "Samples", "Others", "One", "Two", "G7", "Bass drum"))
    assert page.all("meta", name="viewport")


def test_page_is_self_contained(tmp_path: Path) -> None:
    text = show.page("T", [show.Item("A", TRIO, audio.render(TRIO), b"MThd")], tmp_path / "p.html").read_text("utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    addresses = [v for _, a in Elements(text).found for k, v in a.items() if k in ("src", "href", "srcset", "action")]
    assert len(addresses) == 2
    assert all(str(v).startswith("data:") for v in addresses)


def test_a_silent_item_has_no_player(tmp_path: Path) -> None:
    silent = show.Item("A", EMPTY, audio.render(EMPTY), b"MThd")
    page = Elements(show.page("T", [silent, silent], tmp_path / "p.html").read_text("utf-8"))
    assert page.all("audio") == page.all("button") == []
    assert "no notes" in page.text


def test_page_time_follows_the_tempo(tmp_path: Path) -> None:
    hurrying = Score.of([0, 2], [2, 4], [60, 62], tempos=np.array([[0.0, 60.0], [2.0, 120.0]]))
    text = show.page("T", [show.Item("A", hurrying)], tmp_path / "p.html").read_text("utf-8")
    notes = [n for n in Elements(text).all("rect") if n.get("class") == "note"]
    assert [(n["x"], n["width"]) for n in notes] == [("0.000%", "66.667%"), ("66.667%", "33.333%")]
    assert 'data-seconds="3.000"' in text


HOSTILE = "</title></style></script>\"'><script>alert(1)</script><img src=x onerror=alert(1)> javascript: \ud800"


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    def item(text: str) -> show.Item:
        names = {"track_names": (text, text), "chords": ((0.0, text),)}
        return show.Item(text, Score.of([0, 1], [1, 2], [60, 61], track=[0, 1], **names), sound, b"MThd", text)

    sound = audio.render(MELODY)
    harmless = Elements(show.page("T", [item("A")], tmp_path / "a", "B").read_text("utf-8"))
    hostile = Elements(show.page(HOSTILE, [item(HOSTILE)], tmp_path / "b", HOSTILE).read_text("utf-8"))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in harmless.found]
    assert [set(a) for _, a in hostile.found] == [set(a) for _, a in harmless.found]
    assert "alert(1)" in hostile.text


def test_a_page_of_the_demo_is_small(tmp_path: Path) -> None:
    melody = Score.of(np.arange(16) / 2, np.arange(1, 17) / 2, 60 + np.arange(16) % 12)
    item = show.Item("A", melody, audio.render(melody), bytes(300))
    assert show.page("T", [item] * 13, tmp_path / "p.html").stat().st_size < 2e6


# --- Everything together -------------------------------------------------------------------------------------------


def test_write_all_leaves_every_file_and_one_page(tmp_path: Path) -> None:
    written = show.write_all([MELODY, TRIO], ["One", "Two"], tmp_path / "out", "sample", "Title")
    assert [p.name for p in written.midi] == ["sample-1.mid", "sample-2.mid"]
    every = {*written.midi, *written.wav, *written.png, *written.sheets, written.page}
    assert set((tmp_path / "out").iterdir()) == every
    assert [p.read_bytes()[:4] for p in written.midi] == [b"MThd"] * 2
    assert [p.read_bytes()[:4] for p in written.wav] == [b"RIFF"] * 2
    assert written.sheets[0].read_bytes()[1:4] == b"PNG"
    page = Elements(written.page.read_text("utf-8"))
    assert base64.b64decode(str(page.all("a")[1]["href"]).split(",")[1]) == written.midi[1].read_bytes()


def test_groups_share_a_page(tmp_path: Path) -> None:
    groups = [
        show.Group([MELODY], ["A"], "sample", "Samples"),
        show.Group([MELODY] * 3, ["A", "halfway", "B"], "step", "From A to B", morph=True),
    ]
    written = show.write_groups(groups, tmp_path, "Title")
    assert [p.name for p in written.wav[:3]] == ["sample.wav", "step-1.wav", "step-2.wav"]
    text = written.page.read_text("utf-8")
    assert "--c0:#4f6df5" in text
    assert "--c0:#e8743b" in text
    assert len(Elements(text).all("audio")) == 4


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for write in (
        lambda: show.piano_roll(MELODY, tmp_path / "file" / "a.png"),
        lambda: show.write_wav(tmp_path / "file" / "a.wav", audio.render(MELODY), RATE),
        lambda: show.page("T", [], tmp_path / "file" / "a.html"),
        lambda: show.write_all([MELODY], ["A"], tmp_path / "file", "a"),
    ):
        with pytest.raises(InputError, match=r"file/a\.(mid|png|wav|html): [^\n]+$"):
            write()

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(InputError, match=r"a\.png: the disk is full"):
        files.write(tmp_path / "a.png", b"new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "", "a.png": "old"}


def test_errors_are_the_zoos_own(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="File name too long"):
        show.page("T", [], tmp_path / ("x" * 300))


def test_import_is_light() -> None:
    heavy = "{'matplotlib', 'scipy', 'soundfile', 'symusic', 'pretty_midi', 'note_seq', 'jax', 'librosa'}"
    code = f"import sys, zoo.show; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.shared
def test_real_songs_from_the_archives(tmp_path: Path) -> None:
    import tarfile

    from zoo.music.io import read

    for archive, suffix in (("data/nottingham.tar.gz", ".mid"), ("data/groove.tar.gz", ".mid")):
        with tarfile.open(shared.path(archive)) as tar:
            member = next(m for m in tar if m.name.endswith(suffix) and m.size < 3000)
            extracted = tar.extractfile(member)
            assert extracted is not None
            (tmp_path / "a.mid").write_bytes(extracted.read())
        score = read(tmp_path / "a.mid")
        sound = audio.render(score)
        assert len(sound) / RATE >= score.seconds_at(score.quarters) - 0.001
        assert 0.05 < np.abs(sound).max() <= 0.9
        assert show.piano_roll(score, tmp_path / "a.png").stat().st_size > 5000
