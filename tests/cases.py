"""Maps with known answers: what is true of each is derived by hand in its docstring."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Case:
    """A map `[B, n] -> [B, n]` and what is true of it."""

    map: Callable[[Tensor], Tensor]
    n: int
    points: Tensor  # all fixed points [K, n]
    kinds: tuple[str, ...]  # of each
    rho: tuple[float, ...]  # of each


TANH_2 = 0.9575040240772687  # the positive root of t = tanh 2t
TANH_1_5 = 0.8585596366401105  # of t = tanh 1.5t


def uniform(count: int, n: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Independent uniform starts `[count, n]`."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, n, generator=generator, dtype=torch.float64)


def doubled_tanh(n: int = 2) -> Case:
    """x ↦ tanh 2x: every coordinate at 0 (slope 2) or ±t (slope 2(1 − t²) = 0.166): 3ⁿ points."""
    values = torch.cartesian_prod(*[torch.tensor([-TANH_2, 0.0, TANH_2], dtype=torch.float64)] * n).reshape(-1, n)
    zeros = (values == 0).sum(1).tolist()
    stable = 2 * (1 - TANH_2**2)
    return Case(
        map=lambda x: torch.tanh(2 * x),
        n=n,
        points=values,
        kinds=tuple("attracting" if z == 0 else "repelling" if z == n else "saddle" for z in zeros),
        rho=tuple(2.0 if z else stable for z in zeros),
    )


def flipped_tanh(n: int = 2) -> Case:
    """x ↦ tanh(−1.5x): the origin repels, and every sign pattern of ±t is in a cycle of period 2 with its negative."""
    origin = torch.zeros(1, n, dtype=torch.float64)
    return Case(lambda x: torch.tanh(-1.5 * x), n, origin, ("repelling",), (1.5,))


def slow_contraction(rate: float = 0.999, n: int = 3) -> Case:
    """x ↦ c + rate·(x − c) with c = (1, …, 1)."""
    centre = torch.ones(1, n, dtype=torch.float64)
    return Case(lambda x: centre + rate * (x - centre), n, centre, ("attracting",), (rate,))


def two_rates(slow: float = 0.999, fast: float = 0.5) -> Case:
    """A diagonal contraction: a residual of the fast coordinate hides the error of the slow one."""
    rates = torch.tensor([slow, fast], dtype=torch.float64)
    origin = torch.zeros(1, 2, dtype=torch.float64)
    return Case(lambda x: rates * x, 2, origin, ("attracting",), (slow,))


def near_pair(distance: float = 5e-4) -> Case:
    """x ↦ x − (x³ − a²x)/(8a²): ±a attract (slope 3/4), 0 repels (slope 9/8); the attractors are 2a apart."""
    a = distance / 2
    points = torch.tensor([[-a], [a], [0.0]], dtype=torch.float64)
    kinds = ("attracting", "attracting", "repelling")
    return Case(lambda x: x - (x**3 - a * a * x) / (8 * a * a), 1, points, kinds, (0.75, 0.75, 1.125))


def spiral(modulus: float = 0.9, angle: float = 0.7) -> Case:
    """A planar rotation by `angle`, contracted by `modulus`: the eigenvalues are a complex pair."""
    c, s = modulus * math.cos(angle), modulus * math.sin(angle)
    A = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return Case(lambda x: x @ A.T, 2, torch.zeros(1, 2, dtype=torch.float64), ("attracting",), (modulus,))


def is_fixed_point(function: Callable[[Tensor], Tensor], x: Tensor, tolerance: float = 1e-9) -> bool:
    """Judge one point `[n]` without fpstab: its residual, and the Newton step from central differences."""
    x = x.detach().double()
    residual = function(x[None])[0] - x
    h = 1e-6
    shifts = h * torch.eye(len(x), dtype=torch.float64)
    J = ((function(x + shifts) - function(x - shifts)) / (2 * h)).T
    A = torch.eye(len(x), dtype=torch.float64) - J
    step = torch.linalg.lstsq(A, residual[:, None], driver="gelsd").solution[:, 0]
    size = 1 + float(x.norm())
    return float(residual.norm()) <= tolerance * size and float(step.norm()) <= 1e-7 * size
