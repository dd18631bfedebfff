import math
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import ks_1samp

from fpstab.esd import MarchenkoPastur, MarchenkoPasturFit, fit_marchenko_pastur
from fpstab.esd.bulk import tracy_widom_edge
from fpstab.results import AnalysisError
from tests.esd.matrices import Floats, orthonormal, rate_at_most, spiked, squares, wishart

RATIOS = [1.0, 0.999, 0.5, 0.1, 0.01, 0.001, 1e-6]


# -- the law -------------------------------------------------------------------------------------------------


def integral(ratio: float, variance: float, top: float = math.inf, power: int = 0) -> float:
    """∫ xᵏ √((b − x)(x − a))/(2π q σ² x) dx up to `top`, with x = a + (b − a) sin² φ, in which nothing is singular."""
    a = (1 - math.sqrt(ratio)) ** 2
    width = 4 * math.sqrt(ratio)

    def integrand(phi: float) -> float:
        s, c = math.sin(phi), math.cos(phi)
        x = a + width * s * s
        over_x = 1 / width if x == 0 else s * s / x  # the limit, at ratio 1
        return width * width * c * c * over_x * x**power / (math.pi * ratio)

    angle = math.asin(math.sqrt(min(max((top / variance - a) / width, 0), 1)))
    return variance**power * float(quad(integrand, 0, angle, epsabs=1e-11, epsrel=1e-11)[0])


@pytest.mark.parametrize("variance", [1.0, 0.04, 3e7])
@pytest.mark.parametrize("ratio", RATIOS)
def test_distribution_is_the_integral_of_the_density(ratio: float, variance: float) -> None:
    law = MarchenkoPastur(ratio, variance)
    x = law.lower + (law.upper - law.lower) * np.concatenate([np.linspace(0, 1, 41), np.geomspace(1e-9, 0.1, 20)])
    np.testing.assert_allclose(law.cdf(x), [integral(ratio, variance, point) for point in x], rtol=0, atol=1e-8)
    assert law.cdf(law.upper) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
def test_moments(ratio: float) -> None:
    # E xᵏ = σ²ᵏ Σ_r qʳ/(r + 1) C(k, r) C(k − 1, r), Narayana's polynomial
    law = MarchenkoPastur(ratio, 1.7)
    a, b = law.lower, law.upper
    for k in range(1, 7):
        exact = 1.7**k * sum(ratio**r / (r + 1) * comb(k, r) * comb(k - 1, r) for r in range(k))
        assert integral(ratio, 1.7, power=k) == pytest.approx(exact, rel=1e-8)

        def by_density(theta: float, k: int = k) -> float:
            x = (a + b) / 2 - (b - a) / 2 * math.cos(theta)
            return x**k * float(law.density(x)) * (b - a) / 2 * math.sin(theta)

        def by_distribution(theta: float, k: int = k) -> float:
            x = (a + b) / 2 - (b - a) / 2 * math.cos(theta)
            return k * x ** (k - 1) * float(law.cdf(x)) * (b - a) / 2 * math.sin(theta)

        options = {"epsabs": 1e-12, "epsrel": 1e-12, "limit": 200}
        assert quad(by_density, 0, math.pi, **options)[0] == pytest.approx(exact, rel=1e-8)
        assert b**k - quad(by_distribution, 0, math.pi, **options)[0] == pytest.approx(exact, rel=1e-8)


@settings(max_examples=80, deadline=None)
@given(
    ratio=st.floats(1e-9, 1),
    variance=st.floats(1e-100, 1e100),
    points=st.lists(st.floats(-1, 7), min_size=1, max_size=20),
)
def test_it_is_a_distribution(ratio: float, variance: float, points: list[float]) -> None:
    law = MarchenkoPastur(ratio, variance)
    x = np.sort(points) * variance
    cdf, density = law.cdf(x), law.density(x)
    assert cdf.shape == density.shape == x.shape
    assert (np.diff(cdf) >= -1e-9).all()
    assert (cdf[x <= law.lower] <= 1e-9).all()
    assert (cdf[x >= law.upper] >= 1 - 1e-9).all()
    assert (density[(x < law.lower) | (x > law.upper)] == 0).all()
    middle = np.sqrt(law.lower * law.upper) if law.lower > 0 else law.upper / 2
    assert float(law.density(middle)) > 0


