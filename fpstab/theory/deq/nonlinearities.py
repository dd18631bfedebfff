"""The nonlinearities that the theory knows: value, slope, where they are not smooth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Floats = NDArray[np.float64]

Activation = Literal["hardtanh", "tanh", "erf", "relu", "linear"]
"""Nonlinearities by their names: `erf` is the error function itself, of slope 2/√π at 0."""


@dataclass(frozen=True, slots=True)
class Nonlinearity:
    """An increasing elementwise function φ.

    Attributes:
        name: Its name.
        value: φ.
        slope: φ'.
        kinks: Where φ is not smooth.
        max_slope: Largest slope; the smallest is never negative.
        homogeneous: Whether φ(ch) = cφ(h) for c > 0, so that the law of φ' does not depend on the scale of h.
    """

    name: Activation
    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    kinks: tuple[float, ...]
    max_slope: float
    homogeneous: bool


def nonlinearity(name: str) -> Nonlinearity:
    """The nonlinearity of a name, upper or lower case, with or without underscores; `"identity"` is `"linear"`.

    Raises:
        ValueError: If the theory knows none of this name. The message lists the names.

    >>> nonlinearity("ReLU").max_slope
    1.0
    """
    key = name.lower().replace("_", "") if isinstance(name, str) else ""
    found = _TABLE.get("linear" if key == "identity" else key)
    if found is None:
        raise ValueError(f"the theory knows no activation {name!r}; choose one of {', '.join(_TABLE)}.")
    return found


def _hardtanh_slope(h: Floats) -> Floats:
    return (np.abs(h) < 1).astype(np.float64)


def _tanh_slope(h: Floats) -> Floats:
    # not 1 − tanh², which is 0 from |h| = 19 on and loses digits before
    return np.asarray(1 / np.cosh(np.clip(h, -350, 350)) ** 2, dtype=np.float64)


def _erf_slope(h: Floats) -> Floats:
    return np.asarray(2 / np.sqrt(np.pi) * np.exp(-(h**2)), dtype=np.float64)


_TABLE = {
    "hardtanh": Nonlinearity("hardtanh", lambda h: np.clip(h, -1, 1), _hardtanh_slope, (-1.0, 1.0), 1.0, False),
    "tanh": Nonlinearity("tanh", np.tanh, _tanh_slope, (), 1.0, False),
    "erf": Nonlinearity("erf", erf, _erf_slope, (), 2 / np.sqrt(np.pi), False),
    "relu": Nonlinearity("relu", lambda h: np.maximum(h, 0.0), lambda h: (h > 0).astype(np.float64), (0.0,), 1.0, True),
    "linear": Nonlinearity("linear", lambda h: h, np.ones_like, (), 1.0, True),
}
