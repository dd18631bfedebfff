import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from fpstab.esd import WeightSpectrum, fit_marchenko_pastur, fit_power_law, weight_spectrum
from fpstab.esd.metrics import SUMMARY, rand_distance, spectrum_metrics
from fpstab.results import OK
from tests.esd.matrices import Floats, spiked, squares, with_spectrum

Metrics = dict[str, float | None]

WEIGHTS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "gaussian": lambda rng: rng.standard_normal((60, 90)),
    "wide": lambda rng: rng.standard_normal((40, 300)) / 17,
    "spiked": lambda rng: spiked(rng, (50, 40), np.array([2.0, 5.0])),
    "cauchy": lambda rng: rng.standard_cauchy((80, 80)),
    "power_law": lambda rng: with_spectrum(rng, rng.pareto(1.0, 64) + 1, 100),
    "rank_deficient": lambda rng: rng.standard_normal((50, 30)) @ rng.standard_normal((30, 70)),
    "small": lambda rng: rng.standard_normal((7, 9)),
    "row": lambda rng: rng.standard_normal((1, 30)),
}


def measured(weight: Floats) -> Metrics:
    spectrum = weight_spectrum(weight)
    fit = fit_power_law(spectrum.eigenvalues)
    bulk = fit_marchenko_pastur(spectrum.eigenvalues, spectrum.matrix_shape, n_zero=spectrum.n_zero)
    return spectrum_metrics(spectrum, fit, bulk)


def of_values(values: Floats, n_zero: int = 0) -> Metrics:
    n = values.size + n_zero
    spectrum = WeightSpectrum(torch.from_numpy(np.sort(values)), n_zero, (n, n), 1, 0.0, OK)
    return spectrum_metrics(spectrum, fit_power_law(values), None)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_each_is_its_formula(kind: str) -> None:
    for seed in range(3):
        weight = WEIGHTS[kind](np.random.default_rng([seed, 1]))
        metrics = measured(weight)
        rank = int(np.linalg.matrix_rank(weight))
        singular = np.linalg.svd(weight, compute_uv=False)[:rank]
        values = singular**2
        expected: Metrics = {
            "norm": np.linalg.norm(weight) ** 2,
            "log_norm": 2 * np.log10(np.linalg.norm(weight)),
            "spectral_norm": np.linalg.norm(weight, 2) ** 2,
            "log_spectral_norm": 2 * np.log10(np.linalg.norm(weight, 2)),
            "xmax": values.max(),
            "stable_rank": np.linalg.norm(weight) ** 2 / np.linalg.norm(weight, 2) ** 2,
            "matrix_rank": rank,
            "rank_loss": min(weight.shape) - rank,
            "entropy": entropy(values) / np.log(rank) if rank > 1 else None,
        }
        fit = fit_power_law(values)
        if fit.alpha is not None:
            tail = values[values >= (fit.xmin or 0) * (1 - 1e-12)]
            expected |= {
                "alpha": 1 + tail.size / np.log(tail / tail.min()).sum(),
                "xmin": tail.min(),
                "num_pl_spikes": tail.size,
                "D": fit.ks_distance,
                "sigma": (fit.alpha - 1) / tail.size**0.5,
                "alpha_weighted": fit.alpha * np.log10(values.max()),
                "log_alpha_norm": np.log10((singular ** (2 * fit.alpha)).sum()),
            }
        else:
            nothing = ("alpha", "xmin", "num_pl_spikes", "D", "sigma", "alpha_weighted", "log_alpha_norm", "ERG_gap")
            expected |= dict.fromkeys(nothing)
        for name, value in expected.items():
            assert metrics[name] == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)), name
        assert all(value is None or type(value) is float for value in metrics.values())


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_bulk(kind: str) -> None:
    weight = WEIGHTS[kind](np.random.default_rng(2))
    metrics = measured(weight)
    values = squares(weight)
    names = ("num_spikes", "sigma_mp", "bulk_min", "bulk_max", "mp_softrank")
    if min(weight.shape) < 20:
        assert [metrics[name] for name in names] == [None] * 5
        return
    spikes, sigma, low, high, soft_rank = (float(metrics[name] or 0) for name in names)
    p, n = (math.sqrt(side - spikes) for side in weight.shape)
    assert low == pytest.approx(sigma**2 * (p - n) ** 2, rel=1e-9, abs=1e-9)
    assert high == pytest.approx(sigma**2 * (p + n) ** 2, rel=1e-9)
    assert soft_rank == pytest.approx(high / values[-1], rel=1e-9)
    if kind in ("gaussian", "wide"):
        assert spikes == 0
        assert sigma == pytest.approx(weight.std(), rel=1e-2)
        assert soft_rank == pytest.approx(1, abs=0.1)
    if kind == "spiked":
        assert spikes == 2
        assert soft_rank < 0.1
        assert sigma == pytest.approx(1, rel=0.05)