def test_shapes_of_points() -> None:
    law = MarchenkoPastur(0.5, 2.0)
    grid = np.linspace(0, 7, 12).reshape(3, 4)
    for function in (law.cdf, law.density):
        assert function(grid).shape == (3, 4)
        assert function(1.5).shape == ()
        assert function([1, 2]).tolist() == [float(function(1)), float(function(2))]
    assert (float(law.density(0)), float(MarchenkoPastur(1.0, 1.0).density(0.0))) == (0, 0)
    assert float(MarchenkoPastur(1.0, 1.0).cdf(0.0)) == 0


# -- the edge ------------------------------------------------------------------------------------------------


def test_quantiles_of_the_tracy_widom_law() -> None:
    # of a huge matrix, centred and scaled; the table is Bejan's (2005) of the law for β = 1
    side = 10**8
    centre, width = 4 * side - 2, (4 * side) ** 0.5 * (2 / side**0.5) ** (1 / 3)
    for level, quantile in {0.5: -1.2686, 0.9: 0.4501, 0.95: 0.9793, 0.99: 2.0234, 0.999: 3.2724}.items():
        assert (tracy_widom_edge((side, side), level) - centre) / width == pytest.approx(quantile, abs=0.03)
    assert (tracy_widom_edge((side, side)) - centre) / width == pytest.approx(2.0234, abs=0.011)


def test_the_bidiagonal_model() -> None:
    # that what follows draws from is the spectrum of a Gaussian matrix
    rng = np.random.default_rng(11)
    draws = np.array([wishart(rng, (4, 6)) for _ in range(4000)])
    dense = np.array([squares(rng.standard_normal((6, 4))) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(0), dense.mean(0), rtol=0.05)
    np.testing.assert_allclose(draws.std(0), dense.std(0), rtol=0.08)
    state = rng.bit_generator.state
    whole = wishart(rng, (30, 20))
    rng.bit_generator.state = state
    assert wishart(rng, (20, 30), largest=True) == pytest.approx(whole[-1], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20, 20), (20, 500), (50, 50), (120, 100), (300, 300), (100, 2000)])
