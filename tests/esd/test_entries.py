import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fpstab.esd import EntryTail, entry_tail
from fpstab.esd.bulk import tracy_widom_edge
from fpstab.results import AnalysisError
from tests.esd.matrices import Floats, squares

LAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "uniform": lambda rng, shape: rng.uniform(-0.1, 0.1, shape),
    "gaussian": lambda rng, shape: rng.normal(0.3, 2, shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "student": lambda rng, shape: rng.standard_t(2, shape),
    "cauchy": lambda rng, shape: 5 + 1e-3 * rng.standard_cauchy(shape),
}


def described(weight: NDArray[np.generic] | torch.Tensor, largest: float | None = None) -> EntryTail:
    tail = entry_tail(weight, largest=largest)
    assert tail.status.ok
    return tail


@pytest.mark.parametrize(
    ("family", "ratio"),
    [("uniform", 1.8), ("gaussian", 2.4387), ("laplace", math.log(10) / math.log(2)), ("cauchy", 6.3138)],
)
def test_mcculloch_ratio(family: str, ratio: float) -> None:
    tail = described(LAWS[family](np.random.default_rng(1), (120, 130)))  # fewer than are sampled
    assert tail.n == 120 * 130
    assert tail.mcculloch_ratio == pytest.approx(ratio, rel=0.04)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), size=st.integers(20, 3000), family=st.sampled_from(list(LAWS)))
