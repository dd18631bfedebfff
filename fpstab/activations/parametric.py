"""The rows of the four activations of `fpstab.activations.modules`, in exact arithmetic, rounded outward at the end.

A parameter may have any value at which the formula is one, also one that learning has carried out of its authors' range.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from fpstab.activations.formulas import number
from fpstab.activations.info import ActivationInfo


def soft_exponential(alpha: Any) -> ActivationInfo:
    """For α < 0 of the half-line on which it exists.

    Raises:
        ValueError: If α is not finite, or α ≤ −1: σ(0) does not exist.
    """
    name, a = "SoftExponential", _finite("alpha", alpha)
    if a == 0:
        return ActivationInfo(name, 0.0, (1.0, 1.0), 1.0, homogeneous=True)
    if a <= -1:
        raise ValueError(f"alpha={a:.6g}: SoftExponential is not defined at 0; expected a number above -1.")
    zero = a if a > 0 else -math.log1p(-a * a) / a
    return ActivationInfo(name, zero, (0.0, math.inf), math.inf)


def blu(beta: Any) -> ActivationInfo:
    """The slopes 1 + βz/√(z² + 1).

    Raises:
        ValueError: If β is not finite.
    """
    size = abs(Fraction(_finite("beta", beta)))
    high = _up(1 + size)
    return ActivationInfo("BLU", 0.0, (_down(1 - size), high), high, homogeneous=size == 0)


def pelu(a: Any, b: Any) -> ActivationInfo:
    """The slopes a/b for z ≥ 0, (a/b) exp(z/b) for z < 0.

    Raises:
        ValueError: If a or b is not finite, or b = 0.
    """
    upper, width = _finite("a", a), _finite("b", b)
    if width == 0:
        raise ValueError("b=0: PELU divides by it.")
    slope = Fraction(upper) / Fraction(width)
    low, high = _down(slope), _up(slope)
    if width > 0 or slope == 0:
        slopes, sector = (min(low, 0.0), max(high, 0.0)), max(abs(low), abs(high))
    else:  # exp(z/b) grows without bound for z < 0
        slopes, sector = ((low, math.inf) if slope > 0 else (-math.inf, high)), math.inf
    return ActivationInfo("PELU", 0.0, slopes, sector, bounded=slope == 0, homogeneous=slope == 0)


def aplu(a: Tensor, b: Tensor) -> ActivationInfo:
    """The slopes of its pieces; those of z → −∞ and z → ∞ are −Σ aₛ and 1.

    Raises:
        ValueError: If a value is not finite.
    """
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ValueError("APLU: a or b is not finite.")
    rows = zip(a.detach().cpu().double().tolist(), b.detach().cpu().double().tolist(), strict=True)
    channels = [_channel(slopes, hinges) for slopes, hinges in rows]
    ranges = [(_down(each.low), _up(each.high)) for each in channels]
    zero = max((each.zero for each in channels), key=abs)
    return ActivationInfo(
        "APLU",
        float(zero),
        (min(low for low, _ in ranges), max(high for _, high in ranges)),
        math.inf if zero else max(_up(each.sector) for each in channels),
        homogeneous=all(each.homogeneous for each in channels),
        channel_slopes=torch.tensor(ranges, dtype=torch.float64) if len(ranges) > 1 else None,
    )


@dataclass(frozen=True, slots=True)
class _Channel:
    zero: Fraction
    low: Fraction
    high: Fraction
    sector: Fraction
    homogeneous: bool


def _channel(a: list[float], b: list[float]) -> _Channel:
    """One piecewise linear function, from its kinks."""
    change = {Fraction(0): Fraction(1)}  # by how much the slope grows at each kink
    for slope, hinge in zip(a, b, strict=True):
        at = Fraction(hinge)
        change[at] = change.get(at, Fraction(0)) + Fraction(slope)
    kinks = sorted(at for at, by in change.items() if by)
    slopes = [-sum(map(Fraction, a), Fraction(0))]
    for at in kinks:
        slopes.append(slopes[-1] + change[at])
    zero = _value(a, b, Fraction(0))
    # σ(z)/z is monotone on each piece, so that its extrema are at kinks and at the ends
    chords = [_value(a, b, at) / at for at in kinks if at]
    beside = slopes[sum(at < 0 for at in kinks)], slopes[sum(at <= 0 for at in kinks)]
    sector = max(map(abs, (slopes[0], slopes[-1], *beside, *chords)))
    return _Channel(zero, min(slopes), max(slopes), sector, all(at == 0 for at in kinks))


def _value(a: list[float], b: list[float], z: Fraction) -> Fraction:
    hinges = (Fraction(slope) * max(Fraction(0), Fraction(hinge) - z) for slope, hinge in zip(a, b, strict=True))
    return max(Fraction(0), z) + sum(hinges, Fraction(0))


def _finite(name: str, value: Any) -> float:
    given = number(name, value)
    if math.isinf(given):
        raise ValueError(f"{name}={given}: expected a finite number.")
    return given


def _up(value: Fraction) -> float:
    """The least float that is not below."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.nextafter(math.inf, 0.0)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def _down(value: Fraction) -> float:
    return 0.0 - _up(-value)
