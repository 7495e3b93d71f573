"""A PyTorch twin of the flat categorical MusicVAE, written for speed the way one writes PyTorch.

`torch.nn.LSTM` where the inputs are known (encoder, teacher forcing), explicit matrix products where each step's input
is the output before (sampling). There, as in the zoo, the share of z is worked out once and a token picks its row of
the kernel. Shapes: `B` batch, `T` steps, `V` classes, `H` units, `Z` latent size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Kernels(NamedTuple):
    """The decoder's weights as `step` multiplies by them."""

    tokens: Tensor  # [V + 1, 4H], a row a token; the last, for the output before the first, is zeros
    first: Tensor  # [H, 4H]
    second: Tensor  # [2H, 4H], over [h of the first layer, h of this one]
    bias: Tensor  # [4H], the second layer's
    output: Tensor  # [H, V]
    output_bias: Tensor  # [V]


class State(NamedTuple):
    """What a decoding step hands to the next. `token` int64 [B], the others [B, H]."""

    token: Tensor
    c0: Tensor
    h0: Tensor
    c1: Tensor
    h1: Tensor


class MusicVAE(nn.Module):
    """One track, one encoder layer each way, two decoder layers of equal size: Magenta's `cat-mel_2bar_small`."""

    def __init__(
        self, steps: int = 32, classes: int = 90, latent: int = 256, encoder: int = 512, decoder: int = 256
    ) -> None:
        super().__init__()
        self.steps, self.classes = steps, classes
        self.encoder = nn.LSTM(classes, encoder, bidirectional=True)
        self.mu = nn.Linear(2 * encoder, latent)
        self.sigma = nn.Linear(2 * encoder, latent)
        self.initial = nn.Linear(latent, 4 * decoder)
        self.decoder = nn.LSTM(classes + latent, decoder, num_layers=2)
        self.output = nn.Linear(decoder, classes)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T] → mean and scale of q(z|x), [B, Z] each."""
        _, (last, _) = self.encoder(functional.one_hot(x.T, self.classes).float())
        last = torch.cat([last[0], last[1]], dim=-1)
        return self.mu(last), functional.softplus(self.sigma(last))

    def forward(self, z: Tensor, previous: Tensor) -> Tensor:
        """Teacher forcing: the output before each step, tokens [T, B] (V: none) → logits [T, B, V]."""
        x = functional.one_hot(previous, self.classes + 1)[..., : self.classes].float()
        x = torch.cat([x, z.expand(len(x), -1, -1)], dim=-1)
        c0, h0, c1, h1 = torch.tanh(self.initial(z)).chunk(4, dim=-1)
        hidden, _ = self.decoder(x, (torch.stack([h0, h1]), torch.stack([c0, c1])))
        return self.output(hidden)

    def kernels(self, products: torch.dtype = torch.float32) -> Kernels:
        """The decoder's weights, those that are factors of matrix products rounded to the format `products`."""
        lstm = self.decoder
        return Kernels(
            functional.pad(lstm.weight_ih_l0[:, : self.classes].T, (0, 0, 0, 1)).contiguous(),
            lstm.weight_hh_l0.T.to(products).contiguous(),
            torch.cat([lstm.weight_ih_l1, lstm.weight_hh_l1], dim=1).T.to(products).contiguous(),
            lstm.bias_ih_l1 + lstm.bias_hh_l1,
            self.output.weight.T.to(products).contiguous(),
            self.output.bias,
        )

    def start(self, z: Tensor) -> tuple[State, Tensor]:
        """The state before the first step, and what z and the bias add to the first layer's gates at every step."""
        nothing = torch.full((len(z),), self.classes)
        parts = [part.contiguous() for part in torch.tanh(self.initial(z)).chunk(4, dim=-1)]
        lstm = self.decoder
        constant = torch.addmm(lstm.bias_ih_l0 + lstm.bias_hh_l0, z, lstm.weight_ih_l0[:, self.classes :].T)
        return State(nothing, *parts), constant

    def loss(
        self, x: Tensor, step: int, own_outputs: Decode, sampling_rate: float | None, one_pass: bool = False
    ) -> Tensor:
        """The negative ELBO with β = 0.2 (1 − 0.99999^step); with `sampling_rate`, scheduled sampling.

        Its draws are made in a pass of their own, so that what learns is `torch.nn.LSTM`; or with `one_pass` where
        they are needed, cell by cell, as the zoo does it.
        """
        mean, scale = self.encode(x)
        z = mean + scale * torch.randn_like(mean)
        target = x.T
        rate = math.inf if sampling_rate is None else sampling_rate
        own = torch.rand(target.shape) < 1.0 - 1.0 / (1.0 + math.exp(step / rate) / rate)
        if one_pass:
            logits = self.forward_drawing(z, target, own)
        else:
            previous = torch.cat([torch.full_like(target[:1], self.classes), target[:-1]])
            if sampling_rate is not None:
                with torch.no_grad():
                    drawn = own_outputs(*self.start(z), self.kernels(), self.steps, 1.0)
                previous[1:] = torch.where(own, drawn, target)[:-1]
            logits = self(z, previous)
        nll = functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")
        kl = 0.5 * torch.sum(mean**2 + scale**2 - 1.0 - 2.0 * torch.log(scale))
        return (nll + 0.2 * (1.0 - 0.99999**step) * kl) / len(x)

    def forward_drawing(self, z: Tensor, target: Tensor, own: Tensor) -> Tensor:
        """Logits [T, B, V] where the output before a step is `target` [T, B], or a draw where `own` [T, B] is set."""
        (token, c0, h0, c1, h1), constant = self.start(z)
        kernels, hidden = self.kernels(), []
        for following, drawn_here in zip(target, own, strict=True):
            c0, h0 = cell(affine(constant + kernels.tokens[token], h0, kernels.first), c0)
            c1, h1 = cell(affine(kernels.bias, torch.cat([h0, h1], dim=-1), kernels.second), c1)
            hidden.append(h1)
            with torch.no_grad():
                token = torch.where(drawn_here, drawn(self.output(h1), 1.0), following)
        return self.output(torch.stack(hidden))

    def load(self, weights: Mapping[str, np.ndarray]) -> None:
        """Takes the zoo's weights: kernels over [x; h], gates i, j, f, o, 1 added to the forget gate at run time."""

        def fill(layer: nn.LSTM, suffix: str, name: str) -> None:
            kernel, bias = torch.tensor(weights[name + ".kernel"]), torch.tensor(weights[name + ".bias"])
            units = layer.hidden_size
            order = torch.cat([torch.arange(units) + gate * units for gate in (0, 2, 1, 3)])  # PyTorch's: i, f, j, o
            kernel, bias = kernel[:, order].T, bias[order]
            bias[units : 2 * units] += 1.0
            parts = {"weight_ih": kernel[:, :-units], "weight_hh": kernel[:, -units:], "bias_ih": bias}
            for part, value in (parts | {"bias_hh": torch.zeros_like(bias)}).items():
                getattr(layer, f"{part}_{suffix}").data.copy_(value)

        fill(self.encoder, "l0", "encoder.forward.0")
        fill(self.encoder, "l0_reverse", "encoder.backward.0")
        fill(self.decoder, "l0", "decoders.0.cells.0")
        fill(self.decoder, "l1", "decoders.0.cells.1")
        dense = {"encoder.mu": self.mu, "encoder.sigma": self.sigma}
        for name, layer in (dense | {"decoders.0.initial": self.initial, "decoders.0.output": self.output}).items():
            layer.weight.data.copy_(torch.tensor(weights[name + ".kernel"]).T)
            layer.bias.data.copy_(torch.tensor(weights[name + ".bias"]))


