"""Activations of intervals: ranges of values and of slopes that hold whatever the library's last digits are.

What is assumed of the libraries (numpy's tanh and exp, scipy's erf) is `LIBRARY_ERROR`: that tanh(z), erf(z), and exp(z) for
z ≤ 0, are within 8·2⁻⁵³ of the truth, relatively. That is twice to eight times what is seen; the tests compare them with
200-bit arithmetic. All else are bounds of IEEE additions and products, rounded to nearest; with u = 2⁻⁵³:

- tanh' = 1 − t² of a t that is 8u off is off by 16u + 2u.
- The sigmoid 1/(1 + e) or e/(1 + e), e = exp(−|z|), is off by 8u·e/(1 + e)² + 2u ≤ 4u; its slope s(1 − s) by less than 2u.
- erf(gz), g within 2u of √π/2, is off by 8u + 3u·gz·erf'(gz), below 8u as libraries are; its slope, with y = (gz)² off by
  7u·y, by its largest value times 8u + 7u·y·exp(−y) + 2u ≤ 13u.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import erf
from torch import nn

from fpstab.jacobian.chains import NotAChain, read_chain
from fpstab.jacobian.elementwise import Elementwise
from fpstab.rounding import TINY, UNIT, Array

LIBRARY_ERROR = 8 * UNIT
"""How far a library's tanh, erf or exp (of an argument ≤ 0) may be from the truth, and a value of a curve altogether."""

_SLOPE_ERROR = 32 * UNIT  # of a slope, relative to the largest one: more than all of the above


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What an activation makes of intervals, entry by entry.

    Attributes:
        low: Lower bounds of the values.
        high: Upper bounds of the values.
        least: Lower bounds of the slopes of all chords within the interval.
        largest: Upper bounds of these slopes.
    """

    low: Array
    high: Array
    least: Array
    largest: Array


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A smooth increasing activation whose slope is even and falls with |z|: tanh, the sigmoid, the error function.

    Attributes:
        name: How messages call it.
        evaluate: Value and slope at a point, from the library.
        range: Infimum and supremum of the values.
        steepest: The largest slope, at 0, rounded up.
        slope_error: Of a slope, absolute.
    """

    name: str
    evaluate: Callable[[Array], tuple[Array, Array]]
    range: tuple[float, float]
    steepest: float
    slope_error: float

    def respond(self, low: Array, high: Array) -> Response:
        """Of the intervals [low, high]."""
        at_low, slope_low = self.evaluate(low)
        at_high, slope_high = self.evaluate(high)
        at_low -= LIBRARY_ERROR
        at_high += LIBRARY_ERROR
        least = np.minimum(slope_low, slope_high)
        largest = np.maximum(slope_low, slope_high, out=slope_high)
        least -= self.slope_error
        largest += self.slope_error
        largest[(low <= 0.0) & (high >= 0.0)] = self.steepest
        return Response(
            np.maximum(at_low, self.range[0], out=at_low),
            np.minimum(at_high, self.range[1], out=at_high),
            np.maximum(least, 0.0, out=least),
            np.minimum(largest, self.steepest, out=largest),
        )

    def at(self, z: Array) -> tuple[Array, Array | float]:
        """Values, and what they may be wrong by."""
        return self.evaluate(z)[0], LIBRARY_ERROR


@dataclass(frozen=True, slots=True, eq=False)
class Clamp:
    """min(max(z, low), high): hardtanh, relu (high = inf), and the identity. Values are exact.

    Attributes:
        name: How messages call it.
        low: Smallest value, a number or one for each neuron `[p]`.
        high: Largest value.
    """

    name: str
    low: float
    high: float

    @property
    def range(self) -> tuple[float, float]:
        """Least and largest value."""
        return self.low, self.high

    def respond(self, low: Array, high: Array) -> Response:
        """Of the intervals [low, high]. An interval that touches a kink sees both sides of it."""
        # comparisons with nan are False, so that nothing is said of it
        least = ((low > self.low) & (high < self.high)).astype(np.float64)
        largest = 1.0 - ((high < self.low) | (low > self.high)).astype(np.float64)
        return Response(np.clip(low, self.low, self.high), np.clip(high, self.low, self.high), least, largest)

    def at(self, z: Array) -> tuple[Array, Array | float]:
        """Values, and what they may be wrong by."""
        return np.clip(z, self.low, self.high), 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Bend:
    """z for z ≥ 0 and s·z for z < 0: leaky relu, prelu, and the absolute value (s = −1).

    Attributes:
        name: How messages call it.
        slope: s, a number or one for each neuron `[p]`.
    """

    name: str
    slope: Array

    @property
    def range(self) -> tuple[float, float]:
        """Infimum and supremum of the values of any neuron."""
        return (0.0 if bool((self.slope <= 0).all()) else -math.inf), math.inf

    def respond(self, low: Array, high: Array) -> Response:
        """Of the intervals [low, high]. An interval that touches 0 sees both slopes."""
        (at_low, lost_low), (at_high, lost_high) = self.at(low), self.at(high)
        below, above = (
            np.minimum(at_low - lost_low, at_high - lost_high),
            np.maximum(at_low + lost_low, at_high + lost_high),
        )
        across = (low <= 0.0) & (high >= 0.0)
        right, left = low > 0.0, high < 0.0
        gentle, steep = np.minimum(self.slope, 1.0), np.maximum(self.slope, 1.0)
        return Response(
            np.where(across, np.minimum(below, 0.0), below),
            np.where(across, np.maximum(above, 0.0), above),
            np.where(right, 1.0, np.where(left, self.slope, gentle)),
            np.where(right, 1.0, np.where(left, self.slope, steep)),
        )

    def at(self, z: Array) -> tuple[Array, Array | float]:
        """Values, and what they may be wrong by."""
        value = np.where(z < 0.0, self.slope * z, z)
        return value, np.abs(value) * (2 * UNIT) + TINY


