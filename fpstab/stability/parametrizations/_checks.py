"""What the structures check of their arguments, and how they say what is wrong."""

import math

import torch
from torch import Tensor


def check_number(name: str, argument: str, value: float, expected: str = "a finite number") -> None:
    """Refuse what is no finite number.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: {argument} must be {expected}, got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"{name}: {argument} must be {expected}, got {value!r}.")


def check_range(name: str, lo: float, hi: float) -> None:
    """Refuse a range that is none.

    Raises:
        TypeError: An end is no number.
        ValueError: An end is not finite, or lo > hi.
    """
    check_number(name, "lo", lo)
    check_number(name, "hi", hi)
    if lo > hi:
        raise ValueError(f"{name}: lo must not be above hi, got lo={lo!r}, hi={hi!r}; exchange them.")


def check_weight(name: str, w: Tensor, *, square: bool = False) -> None:
    """Refuse what is no finite floating-point matrix.

    Raises:
        TypeError: It is of no real floating-point type.
        ValueError: It is no matrix, has no entries, has nan or inf, or is not square where it has to be.
    """
    if not w.dtype.is_floating_point:
        raise TypeError(f"{name}: a weight of {w.dtype}; expected a floating-point matrix.")
    check_shape(name, w, square=square)
    if not bool(torch.isfinite(w).all()):
        count = int((~torch.isfinite(w)).sum())
        raise ValueError(f"{name}: {count} of the {w.numel()} entries of the weight are nan or inf; initialise it.")


def check_shape(name: str, w: Tensor, *, square: bool = False) -> None:
    """Refuse what is no matrix, or not square where it has to be.

    Raises:
        ValueError: The shape is another.
    """
    if w.dim() != 2 or not w.numel():
        raise ValueError(f"{name}: a tensor of shape {tuple(w.shape)}; expected a matrix, as of a Linear layer.")
    if square and w.shape[0] != w.shape[1]:
        raise ValueError(
            f"{name}: a weight of shape {tuple(w.shape)}; expected a square one [n, n]. "
            "BoundedSVD and PerronFrobenius take rectangles."
        )
