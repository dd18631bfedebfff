"""Rows of functions that are not in the table, estimated from their values in float64."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fpstab.activations.evaluation import Scalar, as_scalar
from fpstab.activations.info import ActivationInfo

_EPS = 2.0**-52
_ROUNDINGS = 8  # ulps that a value, and its argument, may be off
_DIGITS = 8  # of what is reported
_ZERO = 1e-12  # |σ(0)| that is a rounding
_BESIDE = 1e-8  # where σ(z)/z is near σ'(0), and has half of its digits whatever cancels
_KEPT = 16  # intervals of each kind that are looked at more closely
_PARTS = 64
_ROUNDS = 3
_BISECTIONS = 60
_NOISE = 64  # ulps below which a rise tells nothing of a jump
_PER_OCTAVE = 120  # points of the grid in which |z| doubles
_OCTAVES = 8  # over which growth is judged


def scan(activation: Callable[..., Any], *args: Any, **kwargs: Any) -> ActivationInfo:
    """Estimate what is true of an elementwise function.

    Slopes and |σ(z)/z| are taken on a grid (steps of 1e-3 up to 16, and of 0.6 % from 1e-6 to 1e8), and finer around their
    extrema and kinks; they never exceed those of the function but for rounding. A jump is what stays when an interval is
    halved again and again; what still grows where the grid ends is taken to be unbounded.

    Args:
        activation: A module or function of float64 tensors `[B, 8]`.
        args: Its arguments after the input.
        kwargs: Its named arguments.

    Raises:
        TypeError: If it is not elementwise, is random, or cannot be evaluated.
        ValueError: If it is finite nowhere.

    >>> info = scan(torch.exp)
    >>> info.value_at_zero, info.slope_range, info.bounded, info.estimated
    (1.0, (0.0, inf), False, True)
    """
    with as_scalar(activation, args, kwargs) as sigma:
        zero = float(sigma(torch.zeros(1, dtype=torch.float64)))
        z = _grid()
        value = sigma(z)
        finite = torch.isfinite(value)
        if not bool(finite.any()):
            raise ValueError(f"{sigma.name} is finite nowhere on the grid of ±[1e-6, 1e8].")
        sides = [side for side in _sides(z, finite) if len(side)]
        low, high, continuous, pole = _slope_range(sigma, z, value, sides)
        sector = math.inf if pole or not abs(zero) <= _ZERO else _sector(sigma, z, value, sides)
        bounded = not pole and not any(_grows(value[each].abs()) for side in sides for each in (side, side.flip(0)))
        homogeneous = continuous and _is_homogeneous(sigma, z[z.abs() <= 1e3])
        low, high, sector = _rounded(low, high, sector)
        return ActivationInfo(
            sigma.name,
            zero,
            (low, high),
            sector,
            bounded=bounded,
            continuous=continuous,
            homogeneous=homogeneous,
            estimated=True,
        )


def _grid() -> Tensor:
    far = torch.logspace(-6, 8, 5601, dtype=torch.float64)
    near = torch.arange(1, 16_001, dtype=torch.float64) / 1000
    positive = torch.cat((far, near)).sort().values
    positive = positive[torch.cat((torch.ones(1, dtype=torch.bool), positive.diff() > 0))]
    return torch.cat((-positive.flip(0), positive.new_zeros(1), positive))


def _sides(z: Tensor, finite: Tensor) -> Iterator[Tensor]:
    """Indices of the finite values for z > 0, and for z < 0, from 0 outward."""
    yield ((z > 0) & finite).nonzero()[:, 0]
    yield ((z < 0) & finite).nonzero()[:, 0].flip(0)


def _slope_range(sigma: Scalar, z: Tensor, value: Tensor, sides: list[Tensor]) -> tuple[float, float, bool, bool]:
    """Least and largest slope; whether σ is continuous; whether it has a pole."""
    low, high = _chords(z, value)
    step = 1e-6 * z.abs().clamp(min=1e-2)
    beside = z + step
    pairs = torch.stack((z, beside), 1), torch.stack((value, sigma(beside)), 1)
    low_beside, high_beside = _chords(*pairs)
    slope = (value.diff() / z.diff()).nan_to_num(0.0, 0.0, 0.0)
    steep, kinked = slope.abs(), torch.cat((slope.diff().abs(), slope.new_zeros(1)))
    places = torch.cat([_largest(each) for each in (high, -low, steep, kinked)])
    least = float(min(low.min(), low_beside.min()))
    largest = float(max(high.max(), high_beside.max()))
    for some in _refined(sigma, z, value, places):
        low_fine, high_fine = _chords(*some)
        least, largest = min(least, float(low_fine.min())), max(largest, float(high_fine.max()))
    for side in sides:
        for each in (side, side.flip(0)):  # towards infinity, and towards 0
            if _grows(high_beside[each, 0]):
                largest = math.inf
            if _grows(-low_beside[each, 0]):
                least = -math.inf
    jumps, verticals, poles, upward = _bisect(sigma, z, value, places)
    infinite = jumps | verticals
    if bool((poles | (infinite & upward)).any()):
        largest = math.inf
    if bool((poles | (infinite & ~upward)).any()):
        least = -math.inf
    return min(least, largest), max(least, largest), not bool(jumps.any()), bool(poles.any())


def _chords(z: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes between neighbours in the last dimension, from above and from below: roundings never make a range larger."""
    step, rise = z.diff(), value.diff()
    size = value[..., 1:].abs() + value[..., :-1].abs() + z[..., 1:].abs() + z[..., :-1].abs()
    slope, error = rise / step, torch.where(rise == 0, 0.0, _ROUNDINGS * _EPS * size / step)
    good = torch.isfinite(slope) & torch.isfinite(error)
    return torch.where(good, slope + error, math.inf), torch.where(good, slope - error, -math.inf)


