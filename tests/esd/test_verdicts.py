import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpstab.esd import TailVerdict, fit_marchenko_pastur, fit_power_law, tail_verdict, weight_spectrum
from fpstab.esd.comparisons import against_exponential
from fpstab.esd.verdicts import LABELS, judge, power_law_of, shuffled
from fpstab.results import AnalysisError
from tests.esd.matrices import Floats, rate_at_most, spiked, squares, with_spectrum

Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]

LIGHT: dict[str, Draw] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.uniform(-0.05, 0.05, shape),
    "laplace": lambda rng, shape: rng.laplace(size=shape),
    "student": lambda rng, shape: rng.standard_t(5, shape),
    "mean": lambda rng, shape: rng.standard_normal(shape) + rng.uniform(0.05, 5),
    "spiked": lambda rng, shape: spiked(rng, shape, rng.uniform(1.3, 20, rng.integers(1, 7))),
    "equally_spiked": lambda rng, shape: spiked(rng, shape, np.full(rng.integers(1, 7), rng.uniform(1.3, 20))),
}
SIZES = [(20, 20), (20, 50), (24, 300), (30, 30), (40, 50), (50, 50), (64, 40), (80, 80), (100, 100), (100, 30)]
LARGE = [(128, 128), (200, 150), (256, 64), (256, 256), (300, 400), (512, 512)]


def power_law(rng: np.random.Generator, n: int, alpha: float, columns: int | None = None) -> Floats:
    """Haar singular vectors, eigenvalues of density λ^(−alpha)."""
    return with_spectrum(rng, rng.pareto(alpha - 1, n) + 1, columns)


# -- what it calls heavy -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", LIGHT)
def test_light_matrices_are_not_called_heavy(family: str) -> None:
    rng = np.random.default_rng([1, *family.encode()])
    labels: Counter[str] = Counter()
    for shape in SIZES:
        labels.update(tail_verdict(LIGHT[family](rng, shape)).label for _ in range(250))
    for shape in LARGE:
        labels.update(tail_verdict(LIGHT[family](rng, shape)).label for _ in range(20 if max(shape) < 300 else 5))
    n = labels.total()
    assert n >= 2500
    assert rate_at_most(labels["heavy"], n) <= 0.01, labels
    assert labels["light"] + labels["light+spikes"] >= 0.98 * n, labels
    if family in ("gaussian", "uniform"):
        assert labels["light"] >= 0.97 * n, labels
    if "spiked" in family:
        assert labels["light+spikes"] >= 0.98 * n, labels


@pytest.mark.slow
def test_cauchy_matrices_are_called_heavy_for_their_entries() -> None:
    rng = np.random.default_rng(2)
    verdicts = Counter(str(tail_verdict(rng.standard_cauchy((100, 100)))) for _ in range(600))
    heavy = sum(count for name, count in verdicts.items() if name.startswith("heavy"))
    assert heavy >= 0.9 * 600, verdicts
    assert verdicts["heavy (entries)"] >= 0.95 * heavy, verdicts
    assert verdicts["heavy (correlations)"] == 0, verdicts
    assert verdicts["light"] + verdicts["light+spikes"] == 0, verdicts


@pytest.mark.slow
def test_power_law_spectra_are_called_heavy_for_their_correlations() -> None:
    rng = np.random.default_rng(3)
    exponents = []
    verdicts: Counter[str] = Counter()
    for _ in range(100):
        verdict = tail_verdict(power_law(rng, 256, 2.0))
        verdicts[str(verdict)] += 1
        assert verdict.evidence.fit is not None
        exponents.append(verdict.evidence.fit.alpha)
    assert verdicts["light"] + verdicts["light+spikes"] == 0, verdicts
    assert verdicts["heavy (correlations)"] >= 90, verdicts
    assert verdicts["heavy (entries)"] == 0, verdicts
    assert np.median(exponents) == pytest.approx(2, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.5, 2.5, 3.0, 4.0])
