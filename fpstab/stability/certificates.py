"""What is proved of a network as a dynamical system x⁺ = f(x): the certificate, and those that norms of weights give."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fpstab.jacobian.chains import Dense
from fpstab.lipschitz.norms import spectral_product
from fpstab.lipschitz.problem import Feedforward, General
from fpstab.rounding import UNIT, Array, Ball, multiply_up, positive_definite, product_up, spectral_norm

LARGEST = 1.0 - 1e-4
"""Nothing is certified with a value of this or more."""

MAX_VERTICES = 2**10

Norm = Literal["1", "2", "inf"]
Scope = Literal["global", "local", "count"]
NORMS: tuple[Norm, ...] = ("1", "2", "inf")


@dataclass(frozen=True, slots=True, eq=False)
class StabilityCertificate:
    """One attempt to prove something of x⁺ = f(x).

    Attributes:
        name: `"R1-1"`, `"R3-sector"`, …: the rule, and its variant.
        holds: Whether `statement` is proved.
        value: What had to be below 1 − 1e-4, rounded up; inf if it could not be computed.
        statement: What is proved; where nothing is, why.
        hypothesis: What it is about.
        domain: Where it holds.
        scope: What kind of statement it is: `"global"` (one fixed point that attracts everything), `"local"` (one that
            attracts its neighbourhood) or `"count"` (how many fixed points there are, and nothing of stability).
    """

    name: str
    holds: bool
    value: float
    statement: str
    hypothesis: str
    domain: str
    scope: Scope = "global"

    @property
    def margin(self) -> float:
        """1 − value; −inf where there is no value."""
        return 1.0 - self.value

    def __str__(self) -> str:
        return f"{self.name}: {'proved' if self.holds else 'not proved'}. {self.statement}"


def refused(name: str, why: str, hypothesis: str = "", scope: Scope = "global") -> StabilityCertificate:
    """A certificate that does not hold, as its hypothesis does not, or nothing could be computed."""
    return StabilityCertificate(name, False, math.inf, f"Not attempted: {why}.", hypothesis, "", scope)


def judged(
    name: str, value: float, proved: str, hypothesis: str, domain: str, scope: Scope = "global"
) -> StabilityCertificate:
    """A certificate that holds if the value, a proved bound, is below 1 − 1e-4."""
    if value < LARGEST:
        return StabilityCertificate(name, True, value, proved, hypothesis, domain, scope)
    why = f"Not proved: the value is {value:.6g}, not below 1 − 1e-4. That does not say that it is false."
    return StabilityCertificate(name, False, value, why, hypothesis, domain, scope)


def printed_up(value: float) -> str:
    """Seven digits, rounded up."""
    return f"{math.ceil(value * 1e7) / 1e7:.7f}"


def operator_norm(W: Array, p: Norm) -> float:
    """An upper bound of ‖W‖_p.

    >>> operator_norm(np.array([[1.0, -2.0], [0.0, 3.0]]), "1") >= 5.0
    True
    """
    if p == "2":
        return spectral_norm(W)
    size = np.abs(W) if p == "inf" else np.abs(W).T
    return float(product_up(size, np.ones(size.shape[1])).max()) if size.any() else 0.0


def norm_products(problem: Feedforward | General, domain: str, hypothesis: str) -> Iterator[StabilityCertificate]:
    """R1: Π ‖W_i‖_p · Π Lip(σ_i) < 1 proves that f is a contraction; biases play no part."""
    for p in NORMS:
        name = f"R1-{p}"
        if isinstance(problem, Feedforward):
            factors = [operator_norm(weight.numpy(), p) for weight in problem.weights]
            factors += [float(max(alpha.abs().max(), beta.abs().max())) for alpha, beta in problem.slopes]
            value = multiply_up(*factors)
        elif p == "2":
            value = spectral_product(problem)
        else:
            yield refused(name, "the network is no chain of layers; use the 2-norm", hypothesis)
            continue
        yield judged(
            name,
            value,
            f"‖f(x) − f(y)‖_{p} ≤ {printed_up(value)} ‖x − y‖_{p}: f has exactly one fixed point, which attracts all orbits."
            if value < LARGEST
            else "",
            hypothesis,
            domain,
        )


def sector_products(layers: Sequence[Dense], domain: str, hypothesis: str) -> Iterator[StabilityCertificate]:
    """R2: Π ‖W_i‖_p · Π sup|σ_i(z)/z| < 1 without biases, σ_i(0) = 0, proves that the origin attracts everything."""
    why = keeps_origin(layers)
    for p in NORMS:
        name = f"R2-{p}"
        if why:
            yield refused(name, why, hypothesis)
            continue
        factors = [operator_norm(layer.weight.cpu().numpy(), p) for layer in layers]
        factors += [layer.activation.info.sector for layer in layers if layer.activation is not None]
        value = multiply_up(*factors)
        yield judged(
            name,
            value,
            f"‖f(x)‖_{p} ≤ {printed_up(value)} ‖x‖_{p}: the origin is globally exponentially stable."
            if value < LARGEST
            else "",
            hypothesis,
            domain,
        )


def keeps_origin(layers: Sequence[Dense]) -> str:
    """Why f(0) = 0 is not known from the layers one by one; empty if it is."""
    for index, layer in enumerate(layers):
        if bool(layer.bias.count_nonzero()):
            return f"layer {index} has a bias"
        if layer.activation is not None and layer.activation.info.value_at_zero != 0:
            return f"layer {index}: {layer.name}(0) is {layer.activation.info.value_at_zero:.4g}, not 0"
    return ""


def discontinuous(layers: Sequence[Dense]) -> str:
    """The name of an activation that is not continuous, or empty."""
    return next(
        (layer.name for layer in layers if layer.activation is not None and not layer.activation.info.continuous), ""
    )


def no_nonzero_fixed_point(layers: Sequence[Dense], domain: str, hypothesis: str) -> StabilityCertificate:
    """R6: no x ≠ 0 with 1 ∈ spec A(x) proves that the origin is the only fixed point, by all activation patterns.

    The value is 1 − min σ_min(I − A_D) over the patterns D. Nothing is said of stability.
    """
    name, scope = "R6-patterns", "count"
    if why := keeps_origin(layers):
        return refused(name, why, hypothesis, "count")
    for layer in layers:
        info = None if layer.activation is None else layer.activation.info
        if info is not None and (not info.homogeneous or info.name == "RReLU"):
            return refused(
                name, f"{info.name} is not positively homogeneous with two known slopes", hypothesis, "count"
            )
    patterns = slope_vertices(layers)
    if patterns is None:
        return refused(name, f"more than {MAX_VERTICES} activation patterns", hypothesis, "count")
    n = layers[0].weight.shape[1]
    smallest = math.inf
    for pattern in patterns:
        A = product_ball(layers, pattern)
        smallest = min(smallest, _smallest_singular_value(Ball(np.eye(n)) + Ball(-A.mid, A.radius)))
        if smallest <= 1.0 - LARGEST:
            break
    return judged(
        name,
        1.0 - smallest + UNIT,
        "f(x) = x only for x = 0. (Orbits may still diverge, or run in cycles.)",
        hypothesis,
        domain,
        scope,  # type: ignore[arg-type]
    )


def slope_vertices(layers: Sequence[Dense], sector: bool = False) -> Array | None:
    """All choices of the least or the largest slope for each neuron `[V, N]`; `None` if there are too many."""
    low, high = neuron_slopes(layers, sector)
    free = np.flatnonzero(low != high)
    if len(free) > math.log2(MAX_VERTICES):
        return None
    bits = (np.arange(2 ** len(free))[:, None] >> np.arange(len(free))) & 1
    vertices = np.tile(low, (len(bits), 1))
    vertices[:, free] = np.where(bits, high[free], low[free])
    return vertices


def neuron_slopes(layers: Sequence[Dense], sector: bool = False) -> tuple[Array, Array]:
    """Range of the slopes of each neuron of all layers, `[N]` each: of chords, or with `sector` of those from 0.

    Where σ(0) = 0 the slopes σ(z)/z are among those of chords, and at most `ActivationInfo.sector` in size.
    """
    lows, highs = [], []
    for layer in layers:
        low, high = (slopes.numpy() for slopes in layer.slopes())
        if sector and layer.activation is not None:
            size = layer.activation.info.sector
            low, high = np.maximum(low, -size), np.minimum(high, size)
        lows.append(low)
        highs.append(high)
    return np.concatenate(lows), np.concatenate(highs)


def product_ball(layers: Sequence[Dense], slopes: Array) -> Ball:
    """D_L W_L … D_1 W_1 for slopes `[N]`, with all that rounding does."""
    total: Ball | None = None
    start = 0
    for layer in layers:
        W = Ball(layer.weight.cpu().numpy())
        total = W if total is None else W @ total
        total = total.T.scale_columns(slopes[start : start + len(W.mid)]).T
        start += len(W.mid)
    assert total is not None
    return total


def _smallest_singular_value(M: Ball) -> float:
    """A lower bound of σ_min of every matrix in the ball; 0 if none is proved."""
    low = float(np.linalg.svd(M.mid, compute_uv=False)[-1]) * (1.0 - 1e-6)
    G = M.T @ M
    shifted = G + Ball(-(low * low) * np.eye(len(G.mid)))
    return low * (1.0 - 4 * UNIT) if low > 0 and is_positive(shifted) else 0.0


def is_positive(G: Ball) -> bool:
    """Whether every symmetric matrix in the ball is proved to be positive semidefinite."""
    mid = (G.mid + G.mid.T) / 2
    radius = np.zeros_like(mid) if G.radius is None else np.maximum(G.radius, G.radius.T)
    radius = radius + np.abs(G.mid - G.mid.T) + 4 * UNIT * np.abs(mid)
    diagonal = mid.diagonal()
    if not (np.isfinite(mid).all() and np.isfinite(radius).all() and (diagonal > 0).all()):
        return False
    # powers of two: nothing is rounded
    d = np.exp2(-np.round(np.log2(diagonal) / 2))
    mid, radius = mid * d[:, None] * d, radius * d[:, None] * d
    return positive_definite(mid, product_up(radius, np.ones(len(mid))))
