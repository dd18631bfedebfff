"""The law of K = φ'(h)², h ~ N(0, q), as a sum over points: what one layer contributes to the spectrum.

Of a piecewise linear φ it is a point at 1 and a rest at 0. Of a smooth φ it is an integral over h, taken along a curve
in the upper half-plane: for u below the real axis, as all solutions are, 1 − uK has no zero near that curve, while on
the real axis zeros come arbitrarily near. The curve leaves 0 under the angle π/8 and bends until the argument of K is
−π/2: on the straight ray g = t·exp(iπ/8) a zero crosses the path where |u| > exp(π), as it is for small λ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfc

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

Activation = Literal["linear", "relu", "hardtanh", "erf", "tanh"]
"""Activations by their names. **`erf` is φ(x) = erf(√π·x/2)**, of slope 1 at 0, as in paper 1; elsewhere (and in
`fpstab.theory.deq`) `erf` is the error function itself."""

ACTIVATIONS: tuple[Activation, ...] = ("linear", "relu", "hardtanh", "erf", "tanh")

_FINE, _COARSE = 16, 6  # Gauss–Legendre nodes a panel: rounding error, and about 1e-5
_REACH = 10.0  # standard deviations; on the curve 1e-18 of the Gaussian's mass lies beyond
_TAN = math.tan(math.pi / 8)


@dataclass(frozen=True, slots=True, eq=False)
class SlopeLaw:
    """The law of K as Σ v_j δ(k_j) + rest·δ(0), in general with complex points and weights.

    Attributes:
        k: Points, complex128 `[J]`.
        v: Weights, complex128 `[J]`.
        rest: Weight at 0.
        positive: P(K > 0).
        two_point: Whether K is 0 or 1.
    """

    k: Complexes
    v: Complexes
    rest: complex
    positive: float
    two_point: bool

    def generating(self, u: Complexes) -> tuple[Complexes, Complexes, Complexes]:
        """m_K(u) = E[uK/(1 − uK)], 1 + m_K(u) without cancellation, and u·m_K'(u), each of the shape of u `[P]`."""
        resolvent = 1 / (1 - u[:, None] * self.k)
        kv = self.k * self.v
        m = u * (resolvent @ kv)
        one_plus_m = resolvent @ self.v + self.rest
        return m, one_plus_m, u * (np.square(resolvent) @ kv)

    def logarithm(self, u: Complexes) -> Complexes:
        """E log(1 − uK), of the shape of u `[P]`."""
        return np.asarray(np.log(1 - u[:, None] * self.k) @ self.v, dtype=np.complex128)

    def moments(self, count: int) -> Floats:
        """E Kⁿ for n = 1, …, count, `[count]`."""
        return np.asarray([(self.k**n @ self.v).real for n in range(1, count + 1)], dtype=np.float64)


def check_activation(activation: str) -> Activation:
    """The name of an activation, upper or lower case.

    Raises:
        ValueError: If the theory knows none of this name. The message lists the names.
    """
    key = activation.lower() if isinstance(activation, str) else ""
    for name in ACTIVATIONS:
        if key == name:
            return name
    raise ValueError(f"the theory knows no activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}.")


def slope_law(activation: Activation, q: float, *, coarse: bool = False) -> SlopeLaw:
    """The law of K = φ'(h)², h ~ N(0, q).

    Args:
        activation: φ; see `Activation` for which erf.
        q: Variance of the pre-activations, 0 and infinity included.
        coarse: Five digits with a third of the points, to follow a solution; otherwise the rounding error.

    >>> slope_law("relu", 3.0).moments(2).tolist()
    [0.5, 0.5]
    >>> slope_law("erf", 0.5).moments(3).round(9).tolist()  # 1/√(1 + πqn)
    [0.623686243, 0.49137868, 0.418399458]
    """
    if activation in ("linear", "relu", "hardtanh") or q == 0 or q == math.inf:
        p = _share_of_slope_one(activation, q)
        return SlopeLaw(np.ones(1, complex), np.full(1, p, complex), 1 - p, p, two_point=True)
    curve = _CURVES[activation]
    t, weights = _nodes(curve, q, _COARSE if coarse else _FINE)
    h, dh = curve.point(t)
    v = 2 * weights * dh * np.exp(-(h**2) / (2 * q)) / math.sqrt(2 * math.pi * q)
    end, _ = curve.point(np.array([_length(curve, q)]))
    return SlopeLaw(curve.slope2(h), v, complex(erfc(end / math.sqrt(2 * q))[0]), 1.0, two_point=False)


def _share_of_slope_one(activation: Activation, q: float) -> float:
    if activation == "relu":
        return 0.5
    if activation == "linear" or q == 0:
        return 1.0
    return 0.0 if q == math.inf else float(erf(1 / math.sqrt(2 * q)))


@dataclass(frozen=True, slots=True)
class _Curve:
    """Where one integrates over h = √q·g for a smooth φ.

    Attributes:
        point: t ≥ 0 → h(t), h'(t).
        slope2: φ'(h)² for complex h.
        panel: t → the length of a panel there over which 1/(1 − uK) is well approximated.
        end: t from which on K is below exp(−55).
    """

    point: Callable[[Floats], tuple[Complexes, Complexes]]
    slope2: Callable[[Complexes], Complexes]
    panel: Callable[[float], float]
    end: float


def _erf_curve(t: Floats) -> tuple[Complexes, Complexes]:
    # K = exp(−πh²/2), and 2·Re h·Im h → 1
    c = 1 / (2 * _TAN)
    return _complex(t + 0.5j * t / (t**2 + c)), _complex(1 + 0.5j * (c - t**2) / (t**2 + c) ** 2)


def _tanh_curve(t: Floats) -> tuple[Complexes, Complexes]:
    # K → 16·exp(−4h), and Im h → π/8
    c = math.pi / (8 * _TAN)
    root = np.sqrt(t**2 + c**2)
    return _complex(t + 1j * math.pi / 8 * t / root), _complex(1 + 1j * math.pi / 8 * c**2 / root**3)


def _complex(values: object) -> Complexes:
    return np.asarray(values, dtype=np.complex128)


_CURVES = {
    "erf": _Curve(_erf_curve, lambda h: np.exp(-math.pi / 2 * h**2), lambda t: min(0.35, 0.7 / max(t, 0.1)), 5.95),
    "tanh": _Curve(_tanh_curve, lambda h: np.cosh(h) ** -4, lambda t: 0.35 if t < 2 else 0.55, 14.5),
}


def _length(curve: _Curve, q: float) -> float:
    return min(_REACH * math.sqrt(q), curve.end)


def _nodes(curve: _Curve, q: float, order: int) -> tuple[Floats, Floats]:
    """Nodes and weights `[J]` on [0, length], in panels that are short near 0, where K is near 1/u for u near 1."""
    length, edges = _length(curve, q), [0.0]
    while edges[-1] < length:
        t = edges[-1]
        edges.append(min(t + min(max(0.05, t), curve.panel(t), 1.25 * math.sqrt(q)), length))
    return composite(np.array(edges), order)


def composite(edges: Floats, order: int = _FINE) -> tuple[Floats, Floats]:
    """Gauss–Legendre nodes and weights, `[P·order]`, on the panels between edges `[P + 1]`."""
    x, w = np.polynomial.legendre.leggauss(order)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
