import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy.special import erf
from torch import nn

from fpstab.proofs.functions import LIBRARY_ERROR, NAMED, Bend, Clamp, Unsupported, function_of
from tests.proofs.references import sigma

CURVES = ("tanh", "sigmoid", "erf", "unit_erf")
reals = (
    st.floats(-40.0, 40.0)
    | st.floats(-1.5, 1.5)
    | st.floats(-1e-6, 1e-6)
    | st.sampled_from([-1.0, 0.0, 1.0, 1e300, -1e300])
)


def arguments() -> np.ndarray:
    """All sizes, the places where implementations change their formula, and neighbours of them."""
    rng = np.random.default_rng(0)
    special = np.array(
        [0.0, 0.3, 0.46875, 0.5, 0.55, 0.625, 0.84375, 1.0, 1.25, 1 / 0.35, 2.0, 4.0, 5.9, 6.0, 9.0, 18.9, 20.0, 22.0]
    )
    near = np.concatenate([special, np.nextafter(special, 0), np.nextafter(special, 99)])
    sizes = 10.0 ** rng.uniform(-12, 1.4, 300)
    x = np.concatenate((near, sizes, rng.uniform(0, 6, 500)))
    return np.concatenate((x, -x))


@pytest.mark.parametrize("name", ["tanh", "exp", "erf"])
def test_what_is_assumed_of_the_libraries(name: str) -> None:
    """Half of what is assumed, at 1,700 arguments: exactly this is all that the proofs take on trust."""
    x = arguments()
    function, exact, x = {
        "tanh": (np.tanh, mpmath.tanh, x),
        "exp": (np.exp, mpmath.exp, np.concatenate((-np.abs(x), -np.abs(x) * 28))),
        "erf": (erf, mpmath.erf, x),
    }[name]
    with mp.workprec(200):
        worst = max(
            abs(mpf(float(y)) - exact(mpf(float(v)))) / max(abs(exact(mpf(float(v)))), mpf(10) ** -300)
            for v, y in zip(x, function(x), strict=True)
        )
    assert worst <= LIBRARY_ERROR / 2
    assert worst > 0  # the reference sees rounding at all


@pytest.mark.parametrize("name", CURVES)
def test_values_of_curves(name: str) -> None:
    x = arguments()
    value, error = NAMED[name].at(x)
    with mp.workprec(200):
        worst = max(abs(mpf(float(y)) - sigma(name, mpf(float(v)))[0]) for v, y in zip(x, value, strict=True))
    assert worst <= mpf(float(error)) / 1.5


@pytest.mark.parametrize("name", NAMED)
@settings(max_examples=60, deadline=None)
@given(a=reals, b=reals, shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_intervals_hold_values_and_slopes_of_chords(name: str, a: float, b: float, shares: tuple[float, float]) -> None:
    low, high = min(a, b), max(a, b)
    with np.errstate(all="ignore"):
        response = NAMED[name].respond(np.array([[low]]), np.array([[high]]))
    low_value, high_value, least, largest = (
        float(each[0, 0]) for each in (response.low, response.high, response.least, response.largest)
    )
    x, y = (min(max(low + share * (high - low), low), high) for share in shares)
    with mp.workprec(2300):  # chords of arguments as different as 1e300 and 1e-6
        fx, fy = sigma(name, mpf(x))[0], sigma(name, mpf(y))[0]
        assert mpf(low_value) <= fx <= mpf(high_value)
        if x != y:
            assert mpf(least) <= (fx - fy) / (mpf(x) - mpf(y)) <= mpf(largest)
        else:
            # the slope at a point, and at a kink both one-sided ones
            beside = mpf(10) ** -600
            for z in (mpf(x) - beside, mpf(x) + beside):
                assert mpf(least) <= sigma(name, z)[1] <= mpf(largest)


@pytest.mark.parametrize("name", CURVES)
def test_intervals_are_narrow(name: str) -> None:
    z = np.linspace(-3, 3, 50)[None]
    response = NAMED[name].respond(z, z)
    assert float((response.high - response.low).max()) < 1e-14
    assert float((response.largest - response.least).max()) < 3e-14


def test_saturation_is_exact() -> None:
    response = NAMED["hardtanh"].respond(np.array([[1.0, 1.0 + 2**-52, -9.0]]), np.array([[2.0, 9.0, -1.0]]))
    assert response.low.tolist() == response.high.tolist() == [[1.0, 1.0, -1.0]]
    assert response.largest.tolist() == [[1.0, 0.0, 1.0]]  # what touches a kink sees both sides


@pytest.mark.parametrize("name", NAMED)
def test_nothing_is_said_of_nan(name: str) -> None:
    nan = np.array([[math.nan]])
    with np.errstate(all="ignore"):
        response = NAMED[name].respond(nan.copy(), nan.copy())
    assert math.isnan(response.low[0, 0]) or response.low[0, 0] == -math.inf
    assert not (response.least > 0.0).any() or name in ("leaky_relu",)  # whose slopes are all above 0
    assert not (response.largest < 1.0).any()


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (nn.Tanh(), "tanh"),
        (torch.tanh, "tanh"),
        (nn.Sigmoid(), "sigmoid"),
        (torch.sigmoid, "sigmoid"),
        (torch.erf, "erf"),
        (None, "identity"),
        (nn.Identity(), "identity"),
    ],
)
def test_known_activations(activation: Any, expected: str) -> None:
    assert function_of(activation, 3) is NAMED[expected]


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [
        (nn.Hardtanh(), -1.0, 1.0),
        (nn.Hardtanh(-0.25, 3.0), -0.25, 3.0),
        (nn.ReLU(), 0.0, math.inf),
        (nn.ReLU6(), 0.0, 6.0),
        (lambda x: torch.clamp(x, max=0.5), -math.inf, 0.5),
    ],
)
def test_clamps_have_their_own_ends(activation: Callable[..., Any], low: float, high: float) -> None:
    function = function_of(activation, 3)
    assert isinstance(function, Clamp)
    assert (function.low, function.high) == (low, high)


def test_bends_have_their_own_slopes() -> None:
    leaky, each = function_of(nn.LeakyReLU(0.3), 2), nn.PReLU(2)
    assert isinstance(leaky, Bend)
    assert leaky.slope.tolist() == [0.3, 0.3]
    with torch.no_grad():
        each.weight.copy_(torch.tensor([0.5, -2.0]))
    prelu = function_of(each.double(), 2)
    assert isinstance(prelu, Bend)
    assert prelu.slope.tolist() == [0.5, -2.0]
    response = prelu.respond(np.array([[-1.0, -1.0]]), np.array([[2.0, 0.25]]))
    assert response.low[0] == pytest.approx([-0.5, 0.0])
    assert response.high[0] == pytest.approx([2.0, 2.0])
    assert response.least.tolist() == [[0.5, -2.0]]
    assert response.largest.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(), "GELU"),
        (nn.Softplus(), "Softplus"),
        ("swish", "swish"),
        (nn.Softmax(1), "Softmax"),
        (nn.Linear(2, 2), "Linear"),
    ],
)
def test_unsupported_ones_are_named(activation: Any, name: str) -> None:
    with pytest.raises(Unsupported, match=name):
        function_of(activation, 2)
