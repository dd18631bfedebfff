"""The other ways to solve the same inequality: cvxpy and the first-order method."""

import numpy as np
import pytest

from fpstab.lipschitz import conic, first_order, interior_point, lipschitz_bound
from fpstab.lipschitz.blocks import Reduced
from fpstab.lipschitz.closed_forms import strict_point
from fpstab.lipschitz.inequality import Inequality, least_rho
from fpstab.lipschitz.problem import feedforward
from fpstab.lipschitz.reduction import reduce
from tests.lipschitz.networks import SLOPES, attack, gaussian


@pytest.mark.parametrize(("backend", "rel"), [("cvxpy:CLARABEL", 1e-7), ("cvxpy:SCS", 5e-3), ("first_order", 5e-3)])
@pytest.mark.parametrize("form", ["neuron", "layer"])
def test_backends_agree(backend: str, rel: float, form: str) -> None:
    for seed, pair in ((0, (0.0, 1.0)), (1, (-0.2, 1.1))):
        weights = gaussian(3, 9, 6, 2, seed=seed)
        slopes = [(np.full(n, pair[0]), np.full(n, pair[1])) for n in (9, 6)]
        native = lipschitz_bound(weights, slopes=pair, form=form)  # type: ignore[arg-type]
        bound = lipschitz_bound(weights, slopes=pair, form=form, backend=backend)  # type: ignore[arg-type]
        assert bound.certified
        assert attack(weights, slopes) <= bound.value
        assert native.optimum_lower <= bound.lipsdp <= native.lipsdp * (1 + rel)
        assert bound.optimum_lower <= native.lipsdp * (1 + 1e-12)


def test_the_default_conic_solver() -> None:
    assert conic.choose_solver("cvxpy", 20) == "CLARABEL"
    assert conic.choose_solver("cvxpy", 250) == "SCS"


def test_solvers_that_cannot() -> None:
    weights = gaussian(3, 4, 2)
    with pytest.raises(ModuleNotFoundError, match=r"MOSEK is not installed.*pip install 'cvxpy\[mosek\]'"):
        lipschitz_bound(weights, slopes=(0.0, 1.0), backend="cvxpy:mosek")
    with pytest.raises(ValueError, match="'OSQP' is none of cvxpy's semidefinite solvers"):
        lipschitz_bound(weights, slopes=(0.0, 1.0), backend="cvxpy:OSQP")
    with pytest.raises(ValueError, match="size 210 is too large for CLARABEL"):
        lipschitz_bound(gaussian(10, 100, 100, 10), slopes=(0.0, 1.0), backend="cvxpy:CLARABEL")


def test_a_conic_solver_that_fails_leaves_the_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy as cp

    def fail(*args: object, **options: object) -> None:
        raise cp.SolverError("out of luck")

    monkeypatch.setattr(conic, "solve", fail)
    bound = lipschitz_bound(gaussian(3, 4, 2), slopes=(0.0, 1.0), backend="cvxpy")
    assert (bound.status.code, bound.certified) == ("solver_failed", True)
    assert "out of luck" in bound.status.message


def test_the_linear_map_is_that_of_the_inequality() -> None:
    problem = reduce(feedforward(gaussian(3, 5, 4, 2), (-0.3, 1.2)))
    assert isinstance(problem, Reduced)
    inequality = Inequality.of(problem)
    y = np.random.default_rng(0).normal(size=1 + problem.n_neurons)
    M = (conic._linear_map(inequality, None) @ y).reshape(problem.n, problem.n)
    np.testing.assert_allclose(M, inequality.linear(y[0], y[1:]), atol=1e-12)


@pytest.mark.parametrize("pair", SLOPES[:6])
def test_gradients_of_the_first_order_method(pair: tuple[float, float]) -> None:
    problem = reduce(feedforward(gaussian(3, 6, 5, 2), pair))
    assert isinstance(problem, Reduced)
    inequality = Inequality.of(problem)
    start = strict_point(problem, inequality)
    assert start is not None
    T = 1.1 * interior_point.solve(inequality, start, tolerance=0.03).points[-1][1]  # well inside
    rho = least_rho(inequality, T)
    assert rho is not None
    found = first_order._smoothed(problem, inequality, T, 30.0 / rho)
    dense = first_order._eliminate_dense(inequality, T)
    assert found is not None
    assert dense is not None
    assert found[1] == pytest.approx(rho, rel=1e-10)
    assert np.linalg.eigvalsh(dense[0])[-1] == pytest.approx(found[1], rel=1e-10)
    for i in range(len(T)):
        step = 1e-5 * T[i] * np.eye(len(T))[i]
        ahead, behind = (first_order._smoothed(problem, inequality, T + s * step, 30.0 / rho) for s in (1, -1))
        assert ahead is not None
        assert behind is not None
        assert found[2][i] == pytest.approx(
            (ahead[0] - behind[0]) / (2e-5 * T[i]), rel=1e-4, abs=1e-6 * found[0] / T[i]
        )


def test_large_problems_go_to_the_first_order_method(monkeypatch: pytest.MonkeyPatch) -> None:
    from fpstab.lipschitz import bounds, candidates

    weights = gaussian(4, 12, 9, 3)
    native = lipschitz_bound(weights, slopes=(0.0, 1.0))
    monkeypatch.setattr(candidates, "LARGEST_NATIVE", 5)
    monkeypatch.setattr(bounds, "_EXACT", 0.0)
    large = lipschitz_bound(weights, slopes=(0.0, 1.0))
    assert native.value < large.value <= 1.005 * native.value
    monkeypatch.setattr(candidates, "LARGEST_CERTIFIED", 5)
    huge = lipschitz_bound(weights, slopes=(0.0, 1.0))
    assert (huge.status.code, huge.certified) == ("too_large", True)
    assert huge.value == huge.spectral_product
