import time

import numpy as np
import pytest

from fpstab.lipschitz import closed_forms, interior_point
from fpstab.lipschitz.blocks import Reduced
from fpstab.lipschitz.inequality import Inequality
from fpstab.lipschitz.problem import feedforward
from fpstab.lipschitz.reduction import reduce
from tests.lipschitz.networks import SLOPES, gaussian


def setting(
    *sizes: int, slopes: tuple[float, float] = (0.0, 1.0)
) -> tuple[Reduced, Inequality, tuple[float, np.ndarray]]:
    problem = reduce(feedforward(gaussian(*sizes), slopes))
    assert isinstance(problem, Reduced)
    inequality = Inequality.of(problem)
    start = closed_forms.strict_point(problem, inequality)
    assert start is not None
    return problem, inequality, start


@pytest.mark.parametrize("slopes", SLOPES)
def test_optimality_conditions(slopes: tuple[float, float]) -> None:
    _, inequality, start = setting(4, 9, 7, 3, slopes=slopes)
    found = interior_point.solve(inequality, start, tolerance=1e-9)
    assert found.stopped == "converged"
    (rho, T), X = found.points[-1], found.X
    S = inequality.matrix(rho, T)
    assert np.linalg.eigvalsh(S)[0] > 0
    assert np.linalg.eigvalsh(X)[0] > 0
    assert float(inequality.e0 @ X.diagonal()) == pytest.approx(1.0, abs=1e-8)
    assert np.vdot(S, X) <= 1e-8 * rho
    # the gradient of the Lagrangian, by differences instead of by the structure
    for i in range(len(T)):
        unit = np.eye(len(T))[i]
        A = inequality.linear(0.0, unit)
        assert np.vdot(A, X) <= 1e-7 * np.abs(A).max()
        assert abs(np.vdot(A, X) * T[i]) <= 1e-7 * rho
    assert rho == pytest.approx(float(np.vdot(inequality.K, X)), rel=1e-8)


def test_products_by_structure_are_those_of_dense_matrices() -> None:
    problem, inequality, _ = setting(4, 9, 7, 3, slopes=(-0.3, 1.1))
    rng = np.random.default_rng(0)
    n, m = problem.n, problem.n_neurons
    X, Y = (Z @ Z.T for Z in rng.normal(size=(2, n, n)))
    A = [inequality.linear(1.0, np.zeros(m)), *(inequality.linear(0.0, row) for row in np.eye(m))]
    XG, YG = inequality.times_weights(X), inequality.times_weights(Y)
    H = interior_point._normal_matrix(inequality, X, Y, XG, YG, None)
    expected = np.array([[0.5 * np.trace(a @ X @ b @ Y + b @ X @ a @ Y) for b in A] for a in A])
    np.testing.assert_allclose(H, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    T = rng.normal(size=m)
    np.testing.assert_allclose(inequality.times_linear(X, XG, 0.7, T), X @ inequality.linear(0.7, T), atol=1e-10 * n)
    forms = [np.vdot(a, X) for a in A[1:]]
    np.testing.assert_allclose(inequality.diagonal_forms(X, XG), forms, rtol=1e-10, atol=1e-10 * n)
    G = np.zeros((m, n))
    for block in problem.blocks:
        G[block.rows, block.columns] = block.weight.mid
    np.testing.assert_allclose(XG, X @ G.T, atol=1e-12 * n)
    np.testing.assert_allclose(inequality.from_weights(XG), G @ X @ G.T, atol=1e-11 * n)
    E = np.eye(n)[problem.n_in :]
    U, V = E - problem.alpha[:, None] * G, E - problem.beta[:, None] * G
    M = 0.7 * np.diag(inequality.e0) + U.T @ (T[:, None] * V) + V.T @ (T[:, None] * U) - inequality.K
    np.testing.assert_allclose(inequality.matrix(0.7, T), M, atol=1e-11)


def test_one_multiplier_a_layer() -> None:
    problem, inequality, _ = setting(4, 9, 7, 3)
    start = closed_forms.strict_point(problem, inequality, per_layer=True)
    assert start is not None
    shares = closed_forms.layer_shares(problem)
    t = np.array([(start[1] / problem.share)[problem.layer == k][0] for k in range(2)])
    np.testing.assert_allclose(shares @ t, start[1])
    found = interior_point.solve(inequality, (start[0], t), shares=shares, tolerance=1e-9)
    T = found.points[-1][1] / problem.share
    assert all(np.ptp(T[problem.layer == k]) <= 1e-12 * T.max() for k in range(2))
    assert found.points[-1][0] >= interior_point.solve(inequality, setting(4, 9, 7, 3)[2]).points[-1][0] * (1 - 1e-7)


def test_deadline_and_start() -> None:
    _, inequality, start = setting(4, 9, 7, 3)
    stopped = interior_point.solve(inequality, start, deadline=time.monotonic() - 1.0)
    assert (stopped.stopped, stopped.iterations) == ("time_limit", 1)
    with pytest.raises(np.linalg.LinAlgError):
        interior_point.solve(inequality, (0.0, start[1]))


def test_step_lengths_by_lanczos_are_those_of_all_eigenvalues() -> None:
    rng = np.random.default_rng(1)
    for seed in range(5):
        Z, D = np.random.default_rng(seed).normal(size=(2, 150, 150))
        Y, dY = Z @ Z.T + np.eye(150), D + D.T
        L = np.linalg.cholesky(Y)
        inverse = np.linalg.inv(L)
        least = np.linalg.eigvalsh(inverse @ dY @ inverse.T)[0]
        assert interior_point._least_eigenvalue(L, dY) == pytest.approx(least, rel=0.1)
    assert interior_point._step_length(np.eye(3), np.eye(3)) == np.inf
    assert interior_point._step_length(np.eye(3), np.diag([-2.0, 1.0, 0.0])) == pytest.approx(0.5)
    del rng
