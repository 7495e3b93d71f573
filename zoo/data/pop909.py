"""POP909 (Wang et al. 2020): its MIDI ticks are no musical grid, the beats stand in text files beside each song.

The files count 480 ticks to a quarter at a tempo near the song's, but the first beat falls anywhere: notes lie 0.26 of
a sixteenth from the grid of ticks (mean over notes, median over songs), as if by chance, and bars begin on any beat.
`read_song` moves the notes onto the annotated beats, where that distance is 0.003, and works out where bars begin.

Four annotations hint at that: the downbeats and the chord changes, of the MIDI and of the recording. They contradict
each other (the two kinds of downbeat agree in 72 of 100 songs), so all four vote. Judged by what had no vote, melody
notes on the downbeats found so are 1.66 times as long, summed, as on an average beat; 1.53 times with the MIDI's
downbeats alone, 1.62 with those of the recording.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.harte import to_symbol
from zoo.music.io import read
from zoo.music.score import Floats, Ints, Score

CHORDS = "chord_midi.txt"  # lines of start, end (s, in the MIDI's time) and label
_JUMP = 10.0  # votes it takes to believe that a bar is cut short or lengthened


def is_song(path: Path) -> bool:
    """Whether `path` is a MIDI file with POP909's annotations beside it."""
    return path.suffix == ".mid" and (path.parent / "beat_midi.txt").is_file()


def read_song(path: Path) -> Score:
    """The song with a quarter note for each annotated beat, bars of 4/4 (some songs: 3/4) beginning on downbeats.

    Raises:
      InputError: the MIDI or the annotations can't be used.
    """
    score = read(path)
    try:
        beats = np.loadtxt(path.parent / "beat_midi.txt", ndmin=2)  # [N, 3]: second, simple downbeat, compound downbeat
        heard = np.loadtxt(path.parent / "beat_audio.txt", ndmin=2)  # [M, 2]: second, beat in the bar from 1
        times = beats[:, 0]
        votes = beats[:, 2] + _hits(times, heard[heard[:, 1] == 1, 0])
        chords = {name: _labels(path.parent / name) for name in (CHORDS, "chord_audio.txt")}
        for labels in chords.values():
            votes += _hits(times, np.array([start for start, _ in labels]))
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path.parent}: POP909's beats or chords can't be read ({error}); unpack it again") from None
    if len(times) < 8 or np.any(np.diff(times) <= 0):
        raise InputError(f"{path.parent / 'beat_midi.txt'}: the beats don't ascend; unpack it again")
    spacing = np.diff(np.flatnonzero(beats[:, 2]))
    beats_per_bar = 3 if len(spacing) and np.median(spacing) in (3, 6) else 4
    downbeats = _bars(votes, beats_per_bar)
    return _on_beats(score, chords[CHORDS], times, downbeats, beats_per_bar)


def _labels(path: Path) -> list[tuple[float, str]]:
    """When chords begin, in seconds, and their symbols, from lines of start, end and label in Harte's notation."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [(float(start), to_symbol(label)) for start, _, label in lines]


def _hits(times: Floats, events: Floats) -> Floats:
    """For each beat 1 where an event is nearest to it, else 0."""
    middles = (times[1:] + times[:-1]) / 2
    hits = np.zeros(len(times))
    hits[np.searchsorted(middles, events)] = 1
    return hits


def _bars(votes: Floats, beats: int) -> npt.NDArray[np.intp]:
    """The beats that begin bars: most votes collected, less `_JUMP` for each bar not of `beats` beats (Viterbi)."""
    score = [0.0] * beats  # by phase: bars begin on the beats i with i % beats == phase
    came_from = []
    for i, value in enumerate(votes.tolist()):
        best = max(range(beats), key=score.__getitem__)
        jump = score[best] - _JUMP
        came_from.append([phase if score[phase] >= jump else best for phase in range(beats)])
        score = [max(stay, jump) for stay in score]
        score[i % beats] += value
    phase = max(range(beats), key=score.__getitem__)
    downbeats = []
    for i in range(len(votes) - 1, -1, -1):
        if i % beats == phase:
            downbeats.append(i)
        phase = came_from[i][phase]
    return np.array(downbeats[::-1], np.intp)


def _on_beats(
    score: Score, chords: list[tuple[float, str]], times: Floats, downbeats: npt.NDArray[np.intp], beats: int
) -> Score:
    """`score` and `chords`, whose times are seconds, with one quarter a beat and the first downbeat on a bar line.

    The metre changes at each odd bar.
    """
    start, end = (_beat_at(score.seconds_at(x), times) for x in (score.start, score.end))
    first = downbeats[0] if len(downbeats) else 0
    earliest = min(0.0, float(start.min(initial=0.0)))
    shift = beats * np.ceil((first - earliest) / beats) - first
    lengths = np.append(np.diff(downbeats), beats)
    changed = np.flatnonzero(np.diff(lengths, prepend=beats))
    meters = [(0.0, beats, 4.0)] + [(downbeats[i] + shift, lengths[i], 4.0) for i in changed]
    qpm = 60 / np.diff(times)
    kept = np.flatnonzero(np.abs(np.diff(qpm, prepend=0.0)) > 1e-6)
    tempos = np.stack([kept + shift, qpm[kept]], axis=1)
    tempos[0, 0] = 0.0
    at = np.round(_beat_at(np.array([start for start, _ in chords]), times) * 2) / 2 + shift  # on the half beat
    return replace(
        Score.of(start + shift, end + shift, score.pitch, score.velocity, score.track, score.program, score.is_drum),
        tempos=tempos,
        meters=np.array(meters, np.float64),
        chords=tuple(zip(np.maximum(at, 0).tolist(), (symbol for _, symbol in chords), strict=True)),
        track_names=score.track_names,
        source=score.source,
    )


def _beat_at(seconds: Floats, times: Floats) -> Floats:
    """Position in beats, between beats and beyond them linearly."""
    i: Ints = np.clip(np.searchsorted(times, seconds, side="right") - 1, 0, len(times) - 2)
    return i + (seconds - times[i]) / (times[i + 1] - times[i])
