from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.proofs.eigenvalues import eigenvalue_discs, index, power_decays, stability
from fpstab.rounding import Array, Ball


def with_radius(seed: int, n: int, rho: float) -> Array:
    """A random matrix of this spectral radius to rounding, none too normal."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n)) + 2.0 * np.triu(rng.normal(size=(n, n)), 1)
    return np.asarray(A * (rho / np.abs(np.linalg.eigvals(A)).max()))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("seed", range(5))
def test_both_sides_of_the_unit_circle(n: int, seed: int) -> None:
    for rho, expected in ((0.5, "stable"), (0.999, "stable"), (1.001, "unstable"), (3.0, "unstable")):
        assert stability(Ball(with_radius(seed, n, rho))) == expected


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_what_straddles_the_circle_is_unknown(n: int) -> None:
    A = with_radius(0, n, 1.0)
    assert stability(Ball(A, np.full((n, n), 1e-3))) == "unknown"
    assert stability(Ball(np.eye(n))) == "unknown"
    assert stability(Ball(A, np.full((n, n), np.nan))) == "unknown"


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 6),
    scale=st.floats(0.2, 3.0),
    spread=st.sampled_from([0.0, 1e-6, 1e-2, 0.2]),
)
def test_verdicts_hold_for_all_matrices_of_a_ball(seed: int, n: int, scale: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    mid = rng.normal(size=(n, n)) * scale / np.sqrt(n)
    radius = spread * rng.uniform(size=(n, n))
    verdict, sign = stability(Ball(mid, radius)), index(Ball(mid, radius))
    for _ in range(20):
        A = mid + rng.choice([-1.0, 0.0, 1.0], size=(n, n)) * radius
        rho = float(np.abs(np.linalg.eigvals(A)).max())
        assert verdict == "unknown" or (rho < 1) == (verdict == "stable")
        assert sign == 0 or sign == np.sign(np.linalg.det(np.eye(n) - A))
    if spread == 0.0 and abs(rho - 1) > 1e-6:
        assert verdict != "unknown"
        assert sign != 0


@pytest.mark.parametrize("n", [3, 6])
def test_nilpotent_matrices_have_no_basis_and_decay(n: int) -> None:
    A = 5.0 * np.eye(n, k=1)
    assert power_decays(Ball(A))
    assert stability(Ball(A)) == "stable"


def test_discs_hold_the_eigenvalues() -> None:
    A = with_radius(1, 8, 2.0)
    discs = eigenvalue_discs(Ball(A, np.full((8, 8), 1e-9)))
    assert discs is not None
    centre, radius = discs
    assert radius.max() < 1e-4
    for value in np.linalg.eigvals(A):
        assert (np.abs(centre - value) <= radius + 1e-13).any()


def determinant(A: list[list[Fraction]]) -> Fraction:
    if len(A) == 1:
        return A[0][0]
    return sum(
        (Fraction((-1) ** j) * A[0][j] * determinant([row[:j] + row[j + 1 :] for row in A[1:]]) for j in range(len(A))),
        Fraction(0),
    )


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_index_is_the_exact_sign(n: int, seed: int) -> None:
    A = np.random.default_rng(seed).normal(size=(n, n)) * 2
    exact = determinant([[Fraction(int(i == j)) - Fraction(float(A[i, j])) for j in range(n)] for i in range(n)])
    assert index(Ball(A)) == (1 if exact > 0 else -1)


def test_a_singular_matrix_has_no_index() -> None:
    for n in (1, 2, 3):
        assert index(Ball(np.eye(n))) == 0
        A = np.zeros((n, n))
        A[0, 0] = 1.0
        assert index(Ball(A)) == 0
