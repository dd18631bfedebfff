import math
from collections.abc import Callable
from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Generator

from fpstab.results import AnalysisError
from fpstab.theory import deq

FAMILIES: list[deq.Family] = [
    "iid",
    "orthogonal",
    "goe",
    "antisymmetric",
    "haar_disc",
    deq.Elliptic(0.5),
    deq.Elliptic(-0.5),
]


def numbers(moments: deq.LinearMoments) -> tuple[float, float, float]:
    assert moments.status.ok
    assert moments.mean is not None
    assert moments.m2 is not None
    assert moments.m4 is not None
    return moments.mean, moments.m2, moments.m4


def of_normal(mean: Callable[[Callable[[complex], float]], float]) -> list[float]:
    """The moments of a normal W from the law of its eigenvalues, given as an expectation."""
    return [mean(f) for f in (lambda z: (1 / (1 - z)).real, lambda z: abs(1 - z) ** -2, lambda z: abs(1 - z) ** -4)]


def semicircle(f: Callable[[complex], float], V: float, unit: complex = 1) -> float:
    """Over ±2√V sin φ, φ uniform with density (2/π) cos² φ."""
    root = 2 * math.sqrt(V)
    return float(
        quad(lambda p: f(unit * root * math.sin(p)) * 2 / math.pi * math.cos(p) ** 2, -math.pi / 2, math.pi / 2)[0]
    )


@pytest.mark.parametrize("V", [1e-9, 0.05, 0.2, 0.245])
def test_goe_moments_are_integrals_over_the_semicircle(V: float) -> None:
    assert numbers(deq.linear_moments("goe", V)) == pytest.approx(of_normal(lambda f: semicircle(f, V)), rel=1e-7)


@pytest.mark.parametrize("V", [1e-9, 0.2, 1.0, 30.0])
def test_antisymmetric_moments_are_integrals_over_the_semicircle(V: float) -> None:
    exact = of_normal(lambda f: semicircle(f, V, 1j))
    assert numbers(deq.linear_moments("antisymmetric", V)) == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("V", [0.1, 0.5, 0.8])
def test_orthogonal_moments_are_integrals_over_the_circle(V: float) -> None:
    def mean(f: Callable[[complex], float]) -> float:
        points = [2 * math.pi * k / 2000 for k in range(2000)]  # the trapezium rule is exact for a periodic function
        return sum(f(math.sqrt(V) * complex(math.cos(t), math.sin(t))) for t in points) / 2000

    assert numbers(deq.linear_moments("orthogonal", V)) == pytest.approx(of_normal(mean), rel=1e-9)


@pytest.mark.parametrize("V", [1e-9, 0.1, 0.3, 0.45])
def test_disc_moments_are_power_series(V: float) -> None:
    # E|λ|²ᵏ = (2V)ᵏ/(k + 1), uniform in the disc of radius √(2V)
    powers = [(2 * V) ** k / (k + 1) for k in range(2000)]
    exact = (1.0, sum(powers), sum((k + 1) ** 2 * p for k, p in enumerate(powers)))
    assert numbers(deq.linear_moments("haar_disc", V)) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("V", [0.1, 0.5, 0.9])
def test_iid_m4_solves_the_paper_s_recursion(V: float) -> None:
    m1 = 1 / (1 - V)
    m2 = (V**2 * m1**3 + 2 * V * m1**2 + m1) / (1 - V)  # (190)
    assert numbers(deq.linear_moments("iid", V)) == pytest.approx((1.0, m1, m2), rel=1e-12)


