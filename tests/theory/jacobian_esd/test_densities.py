import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.results import AnalysisError
from fpstab.theory import jacobian_esd
from fpstab.theory.jacobian_esd.layers import as_layers
from fpstab.theory.jacobian_esd.newton import solve_newton


def fuss_catalan(depth: int, count: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """λ and ρ of linear networks in closed form, 0 < φ < π/(L + 1)."""
    L = depth
    phi = np.linspace(0.005, 0.98, count) * math.pi / (L + 1)
    lam = np.sin((L + 1) * phi) ** (L + 1) / (np.sin(phi) * np.sin(L * phi) ** L)
    rho = np.sin(phi) ** 2 * np.sin(L * phi) ** (L - 1) / (math.pi * np.sin((L + 1) * phi) ** L)
    return lam[lam >= 1e-3], rho[lam >= 1e-3]


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 10])
def test_linear_is_the_fuss_catalan_density(depth: int) -> None:
    lam, exact = fuss_catalan(depth)
    assert len(lam) > 80
    for solver in ("newton", "polynomial"):
        found = jacobian_esd.density(lam, "linear", depth, solver=solver)
        assert found.rho.numpy() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("p_of", ["relu", "hardtanh"])
def test_one_layer_is_marchenko_pastur_with_an_atom(p_of: str) -> None:
    # the non-zero eigenvalues are those of a Wishart matrix of pN by N
    p = 0.5 if p_of == "relu" else math.erf(1 / math.sqrt(1.4))
    low, high = (1 - math.sqrt(p)) ** 2, (1 + math.sqrt(p)) ** 2
    lam = np.linspace(low * 1.01, high * 0.99, 100)
    found = jacobian_esd.density(lam, p_of, 1, q=0.7)
    exact = np.sqrt((high - lam) * (lam - low)) / (2 * math.pi * lam)
    assert found.rho.numpy() == pytest.approx(exact, rel=1e-9)
    assert (found.lower_edge, found.edge, found.atom) == pytest.approx((low, high, 1 - p), rel=1e-12)


@pytest.mark.parametrize(
    ("activation", "depth", "q", "lam", "rho"),
    [
        ("linear", 2, None, 0.5, 0.318310),
        ("relu", 2, None, 0.5, 0.220144),
        ("hardtanh", 2, 1.0, 1.0, 0.143573),
        ("erf", 2, 0.5, 0.5, 0.310908),
    ],
)
def test_known_values(activation: str, depth: int, q: float | None, lam: float, rho: float) -> None:
    assert float(jacobian_esd.density([lam], activation, depth, q=q).rho) == pytest.approx(rho, abs=6e-7)


@settings(max_examples=25, deadline=None)
@given(
    qs=st.lists(st.floats(0.05, 30), min_size=1, max_size=6),
    sigma_w=st.floats(0.5, 2.0),
)
def test_newton_agrees_with_the_roots_of_the_polynomial(qs: list[float], sigma_w: float) -> None:
    support = jacobian_esd.edges("hardtanh", len(qs), q=qs, sigma_w=sigma_w)
    lam = np.linspace(max(support.lower * 1.02, 1e-3 * support.upper), 0.98 * support.upper, 60)
    newton, oracle = (
        jacobian_esd.density(lam, "hardtanh", len(qs), q=qs, sigma_w=sigma_w, solver=solver)
        for solver in ("newton", "polynomial")
    )
    assert newton.rho.numpy() == pytest.approx(oracle.rho.numpy(), rel=1e-8)
    assert (newton.rho > 0).all()
    assert newton.cdf.numpy() == pytest.approx(oracle.cdf.numpy(), abs=1e-10)


@pytest.mark.parametrize("depth", [2, 5])
def test_recursed_layers_differ_and_agree_with_the_polynomial(depth: int) -> None:
    support = jacobian_esd.edges("hardtanh", depth)
    lam = np.linspace(max(1e-3, 1.05 * support.lower), 0.99 * support.upper, 80)
    newton = jacobian_esd.density(lam, "hardtanh", depth)
    assert len(set(newton.q.tolist())) == depth
    oracle = jacobian_esd.density(lam, "hardtanh", depth, solver="polynomial")
    assert newton.rho.numpy() == pytest.approx(oracle.rho.numpy(), rel=1e-8)


