"""Times torchcrepe when it is told to, so that its runs and ours take turns: `benchmarks/pitch.py` does.

Reads lines such as "tiny eager" or "full compiled" and answers each with a JSON line: the seconds that one `predict` of
the sound in the file given took, by the clock and of processor time, and its pitch and periodicity. What is compiled is
the network, at the batch of `--batch` frames; everything else is torchcrepe's own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import types

import numpy as np

sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))  # reads files only, which isn't timed

import torch  # noqa: E402
import torchcrepe  # noqa: E402

RATE = 16000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sound", help="a .npy file of samples at 16 kHz")
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    sound = torch.tensor(np.load(options.sound)[None])
    networks: dict[tuple[str, str], torch.nn.Module] = {}
    for line in sys.stdin:
        size, way = line.split()
        if (size, way) not in networks:
            torchcrepe.load.model("cpu", size)
            network = torchcrepe.infer.model
            networks[size, way] = torch.compile(network, dynamic=False) if way == "compiled" else network
            predict(networks[size, way], size, sound, options.batch)  # the first isn't timed
        begin, processor = time.perf_counter(), time.process_time()
        hz, periodicity = predict(networks[size, way], size, sound, options.batch)
        told = {"seconds": time.perf_counter() - begin, "processor": time.process_time() - processor}
        told |= {
            "version": f"torch {torch.__version__}",
            "periodicity": float(periodicity.mean()),
            "frames": hz.numel(),
        }
        print(json.dumps(told), flush=True)


def predict(network: torch.nn.Module, size: str, sound: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """From samples to pitch and periodicity."""

    class Movable:  # torchcrepe moves its network to a device at each call, which would compile it anew
        def to(self, device: object) -> Movable:
            return self

        def __call__(self, frames: torch.Tensor, embed: bool = False) -> torch.Tensor:
            return network(frames)

    torchcrepe.infer.model, torchcrepe.infer.capacity = Movable(), size
    decoder = torchcrepe.decode.argmax
    return torchcrepe.predict(
        sound, RATE, RATE // 100, model=size, decoder=decoder, return_periodicity=True, batch_size=batch
    )


if __name__ == "__main__":
    main()