def test_one_in_a_hundred_largest_eigenvalues_is_beyond_the_edge(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    edge, n = tracy_widom_edge(shape), 6000
    beyond = sum(wishart(rng, shape, largest=True)[0] > edge for _ in range(n))
    # the standard deviation is .0013; the finite size takes or adds some tenth of a per cent
    assert 0.006 < beyond / n < 0.014


# -- the fit -------------------------------------------------------------------------------------------------


def fitted(values: Floats, shape: tuple[int, int], **options: int) -> MarchenkoPasturFit:
    fit = fit_marchenko_pastur(values, shape, **options)
    assert fit.status.ok
    return fit


@pytest.mark.parametrize("variance", [1.0, 1e-4, 9e12])
@pytest.mark.parametrize("shape", [(40, 40), (60, 200), (300, 100), (250, 250)])
def test_variance_of_the_entries(shape: tuple[int, int], variance: float) -> None:
    rng = np.random.default_rng([*shape, 1])
    # the standard deviation of the mean of p·n squared Gaussian entries
    tolerance = 4 * math.sqrt(2 / math.prod(shape))
    for _ in range(5):
        fit = fitted(squares(math.sqrt(variance) * rng.standard_normal(shape)), shape)
        assert fit.variance == pytest.approx(variance, rel=tolerance)
        k = rng.integers(1, 7)
        fit = fitted(variance * squares(spiked(rng, shape, rng.uniform(2, 30, k))), shape)
        assert fit.n_spikes == k
        assert fit.variance == pytest.approx(variance, rel=2 * tolerance)  # of k rows and columns less


def test_its_numbers() -> None:
    shape, rng = (60, 90), np.random.default_rng(2)
    values = squares(spiked(rng, shape, np.array([2.0, 5.0])))
    fit = fitted(values, shape)
    bulk = values[:-2]
    np.testing.assert_allclose(fit.spikes, values[-2:], rtol=1e-14)
    assert (fit.spikes.dtype, fit.spikes.device.type) == (torch.float64, "cpu")
    # two spikes take a row and a column each
    assert fit.variance == pytest.approx(bulk.mean() / 88, rel=1e-12)
    assert fit.law is not None
    assert fit.law.ratio == pytest.approx(58 / 88, rel=1e-15)
    for edge, sign in ((fit.bulk_lower, -1), (fit.bulk_upper, 1)):
        assert edge == pytest.approx(fit.variance * (math.sqrt(88) + sign * math.sqrt(58)) ** 2, rel=1e-12)
    assert fit.spike_edge == pytest.approx(fit.variance * tracy_widom_edge((58, 88)), rel=1e-12)
    distance = ks_1samp(bulk / 88, lambda x: np.array([integral(58 / 88, fit.variance or 0, point) for point in x]))
    assert fit.n_ks == pytest.approx(58 * distance.statistic, rel=1e-8)
    assert fit.n_ks_threshold == pytest.approx(1.7 + 0.4 * math.log(58), rel=1e-15)
    assert fit.is_bulk


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    spikes=st.lists(st.floats(1.5, 1e3), max_size=6),
    exponent=st.integers(-900, 900),
    seed=st.integers(0, 999),
)
def test_scale_transpose_and_order(shape: tuple[int, int], spikes: list[float], exponent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = squares(spiked(rng, shape, np.array(spikes)))
    fit = fitted(values, shape)
    moved = fitted(np.ldexp(rng.permutation(values), exponent), shape[::-1])
    assert (moved.n_ks, moved.n_spikes, moved.n_ks_threshold) == (fit.n_ks, fit.n_spikes, fit.n_ks_threshold)
    pairs = [(getattr(each, name) for each in (moved, fit)) for name in ("variance", "bulk_upper", "spike_edge")]
    assert all(one == math.ldexp(other, exponent) for one, other in pairs)
    assert moved.spikes.tolist() == [math.ldexp(value, exponent) for value in fit.spikes.tolist()]
    # and what is a spike lies beyond the edge
    assert fit.n_spikes == (values > fit.spike_edge).sum()


def test_other_scales() -> None:
    values = squares(spiked(np.random.default_rng(0), (50, 70), np.array([3.0])))
    fit = fitted(values, (50, 70))
    for scale in (3e-290, 0.1, 7e290):
        other = fitted(values * scale, (50, 70))
        assert other.n_ks == pytest.approx(fit.n_ks, rel=1e-10)
        assert other.variance == pytest.approx((fit.variance or 0) * scale, rel=1e-12)


def test_eigenvalues_that_are_zero_belong_to_the_bulk() -> None:
    rng = np.random.default_rng(4)
    # rows that sum to zero: one eigenvalue less, else a bulk as any other
    weight = rng.standard_normal((80, 80))
    values = squares(weight - weight.mean(0))
    assert values[0] < 1e-20
    fit = fitted(values[1:], (80, 80), n_zero=1)
    assert fit.is_bulk
    assert fit.n_spikes == 0
    assert fit.variance == pytest.approx(values.mean() / 80, rel=1e-12)
    assert fit.n_ks_threshold == pytest.approx(1.7 + 0.4 * math.log(80), rel=1e-15)
    # the empirical distribution begins at n_zero/n
    distance = ks_1samp(values / 80, lambda x: np.array([integral(1, fit.variance or 0, max(v, 0)) for v in x]))
    assert fit.n_ks == pytest.approx(80 * distance.statistic, rel=1e-7)


def test_low_rank_is_no_bulk() -> None:
    rng = np.random.default_rng(5)
    for rank in (25, 40, 60):
        values = squares(rng.standard_normal((80, rank)) @ rng.standard_normal((rank, 100)))[-rank:]
        assert not fitted(values, (80, 100), n_zero=80 - rank).is_bulk
    # rows that are zero, too
    assert not fitted(squares(rng.standard_normal((40, 100))), (80, 100), n_zero=40).is_bulk


@pytest.mark.parametrize("shape", [(20, 30), (64, 64), (32, 128)])
def test_pooled_matrices(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng([*shape, 3])
    n_matrices, beyond, small = 9, 0, min(shape)
    for _ in range(200):
        pooled = np.concatenate([wishart(rng, shape) for _ in range(n_matrices)])
        fit = fitted(pooled, shape, n_matrices=n_matrices)
        assert fit.is_bulk
        assert fit.n_ks_threshold == pytest.approx(1.7 + 0.4 * math.log(small), rel=1e-2)
        assert fit.variance == pytest.approx(1, rel=5 * math.sqrt(2 / (n_matrices * math.prod(shape))))
        beyond += fit.n_spikes > 0
    # the edge is that of the largest of nine: else a pool in eleven would have a spike
    assert beyond <= 7
    alone = fitted(wishart(rng, shape), shape)
    assert fit.spike_edge is not None
    assert alone.spike_edge is not None
    assert fit.spike_edge / (fit.variance or 0) > alone.spike_edge / (alone.variance or 0)


def test_spikes_of_pooled_matrices() -> None:
    rng = np.random.default_rng(6)
    pooled = np.concatenate([squares(spiked(rng, (40, 60), np.array([3.0, 4.0]))) for _ in range(4)])
    fit = fitted(pooled, (40, 60), n_matrices=4)
    assert fit.n_spikes == 8
    assert fit.is_bulk
    assert fit.n_ks_threshold == pytest.approx(1.7 + 0.4 * math.log(38), rel=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20, 20), (20, 80), (50, 50), (100, 100), (100, 300), (200, 200), (400, 400)])
