from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from torch import nn

from fpstab.maps import SelfMap
from fpstab.proofs.functions import IDENTITY
from fpstab.proofs.networks import Layer, NotProvable, enclose, read_layers
from fpstab.proofs.slices import Sliced
from tests.proofs.references import cauchy, evaluate, module

wild = st.integers(0, 2**32 - 1)


def draw(seed: int, m: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of all sizes, with cancellation."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(m, n)) * 10.0 ** rng.uniform(-8, 8, size=(m, n))
    W[:, n // 2 :] = -W[:, : n - n // 2][:, ::-1] * (1 + rng.integers(0, 2, size=(m, n - n // 2)) * 2.0**-50)
    return W, rng.normal(size=m), rng.normal(size=n) * rng.choice([1.0, 1e-5, 1e5], size=n)


def exact(W: np.ndarray, x: np.ndarray, b: np.ndarray) -> list[Fraction]:
    return [
        sum((Fraction(w) * Fraction(v) for w, v in zip(row.tolist(), x.tolist(), strict=True)), Fraction(c))
        for row, c in zip(W, b.tolist(), strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(seed=wild, n=st.integers(1, 30))
def test_products_hold_the_exact_ones(seed: int, n: int) -> None:
    W, b, x = draw(seed, 3, n)
    z, error = Layer(W, b, IDENTITY).affine(x[None], None)
    for value, lost, true in zip(z[0].tolist(), error[0].tolist(), exact(W, x, b), strict=True):
        assert Fraction(value - lost) <= true <= Fraction(value + lost)


@settings(max_examples=40, deadline=None)
@given(seed=wild, n=st.integers(1, 30))
def test_products_of_boxes_hold_those_of_corners(seed: int, n: int) -> None:
    W, b, x = draw(seed, 3, n)
    rng = np.random.default_rng(seed)
    radius = np.abs(rng.normal(size=n))
    corner = x + rng.choice([-1.0, 1.0], size=n) * radius * 0.999999
    z, error = Layer(W, b, IDENTITY).affine(x[None], radius[None])
    for value, lost, true in zip(z[0].tolist(), error[0].tolist(), exact(W, corner, b), strict=True):
        assert Fraction(value - lost) <= true <= Fraction(value + lost)


@settings(max_examples=40, deadline=None)
@given(seed=wild, n=st.integers(1, 60))
def test_sliced_products_hold_the_exact_ones(seed: int, n: int) -> None:
    W, b, x = draw(seed, 3, n)
    value, lost = Sliced(W).affine(x, b)
    for z, error, true in zip(value.tolist(), lost.tolist(), exact(W, x, b), strict=True):
        assert Fraction(z - error) <= true <= Fraction(z + error)


def test_sliced_products_are_precise() -> None:
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(20, 784)), rng.normal(size=784)
    value, lost = Sliced(W).affine(x, np.zeros(20))
    plain = Layer(W, np.zeros(20), IDENTITY).affine(x[None], None)[1][0]
    true = exact(W, x, np.zeros(20))
    assert max(abs(Fraction(z) - t) for z, t in zip(value.tolist(), true, strict=True)) <= Fraction(2.0**-47)
    assert (lost < plain / 500).all()


@pytest.mark.parametrize("activation", ["tanh", "hardtanh", "sigmoid", "relu", "leaky_relu", "erf", "unit_erf"])
@pytest.mark.parametrize("precise", [False, True])
def test_enclosures_hold_values_and_chords(activation: str, precise: bool) -> None:
    """At points in boxes of all sizes, in 200 bits; a chord's slope matrix is not unique, so its product is compared."""
    layers = cauchy(3, activation, depth=3, width=12)
    rng = np.random.default_rng(1)
    low = rng.uniform(-1, 1, (25, 2))
    width = 10.0 ** rng.uniform(-14, 0, (25, 1)) * rng.uniform(size=(25, 2))
    high = low + width
    of = enclose(read_layers(layers), low, high, precise=precise)
    for k in range(25):
        x, y = (np.clip(low[k] + rng.uniform(size=2) * width[k], low[k], high[k]) for _ in range(2))
        with mp.workprec(200):
            (fx, _), (fy, _) = (evaluate(layers, [mpf(float(v)) for v in point]) for point in (x, y))
            (fc, J) = evaluate(layers, [mpf(float(v)) for v in of.centre[k]])
            for i in range(2):
                assert mpf(float(of.low[k, i])) <= fx[i] <= mpf(float(of.high[k, i]))
                assert abs(fc[i] - mpf(float(of.value[k, i]))) <= mpf(float(of.error[k, i]))
                difference = [mpf(float(a)) - mpf(float(b)) for a, b in zip(x, y, strict=True)]
                middle = sum(mpf(float(s)) * d for s, d in zip(of.slope[k, i], difference, strict=True))
                reach = sum(mpf(float(s)) * abs(d) for s, d in zip(of.slope_radius[k, i], difference, strict=True))
                assert abs(fx[i] - fy[i] - middle) <= reach
                for j in range(2):  # almost surely no kink
                    assert abs(J[i, j] - mpf(float(of.slope[k, i, j]))) <= mpf(float(of.slope_radius[k, i, j]))


def test_narrow_boxes_have_narrow_images() -> None:
    layers = read_layers(cauchy(3, "tanh", depth=3, width=12))
    point = np.array([[0.3, -0.2]])
    of = enclose(layers, point, point)
    assert float((of.high - of.low).max()) < 1e-11
    assert float(of.slope_radius.max()) < 1e-10


def test_nothing_is_said_beyond_the_largest_float() -> None:
    layers = [Layer(np.full((2, 2), 1e200), np.zeros(2), IDENTITY)] * 2
    with np.errstate(all="ignore"):
        of = enclose(layers, np.ones((1, 2)), np.full((1, 2), 2.0))
    assert not ((of.low > -np.inf) & (of.low > 1e300)).any()
    assert not np.isfinite(of.slope_radius).any()


def test_a_module_and_its_layers_are_read_alike() -> None:
    layers = cauchy(0, "hardtanh")
    for given_ in (module(layers), SelfMap(module(layers), torch.zeros(1, 2)), layers):
        read = read_layers(given_)
        for layer, (W, b, _) in zip(read, layers, strict=True):
            assert np.array_equal(layer.weight, W)
            assert np.array_equal(layer.bias, b)


def test_modes_and_weights_are_left_alone() -> None:
    net = nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 2)).train()
    before = [p.clone() for p in net.parameters()]
    assert len(read_layers(net)) == 2
    assert net.training
    assert all(p.dtype == torch.float32 and torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x)


nan_layer = nn.Linear(2, 2)
with torch.no_grad():
    nan_layer.weight[0, 1] = float("nan")


@pytest.mark.parametrize(
    ("network", "code", "message"),
    [
        (Skip(), "not_a_chain", "Skip is no chain"),
        (torch.tanh, "not_a_chain", "function"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), "unsupported", "GELU"),
        ([(np.eye(2), None, "swish")], "unsupported", "swish"),
        ([([[float("inf")]], None, "tanh")], "nonfinite", "layer 1"),
        ([([[1.0]], [float("nan")], "tanh")], "nonfinite", "b of layer 1"),
        (nan_layer, "nonfinite", "weight"),
    ],
)
def test_refusals(network: Any, code: str, message: str) -> None:
    with pytest.raises(NotProvable, match=message) as caught:
        read_layers(network)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (nn.Linear(2, 3), ValueError, "2 values"),
        ([(np.ones((3, 2)), None, "tanh")], ValueError, "maps 2 values to 3"),
        ([(np.ones((3, 2)), None, "tanh"), (np.ones((2, 4)), None, None)], ValueError, "layer 2 takes 4"),
        ([(np.ones((2, 2)), np.ones(3), "tanh")], ValueError, "bias of shape"),
        ([(np.ones(2), None, "tanh")], ValueError, "matrix"),
        ([np.ones((2, 2))], TypeError, "layer 1"),
        ([], ValueError, "No layers"),
        (3.0, TypeError, "float"),
    ],
)
def test_bad_arguments(network: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_layers(network)
