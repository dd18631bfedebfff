"""Whether arithmetic on given float64 numbers is free of rounding, and intervals where it is not.

A float32 weight has 24 significant bits of float64's 53, so much of what an extraction computes is exact: selecting,
permuting, scaling by a power of two. What is not exact must not be folded into a weight, for the weight would be that
of another network.
"""

import math

import numpy as np
import torch
from torch import Tensor

_DIGITS = 53
_LOWEST = -1074  # exponent of the least positive number


def significant_bits(x: Tensor) -> Tensor:
    """Number of significant bits of each entry, int64; 0 for zero.

    >>> significant_bits(torch.tensor([0.0, 1.0, 0.75, 0.1], dtype=torch.float64)).tolist()
    [0, 1, 2, 52]
    """
    return _top(x) - _bottom(x)


def exact_product(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x * y` is surely exact, entry by entry (broadcast); false also where it overflows."""
    product = x * y
    fits = (significant_bits(x) + significant_bits(y) <= _DIGITS) & (_bottom(x) + _bottom(y) >= _LOWEST)
    return (x == 0) | (y == 0) | (fits & product.isfinite())


def exact_sum(x: Tensor, y: Tensor) -> Tensor:
    """Whether `x + y` is exact, entry by entry (broadcast); false where it overflows.

    By Knuth's two-sum, whose second part is the rounding error.
    """
    total = x + y
    part = total - x
    error = (x - (total - part)) + (y - part)
    return (error == 0) & total.isfinite()


def round_up(x: Tensor, bits: int) -> Tensor:
    """The least numbers of so many significant bits that are not below `x` ≥ 0.

    >>> round_up(torch.tensor([0.1, 0.25], dtype=torch.float64), 3).tolist()
    [0.109375, 0.25]
    """
    mantissa, exponent = torch.frexp(x)
    mantissa = (mantissa * 2.0**bits).ceil() * 2.0**-bits
    return torch.from_numpy(np.ldexp(mantissa.numpy(), exponent.numpy()))  # torch's goes through float32


def interval_product(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """An interval that holds every product of a number in [x₀, x₁] and one in [y₀, y₁], entry by entry."""
    low, high = [], []
    for one in x:
        for other in y:
            product, exact = one * other, exact_product(one, other)
            product = torch.where((one == 0) | (other == 0), 0.0, product)  # 0·inf
            low.append(torch.where(exact, product, product.nextafter(torch.tensor(-math.inf, dtype=torch.float64))))
            high.append(torch.where(exact, product, product.nextafter(torch.tensor(math.inf, dtype=torch.float64))))
    return torch.stack(low).amin(0), torch.stack(high).amax(0)


def widen(x: Tensor, ulps: int) -> tuple[Tensor, Tensor]:
    """[x − e, x + e] with e at least `ulps` units in the last place of `x`."""
    error = x.abs() * (ulps * 2.0**-52) + 5e-324
    return x - error, x + error


def _top(x: Tensor) -> Tensor:
    return torch.where(x == 0, 0, torch.frexp(x).exponent.long())


def _bottom(x: Tensor) -> Tensor:
    """Exponent of the lowest set bit."""
    mantissa, exponent = torch.frexp(x)
    whole = (mantissa * 2.0**_DIGITS).nan_to_num(0, 0, 0).long()
    lowest = torch.frexp((whole & -whole).double()).exponent.long() - 1
    return torch.where(x == 0, 0, exponent.long() - _DIGITS + lowest)
