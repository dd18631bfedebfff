import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.jacobian import contraction_bracket
from fpstab.results import AnalysisError
from tests.jacobian.maps import brute_force, network, random
from tests.jacobian.test_products import Once


def naive(x, y):
    dx, dy = (torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist") for z in (x, y))
    return float((dy / dx.masked_fill(dx == 0, torch.inf)).max())


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_against_all_pairs_and_all_points(count, n, seed):
    phi, x = network(n, 8, 3, seed=seed), random(count, n, seed=seed)
    found = contraction_bracket(phi, x)
    y = phi(x).detach()
    assert found.pairwise == pytest.approx(naive(x, y), rel=1e-9)
    i, j = found.pair
    assert float((y[i] - y[j]).norm() / (x[i] - x[j]).norm()) == pytest.approx(found.pairwise)
    norms = torch.linalg.matrix_norm(brute_force(phi, x), 2)
    assert found.jacobian_norm == pytest.approx(float(norms.max()))
    assert float(norms[found.point]) == pytest.approx(found.jacobian_norm)
    assert found.lower == max(found.pairwise, found.jacobian_norm)


def test_near_pairs_and_repeated_points():
    """Gram products lose all digits of distances far below the size of the points."""
    x = torch.cat((random(30, 5), 1e-9 * random(3, 5, seed=1) + 3.0, torch.full((2, 5), 3.0)))

    def phi(z):
        return torch.sin(40 * (z - 3)) + z

    with torch.no_grad():
        assert contraction_bracket(phi, x).pairwise == pytest.approx(naive(x.double(), phi(x.double())), rel=1e-6)
    assert contraction_bracket(phi, x).pairwise > 40


def test_it_is_taken_in_parts(monkeypatch):
    phi, x = network(3, 8, 3), random(50, 3)
    whole = contraction_bracket(phi, x)
    monkeypatch.setattr("fpstab.jacobian.contraction._PAIRS", 170)
    parts = contraction_bracket(phi, x)
    assert (parts.pair, parts.pairwise) == (whole.pair, whole.pairwise)


def test_linear_maps_are_bracketed_tightly():
    A = random(4, 6)
    sigma = float(torch.linalg.matrix_norm(A, 2))
    found = contraction_bracket(lambda x: x @ A.T, random(20, 6), upper=sigma * (1 + 1e-12))
    assert found.pairwise <= found.lower <= found.upper
    assert found.lower == pytest.approx(sigma)
    assert found.scalars() == {
        "pairwise": found.pairwise,
        "jacobian_norm": found.jacobian_norm,
        "lower": found.lower,
        "upper": found.upper,
    }


def test_a_bound_that_is_none_is_found_out():
    with pytest.raises(AnalysisError, match="is at least 2 by its values"):
        contraction_bracket(lambda x: 2 * x, random(3, 2), upper=1.9)
    assert contraction_bracket(lambda x: 2 * x, random(3, 2), upper=1.9, throw=False).status.code == "contradiction"
    with pytest.raises(ValueError, match="upper=-1"):
        contraction_bracket(torch.tanh, random(3, 2), upper=-1)


def test_few_and_bad_points():
    one = contraction_bracket(lambda x: 3 * x, random(1, 2))
    assert (math.isnan(one.pairwise), one.pair, one.lower) == (True, (-1, -1), pytest.approx(3.0))
    x = random(4, 2)
    x[0, 0] = torch.nan
    found = contraction_bracket(lambda x: 3 * x, x, throw=False)
    assert found.status.code == "nonfinite"
    assert found.lower == pytest.approx(3.0)
    assert min(found.pair) > 0


def test_without_second_derivatives_pairs_are_left():
    found = contraction_bracket(lambda x: Once.apply(x).repeat(1, 8), random(5, 60), max_products=100, throw=False)
    assert found.status.code == "no_double_backward"
    assert found.lower == found.pairwise == pytest.approx(3 * 8**0.5)
