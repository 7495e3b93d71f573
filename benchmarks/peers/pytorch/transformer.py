"""Times a Transformer of Hugging Face's: `python transformer.py --tokens 1024 --batches 1,8`.

GPT-2's shape, 6 layers of 512 units and 8 heads, a vocabulary of 310: decoding by `generate` with its growing cache and
with its static one, and a training step of 8 x 1 024 tokens in float32 and bfloat16. Prints a JSON line for each:
wall and processor seconds of one call after a first, shorter one that isn't counted.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel

VOCABULARY = 310


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=[1, 8])
    parser.add_argument("--train", action="store_true", help="the training step too")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    torch.manual_seed(0)
    shape = {"n_layer": 6, "n_embd": 512, "n_head": 8, "n_positions": options.tokens + 1, "vocab_size": VOCABULARY}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=None)).eval()
    for size in options.batches:
        for cache in (None, "static"):
            report("decode", cache or "dynamic", size, decoder(model, size, options.tokens, cache))
    if options.train:
        for dtype in (torch.float32, torch.bfloat16):
            report("train", str(dtype), 8, trainer(model, 8, options.tokens, dtype))


def decoder(model: Any, size: int, tokens: int, cache: str | None) -> Callable[[], Any]:
    """Draws `tokens` tokens for `size` sequences."""
    first = torch.zeros((size, 1), dtype=torch.long)
    drawn = {"do_sample": True, "top_k": 0, "pad_token_id": 0, "max_new_tokens": tokens, "min_new_tokens": tokens}
    extra = {"cache_implementation": cache} if cache else {}

    def call() -> Any:
        with torch.inference_mode():
            return model.generate(first, attention_mask=torch.ones_like(first), **drawn, **extra)

    return call


def trainer(model: Any, size: int, tokens: int, dtype: torch.dtype) -> Callable[[], Any]:
    """One step of Adam on random tokens."""
    x = torch.randint(VOCABULARY, (size, tokens))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def call() -> Any:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = model(input_ids=x, labels=x).loss
        value.backward()
        optimizer.step()

    return call


def report(operation: str, kind: str, size: int, call: Callable[[], Any]) -> None:
    """Calls once uncounted, once counted."""
    call()
    wall, processor = time.perf_counter(), time.process_time()
    call()
    seconds, used = time.perf_counter() - wall, time.process_time() - processor
    row = {"system": f"transformers {transformers.__version__}", "operation": operation, "kind": kind, "batch": size}
    print(json.dumps(row | {"seconds": seconds, "processor_s": used}), flush=True)


if __name__ == "__main__":
    main()
