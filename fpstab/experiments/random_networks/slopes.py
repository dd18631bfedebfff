"""How much random networks stretch: g of paper 2, eq. (8), from below on a grid and from above by norms."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from fpstab.ensembles import RandomNetworkBatch
from fpstab.ensembles.census import grid
from fpstab.ensembles.distributions import distribution_of

_REFINED = 1e-4  # error of β_cr


def unscaled(
    widths: tuple[int, ...], *, distribution: str, generator: Generator
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Weights `[1, n_{l+1}, n_l]` and biases `[1, n_{l+1}]` of scale 1."""
    draw = distribution_of(distribution)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    weights = tuple(draw(rows * columns, generator).reshape(1, rows, columns) for rows, columns in shapes)
    return weights, tuple(draw(rows, generator)[None] for rows, _ in shapes)


def scaled(
    weights: tuple[Tensor, ...], biases: tuple[Tensor, ...], sigma: float, activation: str
) -> RandomNetworkBatch:
    """The network of these weights and biases, times σ (paper 2, eq. (7): σ = N^−β)."""
    return RandomNetworkBatch(tuple(sigma * w for w in weights), tuple(sigma * b for b in biases), activation)


def gradient(batch: RandomNetworkBatch) -> float:
    """The largest ‖J(x)‖₂ on the papers' grid, of one network from the plane to any space.

    At least g of paper 2, eq. (8), but for the spacing of the grid, and far cheaper than all pairs.

    >>> round(gradient(RandomNetworkBatch((torch.full((1, 3, 2), 0.5, dtype=torch.float64),))), 6)  # 0.5 √6
    1.224745
    """
    J = batch.jacobian(grid()[None])[0]
    a, b, c = (torch.einsum("pi,pi->p", J[..., i], J[..., j]) for i, j in ((0, 0), (1, 1), (0, 1)))
    largest = ((a + b) / 2 + torch.hypot((a - b) / 2, c)).max()  # eigenvalue of JᵀJ, 2×2
    return math.sqrt(float(largest))


def over_pairs(batch: RandomNetworkBatch) -> float:
    """The number g of paper 2, eq. (8): the largest ratio of distances over all pairs of nodes of the grid."""
    from fpstab.jacobian.contraction import contraction_bracket

    return contraction_bracket(batch.network(0), grid(), throw=False).pairwise


def product_of_norms(batch: RandomNetworkBatch, i: int = 0) -> float:
    """Π ‖W‖₂·Lip(φ) of network i, rounded outward: no Lipschitz constant is above."""
    from fpstab.lipschitz import extract
    from fpstab.lipschitz.norms import spectral_product

    return float(spectral_product(extract(batch.network(i))))


def critical(g: Callable[[float], float], low: float = 0.0, high: float = 1.0) -> float:
    """Where a decreasing function of β is 1, to 1e-4; nan if it is not above 1 at `low` and below 1 at `high`.

    >>> round(critical(lambda beta: 2 ** (0.3 - beta)), 4)
    0.3
    """
    from scipy.optimize import brentq

    def logarithm(beta: float) -> float:
        return math.log(max(g(beta), 1e-300))

    if logarithm(low) < 0 or logarithm(high) > 0:
        return math.nan
    return float(brentq(logarithm, low, high, xtol=_REFINED))


def sigmoid_critical(width: int) -> float:
    """β_cr of sigmoid, 2 → N, for large N: ½ − [ln 4 − ln(1 + √(2/N))]/ln N, which tends to ½.

    >>> round(sigmoid_critical(400), 3)
    0.28
    """
    return 0.5 - (math.log(4) - math.log1p(math.sqrt(2 / width))) / math.log(width)
