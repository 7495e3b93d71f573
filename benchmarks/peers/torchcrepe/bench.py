"""torchcrepe, full and tiny, from a decoded waveform to the pitch; `benchmarks/listening.py` tells it when.

Operations are such as "tiny eager" and "full compiled": its own `predict`, whose network `torch.compile` may have made
faster, at the batch that its frames fill.
"""

from __future__ import annotations

import os
import sys
import types
from functools import partial

sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))  # reads files only, which isn't timed

import soundfile  # noqa: E402
import torch  # noqa: E402
import torchcrepe  # noqa: E402

from benchmarks.peers.turns import answer  # noqa: E402

BATCH = 128


def main(path: str) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    sound, rate = soundfile.read(path, dtype="float32")
    samples, networks = torch.tensor(sound[None]), {}

    def predict(size: str, way: str) -> None:
        if (size, way) not in networks:
            torchcrepe.load.model("cpu", size)
            network = torchcrepe.infer.model
            networks[size, way] = torch.compile(network, dynamic=False) if way == "compiled" else network
        torchcrepe.infer.model, torchcrepe.infer.capacity = movable(networks[size, way]), size
        torchcrepe.predict(
            samples, rate, rate // 100, model=size, decoder=torchcrepe.decode.argmax,
            return_periodicity=True, batch_size=BATCH,
        )  # fmt: skip

    operations = {f"{size} {way}": partial(predict, size, way) for size in ("tiny", "full") for way in WAYS}
    answer(operations, f"torchcrepe 0.0.24, torch {torch.__version__}")


WAYS = ("eager", "compiled")


def movable(network: torch.nn.Module) -> object:
    """The network as torchcrepe wants it: it moves it to a device at each call, which would compile it anew."""

    class Movable:
        def to(self, device: object) -> Movable:
            return self

        def __call__(self, frames: torch.Tensor, embed: bool = False) -> torch.Tensor:
            return network(frames)

    return Movable()


if __name__ == "__main__":
    main(sys.argv[1])
