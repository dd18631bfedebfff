import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.lipschitz import General, certify, lipschitz_bound, verify
from tests.lipschitz.networks import SLOPES, attack, exact_inequality, exactly_positive, gaussian, textbook

RELU = (0.0, 1.0)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_certificates_hold_without_rounding(seed: int) -> None:
    """M(value², T) in rationals is positive semidefinite: the certificate is a proof."""
    rng = np.random.default_rng(seed)
    weights = gaussian(*rng.integers(1, 5, size=rng.integers(3, 5)), seed=seed)
    alpha, beta = SLOPES[seed % 10]
    slopes = [(np.full(len(w), alpha), np.full(len(w), beta)) for w in weights[:-1]]
    bound = lipschitz_bound(weights, slopes=slopes)
    if not bound.multipliers or any((T == 0).any() for T in bound.multipliers):
        return
    multipliers = [T.numpy() for T in bound.multipliers]
    straight = exact_inequality(weights, slopes, multipliers, bound.value)
    transposed = exact_inequality([w.T for w in reversed(weights)], slopes[::-1], multipliers[::-1], bound.value)
    assert exactly_positive(straight) or exactly_positive(transposed)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), near=st.floats(-1e-9, 1e-9))
def test_nothing_false_is_verified(seed: int, near: float) -> None:
    """Claims around the least constant that given multipliers prove, which rationals decide."""
    rng = np.random.default_rng(seed)
    weights, multipliers = gaussian(2, 3, 2, seed=seed), [rng.random(3) * 3]
    slopes = [(np.zeros(3), np.ones(3))]
    L = certify(weights, RELU, multipliers) * (1 + near)
    if verify(weights, RELU, multipliers, L):
        straight = exact_inequality(weights, slopes, multipliers, L)
        assert exactly_positive(straight) or exactly_positive(
            exact_inequality([w.T for w in reversed(weights)], slopes, multipliers, L)
        )


def test_the_value_is_verified_and_less_is_not() -> None:
    weights = gaussian(5, 12, 9, 4)
    bound = lipschitz_bound(weights, slopes=RELU)
    assert verify(weights, RELU, bound.multipliers, bound.value)
    assert verify(weights, RELU, bound.multipliers, 2 * bound.value)
    assert not verify(weights, RELU, bound.multipliers, bound.optimum_lower * (1 - 1e-9))
    assert not verify(
        weights,
        RELU,
        bound.multipliers,
        attack(weights, [(np.zeros(12), np.ones(12)), (np.zeros(9), np.ones(9))]) * 0.999,
    )
    assert not verify(weights, RELU, bound.multipliers, -1.0)
    assert not verify(weights, RELU, bound.multipliers, math.nan)


@pytest.mark.parametrize("spoil", [-1.0, math.nan, math.inf])
def test_multipliers_that_are_none(spoil: float) -> None:
    weights = gaussian(3, 5, 2)
    bound = lipschitz_bound(weights, slopes=RELU)
    T = bound.multipliers[0].clone()
    T[0] = spoil
    assert not verify(weights, RELU, [T], 10 * bound.value)


def test_multipliers_of_the_wrong_shape() -> None:
    weights = gaussian(3, 5, 2)
    with pytest.raises(ValueError, match="0 multipliers for 1 hidden"):
        verify(weights, RELU, [], 1.0)
    with pytest.raises(ValueError, match="A layer of 5 neurons got 4 multipliers"):
        verify(weights, RELU, [torch.ones(4)], 1.0)


def test_linear_maps_need_no_multipliers() -> None:
    assert verify([np.diag([3.0, 4.0])], L=4.0 * (1 + 1e-12))
    assert not verify([np.diag([3.0, 4.0])], L=4.0 * (1 - 1e-12))
    assert certify([np.diag([3.0, 4.0])]) == pytest.approx(4.0, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_multipliers_of_another_solver(seed: int) -> None:
    """SCS at its defaults: its own value may be below the truth, its multipliers are good all the same."""
    weights = gaussian(3, 14, 11, 3, seed=seed)
    slopes = [(np.zeros(14), np.ones(14)), (np.zeros(11), np.ones(11))]
    raw, multipliers = textbook(weights, 0.0, 1.0, solver="SCS")
    bound = lipschitz_bound(weights, slopes=RELU)
    certified = certify(weights, RELU, np.split(multipliers, [14]))
    assert attack(weights, slopes) <= certified
    assert bound.optimum_lower <= certified <= 1.005 * bound.optimum_lower
    assert raw == pytest.approx(certified, rel=5e-3)


def test_any_multipliers_certify_something() -> None:
    weights = gaussian(3, 6, 2)
    best = lipschitz_bound(weights, slopes=RELU).value
    for multipliers in (np.zeros(6), np.ones(6), np.full(6, 1e30), -np.ones(6)):
        assert best * (1 - 1e-7) <= certify(weights, RELU, [multipliers]) < math.inf


def test_an_implicit_layer_is_not_verified_by_an_infinite_constant() -> None:
    loop = General([[1.0]], [[1.0]], [[1.0]], [[0.0]], 0.0, 1.0, implicit=True)
    assert not verify(loop, multipliers=[[1.0]], L=math.inf)
    assert not verify(loop, multipliers=[[1.0]], L=1e9)
    assert certify(loop, multipliers=[[1.0]]) == math.inf
