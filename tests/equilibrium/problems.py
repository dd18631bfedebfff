"""Maps with known fixed points."""

import numpy as np
import torch
from torch import nn

from fpstab.equilibrium import Anderson, Auto, Broyden, Picard

SOLVERS = [Picard(max_iter=400), Anderson(max_iter=400), Broyden(max_iter=400), Auto(max_iter=400)]
ACCELERATED = [Anderson(max_iter=400), Broyden(max_iter=400), Auto(max_iter=400)]


def name(value):
    return type(value).__name__


class Cell(nn.Module):
    """tanh(Wz + x + b) with spectral radius about `radius`."""

    def __init__(self, width, radius=0.6, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        w = torch.randn(width, width, generator=generator, dtype=torch.float64)
        self.W = nn.Parameter((radius * w / width**0.5).to(dtype))
        self.b = nn.Parameter(0.1 * torch.randn(width, generator=generator, dtype=torch.float64).to(dtype))

    def forward(self, z, x):
        return torch.tanh(z @ self.W.T + x + self.b)


def batch(rows, width, seed=1, dtype=torch.float64):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def unrolled(f, z, *args, steps=600):
    for _ in range(steps):
        z = f(z, *args)
    return z


def newton(f, start):
    """The reference for one sample: scipy's hybrid Powell method on f(z) − z."""
    from scipy.optimize import root

    def residual(z):
        return f(torch.from_numpy(np.asarray(z))[None])[0].numpy() - z

    found = root(residual, start, tol=1e-13)
    assert np.abs(found.fun).max() < 1e-11
    return torch.from_numpy(found.x)
