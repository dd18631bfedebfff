import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import root
from scipy.stats import norm
from torch import Generator

from fpstab.results import AnalysisError
from fpstab.theory import deq

ACTIVATIONS: list[deq.Activation] = ["hardtanh", "tanh", "erf", "relu", "linear"]


def gaussian_mean(f, variance: float) -> float:  # type: ignore[no-untyped-def]
    s = math.sqrt(variance)
    return sum(quad(lambda t: f(s * t) * norm.pdf(t), *ends, limit=200)[0] for ends in ((-12, 0), (0, 12)))


# -- the equations -------------------------------------------------------------------------------------------


def hard_tanh_cavity(tau: float, V: float, sigma_x2: float) -> tuple[float, float, float]:
    """σ_h², λ and a by the equations written out for hard-tanh, solved as they stand."""

    def statistics(a: float, s2: float) -> tuple[float, float]:
        s = math.sqrt(s2)
        p = math.erf(1 / (s * math.sqrt(2)))
        inside = s2 * p - s * math.sqrt(2 / math.pi) * math.exp(-0.5 / s2)  # E[g²; |g| < 1]
        return p, inside + 1 - p + sigma_x2 * (1 + 2 * p * a / (1 - a))

    def equations(unknown: np.ndarray) -> list[float]:
        a, s2 = float(unknown[0]), abs(float(unknown[1]))
        p, q = statistics(a, s2)
        return [a * (1 - a) - tau * V * p, s2 - (V * q + a**2 * sigma_x2) / (1 - a) ** 2]

    a, s2 = 0.0, V * sigma_x2
    for step in np.linspace(0.1, 1, 40):  # continued from weak weights
        V, whole = V * step, V
        solved = root(equations, [a, s2], tol=1e-12)
        assert np.abs(solved.fun).max() < 1e-9
        a, s2 = map(float, solved.x)
        V = whole
    p, _ = statistics(a, s2)
    s = math.sqrt(s2)
    inside = s2 * p - s * math.sqrt(2 / math.pi) * math.exp(-0.5 / s2)
    outside = 2 * quad(lambda g: (a + (1 - a) * g) ** 2 * norm.pdf(g / s) / s, 1, 1 + 12 * s)[0]
    return inside + outside, (1 + abs(tau)) * math.sqrt(V * p), a


@pytest.mark.parametrize("sigma_x2", [0.2, 1.0, 3.0])
@pytest.mark.parametrize(
    ("family", "tau"), [("iid", 0), ("goe", 1), ("antisymmetric", -1), (deq.Elliptic(0.4), 0.4), ("orthogonal", 0)]
)
def test_hard_tanh_written_out(family: deq.Family, tau: float, sigma_x2: float) -> None:
    critical = deq.critical_sqrt_v(family, "hardtanh", sigma_x2)
    for share in (0.2, 0.6, 0.9):
        V = (share * critical) ** 2
        found = deq.cavity_solution(family, V, "hardtanh", sigma_x2)
        assert (found.sigma_h2, found.spectral_radius, found.echo) == pytest.approx(
            hard_tanh_cavity(tau, V, sigma_x2), rel=1e-6, abs=1e-9
        )


@given(st.floats(-1, 1), st.floats(0.01, 0.98), st.floats(0.1, 5))
@settings(max_examples=12, deadline=None)
def test_the_linear_model_is_recovered(tau: float, share: float, sigma_x2: float) -> None:
    family = deq.Elliptic(tau)
    V = share / (1 + abs(tau)) ** 2
    moments = deq.linear_moments(family, V)
    solution = deq.cavity_solution(family, V, "linear", sigma_x2)
    assert moments.mean is not None
    assert moments.m2 is not None
    assert solution.z2 == pytest.approx(moments.m2 * sigma_x2, rel=1e-8)
    assert solution.echo == pytest.approx(1 - 1 / moments.mean, rel=1e-8, abs=1e-12)
    h = (moments.m2 - 2 * moments.mean + 1) * sigma_x2  # ‖(M − I)x‖²
    assert deq.sigma_h2(family, V, "linear", sigma_x2) == pytest.approx(h, rel=1e-7)
    assert deq.spectral_radius(family, V, "linear") == pytest.approx((1 + abs(tau)) * math.sqrt(V), rel=1e-8)


@pytest.mark.parametrize("V", [0.3, 2.0, 9.0])
@pytest.mark.parametrize("activation", ["hardtanh", "tanh", "erf"])
def test_without_symmetry_it_is_the_paper_s_equation(activation: deq.Activation, V: float) -> None:
    value = {"hardtanh": lambda h: min(max(h, -1), 1), "tanh": math.tanh, "erf": math.erf}[activation]
    s2 = deq.sigma_h2("iid", V, activation, 0.7)
    assert s2 == pytest.approx(V * (gaussian_mean(lambda h: value(h) ** 2, s2) + 0.7), rel=1e-7)
    assert deq.sigma_h2("orthogonal", V, activation, 0.7) == s2
    step = 1e-5
    slope2 = gaussian_mean(lambda h: ((value(h + step) - value(h - step)) / (2 * step)) ** 2, s2)
    assert deq.spectral_radius("iid", V, activation, 0.7) ** 2 == pytest.approx(V * slope2, rel=1e-4)