Function = Curve | Clamp | Bend

IDENTITY = Clamp("identity", -math.inf, math.inf)


def _tanh(z: Array) -> tuple[Array, Array]:
    t = np.tanh(z)
    return t, 1.0 - t * t


def _sigmoid(z: Array) -> tuple[Array, Array]:
    # e ≤ 1, so nothing overflows
    e = np.exp(-np.abs(z))
    small = e / (1.0 + e)
    s = np.where(z < 0.0, small, 1.0 / (1.0 + e))
    return s, small * (1.0 - small)


def _error_function(gain: float, factor: float) -> Callable[[Array], tuple[Array, Array]]:
    def evaluate(z: Array) -> tuple[Array, Array]:
        y = gain * z
        return erf(y), factor * np.exp(-(y * y))

    return evaluate


_ROOT = math.sqrt(math.pi) / 2  # within 2u of √π/2

TANH = Curve("tanh", _tanh, (-1.0, 1.0), 1.0, _SLOPE_ERROR)
SIGMOID = Curve("sigmoid", _sigmoid, (0.0, 1.0), 0.25, _SLOPE_ERROR / 4)
ERF = Curve("erf", _error_function(1.0, 2 / math.sqrt(math.pi)), (-1.0, 1.0), 1.1283791670955128, 2 * _SLOPE_ERROR)
UNIT_ERF = Curve("unit_erf", _error_function(_ROOT, 1.0), (-1.0, 1.0), 1.0, _SLOPE_ERROR)

NAMED: dict[str, Function] = {
    "identity": IDENTITY,
    "tanh": TANH,
    "hardtanh": Clamp("hardtanh", -1.0, 1.0),
    "sigmoid": SIGMOID,
    "relu": Clamp("relu", 0.0, math.inf),
    "leaky_relu": Bend("leaky_relu", np.array(0.01)),
    "erf": ERF,
    "unit_erf": UNIT_ERF,
}
"""Activations by name. `"erf"` is the error function, as `torch.erf`; `"unit_erf"` is erf(√π·z/2), of slope 1 at 0, which paper
1 and `fpstab.theory.jacobian_esd` call erf. `"leaky_relu"` has torch's slope of .01."""

_SUPPORTED = "tanh, hardtanh, sigmoid, relu, leaky relu, prelu, relu6, clamp, abs and erf"


class Unsupported(ValueError):  # noqa: N818  # no failure of the network's
    """An activation of which no enclosure is known; the message names it."""


def function_of(activation: Any, width: int) -> Function:
    """The activation behind a name, a module, a callable, or what was read off a network.

    Args:
        activation: `None` for the identity; a name in `NAMED`; an `Elementwise`; an activation module or function.
        width: How many neurons it acts on.

    Raises:
        Unsupported: If no enclosure of it is known.
    """
    if activation is None or isinstance(activation, nn.Identity):
        return IDENTITY
    if isinstance(activation, str):
        if activation not in NAMED:
            raise Unsupported(f"{activation!r}: expected one of {', '.join(map(repr, NAMED))}")
        return NAMED[activation]
    if not isinstance(activation, Elementwise):
        if isinstance(activation, nn.Module):
            activation = copy.deepcopy(activation).double().eval()
        try:
            (layer,) = read_chain(activation, torch.zeros(1, width, dtype=torch.float64))
        except (NotAChain, TypeError, RuntimeError, ValueError) as error:
            raise Unsupported(f"{activation!r} is no activation that is known: {error}") from None
        if layer.activation is None or not torch.equal(layer.weight, torch.eye(width).to(layer.weight)):
            raise Unsupported(f"{activation!r} is no activation")
        activation = layer.activation
    return _read(activation, width)


def _read(activation: Elementwise, width: int) -> Function:
    """The parameters of a piecewise linear activation are its values at −inf, −1 and inf: exact."""
    name = activation.info.name
    curve = {"Tanh": TANH, "Sigmoid": SIGMOID, "erf": ERF}.get(name)
    if curve is not None:
        return curve
    if name in ("ReLU", "ReLU6", "Hardtanh", "clamp"):
        low, high = (float(_value(activation, end, 1)[0]) for end in (-math.inf, math.inf))
        return Clamp(name, low, high)
    if name in ("LeakyReLU", "PReLU", "abs"):
        slope = -_value(activation, -1.0, width)
        return Bend(name, slope)
    raise Unsupported(f"{name} has no enclosure here; known are {_SUPPORTED}")


def _value(activation: Elementwise, z: float, width: int) -> Array:
    value: Array = activation(torch.full((1, width), z, dtype=torch.float64)).detach().cpu().numpy()[0].copy()
    return value
