"""What a structured weight loses when it is computed and cast, so that it can be shrunk by as much beforehand."""

import math

import torch
from torch import Tensor

from fpstab.rounding import down, up


def working(x: Tensor) -> Tensor:
    """A tensor in the precision in which structured weights are computed: float64, where the device has it."""
    return x.to(working_dtype(x))


def working_dtype(x: Tensor) -> torch.dtype:
    """The type of `working(x)`."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def gamma(n: int, dtype: torch.dtype) -> float:
    """γ_n = n·u/(1 − n·u), the relative error of n roundings in `dtype`, rounded up; inf where it says nothing."""
    nu = n * unit(dtype)
    return nu / (1.0 - nu) * (1.0 + 1e-12) if nu < 1.0 else math.inf


def unit(dtype: torch.dtype) -> float:
    """The unit roundoff of `dtype`, half the distance from 1 to the next number."""
    return torch.finfo(dtype).eps / 2


def smallest(dtype: torch.dtype) -> float:
    """The smallest positive number of `dtype`: casts err by less, beside their relative error."""
    info = torch.finfo(dtype)
    return info.tiny * info.eps


def shrinkage(roundings: float, entries: float, bound: float, dtype: torch.dtype) -> float:
    """1 − ρ such that a weight of norm ≤ (1 − ρ)·bound that is off by `roundings`·bound still has norm ≤ bound.

    Args:
        roundings: Relative errors together, of the computation and of the cast.
        entries: How often the smallest number of `dtype` may be added to the norm by underflow in the cast.
        bound: The norm that is promised, ≥ 0.
        dtype: Of the weight.
    """
    lost = 1.1 * (roundings + (entries * smallest(dtype) / bound if bound else 0.0))
    return max(0.0, 1.0 - lost)


def cast_number(value: float, dtype: torch.dtype, *, towards_zero: bool) -> float:
    """The number of `dtype` next to `value` towards zero, or away from it.

    >>> cast_number(0.1, torch.float32, towards_zero=True) < 0.1 < cast_number(0.1, torch.float32, towards_zero=False)
    True
    """
    cast = torch.tensor(value, dtype=torch.float64).to(dtype)
    wrong = abs(float(cast)) > abs(value) if towards_zero else abs(float(cast)) < abs(value)
    if wrong:
        # nextafter is not there for half precision everywhere: one unit in the last place, by the bits
        size = {2: torch.int16, 4: torch.int32, 8: torch.int64}[cast.element_size()]
        cast = (cast.view(size) + (-1 if towards_zero else 1)).view(dtype)
    return float(cast)


def centre_and_radius(lo: float, hi: float) -> tuple[float, float]:
    """λ and r with [λ − r, λ + r] inside [lo, hi] in spite of rounding."""
    centre = lo / 2 + hi / 2
    return centre, max(0.0, min(down(hi - centre) if hi != centre else 0.0, down(centre - lo) if lo != centre else 0.0))


def damping(rate: float, step: float) -> float:
    """An upper bound of exp(−rate·step)."""
    return min(1.0, up(math.exp(-rate * step) * (1.0 + 1e-15 * (1.0 + rate * step)), 2)) if rate * step else 1.0


def defect(U: Tensor) -> Tensor:
    """An upper bound of ‖UᵀU − I‖₂ of a matrix `[p, k]` as it is, rounding of its Gram matrix included; a scalar."""
    p, k = U.shape
    with torch.no_grad():
        gram = U.mT @ U
        gram.diagonal().sub_(1.0)
        off = torch.linalg.matrix_norm(gram) * (1.0 + gamma(k * k + 8, U.dtype))
        bound: Tensor = off + 2.0 * gamma(p + 4, U.dtype) * U.square().sum()
    return bound
