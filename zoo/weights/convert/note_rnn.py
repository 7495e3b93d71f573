"""Magenta's note RNN (RL Tuner, TensorFlow) → `zoo/models/event_rnn.py`: only the names change."""

from __future__ import annotations

from zoo.weights.convert import Rule

RULES = [
    Rule(r"rnn_model/RNN/MultiRNNCell/Cell(\d+)/LSTMCell/W_0", r"layers.\1.kernel"),
    Rule(r"rnn_model/RNN/MultiRNNCell/Cell(\d+)/LSTMCell/B", r"layers.\1.bias"),
    Rule(r"rnn_model/fully_connected/weights", r"output.kernel"),
    Rule(r"rnn_model/fully_connected/bias", r"output.bias"),
]
