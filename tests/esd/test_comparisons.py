import math
import warnings
from collections.abc import Callable

import numpy as np
import powerlaw
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp
from scipy.integrate import quad
from scipy.optimize import brentq, minimize
from scipy.special import erfc, log_ndtr
from scipy.stats import chi2, expon, truncnorm

from fpstab.esd import PowerLawFit, TailComparison, TailComparisons, compare_tails, fit_power_law
from fpstab.esd.comparisons import against_exponential
from fpstab.results import OK, AnalysisError
from tests.esd.matrices import Floats, squares

FAMILIES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "gaussian_spectrum": lambda rng, n: squares(rng.standard_normal((n, n + n // 4))),
    "cauchy_spectrum": lambda rng, n: squares(rng.standard_cauchy((n, n))),
    "pareto": lambda rng, n: rng.pareto(rng.uniform(0.3, 4), n) + 1,
    "lognormal": lambda rng, n: rng.lognormal(0, rng.uniform(0.1, 3), n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "uniform": lambda rng, n: rng.uniform(1, rng.uniform(1.1, 5), n),
    "wide": lambda rng, n: 10 ** rng.uniform(0, 12, n),
    "integers": lambda rng, n: rng.integers(1, 30, n).astype(float),
}


def tail_of(values: Floats, n_tail: int) -> PowerLawFit:
    """The power law of the largest values, wherever its distance is smallest."""
    tail = np.sort(values)[-n_tail:]
    alpha = float(1 + n_tail / np.log(tail / tail[0]).sum())
    return PowerLawFit(alpha, float(tail[0]), 0.1, n_tail, (alpha - 1) / n_tail**0.5, values.size, OK)


def samples(family: str, count: int) -> list[tuple[Floats, PowerLawFit]]:
    drawn = []
    for seed in range(count):
        rng = np.random.default_rng([seed, *family.encode()])
        values = FAMILIES[family](rng, int(rng.integers(30, 200)))
        drawn += [(values, fit_power_law(values)), (values, tail_of(values, 12))]
    return drawn


def all_of(comparisons: TailComparisons) -> tuple[TailComparison, TailComparison, TailComparison]:
    assert comparisons.status.ok
    assert comparisons.exponential is not None
    assert comparisons.lognormal is not None
    assert comparisons.truncated_power_law is not None
    return comparisons.exponential, comparisons.lognormal, comparisons.truncated_power_law


# -- likelihoods, written down once more: densities in λ, by SciPy and by quadrature in thirty digits ----------


def log_power_law(tail: Floats, fit: PowerLawFit) -> Floats:
    assert fit.alpha is not None
    assert fit.xmin is not None
    return math.log((fit.alpha - 1) / fit.xmin) - fit.alpha * np.log(tail / fit.xmin)


def log_lognormal(tail: Floats, fit: PowerLawFit, mu: float, sigma: float) -> Floats:
    assert fit.xmin is not None
    law = truncnorm((math.log(fit.xmin) - mu) / sigma, np.inf, loc=mu, scale=sigma)
    return np.asarray(law.logpdf(np.log(tail)) - np.log(tail))


def truncated_moments(alpha: float, rate: float) -> tuple[float, float, float]:
    """ln of ∫ x^(−α) exp(−r(x − 1)) dx beyond 1, and the means of ln x and of x − 1 there."""
    with mp.workdps(30):
        a, r = mp.mpf(alpha) - 1, mp.mpf(rate)
        peak = mp.log(-a / r) if -a > r else mp.mpf(0)
        width = 1 / mp.sqrt(-a) if -a > r else 1 / (a + r)
        end = peak + mp.log1p(150 * (1 + abs(a)) / r)

        def density(y: mp.mpf) -> mp.mpf:
            return mp.exp(-a * (y - peak) - r * (mp.exp(y) - mp.exp(peak)))

        points = [mp.mpf(0), *(peak - width * 2**k for k in range(8, -3, -1) if width * 2**k < peak)]
        points += [
            *([peak] if peak else []),
            *(peak + width * 2**k for k in range(-2, 60) if width * 2**k < end - peak),
        ]
        integrals = [
            mp.quad(lambda y, f=f: f(y) * density(y), [*points, end]) for f in (lambda y: 1, lambda y: y, mp.expm1)
        ]
        log_mass = mp.log(integrals[0]) - a * peak - r * mp.expm1(peak)
        return float(log_mass), *(float(each / integrals[0]) for each in integrals[1:])


@pytest.mark.parametrize("family", FAMILIES)
def test_exponential(family: str) -> None:
    for values, fit in samples(family, 6):
        exponential = all_of(compare_tails(values, fit))[0]
        tail = np.sort(values)[-fit.n_tail :]
        law = expon(fit.xmin, (tail - fit.xmin).mean())
        differences = log_power_law(tail, fit) - law.logpdf(tail)
        assert exponential.alternative == "exponential"
        assert exponential.log_likelihood_ratio == pytest.approx(differences.sum(), rel=1e-9, abs=1e-8)
        assert exponential.parameters == {"rate": pytest.approx(1 / law.kwds.get("scale", law.args[1]), rel=1e-12)}
        vuong = erfc(abs(differences.sum()) / math.sqrt(2 * differences.size * differences.var()))
        assert exponential.p_value == pytest.approx(vuong, rel=1e-6)
        assert not exponential.at_edge


@pytest.mark.parametrize("family", FAMILIES)
def test_lognormal(family: str) -> None:
    inside = 0
    for values, fit in samples(family, 6):
        lognormal = all_of(compare_tails(values, fit))[1]
        tail = np.sort(values)[-fit.n_tail :]
        logs = np.log(tail / fit.xmin)
        assert lognormal.at_edge == ((logs**2).mean() >= 2 * logs.mean() ** 2 * (1 - 1e-7))
        if lognormal.at_edge:
            continue
        inside += 1
        mu, sigma = (lognormal.parameters[key] for key in ("mu", "sigma"))
        differences = log_power_law(tail, fit) - log_lognormal(tail, fit, mu, sigma)
        ratio = lognormal.log_likelihood_ratio
        assert ratio == pytest.approx(differences.sum(), rel=1e-7, abs=1e-8)
        vuong = erfc(abs(differences.sum()) / math.sqrt(2 * differences.size * differences.var()))
        assert lognormal.p_value == pytest.approx(vuong, rel=1e-5)
        # no other pair is likelier, however it is searched for: in standard units, which keep it well scaled
        unit = np.log(tail / fit.xmin) / logs.mean()

        def negative(theta: Floats, unit: Floats = unit) -> float:
            z = (unit - theta[0]) * math.exp(-theta[1])
            return float((z * z).mean() / 2 + theta[1] + log_ndtr(theta[0] * math.exp(-theta[1])))

        start = np.array([(mu - math.log(fit.xmin)) / logs.mean(), math.log(sigma / logs.mean())])
        for shift in ((0, 0), (-0.3, 0.1), (0.2, -0.1)):
            options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 2000}
            best = minimize(negative, start + shift, method="Nelder-Mead", options=options)
            assert -negative(start) >= -best.fun - 1e-10
    assert inside >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_power_law(family: str) -> None:
    inside = 0
    for values, fit in samples(family, 4):
        truncated = all_of(compare_tails(values, fit))[2]
        tail = np.sort(values)[-fit.n_tail :]
        x = tail / fit.xmin
        assert fit.alpha is not None
        assert fit.xmin is not None
        heavier = fit.alpha > 2 and (x - 1).mean() >= 1 / (fit.alpha - 2)
        assert truncated.at_edge == heavier
        if heavier:
            continue
        inside += 1
        alpha, rate = truncated.parameters["alpha"], truncated.parameters["rate"] * fit.xmin
        log_mass, mean_log, mean_excess = truncated_moments(alpha, rate)
        likelihood = (-alpha * np.log(x) - rate * (x - 1)).sum() - x.size * (log_mass + math.log(fit.xmin))
        ratio = log_power_law(tail, fit).sum() - likelihood
        assert truncated.log_likelihood_ratio == pytest.approx(ratio, rel=1e-8, abs=1e-8)
        assert truncated.log_likelihood_ratio <= 1e-9
        assert truncated.p_value == pytest.approx(chi2.sf(-2 * truncated.log_likelihood_ratio, 1), rel=1e-5, abs=1e-12)
        # an exponential family is likeliest where it has the sample's means, and nowhere else
        assert mean_log == pytest.approx(np.log(x).mean(), rel=1e-6)
        if truncated.log_likelihood_ratio < -1e-6:
            assert mean_excess == pytest.approx((x - 1).mean(), rel=1e-4)
    assert inside >= 2


def test_truncated_power_law_by_another_optimiser() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.exponential(size=200), 10 ** rng.uniform(0, 4, 100), squares(rng.standard_cauchy((60, 60)))):
        fit = fit_power_law(values)
        x = np.sort(values)[-fit.n_tail :] / fit.xmin
        log_x, excess = np.log(x).mean(), (x - 1).mean()

        def negative(theta: Floats, log_x: float = log_x, excess: float = excess) -> float:
            a, r = theta[0], math.exp(theta[1])
            mass, _ = quad(
                lambda y: math.exp(-a * y - r * math.expm1(y)), 0, math.log1p(60 / r), epsabs=0, epsrel=1e-12
            )
            return a * log_x + r * excess + math.log(mass)

        options = {"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000}
        start = [fit.alpha - 1, -math.log(excess)]
        best = minimize(negative, start, method="Nelder-Mead", options=options)
        best = minimize(negative, best.x, method="Nelder-Mead", options=options)
        truncated = all_of(compare_tails(values))[2]
        power_law = math.log(fit.alpha - 1) - (fit.alpha - 1) * log_x
        assert truncated.log_likelihood_ratio == pytest.approx(x.size * (power_law + best.fun), rel=1e-8, abs=1e-8)
        assert truncated.parameters["alpha"] - 1 == pytest.approx(best.x[0], rel=1e-4, abs=1e-4)
        assert truncated.parameters["rate"] * fit.xmin == pytest.approx(math.exp(best.x[1]), rel=1e-3)


# -- the package powerlaw ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian_spectrum", "cauchy_spectrum", "lognormal", "exponential", "uniform"])
def test_as_powerlaw(family: str) -> None:
    agreed = {"exponential": 0, "lognormal": 0, "truncated_power_law": 0}
    for seed in range(3):
        rng = np.random.default_rng([seed, 3, *family.encode()])
        values = FAMILIES[family](rng, 120)
        fit = tail_of(values, 60)
        ours = all_of(compare_tails(values, fit))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = powerlaw.Fit(values, xmin=fit.xmin, verbose=0, parameter_ranges={"alpha": [1, None]})
            assert theirs.power_law.alpha == pytest.approx(fit.alpha, rel=1e-6)
            for comparison in ours:
                name = comparison.alternative
                ratio, p = theirs.distribution_compare("power_law", name)
                # theirs may stop early, or at its bounds; it is never likelier
                assert comparison.log_likelihood_ratio <= ratio + 1e-6 * max(1, abs(ratio))
                if ratio == pytest.approx(comparison.log_likelihood_ratio, rel=1e-6, abs=1e-6):
                    agreed[name] += 1
                    # Vuong's variance, unlike the likelihood, feels the last digits of their parameters
                    assert math.log(comparison.p_value) == pytest.approx(math.log(p), rel=1e-2, abs=1e-3)
            tail = np.sort(values)[-60:]
            for comparison, density in (
                (ours[0], expon.logpdf(tail, fit.xmin, 1 / ours[0].parameters["rate"])),
                (ours[1], log_lognormal(tail, fit, **ours[1].parameters)),
            ):
                ratio, p = powerlaw.loglikelihood_ratio(log_power_law(tail, fit), density, normalized_ratio=False)
                assert comparison.log_likelihood_ratio == pytest.approx(ratio, rel=1e-6, abs=1e-8)
                assert comparison.p_value == pytest.approx(p, rel=1e-6)
    assert agreed["exponential"] >= 2
    assert agreed["lognormal"] == 3
    # the others have exponents below 1, which are out of their range here
    assert agreed["truncated_power_law"] == (3 if family in ("cauchy_spectrum", "lognormal") else 0)


# -- edges ---------------------------------------------------------------------------------------------------


def assert_edge(comparison: TailComparison) -> None:
    assert comparison.at_edge
    assert (comparison.log_likelihood_ratio, comparison.p_value) == (0, 1)


def test_a_lognormal_law_is_at_most_as_dispersed_as_a_power_law() -> None:
    # logarithms with E y² = 2 (E y)², as the exponential law has: the best normal law is an exponential one
    logs = np.concatenate([[0.0], np.full(10, 1.0), [10.0 + math.sqrt(120)]])
    assert (logs**2).mean() / logs.mean() ** 2 > 2
    for top in (logs[-1], logs[-1] * 2):
        logs[-1] = top
        values = np.exp(logs)
        assert_edge(all_of(compare_tails(values, tail_of(values, 12)))[1])
    logs[-1] = 3.0
    assert not all_of(compare_tails(np.exp(logs), tail_of(np.exp(logs), 12)))[1].at_edge


def test_an_exactly_exponential_sample_of_logarithms() -> None:
    # two points of weights 1 and 2 have E y² = 2 (E y)² when … 1/3 y² = 2/9 y²: never; three points at 0, 1, t do
    weights = np.array([30, 60, 10])
    t = max(np.roots([weights[2] / 100 - 2 * (weights[2] / 100) ** 2, -4 * 0.6 * 0.1, 0.6 - 2 * 0.36]).real)
    logs = np.repeat([0.0, 1.0, t], weights)
    assert (logs**2).mean() == pytest.approx(2 * logs.mean() ** 2, rel=1e-12)
    for nudge in (-1e-9, 0, 1e-9):
        values = np.exp(np.repeat([0.0, 1.0, t * (1 + nudge)], weights))
        assert_edge(all_of(compare_tails(values, tail_of(values, 100)))[1])
    values = np.exp(np.repeat([0.0, 1.0, t * 0.999], weights))
    lognormal = all_of(compare_tails(values, tail_of(values, 100)))[1]
    assert not lognormal.at_edge
    assert -1e-3 < lognormal.log_likelihood_ratio < 0
    assert lognormal.p_value > 0.5


def test_a_tail_heavier_than_its_power_law_needs_no_cut_off() -> None:
    values = np.concatenate([np.linspace(1, 1.3, 60), [1e9]])
    _, lognormal, truncated = all_of(compare_tails(values, tail_of(values, 61)))
    fit = tail_of(values, 61)
    assert fit.alpha is not None
    assert fit.alpha > 2
    assert_edge(truncated)
    assert truncated.parameters == {"alpha": fit.alpha, "rate": 0.0}
    assert_edge(lognormal)
    assert lognormal.parameters == {"mu": -math.inf, "sigma": math.inf}


def test_beside_the_edge() -> None:
    # the mean excess of the power law itself is 1/(α − 2): just below, the cut-off is far away and its ratio ≈ 0
    x = ((np.arange(500) + 0.5) / 500) ** (-1 / 3.0)
    x = np.sort(x) / x.min()
    fit = tail_of(x, 500)
    assert fit.alpha is not None
    middle = math.sqrt(x[-2] * x[-1])

    def moved(factor: float) -> Floats:
        """A factor between the two largest leaves Σ ln λ alone and moves Σ λ."""
        return np.sort(np.concatenate([x[:-2], [middle / factor, middle * factor]]))

    least, limit = (moved(1) - 1).mean(), 1 / (fit.alpha - 2)
    assert least < limit
    ratios = []
    for share in (0.01, 0.5, 0.9, 0.999, 0.99999, 1.001):
        wanted = least + share * (limit - least)
        sample = moved(brentq(lambda f, wanted=wanted: (moved(f) - 1).mean() - wanted, 1, middle))
        truncated = all_of(compare_tails(sample, tail_of(sample, 500)))[2]
        ratios.append(truncated.log_likelihood_ratio)
        assert truncated.at_edge == (share > 1)
        assert truncated.parameters["rate"] > 0 or truncated.at_edge
    # the ratio falls off as the square of what is missing
    assert ratios == sorted(ratios)
    assert ratios[0] < -1e-3
    assert ratios[1] / ratios[0] == pytest.approx(0.25, abs=0.1)
    assert ratios[3] > -1e-5
    assert ratios[-1] == 0


@settings(max_examples=150, deadline=None)
@given(
    logs=st.one_of(
        st.lists(st.floats(0, 27.6), min_size=3, max_size=60, unique=True),
        st.lists(st.floats(0, 1e-3), min_size=3, max_size=60, unique=True),
        st.lists(st.sampled_from([0.0, 1e-6, 1.0, 27.6]), min_size=3, max_size=60),
    ),
    scale=st.floats(-200, 200),
)
def test_no_tail_is_too_extreme(logs: list[float], scale: float) -> None:
    values = np.exp(np.sort(logs)) * math.exp(scale)
    if values[-1] / values[0] - 1 < 1e-9:
        return
    for fit in (tail_of(values, values.size), *([tail_of(values, 3)] if values[-1] > values[-3] * (1 + 1e-9) else [])):
        for comparison in all_of(compare_tails(values, fit)):
            assert math.isfinite(comparison.log_likelihood_ratio)
            assert 0 <= comparison.p_value <= 1
            assert not any(map(math.isnan, comparison.parameters.values()))
        _, _, truncated = all_of(compare_tails(values, fit))
        assert truncated.log_likelihood_ratio <= 1e-7 * values.size
        # the cut-off reaches at least the exponential law, which it contains, with exponent 0
        exponential = all_of(compare_tails(values, fit))[0].log_likelihood_ratio
        assert truncated.log_likelihood_ratio <= exponential + 1e-6 * max(1, abs(exponential))


@pytest.mark.parametrize("alpha", [1.03, 1.3, 2.0, 60.0, 5e4])
def test_extreme_exponents(alpha: float) -> None:
    values = ((np.arange(100) + 0.5) / 100) ** (-1 / (alpha - 1))
    fit = tail_of(values, 100)
    exponential, lognormal, truncated = all_of(compare_tails(values, fit))
    logs = np.log(values / values.min())
    # all depend on the logarithms alone; the lognormal not even on their unit
    reference = np.exp(logs * (alpha - 1))
    same = all_of(compare_tails(reference, tail_of(reference, 100)))[1]
    assert lognormal.log_likelihood_ratio == pytest.approx(same.log_likelihood_ratio, rel=1e-6)
    assert truncated.log_likelihood_ratio <= 0
    assert (exponential.log_likelihood_ratio > 0) == (alpha < 10)


def test_tails_of_three_values() -> None:
    for top in (1.5, 2.0, 1e3, 1e12):
        values = np.array([1.0, 1.2, top])
        for comparison in all_of(compare_tails(values, tail_of(values, 3))):
            assert math.isfinite(comparison.log_likelihood_ratio)
            assert comparison.p_value > 0.01


def test_a_range_wider_than_that_of_a_quotient() -> None:
    values = 10.0 ** np.linspace(-300, 300, 60)
    for comparison in all_of(compare_tails(values)):
        assert math.isfinite(comparison.log_likelihood_ratio)
    assert all_of(compare_tails(values))[0].p_value < 0.05


# -- what they mean ------------------------------------------------------------------------------------------


def test_which_law_is_the_likelier() -> None:
    rng = np.random.default_rng(1)
    heavy = all_of(compare_tails(rng.pareto(1.5, 2000) + 1))
    assert heavy[0].log_likelihood_ratio > 0
    assert heavy[0].p_value < 1e-4
    light = 1 + rng.exponential(size=2000)
    against = all_of(compare_tails(light, tail_of(light, 2000)))
    assert [each.log_likelihood_ratio < 0 for each in against] == [True] * 3
    assert [each.p_value < 1e-4 for each in against] == [True] * 3
    assert against[2].parameters["alpha"] == pytest.approx(0, abs=1)
    assert against[2].parameters["rate"] == pytest.approx(1, abs=0.1)
    logs = rng.normal(3, 0.5, 2000)
    lognormal = all_of(compare_tails(np.exp(logs), tail_of(np.exp(logs), 1900)))[1]
    assert lognormal.parameters["mu"] == pytest.approx(3, abs=0.05)
    assert lognormal.parameters["sigma"] == pytest.approx(0.5, abs=0.05)
    assert lognormal.log_likelihood_ratio < -100


@pytest.mark.slow
def test_the_likelihood_ratio_test_has_its_level() -> None:
    # under a power law, twice the ratio is 0 half of the time and else χ² with one degree of freedom (Self and Liang)
    rng = np.random.default_rng(12)
    truncated = []
    for _ in range(600):
        values = rng.pareto(8.0, 1000) + 1
        truncated.append(all_of(compare_tails(values, tail_of(values, 1000)))[2])
    assert sum(each.at_edge for each in truncated) / 600 == pytest.approx(0.5, abs=0.08)
    assert sum(each.p_value < 0.1 for each in truncated) / 600 == pytest.approx(0.05, abs=0.03)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), exponent=st.integers(-800, 800), family=st.sampled_from(list(FAMILIES)))
