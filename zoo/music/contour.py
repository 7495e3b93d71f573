"""From a network's activations of pitches to the contour of one voice, and from a contour to notes.

Activations are float32 [T, P]: for each of T frames, how much of each of P pitches, at equal steps in cents, is in it.
A decoder takes them piece by piece and returns what it has decided of the frames so far, as (places, confidence):
float64 [n] positions among the pitches, where 3.5 lies between the fourth and the fifth, and float32 [n]. `finish`
gives the rest. So a stream is decoded exactly as a whole file.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError
from zoo.music.score import Score

Floats = npt.NDArray[np.float64]
Activations = npt.NDArray[np.float32]


class Decoded(NamedTuple):
    """Frames in order: `places` float64 [n], `confidence` float32 [n]."""

    places: Floats
    confidence: npt.NDArray[np.float32]


class Decoder(Protocol):
    """What the decoders below have in common."""

    def __call__(self, activations: Activations) -> Decoded:
        """Takes the next frames [n, P] and returns what is decided and was not returned before."""
        ...

    def finish(self) -> Decoded:
        """What is still open, once there are no more frames."""
        ...


REACH = 4  # pitches on either side of the likeliest that a local average takes
LEAP = 12  # pitches: from one frame to the next a path moves less than this
TINY = np.finfo(np.float32).tiny
NOTHING = Decoded(np.zeros(0), np.zeros(0, np.float32))


class Local:
    """Each frame by itself: its likeliest pitch, or an average of those around it, nine for CREPE.

    `weighting` says how: "argmax" takes no average; "average" weighs pitches by their activations (CREPE's eq. 2);
    "weighted" by the logistic function of these, as torchcrepe does, which flattens them.
    """

    def __init__(self, weighting: str, reach: int = REACH) -> None:
        self.weighting, self.reach = weighting, reach

    def __call__(self, activations: Activations) -> Decoded:
        likeliest = activations.argmax(axis=1)
        confidence = np.take_along_axis(activations, likeliest[:, None], axis=1)[:, 0]
        if self.weighting == "argmax":
            return Decoded(likeliest.astype(np.float64), confidence)
        near = likeliest[:, None] + np.arange(-self.reach, self.reach + 1)  # [n, 9]
        inside = (near >= 0) & (near < activations.shape[1])
        weights = np.take_along_axis(activations, near.clip(0, activations.shape[1] - 1), axis=1).astype(np.float64)
        weights = 1 / (1 + np.exp(-weights)) if self.weighting == "weighted" else np.maximum(weights, 1e-12)
        weights *= inside
        return Decoded((weights * near).sum(axis=1) / weights.sum(axis=1), confidence)

    def finish(self) -> Decoded:
        return NOTHING


class Viterbi:
    """The likeliest path through the frames, where small steps are likelier than large ones (torchcrepe's default).

    The probability of a step of d pitches falls linearly from d = 0 to none at `LEAP`; that of a pitch in a frame is
    the softmax of the activations. A step of no probability has the smallest one that float32 knows, as in librosa.

    A path is known for sure once all pitches' best paths come from the same one: that is what is returned, and only
    the frames since then are kept. So the latency depends on the music. What is still open after `HOLD` to 2 `HOLD`
    frames, as in long silence, is decided by the best path so far: memory does not grow.
    """

    HOLD = 3000

    def __init__(self) -> None:
        self.seen = 0
        self.value: Floats | None = None  # of the best path to each place, [P]
        self.activations: list[Activations] = []  # of the frames that are still open, [P] each,
        self.origins: list[npt.NDArray[np.int32]] = []  # and the best place before each of their places, [P] each

    def __call__(self, activations: Activations) -> Decoded:
        emissions = np.log(_softmax(activations) + TINY)
        decided = []
        for frame, emission in zip(activations, emissions, strict=True):
            self.value, origin = self._begin(emission) if self.value is None else self._step(self.value, emission)
            self.activations.append(frame)
            self.origins.append(origin.astype(np.int32))
            self.seen += 1
            if self.seen % self.HOLD == 0:  # at these frames, however many come at once
                decided.append(self._returned(self._best()[: -self.HOLD]))
        decided.append(self._agreed() if len(activations) else NOTHING)
        return Decoded(*map(np.concatenate, zip(*decided, strict=True)))

    def finish(self) -> Decoded:
        if self.value is None:
            return NOTHING
        return self._returned(self._best())

    def _begin(self, emission: npt.NDArray[np.floating]) -> tuple[Floats, npt.NDArray[np.integer]]:
        self.places = np.arange(len(emission))
        steps = np.maximum(LEAP - np.abs(self.places[:, None] - self.places), 0)
        self.log_total = np.log(steps.sum(axis=1))  # by which the steps from each place are divided
        self.log_step = np.log(LEAP - np.abs(np.arange(1 - LEAP, LEAP)))
        self.padded = np.full(len(emission) + 2 * (LEAP - 1), -np.inf)
        self.windows = np.lib.stride_tricks.sliding_window_view(self.padded, 2 * LEAP - 1)  # [P, 23]
        return emission - np.log(len(emission)), self.places

    def _step(self, value: Floats, emission: npt.NDArray[np.floating]) -> tuple[Floats, npt.NDArray[np.integer]]:
        self.padded[LEAP - 1 : 1 - LEAP] = value - self.log_total
        scores = self.windows + self.log_step  # [P, 23]: of coming from each place in reach
        chosen = scores.argmax(axis=1)
        best, origin = scores[self.places, chosen], self.places + chosen - (LEAP - 1)
        leader = int(value.argmax())
        leap = value[leader] + np.log(TINY)
        origin[best < leap] = leader
        return np.maximum(best, leap) + emission, origin

    def _paths(self, last: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """The best paths through the open frames that end at the places `last` [L]: [n, L]."""
        paths = [last]
        for origin in self.origins[:0:-1]:
            paths.append(origin[paths[-1]])
        return np.stack(paths[::-1])

    def _best(self) -> npt.NDArray[np.integer]:
        """The best path through the open frames as far as is known."""
        assert self.value is not None
        return self._paths(np.array([self.value.argmax()]))[:, 0]

    def _agreed(self) -> Decoded:
        """The frames in which all paths are at the same place."""
        paths = self._paths(self.places)
        agreed = np.flatnonzero((paths == paths[:, :1]).all(axis=1))
        return self._returned(paths[: agreed[-1] + 1, 0]) if len(agreed) else NOTHING

    def _returned(self, path: npt.NDArray[np.integer]) -> Decoded:
        """Hands out the first open frames by their path and forgets them."""
        count = len(path)
        confidence = np.array([frame[place] for frame, place in zip(self.activations, path, strict=False)], np.float32)
        del self.activations[:count], self.origins[:count]
        return Decoded(path.astype(np.float64), confidence)


DECODERS = ("average", "weighted", "argmax", "viterbi")


def make_decoder(name: str, reach: int = REACH) -> Decoder:
    """A fresh decoder by its name, one of `DECODERS`; `reach` is that of a local average.

    Raises:
      InputError: there is none of that name.
    """
    if name not in DECODERS:
        raise InputError(f"no decoder named {name!r}; there are {', '.join(DECODERS)}")
    return Viterbi() if name == "viterbi" else Local(name, reach)


def _softmax(activations: Activations) -> Activations:
    """Over pitches, float32; −∞ gives 0."""
    raised = np.exp(activations - activations.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


# --- notes ------------------------------------------------------------------------------------------------------------

CHANGE = 0.06  # seconds of being a semitone off that a new note costs, so that vibrato and slides don't make many
SHORTEST = 0.05  # seconds; a shorter note is left out


def notes(times: Floats, hz: Floats, confidence: npt.ArrayLike, threshold: float = 0.5, source: str = "") -> Score:
    """The notes of a contour, at 120 quarters a minute; [T] times in seconds, equally spaced, pitches and confidence.

    Of all ways to put a note or a rest to each frame, the one of the least cost, where a frame costs its distance from
    the note in semitones (at most 1), a rest where there is sound or a note where there is none up to 1, and a new note
    or rest as much as `CHANGE` at cost 1. Sound is what has a confidence of at least `threshold`. Pitches are taken in
    the tuning of the contour itself, where it has one.
    """
    confidence = np.asarray(confidence, np.float64)
    semitones = 69 + 12 * np.log2(np.maximum(hz, 1e-3) / 440.0)
    sound = confidence >= threshold
    if not sound.any():
        return Score.of([], [], [], source=source)
    hop = float(times[1] - times[0]) if len(times) > 1 else 0.01
    semitones = semitones - _tuning(semitones[sound], confidence[sound])
    low, high = int(np.floor(semitones[sound].min())), int(np.ceil(semitones[sound].max()))
    pitches = np.arange(max(low, 0), min(high, 127) + 1)
    away = np.minimum(np.abs(semitones[:, None] - pitches), 1.0) * sound[:, None]
    no_sound = np.maximum(threshold - confidence, 0.0) / max(threshold, 1e-6)
    rest = np.maximum(confidence - threshold, 0.0) / max(1 - threshold, 1e-6) + 0.5 * sound
    states = _least_cost(np.column_stack([rest, away + no_sound[:, None]]), CHANGE / hop)
    begins = np.flatnonzero(np.diff(states, prepend=-1))
    ends = np.append(begins[1:], len(states))
    kept = (states[begins] > 0) & ((ends - begins) * hop >= SHORTEST)
    start = times[begins[kept]]
    return Score.of(
        2 * start, 2 * (start + hop * (ends - begins)[kept]), pitches[states[begins[kept]] - 1], source=source
    )


def _tuning(semitones: Floats, weights: Floats) -> float:
    """How far off equal temperament at 440 Hz a contour lies, −0.5 to 0.5 semitones; 0 if it lies nowhere."""
    mean = np.sum(weights * np.exp(2j * np.pi * semitones)) / max(np.sum(weights), 1e-12)
    return float(np.angle(mean) / (2 * np.pi)) if np.abs(mean) > 0.3 else 0.0


def _least_cost(costs: Floats, change: float) -> npt.NDArray[np.int64]:
    """The sequence of states that costs least, by the cost of each state in each frame [T, S] and that of a change."""
    value, stayed, leaders = costs[0], np.ones(costs.shape, bool), np.zeros(len(costs), np.int64)
    for t in range(1, len(costs)):
        leaders[t] = value.argmin()
        moved = value[leaders[t]] + change
        stayed[t] = value <= moved
        value = np.minimum(value, moved) + costs[t]
    states = np.empty(len(costs), np.int64)
    states[-1] = value.argmin()
    for t in range(len(costs) - 1, 0, -1):
        states[t - 1] = states[t] if stayed[t, states[t]] else leaders[t]
    return states