def by_products(values: Floats) -> tuple[int, float]:
    """The largest eigenvalues, scaled to mean 1, whose product is at least 1, and one more: in exact fractions."""
    exact = [Fraction(float(value)) for value in sorted(values, reverse=True)]
    mean = sum(exact) / len(exact)
    product, count = Fraction(1), 0
    for value in exact:
        count += 1
        product *= value / mean
        if product < 1:
            break
    return count, float(exact[count - 1])


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(1e-6, 1e6).map(lambda x: float(f"{x:.3e}")), min_size=2, max_size=60),
    scale=st.integers(-300, 300),
)
def test_unit_determinant(values: list[float], scale: int) -> None:
    if max(values) == min(values):
        assert of_values(np.array(values))["detX_num"] is None
        return
    count, value = by_products(np.array(values))
    metrics = of_values(np.ldexp(values, scale))
    if metrics["detX_num"] != count:  # a product of 1 to rounding
        order = np.log(np.sort(values)[::-1] / np.mean(values)).cumsum()
        assert abs(order[min(count, int(metrics["detX_num"] or 0)) - 1]) < 1e-12
        return
    assert metrics["detX_val"] == pytest.approx(math.ldexp(value, scale), rel=1e-12)
    if metrics["alpha"] is not None:
        assert metrics["ERG_gap"] == count - (metrics["num_pl_spikes"] or 0)


@pytest.mark.parametrize("kind", [kind for kind in WEIGHTS if kind != "row"])
def test_unit_determinant_of_weights(kind: str) -> None:
    weight = WEIGHTS[kind](np.random.default_rng(3))
    values = weight_spectrum(weight).eigenvalues.numpy()
    metrics = measured(weight)
    count, value = by_products(values)
    assert (metrics["detX_num"], metrics["detX_val"]) == (count, value)
    n_tail = fit_power_law(values).n_tail
    assert metrics["ERG_gap"] == (count - n_tail if n_tail else None)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_scale(kind: str) -> None:
    weight = WEIGHTS[kind](np.random.default_rng(4))
    weight /= np.abs(weight).max()
    one = measured(weight)
    for scale in (2.0**-450, 1e-9, 1e6, 2.0**480):
        other = measured(weight * scale)
        log = math.log10(scale)
        alpha = one["alpha"] or 0.0
        shift = {"log_norm": 2 * log, "log_spectral_norm": 2 * log}
        shift |= {"alpha_weighted": 2 * alpha * log, "log_alpha_norm": 2 * alpha * log}
        quadratic = {"norm", "spectral_norm", "xmin", "xmax", "bulk_min", "bulk_max", "detX_val"}
        for name, value in one.items():
            if value is None:
                assert other[name] is None
                continue
            factor = scale**2 if name in quadratic else scale if name == "sigma_mp" else 1.0
            expected = (value + shift.get(name, 0.0)) * factor
            assert other[name] == pytest.approx(expected, rel=1e-6, abs=1e-9 * factor), name


def test_at_the_ends_of_the_floating_point_numbers() -> None:
    values = np.geomspace(1e-3, 1, 40)
    for top in (2.0**1000, 2.0**-1000):
        metrics = of_values(values * top)
        assert all(value is None or math.isfinite(value) for value in metrics.values())
        assert metrics["entropy"] == pytest.approx(of_values(values)["entropy"] or 0, rel=1e-12)
    # an exponent of some millions: λ^alpha is far outside
    steep = of_values(3 + 1e-6 * np.random.default_rng(0).exponential(size=60))
    assert steep["alpha"] is not None
    assert steep["alpha"] > 1e5
    assert steep["log_alpha_norm"] == pytest.approx(steep["alpha"] * math.log10(3), rel=1e-4)


def test_extremes_of_the_ranks() -> None:
    flat = of_values(np.full(30, 5.0), n_zero=3)
    assert flat["stable_rank"] == pytest.approx(30, rel=1e-12)
    assert flat["entropy"] == pytest.approx(1, rel=1e-12)
    assert (flat["matrix_rank"], flat["rank_loss"]) == (30, 3)
    assert (flat["alpha"], flat["detX_num"], flat["ERG_gap"]) == (None, None, None)
    single = of_values(np.array([7.0]))
    assert (single["stable_rank"], single["entropy"], single["detX_num"]) == (1, None, None)
    peaked = of_values(np.concatenate([np.full(29, 1e-12), [1.0]]))
    assert peaked["stable_rank"] == pytest.approx(1, abs=1e-9)
    assert peaked["entropy"] == pytest.approx(0, abs=1e-9)
    assert peaked["detX_num"] == 2  # 30, then 30 · 3e-11


def test_what_the_summary_averages() -> None:
    assert set(SUMMARY) <= measured(WEIGHTS["gaussian"](np.random.default_rng(0))).keys()


# -- beside the shuffled weight --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    p=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    scale=st.integers(-400, 400),
)
def test_rand_distance(p: list[float], seed: int, scale: int) -> None:
    one = np.sort(p)
    other = np.sort(one * np.random.default_rng(seed).lognormal(size=one.size))
    distance = rand_distance(torch.from_numpy(np.ldexp(one, scale)), torch.from_numpy(other))
    # SciPy's may be the root of a negative rounding error
    reference = np.nan_to_num(jensenshannon(one, other))
    assert distance == pytest.approx(reference, rel=1e-6, abs=1e-7)
    assert distance is not None
    assert 0 <= distance <= math.sqrt(math.log(2)) + 1e-12
    assert rand_distance(torch.from_numpy(one), torch.from_numpy(one)) == 0


def test_rand_distance_of_disjoint_and_unequal_spectra() -> None:
    one, other = torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 0.0]).double()
    assert rand_distance(one, other) == pytest.approx(math.sqrt(math.log(2)), rel=1e-12)
    assert rand_distance(one, torch.ones(3).double()) is None
    assert rand_distance(one[:0], other[:0]) is None
