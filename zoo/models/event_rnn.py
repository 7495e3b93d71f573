"""Event RNN: LSTM language models of music as one sequence of events, after Magenta's.

Melody RNN, Drums RNN and Improv RNN (Waite, Eck, Roberts, Abolafia, 2016, magenta.tensorflow.org), Performance RNN
(Simon & Oore 2017; Oore, Simon, Dieleman, Eck, Simonyan, "This time with feeling", 2018, arXiv:1808.03715) and the note
RNN of RL Tuner (Jaques, Gu, Turner, Eck 2017, arXiv:1611.02796). One network in all: LSTM layers, the first perhaps
with attention to its own last outputs (Cheng, Dong, Lapata 2016, arXiv:1601.06733). They differ in what they are
shown of the past at each step ("view"), and in what they are given beside it ("context").

What a view shows is Magenta's (`LookbackEventSequenceEncoderDecoder`, `KeyMelodyEncoderDecoder` of note_seq). Its
models also predict labels rather than events: beside the V events there is a label "as one bar ago", and so on. Here
logits are those of events: the probability of an event is the sum over all labels that mean it.

Shapes: `B` batch, `T` steps, `V` classes, `X` width of the view, `H` units, `N` lookbacks, `L` outputs attended to.
Tokens are int32 [B, T] in 0 … V − 1, 0 being the event by default (no event, nothing struck); a token from V on is
padding, and V itself the input before the first token. With a context x is [B, T, 2]: the event and its context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zoo.models.architecture import Architecture, Stepping
from zoo.nn.attentive import Attended, AttentiveLSTM, AttentiveStep
from zoo.nn.dropout import Dropout
from zoo.nn.likelihood import surprise
from zoo.nn.recurrent import LSTM, Carry, Dense, DenseStep, LSTMStep
from zoo.nn.sampling import Sampling, rollout

MAJOR = (0, 2, 4, 5, 7, 9, 11)
BAR = 16  # steps, as the view "melody" has it
CHORD_WIDTH = 37  # no chord; root, pitch classes, bass


@dataclass(frozen=True)
class Config:
    """Numbers of one event RNN. The defaults are Magenta's `basic_rnn`.

    Attributes:
      classes: V.
      steps: T of the windows it learns from.
      units: H of each LSTM layer.
      view: "events": the last event, the events that repeating would bring next, a binary counter of steps, and which
        lookbacks the last event repeats. "melody": the sounding pitch, silence, attack, direction, repeats, counter,
        start of a bar, and the keys that all notes and the last three fit; tokens are then no event, note off, and
        pitches from a C up.
      lookbacks: distances in steps, ascending.
      counter: bits of the binary counter.
      attention: L; 0 for none.
      context: "none", or "chord": a chord a step, packed in an int as `chord_features` has it.
      keep: share of each layer's outputs that dropout keeps in training.
      keep_context: share of the windows that keep their context in training, so that the model can do without.
    """

    classes: int = 38
    steps: int = 128
    units: tuple[int, ...] = (128, 128)
    view: str = "events"
    lookbacks: tuple[int, ...] = ()
    counter: int = 0
    attention: int = 0
    context: str = "none"
    keep: float = 0.5
    keep_context: float = 1.0

    def __post_init__(self) -> None:
        if self.view not in ("events", "melody"):
            raise ValueError(f"view={self.view!r} is neither events nor melody")
        if self.context not in ("none", "chord"):
            raise ValueError(f"context={self.context!r} is neither none nor chord")
        if list(self.lookbacks) != sorted(self.lookbacks):
            raise ValueError(f"lookbacks={self.lookbacks} must ascend")

    @classmethod
    def tiny(cls) -> Config:
        """A model of a few thousand parameters, for tests."""
        return cls(classes=14, steps=12, units=(8, 8), keep=0.9)

    @property
    def one_hot(self) -> bool:
        """Whether the view is the last event alone, a token that needs no vector."""
        return self.view == "events" and not self.lookbacks and not self.counter and self.context == "none"

    @property
    def width(self) -> int:
        """X: numbers that the first layer sees at each step."""
        repeats, context = len(self.lookbacks), CHORD_WIDTH if self.context == "chord" else 0
        if self.view == "melody":
            return context + (self.classes - 2) + 2 + 1 + 1 + repeats + self.counter + 1 + 12 + 12
        return context + self.classes * (1 + repeats) + self.counter + repeats


# Magenta's published configurations, by their own names.
PUBLISHED: dict[str, Config] = {
    "basic_rnn": Config(),
    "lookback_rnn": Config(lookbacks=(16, 32), counter=5),
    "attention_rnn": Config(view="melody", lookbacks=(16, 32), counter=7, attention=40),
    "chord_pitches_improv": Config(units=(256, 256, 256), context="chord"),
    "drum_kit": Config(classes=512, units=(256, 256, 256), counter=6, attention=32),
    "performance_with_dynamics": Config(classes=388, steps=512, units=(512, 512, 512), keep=1.0),
    "note_rnn": Config(units=(100,)),
}


# --- what the network sees of the past --------------------------------------------------------------------------------


class Memory(NamedTuple):
    """What a view must remember of the events so far.

    Attributes:
      recent: int32 [B, longest lookback], the last events, newest last; V where there was none yet.
      position: int32 [B], number of events so far.
      note, attack, last, direction, counts: of the view "melody": the sounding pitch [B] (−1 none), whether it is new
        [B] (as in note_seq a note off leaves that as it was), the last three different pitches [B, 3] (newest last, −1
        none), 1 ascending, −1 descending [B], notes of each pitch class [B, 12].
    """

    recent: jax.Array
    position: jax.Array
    note: jax.Array
    attack: jax.Array
    last: jax.Array
    direction: jax.Array
    counts: jax.Array

    @classmethod
    def empty(cls, config: Config, batch: int) -> Memory:
        """Before the first event."""
        return cls(
            recent=jnp.full((batch, max(config.lookbacks, default=0)), config.classes),
            position=jnp.zeros(batch, jnp.int32),
            note=jnp.full(batch, -1),
            attack=jnp.zeros(batch),
            last=jnp.full((batch, 3), -1),
            direction=jnp.zeros(batch),
            counts=jnp.zeros((batch, 12)),
        )

    def repeats(self, config: Config) -> jax.Array:
        """The events that repeating each lookback brings next, int32 [B, N]; V where there is none yet."""
        return self.recent[:, [-distance for distance in config.lookbacks]]


def observe(config: Config, memory: Memory, token: jax.Array) -> tuple[Memory, jax.Array]:
    """Takes in one event, int32 [B]: the memory with it, and what the network is shown, float32 [B, X less context].

    Before the first event (`token` V) and for padding it is shown zeros, and nothing is remembered.
    """
    counts = token < config.classes
    repeated = (token[:, None] == memory.repeats(config)).astype(jnp.float32)  # [B, N]
    after = memory._replace(
        recent=jnp.concatenate([memory.recent, token[:, None]], axis=1)[:, 1:], position=memory.position + 1
    )
    if config.view == "melody":
        after = hear(after, token)
    after = jax.tree.map(
        lambda new, old: jnp.where(counts.reshape(-1, *(1,) * (new.ndim - 1)), new, old), after, memory
    )
    digits = after.position[:, None] // 2 ** jnp.arange(config.counter) % 2
    counter = jnp.where(digits == 1, 1.0, -1.0)  # of the next event's position
    if config.view == "melody":
        parts = [melody_features(config, after), repeated, counter, key_features(after)]
    else:
        following = after.repeats(config)
        following = jnp.where(following == config.classes, 0, following)
        nexts = jax.nn.one_hot(following, config.classes).reshape(len(token), -1)
        parts = [jax.nn.one_hot(token, config.classes), nexts, counter, repeated]
    return after, jnp.concatenate(parts, axis=1) * counts[:, None]


def hear(memory: Memory, token: jax.Array) -> Memory:
    """The sounding note, the last three different ones, the direction and the pitch classes with one event more."""
    onset, pitch = token >= 2, token - 2
    note = jnp.where(onset, pitch, jnp.where(token == 1, -1, memory.note))
    before = memory.last[:, -1]
    moved = jnp.where(pitch > before, 1.0, jnp.where(pitch < before, -1.0, memory.direction))
    # a note that is among the last three moves to the end: drop it, else the oldest
    places = jnp.arange(3)
    known = memory.last == pitch[:, None]
    gone = jnp.where(known.any(axis=1), jnp.argmax(known, axis=1), 0)[:, None]
    kept = jnp.take_along_axis(memory.last, places[:2] + (places[:2] >= gone), axis=1)
    return memory._replace(
        note=note,
        attack=jnp.where(token == 1, memory.attack, onset.astype(jnp.float32)),
        last=jnp.where(onset[:, None], jnp.concatenate([kept, pitch[:, None]], axis=1), memory.last),
        direction=jnp.where(onset & (before >= 0), moved, memory.direction),
        counts=memory.counts + onset[:, None] * jax.nn.one_hot(pitch % 12, 12),
    )


def melody_features(config: Config, memory: Memory) -> jax.Array:
    """Sounding pitch, note or silence, attack, direction: [B, V − 2 + 4]."""
    sounds = (memory.note >= 0).astype(jnp.float32)
    flags = jnp.stack([sounds, 1.0 - sounds, memory.attack, memory.direction], axis=1)
    return jnp.concatenate([jax.nn.one_hot(memory.note, config.classes - 2), flags], axis=1)


def key_features(memory: Memory) -> jax.Array:
    """Whether a bar begins next, and the major keys that most notes fit, of all and of the last three: [B, 25]."""
    scales = np.zeros((12, 12), np.float32)  # pitch class, key
    for key in range(12):
        scales[[(key + degree) % 12 for degree in MAJOR], key] = 1.0
    recent = jnp.sum(jax.nn.one_hot(memory.last % 12, 12) * (memory.last >= 0)[..., None], axis=1)
    fits = [counts @ scales for counts in (memory.counts, recent)]
    best = [(fit == jnp.max(fit, axis=1, keepdims=True)).astype(jnp.float32) for fit in fits]
    return jnp.concatenate([(memory.position % BAR == 0).astype(jnp.float32)[:, None], *best], axis=1)


def chord_features(chord: jax.Array) -> jax.Array:
    """Chords int32 [...] as no chord, root, pitch classes, bass: [..., 37] (note_seq's `PitchChordsEncoderDecoder`).

    0 is no chord, otherwise 1 << 20 | bass << 16 | root << 12 | a bit for each pitch class.
    """
    there = (chord > 0)[..., None].astype(jnp.float32)
    root, bass = (jax.nn.one_hot(chord >> shift & 15, 12) for shift in (12, 16))
    pitches = (chord[..., None] >> jnp.arange(12) & 1).astype(jnp.float32)
    return jnp.concatenate([1.0 - there, root * there, pitches * there, bass * there], axis=-1)


def hidden(carry: Carry | Attended) -> jax.Array:
    """The output that a layer's state ends with, [H, B]."""
    return carry.out if isinstance(carry, Attended) else carry[1]


Prepared = tuple[tuple[LSTMStep | AttentiveStep, ...], DenseStep]  # of the layers, of the output


class State(NamedTuple):
    """What generation carries from event to event: the view's memory and the state of each layer."""

    memory: Memory
    layers: tuple[Any, ...]


class EventRNN(nnx.Module):
    """Layers over the view, and logits of labels: V events and N repeats.

    At first weights are large, for few inputs and for faint outputs: else the third layer can't tell events apart.
    Drums RNN is so at 2.21 nats after 150 steps, where it stood still at 2.67 with the usual ones.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs) -> None:
        self.config = config
        layers: list[LSTM | AttentiveLSTM] = []
        for inputs, units in zip((config.width, *config.units), config.units, strict=False):
            gain = 4.0 if layers else max(1.0, (inputs / 8) ** 0.5)  # about 8 of a view's numbers are not zero
            if config.attention and not layers:
                layers.append(AttentiveLSTM(inputs, units, config.attention, gain=gain, rngs=rngs))
            else:
                layers.append(LSTM(inputs, units, memory=None, gain=gain, rngs=rngs))
        self.layers = nnx.List(layers)
        self.output = Dense(config.units[-1], config.classes + len(config.lookbacks), rngs=rngs)

    def labels(self, view: jax.Array, drop: Dropout | None = None) -> jax.Array:
        """Logits of labels from what the network is shown at each step, [T, B, X] → [T, B, V + N]."""
        for layer in self.layers:
            if isinstance(layer, AttentiveLSTM):
                view = layer(view)
            else:
                view, _ = layer(view, layer.constant_gates(), layer.zeros(view.shape[1]))
            view = drop(view) if drop else view
        return self.output(view)

    def views(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Before each step: what the network is shown [T, B, X], and what repeating would bring, int32 [T, B, N]."""
        config = self.config
        tokens, context = parts(config, x)
        inputs = jnp.concatenate([jnp.full_like(tokens[:1], config.classes), tokens[:-1]])
        if config.one_hot:
            return jax.nn.one_hot(inputs, config.classes), jnp.zeros((*tokens.shape, 0), jnp.int32)

        def body(memory: Memory, token: jax.Array) -> tuple[Memory, tuple[jax.Array, jax.Array]]:
            memory, view = observe(config, memory, token)
            return memory, (view, memory.repeats(config))

        _, (view, repeats) = jax.lax.scan(body, Memory.empty(config, tokens.shape[1]), inputs)
        if context is not None:
            view = jnp.concatenate([chord_features(context), view], axis=-1)
        return view, repeats

    def logits(self, x: jax.Array) -> jax.Array:
        """The log p(event | events before, context so far) of each, but for a constant: `x` → float32 [B, T, V]."""
        view, repeats = self.views(x)
        return event_logits(self.config, self.labels(view), repeats).swapaxes(0, 1)


def parts(config: Config, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Events and context of `x`, time-major: int32 [T, B] each."""
    if config.context == "none":
        return x.T, None
    return x[..., 0].T, x[..., 1].T


def event_logits(config: Config, labels: jax.Array, repeats: jax.Array) -> jax.Array:
    """Logits of events [..., V] from those of labels [..., V + N]; `repeats` [..., N] are the events they stand for.

    Before the piece began, a repeat means the default event, 0.
    """
    events = labels[..., : config.classes]
    for n in range(len(config.lookbacks)):
        meant = jnp.where(repeats[..., n] == config.classes, 0, repeats[..., n])
        same = jnp.arange(config.classes) == meant[..., None]
        events = jnp.where(same, jnp.logaddexp(events, labels[..., config.classes + n, None]), events)
    return events


def label_of(config: Config, token: jax.Array, repeats: jax.Array, position: jax.Array) -> jax.Array:
    """The label Magenta trains on: the furthest repeat there is, else the event. `token` [...], `repeats` [..., N].

    The default event counts as the furthest repeat as long as that lies before the beginning.
    """
    label = token
    for n in range(len(config.lookbacks)):
        label = jnp.where(token == repeats[..., n], config.classes + n, label)
    if config.lookbacks:
        early = (position < config.lookbacks[-1]) & (token == 0)
        label = jnp.where(early, config.classes + len(config.lookbacks) - 1, label)
    return label


def loss(
    model: EventRNN, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Teacher forcing: the mean −log p of a label, in nats."""
    config, x = model.config, batch["x"]
    drop_key, context_key = jax.random.split(key)
    if config.context != "none" and config.keep_context < 1.0:
        kept = jax.random.bernoulli(context_key, config.keep_context, (len(x), 1))
        x = x.at[..., 1].multiply(kept)
    tokens, _ = parts(config, x)
    view, repeats = model.views(x)
    label = label_of(config, tokens, repeats, jnp.arange(len(tokens))[:, None])
    counts = (tokens < config.classes).astype(jnp.float32)
    nll = surprise(model.labels(view, Dropout(config.keep, drop_key)), label)
    return jnp.sum(nll * counts) / jnp.maximum(jnp.sum(counts), 1.0), {}


def evaluate(model: EventRNN, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
    """`loss`: mean −log p of an event in nats, whatever label means it; `accuracy`: the likeliest event is right.

    With a context `loss_without` is the loss of the same events when it isn't given.
    """
    config, x = model.config, batch["x"]

    def nll(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        tokens = parts(config, x)[0].T
        counts = (tokens < config.classes).astype(jnp.float32)
        logits, total = model.logits(x), jnp.maximum(jnp.sum(counts), 1.0)
        right = jnp.sum(counts * (jnp.argmax(logits, axis=-1) == tokens))
        return jnp.sum(surprise(logits, tokens) * counts) / total, right / total

    measured = dict(zip(("loss", "accuracy"), nll(x), strict=True))
    if config.context != "none":
        measured["loss_without"] = nll(x.at[..., 1].set(0))[0]
    return measured


def start(model: EventRNN, batch: int, capacity: int = 0) -> State:
    """The state before the first event; it is as large however many follow."""
    return State(Memory.empty(model.config, batch), tuple(layer.columns(batch) for layer in model.layers))


def prepare(model: EventRNN) -> Prepared:
    """What `stepper` needs of the parameters: turned once."""
    return tuple(layer.stepper() for layer in model.layers), model.output.stepper()


def stepper(
    model: EventRNN, prepared: Prepared | None = None
) -> Callable[[State, jax.Array, jax.Array | None], tuple[jax.Array, State]]:
    """A function that goes one event: (state, the token before [B], the next's context [B]) → (its logits, state)."""
    config = model.config
    advance, output = prepared or prepare(model)

    def step(state: State, token: jax.Array, context: jax.Array | None) -> tuple[jax.Array, State]:
        memory, x = state.memory, token
        if not config.one_hot:
            memory, x = observe(config, memory, token)
        if config.context == "chord":
            given = jnp.zeros_like(token) if context is None else context
            x = jnp.concatenate([chord_features(given), x], axis=1)
        x = x if x.ndim == 1 else x.T
        carries = []
        for layer, carry in zip(advance, state.layers, strict=True):
            carries.append(layer(x, carry))
            x = hidden(carries[-1])
        return event_logits(config, output(x).T, memory.repeats(config)), State(memory, tuple(carries))

    return step


def generate(
    model: EventRNN, x: jax.Array, key: jax.Array, sampling: Sampling, prepared: Prepared | None = None
) -> jax.Array:
    """As many events as `x` has, drawn from the model with the context of `x`: int32 [B, T]."""
    tokens, context = parts(model.config, x)
    begin, nothing = start(model, len(x)), jnp.full(len(x), model.config.classes)
    given = None if context is None else context.T
    return rollout(stepper(model, prepared), begin, nothing, key, 0, len(tokens), sampling, given)[0]


def example(config: Config, batch: int, rng: np.random.Generator) -> dict[str, Any]:
    """A random batch of windows."""
    x = rng.integers(0, config.classes, (batch, config.steps), dtype=np.int32)
    x[rng.random(x.shape) < 0.3] = 0
    if config.context == "chord":
        root, bass, pitches = rng.integers(0, 12, x.shape), rng.integers(0, 12, x.shape), rng.integers(1, 4096, x.shape)
        chord = (1 << 20 | bass << 16 | root << 12 | pitches) * (rng.random(x.shape) < 0.8)
        x = np.stack([x, chord.astype(np.int32)], axis=-1)
    return {"x": x}


ARCHITECTURE = Architecture(
    name="event-rnn",
    config=Config,
    module=EventRNN,
    loss=loss,
    evaluate=evaluate,
    monitor=("loss", "min"),
    example=example,
    kernels={
        "forward": lambda model, batch, key: model.logits(batch["x"]),
        "generate": lambda model, batch, key: generate(model, batch["x"], key, Sampling(), batch.get("prepared")),
    },
    prepare=prepare,
    stepping=Stepping(start, stepper),
    task="continuation",
    tiny={
        "basic": Config.tiny(),
        "lookback": replace(Config.tiny(), lookbacks=(4, 8), counter=3),
        "attention": replace(Config.tiny(), view="melody", lookbacks=(4, 8), counter=3, attention=5),
        "chords": replace(Config.tiny(), context="chord", keep_context=0.8),
        "drums": replace(Config.tiny(), classes=32, counter=3, attention=5),
    },
)