@pytest.mark.parametrize("mean_x", [-0.8, 0.0, 0.5])
def test_relu_with_a_mean_of_the_input(mean_x: float) -> None:
    V, sigma_x2 = 1.2, 1.0
    s2 = deq.sigma_h2("iid", V, "relu", sigma_x2, mean_x=mean_x)
    correlation = mean_x * math.sqrt(s2 / (2 * math.pi))  # C of (26), E relu(h) = σ_h/√(2π)
    assert s2 == pytest.approx(V * (s2 / 2 + 2 * correlation + sigma_x2), rel=1e-9)
    assert deq.spectral_radius("iid", V, "relu", mean_x=mean_x) == pytest.approx(math.sqrt(V / 2), rel=1e-12)


def test_an_odd_activation_does_not_see_the_mean_without_symmetry() -> None:
    assert deq.sigma_h2("iid", 2.0, "tanh", mean_x=0.9) == pytest.approx(deq.sigma_h2("iid", 2.0, "tanh"), rel=1e-10)
    shifted = deq.sigma_h2("goe", 0.8, "tanh", mean_x=0.9)
    assert abs(shifted - deq.sigma_h2("goe", 0.8, "tanh")) > 1e-3


def test_homogeneous_activations_scale() -> None:
    for family in ("iid", "goe", "antisymmetric"):
        one, four = (deq.sigma_h2(family, 0.2, "relu", sigma_x2) for sigma_x2 in (1.0, 4.0))
        assert four == pytest.approx(4 * one, rel=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("family", ["iid", "goe", "antisymmetric", deq.Elliptic(0.5), deq.Elliptic(-0.5)], ids=str)
def test_radius_is_one_at_the_critical_v_and_rises_to_it(family: deq.Family, activation: deq.Activation) -> None:
    critical = deq.critical_sqrt_v(family, activation)
    radii = [deq.spectral_radius(family, (s * critical) ** 2, activation) for s in (0.1, 0.5, 0.8, 0.97, 0.9999)]
    assert radii == sorted(radii)
    assert radii[-1] < 1 + 1e-9
    assert radii[-1] == pytest.approx(1, abs=1e-3)
    at_zero = deq.cavity_solution(family, 0.0, activation)
    assert (at_zero.spectral_radius, at_zero.z2) == pytest.approx((0, 1))


@pytest.mark.parametrize("tau", [0.0, 0.5, -0.5, 1.0, -1.0])
def test_the_radius_of_a_profile(tau: float) -> None:
    """The boundary of the spectrum of DW for a D that knows nothing of W, against eigenvalues."""
    n = 600
    generator = Generator().manual_seed(0)
    w = deq.sample_weight(deq.Elliptic(tau), 0.8, n, generator=generator)
    h = 1.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    slope = 1 / torch.cosh(h) ** 2
    root = slope.sqrt()
    measured = float(torch.linalg.eigvals(root[:, None] * w * root).abs().max())
    from fpstab.theory.deq.cavity import _radius

    weights = np.full(n, 1 / n)
    assert _radius(0.8, tau, slope.numpy(), weights, 1.0) == pytest.approx(measured, rel=0.04)


# -- published numbers ---------------------------------------------------------------------------------------


def test_critical_values() -> None:
    assert deq.critical_sqrt_v("iid", "hardtanh") == pytest.approx(1.72158, abs=5e-6)
    assert deq.critical_sqrt_v("orthogonal", "hardtanh") == pytest.approx(1.72158, abs=5e-6)
    assert deq.critical_sqrt_v("iid", "tanh") == pytest.approx(2.537316, abs=5e-7)
    assert deq.critical_sqrt_v("goe", "hardtanh") == pytest.approx(1.01863, abs=5e-6)
    assert deq.critical_sqrt_v("goe", "hardtanh", as_printed=True) == pytest.approx(0.526, abs=5e-4)


def test_critical_values_of_scale_free_activations() -> None:
    assert deq.critical_sqrt_v("iid", "relu") == pytest.approx(math.sqrt(2), rel=1e-9)
    assert deq.critical_sqrt_v("goe", "relu") == pytest.approx(math.sqrt(0.5), rel=1e-9)
    for family, value in (("iid", 1), ("goe", 0.5), ("antisymmetric", 0.5), ("haar_disc", math.sqrt(0.5))):
        assert deq.critical_sqrt_v(family, "linear") == pytest.approx(value, rel=1e-9)  # type: ignore[arg-type]


def test_as_printed_is_the_theory_without_echo() -> None:
    V = 0.2
    assert deq.sigma_h2("goe", V, "hardtanh", as_printed=True) == deq.sigma_h2("iid", V, "hardtanh")
    p = math.erf(1 / math.sqrt(2 * deq.sigma_h2("iid", V, "hardtanh")))
    assert deq.spectral_radius("goe", V, "hardtanh", as_printed=True) == pytest.approx(2 * math.sqrt(V * p), rel=1e-8)
    assert deq.sigma_h2("iid", V, "tanh", as_printed=True) == deq.sigma_h2("iid", V, "tanh")
    assert deq.sigma_h2("goe", 0.9, "hardtanh") > 1.4 * deq.sigma_h2("goe", 0.9, "hardtanh", as_printed=True)


# -- measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "activation", "share"),
    [
        ("iid", "hardtanh", 0.6),
        ("orthogonal", "tanh", 0.6),
        ("goe", "hardtanh", 0.6),
        ("goe", "tanh", 0.6),
        ("goe", "erf", 0.6),
        ("goe", "relu", 0.5),
        ("antisymmetric", "hardtanh", 0.8),
        ("antisymmetric", "tanh", 0.8),
        (deq.Elliptic(0.5), "tanh", 0.5),
        (deq.Elliptic(-0.5), "erf", 0.6),
    ],
    ids=str,
)
def test_measured_on_an_equilibrium(family: deq.Family, activation: deq.Activation, share: float) -> None:
    V = (share * deq.critical_sqrt_v(family, activation)) ** 2
    theory = deq.cavity_solution(family, V, activation)
    samples = [
        deq.sample_equilibrium(
            family, V, activation, width=300, inputs=6, tol=1e-6, generator=Generator().manual_seed(seed)
        )
        for seed in range(4)
    ]
    assert all(sample.status.ok for sample in samples)
    found = sum(sample.sigma_h2 for sample in samples) / len(samples)
    assert found == pytest.approx(theory.sigma_h2, rel=0.05)
    radius = float(torch.stack([sample.spectral_radius()[0] for sample in samples]).median())
    assert radius == pytest.approx(theory.spectral_radius, rel=0.07)
    if family == "goe":  # the printed theory would not pass
        assert deq.sigma_h2(family, V, activation, as_printed=True) != pytest.approx(found, rel=0.1)


