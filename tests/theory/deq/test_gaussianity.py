import pytest
import torch
from scipy.stats import kstest
from torch import Generator

from fpstab.results import AnalysisError
from fpstab.theory import deq


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_ks_distance_is_scipy_s() -> None:
    x = 1.1 * torch.randn(40, 25, generator=seeded(), dtype=torch.float64)
    assert deq.gaussian_ks_distance(x) == pytest.approx(kstest(x.numpy().ravel(), "norm").statistic, rel=1e-9)


@pytest.mark.parametrize(("family", "V"), [("iid", 0.5), ("goe", 0.15)])
def test_the_linear_equilibrium_becomes_gaussian(family: deq.FamilyName, V: float) -> None:
    result = deq.gaussianity_by_width(family, V, widths=(5, 400), entries=8000, generator=seeded())
    assert result.status.ok
    narrow, wide = result.ks_distance.tolist()
    assert narrow > 2 * float(result.noise[0])
    assert wide < 2 * float(result.noise[1])
    assert result.scalars()["ks_distance"] == wide
    rows = result.table()
    assert [row["width"] for row in rows] == [5, 400]
    assert rows[0]["n_entries"] <= 8000 * 1.01


@pytest.mark.parametrize(("family", "V", "activation"), [("orthogonal", 1.0, "tanh"), ("goe", 0.2, "hardtanh")])
def test_the_nonlinear_field_is_gaussian(family: deq.FamilyName, V: float, activation: deq.Activation) -> None:
    result = deq.gaussianity_by_width(family, V, activation, widths=(300,), entries=6000, generator=seeded())
    assert float(result.dropped) == 0
    assert float(result.ks_distance) < 2 * float(result.noise)


def test_the_equilibrium_of_symmetric_weights_is_not_gaussian_but_its_field_is() -> None:
    sample = deq.sample_equilibrium("goe", 0.8, "hardtanh", width=600, inputs=10, generator=seeded(), tol=1e-6)
    solution = deq.cavity_solution("goe", 0.8, "hardtanh")
    assert solution.echo is not None
    assert solution.z2 is not None
    field = (sample.h - solution.echo * sample.z) / (0.8 * solution.z2) ** 0.5
    h = sample.h / sample.h.square().mean().sqrt()
    assert deq.gaussian_ks_distance(field) < 0.02
    assert deq.gaussian_ks_distance(h) > 1.5 * deq.gaussian_ks_distance(field)


def test_draws_that_do_not_converge_are_left_out() -> None:
    result = deq.gaussianity_by_width("iid", 1.99, "relu", widths=(4,), entries=80, generator=seeded())
    assert 0 < float(result.dropped[0]) < 1
    lost = deq.gaussianity_by_width("iid", 1.999, "relu", widths=(400,), entries=1, generator=seeded(3))
    assert lost.status.code == "not_converged"
    assert lost.ks_distance.isnan().all()


def test_plot() -> None:
    result = deq.gaussianity_by_width("iid", 0.5, widths=(5, 50), entries=500, generator=seeded())
    ax = result.plot()
    assert ax.get_xscale() == "log"
    assert ax.lines[0].get_ydata() == pytest.approx(result.ks_distance.tolist())
    assert result.plot(ax) is ax


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least one of each"):
        deq.gaussianity_by_width("iid", 0.5, widths=())
    with pytest.raises(ValueError, match="V is 0"):
        deq.gaussianity_by_width("iid", 0.0)
    with pytest.raises(AnalysisError, match="no solution"):
        deq.gaussianity_by_width("goe", 0.3)
