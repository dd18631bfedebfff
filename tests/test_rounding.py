import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.rounding import (
    Ball,
    down,
    gamma,
    gram,
    gram_roundings,
    ldexp_up,
    multiply_up,
    positive_definite,
    product_up,
    spectral_norm,
    sqrt_up,
    up,
)
from tests.lipschitz.networks import Array, exactly_positive

positive = st.floats(1e-150, 1e150)


@given(x=positive)
def test_roots_are_rounded_up(x: float) -> None:
    assert Fraction(sqrt_up(x)) ** 2 >= Fraction(x)
    assert sqrt_up(x) <= math.sqrt(x) * (1 + 2**-51)


@given(x=positive, y=positive)
def test_products_are_rounded_up(x: float, y: float) -> None:
    assert Fraction(multiply_up(x, y)) >= Fraction(x) * Fraction(y)
    assert multiply_up(x, 0.0) == 0.0


@given(x=st.floats(min_value=5e-324, max_value=1.0), exponent=st.integers(-1100, 50))
def test_powers_are_rounded_up(x: float, exponent: int) -> None:
    assert Fraction(ldexp_up(x, exponent)) >= Fraction(x) * Fraction(2) ** exponent


def test_overflow_is_infinite() -> None:
    assert ldexp_up(1.0, 1024) == math.inf
    assert multiply_up(1e200, 1e200) == math.inf


@given(n=st.integers(1, 10**6))
def test_gamma(n: int) -> None:
    u = Fraction(1, 2**53)
    exact = n * u / (1 - n * u)
    assert exact <= Fraction(gamma(n)) <= exact * (1 + Fraction(1, 10**14))


def test_neighbours() -> None:
    assert down(1.0) < 1.0 < up(1.0)
    assert up(0.0) > 0.0


def exact_product(A: Array, B: Array) -> list[list[Fraction]]:
    return [
        [
            sum((Fraction(float(a)) * Fraction(float(b)) for a, b in zip(row, column, strict=True)), Fraction(0))
            for column in B.T
        ]
        for row in A
    ]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_bounds_of_products_hold_exactly(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(3, n)) * 10.0 ** rng.integers(-9, 9, size=n), rng.normal(size=(n, 2))
    bound = product_up(np.abs(A), np.abs(B))
    ball = Ball(A, np.full(A.shape, 1e-9)) @ Ball(B)
    assert ball.radius is not None
    wiggled = A + rng.uniform(-1e-9, 1e-9, size=A.shape) * (1 - 1e-9)
    for i, row in enumerate(exact_product(np.abs(A), np.abs(B))):
        assert all(Fraction(float(bound[i, j])) >= x for j, x in enumerate(row))
    for i, row in enumerate(exact_product(wiggled, B)):
        assert all(
            abs(Fraction(float(ball.mid[i, j])) - x) <= Fraction(float(ball.radius[i, j])) for j, x in enumerate(row)
        )


@pytest.mark.parametrize("n", [5, 300])
def test_roundings_of_a_gram_matrix(n: int) -> None:
    A = np.random.default_rng(n).normal(size=(3, n))
    G, exact, sizes = gram(A), exact_product(A, A.T), np.abs(A) @ np.abs(A).T
    for i in range(3):
        for j in range(3):
            lost = abs(Fraction(float(G[i, j])) - exact[i][j])
            assert lost <= Fraction(gamma(gram_roundings(n))) * Fraction(float(sizes[i, j])) * Fraction(1001, 1000)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), tiny=st.integers(20, 70))
def test_what_is_proved_positive_is(seed: int, n: int, tiny: int) -> None:
    """Singular matrices with a little added or taken away, which floating point cannot tell apart."""
    rng = np.random.default_rng(seed)
    factor = rng.integers(-8, 9, size=(n, max(n - 1, 1))).astype(float)
    matrix = factor @ factor.T + np.diag(rng.choice([-1.0, 0.0, 1.0], size=n)) * 2.0**-tiny
    slack = np.full(n, 2.0 ** -(tiny + 2)) * (seed % 2)
    if positive_definite(matrix, slack):
        reduced = [[Fraction(float(x)) for x in row] for row in matrix]
        for i in range(n):
            reduced[i][i] -= Fraction(float(slack[i]))
        assert exactly_positive(reduced)


def test_positive_matrices_are_proved_so() -> None:
    A = np.random.default_rng(0).normal(size=(60, 80))
    assert positive_definite(A @ A.T, np.zeros(60))
    assert not positive_definite(-np.eye(3), np.zeros(3))
    assert not positive_definite(np.eye(3), np.full(3, 2.0))
    assert not positive_definite(np.full((2, 2), np.nan), np.zeros(2))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_spectral_norm_is_above_and_close(seed: int, rows: int, columns: int) -> None:
    W = np.round(np.random.default_rng(seed).normal(size=(rows, columns)) * 100)
    bound = spectral_norm(W)
    if not W.any():
        assert bound == 0.0
        return
    gram_matrix = exact_product(W, W.T)
    shifted = [[Fraction(bound) ** 2 * (i == j) - x for j, x in enumerate(row)] for i, row in enumerate(gram_matrix)]
    assert exactly_positive(shifted)
    assert bound <= np.linalg.svd(W, compute_uv=False)[0] * (1 + 1e-13)


@pytest.mark.parametrize("shape", [(10, 4096), (4096, 10), (300, 200)])
@pytest.mark.parametrize("scale", [1.0, 1e150, 1e-150, 1e-300])
def test_spectral_norm_of_large_and_scaled(shape: tuple[int, int], scale: float) -> None:
    W = np.random.default_rng(1).normal(size=shape)
    truth = np.linalg.svd(W, compute_uv=False)[0]
    assert truth * (1 - 1e-15) <= spectral_norm(W * scale) / scale <= truth * (1 + 1e-10)


def test_spectral_norm_of_a_ball_covers_it() -> None:
    rng = np.random.default_rng(2)
    W, radius = rng.normal(size=(6, 9)), 1e-3 * rng.random((6, 9))
    bound = spectral_norm(Ball(W, radius))
    worst = max(np.linalg.svd(W + radius * rng.choice([-1, 1], size=W.shape), compute_uv=False)[0] for _ in range(300))
    assert worst <= bound <= worst * 1.01


def test_ties_and_rank_one() -> None:
    assert 7.0 <= spectral_norm(7.0 * np.eye(40)) <= 7.0 * (1 + 1e-12)
    assert 5.0 <= spectral_norm(np.outer(np.ones(25), np.eye(30)[0])) <= 5.0 * (1 + 1e-12)
    assert spectral_norm(np.full((2, 2), 1.7e308)) == math.inf