@pytest.mark.parametrize("q", [[0.3, 0.3], [0.8, 0.2]])
def test_erf_solves_the_equations_with_lerch_s_function(q: list[float]) -> None:
    mpmath = pytest.importorskip("mpmath")
    lam = np.array([0.4, 1.5])
    layers = as_layers("erf", 2, q, 1.0, 1.0, 0.0)
    root = solve_newton(lam, layers, jacobian_esd.edges("erf", 2, q=q).upper)
    u, w = np.exp(root.b), root.w
    for g, variance in enumerate(layers.distinct):
        for k in range(2):
            lerch = complex(mpmath.lerchphi(complex(u[k, g]), 0.5, 1 + 1 / (mpmath.pi * variance)))
            assert abs(u[k, g] / math.sqrt(math.pi * variance) * lerch / w[k] - 1) < 1e-11
    assert (1 + w) * w / (u**layers.counts).prod(1) == pytest.approx(lam, rel=1e-12)
    found = jacobian_esd.density(lam, "erf", 2, q=q).rho.numpy()
    assert found == pytest.approx(-w.imag / (math.pi * lam), rel=1e-12)
    assert (found > 0).all()


@pytest.mark.parametrize("activation", ["linear", "relu", "hardtanh", "erf", "tanh"])
@pytest.mark.parametrize("depth", [1, 3])
def test_the_density_is_the_slope_of_the_distribution(activation: str, depth: int) -> None:
    support = jacobian_esd.edges(activation, depth)
    low, high = max(0.05 * support.upper, 1.2 * support.lower), 0.9 * support.upper
    x, weights = np.polynomial.legendre.leggauss(60)
    lam = np.concatenate([[low, high], low + (high - low) * (x + 1) / 2])
    found = jacobian_esd.density(lam, activation, depth)
    mass = float(found.rho[2:].numpy() @ weights) * (high - low) / 2
    assert float(found.cdf[1] - found.cdf[0]) == pytest.approx(mass, abs=1e-9)


@pytest.mark.parametrize("activation", ["linear", "relu", "hardtanh", "erf", "tanh"])
@pytest.mark.parametrize("q", [0.0, 1e-6, 0.7, 50.0, math.inf])
@pytest.mark.parametrize("depth", [1, 4])
def test_all_mass_is_there(activation: str, q: float, depth: int) -> None:
    support = jacobian_esd.edges(activation, depth, q=q)
    atom = jacobian_esd.atom(activation, depth, q=q)
    lam = torch.cat([torch.tensor([-1.0, 0.0]), support.grid(30), torch.tensor([support.upper + 1, math.inf])])
    found = jacobian_esd.density(lam, activation, depth, q=q)
    assert found.status.ok
    assert found.cdf[0] == 0
    assert found.cdf[1] == atom
    assert (found.cdf[1:].diff() >= -1e-12).all()
    assert found.cdf[-2:].tolist() == [1, 1]
    assert found.rho[[0, -2, -1]].tolist() == [0, 0, 0]
    assert not found.rho.isnan().any()
    if support.upper > 0:
        assert float(found.cdf[-3]) == pytest.approx(1, abs=1e-3)
    if activation in ("linear", "hardtanh", "relu") and support.lower == 0 < support.upper:
        assert float(found.cdf[2]) == pytest.approx(atom, abs=1e-4)


def test_the_limits_of_q() -> None:
    lam = [0.5, 2.0]
    linear = jacobian_esd.density(lam, "linear", 2).rho.tolist()
    for activation in ("hardtanh", "erf", "tanh"):
        assert jacobian_esd.density(lam, activation, 2, q=0.0).rho.tolist() == pytest.approx(linear, rel=1e-12)
        assert jacobian_esd.density(lam, activation, 2, q=1e-7).rho.tolist() == pytest.approx(linear, rel=1e-5)
        assert jacobian_esd.density(lam, activation, 2, q=math.inf).atom == 1
        assert jacobian_esd.density(lam, activation, 2, q=math.inf).edge == 0


