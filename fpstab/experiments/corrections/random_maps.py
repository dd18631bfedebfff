"""Batches of small random networks of papers 1 and 2, and where plain iteration from a grid takes them."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

_DONE = 1e-8
_APART = 1e-4

Scale = Literal["std", "variance"]


@dataclass(frozen=True, slots=True, eq=False)
class Fates:
    """Where the orbits of the grid end, by network.

    Attributes:
        limits: How many different limits `[M]`.
        converged: Share of the starts that have a limit `[M]`.
    """

    limits: Tensor
    converged: Tensor


def draw_layers(
    distribution: Literal["normal", "cauchy"],
    depth: int,
    count: int,
    generator: Generator,
    *,
    width: int = 100,
    scale: Scale = "std",
) -> list[tuple[Tensor, Tensor]]:
    """Weights `[M, n_out, n_in]` and biases `[M, n_out]` of networks 2 → width → … → 2, scale 1/fan-in.

    Args:
        distribution: Of all parameters.
        depth: Layers.
        count: M.
        generator: Source of randomness.
        width: Of the hidden layers.
        scale: Whether 1/fan-in is the scale (a standard deviation), or its square is 1/fan-in.
    """
    widths = [2, *[width] * (depth - 1), 2]
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        size = 1 / n_in if scale == "std" else n_in**-0.5
        drawn = []
        for shape in ((count, n_out, n_in), (count, n_out)):
            if distribution == "normal":
                values = torch.randn(shape, generator=generator, dtype=torch.float64)
            else:
                values = torch.tan(math.pi * (torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5))
            drawn.append(size * values)
        layers.append((drawn[0], drawn[1]))
    return layers


def follow(
    layers: list[tuple[Tensor, Tensor]], activation: Callable[[Tensor], Tensor], *, nodes: int = 9, steps: int = 300
) -> Fates:
    """Iterate every network from a grid of `nodes` × `nodes` starts in [−1, 1]²."""
    line = torch.linspace(-1, 1, nodes, dtype=torch.float64)
    starts = torch.cartesian_prod(line, line)
    count = len(layers[0][0])
    x = starts.expand(count, *starts.shape)
    moved = torch.full(x.shape[:2], math.inf)
    for _ in range(steps):
        new = x
        for weight, bias in layers:
            new = activation(torch.baddbmm(bias[:, None], new, weight.mT))
        moved = (new - x).norm(dim=2)
        x = new
    done = moved < _DONE
    limits = [len((points[kept] / _APART).round().unique(dim=0)) for points, kept in zip(x, done, strict=True)]
    return Fates(torch.tensor(limits), done.double().mean(1))