def test_other_power_law_spectra_are_never_called_light(alpha: float) -> None:
    rng = np.random.default_rng([4, int(10 * alpha)])
    for n in (64, 128, 256):
        labels = Counter(tail_verdict(power_law(rng, n, alpha)).label for _ in range(25))
        assert labels["light"] + labels["light+spikes"] == 0, (n, labels)
        assert labels["heavy"] + labels["undecided"] == 25, (n, labels)
        if alpha == 1.5:
            assert labels["heavy"] >= 22, (n, labels)


@pytest.mark.slow
def test_the_longer_tail_of_entries_the_heavier() -> None:
    # t entries with 4 degrees of freedom and more have the law of Gaussian ones in the limit
    rng = np.random.default_rng(5)
    heavy = [
        sum(tail_verdict(rng.standard_t(df, (120, 120))).label == "heavy" for _ in range(40)) for df in (1, 1.5, 2, 8)
    ]
    assert heavy == sorted(heavy, reverse=True)
    assert heavy[0] >= 36
    assert heavy[-1] == 0


# -- the rules, one by one -----------------------------------------------------------------------------------


def rules(weight: Floats) -> str:
    """The label by the definitions in `TailVerdict`."""
    values = squares(weight)
    n = values.size
    bulk = fit_marchenko_pastur(values, weight.shape)
    assert bulk.n_ks is not None
    if bulk.n_ks < 1.7 + 0.4 * math.log(n - bulk.n_spikes) and bulk.n_spikes <= max(6, n / 10):
        return "light+spikes" if bulk.n_spikes else "light"
    fit = fit_power_law(values)
    exponential = against_exponential(values[-fit.n_tail :], fit)
    if exponential.p_value >= 0.05:
        return "undecided"
    if exponential.log_likelihood_ratio < 0:
        return "not_heavy"
    return "heavy" if fit.n_tail >= max(10, n / 10) else "undecided"


DRAWS: dict[str, Draw] = LIGHT | {
    "cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "student_2": lambda rng, shape: rng.standard_t(2, shape),
    "power_law": lambda rng, shape: power_law(rng, min(shape), 2.5, max(shape)),
    "uniform_spectrum": lambda rng, shape: with_spectrum(rng, rng.uniform(1, 2, min(shape)), max(shape)),
    "half_a_block": lambda rng, shape: rng.standard_normal(shape) * np.where(np.arange(shape[1]) % 2, 1, 6),
}


def test_the_label_follows_from_the_evidence() -> None:
    rng = np.random.default_rng(6)
    seen: Counter[str] = Counter()
    for draw in DRAWS.values():
        for shape in ((24, 24), (40, 60), (90, 90)):
            for _ in range(4):
                weight = draw(rng, shape)
                weight = weight if weight.shape[0] <= weight.shape[1] else weight.T
                verdict = tail_verdict(weight)
                assert verdict.label == rules(weight)
                assert verdict.code == LABELS.index(verdict.label)
                assert verdict.status.ok
                assert (verdict.cause is None) or verdict.label == "heavy"
                assert str(verdict) == verdict.label + (f" ({verdict.cause})" if verdict.cause else "")
                assert (verdict.evidence.shuffled is not None) == (verdict.label == "heavy")
                assert (verdict.evidence.entries is not None) == (verdict.label == "heavy")
                seen[verdict.label] += 1
    assert all(seen[label] for label in ("light", "light+spikes", "heavy", "not_heavy", "undecided")), seen


def test_the_evidence() -> None:
    weight = np.random.default_rng(7).standard_cauchy((70, 90))
    verdict = tail_verdict(weight)
    evidence = verdict.evidence
    assert str(verdict) == "heavy (entries)"
    assert evidence.fit is not None
    assert evidence.fit.alpha == pytest.approx(fit_power_law(squares(weight)).alpha, rel=1e-9)
    assert evidence.exponential is not None
    assert evidence.exponential.p_value < 0.05
    assert evidence.bulk is not None
    assert not evidence.bulk.is_bulk
    assert evidence.entries is not None
    assert evidence.entries.hill_index == pytest.approx(1, rel=0.3)
    assert evidence.shuffled is not None
    assert evidence.shuffled.label == "heavy"
    control = evidence.shuffled.evidence
    assert control.fit is not None
    assert control.fit.alpha != evidence.fit.alpha
    # the shuffled spectrum has the same trace
    moved = weight_spectrum(shuffled(torch.from_numpy(weight))).eigenvalues
    assert float(moved.sum()) == pytest.approx((weight**2).sum(), rel=1e-12)
    assert control.fit.alpha == fit_power_law(moved).alpha
    # the two agree with each other to what the tails allow: independent entries with μ = 1 have 1 + μ/2
    assert evidence.fit.alpha == pytest.approx(1.5, abs=0.25)


