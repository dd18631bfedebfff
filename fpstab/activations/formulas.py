"""The rows of torch's activations, from their parameters.

Constants are extrema of the exact derivative, rounded outward in the last digit.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fpstab.activations.info import ActivationInfo


def _up(value: float) -> float:
    return math.nextafter(value, math.inf)


def _down(value: float) -> float:
    return math.nextafter(value, -math.inf)


def number(name: str, value: Any) -> float:
    """A parameter, refused by name if it is nan or no number."""
    try:
        given = float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        given = math.nan
    if math.isnan(given):
        raise ValueError(f"{name}={value!r}: expected a number.")
    return given


def identity() -> ActivationInfo:
    """σ(z) = z."""
    return ActivationInfo("Identity", 0.0, (1.0, 1.0), 1.0, homogeneous=True)


def relu() -> ActivationInfo:
    """σ(z) = max(z, 0)."""
    return ActivationInfo("ReLU", 0.0, (0.0, 1.0), 1.0, homogeneous=True)


def clamp(name: str, low: Any, high: Any) -> ActivationInfo:
    """σ(z) = min(max(z, low), high)."""
    low = -math.inf if low is None else number("min", low)
    high = math.inf if high is None else number("max", high)
    low = min(low, high)  # torch: the upper one wins
    zero = min(max(0.0, low), high)
    slopes = (0.0, 1.0) if low < high else (0.0, 0.0)
    if (low, high) == (-math.inf, math.inf):
        slopes = (1.0, 1.0)
    return ActivationInfo(
        name,
        zero,
        slopes,
        1.0 if zero == 0 else math.inf,
        bounded=math.isfinite(low) and math.isfinite(high),
        homogeneous=all(bound == 0 or math.isinf(bound) for bound in (low, high)),
    )


def threshold(threshold: Any, value: Any) -> ActivationInfo:
    """σ(z) = z above the threshold, a constant below."""
    at, below = number("threshold", threshold), number("value", value)
    zero = 0.0 if at < 0 else below
    low, high = (0.0, 1.0) if at == below else (0.0, math.inf) if below < at else (-math.inf, 1.0)
    sector = math.inf if zero else max(1.0, _up(abs(below / at))) if at < 0 and below != at else 1.0
    return ActivationInfo("Threshold", zero, (low, high), sector, continuous=at == below, homogeneous=at == 0 == below)


def _leaky(name: str, low: float, high: float, random: bool = False) -> ActivationInfo:
    """1 for z > 0, a slope within [low, high] for z < 0."""
    slopes = (min(low, 1.0), max(high, 1.0))
    sector = max(1.0, abs(low), abs(high))
    return ActivationInfo(name, 0.0, slopes, sector, homogeneous=True, random=random)


def leaky_relu(negative_slope: Any) -> ActivationInfo:
    """1 for z > 0, the slope for z < 0."""
    slope = number("negative_slope", negative_slope)
    return _leaky("LeakyReLU", slope, slope)


def rrelu(lower: Any, upper: Any, training: bool) -> ActivationInfo:
    """In training every slope within [lower, upper] may be drawn; else their mean holds."""
    low, high = number("lower", lower), number("upper", upper)
    if not training:
        mean = (low + high) / 2
        low, high = (_down(mean), _up(mean)) if low != high else (low, high)
    return _leaky("RReLU", low, high, random=bool(training))


def prelu(weight: Tensor) -> ActivationInfo:
    """Slopes of one channel or more for z < 0."""
    slopes = weight.detach().to("cpu", torch.float64).flatten()
    if not slopes.isfinite().all():
        raise ValueError("PReLU: a slope is not finite.")
    low, high = (float(each) for each in slopes.aminmax())
    info = _leaky("PReLU", low, high)
    if len(slopes) == 1:
        return info
    channels = torch.stack((slopes.clamp(max=1), slopes.clamp(min=1)), dim=1)
    return ActivationInfo("PReLU", 0.0, info.slope_range, info.sector, homogeneous=True, channel_slopes=channels)


def elu(alpha: Any) -> ActivationInfo:
    """σ(z) = α(exp(z) − 1) for z < 0."""
    a = number("alpha", alpha)
    return ActivationInfo("ELU", 0.0, (min(a, 0.0), max(a, 1.0)), max(abs(a), 1.0), homogeneous=a == 0)


def celu(alpha: Any) -> ActivationInfo:
    """σ(z) = α(exp(z/α) − 1) for z < 0."""
    a = number("alpha", alpha)
    if a == 0:
        raise ValueError("alpha=0: CELU divides by it.")
    if a < 0:  # exp(z/α) grows without bound for z < 0
        return ActivationInfo("CELU", 0.0, (1.0, math.inf), math.inf)
    return ActivationInfo("CELU", 0.0, (0.0, 1.0), 1.0)


def selu() -> ActivationInfo:
    """ELU, scaled."""
    # scale·α is 1.75809934084…; in float32, where both are rounded first, 1.75809934639…
    return ActivationInfo("SELU", 0.0, (0.0, 1.7580993464), 1.7580993464)


def gelu(approximate: str) -> ActivationInfo:
    """At z = ±√2, and for the tanh form ±1.41850….

    References: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """
    if approximate == "none":
        return ActivationInfo("GELU", 0.0, (-0.1289041451851548, 1.128904145185155), 1.0)
    if approximate == "tanh":
        return ActivationInfo("GELU", 0.0, (-0.12899306865877178, 1.128993068658772), 1.0)
    raise ValueError(f"approximate={approximate!r}: expected 'none' or 'tanh'.")


def softplus(beta: Any, threshold: Any) -> ActivationInfo:
    """σ(z) = log(1 + exp(βz))/β."""
    b, at = number("beta", beta), number("threshold", threshold)
    if b == 0:
        raise ValueError("beta=0: Softplus divides by it.")
    # torch goes over to the identity where βz > threshold. By default that is 2e-9 at z = 20, a rounding of
    # float32; a low threshold makes a step down that is part of the function.
    smooth = at > 0 and math.log1p(math.exp(-at)) <= at * 2.0**-24
    slopes = (0.0 if smooth else -math.inf, 1.0)
    zero = 0.0 if at < 0 else math.log(2) / b
    sector = math.inf if zero else max(1.0, _up(math.log1p(math.exp(at)) / -at))
    return ActivationInfo("Softplus", zero, slopes, sector, continuous=smooth)


def hardshrink(lambd: Any) -> ActivationInfo:
    """0 for |z| ≤ λ, else z."""
    step = number("lambd", lambd) > 0
    return ActivationInfo(
        "Hardshrink", 0.0, (0.0, math.inf) if step else (1.0, 1.0), 1.0, continuous=not step, homogeneous=not step
    )


def softshrink(lambd: Any) -> ActivationInfo:
    """0 for |z| ≤ λ, else z moved by λ towards 0."""
    width = number("lambd", lambd)
    if width < 0:
        raise ValueError(f"lambd={lambd!r}: expected a number ≥ 0.")
    return ActivationInfo("Softshrink", 0.0, (0.0 if width else 1.0, 1.0), 1.0, homogeneous=width == 0)


def fixed(
    name: str, zero: float, low: float, high: float, sector: float, **traits: bool
) -> Callable[[], ActivationInfo]:
    """The row of an activation without parameters: σ(0), least and largest slope, sector."""
    return lambda: ActivationInfo(name, zero, (low, high), sector, **traits)  # type: ignore[arg-type]


_SIXTH = _up(1 / 6)
sigmoid = fixed("Sigmoid", 0.5, 0.0, 0.25, math.inf, bounded=True)
hardsigmoid = fixed("Hardsigmoid", 0.5, 0.0, _SIXTH, math.inf, bounded=True)
tanh = fixed("Tanh", 0.0, 0.0, 1.0, 1.0, bounded=True)
silu = fixed("SiLU", 0.0, -0.09983932012886693, 1.099839320128867, 1.0)  # at z = ±2.39935…
mish = fixed("Mish", 0.0, -0.11252612238946257, 1.088498161251728, 1.0)  # at z = −2.25637…, 1.49057…
hardswish = fixed("Hardswish", 0.0, -0.5, 1.5, 1.0)
logsigmoid = fixed("LogSigmoid", -math.log(2), 0.0, 1.0, math.inf)
softsign = fixed("Softsign", 0.0, 0.0, 1.0, 1.0, bounded=True)
tanhshrink = fixed("Tanhshrink", 0.0, 0.0, 1.0, 1.0)
