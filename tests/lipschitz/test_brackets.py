import numpy as np
import pytest

from fpstab.lipschitz import General
from fpstab.lipschitz.blocks import Reduced
from fpstab.lipschitz.brackets import attained, dual_bound, factor
from fpstab.lipschitz.closed_forms import strict_point
from fpstab.lipschitz.inequality import Inequality, least_rho
from fpstab.lipschitz.problem import Problem, feedforward
from fpstab.lipschitz.reduction import reduce
from tests.lipschitz.networks import all_patterns, gaussian, norm, textbook


def prepared(problem: Problem, transposed: bool | None = None) -> tuple[Reduced, Inequality]:
    reduced = reduce(problem, transposed)
    assert isinstance(reduced, Reduced)
    return reduced, Inequality.of(reduced)


def skip(seed: int) -> General:
    rng = np.random.default_rng(seed)
    W, V = rng.normal(size=(6, 4)), 0.4 * rng.normal(size=(4, 6))
    return General(np.zeros((6, 6)), W, V, np.eye(4), -0.1, 1.0)  # type: ignore[arg-type]


def loop(seed: int) -> General:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(6, 6))
    arrays = 0.8 * A / norm(A), rng.normal(size=(6, 3)), rng.normal(size=(2, 6)), np.zeros((2, 3))
    return General(*arrays, 0.0, 1.0, implicit=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["chain", "skip", "loop"])
@pytest.mark.parametrize("seed", range(4))
def test_no_multipliers_are_below_the_dual_bound(kind: str, seed: int) -> None:
    """Weak duality, for dual matrices that are wildly infeasible: whatever comes out must be below every ρ."""
    net = {
        "chain": lambda: feedforward(gaussian(3, 6, 5, 2, seed=seed), (-0.2, 1.1)),
        "skip": lambda: skip(seed),
        "loop": lambda: loop(seed),
    }[kind]()
    problem, inequality = prepared(net)
    rng = np.random.default_rng(seed)
    bounds = [dual_bound(problem, inequality, rng.normal(size=(problem.n, k))) for k in (1, 2, problem.n)]
    start = strict_point(problem, inequality)
    assert start is not None
    least = min(
        rho
        for _ in range(300)
        if (rho := least_rho(inequality, start[1] * np.exp(rng.normal(size=len(start[1]))))) is not None
    )
    assert 0.0 <= max(bounds) <= least
    assert attained(problem) ** 2 <= least
    if kind != "loop":
        assert max(bounds) > 0.0


def test_the_dual_bound_of_a_good_matrix_is_the_optimum() -> None:
    from fpstab.lipschitz import interior_point

    weights = gaussian(3, 6, 5, 2)
    problem, inequality = prepared(feedforward(weights, (0.0, 1.0)))
    start = strict_point(problem, inequality)
    assert start is not None
    X = interior_point.solve(inequality, start, tolerance=1e-9).X
    value = dual_bound(problem, inequality, factor(X)) ** 0.5 * 2.0**problem.exponent
    assert value == pytest.approx(textbook(weights, 0.0, 1.0)[0], rel=1e-6)
    noise = 1e-4 * np.abs(X).max() * np.random.default_rng(0).normal(size=X.shape)
    worse = dual_bound(problem, inequality, factor(X + noise)) ** 0.5 * 2.0**problem.exponent
    assert 0.3 * value < worse < value


def test_a_factor_of_an_indefinite_matrix() -> None:
    X = np.diag([1.0, -1.0, 2.0])
    Z = factor(X)
    np.testing.assert_allclose(Z @ Z.T, np.diag([1.0, 0.0, 2.0]), atol=1e-14)
    assert factor(np.full((2, 2), np.nan)).size == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_search_over_slopes_finds_nearly_the_largest(seed: int) -> None:
    weights = gaussian(3, 5, 4, 2, seed=seed)
    truth = all_patterns(weights, [(np.zeros(5), np.ones(5)), (np.zeros(4), np.ones(4))])
    for transposed in (False, True):
        problem, _ = prepared(feedforward(weights, (0.0, 1.0)), transposed)
        found = attained(problem) * 2.0**problem.exponent
        assert 0.9 * truth <= found <= truth * (1 + 1e-10)
