import math

import numpy as np
import pytest
from scipy.special import erf
from scipy.stats import multivariate_normal

from fpstab.theory.deq.nonlinearities import nonlinearity
from fpstab.theory.deq.quadrature import Field, pair_nodes

NAMES = ["hardtanh", "tanh", "erf", "relu", "linear"]


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_derivatives(name: str) -> None:
    phi = nonlinearity(name)
    h = np.array([-30.0, -3.0, -1.01, -0.7, -1e-3, 1e-3, 0.2, 0.99, 1.5, 40.0])
    step = 1e-6
    np.testing.assert_allclose((phi.value(h + step) - phi.value(h - step)) / (2 * step), phi.slope(h), atol=1e-9)
    assert phi.slope(np.linspace(-2, 2, 401)).max() <= phi.max_slope
    assert phi.slope(h).min() >= 0
    scaled = phi.value(3 * h) - 3 * phi.value(h)
    assert phi.homogeneous == bool((np.abs(scaled) < 1e-12).all())


def test_tanh_keeps_its_slope_far_out() -> None:
    assert nonlinearity("tanh").slope(np.array([30.0]))[0] == pytest.approx(4 * math.exp(-60), rel=1e-12)


@pytest.mark.parametrize("variance", [1e-8, 0.3, 1.0, 40.0, 1e6])
@pytest.mark.parametrize("a", [0.0, 0.45, -0.8])
@pytest.mark.parametrize("name", NAMES)
def test_the_density_has_the_field_s_moments(name: str, a: float, variance: float) -> None:
    field = Field(nonlinearity(name), a, variance, mean=0.2)
    h, w = field.nodes()
    u = field.forward(h)
    assert w.sum() == pytest.approx(1, abs=1e-11)
    assert w @ u == pytest.approx(0.2, abs=1e-10 * (1 + variance))
    assert w @ (u - 0.2) ** 2 == pytest.approx(variance, rel=1e-10)
    if variance < 1e5:  # Stein: E (u − m)φ = v·E dφ/du
        stein = variance * (w @ field.gain(h))
        assert w @ ((u - 0.2) * field.phi.value(h)) == pytest.approx(stein, rel=1e-9)


@pytest.mark.parametrize("variance", [0.01, 1.0, 9.0, 1e4])
def test_closed_forms(variance: float) -> None:
    def mean(name: str, slope: bool = False) -> float:
        field = Field(nonlinearity(name), 0.0, variance)
        h, w = field.nodes()
        return float(w @ (field.phi.slope(h) if slope else field.phi.value(h)) ** 2)

    s = math.sqrt(variance)
    p = math.erf(1 / (s * math.sqrt(2)))
    inside = variance * p - s * math.sqrt(2 / math.pi) * math.exp(-0.5 / variance)
    assert mean("hardtanh") == pytest.approx(inside + 1 - p, rel=1e-10)
    assert mean("hardtanh", slope=True) == pytest.approx(p, rel=1e-10)
    assert mean("erf") == pytest.approx(2 / math.pi * math.asin(2 * variance / (1 + 2 * variance)), rel=1e-10)
    assert mean("erf", slope=True) == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * variance), rel=1e-10)
    assert mean("relu") == pytest.approx(variance / 2, rel=1e-10)
    t = np.linspace(-12, 12, 200_001)
    trapezium = np.trapezoid(np.tanh(s * t) ** 2 * np.exp(-(t**2) / 2), t) / math.sqrt(2 * math.pi)
    assert mean("tanh") == pytest.approx(trapezium, rel=1e-10)


CORRELATIONS = [0.0, 0.3, -0.8, 0.99, 0.9999, 0.9999999, 1.0, -1.0]


