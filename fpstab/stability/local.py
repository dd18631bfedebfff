"""Attracting fixed points that are proved to exist: an enclosure, a quadratic norm, and Banach's theorem inside (R5)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import torch

from fpstab.jacobian.chains import Dense
from fpstab.jacobian.elementwise import Elementwise
from fpstab.rounding import Array, Ball, spectral_norm, sqrt_up, up
from fpstab.stability.certificates import LARGEST, StabilityCertificate, is_positive, judged, printed_up, refused
from fpstab.stability.quadratic import decreases

MAX_INPUTS = 64
_RADII = (1.0, 0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
_ROUNDING = 1e-13  # relative and absolute; more than float64 loses in a value or a derivative of an activation

# Lipschitz constants of σ', rounded up.
_CURVATURE = {
    "Tanh": 0.7699,
    "Sigmoid": 0.0963,
    "SiLU": 0.5001,
    "LogSigmoid": 0.2501,
    "Softsign": 2.0,
    "sin": 1.0,
    "cos": 1.0,
    "atan": 0.6496,
}


def local_certificate(layers: Sequence[Dense], point: Array, name: str, hypothesis: str) -> StabilityCertificate:
    """R5: one fixed point in a region around `point` `[n]`, which attracts all that starts there; so ρ(J) < 1 at it.

    In the norm |x|_P = √(xᵀPx), P from a Lyapunov equation of the Jacobian at the point, the Jacobians in the region
    are enclosed and proved to have norms ≤ q < 1, and the residual |f(x̂) − x̂|_P to be at most (1 − q) times the radius.
    """
    if layers[0].weight.shape[1] > MAX_INPUTS:
        return refused(name, f"more than {MAX_INPUTS} inputs", hypothesis, "local")
    for layer in layers:
        if layer.activation is not None and not _is_known(layer.activation):
            return refused(name, f"the derivative of {layer.name} has no enclosure here", hypothesis, "local")
    n = len(point)
    box = Ball(point[:, None], np.zeros((n, 1)))
    J, value = _enclose(layers, box)
    rho = float(np.abs(np.linalg.eigvals(J.mid)).max()) if np.isfinite(J.mid).all() else math.inf
    if rho >= LARGEST:
        return judged(name, rho, "", hypothesis, "", "local")
    scale = (1.0 + rho) / 2
    P: Array = np.asarray(scipy.linalg.solve_discrete_lyapunov((J.mid / scale).T, np.eye(n)), dtype=np.float64)
    P = (P + P.T) / 2
    P = P / np.linalg.norm(P, 2)
    smallest = float(np.linalg.eigvalsh(P)[0]) * (1.0 - 1e-6)
    if not smallest > 1e-12 or not is_positive(Ball(P) + Ball(-smallest * np.eye(n))):
        return refused(name, "the Jacobian is too far from normal for a quadratic norm", hypothesis, "local")
    residual = value + Ball(-point[:, None])
    size = up(float(np.linalg.norm(residual.magnitude)) * (1.0 + 1e-12))
    residual_norm = up(size * sqrt_up(spectral_norm(P)) * (1.0 + 1e-12))
    size_of_point = 1.0 + float(np.abs(point).max())
    for radius in _RADII:
        length = radius * size_of_point * math.sqrt(smallest) * (1.0 - 1e-12)
        half = up(length / math.sqrt(smallest) * (1.0 + 1e-12))  # |x|_∞ ≤ |x|₂ ≤ |x|_P / √λ_min
        inside = _enclose(layers, Ball(point[:, None], np.full((n, 1), half)))[0]
        rate = _proved_rate(P, inside, rho)
        if rate < LARGEST and residual_norm <= (1.0 - rate) * length * (1.0 - 1e-12):
            return judged(
                name,
                rate,
                f"Exactly one fixed point x* with |x* − x̂|_P ≤ {length:.3g}, and |fᵏ(x) − x*|_P ≤ {printed_up(rate)}ᵏ |x − x*|_P "
                f"there; x̂ = ({', '.join(f'{value:.6g}' for value in point[:4])}{', …' if n > 4 else ''}).",
                hypothesis,
                f"|x − x̂|_P ≤ {length:.3g} (a region around x̂ within {half:.3g} of it in each coordinate)",
                "local",
            )
    return StabilityCertificate(
        name, False, max(rho, LARGEST), "Not proved: in no region tried were the Jacobians small and the residual smaller still.",
        hypothesis, "", "local",
    )  # fmt: skip


def _proved_rate(P: Array, J: Ball, rho: float) -> float:
    if not np.isfinite(J.magnitude).all():
        return math.inf
    for share in (0.3, 0.55, 0.8, 0.97):
        rate = rho + share * (LARGEST - rho)
        if decreases(P, J, rate):
            return rate
    return math.inf


def _enclose(layers: Sequence[Dense], h: Ball) -> tuple[Ball, Ball]:
    """Balls that hold the Jacobians `[n, n]` and the values `[n, 1]` at all points of a ball `[n, 1]`."""
    J: Ball | None = None
    for layer in layers:
        W = Ball(layer.weight.cpu().numpy())
        J = W if J is None else W @ J
        h = W @ h + Ball(layer.bias.cpu().numpy()[:, None])
        if layer.activation is not None:
            low, high = _derivative_range(layer, h)
            middle, spread = (low + high) / 2, np.nextafter((high - low) / 2 * (1 + 1e-15), np.inf)
            J = _scale_rows(J, middle, spread)
            h = _values(layer.activation, h, np.maximum(np.abs(low), np.abs(high)))
    assert J is not None
    return J, h


def _scale_rows(J: Ball, middle: Array, spread: Array) -> Ball:
    """diag(d) J for all d within `spread` of `middle`."""
    scaled = J.T.scale_columns(middle).T
    extra = (spread[:, None] * J.magnitude) * (1 + 1e-14) + 1e-300
    radius = extra if scaled.radius is None else (scaled.radius + extra) * (1 + 1e-14)
    return Ball(scaled.mid, radius)


def _values(activation: Elementwise, z: Ball, slope: Array) -> Ball:
    middle = _torch(activation, z.mid)
    radius = slope[:, None] * (0.0 if z.radius is None else z.radius)
    return Ball(middle, radius * (1 + 1e-14) + _ROUNDING * (1.0 + np.abs(middle)))


def _derivative_range(layer: Dense, z: Ball) -> tuple[Array, Array]:
    """Least and largest slope of σ over the interval of each neuron, `[p]` each."""
    activation = layer.activation
    assert activation is not None
    least, largest = (slopes.numpy() for slopes in layer.slopes())
    radius = np.zeros_like(z.mid) if z.radius is None else z.radius
    low, high = np.nextafter(z.mid - radius, -np.inf)[:, 0], np.nextafter(z.mid + radius, np.inf)[:, 0]
    middle = _derivative(activation, z.mid)
    curvature = _curvature(activation)
    if curvature is not None:
        reach = curvature * np.maximum(high - low, radius[:, 0]) + _ROUNDING * (1.0 + np.abs(middle))
        return np.maximum(least, middle - reach), np.minimum(largest, middle + reach)
    # linear between the kinks
    kinked = np.zeros(len(low), dtype=bool)
    for kink in _kinks(activation) or ():
        kinked |= (low <= kink) & (high >= kink)
    slack = _ROUNDING * (1.0 + np.abs(middle))
    return np.where(kinked, least, np.maximum(middle - slack, least)), np.where(
        kinked, largest, np.minimum(middle + slack, largest)
    )


def _curvature(activation: Elementwise) -> float | None:
    info = activation.info
    if info.name == "GELU":
        return 0.7980 if info.slope_range[0] == -0.1289041451851548 else None
    if info.name == "ELU":  # with another α σ' jumps at 0
        alpha = _given(activation, "alpha")["alpha"]
        return 1.0 if alpha is None or float(alpha) == 1.0 else None
    return _CURVATURE.get(info.name)


def _kinks(activation: Elementwise) -> tuple[float, ...] | None:
    """Where a piecewise linear σ has its kinks; `None` if it is none that is known."""
    info = activation.info
    if info.homogeneous:
        return (0.0,)
    if info.name == "Hardtanh":
        given = _given(activation, "min_val", "max_val")
        low, high = given["min_val"], given["max_val"]
        return -1.0 if low is None else float(low), 1.0 if high is None else float(high)
    return {"ReLU6": (0.0, 6.0), "Hardsigmoid": (-3.0, 3.0)}.get(info.name)


def _given(activation: Elementwise, *names: str) -> dict[str, Any]:
    """Arguments of the call by name, `None` where they are left at their defaults."""
    given = dict(zip(names, activation.args, strict=False)) | dict(activation.kwargs)
    return {name: given.get(name) for name in names}


def _is_known(activation: Elementwise) -> bool:
    return _curvature(activation) is not None or _kinks(activation) is not None


def _torch(activation: Elementwise, z: Array) -> Array:
    return activation(torch.from_numpy(z.T.copy())).numpy().T.copy()


def _derivative(activation: Elementwise, z: Array) -> Array:
    slopes: Array = activation.derivative(torch.from_numpy(z.T.copy()), "left").numpy()[0]
    return slopes