def test_correlations_vanish_when_entries_are_shuffled() -> None:
    weight = power_law(np.random.default_rng(8), 120, 2.0)
    verdict = tail_verdict(weight)
    assert str(verdict) == "heavy (correlations)"
    assert verdict.evidence.shuffled is not None
    assert verdict.evidence.shuffled.label in ("light", "light+spikes")
    assert verdict.evidence.entries is not None
    assert (verdict.evidence.entries.hill_index or 0) > 2
    # and the shuffled matrix itself is what it was judged to be
    assert tail_verdict(shuffled(torch.from_numpy(weight))).label == verdict.evidence.shuffled.label


def test_few_large_entries_are_not_taken_for_correlations() -> None:
    # entries without a variance whose shuffled spectrum happens to look like a bulk with spikes
    rng = np.random.default_rng(9)
    verdicts = Counter(str(tail_verdict(rng.standard_cauchy((24, 24)))) for _ in range(150))
    assert verdicts["heavy (entries)"] + verdicts["heavy"] > 10, verdicts
    assert verdicts["heavy (correlations)"] <= 1, verdicts


@pytest.mark.parametrize("family", ["gaussian", "spiked", "cauchy", "power_law"])
def test_scale_transpose_and_order_do_not_matter(family: str) -> None:
    rng = np.random.default_rng([10, *family.encode()])
    for _ in range(5):
        weight = DRAWS[family](rng, (50, 80))
        label = tail_verdict(weight).label
        rows, columns = rng.permutation(weight.shape[0]), rng.permutation(weight.shape[1])
        for other in (weight * 2.0**-300, weight * 2.0**300, -weight, weight.T, weight[rows][:, columns]):
            assert tail_verdict(other).label == label


# -- what it draws -------------------------------------------------------------------------------------------


def control(verdict: TailVerdict) -> float:
    assert verdict.evidence.shuffled is not None
    assert verdict.evidence.shuffled.evidence.fit is not None
    return verdict.evidence.shuffled.evidence.fit.alpha or math.nan


