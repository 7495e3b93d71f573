"""Times the PyTorch twin: `python bench.py --batches 1,64,512 --seconds 3`.

Prints a JSON line for each operation and batch size: the seconds of every call after a first that isn't counted.
With `--logits in.npz out.npz` it writes instead the twin's logits and posterior for the weights, `z` and tokens in a
file: the test that both compute the same.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from music_vae import Decode, Kernels, MusicVAE, decode_with, step

SAMPLING_RATE = 1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=[1, 64, 512])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--teacher-forced", action="store_true", help="train without scheduled sampling")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: it takes minutes")
    parser.add_argument("--logits", nargs=2, metavar=("IN", "OUT"))
    options = parser.parse_args()
    if options.logits:
        return write_logits(*options.logits)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    for name, operation, size, compile_s, call in operations(options):
        times, cores = timed(call, options.seconds)
        row = {"system": f"PyTorch {name}", "version": f"torch {torch.__version__}", "operation": operation}
        row |= {"batch": size, "times": times, "cores_used": cores, "compile_s": compile_s}
        print(json.dumps(row), flush=True)


Operation = tuple[str, str, int, float | None, Callable[[], Any]]


def operations(options: argparse.Namespace) -> Iterator[Operation]:
    """(how it runs, operation, batch size, seconds to compile, call), one after another."""
    torch.manual_seed(0)
    model = MusicVAE()
    decoders = {"eager": decode_with(step), "jit": torch.jit.script(decode_with(step))}
    if options.compile:
        decoders["compiled"] = decode_with(torch.compile(step, dynamic=False))
    ways = [(name, decode, torch.float32) for name, decode in decoders.items()]
    ways.append(("jit bfloat16", decoders["jit"], torch.bfloat16))
    for size in options.batches:
        x = torch.randint(model.classes, (size, model.steps))
        z = torch.randn(size, 256)
        with torch.inference_mode():  # holds for the caller as well, between one yield and the next
            yield "eager", "encode", size, None, lambda x=x: model.encode(x)
            yield "eager", "forward", size, None, lambda x=x, z=z: model(z, x.T)
            for name, decode, products in ways:
                sample = partial(draw, model, decode, model.kernels(products), z)
                begin = time.perf_counter()
                for _ in range(1 if name == "eager" else 3):  # jit profiles twice before it optimises
                    sample()
                yield name, "decode", size, None if name == "eager" else time.perf_counter() - begin, sample
    size = max(options.batches)
    x = torch.randint(model.classes, (size, model.steps))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    rate = None if options.teacher_forced else SAMPLING_RATE

    def train(rounded: bool) -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            loss = model.loss(x, 1000, decoders["eager" if rounded else "jit"], rate)
        loss.backward()
        optimiser.step()

    yield "eager", "train", size, None, partial(train, False)
    yield "autocast bfloat16", "train", size, None, partial(train, True)


def draw(model: MusicVAE, decode: Decode, kernels: Kernels, z: torch.Tensor) -> torch.Tensor:
    return decode(*model.start(z), kernels, model.steps, 1.0)


def timed(call: Callable[[], Any], seconds: float) -> tuple[list[float], float]:
    """Seconds of each call after a first, at least three, and how many processor cores were in use meanwhile."""
    call()
    times: list[float] = []
    processor, begin = time.process_time(), time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times, (time.process_time() - processor) / (time.perf_counter() - begin)


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
        state, constant = model.start(z)
        greedy = decode_with(step)(state, constant, model.kernels(), x.shape[1], 0.0).T
    np.savez(target, mean=mean, scale=scale, logits=logits, greedy=greedy)


if __name__ == "__main__":
    main()