def test_scale_and_order(seed: int, exponent: int, family: str) -> None:
    rng = np.random.default_rng(seed)
    values = FAMILIES[family](rng, 60)
    moved = np.ldexp(rng.permutation(values), exponent)
    for one, other in zip(all_of(compare_tails(values)), all_of(compare_tails(moved)), strict=True):
        assert (one.log_likelihood_ratio, one.p_value) == (other.log_likelihood_ratio, other.p_value)
        if "rate" in one.parameters:
            assert other.parameters["rate"] == math.ldexp(one.parameters["rate"], -exponent)


def test_scalars_and_inputs() -> None:
    values = np.random.default_rng(0).pareto(2, 50) + 1
    comparisons = compare_tails(values)
    names = ("exponential", "lognormal", "truncated_power_law")
    expected = {f"{name}/{what}" for name in names for what in ("ratio", "p")}
    scalars = comparisons.scalars()
    assert scalars.keys() == expected
    for comparison in all_of(comparisons):
        assert scalars[f"{comparison.alternative}/ratio"] == comparison.log_likelihood_ratio
        assert scalars[f"{comparison.alternative}/p"] == comparison.p_value
    assert {type(value) for value in scalars.values()} == {float}
    for same in (torch.from_numpy(values), list(values), values[::-1]):
        assert compare_tails(same).scalars() == scalars
    assert compare_tails(values, fit_power_law(values)).scalars() == scalars
    tail = np.sort(values)[-fit_power_law(values).n_tail :]
    assert against_exponential(tail, fit_power_law(values)).p_value == scalars["exponential/p"]


@pytest.mark.parametrize(("values", "code"), [(np.arange(1.0, 15), "too_few"), (np.full(40, 2.0), "constant")])
def test_without_a_power_law(values: Floats, code: str) -> None:
    comparisons = compare_tails(values)
    assert comparisons.status.code == code
    assert (comparisons.exponential, comparisons.lognormal, comparisons.truncated_power_law) == (None,) * 3
    assert comparisons.scalars() == {}


def test_bad_values() -> None:
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(AnalysisError, match="1 of 40 values"):
            compare_tails([*np.arange(1.0, 40), bad])
    with pytest.raises(ValueError, match="one-dimensional"):
        compare_tails(np.ones((5, 5)))
