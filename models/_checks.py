"""What constructors check of their arguments, and how they say what is wrong."""

import math
from collections.abc import Sequence


def require(ok: bool, name: str, value: object, expected: str) -> None:
    """Raises a `ValueError` that names the argument, the value given and what was expected, unless `ok`.

    >>> require(False, "batch_size", 0, "a positive integer")
    Traceback (most recent call last):
    ValueError: batch_size must be a positive integer, got 0
    """
    if not ok:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def is_int(value: object, at_least: int) -> bool:
    """Whether `value` is an integer not below `at_least`; `True` is not an integer here."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def is_number(value: object) -> bool:
    """Whether `value` is a finite real number; `True` is not a number here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def layer_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the layers of a network, input first, as a tuple.

    Raises:
        ValueError: `sizes` is not a sequence of two or more positive integers.
    """
    ok = isinstance(sizes, Sequence) and len(sizes) >= 2 and all(is_int(size, 1) for size in sizes)
    require(ok, name, sizes, "a sequence of two or more positive integers")
    return tuple(sizes)