def _largest(values: Tensor) -> Tensor:
    return values.topk(min(_KEPT, len(values))).indices


def _refined(sigma: Scalar, z: Tensor, value: Tensor, places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Points `[K, 65]` and values around the intervals that begin at `places`, finer and finer.

    Of all pieces those parts are kept where the slopes are least, and largest.
    """
    left, right = _around(z, value, places)
    for _ in range(_ROUNDS):
        points, values = _divided(sigma, left, right)
        yield points, values
        low, high = _chords(points, values)
        least, largest = low.amin(1).topk(min(_KEPT, len(low)), largest=False).indices, _largest(high.amax(1))
        rows = torch.cat((least, largest))
        parts = torch.cat((low[least].argmin(1), high[largest].argmax(1)))
        left, right = points[rows, (parts - 1).clamp(min=0)], points[rows, (parts + 2).clamp(max=_PARTS)]


def _around(z: Tensor, value: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of intervals of the grid, and of their neighbours if σ is finite there: none reaches over a pole at 0."""
    before, after = (places - 1).clamp(min=0), (places + 2).clamp(max=len(z) - 1)
    left = torch.where(torch.isfinite(value[before]), z[before], z[places])
    return left, torch.where(torch.isfinite(value[after]), z[after], z[places + 1])


def _divided(sigma: Scalar, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    points = left[:, None] + (right - left)[:, None] * torch.linspace(0.0, 1.0, _PARTS + 1, dtype=torch.float64)
    return points, sigma(points)


def _bisect(sigma: Scalar, z: Tensor, value: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By how fast |σ(b) − σ(a)| falls when [a, b] is halved: jumps, vertical tangents, poles, and which of them go up.

    It falls like |b − a| where σ is smooth, not at all at a jump, like a root of |b − a| at a vertical tangent.
    """
    a, b, at_a, at_b = z[places], z[places + 1], value[places], value[places + 1]
    known = torch.isfinite(at_a) & torch.isfinite(at_b)
    a, b, at_a, at_b = (each[known] for each in (a, b, at_a, at_b))
    rises = [at_b - at_a]
    clear = torch.ones(len(a), dtype=torch.bool)
    count = torch.zeros(len(a), dtype=torch.long)
    for _ in range(_BISECTIONS):
        middle = (a + b) / 2
        at = sigma(middle)
        left = (at - at_a).abs() >= (at_b - at).abs()
        a, b = torch.where(left, a, middle), torch.where(left, middle, b)
        at_a, at_b = torch.where(left, at_a, at), torch.where(left, at, at_b)
        rise = at_b - at_a
        reach = torch.maximum(a.abs(), b.abs())
        size = torch.maximum(at_a.abs(), at_b.abs()).maximum(reach).clamp(min=1.0)  # 1: what may cancel inside σ
        clear &= (rise.abs() > _NOISE * _EPS * size) & torch.isfinite(rise) & (b - a > 4 * _EPS * reach)
        rises.append(torch.where(clear, rise, rises[-1]))
        count += clear
    history = torch.stack(rises, 1)
    rows, back = torch.arange(len(a)), (count - 8).clamp(min=0)
    last = history[rows, count]
    rate = (history[rows, back].abs() / last.abs()).log2() / 8
    judged = count >= 8
    return judged & (rate < 0.1), judged & (rate >= 0.1) & (rate < 0.9), judged & (rate < -0.1), last > 0


def _sector(sigma: Scalar, z: Tensor, value: Tensor, sides: list[Tensor]) -> float:
    """The largest |σ(z)/z| for z ≠ 0, if σ(0) = 0."""
    ratio = torch.where(z != 0, (value / z).abs(), 0.0)
    for side in sides:
        if _grows(ratio[side]) or _grows(ratio[side.flip(0)]):
            return math.inf
    ratio = torch.where(torch.isfinite(ratio), ratio, 0.0)
    points, values = _divided(sigma, *_around(z, value, _largest(ratio[:-1])))
    smallest = float(z[z > 0].min())
    fine = torch.where(points.abs() >= smallest, (values / points).abs(), 0.0)
    beside = torch.tensor([-_BESIDE, _BESIDE], dtype=torch.float64)
    every = torch.cat((ratio, fine.flatten(), (sigma(beside) / beside).abs()))
    return float(every[torch.isfinite(every)].max())


def _grows(values: Tensor) -> bool:
    """Whether the largest value so far goes on growing at the end, from each stretch to the next by as much as before.

    The stretches are the last ones of a side of the grid in which |z| doubles (or halves), some 120 points each.
    """
    so_far = torch.where(torch.isfinite(values), values, -math.inf).cummax(0).values
    if len(values) < _OCTAVES * _PER_OCTAVE:
        return False
    peaks = [float(so_far[-1 - k * _PER_OCTAVE]) for k in range(_OCTAVES)][::-1]
    steps = [after - before for before, after in itertools.pairwise(peaks)]
    if not math.isfinite(steps[-1]) or not math.isfinite(steps[-2]):
        return False
    return steps[-1] > 1e-6 * max(1.0, abs(peaks[-1])) and steps[-1] > 0.8 * steps[-2]


def _is_homogeneous(sigma: Scalar, z: Tensor) -> bool:
    value = sigma(z)
    for c in (0.37, 3.1, 1e3):
        scaled = sigma(c * z)
        off = (scaled - c * value).abs() > 1e-10 * (scaled.abs() + c * value.abs())
        if bool((off | ~torch.isfinite(value) | ~torch.isfinite(scaled)).any()):
            return False
    return True


def _rounded(*values: float) -> list[float]:
    """To eight digits of the largest one; so 0.99999999997, the slope of a hyperbolic tangent beside 0, is 1."""
    size = max(abs(each) if math.isfinite(each) else 1.0 for each in values)
    if size == 0:
        return [each + 0.0 for each in values]
    digits = _DIGITS - 1 - math.floor(math.log10(size))
    return [round(each, digits) + 0.0 if math.isfinite(each) else each for each in values]