@pytest.mark.parametrize("rho", CORRELATIONS)
def test_pairs_without_echo(rho: float) -> None:
    one, two = 1.7, 0.6
    c = rho * math.sqrt(one * two)

    def means(name: str) -> tuple[float, float]:
        phi = nonlinearity(name)
        nodes = pair_nodes(Field(phi, 0.0, one), Field(phi, 0.0, two), c)
        return (
            nodes.expect(phi.value(nodes.first), phi.value(nodes.second)),
            nodes.expect(phi.slope(nodes.first), phi.slope(nodes.second)),
        )

    assert means("linear") == pytest.approx((c, 1), abs=1e-10)
    arcsine = 2 / math.pi * math.asin(2 * c / math.sqrt((1 + 2 * one) * (1 + 2 * two)))
    slopes = 4 / math.pi / math.sqrt((1 + 2 * one) * (1 + 2 * two) - 4 * c**2)
    assert means("erf") == pytest.approx((arcsine, slopes), abs=1e-9)
    angle = math.acos(rho)
    arccos = math.sqrt(one * two) / (2 * math.pi) * (math.sin(angle) + (math.pi - angle) * rho)
    assert means("relu") == pytest.approx((arccos, (math.pi - angle) / (2 * math.pi)), abs=1e-8)


@pytest.mark.parametrize("rho", [0.3, -0.8, 0.99, 0.9999])
def test_hard_tanh_pairs_are_probabilities_of_squares(rho: float) -> None:
    one, two = 1.7, 0.6
    c = rho * math.sqrt(one * two)
    phi = nonlinearity("hardtanh")
    nodes = pair_nodes(Field(phi, 0.0, one), Field(phi, 0.0, two), c)
    law = multivariate_normal(cov=[[one, c], [c, two]], abseps=1e-10, releps=1e-10)
    exact = float(law.cdf([1, 1], lower_limit=[-1, -1]))
    assert nodes.expect(phi.slope(nodes.first), phi.slope(nodes.second)) == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("rho", [0.5, 0.97, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_pairs_with_echo(name: str, rho: float) -> None:
    """Against the trapezium rule for two independent Gaussians, with h found by Newton's method."""
    phi = nonlinearity(name)
    one, two = Field(phi, 0.4, 1.5, 0.1), Field(phi, -0.7, 0.8, -0.2)
    nodes = pair_nodes(one, two, rho * math.sqrt(1.5 * 0.8))
    t = np.linspace(-8, 8, 321)
    weights = np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi) * (t[1] - t[0])
    u1 = np.broadcast_to((0.1 + math.sqrt(1.5) * t)[:, None], (t.size, t.size))
    u2 = -0.2 + math.sqrt(0.8) * (rho * t[:, None] + math.sqrt(1 - rho**2) * t)
    h = []
    for a, u in ((0.4, u1), (-0.7, u2)):
        x = u
        for _ in range(12):
            x = x - (x - a * phi.value(x) - u) / (1 - a * phi.slope(x))
        assert np.abs(x - a * phi.value(x) - u).max() < 1e-12
        h.append(x)
    exact = float(weights @ (np.tanh(h[0]) * phi.value(h[1])) @ weights)
    tolerance = 1e-9 if name in ("tanh", "linear", "erf") else 2e-4  # the trapezium rule and kinks
    assert nodes.expect(np.tanh(nodes.first), phi.value(nodes.second)) == pytest.approx(exact, abs=tolerance)


def test_inverse() -> None:
    for name in NAMES:
        field = Field(nonlinearity(name), 0.8, 1.0)
        u = np.array([[-5.0, -0.3], [0.0, 4.0]])
        np.testing.assert_allclose(field.forward(field.invert(u)), u, atol=1e-9)
        assert field.invert_one(4.0) == pytest.approx(field.invert(u)[1, 1], abs=1e-7)


def test_unknown_names() -> None:
    assert nonlinearity("Hardtanh") is nonlinearity("hard_tanh")
    assert nonlinearity("identity").name == "linear"
    with pytest.raises(ValueError, match="no activation 'gelu'; choose one of hardtanh"):
        nonlinearity("gelu")
    assert float(erf(0.5)) == pytest.approx(float(nonlinearity("erf").value(np.array(0.5))))