def test_goe_m2_is_the_series_of_catalan_numbers() -> None:
    V = 0.15
    series = sum((2 * k + 1) * comb(2 * k, k) // (k + 1) * V**k for k in range(400))  # (63)
    assert deq.linear_moments("goe", V).m2 == pytest.approx(series, rel=1e-12)


@given(st.floats(-1, 1), st.floats(0, 0.99))
@settings(max_examples=50, deadline=None)
def test_elliptic_moments_are_those_of_a_distribution(tau: float, share: float) -> None:
    V = share / (1 + abs(tau)) ** 2
    mean, m2, m4 = numbers(deq.linear_moments(deq.Elliptic(tau), V))
    assert mean == pytest.approx(1 + tau * V * mean**2, rel=1e-9)  # the resolvent's own equation
    assert m2 >= mean**2 * (1 - 1e-12)
    assert m4 >= m2**2 * (1 - 1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_measured_on_a_weight(family: deq.Family) -> None:
    share = 0.2 if family == "haar_disc" else 0.4  # its eigenvalues are independent, and fluctuate more
    V = share * min(deq.linear_critical_v(family), 1.0)
    samples = [
        deq.sample_linear_moments(family, V, width=300, generator=Generator().manual_seed(seed)) for seed in range(6)
    ]
    for k, tolerance in enumerate((0.01, 0.03, 0.06)):
        found = sum(numbers(sample)[k] for sample in samples) / len(samples)
        assert found == pytest.approx(numbers(deq.linear_moments(family, V))[k], rel=tolerance)


def test_length_variance_is_a_variance() -> None:
    n, V = 60, 0.3
    generator = Generator().manual_seed(0)
    m = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - deq.sample_weight("orthogonal", V, n, generator=generator))
    x = 1.5**0.5 * torch.randn(n, 100_000, generator=generator, dtype=torch.float64)
    lengths = (m @ x).square().mean(0)
    weight = torch.eye(n, dtype=torch.float64) - torch.linalg.inv(m)
    assert deq.weight_moments(weight).length_variance(n, 1.5) == pytest.approx(float(lengths.var()), rel=0.03)


# -- untied --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", [0.0, 0.3, 0.7])
def test_untied_closed_forms(V: float) -> None:
    iid = (1 + 2 * V - 2 * V**2) / ((1 - V) ** 3 * (1 + V))
    exact = {
        "orthogonal": 2 / (1 - V) ** 2 - 1 / (1 - V**2),
        "iid": iid,
        "goe": iid + 2 * V / (1 - V**2),
    }
    for family, m4 in exact.items():
        found = deq.untied_moments(family, V)  # type: ignore[arg-type]
        assert (found.m2, found.m4) == pytest.approx((1 / (1 - V), m4), rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_untied_measured(family: deq.Family) -> None:
    n, V, steps = 150, 0.3, 60
    generator = Generator().manual_seed(0)
    eye = torch.eye(n, dtype=torch.float64)
    m, grams = eye, []
    for step in range(steps):
        m = deq.sample_weight(family, V, n, generator=generator) @ m + eye
        if step >= 15:  # 0.3¹⁵ is 1e-8
            grams.append(m.T @ m)
    gram = torch.stack(grams)
    exact = deq.untied_moments(family, V)
    assert float(gram.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(exact.m2, rel=0.02)
    assert float(gram.square().sum((1, 2)).mean()) / n == pytest.approx(exact.m4, rel=0.04)


# -- as printed ----------------------------------------------------------------------------------------------


def test_what_the_paper_prints() -> None:
    V = 0.2
    s = math.sqrt(1 - 4 * V)
    goe = numbers(deq.linear_moments("goe", V, as_printed=True))
    assert goe == pytest.approx((1, 1 / s - (1 - s) / (2 * V), (s**5 - s**3) / (4 * V)))  # (66), (20)
    assert numbers(deq.linear_moments("goe", 0.0, as_printed=True)) == pytest.approx((1, 0, -1))
    assert deq.linear_moments("goe", 1e-7, as_printed=True).m4 == pytest.approx(-1, abs=1e-5)
    right = numbers(deq.linear_moments("goe", V))[2]
    assert right == pytest.approx((s**-5 - s**-3) / (4 * V))  # (148)
    for family in ("iid", "orthogonal"):
        assert numbers(deq.linear_moments(family, V, as_printed=True)) == numbers(deq.linear_moments(family, V))
    for family in ("iid", "goe"):
        printed = deq.untied_moments(family, V, as_printed=True)
        assert printed.m4 == pytest.approx(2 / 0.8**2 + 1 / 0.96**2 - 2 / 0.96)  # (14)
    assert deq.untied_moments("orthogonal", V, as_printed=True).m4 == deq.untied_moments("orthogonal", V).m4  # (15)


def test_the_divergence_of_untied_weights_is_cubic() -> None:
    delta = 1e-4
    found = deq.untied_moments("iid", 1 - delta).m4
    printed = deq.untied_moments("iid", 1 - delta, as_printed=True).m4
    assert found is not None
    assert printed is not None
    assert found * delta**3 == pytest.approx(0.5, rel=1e-3)
    assert printed * delta**2 == pytest.approx(2.25, rel=1e-3)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "V"), [("iid", 1.0), ("orthogonal", 1.5), ("goe", 0.25), ("haar_disc", 0.5)])
def test_beyond_the_critical_v(family: deq.FamilyName, V: float) -> None:
    with pytest.raises(AnalysisError, match=r"diverge at V = .* Choose sqrt\(V\) below"):
        deq.linear_moments(family, V)
    moments = deq.linear_moments(family, V, throw=False)
    assert moments.status.code == "diverges"
    assert moments.m4 is None
    assert moments.length_variance(100) is None
    assert moments.scalars() == {}


def test_untied_beyond_one() -> None:
    with pytest.raises(AnalysisError, match="V = 1;"):
        deq.untied_moments("goe", 1.0)
    assert deq.untied_moments("goe", 1.0, throw=False).scalars() == {}
    assert deq.untied_moments("goe", 0.5).scalars()["m2"] == 2.0


@pytest.mark.parametrize("function", [deq.linear_moments, deq.untied_moments])
def test_bad_arguments(function: Callable[..., object]) -> None:
    for V in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"V is {V}"):
            function("iid", V)
    with pytest.raises(ValueError, match="'gue'; choose one of iid"):
        function("gue", 0.1)
    with pytest.raises(TypeError, match="expected a name"):
        function(3, 0.1)
    with pytest.raises(ValueError, match="prints no formula for antisymmetric"):
        function("antisymmetric", 0.1, as_printed=True)
    with pytest.raises(ValueError, match=r"prints no formula for elliptic\(tau=0.5\)"):
        function(deq.Elliptic(0.5), 0.1, as_printed=True)
    with pytest.raises(ValueError, match="tau is 2"):
        deq.Elliptic(2)