def test_measured_with_a_mean_of_the_input() -> None:
    n, V, mean_x = 400, 0.2, 0.6
    theory = deq.cavity_solution("goe", V, "relu", 1.0, mean_x=mean_x)
    found = []
    for seed in range(6):
        generator = Generator().manual_seed(seed)
        w = deq.sample_weight("goe", V, n, generator=generator)
        x = mean_x + deq.sample_inputs(n, 6, 1 - mean_x**2, generator=generator)
        z = torch.zeros_like(x)
        for _ in range(200):
            z = torch.relu(z @ w.T) + x
        found.append(float(z.square().mean()))
    assert sum(found) / 6 == pytest.approx(theory.z2, rel=0.02)
    assert deq.cavity_solution("goe", V, "relu").z2 != pytest.approx(theory.z2, rel=0.1)


# -- bad input -----------------------------------------------------------------------------------------------


def test_beyond_the_critical_v() -> None:
    for family, V, activation in (("goe", 1.1, "hardtanh"), ("iid", 1.0, "linear"), ("orthogonal", 2.0, "relu")):
        with pytest.raises(AnalysisError, match=r"no solution at .* stable up to"):
            deq.sigma_h2(family, V, activation)  # type: ignore[arg-type]
        solution = deq.cavity_solution(family, V, activation, throw=False)  # type: ignore[arg-type]
        assert solution.status.code == "no_equilibrium"
        assert solution.scalars() == {}
    assert deq.spectral_radius("iid", 9.0, "hardtanh") > 1  # the statistics of an iteration that never settles


def test_a_family_without_a_theory() -> None:
    for function in (deq.sigma_h2, deq.spectral_radius):
        with pytest.raises(AnalysisError, match="no theory of the equilibrium with haar_disc weights and tanh"):
            function("haar_disc", 0.1, "tanh")
    with pytest.raises(AnalysisError, match="no theory"):
        deq.critical_sqrt_v("haar_disc", "relu")
    assert deq.spectral_radius("haar_disc", 0.08, "linear") == pytest.approx(0.4)


def test_bad_arguments() -> None:
    for sigma_x2 in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"sigma_x2 is {sigma_x2}"):
            deq.sigma_h2("iid", 0.5, "tanh", sigma_x2)
    with pytest.raises(ValueError, match=r"mean_x is 1\.5"):
        deq.sigma_h2("iid", 0.5, "tanh", 1.0, mean_x=1.5)
    with pytest.raises(ValueError, match="V is -1"):
        deq.spectral_radius("iid", -1, "tanh")
    with pytest.raises(ValueError, match="no activation 'sine'"):
        deq.critical_sqrt_v("iid", "sine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prints no formula for antisymmetric"):
        deq.sigma_h2("antisymmetric", 0.1, "tanh", as_printed=True)
