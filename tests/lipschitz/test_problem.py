import numpy as np
import pytest
import torch

from fpstab.lipschitz import Feedforward, General
from fpstab.lipschitz.problem import feedforward
from tests.lipschitz.networks import gaussian

RELU = (0.0, 1.0)


def test_arrays_of_any_kind_become_float64() -> None:
    weight = torch.randn(3, 2, dtype=torch.bfloat16, requires_grad=True)
    net = Feedforward((weight, np.ones((1, 3), dtype=np.float32)), ((0, torch.tensor([1.0, 2.0, 3.0])),))
    assert all(w.dtype == torch.float64 and not w.requires_grad and w.device.type == "cpu" for w in net.weights)
    assert torch.equal(net.weights[0], weight.detach().double())
    assert net.slopes[0][0].tolist() == [0.0, 0.0, 0.0]
    assert net.slopes[0][1].tolist() == [1.0, 2.0, 3.0]
    assert net.names == ("0", "1")


def test_the_weights_are_copied() -> None:
    weight = torch.ones(2, 2, dtype=torch.float64)
    net = Feedforward((weight,), ())
    weight.zero_()
    assert net.weights[0].sum() == 4


@pytest.mark.parametrize(
    ("weights", "slopes", "names", "message"),
    [
        ([], (), (), "at least one weight"),
        ([np.eye(2), np.full((2, 2), np.nan)], (RELU,), ("a", "b"), "layer 'b' has 4 NaN or infinite"),
        ([np.eye(2), np.ones((2, 3))], (RELU,), ("a", "b"), "Layer 'b' takes 3 inputs, but layer 'a' gives 2"),
        ([np.eye(2), np.eye(2)], ((1.0, 0.0),), ("a", "b"), "after layer 'a' have alpha = 1 > beta = 0"),
        ([np.eye(2), np.eye(2)], (([0.0, 0.0, 0.0], 1.0),), (), r"shape \(3,\): expected a number or \[2\]"),
        ([np.eye(2), np.eye(2)], ((np.nan, 1.0),), (), "NaN or infinite"),
        ([np.eye(2), np.eye(2)], (), (), "0 pairs of slopes for 2 weights"),
        ([np.ones(3)], (), (), "expected a matrix"),
        ([np.ones((0, 3))], (), (), "at least one row"),
        ([np.eye(2)], (), ("a", "b"), "2 names for 1 weights"),
    ],
)
def test_bad_networks(weights, slopes, names, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        Feedforward(tuple(weights), slopes, names)


@pytest.mark.parametrize("weight", [np.ones((2, 2), dtype=int), np.ones((2, 2)) * 1j, np.ones((2, 2), dtype=bool)])
def test_bad_types(weight) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match=r"layer '0' has dtype .*: expected real floating-point"):
        Feedforward((weight,), ())


def test_slopes_of_weights_are_not_guessed() -> None:
    weights = gaussian(2, 3, 1)
    with pytest.raises(ValueError, match="slopes='auto' reads the slopes from a module"):
        feedforward(weights, "auto")
    with pytest.raises(ValueError, match="'relu' is unknown"):
        feedforward(weights, "relu")
    assert feedforward([np.eye(2)], "auto").slopes == ()
    assert len(feedforward(gaussian(2, 3, 4, 1), RELU).slopes) == 2
    assert len(feedforward(gaussian(2, 3, 4, 1), [RELU, (0.0, 0.5)]).slopes) == 2
    assert feedforward(weights, [(np.zeros(3), np.ones(3))]).slopes[0][1].tolist() == [1.0] * 3


def test_general() -> None:
    A = np.array([[0.0, 0.0], [1.0, 0.0]])
    net = General(A, np.eye(2), np.ones((1, 2)), np.zeros((1, 2)), 0.0, 1.0, layers=(1, 1))
    assert (net.n_in, net.n_hidden, net.n_out) == (2, 2, 1)
    with pytest.raises(ValueError, match="implicit=True"):
        General(A.T, np.eye(2), np.ones((1, 2)), np.zeros((1, 2)), 0.0, 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        General(A, np.eye(3), np.ones((1, 2)), np.zeros((1, 2)), 0.0, 1.0)
    with pytest.raises(ValueError, match="do not add up"):
        General(A, np.eye(2), np.ones((1, 2)), np.zeros((1, 2)), 0.0, 1.0, layers=(1, 2))
