r"""Magenta's Piano Genie (TF.js) → `zoo/models/piano_genie.py`.

The encoder's backward LSTM has no variables of its own: its authors gave both directions one cell, which made them
once, under "fw". Gates and kernels are TensorFlow's, as ours are.
"""

from __future__ import annotations

from zoo.weights.convert import Rule

_CELL = r"multi_rnn_cell/cell_(\d+)/lstm_cell/(kernel|bias)"

RULES = [
    Rule(rf"phero_model/encoder/rnn/bidirectional_rnn/fw/{_CELL}", r"encoder.\1.\2"),
    Rule(rf"phero_model/decoder/rnn/rnn/{_CELL}", r"decoder.\1.\2"),
    Rule(r"phero_model/(encoder|decoder)/rnn_input/dense/(kernel|bias)", r"\1_input.\2"),
    Rule(r"phero_model/stp_emb_iq/pre_iq/dense/(kernel|bias)", r"to_button.\1"),
    Rule(r"phero_model/decoder/pitches/dense/(kernel|bias)", r"output.\1"),
]
