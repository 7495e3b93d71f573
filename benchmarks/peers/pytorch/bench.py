"""The PyTorch twin of MusicVAE: `benchmarks/run.py` tells it when.

`python bench.py WAY OPERATION SIZE SECONDS`, such as `"jit bfloat16" decode 64 .5`: the way is eager, jit, or one pass
(of training), with bfloat16 after it or without, or compiled (by torch.compile, which takes minutes); the operation is
encode, forward, decode or train. With `--logits in.npz out.npz` it writes instead the twin's logits and posterior for
the weights, `z` and tokens in a file: the test that both compute the same.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from music_vae import Decode, Kernels, MusicVAE, decode_with, step

SAMPLING_RATE = 1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", nargs="*", metavar="WAY OPERATION SIZE SECONDS")
    parser.add_argument("--teacher-forced", action="store_true", help="train without scheduled sampling")
    parser.add_argument("--logits", nargs=2, metavar=("IN", "OUT"))
    options = parser.parse_args()
    if options.logits:
        return write_logits(*options.logits)
    from benchmarks.peers.turns import answer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    torch.manual_seed(0)
    way, operation, size, seconds = options.plan
    if operation == "train":
        call = trainer(way, int(size), None if options.teacher_forced else SAMPLING_RATE)
    else:
        call = torch.inference_mode()(inference(way, operation, int(size)))
    return answer({operation: call}, f"torch {torch.__version__}", float(seconds))


def decoder(way: str) -> Decode:
    """The loop over steps, as it is, scripted or with a compiled step."""
    if way.startswith("jit"):
        return torch.jit.script(decode_with(step))
    return decode_with(torch.compile(step, dynamic=False) if way.startswith("compiled") else step)


def inference(way: str, operation: str, size: int) -> Callable[[], Any]:
    model = MusicVAE()
    x, z = torch.randint(model.classes, (size, model.steps)), torch.randn(size, 256)
    if operation == "encode":
        return lambda: model.encode(x)
    if operation == "forward":
        return lambda: model(z, x.T)
    kernels = model.kernels(torch.bfloat16 if way.endswith("bfloat16") else torch.float32)
    return partial(draw, model, decoder(way), kernels, z)


def trainer(way: str, size: int, rate: float | None) -> Callable[[], Any]:
    """A step of fused Adam; draws for scheduled sampling, if there are any, come from the loop that `way` names."""
    model = MusicVAE()
    x = torch.randint(model.classes, (size, model.steps))
    optimiser, decode = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), decoder(way)

    def train() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=way.endswith("bfloat16")):
            loss = model.loss(x, 1000, decode, rate, way.startswith("one pass"))
        loss.backward()
        optimiser.step()

    return train


def draw(model: MusicVAE, decode: Decode, kernels: Kernels, z: torch.Tensor) -> torch.Tensor:
    return decode(*model.start(z), kernels, model.steps, 1.0)


def write_logits(source: str, target: str) -> None:
    data = dict(np.load(source))
    x, z, previous = (torch.tensor(data.pop(name)) for name in ("x", "z", "previous"))
    units = {"latent": z.shape[1], "encoder": data["encoder.forward.0.bias"].size // 4}
    units |= {"decoder": data["decoders.0.cells.0.bias"].size // 4, "classes": data["decoders.0.output.bias"].size}
    model = MusicVAE(steps=x.shape[1], **units)
    model.load(data)
    with torch.inference_mode():
        mean, scale = model.encode(x.long())
        logits = model(z, previous.long().T).transpose(0, 1)
        one_pass = model.forward_drawing(z, x.long().T, torch.zeros(x.T.shape, dtype=torch.bool)).transpose(0, 1)
        state, constant = model.start(z)
        greedy = decode_with(step)(state, constant, model.kernels(), x.shape[1], 0.0).T
    np.savez(target, mean=mean, scale=scale, logits=logits, one_pass=one_pass, greedy=greedy)


if __name__ == "__main__":
    main()
