"""Matrix–vector products with an error of a few roundings, however long the sums are."""

import math

import numpy as np

from fpstab.rounding import TINY, UNIT, Array, gamma


class Sliced:
    """A matrix as a sum of three, of which the first two have so few digits that their products with such vectors are exact.

    Ozaki, Ogita, Oishi and Rump, Error-free transformations of matrix multiplication, Numerical Algorithms 59 (2012). With slices of
    β bits, 2β + log₂n ≤ 53, sums of n products of slices are exact in float64, in any order.

    Args:
        W: `[p, n]`, finite; entries of a size between 1e-100 and 1e100 or 0, else a product is less exact, never wrong.
    """

    def __init__(self, W: Array) -> None:
        n = W.shape[1]
        self._bits = (53 - math.ceil(math.log2(max(n, 2)))) // 2
        self._first, rest = _slice(W, self._bits)
        self._second, self._third = _slice(rest, self._bits)
        self._sums = [np.abs(part).sum(1) for part in (self._first, self._second, self._third)]
        self._g = gamma(n + 10)

    def affine(self, x: Array, b: Array) -> tuple[Array, Array]:
        """Wx + b for a vector x `[n]`, and what it may be wrong by `[p]` each."""
        x1, rest = _slice(x, self._bits)
        x2, x3 = _slice(rest, self._bits)
        exact = [self._first @ x1, self._first @ x2, self._second @ x1]
        # 2⁻⁴⁰ of the whole or less: their own rounding does not matter
        small = self._first @ x3 + (self._second @ rest + self._third @ x)
        value = exact[0] + (exact[1] + (exact[2] + small)) + b
        largest = [float(np.abs(each).max(initial=0.0)) for each in (x3, rest, x)]
        lost = sum(sums * size for sums, size in zip(self._sums, largest, strict=True)) * (2.0 * self._g)
        scale = sum(np.abs(each) for each in exact) + np.abs(small) + np.abs(b)
        return value, (lost + 6.0 * UNIT * scale) * (1.0 + 16.0 * UNIT) + TINY + 0.0 * value


def _slice(x: Array, bits: int) -> tuple[Array, Array]:
    """The leading bits of numbers, counted from the largest of each row, and exactly what remains."""
    size = np.abs(x).max(-1, keepdims=True, initial=0.0)
    sigma = np.ldexp(1.0, np.frexp(size)[1] + 53 - bits)
    first = (x + sigma) - sigma
    return first, x - first
