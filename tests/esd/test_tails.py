import math
import warnings
from collections.abc import Callable

import numpy as np
import powerlaw
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import kstest

from fpstab.esd import PowerLawFit, fit_power_law, hill, power_law_p_value
from fpstab.results import AnalysisError

Floats = NDArray[np.float64]


def squares(matrix: Floats) -> Floats:
    return np.linalg.svd(matrix, compute_uv=False) ** 2


FAMILIES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "gaussian_spectrum": lambda rng, n: squares(rng.standard_normal((n, n + n // 4))),
    "cauchy_spectrum": lambda rng, n: squares(rng.standard_cauchy((n, n))),
    "pareto": lambda rng, n: rng.pareto(rng.uniform(0.3, 3), n) + 1,
    "lognormal": lambda rng, n: rng.lognormal(0, rng.uniform(0.1, 3), n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform": lambda rng, n: rng.uniform(1, 2, n),
    "integers": lambda rng, n: rng.integers(1, 30, n).astype(float),
    "zipf": lambda rng, n: np.minimum(rng.zipf(2.0, n), 10**6).astype(float),
    "rounded": lambda rng, n: np.round(rng.lognormal(0, 1, n), 1) + 0.1,
    "atom_and_tail": lambda rng, n: np.concatenate([np.full(n // 2, 1.5), rng.pareto(2, n - n // 2) + 1]),
    "bulk_and_tail": lambda rng, n: np.concatenate([rng.uniform(0, 1, n // 2), rng.pareto(1, n // 3) + 1]),
    "every_value_twice": lambda rng, n: np.repeat(rng.pareto(1.5, n // 2) + 1, 2),
}


def by_powerlaw(sample: Floats) -> tuple[float, float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(sample, verbose=0, parameter_ranges={"alpha": [1, None]})
        return fit.power_law.alpha, fit.xmin, fit.D


def exhaustive(sample: Floats) -> Floats:
    """Rows (x_min, alpha, distance) of all candidates, by the definition."""
    rows = []
    for xmin in np.unique(sample)[:-2]:
        tail = np.sort(sample[sample >= xmin])
        alpha = 1 + tail.size / np.log(tail / xmin).sum()
        empirical = np.searchsorted(tail, tail, side="left") / tail.size
        rows.append((xmin, alpha, np.abs(1 - (tail / xmin) ** (1 - alpha) - empirical).max()))
    return np.array(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_powerlaw(family: str) -> None:
    for seed in range(18):
        rng = np.random.default_rng([seed, *family.encode()])
        sample = FAMILIES[family](rng, int(rng.integers(30, 80)))
        fit = fit_power_law(sample)
        alpha, xmin, distance = by_powerlaw(sample)
        assert fit.xmin == xmin, seed
        assert fit.alpha == pytest.approx(alpha, rel=1e-9, abs=0), seed
        assert fit.ks_distance == pytest.approx(distance, rel=0, abs=1e-9), seed
        assert fit.n_tail == (sample >= xmin).sum(), seed


@pytest.mark.parametrize("family", ["gaussian_spectrum", "cauchy_spectrum", "pareto"])
def test_as_powerlaw_on_a_larger_sample(family: str) -> None:
    sample = FAMILIES[family](np.random.default_rng(1), 400)
    fit = fit_power_law(sample)
    alpha, xmin, distance = by_powerlaw(sample)
    assert fit.xmin == xmin
    assert fit.alpha == pytest.approx(alpha, rel=1e-9, abs=0)
    assert fit.ks_distance == pytest.approx(distance, rel=0, abs=1e-9)


def five_digits(value: float) -> float:
    return float(f"{value:.4e}")


values = st.one_of(
    st.integers(1, 12).map(float),
    st.floats(1e-2, 1e2).map(five_digits),
    st.floats(-30, 30).map(lambda power: five_digits(10**power)),
)


@settings(max_examples=300, deadline=None)
@given(sample=st.lists(values, min_size=20, max_size=150))
@example(sample=[1.0] * 18 + [2.0, 3.0])  # one candidate
@example(sample=[2.0**k for k in range(60)])
@example(sample=[1.0, 1.00001] + [2.0] * 30)
def test_as_an_exhaustive_search(sample: list[float]) -> None:
    fit = fit_power_law(sample)
    if len(set(sample)) < 3:
        assert (fit.status.code, fit.alpha) == ("constant", None)
        return
    table = exhaustive(np.array(sample))
    xmin, alpha, distance = table[np.flatnonzero(table[:, 0] == fit.xmin).item()]
    assert distance <= table[:, 2].min() + 1e-9
    assert fit.alpha == pytest.approx(alpha, rel=1e-9, abs=0)
    assert fit.ks_distance == pytest.approx(distance, rel=0, abs=1e-9)
    assert fit.n_tail == sum(value >= xmin for value in sample)
    assert fit.sigma == pytest.approx((alpha - 1) / math.sqrt(fit.n_tail), rel=1e-9, abs=0)
    assert fit.n == len(sample)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_candidate_is_that_of_an_exhaustive_search_also_for_hundreds_of_values(family: str) -> None:
    for seed in range(5):
        sample = FAMILIES[family](np.random.default_rng([seed, 7]), 300)
        table = exhaustive(sample)
        fit = fit_power_law(sample)
        xmin, alpha, distance = table[table[:, 2].argmin()]
        assert fit.xmin == xmin
        assert fit.alpha == pytest.approx(alpha, rel=1e-9, abs=0)
        assert fit.ks_distance == pytest.approx(distance, rel=0, abs=1e-9)


@pytest.mark.parametrize("alpha", [1.3, 2.0, 3.5, 8.0])
def test_a_pareto_sample_gives_its_exponent(alpha: float) -> None:
    # u^(−1/(α−1)), all quantiles: the tail is the whole sample and the estimate is the exponent
    n = 4000
    u = (np.arange(n) + 0.5) / n
    fit = fit_power_law(u ** (-1 / (alpha - 1)))
    assert fit.alpha == pytest.approx(alpha, rel=1e-3)
    assert fit.ks_distance < 2 / n
    assert fit.n_tail > 0.9 * n


@settings(max_examples=60, deadline=None)
@given(
    sample=st.lists(st.floats(0.01, 100).map(five_digits), min_size=20, max_size=60, unique=True),
    power=st.integers(-900, 900),
    seed=st.integers(0, 99),
)
def test_scale_and_order_do_not_matter(sample: list[float], power: int, seed: int) -> None:
    fit = fit_power_law(sample)
    moved = np.random.default_rng(seed).permutation(np.ldexp(sample, power))  # an exact multiple
    other = fit_power_law(moved)
    assert (other.alpha, other.ks_distance, other.n_tail) == (fit.alpha, fit.ks_distance, fit.n_tail)
    assert fit.xmin is not None
    assert other.xmin == math.ldexp(fit.xmin, power)


@pytest.mark.parametrize("scale", [1e6, 1e-6, 3e-200, 7e250])
@pytest.mark.parametrize("family", ["gaussian_spectrum", "cauchy_spectrum", "pareto", "integers"])
def test_rescaled(family: str, scale: float) -> None:
    sample = FAMILIES[family](np.random.default_rng(3), 200)
    fit, other = fit_power_law(sample), fit_power_law(sample * scale)
    assert other.n_tail == fit.n_tail
    assert other.alpha == pytest.approx(fit.alpha, rel=1e-9, abs=0)
    assert other.ks_distance == pytest.approx(fit.ks_distance, rel=0, abs=1e-9)


def test_a_range_wider_than_that_of_a_quotient() -> None:
    logs = np.linspace(-300, 300, 60)
    fit = fit_power_law(10.0**logs)
    assert fit.xmin is not None
    tail = logs[logs >= math.log10(fit.xmin) - 1e-9] * math.log(10)
    assert fit.alpha == pytest.approx(1 + 1 / (tail - tail[0]).mean(), rel=1e-9, abs=0)


@pytest.mark.parametrize("top", [1.0, 1.3, 30.0, 1e150])
def test_distinct_only_by_rounding(top: float) -> None:
    # the exponents of the last candidates are some 10^15: no division by zero, no nan, and not the answer
    neighbours = [top]
    for _ in range(2):
        neighbours.append(math.nextafter(neighbours[-1], 0))
    for sample in ([*np.geomspace(top / 50, top / 2, 30), *neighbours], [*neighbours, *[top] * 20, top / 2]):
        fit = fit_power_law(sample)
        assert fit.alpha is not None
        assert fit.ks_distance is not None
        assert math.isfinite(fit.alpha)
        assert 0 < fit.ks_distance < 1


def test_nearly_equal_values_at_a_large_scale() -> None:
    # differences of logarithms would lose all but four digits
    spread = np.geomspace(1, 50, 40)
    fit = fit_power_law(1e150 * (1 + 1e-10 * spread))
    xmin, alpha, distance = min(exhaustive(1e150 * (1 + 1e-10 * spread)), key=lambda row: row[2])
    assert fit.xmin == xmin
    assert fit.alpha == pytest.approx(alpha, rel=1e-5)  # the input itself has six digits
    assert fit.ks_distance == pytest.approx(distance, abs=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        lambda x: x.astype(np.float32),
        lambda x: x[::-1],
        torch.from_numpy,
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: torch.from_numpy(x).float(),
        lambda x: torch.from_numpy(x).bfloat16(),
        lambda x: torch.from_numpy(x).int(),
    ],
)
def test_what_holds_the_values(convert: Callable[[Floats], object]) -> None:
    sample = np.arange(1.0, 65.0)
    fit, expected = fit_power_law(convert(sample)), fit_power_law(sample)  # type: ignore[arg-type]
    assert (fit.alpha, fit.xmin) == (expected.alpha, expected.xmin)
    assert {type(value) for value in (fit.alpha, fit.xmin, fit.ks_distance, fit.sigma)} == {float}
    assert {type(fit.n_tail), type(fit.n)} == {int}


def test_the_input_is_left_alone() -> None:
    sample = np.random.default_rng(0).pareto(1, 50) + 1
    sample.setflags(write=False)
    before = sample.copy()
    fit_power_law(sample)
    assert (sample == before).all()


def none(fit: PowerLawFit) -> bool:
    return (fit.alpha, fit.xmin, fit.ks_distance, fit.n_tail, fit.sigma) == (None, None, None, 0, None)


@pytest.mark.parametrize("n", [0, 1, 10, 19])
def test_too_few(n: int) -> None:
    fit = fit_power_law(np.arange(1.0, n + 1))
    assert none(fit)
    assert fit.status.code == "too_few"
    assert f"{n} eigenvalues" in fit.status.message
    assert "20" in fit.status.message
    assert fit.n == n


def test_twenty_are_enough() -> None:
    assert fit_power_law(np.arange(1.0, 21)).alpha is not None


@pytest.mark.parametrize(
    "sample",
    [[3.0] * 50, [1.0] * 30 + [2.0] * 30, list(3.0 * (1 + 1e-16 * np.arange(200))), [5e-324] * 30, [1.7e308] * 30],
)
def test_constant(sample: list[float]) -> None:
    fit = fit_power_law(sample)
    assert none(fit)
    assert fit.status.code == "constant"
    assert str(len(sample)) in fit.status.message


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.0, "not_positive"), (-1.0, "not_positive"), (math.nan, "not_finite"), (math.inf, "not_finite")],
)
def test_bad_values(value: float, code: str) -> None:
    sample = [*np.arange(1.0, 50), value]
    fit = fit_power_law(sample, throw=False)
    assert none(fit)
    assert fit.status.code == code
    assert fit.status.message.startswith("1 of 50 values")
    with pytest.raises(AnalysisError, match="1 of 50 values") as error:
        fit_power_law(sample)
    assert error.value.status == fit.status


@pytest.mark.parametrize("shape", [(), (5, 5), (1, 30)])
def test_not_one_dimensional(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one-dimensional") as error:
        fit_power_law(np.ones(shape), throw=False)
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("sample", [torch.ones(30, dtype=torch.complex64), np.ones(30, dtype=complex), [1j] * 30])
def test_complex_values_are_refused(sample: object) -> None:
    with pytest.raises(TypeError, match="complex"):
        fit_power_law(sample)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="complex"):
        hill(sample, 3)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=40, unique=True),
    data=st.data(),
)
def test_hill_is_its_formula(sizes: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(sizes) - 1))
    largest = sorted(sizes, reverse=True)
    mean = math.fsum(math.log(size) for size in largest[:k]) / k - math.log(largest[k])
    if mean > 1e-6:  # else the difference is rounding
        assert hill(sizes, k) == pytest.approx(1 / mean, rel=1e-8, abs=0)


@pytest.mark.parametrize("mu", [0.5, 1.0, 1.7, 3.0])
def test_hill_of_a_pareto_sample(mu: float) -> None:
    # of an exact Pareto sample the estimate has relative error 1/√k, whatever k
    signed = (np.random.default_rng(5).pareto(mu, 40_000) + 1) * np.random.default_rng(6).choice([-1, 1], 40_000)
    for k in (400, 10_000, 39_999):
        assert hill(signed, k) == pytest.approx(mu, rel=3 / math.sqrt(k))
    assert hill(torch.from_numpy(signed).reshape(200, 200), 400) == hill(signed, 400)


def test_hill_of_cauchy_entries_is_one() -> None:
    k = 2000  # of 400,000: the tail is a power law to relative 1e-4 here
    assert hill(np.random.default_rng(0).standard_cauchy(400_000), k) == pytest.approx(1, rel=3 / math.sqrt(k))


def test_hill_at_the_edges() -> None:
    assert hill([2.0, 2.0, 2.0, 1.0], 2) == math.inf
    assert hill([1e-300, 1e300], 1) == pytest.approx(1 / (600 * math.log(10)), rel=1e-12)
    assert hill([0.0, 0.0, 1.0, math.e], 1) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("k", [0, -1, 5, 6])
def test_hill_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} is out of range.*< 5"):
        hill([1.0, 2.0, 3.0, 4.0, 5.0], k)


@pytest.mark.parametrize(
    ("values", "bad"), [([0.0, 0.0, 1.0], "0.0"), ([1.0, 2.0, math.nan], "nan"), ([1.0, 2.0, -math.inf], "inf")]
)
def test_hill_of_bad_values(values: list[float], bad: str) -> None:
    with pytest.raises(ValueError, match="positive and finite") as error:
        hill(values, 1)
    assert bad in str(error.value)


# -- goodness of fit -----------------------------------------------------------------------------------------


def bootstrapped(values: Floats, seed: int = 0, resamples: int = 100, fit: PowerLawFit | None = None) -> float:
    generator = torch.Generator().manual_seed(seed)
    p = power_law_p_value(values, fit, resamples=resamples, generator=generator)
    assert p is not None
    return p


@pytest.mark.slow
def test_p_values_of_power_laws_are_uniform() -> None:
    rng = np.random.default_rng(20)
    p = [bootstrapped(rng.pareto(rng.uniform(0.5, 3), 150) + 1, seed) for seed in range(120)]
    # each is one of 0, 0.01, …, 1: to make them continuous, spread them over their steps
    assert kstest(np.array(p) * 100 / 101 + rng.random(120) / 101, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.1) < 0.2


@pytest.mark.slow
def test_p_values_of_a_power_law_above_other_values() -> None:
    # half of the sample lies below the tail and is drawn again as it is
    rng = np.random.default_rng(21)
    p = []
    for seed in range(60):
        tail = rng.pareto(1.5, 100) + 1
        p.append(bootstrapped(np.concatenate([rng.uniform(0.4, 1, 100), tail]), seed))
    assert kstest(p, "uniform").pvalue > 1e-3


def test_p_value_of_what_is_no_power_law() -> None:
    rng = np.random.default_rng(22)
    exponential = 1 + rng.exponential(size=1000)
    tail = np.sort(exponential)
    alpha = 1 + 1000 / np.log(tail / tail[0]).sum()
    distance = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(1000) / 1000).max()
    whole = PowerLawFit(
        alpha, float(tail[0]), distance, 1000, (alpha - 1) / 1000**0.5, 1000, fit_power_law(tail).status
    )
    assert bootstrapped(exponential, fit=whole) == 0
    # left to choose, it begins far out, where few values remain to speak against it
    free = fit_power_law(exponential)
    assert free.n_tail < 500
    assert bootstrapped(exponential, fit=free) == bootstrapped(exponential)
    assert bootstrapped(rng.pareto(1.5, 1000) + 1) > 0.05


def test_p_value_by_the_definition() -> None:
    # the share of resamples whose own fit is at least as far from its law, drawn here anew
    rng = np.random.default_rng(23)
    values = np.concatenate([rng.uniform(0.3, 1, 40), rng.pareto(2.0, 60) + 1])
    fit = fit_power_law(values)
    below, further, resamples = np.sort(values)[: -fit.n_tail], 0, 600
    for _ in range(resamples):
        in_tail = rng.random(values.size) < fit.n_tail / values.size
        drawn = fit.xmin * rng.random(values.size) ** (-1 / (fit.alpha - 1))
        resample = np.where(in_tail, drawn, rng.choice(below, values.size))
        further += fit_power_law(resample).ks_distance >= fit.ks_distance
    expected = further / resamples
    deviation = math.sqrt(2 * max(expected * (1 - expected), 0.01) / resamples)
    assert bootstrapped(values, resamples=resamples) == pytest.approx(expected, abs=4 * deviation)


def test_p_value_is_seeded() -> None:
    values = np.random.default_rng(24).lognormal(size=80)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    default = power_law_p_value(values, resamples=50)
    assert default == bootstrapped(values, 0, 50)
    assert len({bootstrapped(values, seed, 50) for seed in (3, 3, 3)}) == 1
    assert len({bootstrapped(values, seed, 50) for seed in range(12)}) > 1
    assert torch.equal(torch.get_rng_state(), state)
    assert power_law_p_value(values * 2.0**300, resamples=50) == default
    assert power_law_p_value(torch.from_numpy(values), fit_power_law(values), resamples=50) == default
    assert type(default) is float


@pytest.mark.parametrize(
    "sample",
    [
        np.concatenate([np.ones(40), [1.1, 1.2, 3, 1e9]]),  # resamples of which nearly none is in the tail
        np.concatenate([np.ones(17), [2.0, 3.0, 4.0]]),
        10.0 ** np.linspace(-150, 150, 60),  # draws beyond all floats
        10.0 ** np.linspace(-300, 300, 30),
        np.random.default_rng(0).integers(1, 4, 60).astype(float),
        1 + 1e-9 * np.arange(1.0, 40),
    ],
)
def test_p_value_of_odd_samples(sample: Floats) -> None:
    assert 0 <= bootstrapped(sample, resamples=300) <= 1


def test_without_a_power_law_there_is_no_p_value() -> None:
    assert power_law_p_value(np.arange(1.0, 15)) is None
    assert power_law_p_value(np.full(40, 2.0)) is None


def test_p_value_of_bad_input() -> None:
    for resamples in (0, -1):
        with pytest.raises(ValueError, match=f"resamples={resamples}"):
            power_law_p_value(np.arange(1.0, 50), resamples=resamples)
    with pytest.raises(AnalysisError, match="1 of 50 values"):
        power_law_p_value([*np.arange(1.0, 50), math.nan])
