"""Maps with known Jacobians."""

from itertools import pairwise

import torch
from torch import nn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(*widths, activation=nn.Tanh, gain=1.0, seed=0):
    """A dense network of float64, with weights of variance gain²/fan-in."""
    layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        linear = nn.Linear(a, b).double()
        with torch.no_grad():
            linear.weight.copy_(gain * random(b, a, seed=seed + i) / a**0.5)
            linear.bias.copy_(0.1 * random(b, seed=seed + i + 100))
        layers += [linear, activation()]
    return nn.Sequential(*layers)


class Autoencoder(nn.Module):
    """A dense autoencoder, by which it is known to be one."""

    def __init__(self, *widths, gain=1.5, seed=0):
        super().__init__()
        self.encoder = network(*widths, gain=gain, seed=seed)
        self.decoder = network(*widths[::-1], gain=gain, seed=seed + 50)

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x):
        return self.decode(self.encode(x))


def brute_force(phi, x):
    """The Jacobians `[B, m, n]`, a point and an output at a time."""
    return torch.stack([torch.autograd.functional.jacobian(lambda z: phi(z[None])[0], row) for row in x])