def test_scaling_the_weights_scales_the_eigenvalues() -> None:
    one = jacobian_esd.density([0.3, 1.0], "erf", 3, q=0.5)
    scaled = jacobian_esd.density(np.array([0.3, 1.0]) * 1.5**6, "erf", 3, q=0.5, sigma_w=1.5)
    assert (scaled.rho * 1.5**6).tolist() == pytest.approx(one.rho.tolist(), rel=1e-11)
    assert scaled.edge == pytest.approx(one.edge * 1.5**6, rel=1e-12)


def test_q_may_be_what_the_recursion_gives() -> None:
    recursed = jacobian_esd.density([0.5], "tanh", 3, q0=0.7)
    given_q = jacobian_esd.density([0.5], "tanh", np.int64(3), q=jacobian_esd.q_recursion("tanh", 3, 0.7))
    assert recursed.rho.tolist() == given_q.rho.tolist()
    assert recursed.q.tolist() == given_q.q.tolist() == jacobian_esd.q_recursion("tanh", 3, 0.7).tolist()


def test_outside_the_support_the_density_is_zero() -> None:
    found = jacobian_esd.density([-1.0, 0.0, 7.0, math.inf, 0.05], "linear", 2)
    assert found.rho[[0, 2, 3]].tolist() == [0, 0, 0]
    assert found.rho[1] == math.inf
    assert found.rho[4] > 0
    gap = jacobian_esd.density([0.0, 0.05], "relu", 1)
    assert gap.rho.tolist() == [0, 0]
    assert gap.cdf.tolist() == [0.5, 0.5]


def test_interpolated_distribution() -> None:
    support = jacobian_esd.edges("hardtanh", 3, q=0.6)
    law = jacobian_esd.density(support.grid(), "hardtanh", 3, q=0.6)
    at = torch.tensor([-1.0, 0.0, 0.01, 0.3, 2.0, 0.999 * support.upper, 100.0])
    assert law.distribution(at).tolist() == pytest.approx(
        jacobian_esd.density(at, "hardtanh", 3, q=0.6).cdf.tolist(), abs=2e-5
    )
    with pytest.raises(ValueError, match="expected a grid"):
        jacobian_esd.density([0.5], "hardtanh", 3).distribution(at)


def test_plot() -> None:
    law = jacobian_esd.density(np.linspace(0.01, 5, 40), "relu", 2)
    ax = law.plot()
    assert ax.get_yscale() == "log"
    x, y = ax.lines[0].get_data()
    inside = law.rho > 0
    assert list(x) == law.lam[inside].tolist()
    assert list(y) == law.rho[inside].tolist()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (([0.5], "linear", 0), ValueError, "the depth is 0"),
        (([0.5], "linear", 2.0), TypeError, "the depth is 2.0"),
        (([0.5], "gelu", 2), ValueError, "knows no activation 'gelu'"),
        (([math.nan], "linear", 2), ValueError, "1 NaN among its 1"),
        (([[0.5]], "linear", 2), ValueError, "expected one dimension"),
    ],
)
def test_bad_input(arguments: tuple[object, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        jacobian_esd.density(*arguments)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"q": -1.0}, "expected variances"),
        ({"q": [1.0]}, "one for each of the 2 layers"),
        ({"q": math.nan}, "expected variances"),
        ({"sigma_w": 0.0}, "sigma_w is 0.0"),
        ({"q0": -1.0}, "q0 = -1.0"),
        ({"solver": "magic"}, "solver is 'magic'"),
        ({"solver": "paper"}, "a single K"),
    ],
)
def test_bad_options(options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        jacobian_esd.density([0.5], "hardtanh", 2, **options)


def test_the_polynomial_needs_two_slopes() -> None:
    with pytest.raises(ValueError, match='erf has others; use "newton"'):
        jacobian_esd.density([0.5], "erf", 2, solver="polynomial")


def test_not_converged_is_a_status() -> None:
    lam = np.linspace(0.2, 3, 40)
    found = jacobian_esd.density(lam, "linear", 1, solver="paper", throw=False)
    assert found.status.code == "not_converged"
    assert 'use solver="newton"' in found.status.message
    assert found.rho.isnan().any()
    with pytest.raises(AnalysisError, match="found no solution"):
        jacobian_esd.density(lam, "linear", 1, solver="paper")
