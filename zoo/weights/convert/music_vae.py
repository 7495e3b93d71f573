r"""Magenta's MusicVAE and GrooVAE (TensorFlow and TF.js) → `zoo/models/music_vae.py`.

TensorFlow's LSTM has one kernel over [x; h] with the gates in the order i, j, f, o and adds 1 to the forget gate when
it runs; ours is the same, so only names change. A flat decoder is our decoder 0. A hierarchical one has a conductor
(`hierarchical_level_0`) and below it one core decoder, or several (one a track).
"""

from __future__ import annotations

from zoo.weights.convert import Rule

_BIDIRECTIONAL = r"encoder/cell_(\d+)/bidirectional_rnn/{}/multi_rnn_cell/cell_0/lstm_cell/(kernel|bias)"

RULES = [
    Rule(_BIDIRECTIONAL.format("fw"), r"encoder.forward.\1.\2"),
    Rule(_BIDIRECTIONAL.format("bw"), r"encoder.backward.\1.\2"),
    Rule(r"encoder/(mu|sigma)/(kernel|bias)", r"encoder.\1.\2"),
    Rule(r"decoder/hierarchical_level_0/initial_state/(kernel|bias)", r"conductor.initial.\1"),
    Rule(
        r"decoder/hierarchical_level_0/(?:multi_rnn_cell/)?cell_(\d+)/lstm_cell/(kernel|bias)", r"conductor.cells.\1.\2"
    ),
    *(  # the first group of a core decoder is its number, which the only one lacks
        rule
        for prefix, decoder in (
            (r"(?:core_decoder/)?decoder/()", "decoders.0"),
            (r"core_decoder/core_decoder_(\d+)/decoder/", r"decoders.\1"),
        )
        for rule in (
            Rule(prefix + r"z_to_initial_state/(kernel|bias)", decoder + r".initial.\2"),
            Rule(prefix + r"multi_rnn_cell/cell_(\d+)/lstm_cell/(kernel|bias)", decoder + r".cells.\2.\3"),
            Rule(prefix + r"output_projection/(kernel|bias)", decoder + r".output.\2"),
        )
    ),
]
