"""Sequence models in PyTorch, taking turns with ours: `python sequences.py lstm < operations`.

With `lstm`: Performance RNN's shape, 3 layers of 512 units, drawing 256 events one by one, by a loop over
`nn.LSTMCell`, over `nn.LSTM` one step at a time, and over `torch.jit.script`ed cells. With anything else: Hugging
Face's GPT-2 in Music Transformer's shape, 6 layers of 512 units and 8 heads, vocabulary 310: decoding by `generate`
with its growing cache and with its static one, and a training step of 8 x 1 024 tokens.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from turns import answer

CLASSES, TOKENS, EVENTS, EVENT_CLASSES = 310, 1024, 256, 308


class Cells(nn.Module):
    """Three LSTM cells and an output layer; a step draws the next event."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTMCell(EVENT_CLASSES, 512)
        self.second = nn.LSTMCell(512, 512)
        self.third = nn.LSTMCell(512, 512)
        self.output = nn.Linear(512, EVENT_CLASSES)

    def forward(self, eye: Tensor, token: Tensor, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        state[0] = self.first(eye[token], state[0])
        state[1] = self.second(state[0][0], state[1])
        state[2] = self.third(state[1][0], state[2])
        return torch.multinomial(torch.softmax(self.output(state[2][0]).float(), -1), 1)[:, 0]


def lstm_loops(dtype: torch.dtype, suffix: str) -> dict[str, Callable[[], Any]]:
    """Draws EVENTS events, each way."""
    eye, nothing = torch.eye(EVENT_CLASSES, dtype=dtype), torch.zeros(1, dtype=torch.long)
    cells, layers = Cells().to(dtype), nn.LSTM(EVENT_CLASSES, 512, num_layers=3).to(dtype)

    def by_cells(step: Any) -> None:
        with torch.inference_mode():
            token, state = nothing, [(torch.zeros(1, 512, dtype=dtype),) * 2 for _ in range(3)]
            for _ in range(EVENTS):
                token = step(eye, token, state)

    def by_layers() -> None:
        with torch.inference_mode():
            token, state = nothing, None
            for _ in range(EVENTS):
                hidden, state = layers(eye[token][None], state)
                token = torch.multinomial(torch.softmax(cells.output(hidden[0]).float(), -1), 1)[:, 0]

    scripted = torch.jit.script(cells)
    return {
        f"lstm cells{suffix}": lambda: by_cells(cells),
        f"lstm layers{suffix}": by_layers,
        f"lstm jit{suffix}": lambda: by_cells(scripted),
    }


def transformer() -> dict[str, Callable[[], Any]]:
    """Decoding, and the training step."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_layer": 6, "n_embd": 512, "n_head": 8, "n_positions": TOKENS + 1, "vocab_size": CLASSES}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    x = torch.randint(CLASSES, (8, TOKENS))

    rounded = copy.deepcopy(model).to(torch.bfloat16)

    def decode(model: Any, size: int, **cache: str) -> None:
        first = torch.zeros((size, 1), dtype=torch.long)
        drawn = {"do_sample": True, "top_k": 0, "pad_token_id": 0, "max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        model.eval()
        with torch.inference_mode():
            model.generate(first, attention_mask=torch.ones_like(first), **drawn, **cache)

    def train(dtype: torch.dtype) -> None:
        model.train()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = model(input_ids=x, labels=x).loss
        value.backward()
        optimizer.step()

    return {
        "decode 1 dynamic": lambda: decode(model, 1),
        "decode 1 static": lambda: decode(model, 1, cache_implementation="static"),
        "decode 8 static": lambda: decode(model, 8, cache_implementation="static"),
        "decode 1 dynamic bfloat16": lambda: decode(rounded, 1),
        "decode 1 static bfloat16": lambda: decode(rounded, 1, cache_implementation="static"),
        "decode 8 static bfloat16": lambda: decode(rounded, 8, cache_implementation="static"),
        "train float32": lambda: train(torch.float32),
        "train bfloat16": lambda: train(torch.bfloat16),
    }


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    torch.manual_seed(0)
    if sys.argv[1:] == ["lstm"]:
        operations = lstm_loops(torch.float32, "") | lstm_loops(torch.bfloat16, " bfloat16")
    else:
        operations = transformer()
    answer(operations, f"torch {torch.__version__}")


if __name__ == "__main__":
    main()
