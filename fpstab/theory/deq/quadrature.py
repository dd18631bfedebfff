"""Expectations over the pre-activations of an equilibrium, by composite Gauss–Legendre quadrature.

In the cavity theory a pre-activation h is the solution of h − aφ(h) = u with a Gaussian u: the field of the other
neurons and the input, while aφ(h) is the neuron's own echo. One integrates over h and not over u, since then nothing
need be inverted: the density of h is N(h − aφ(h); m, v)·(1 − aφ'(h)), smooth but at the known kinks of φ.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from fpstab.theory.deq.nonlinearities import Floats, Nonlinearity

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_REACH = 9.0  # standard deviations; beyond them lie 2e-19 of a Gaussian
_PANELS = 18
_FEATURES = np.array([0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0])  # where saturating φ bend


@dataclass(frozen=True, slots=True)
class Field:
    """The law of h where h − aφ(h) = u, u ~ N(mean, variance).

    Attributes:
        phi: φ.
        a: The echo; a·φ' < 1.
        variance: Of u.
        mean: Of u.
    """

    phi: Nonlinearity
    a: float
    variance: float
    mean: float = 0.0

    def nodes(self, extra: Floats | None = None) -> tuple[Floats, Floats]:
        """Nodes h and weights w, both `[K]`, with E F(h) = Σ w F(h).

        Args:
            extra: Further points h at which panels end, where the integrand changes fast.
        """
        low, high = (self.invert_one(self.mean + sign * _REACH * self.variance**0.5) for sign in (-1, 1))
        points = [np.linspace(low, high, _PANELS + 1), np.array(self.phi.kinks), _FEATURES, -_FEATURES]
        edges = _panel_edges(np.concatenate(points if extra is None else [*points, extra]), low, high)
        h, w = _composite(edges[:-1], edges[1:])
        return h, w * self.density(h)

    def density(self, h: Floats) -> Floats:
        """Density of h, any shape."""
        return _gaussian(self.forward(h), self.mean, self.variance) * (1 - self.a * self.phi.slope(h))

    def forward(self, h: Floats) -> Floats:
        """The field u = h − aφ(h), any shape."""
        return np.asarray(h - self.a * self.phi.value(h), dtype=np.float64)

    def gain(self, h: Floats) -> Floats:
        """The gain dφ(h)/du = φ'/(1 − aφ'), any shape."""
        slope = self.phi.slope(h)
        return np.asarray(slope / (1 - self.a * slope), dtype=np.float64)

    def invert_one(self, u: float) -> float:
        """The h of one u."""
        if self.a == 0:
            return u
        reach = 1.0 + abs(u)
        while not self._forward_one(-reach) <= u <= self._forward_one(reach):
            reach *= 2
        return float(brentq(lambda h: self._forward_one(h) - u, -reach, reach, xtol=1e-10 * reach))

    def _forward_one(self, h: float) -> float:
        return float(self.forward(np.array(h)))

    def invert(self, u: Floats) -> Floats:
        """The h of every u, any shape, by bisection to twelve digits or so."""
        if self.a == 0:
            return u
        ends = (self.invert_one(float(u.min())), self.invert_one(float(u.max())))
        width = ends[1] - ends[0] + 1e-9
        low, high = np.full_like(u, ends[0] - width), np.full_like(u, ends[1] + width)
        for _ in range(44):
            middle = (low + high) / 2
            above = self.forward(middle) > u
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return np.asarray((low + high) / 2, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class PairNodes:
    """Nodes for expectations over two jointly distributed pre-activations.

    Attributes:
        first: h of the first, `[K]`.
        second: h of the second, `[K, L]`.
        weights: `[K, L]`, with E F(h₁)G(h₂) = Σ w F(h₁)G(h₂).
    """

    first: Floats
    second: Floats
    weights: Floats

    def expect(self, first: Floats, second: Floats) -> float:
        """E F(h₁)G(h₂) of F `[K]` and G `[K, L]` at the nodes."""
        return float(np.einsum("k,kl,kl->", first, self.weights, second))


def pair_nodes(one: Field, two: Field, covariance: float) -> PairNodes:
    """Nodes for two pre-activations whose fields u₁, u₂ have a covariance, up to and with full correlation.

    The inner integral runs over the conditional law of the second, in panels that end at its kinks; the outer one has
    panels that narrow where the conditional mean passes a kink.
    """
    slope = covariance / one.variance
    rest = max(two.variance - covariance * slope, 0.0)
    narrow = rest**0.5
    kinks = two.forward(np.asarray(two.phi.kinks, dtype=np.float64))
    steps = np.concatenate([-(2.0 ** np.arange(4, -3, -1)), [0.0], 2.0 ** np.arange(-2, 5)])
    extra = None
    if abs(slope) * one.variance**0.5 > narrow:  # else the conditional mean moves less than its spread
        crossing = one.mean + (kinks[:, None] + narrow * steps - two.mean).ravel() / slope
        near = crossing[np.abs(crossing - one.mean) < _REACH * one.variance**0.5]
        extra = one.invert(near) if near.size else None
    h, w = one.nodes(extra)
    centre = two.mean + slope * (one.forward(h) - one.mean)
    if rest < 1e-14 * two.variance:
        return PairNodes(h, two.invert(centre)[:, None], w[:, None])
    grid = centre[:, None] + narrow * np.linspace(-_REACH, _REACH, 2 * _PANELS + 1)
    ends = np.clip(np.broadcast_to(kinks, (h.size, kinks.size)), grid[:, :1], grid[:, -1:])
    edges = two.invert(np.sort(np.concatenate([grid, ends], axis=1), axis=1))
    second, inner = _composite(edges[:, :-1], edges[:, 1:], 8)
    law = Field(two.phi, two.a, rest)
    jacobian = 1 - two.a * two.phi.slope(second)
    inner = inner * _gaussian(two.forward(second) - centre[:, None], 0.0, law.variance) * jacobian
    return PairNodes(h, second, w[:, None] * inner)


def _panel_edges(points: Floats, low: float, high: float) -> Floats:
    inside = np.unique(points[(points > low) & (points < high)])
    return np.concatenate([[low], inside, [high]])


def _composite(left: Floats, right: Floats, order: int = 16) -> tuple[Floats, Floats]:
    """Gauss–Legendre nodes and weights on panels `[..., P]`, flattened to `[..., P·order]`."""
    nodes, weights = (_NODES, _WEIGHTS) if order == 16 else np.polynomial.legendre.leggauss(order)
    half = (right - left)[..., None] / 2
    h = (left + right)[..., None] / 2 + half * nodes
    shape = (*left.shape[:-1], -1)
    return h.reshape(shape), (half * weights).reshape(shape)


def _gaussian(u: Floats, mean: float, variance: float) -> Floats:
    return np.asarray(np.exp(-((u - mean) ** 2) / (2 * variance)) / (2 * np.pi * variance) ** 0.5, dtype=np.float64)
