import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from fpstab.theory import jacobian_esd


@pytest.mark.parametrize("depth", [1, 2, 5, 30])
@pytest.mark.parametrize("q", [0.0, 0.4, 1.0, 20.0])
def test_upper_edge_in_closed_form(depth: int, q: float) -> None:
    L, p = depth, 1.0 if q == 0 else math.erf(1 / math.sqrt(2 * q))
    w = (-(L - 1) + math.sqrt((L - 1) ** 2 + 4 * L * p)) / (2 * L)
    assert jacobian_esd.edges("hardtanh", L, q=q).upper == pytest.approx((1 + w) * (p + w) ** L / w, rel=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 7, 40])
def test_the_linear_edge_grows(depth: int) -> None:
    assert jacobian_esd.edges("linear", depth).upper == pytest.approx((depth + 1) ** (depth + 1) / depth**depth)


@pytest.mark.parametrize(
    ("activation", "depth", "q", "edge"),
    [("hardtanh", 2, 1.0, 4.100896), ("hardtanh", 5, 1.0, 3.067418), ("erf", 2, 0.5, 3.157543)],
)
def test_known_edges(activation: str, depth: int, q: float, edge: float) -> None:
    assert jacobian_esd.edges(activation, depth, q=q).upper == pytest.approx(edge, abs=6e-7)


@pytest.mark.parametrize(("q", "depth"), [(0.5, 1), (2.0, 2), (0.1, 4)])
def test_erf_s_edge_is_the_least_z_by_its_power_series(q: float, depth: int) -> None:
    k = np.arange(1, 4000)

    def log_z(u: float) -> float:
        m = (u**k / np.sqrt(1 + math.pi * q * k)).sum()
        return math.log1p(m) + (depth - 1) * math.log(m) - depth * math.log(u)

    least = minimize_scalar(log_z, bounds=(1e-3, 0.99), method="bounded", options={"xatol": 1e-9})
    assert jacobian_esd.edges("erf", depth, q=q).upper == pytest.approx(math.exp(least.fun), rel=1e-9)


def test_lower_edge_where_one_layer_has_the_least_rank() -> None:
    # the least of z over −1 < w < −p, on a fine grid
    qs = [1.0, 0.2]
    p = [math.erf(1 / math.sqrt(2 * q)) for q in qs]
    w = np.linspace(-p[1], -p[0], 400_001)[1:-1]
    exact = ((1 + w) * (p[0] + w) * (p[1] + w) / w).max()
    found = jacobian_esd.edges("hardtanh", 2, q=qs)
    assert found.lower == pytest.approx(exact, rel=1e-8)
    below, above = jacobian_esd.density([0.999 * found.lower, 1.001 * found.lower], "hardtanh", 2, q=qs).rho.tolist()
    assert below == 0
    assert above > 0
    assert jacobian_esd.edges("hardtanh", 2, q=1.0).lower == 0


@pytest.mark.parametrize("activation", ["linear", "hardtanh", "erf", "tanh"])
def test_the_density_vanishes_like_a_square_root(activation: str) -> None:
    top = jacobian_esd.edges(activation, 3, q=0.8).upper
    near, nearer = jacobian_esd.density([top * (1 - 4e-6), top * (1 - 1e-6)], activation, 3, q=0.8).rho.tolist()
    assert near / nearer == pytest.approx(2, rel=1e-4)


def test_atom() -> None:
    assert jacobian_esd.atom("hardtanh", 4) == pytest.approx(1 - math.erf(math.sqrt(0.5)), rel=1e-14)  # q falls from 1
    assert jacobian_esd.atom("hardtanh", 2, q=[0.1, 3.0]) == pytest.approx(1 - math.erf(1 / math.sqrt(6)), rel=1e-14)
    assert [jacobian_esd.atom(name, 3) for name in ("linear", "relu", "erf", "tanh")] == [0, 0.5, 0, 0]


def test_grid_lies_inside() -> None:
    for support in (jacobian_esd.edges("relu", 1), jacobian_esd.edges("linear", 5)):
        grid = support.grid(101)
        assert len(grid) == 101
        assert (grid.diff() > 0).all()
        assert support.lower < grid[0]
        assert grid[-1] < support.upper