def test_its_numbers(seed: int, size: int, family: str) -> None:
    entries = LAWS[family](np.random.default_rng(seed), (size,))
    tail = described(entries)
    q05, q25, q75, q95 = np.percentile(entries, [5, 25, 75, 95])
    assert tail.mcculloch_ratio == pytest.approx((q95 - q05) / (q75 - q25), rel=1e-12)
    sizes = np.sort(np.abs(entries - np.median(entries)))[::-1]
    k = max(size // 10, 5)
    assert tail.hill_index == pytest.approx(1 / np.log(sizes[:k] / sizes[k]).mean(), rel=1e-9)
    assert tail.n == size
    assert tail.largest_over_edge is None


@pytest.mark.parametrize("mu", [0.7, 1.0, 2.0, 3.5])
def test_hill_index_of_pareto_entries(mu: float) -> None:
    # symmetric, so that the median is 0 and the largest tenth is exactly a power law
    rng = np.random.default_rng(2)
    entries = (rng.pareto(mu, 16_000) + 1) * rng.choice([-1, 1], 16_000)
    entries[:8000], entries[8000:] = np.abs(entries[:8000]), -np.abs(entries[8000:])
    hill = described(entries - np.median(entries)).hill_index
    assert hill == pytest.approx(mu, rel=4 / math.sqrt(1600))


def test_hill_index_of_light_entries_is_large() -> None:
    rng = np.random.default_rng(3)
    indices = {family: described(LAWS[family](rng, (100, 100))).hill_index or 0 for family in LAWS}
    assert indices["uniform"] > indices["gaussian"] > 4 > 2.5 > indices["student"] > indices["cauchy"]
    assert indices["cauchy"] == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("family", LAWS)
def test_cauchy_minus_gaussian(family: str) -> None:
    for seed in range(4):
        entries = LAWS[family](np.random.default_rng([seed, 5]), (20, 15))
        flat = entries.ravel()
        # SciPy's optimiser starts at the quartiles too, and stops at four digits of the parameters
        location, scale = stats.cauchy.fit(flat)
        cauchy = max(
            stats.cauchy.logpdf(flat, location, scale).mean(),
            stats.cauchy.logpdf(flat, np.median(flat), stats.iqr(flat) / 2).mean(),
        )
        gaussian = stats.norm.logpdf(flat, *stats.norm.fit(flat)).mean()
        difference = described(entries).cauchy_minus_gaussian
        assert difference == pytest.approx(cauchy - gaussian, abs=1e-6)
        assert difference is not None
        assert difference >= cauchy - gaussian - 1e-9  # a maximum
        if family != "laplace":  # about as far from the one as from the other
            assert (difference > 0) == (family in ("student", "cauchy"))


def test_the_best_cauchy_law_far_from_the_quartiles() -> None:
    # a quarter of the entries is far away: the likelihood is flat at first
    rng = np.random.default_rng(4)
    for far in (10.0, 1e3, 1e8):
        entries = np.concatenate([rng.standard_normal(300), far + rng.standard_normal(110)])
        scale = stats.cauchy.fit(entries[:300])[1]
        best = max(
            stats.cauchy.logpdf(entries, x, s).mean()
            for x in np.linspace(-1, 1, 21)
            for s in (scale, *np.geomspace(0.1, 30, 60))
        )
        gaussian = stats.norm.logpdf(entries, *stats.norm.fit(entries)).mean()
        assert (described(entries).cauchy_minus_gaussian or 0) >= best - gaussian - 1e-9


@pytest.mark.parametrize(("family", "factor"), [("gaussian", 1.0), ("uniform", 0.607), ("laplace", 1.89)])
def test_the_largest_eigenvalue_over_the_edge(family: str, factor: float) -> None:
    # (1.4826 MAD)² is the variance of Gaussian entries, 1.65 times that of uniform, 1/1.9 times that of Laplace ones
    rng = np.random.default_rng(6)
    for shape in ((100, 160), (300, 40)):
        for _ in range(5):
            weight = LAWS[family](rng, shape)
            weight -= weight.mean()
            largest = squares(weight)[-1]
            true = largest / (weight.var() * tracy_widom_edge(shape))
            assert 0.8 < true < 1.1
            assert described(weight, largest).largest_over_edge == pytest.approx(factor * true, rel=0.08)


def test_over_edge_is_its_formula() -> None:
    weight = LAWS["student"](np.random.default_rng(7), (30, 50))
    sigma = stats.median_abs_deviation(weight, axis=None, scale="normal")
    tail = described(weight, 123.0)
    assert tail.largest_over_edge == pytest.approx(123 / sigma**2 / tracy_widom_edge((30, 50)), rel=1e-9)
    assert described(weight.reshape(30, 5, 10), 123.0).largest_over_edge is None  # no matrix, no edge


@pytest.mark.parametrize("family", LAWS)
def test_location_and_scale(family: str) -> None:
    weight = LAWS[family](np.random.default_rng(8), (40, 50))
    weight -= np.median(weight)
    one = described(weight, 2.0)
    for scale in (1e-140, 1e-3, 1e140):
        other = described(weight * scale, 2.0 * scale * scale)
        for key, value in one.scalars().items():
            assert other.scalars()[key] == pytest.approx(value, rel=1e-6), key
    moved = described(np.round(weight / np.abs(weight).max() * 2**30) + 2.0**33)  # the sum is exact
    expected = described(np.round(weight / np.abs(weight).max() * 2**30))
    assert moved.mcculloch_ratio == pytest.approx(expected.mcculloch_ratio, rel=1e-6)
    assert moved.hill_index == pytest.approx(expected.hill_index, rel=1e-6)
    assert moved.cauchy_minus_gaussian == pytest.approx(expected.cauchy_minus_gaussian, abs=1e-6)


def test_outliers_beyond_all_scales() -> None:
    entries = np.concatenate([np.random.default_rng(9).standard_normal(100), [1e40, -1e154]])
    tail = described(entries)
    assert all(math.isfinite(value) for key, value in tail.scalars().items() if key != "largest_over_edge")
    assert (tail.cauchy_minus_gaussian or 0) > 100


def test_large_weights_are_sampled() -> None:
    weight = torch.randn(400, 300, generator=torch.Generator().manual_seed(1))
    tail = described(weight)
    assert 10_000 <= tail.n < weight.numel()
    assert tail.mcculloch_ratio == pytest.approx(2.44, rel=0.05)
    assert described(weight).scalars()["hill_index"] == tail.hill_index  # the same sample
    torch.manual_seed(5)
    state = torch.get_rng_state()
    seeded = [entry_tail(weight, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert seeded[0].hill_index == seeded[1].hill_index != seeded[2].hill_index
    assert torch.equal(torch.get_rng_state(), state)
    assert tail.hill_index == described(weight).hill_index


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.parametrize(
    "convert",
    [
        lambda w: w,
        lambda w: w.numpy(),
        lambda w: w.numpy()[::-1, ::-1],
        lambda w: np.broadcast_to(w.numpy(), w.shape),  # read-only
        lambda w: w.T,
        lambda w: w.requires_grad_(),
        lambda w: w.to_sparse(),
        lambda w: w.to_sparse_csr(),
        lambda w: w.to(torch.complex128),
        lambda w: torch.complex(w, torch.zeros_like(w)).conj(),
        lambda w: torch.nn.Parameter(w),
    ],
)
def test_what_holds_the_entries(convert: Callable[[torch.Tensor], NDArray[np.generic] | torch.Tensor]) -> None:
    weight = torch.from_numpy(np.abs(LAWS["student"](np.random.default_rng(10), (30, 20))))
    expected = entry_tail(weight).scalars()
    for key, value in entry_tail(convert(weight.clone())).scalars().items():
        assert value == pytest.approx(expected[key], rel=1e-7, nan_ok=True), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_low_precision(dtype: torch.dtype) -> None:
    weight = torch.randn(80, 80, generator=torch.Generator().manual_seed(3))
    tail = described(weight.to(dtype))
    assert tail.mcculloch_ratio == pytest.approx(2.44, rel=0.15)
    big = torch.randn(300, 300, generator=torch.Generator().manual_seed(3)).to(dtype)
    assert described(big).mcculloch_ratio == pytest.approx(2.44, rel=0.15)


def assert_nothing(tail: EntryTail, code: str, says: str) -> None:
    assert tail.status.code == code
    assert says in tail.status.message
    assert all(math.isnan(value) for value in tail.scalars().values())
    assert (tail.mcculloch_ratio, tail.hill_index, tail.largest_over_edge, tail.cauchy_minus_gaussian) == (None,) * 4


@pytest.mark.parametrize(
    "entries",
    [
        np.full(50, 2.0),
        np.zeros((10, 10)),
        np.concatenate([np.zeros(60), np.arange(40.0)]),
        np.concatenate([np.zeros(11), np.arange(1.0, 11)]),  # the quartiles differ, the median deviation is 0
        np.concatenate([np.arange(-10.0, 0), np.zeros(11)]),
    ],
)
def test_constant(entries: Floats) -> None:
    assert_nothing(entry_tail(entries, largest=1.0), "constant", f"of the {entries.size} entries are equal")
    assert_nothing(entry_tail(entries.reshape(1, -1), largest=1.0), "constant", "are equal to")


@pytest.mark.parametrize("n", [0, 1, 19])
def test_too_few(n: int) -> None:
    assert_nothing(entry_tail(np.arange(float(n))), "too_few", f"{n} entries")


def test_twenty_are_enough() -> None:
    assert math.isfinite(described(np.arange(20.0)).scalars()["hill_index"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite(bad: float) -> None:
    entries = np.concatenate([np.arange(30.0), [bad, bad]])
    assert_nothing(entry_tail(entries, throw=False), "not_finite", "2 of 32 entries")
    with pytest.raises(AnalysisError, match="2 of 32 entries"):
        entry_tail(entries)


def test_scalars() -> None:
    scalars = described(np.arange(30.0)).scalars()
    assert list(scalars) == ["mcculloch_ratio", "hill_index", "largest_over_edge", "cauchy_minus_gaussian"]
    assert {type(value) for value in scalars.values()} == {float}
    assert [math.isnan(value) for value in scalars.values()] == [False, False, True, False]