def test_it_is_deterministic_for_a_seed() -> None:
    weight = np.random.default_rng(11).standard_cauchy((100, 100))
    torch.manual_seed(0)
    first = tail_verdict(weight)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = tail_verdict(weight)
    assert control(first) == control(again)
    assert torch.equal(torch.get_rng_state(), state)
    seeded = [tail_verdict(weight, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert control(seeded[0]) == control(seeded[1]) != control(seeded[2])
    generator = torch.Generator().manual_seed(5)
    assert control(tail_verdict(weight, generator=generator)) == control(seeded[0])
    assert control(tail_verdict(weight, generator=generator)) != control(seeded[0])  # it goes on


def test_shuffled_keeps_entries_and_shape() -> None:
    weight = torch.arange(24.0).reshape(2, 3, 2, 2)
    moved = shuffled(weight)
    assert moved.shape == weight.shape
    assert not torch.equal(moved, weight)
    assert moved.flatten().sort().values.tolist() == list(range(24))
    assert weight.flatten().tolist() == list(range(24))
    seen = {tuple(shuffled(torch.arange(3.0), torch.Generator().manual_seed(s)).tolist()) for s in range(60)}
    assert len(seen) == 6  # every order
    assert shuffled(torch.arange(4, dtype=torch.float32)).dtype == torch.float32
    assert shuffled(torch.arange(4.0).bfloat16()).tolist() != []
    assert sorted(shuffled(torch.arange(4.0).to(torch.complex64).conj()).real.tolist()) == [0, 1, 2, 3]
    assert sorted(shuffled(torch.eye(3).to_sparse()).flatten().tolist()) == [0] * 6 + [1] * 3


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.parametrize(
    "convert",
    [
        lambda w: w.numpy(),
        lambda w: w.numpy()[::-1, ::-1],
        lambda w: np.broadcast_to(w.numpy(), w.shape),
        lambda w: w.float(),
        lambda w: w.bfloat16(),
        lambda w: w.requires_grad_(),
        lambda w: w.to_sparse(),
        lambda w: w.to_sparse_csr(),
        lambda w: torch.complex(w, torch.zeros_like(w)).conj(),
    ],
)
def test_what_holds_the_weight(convert: Callable[[Tensor], Tensor | NDArray[np.generic]]) -> None:
    for seed, label in ((12, "heavy (entries)"), (13, "light")):
        rng = np.random.default_rng(seed)
        weight = rng.standard_cauchy((60, 60)) if seed == 12 else rng.standard_normal((60, 60))
        assert str(tail_verdict(convert(torch.from_numpy(weight)))) == label


# -- kernels -------------------------------------------------------------------------------------------------


def test_kernels() -> None:
    rng = np.random.default_rng(14)
    kernel = rng.standard_normal((40, 30, 3, 3))
    assert tail_verdict(kernel).label == "light"
    slices = tail_verdict(kernel, conv="slices")
    assert slices.label == "light"
    assert slices.evidence.bulk is not None
    assert slices.evidence.bulk.n_ks_threshold == pytest.approx(1.7 + 0.4 * math.log(30), rel=1e-15)
    grouped = tail_verdict(kernel, groups=2)
    assert grouped.evidence.bulk is not None
    assert grouped.evidence.bulk.n_ks_threshold == pytest.approx(1.7 + 0.4 * math.log(20), rel=1e-15)
    heavy = rng.standard_cauchy((40, 30, 3, 3))
    for options in ({}, {"conv": "slices"}, {"groups": 2}):
        assert str(tail_verdict(heavy, **options)) == "heavy (entries)"  # type: ignore[arg-type]


@pytest.mark.slow
def test_pooled_matrices_are_not_called_heavy() -> None:
    rng = np.random.default_rng(15)
    labels: Counter[str] = Counter()
    for _ in range(120):
        labels[tail_verdict(rng.standard_normal((32, 24, 3, 3)), conv="slices").label] += 1
        labels[tail_verdict(rng.uniform(-1, 1, (64, 64, 3, 3)), conv="slices").label] += 1
        labels[tail_verdict(rng.standard_normal((80, 20, 3, 3)), groups=4).label] += 1
    assert labels["heavy"] == 0, labels
    assert labels["light"] >= 350, labels


# -- where there is nothing to judge -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (np.random.default_rng(0).standard_normal((100, 2)), {}),
        (np.random.default_rng(0).standard_normal((19, 400)), {}),
        (np.random.default_rng(0).standard_normal((1, 400)), {}),
        (np.random.default_rng(0).standard_normal((60, 19)) @ np.random.default_rng(1).standard_normal((19, 60)), {}),
        (np.random.default_rng(0).standard_normal((10, 40, 3, 3)), {"conv": "slices"}),
        (np.random.default_rng(0).standard_normal((40, 20, 3, 3)), {"groups": 4}),
    ],
)
def test_too_few(weight: Floats, options: dict[str, object]) -> None:
    verdict = tail_verdict(weight, **options)  # type: ignore[arg-type]
    assert (str(verdict), verdict.code, verdict.cause) == ("too_few", 0, None)
    assert verdict.status.ok  # an answer
    assert verdict.evidence.bulk is None
    entries = verdict.evidence.entries
    assert entries is not None
    assert entries.status.ok
    assert (entries.largest_over_edge is not None) == (weight.ndim == 2)


def test_the_entries_of_small_layers() -> None:
    rng = np.random.default_rng(16)
    gaussian, cauchy = (
        tail_verdict(w).evidence.entries for w in (rng.normal(size=(100, 2)), rng.standard_cauchy((100, 2)))
    )
    assert gaussian is not None
    assert cauchy is not None
    assert (gaussian.cauchy_minus_gaussian or 0) < 0 < (cauchy.cauchy_minus_gaussian or 0)
    assert (gaussian.largest_over_edge or 9) < 1.2 < 10 < (cauchy.largest_over_edge or 0)
    assert (cauchy.mcculloch_ratio or 0) > 4 > (gaussian.mcculloch_ratio or 9)


