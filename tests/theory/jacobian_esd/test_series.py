import math
from math import comb

import numpy as np
import pytest
from scipy.integrate import quad

from fpstab.theory import jacobian_esd


@pytest.mark.parametrize("depth", [1, 2, 5, 9])
def test_fuss_catalan_numbers(depth: int) -> None:
    exact = [comb((depth + 1) * k, k) / (depth * k + 1) for k in range(1, 13)]
    assert jacobian_esd.moments("linear", depth, 12).tolist() == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("activation", ["relu", "hardtanh", "erf", "tanh"])
@pytest.mark.parametrize("depth", [1, 3])
def test_moments_are_integrals_over_the_distribution(activation: str, depth: int) -> None:
    support = jacobian_esd.edges(activation, depth)
    # λ = top·sin²t, and ∫λᵏ dF = topᵏ − ∫ kλᵏ⁻¹ F dλ: smooth at both ends
    t, weights = np.polynomial.legendre.leggauss(120)
    t, weights = (t + 1) * math.pi / 4, weights * math.pi / 4
    lam = support.upper * np.sin(t) ** 2
    cdf = jacobian_esd.density(lam, activation, depth).cdf.numpy()
    jacobian = weights * support.upper * np.sin(2 * t)
    exact = [support.upper**k - (jacobian * k * lam ** (k - 1) * cdf).sum() for k in range(1, 6)]
    assert jacobian_esd.moments(activation, depth, 5).tolist() == pytest.approx(exact, rel=1e-5)


def test_erf_by_hand() -> None:
    # two terms of the S-transform: m₁ = μ₁ᴸ, m₂ = μ₁²ᴸ(1 + L·μ₂/μ₁²)
    q, L = 0.7, 4
    mu1, mu2 = (1 / math.sqrt(1 + math.pi * q * k) for k in (1, 2))
    exact = [mu1**L, mu1 ** (2 * L) * (1 + L * mu2 / mu1**2)]
    assert jacobian_esd.moments("erf", L, 2, q=q).tolist() == pytest.approx(exact, rel=1e-12)
    assert jacobian_esd.moments("erf", L, 2, q=q, sigma_w=1.3).tolist() == pytest.approx(
        [exact[0] * 1.3 ** (2 * L), exact[1] * 1.3 ** (4 * L)], rel=1e-12
    )


def test_high_moments_grow_like_the_edge() -> None:
    found = jacobian_esd.moments("tanh", 2, 12, q=0.8)
    ratios = found[1:] / found[:-1]
    assert (ratios.diff() > 0).all()
    assert float(ratios[-1]) < jacobian_esd.edges("tanh", 2, q=0.8).upper


def test_slopes_by_real_integrals() -> None:
    for q in (0.01, 1.0, 30.0):
        law = jacobian_esd.slope_law("tanh", q).moments(3)
        for k in (1, 2, 3):
            exact, _ = quad(
                lambda h, k=k, q=q: math.cosh(h) ** (-4 * k) * math.exp(-(h**2) / (2 * q)) / math.sqrt(2 * math.pi * q),
                -12,
                12,
                points=[0],
                epsabs=1e-13,
                epsrel=1e-12,
            )
            assert law[k - 1] == pytest.approx(exact, rel=1e-11)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        jacobian_esd.moments("linear", 2, 0)
    assert jacobian_esd.moments("hardtanh", 2, 2, q=math.inf).tolist() == [0, 0]