def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """(c, h) from pre-activations [B, 4H] in the order i, f, j, o."""
    i, f, j, o = gates.chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(j)
    return c, torch.sigmoid(o) * torch.tanh(c)


def affine(bias: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """Their product and a bias in float32, the factors in the format of `kernel`."""
    if kernel.dtype == torch.float32:
        return torch.addmm(bias, x, kernel)
    return bias + torch.mm(x.to(kernel.dtype), kernel).float()


def step(state: State, constant: Tensor, kernels: Kernels, temperature: float) -> State:
    """One output."""
    c0, h0 = cell(affine(constant + kernels.tokens[state.token], state.h0, kernels.first), state.c0)
    both = torch.cat([h0, state.h1], dim=-1)
    c1, h1 = cell(affine(kernels.bias, both, kernels.second), state.c1)
    logits = affine(kernels.output_bias, h1, kernels.output)
    return State(drawn(logits, temperature), c0, h0, c1, h1)


def drawn(logits: Tensor, temperature: float) -> Tensor:
    """A token of each row of `logits` [B, V], drawn from their softmax by temperature with the exponential trick."""
    gumbel = -torch.log(torch.empty_like(logits).exponential_())
    return torch.argmax(logits + temperature * gumbel, dim=-1)


Step = Callable[[State, Tensor, Kernels, float], State]
Decode = Callable[[State, Tensor, Kernels, int, float], Tensor]


def decode_with(step: Step) -> Decode:
    """The loop over `step`: tokens [T, B]."""

    def decode(state: State, constant: Tensor, kernels: Kernels, steps: int, temperature: float) -> Tensor:
        tokens = []
        for _ in range(steps):
            state = step(state, constant, kernels, temperature)
            tokens.append(state.token)
        return torch.stack(tokens)

    return decode