def test_exactly_twenty_eigenvalues_are_enough() -> None:
    rng = np.random.default_rng(17)
    assert tail_verdict(rng.standard_normal((20, 30))).label == "light"
    assert tail_verdict(rng.standard_normal((40, 20, 3, 3)), conv="slices").label in ("light", "light+spikes")


@pytest.mark.parametrize("n", [20, 60])
def test_equal_eigenvalues_are_not_heavy(n: int) -> None:
    rng = np.random.default_rng(n)
    for weight in (np.eye(n), 1e-5 * with_spectrum(rng, np.ones(n), 2 * n)):
        verdict = tail_verdict(weight)
        assert (str(verdict), verdict.code) == ("not_heavy", 4)
        assert verdict.status.ok
        assert verdict.evidence.exponential is None


def test_equal_entries() -> None:
    verdict = tail_verdict(np.full((30, 40), 0.5))
    assert verdict.label == "too_few"
    assert verdict.evidence.entries is not None
    assert verdict.evidence.entries.status.code == "constant"
    assert "1200 entries" in verdict.evidence.entries.status.message


def test_zeros() -> None:
    verdict = tail_verdict(np.zeros((30, 40)))
    assert (verdict.label, verdict.status.ok) == ("too_few", True)
    assert verdict.evidence.fit is not None
    assert verdict.evidence.fit.status.code == "all_zero"
    assert verdict.evidence.entries is not None
    assert verdict.evidence.entries.status.code == "constant"


@pytest.mark.parametrize(
    ("weight", "code", "says"),
    [
        (torch.full((30, 40), math.nan), "not_finite", "1200 NaN"),
        (torch.eye(30).log(), "not_finite", "870 infinite"),
        (torch.zeros(0, 30), "empty", "no elements"),
        (torch.zeros(30, 30, device="meta"), "meta", "meta device"),
        (torch.ones(30, 30, dtype=torch.int8), "quantized", "int8"),
        (torch.full((30, 30), 1e-200, dtype=torch.float64), "out_of_range", "rescale"),
    ],
)
def test_no_spectrum(weight: Tensor, code: str, says: str) -> None:
    verdict = tail_verdict(weight, throw=False)
    assert (verdict.label, verdict.code, verdict.cause) == ("undecided", 5, None)
    assert verdict.status.code == code
    assert says in verdict.status.message
    assert all(
        getattr(verdict.evidence, name) is None for name in ("bulk", "fit", "exponential", "shuffled", "entries")
    )
    with pytest.raises(AnalysisError, match=says) as error:
        tail_verdict(weight)
    assert error.value.status == verdict.status


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="conv='fft' is unknown"):
        tail_verdict(np.ones((3, 3)), conv="fft", throw=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="groups=2"):
        tail_verdict(np.ones((3, 3)), groups=2, throw=False)
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        tail_verdict(np.ones(30), throw=False)


def test_sparse_matrices_of_low_rank() -> None:
    # pruned weights: heavy or not, there is an answer, and zeros are no entries' tail
    rng = np.random.default_rng(18)
    for density in (0.02, 0.1, 0.5, 0.9):
        for draw in (rng.standard_normal, rng.standard_cauchy):
            weight = draw((80, 80)) * (rng.random((80, 80)) < density)
            verdict = tail_verdict(weight)
            assert verdict.status.ok
            assert verdict.label in LABELS
            if density >= 0.1 and draw == rng.standard_normal:
                assert verdict.label != "heavy"


def test_judge_takes_what_is_known() -> None:
    weight = torch.randn(60, 60, generator=torch.Generator().manual_seed(0))
    spectrum = weight_spectrum(weight)
    fit = power_law_of(spectrum)
    verdict = judge(weight, spectrum, fit)
    assert verdict.evidence.fit is fit
    assert verdict.label == tail_verdict(weight).label
