import math

import numpy as np
import pytest
from scipy.integrate import quad

from fpstab.theory import jacobian_esd


@pytest.mark.parametrize("q", [1e-4, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("u", [0.3 - 0.1j, 0.95 - 0.05j, 1.2 - 0.3j, -3 - 4j, 40 - 5j, -900 - 100j])
def test_erf_is_lerch_s_function(q: float, u: complex) -> None:
    mpmath = pytest.importorskip("mpmath")
    exact = complex(u / mpmath.sqrt(mpmath.pi * q) * mpmath.lerchphi(u, 0.5, 1 + 1 / (mpmath.pi * q)))
    m, one_plus_m, _ = jacobian_esd.slope_law("erf", q).generating(np.array([u]))
    assert abs(m[0] / exact - 1) < 1e-11
    assert one_plus_m[0] == pytest.approx(1 + m[0], rel=1e-13)


@pytest.mark.parametrize("activation", ["erf", "tanh"])
@pytest.mark.parametrize("q", [1e-3, 0.3, 4.0, 400.0])
def test_generating_function_by_real_integrals(activation: str, q: float) -> None:
    def slope2(h: float) -> float:
        return math.exp(-math.pi * h * h / 2) if activation == "erf" else math.cosh(h) ** -4

    law = jacobian_esd.slope_law(activation, q)
    reach = min(9 * math.sqrt(q), 14)
    for u in (0.5 - 0.8j, -2 - 1j, -60 - 70j):

        def term(h: float, part: str, u: complex = u) -> float:
            value = u * slope2(h) / (1 - u * slope2(h)) * math.exp(-h * h / (2 * q)) / math.sqrt(2 * math.pi * q)
            return float(getattr(value, part))

        exact = [2 * quad(term, 0, reach, (part,), epsabs=1e-13, limit=200)[0] for part in ("real", "imag")]
        found = law.generating(np.array([u]))[0][0]
        assert [found.real, found.imag] == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("activation", ["hardtanh", "erf", "tanh"])
def test_derivative_and_logarithm(activation: str) -> None:
    law = jacobian_esd.slope_law(activation, 0.6)
    u, step = np.array([0.4 - 0.5j, -7 - 2j]), 1e-6
    m, _, um = law.generating(u)
    assert um == pytest.approx(u * (law.generating(u + step)[0] - law.generating(u - step)[0]) / (2 * step), rel=1e-7)
    # d E log(1 − uK)/du = −m/u
    assert (law.logarithm(u + step) - law.logarithm(u - step)) / (2 * step) == pytest.approx(-m / u, rel=1e-7)


def test_coarse_is_close() -> None:
    u = np.array([0.8 - 0.2j, -20 - 3j])
    fine, coarse = (jacobian_esd.slope_law("erf", 0.5, coarse=c) for c in (False, True))
    assert coarse.k.size < fine.k.size / 2
    assert coarse.generating(u)[0] == pytest.approx(fine.generating(u)[0], rel=1e-4)


@pytest.mark.parametrize("activation", ["linear", "relu", "hardtanh", "erf", "tanh"])
@pytest.mark.parametrize("q", [0.05, 1.0, 9.0])
def test_one_step_of_the_recursion(activation: str, q: float) -> None:
    phi = {
        "linear": lambda h: h,
        "relu": lambda h: max(h, 0),
        "hardtanh": lambda h: min(max(h, -1), 1),
        "erf": lambda h: math.erf(math.sqrt(math.pi) * h / 2),
        "tanh": math.tanh,
    }[activation]
    s = math.sqrt(q)
    exact, _ = quad(
        lambda g: phi(s * g) ** 2 * math.exp(-g * g / 2) / math.sqrt(2 * math.pi),
        -9,
        9,
        points=[-1 / s, 0, 1 / s] if s > 0.12 else [0],
        epsabs=1e-12,
    )
    found = jacobian_esd.q_recursion(activation, 2, q, sigma_w=1.5, sigma_b=0.5)
    assert found.tolist() == pytest.approx([q, 2.25 * exact + 0.25], rel=1e-9)


def test_recursion_from_the_limits() -> None:
    assert jacobian_esd.q_recursion("hardtanh", 3, math.inf).tolist()[:2] == [math.inf, 1]
    assert jacobian_esd.q_recursion("tanh", 3, 0.0).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="sigma_b = -1"):
        jacobian_esd.q_recursion("tanh", 3, 1.0, sigma_b=-1.0)
    with pytest.raises(ValueError, match="the depth is 0"):
        jacobian_esd.q_recursion("tanh", 0)
