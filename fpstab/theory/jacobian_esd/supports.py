"""Where the spectrum lies: its edges, and the atom at zero."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from fpstab.results import OK, Status
from fpstab.theory.jacobian_esd.layers import Layers, Variances, as_layers
from fpstab.theory.jacobian_esd.slopes import SlopeLaw


@dataclass(frozen=True, slots=True)
class Edges:
    """The support of the limiting law: [lower, upper], and 0 if there is an atom.

    Attributes:
        lower: λ₋; 0 unless a single factor has the least rank, when a gap lies between 0 and the bulk.
        upper: λ₊.
        depth: L.
        status: `"ok"`.
    """

    lower: float
    upper: float
    depth: int
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """Both edges."""
        return {"lower": self.lower, "upper": self.upper}

    def grid(self, count: int = 400) -> Tensor:
        """Points inside the support, ascending, float64 `[count]`: geometric in the lower half, denser towards λ₊.

        Those of a spectrum without a gap begin at 10⁻⁵⁽ᴸ⁺¹⁾·λ₊: of the linear activation 10⁻⁵ of the mass lies below.

        Args:
            count: How many. There are none if all the mass is at zero.
        """
        if self.upper == 0:
            return torch.empty(0, dtype=torch.float64)
        half = count // 2
        low = max(self.lower * (1 + 1e-9), 10.0 ** (-5 * (self.depth + 1)) * self.upper)
        middle = (low * self.upper) ** 0.5 if self.lower > self.upper / 4 else max(self.upper / 4, low)
        t = torch.linspace(1, 1e-4, count - half, dtype=torch.float64)
        first = torch.logspace(math.log10(low), math.log10(middle), half + 1, dtype=torch.float64)[:-1]
        return torch.cat([first, self.upper - (self.upper - middle) * t**2])


def edges(
    activation: str,
    depth: int,
    *,
    q: Variances | None = None,
    q0: float = 1.0,
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
) -> Edges:
    """The edges of the limiting spectrum of JJᵀ; for the arguments see `density`.

    λ₊ is the least z over w > 0. With K ∈ {0, 1} of one p it is (1 + w)(p + w)ᴸ/w at
    w = (√((L − 1)² + 4Lp) − (L − 1))/(2L); for the linear activation (L + 1)ᴸ⁺¹/Lᴸ, which grows with L.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If a number is out of range or the activation unknown.

    >>> round(edges("linear", 1).upper, 9), round(edges("linear", 2).upper, 9)
    (4.0, 6.75)
    >>> round(edges("hardtanh", 2, q=1.0).upper, 6), round(edges("erf", 2, q=0.5).upper, 6)
    (4.100896, 3.157543)
    >>> round(edges("relu", 1).lower, 6)  # (1 − √½)²
    0.085786
    """
    return find_edges(as_layers(activation, depth, q, q0, sigma_w, sigma_b))


def atom(
    activation: str,
    depth: int,
    *,
    q: Variances | None = None,
    q0: float = 1.0,
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
) -> float:
    """The mass at zero of the limiting spectrum of JJᵀ, 1 − min P(Kˡ > 0); for the arguments see `density`.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If a number is out of range or the activation unknown.

    >>> atom("relu", 5), atom("tanh", 5)
    (0.5, 0.0)
    """
    return find_atom(as_layers(activation, depth, q, q0, sigma_w, sigma_b))


def find_atom(layers: Layers) -> float:
    """1 − min P(K > 0)."""
    return 1 - min(law.positive for law in layers.laws(coarse=True))


def find_edges(layers: Layers) -> Edges:
    """The edges of layers."""
    laws = layers.laws()
    if min(law.positive for law in laws) == 0:
        return Edges(0.0, 0.0, layers.depth)
    return Edges(_lower(layers, laws), _upper(layers, laws), layers.depth)


def _upper(layers: Layers, laws: list[SlopeLaw]) -> float:
    def slope(log_w: float) -> float:
        """The derivative of log z by log w."""
        w = math.exp(log_w)
        inverse = [_log_u(law, log_w)[1] for law in laws]
        return w / (1 + w) + layers.depth - 1 - sum(n * s for n, s in zip(layers.counts, inverse, strict=True))

    low, high = 0.0, 0.0
    while slope(low) >= 0:
        low -= 2
    while slope(high) <= 0:
        high += 2
    log_w = float(brentq(slope, low, high, xtol=1e-13, rtol=1e-13)) if low < high else low
    log_u = [_log_u(law, log_w)[0] for law in laws]
    log_z = layers.log_scale + math.log1p(math.exp(log_w)) + (layers.depth - 1) * log_w
    return math.exp(log_z - sum(n * value for n, value in zip(layers.counts, log_u, strict=True)))


def _log_u(law: SlopeLaw, log_w: float) -> tuple[float, float]:
    """The logarithm of u with m_K(u) = w > 0, 0 < u < 1, and its derivative by log w."""
    if law.two_point:
        p, w = law.positive, math.exp(log_w)
        return log_w - math.log(p + w), p / (p + w)

    def at(log_odds: float) -> tuple[float, float, float]:
        u = 1 / (1 + math.exp(-log_odds))
        m, _, um = law.generating(np.array([u], complex))
        return math.log(u), math.log(float(m[0].real)) - log_w, float((m[0] / um[0]).real)

    high = 2.0
    while at(high)[1] < 0:
        high += 2
    low = high - 2
    while at(low)[1] > 0:
        low -= 2
    found = at(float(brentq(lambda odds: at(odds)[1], low, high, xtol=1e-14, rtol=1e-14)))
    return found[0], found[2]


def _lower(layers: Layers, laws: list[SlopeLaw]) -> float:
    """The largest z over w between the two least of −1 and the −p_l: 0 if these coincide, as for equal layers, L ≥ 2."""
    if not all(law.two_point for law in laws):
        return 0.0  # K has mass arbitrarily near 0
    ranks = sorted([1.0] + [law.positive for law, n in zip(laws, layers.counts, strict=True) for _ in range(n)])
    if ranks[1] - ranks[0] < 1e-12:
        return 0.0
    gap, rest = ranks[1] - ranks[0], np.array(ranks[2:]) - ranks[0]

    def slope(share: float) -> float:
        """The derivative of log z by the share of the gap, w = −ranks[0] − share·gap."""
        inner = gap * share
        return 1 / share - 1 / (1 - share) - gap * (float((1 / (rest - inner)).sum()) + 1 / (ranks[0] + inner))

    share = float(brentq(slope, 1e-15, 1 - 1e-15, xtol=1e-15, rtol=1e-14))
    inner = gap * share
    product = inner * gap * (1 - share) * float((rest - inner).prod()) / (ranks[0] + inner)
    return math.exp(layers.log_scale) * product
