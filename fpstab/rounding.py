"""Arithmetic that errs on the known side: bounds on what floating-point numbers lose, and proofs that use them.

Nothing here changes the rounding mode of the processor. Errors are bounded a priori, whatever the order in which
a library sums (blocked, vectorised, with fused multiply-adds): a sum of n products in float64 is within
γ_n · Σ|a_k b_k| of the truth, γ_n = n·u/(1 − n·u), u = 2⁻⁵³ (Higham, Accuracy and Stability of Numerical
Algorithms, §3.1), unless numbers underflow; a tiny constant covers that.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNIT = 2.0**-53
TINY = 2.0**-700
"""More than all underflows of a matrix computation together, less than anything that matters beside 1."""

_CHUNK = 64  # products that are summed in one go, see `gram`


def gamma(n: int) -> float:
    """An upper bound of γ_n = n·u/(1 − n·u), the relative error of n roundings.

    >>> 0.0 < gamma(10) - 10 * 2.0**-53 < 1e-28
    True
    """
    return n * UNIT / (1.0 - n * UNIT) * (1.0 + 8.0 * UNIT)


def up(x: float, ulps: int = 1) -> float:
    """The float `ulps` steps above x (towards infinity).

    >>> up(1.0) == 1.0 + 2.0**-52
    True
    """
    for _ in range(ulps):
        x = math.nextafter(x, math.inf)
    return x


def down(x: float, ulps: int = 1) -> float:
    """The float `ulps` steps below x (towards minus infinity)."""
    for _ in range(ulps):
        x = math.nextafter(x, -math.inf)
    return x


def sqrt_up(x: float) -> float:
    """An upper bound of √x for x ≥ 0; the root of 0 is 0."""
    return up(math.sqrt(x)) if x > 0.0 else 0.0


def multiply_up(*factors: float) -> float:
    """An upper bound of a product of numbers ≥ 0; exactly 0 if one of them is.

    >>> multiply_up(0.1, 10.0) >= 1.0, multiply_up(3.0, 0.0), multiply_up(1e300, 1e300)
    (True, 0.0, inf)
    """
    if 0.0 in factors:
        return 0.0
    product = 1.0
    for factor in factors:
        product = up(product * factor)
    return product


def ldexp_up(x: float, exponent: int) -> float:
    """An upper bound of x · 2**exponent for x ≥ 0: exact, but inf on overflow, and never rounded to below.

    >>> ldexp_up(1.0, -2000) > 0.0, ldexp_up(1.0, 2000), ldexp_up(3.0, 1)
    (True, inf, 6.0)
    """
    if x == 0.0 or math.isinf(x):
        return x
    try:
        scaled = math.ldexp(x, exponent)
    except OverflowError:
        return math.inf
    # below the normal numbers ldexp rounds, maybe down
    return scaled if scaled >= 2.0**-1021 else up(scaled)


def product_up(A: Array, B: Array) -> Array:
    """An entrywise upper bound of A @ B (a matrix or a vector B) for entries ≥ 0."""
    return (A @ B) * (1.0 + 2.0 * gamma(A.shape[-1] + 4)) + TINY


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """All matrices within `radius` of `mid`, entry by entry.

    Attributes:
        mid: `[p, n]`.
        radius: `[p, n]`, ≥ 0; None stands for zeros.
    """

    mid: Array
    radius: Array | None = None

    @property
    def T(self) -> "Ball":  # noqa: N802
        """The transposes."""
        return Ball(self.mid.T, None if self.radius is None else self.radius.T)

    @property
    def magnitude(self) -> Array:
        """The largest absolute values (rounded up), `[p, n]`."""
        size = np.abs(self.mid)
        return size if self.radius is None else np.nextafter(size + self.radius, np.inf)

    def __matmul__(self, other: "Ball") -> "Ball":
        """A ball that holds every product."""
        n = self.mid.shape[1]
        radius = gamma(n + 2) * (1 + 1e-10) * product_up(np.abs(self.mid), np.abs(other.mid)) + TINY
        if self.radius is not None:
            radius = (radius + product_up(self.radius, other.magnitude)) * (1 + 4 * UNIT)
        if other.radius is not None:
            radius = (radius + product_up(np.abs(self.mid), other.radius)) * (1 + 4 * UNIT)
        return Ball(self.mid @ other.mid, radius)

    def __add__(self, other: "Ball") -> "Ball":
        """A ball that holds every sum."""
        mid = self.mid + other.mid
        radius = np.abs(mid) * (2 * UNIT) + TINY
        for one in (self.radius, other.radius):
            if one is not None:
                radius = (radius + one) * (1 + 4 * UNIT)
        return Ball(mid, radius)

    def scale_columns(self, factors: Array) -> "Ball":
        """The products with diag(factors), `[n]`, on the right."""
        mid = self.mid * factors
        radius = np.abs(mid) * (2 * UNIT) + TINY
        if self.radius is not None:
            radius = (radius + self.radius * np.abs(factors) * (1 + 4 * UNIT) + TINY) * (1 + 4 * UNIT)
        return Ball(mid, radius)


def gram(W: Array) -> Array:
    """The Gram matrix W Wᵀ `[p, p]`; entry by entry within γ_k · |W| |W|ᵀ, k = `gram_roundings(n)`.

    Long sums are made of short ones, so that k is about n/64 + 64 instead of n.
    """
    n = W.shape[1]
    if n <= 2 * _CHUNK:
        product: Array = W @ W.T
        return product
    total = np.zeros((W.shape[0],) * 2)
    for start in range(0, n, _CHUNK):
        chunk = W[:, start : start + _CHUNK]
        total += chunk @ chunk.T
    return total


def gram_roundings(n: int) -> int:
    """How many roundings an entry of `gram` of a matrix with n columns suffers."""
    return n + 1 if n <= 2 * _CHUNK else -(-n // _CHUNK) + _CHUNK + 1


def positive_definite(M: Array, slack: Array) -> bool:
    """Whether a Cholesky factorisation proves that M − E ⪰ 0 for every symmetric E with row sums |E|·1 ≤ slack.

    Rump, Verification of positive definiteness, BIT 46 (2006): if the factorisation of M − c·I succeeds in
    floating point, c = γ/(1−γ) · trace, then M ⪰ 0, as what the roundings add has a norm below c. False only
    says that it is not proved.

    Args:
        M: `[n, n]` symmetric; the lower triangle is read. Best with a diagonal near 1.
        slack: `[n]`, ≥ 0.
    """
    n = len(M)
    diagonal = M.diagonal()
    if not (np.isfinite(diagonal).all() and np.isfinite(slack).all() and (diagonal > slack).all()):
        return False
    g = gamma(n + 8)  # n + 1 suffice; libraries may multiply by a reciprocal instead of dividing
    c = g / (1.0 - g) * float(diagonal.sum()) * (1.0 + 2.0 * gamma(n + 8)) + n * n * TINY
    shifted = np.array(M, order="F")
    np.fill_diagonal(shifted, np.nextafter(diagonal - np.nextafter(c + slack, np.inf), -np.inf))
    factor, info = scipy.linalg.lapack.dpotrf(shifted, lower=1, clean=0, overwrite_a=1)
    # on nan a library may go on
    return info == 0 and bool(np.isfinite(factor.diagonal()).all())


def spectral_norm(W: Array | Ball) -> float:
    """An upper bound of the largest singular value of a finite matrix (of every matrix in a ball), rounded outward.

    Never below the truth; above it by some 1e-12 relatively (by `size` · 1e-15 for big square ones). Exactly 0 for
    zeros; inf where it leaves float64. The smaller Gram matrix is formed with a bound on its error, and ρ·I minus
    it is proved to be positive.

    >>> 5.0 <= spectral_norm(np.array([[3.0, 0.0], [4.0, 0.0]])) <= 5.0 * (1 + 1e-13)
    True
    """
    ball = W if isinstance(W, Ball) else Ball(W)
    if ball.mid.shape[0] > ball.mid.shape[1]:
        ball = ball.T
    size = float(ball.magnitude.max(initial=0.0))
    if size == 0.0 or not math.isfinite(size):
        return size
    ball, exponent = _scaled(ball, size)
    G = gram(ball.mid)
    ones = np.ones(len(G))
    size_matrix = np.abs(ball.mid)
    slack = gamma(gram_roundings(ball.mid.shape[1])) * product_up(size_matrix, product_up(size_matrix.T, ones))
    if ball.radius is not None:
        magnitude = ball.magnitude
        slack = slack + product_up(ball.radius, product_up(magnitude.T, ones))
        slack = slack + product_up(magnitude, product_up(ball.radius.T, ones))
    slack = slack * (1.0 + 16 * UNIT) + TINY
    top = float(scipy.linalg.eigvalsh(G, subset_by_index=[len(G) - 1, len(G) - 1])[0])
    top = max(top, float(G.diagonal().max()))
    bound = top + float(np.max(slack)) + gamma(len(G) + 8) * float((top - G.diagonal()).sum())
    step = 16.0 * UNIT
    for _ in range(25):
        rho = bound * (1.0 + step)
        shifted = -G
        np.fill_diagonal(shifted, rho - G.diagonal())
        if positive_definite(shifted, (slack + 2.0 * UNIT * rho) * (1.0 + 4.0 * UNIT)):
            return ldexp_up(sqrt_up(rho), exponent)
        step *= 4.0
    # the norm of the matrix of magnitudes
    rows, columns = product_up(ball.magnitude, np.ones(ball.mid.shape[1])), product_up(ball.magnitude.T, ones)
    return ldexp_up(sqrt_up(multiply_up(float(rows.max()), float(columns.max()))), exponent)


def _scaled(ball: Ball, size: float) -> tuple[Ball, int]:
    """Divide by the power of two that brings the largest entry near 1; what underflows goes into the radius."""
    exponent = math.frexp(size)[1]
    mid = np.ldexp(ball.mid, -exponent)
    radius = None if ball.radius is None else np.ldexp(ball.radius, -exponent) + TINY
    if radius is None and not np.array_equal(np.ldexp(mid, exponent), ball.mid):
        radius = np.full(mid.shape, TINY)
    return Ball(mid, radius), exponent