def test_what_random_matrices_reach(shape: tuple[int, int]) -> None:
    # the threshold is above the 99 % quantile, and not by much: "light" means something
    rng = np.random.default_rng([*shape, 7])
    n = 2000 if max(shape) < 300 else 600
    fits = [fitted(wishart(rng, shape), shape) for _ in range(n)]
    beyond = sum(not fit.is_bulk for fit in fits)
    assert rate_at_most(beyond, n) < 0.012
    quantile = float(np.quantile([fit.n_ks for fit in fits], 0.99))
    threshold = 1.7 + 0.4 * math.log(min(shape))
    assert threshold - 0.8 < quantile < threshold
    assert sum(fit.n_spikes > 0 for fit in fits) / n < 0.02


@pytest.mark.slow
def test_planted_spikes_are_counted() -> None:
    rng = np.random.default_rng(2024)
    shapes = [(50, 50), (50, 400), (80, 60), (100, 100), (128, 64), (200, 150), (256, 256), (512, 512)]
    wrong = n = 0
    for shape in shapes:
        for _ in range(200 if max(shape) < 200 else 40 if max(shape) < 500 else 15):
            k = int(rng.integers(1, 7))
            sizes = np.full(k, rng.uniform(1.5, 10)) if rng.random() < 0.3 else rng.uniform(1.5, 10, k)
            fit = fitted(squares(spiked(rng, shape, sizes)), shape)
            wrong += fit.n_spikes != k or not fit.is_bulk
            n += 1
    assert n > 800
    assert wrong / n <= 0.03, (wrong, n)


