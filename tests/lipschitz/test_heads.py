import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.lipschitz import head_lipschitz
from fpstab.results import AnalysisError
from tests.lipschitz.networks import norm


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 12), features=st.integers(1, 40))
def test_linear_heads(seed: int, classes: int, features: int) -> None:
    W = np.random.default_rng(seed).normal(size=(classes, features))
    bound = head_lipschitz(W)
    assert norm(W) * (1 - 1e-15) <= bound.value <= norm(W) * (1 + 1e-12)
    assert bound.exact
    assert bound.certified


def test_float32_is_cast_first() -> None:
    W = torch.randn(10, 4096, generator=torch.Generator().manual_seed(0))
    truth = norm(W.double().numpy())
    assert truth <= head_lipschitz(W).value <= truth * (1 + 1e-10)


def softmax_jacobian(z: np.ndarray, W: np.ndarray, temperature: float) -> np.ndarray:
    p = np.exp(z - z.max())
    p /= p.sum()
    return (np.diag(p) - np.outer(p, p)) @ W / temperature


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), classes=st.integers(2, 8), features=st.integers(1, 12), temperature=st.floats(0.2, 5.0)
)
def test_softmax_heads(seed: int, classes: int, features: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(classes, features))
    bound = head_lipschitz(W, softmax=True, temperature=temperature)
    widest = max(float(np.linalg.norm(a - b)) for a in W for b in W)
    assert bound.value == pytest.approx(2**0.5 / 4 * widest / temperature, rel=1e-12)
    assert bound.value <= head_lipschitz(W).value / (2 * temperature) * (1 + 1e-12)
    # nowhere is the Jacobian larger: at random logits, and at those that let two classes share
    logits = [scale * rng.normal(size=classes) for scale in (0.1, 1.0, 5.0, 20.0) for _ in range(8)]
    logits += [60.0 * (np.eye(classes)[i] + np.eye(classes)[j]) for i in range(classes) for j in range(i)]
    largest = max(norm(softmax_jacobian(z, W, temperature)) for z in logits)
    assert largest <= bound.value * (1 + 1e-12)
    assert largest >= bound.value * (1 - 1e-9)  # of the logits that share; whether x can reach them is another matter


def test_exact_only_where_two_classes_can_share() -> None:
    rng = np.random.default_rng(0)
    assert head_lipschitz(rng.normal(size=(4, 9)), softmax=True).exact
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # no x makes opposite corners win
    assert not head_lipschitz(square, softmax=True).exact
    assert head_lipschitz(square, softmax=True).certified


def test_many_classes() -> None:
    W = np.random.default_rng(1).normal(size=(300, 20))
    widest = max(float(np.linalg.norm(W - row, axis=1).max()) for row in W)
    assert head_lipschitz(W, softmax=True).value == pytest.approx(2**0.5 / 4 * widest, rel=1e-12)


@pytest.mark.parametrize("softmax", [False, True])
def test_scales_and_zeros(softmax: bool) -> None:
    W = np.random.default_rng(2).normal(size=(5, 7))
    value = head_lipschitz(W, softmax).value
    for scale in (1e150, 1e-150, 1e-300):
        assert head_lipschitz(scale * W, softmax).value == pytest.approx(scale * value, rel=1e-12)
    zero = head_lipschitz(np.zeros((5, 7)), softmax)
    assert (zero.value, zero.exact, zero.method) == (0.0, True, "zero")
    assert head_lipschitz(np.ones((5, 7)), softmax=True).value == 0.0  # equal rows: softmax does not see them
    assert head_lipschitz(np.full((2, 2), 1.7e308), throw=False).status.code == "overflow"
    with pytest.raises(AnalysisError, match="rescale"):
        head_lipschitz(np.full((2, 2), 1.7e308))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperatures(temperature: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        head_lipschitz(np.eye(2), softmax=True, temperature=temperature)


def test_bad_weights() -> None:
    with pytest.raises(ValueError, match="weight of the head has 1 NaN"):
        head_lipschitz([[1.0, math.nan]])
    with pytest.raises(TypeError, match="expected real floating-point"):
        head_lipschitz(torch.ones(2, 2, dtype=torch.int64))
