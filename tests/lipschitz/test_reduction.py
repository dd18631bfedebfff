import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.lipschitz import General
from fpstab.lipschitz.blocks import Linear, Reduced
from fpstab.lipschitz.brackets import responses
from fpstab.lipschitz.problem import feedforward
from fpstab.lipschitz.reduction import reduce
from tests.lipschitz.networks import gaussian, jacobian, norm, random_case


def norm_of(problem: Reduced, slopes: np.ndarray) -> float:
    """The norm of the reduced problem's Jacobian, in the network's units."""
    Y = responses(problem, slopes)
    assert Y is not None
    Z = np.vstack([np.eye(problem.n_in), Y])
    return math.ldexp(norm(problem.out.weight.mid @ Z[problem.out.columns]), problem.exponent)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), transposed=st.sampled_from([False, True, None]))
def test_jacobians_keep_their_norms(seed: int, transposed: bool | None) -> None:
    weights, slopes = random_case(seed)
    problem = reduce(feedforward(weights, slopes), transposed)
    if not isinstance(problem, Reduced):
        return
    rng = np.random.default_rng(seed)
    sizes = [len(alpha) for alpha, _ in slopes]
    full = np.concatenate([rng.uniform(alpha, beta) for alpha, beta in slopes])
    truth = norm(jacobian(weights, np.split(full, np.cumsum(sizes)[:-1])))
    assert norm_of(problem, full[problem.neurons]) == pytest.approx(truth, rel=1e-9, abs=1e-9 * norm(weights[0]))


def test_general_problems_keep_them_too() -> None:
    rng = np.random.default_rng(0)
    A, B, C, D = (
        0.3 * rng.normal(size=(7, 7)),
        rng.normal(size=(7, 4)),
        rng.normal(size=(3, 7)),
        rng.normal(size=(3, 4)),
    )
    alpha, beta = np.full(7, -0.2), np.full(7, 1.0)
    alpha[2] = beta[2] = 0.4  # linear: it folds away
    net = General(A, B, C, D, alpha, beta, implicit=True)  # type: ignore[arg-type]
    for transposed in (False, True):
        problem = reduce(net, transposed)
        assert isinstance(problem, Reduced)
        assert problem.n_neurons == 6
        for _ in range(5):
            slopes = rng.uniform(alpha, beta)
            truth = norm(C @ np.linalg.solve(np.eye(7) - slopes[:, None] * A, slopes[:, None] * B) + D)
            assert norm_of(problem, slopes[problem.neurons]) == pytest.approx(truth, rel=1e-10)


def test_the_smaller_side_comes_first_and_wide_inputs_shrink() -> None:
    for sizes, n in (
        ((784, 100, 10), 110),
        ((10, 100, 784), 110),
        ((784, 30, 20, 500), 30 + 20 + 20),
        ((50, 9, 60), 18),
    ):
        problem = reduce(feedforward(gaussian(*sizes), (0.0, 1.0)))
        assert isinstance(problem, Reduced)
        assert problem.n == n


def test_shrinking_never_makes_a_jacobian_smaller() -> None:
    from fractions import Fraction

    from tests.lipschitz.networks import exactly_positive

    weights = [np.round(100 * w) for w in gaussian(9, 3, 4)]
    problem = reduce(feedforward(weights, (0.0, 1.0)), False)
    assert isinstance(problem, Reduced)
    R = np.ldexp(problem.blocks[0].weight.mid, (problem.exponent - problem.multiplier_exponent // 2)[:, None])
    exact = [
        [
            sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(R[i], R[j], strict=True)), Fraction(0))
            - sum(
                (Fraction(float(a)) * Fraction(float(b)) for a, b in zip(weights[0][i], weights[0][j], strict=True)),
                Fraction(0),
            )
            for j in range(3)
        ]
        for i in range(3)
    ]
    assert exactly_positive(exact)
    assert max(abs(float(x)) for row in exact for x in row) <= 1e-11 * norm(weights[0]) ** 2


def test_powers_of_two_are_undone_exactly() -> None:
    weights = [np.ldexp(w, e) for w, e in zip(gaussian(3, 5, 2), (300, -200), strict=True)]
    problem = reduce(feedforward(weights, (0.0, 1.0)), False)
    assert isinstance(problem, Reduced)
    assert problem.blocks[0].weight.radius is None
    mid = problem.out.weight.mid
    assert 1e-2 < np.abs(mid).max() < 1e2
    assert np.array_equal(np.frexp(mid)[0], np.frexp(weights[1])[0])


def test_what_folds_to_a_linear_map() -> None:
    weights = gaussian(3, 5, 4, 2)
    linear = reduce(feedforward(weights, [(0.5, 0.5), (-2.0, -2.0)]))
    assert isinstance(linear, Linear)
    exact = -weights[2] @ weights[1] @ weights[0]
    assert linear.weight.radius is not None
    assert (
        np.abs(np.ldexp(linear.weight.mid, linear.exponent) - exact)
        <= np.ldexp(linear.weight.radius, linear.exponent) * 1.01
    ).all()
    assert reduce(feedforward([np.zeros((2, 3))], "auto")) is None