@pytest.mark.parametrize("k", [5, 6])
def test_equal_spikes_do_not_hide_each_other(k: int) -> None:
    # six of twenty eigenvalues raise the mean until even they lie below the edge that belongs to it
    rng = np.random.default_rng(k)
    right = 0
    for _ in range(50):
        values = squares(spiked(rng, (20, 20), np.full(k, 6.0)))
        assert values[-k] < tracy_widom_edge((20, 20)) * values.mean() / 20
        fit = fitted(values, (20, 20))
        right += fit.n_spikes == k and fit.is_bulk
    assert right >= 46


@pytest.mark.parametrize("n", [20, 100])
def test_equal_eigenvalues(n: int) -> None:
    fit = fitted(np.full(n, 3.0), (n, n))
    assert not fit.is_bulk
    assert fit.n_spikes == 0
    assert fit.variance == pytest.approx(3 / n, rel=1e-12)
    fit = fitted(np.concatenate([np.ones(n - 1), [1e300]]), (n, n))  # one is beyond all scales
    assert fit.n_spikes == 1
    assert fit.variance == pytest.approx(1 / (n - 1), rel=1e-12)


def test_heavy_spectra_are_no_bulk() -> None:
    rng = np.random.default_rng(8)
    for _ in range(20):
        assert not fitted(squares(rng.standard_cauchy((100, 100))), (100, 100)).is_bulk
        fit = fitted(np.geomspace(1, 1e12, 64), (64, 64))
        assert not fit.is_bulk
        assert fit.n_spikes <= 32


def test_orthogonal_columns_beside_noise() -> None:
    # half of the eigenvalues are equal: not the law
    rng = np.random.default_rng(9)
    weight = np.concatenate([10 * orthonormal(rng, 60, 60), rng.standard_normal((60, 60))])
    assert not fitted(squares(weight), (120, 60)).is_bulk


# -- what is no spectrum -------------------------------------------------------------------------------------


def test_too_few() -> None:
    for values, shape, options in (
        (np.ones(19), (19, 40), {}),
        (np.arange(1.0, 11), (40, 30), {"n_zero": 20}),
        (np.ones(90), (10, 40), {"n_matrices": 9}),
        (np.empty(0), (30, 30), {"n_zero": 30}),
    ):
        fit = fit_marchenko_pastur(values, shape, **options)
        assert fit.status.code == "too_few"
        assert f"{values.size} positive eigenvalues" in fit.status.message
        assert (fit.law, fit.variance, fit.bulk_lower, fit.bulk_upper, fit.spike_edge) == (None,) * 5
        assert (fit.n_ks, fit.n_ks_threshold, fit.n_spikes, fit.is_bulk) == (None, None, 0, False)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.0, "not_positive"), (-1.0, "not_positive"), (math.nan, "not_finite"), (math.inf, "not_finite")],
)
def test_bad_values(value: float, code: str) -> None:
    values = [*np.arange(1.0, 30), value]
    fit = fit_marchenko_pastur(values, (30, 50), throw=False)
    assert fit.status.code == code
    assert fit.law is None
    with pytest.raises(AnalysisError, match="1 of 30 values") as error:
        fit_marchenko_pastur(values, (30, 50))
    assert error.value.status == fit.status


def test_a_spectrum_of_another_matrix() -> None:
    with pytest.raises(ValueError, match=r"30 eigenvalues and 2 zeros.*1 matrices \(40, 50\): expected 40"):
        fit_marchenko_pastur(np.ones(30), (40, 50), n_zero=2)
    with pytest.raises(ValueError, match="expected 80"):
        fit_marchenko_pastur(np.ones(40), (40, 50), n_matrices=2)
    with pytest.raises(ValueError, match="one-dimensional"):
        fit_marchenko_pastur(np.ones((5, 8)), (40, 50))


def test_the_input_is_left_alone() -> None:
    values = np.random.default_rng(0).permutation(squares(np.random.default_rng(1).standard_normal((30, 30))))
    values.setflags(write=False)
    before = values.copy()
    fit = fitted(values, (30, 30))
    assert (values == before).all()
    assert fitted(torch.from_numpy(before), (30, 30)).n_ks == fit.n_ks  # type: ignore[arg-type]
