"""The Krawczyk operator: existence and uniqueness of fixed points in boxes."""

from dataclasses import dataclass

import numpy as np

from fpstab.proofs.networks import Enclosure
from fpstab.rounding import TINY, Array, Bools, gamma


@dataclass(frozen=True, slots=True, eq=False)
class Krawczyk:
    """What the Krawczyk operator says of boxes X = [c − r, c + r] and a map Φ with slopes in 𝒮 on them.

    K(X) = c − Y(c − Φ(c)) + (I − Y(I − 𝒮))(X − c), with any matrix Y, here about (I − S)⁻¹. All fixed points in X lie in K(X).
    If K(X) lies in the interior of X, there is exactly one: T(x) = x − Y(x − Φ(x)) maps X to K(X), so by Brouwer it has a
    fixed point; and |I − Y(I − 𝒮)| r < r makes all of Y(I − 𝒮) regular, so that it is one of Φ, and the only one (Krawczyk 1969;
    Neumaier, Interval Methods for Systems of Equations, §5.1). This needs slopes of chords only, no derivatives.

    Attributes:
        low: Lower ends of K(X) `[B, n]`.
        high: Upper ends.
        inverse: Y `[B, n, n]`.
        rate: The largest of (|I − Y(I − 𝒮)| r)_i / r_i `[B]`; below 1 there is at most one fixed point in X.
        blurred: Whether all of X, to within rounding, is fixed, so that to cut it is of no use `[B]`.
    """

    low: Array
    high: Array
    inverse: Array
    rate: Array
    blurred: Bools


def krawczyk(of: Enclosure) -> Krawczyk:
    """Apply the operator to boxes; entries are nan where nothing can be said."""
    n = of.centre.shape[1]
    eye = np.eye(n)
    A = eye - of.slope
    Y = _inverses(A)
    size = np.abs(Y)
    residual = of.centre - of.value
    step = (Y @ residual[:, :, None])[:, :, 0]
    g, up = gamma(n + 8), 1.0 + 4.0 * gamma(n + 16)
    # I − YA, where A itself was rounded
    rest = np.abs(eye - Y @ A) + size @ (of.slope_radius + g * np.abs(A))
    rest += g * eye
    rest *= up
    spread = (rest @ of.radius[:, :, None])[:, :, 0]
    lost = (size @ (of.error + g * np.abs(residual))[:, :, None])[:, :, 0]
    total = (spread + lost + g * np.abs(of.centre)) * up + TINY
    middle = of.centre - step
    total += 0.0 * middle  # nan where it is beyond the largest float
    rate = np.max(spread / np.maximum(of.radius, TINY), axis=1) * up
    variation = ((np.abs(A) + of.slope_radius) @ of.radius[:, :, None])[:, :, 0]
    noise = 2.0 * (of.error + g * (np.abs(of.centre) + of.radius))
    blurred = ((variation <= noise) & (np.abs(residual) <= noise)).all(1)
    return Krawczyk(middle - total, middle + total, Y, rate, np.asarray(blurred))


def _inverses(A: Array) -> Array:
    """Inverses in floating point `[B, n, n]`, nan or inf where there is none."""
    n = A.shape[1]
    if n == 1:
        return 1.0 / A
    if n == 2:
        a, b, c, d = A[:, 0, 0], A[:, 0, 1], A[:, 1, 0], A[:, 1, 1]
        adjugate = np.stack((np.stack((d, -b), 1), np.stack((-c, a), 1)), 1)
        return np.asarray(adjugate / (a * d - b * c)[:, None, None])
    inverses = np.full_like(A, np.nan)
    good = np.isfinite(A).all((1, 2))
    try:
        inverses[good] = np.linalg.inv(A[good])
    except np.linalg.LinAlgError:
        for k in np.flatnonzero(good):
            try:
                inverses[k] = np.linalg.inv(A[k])
            except np.linalg.LinAlgError:
                continue
    return inverses


def contains(low: Array, high: Array, inner_low: Array, inner_high: Array) -> Bools:
    """Whether closed boxes hold others; the last axis is that of coordinates."""
    return np.asarray(((low <= inner_low) & (inner_high <= high)).all(-1))


def apart(low: Array, high: Array, other_low: Array, other_high: Array) -> Bools:
    """Whether closed boxes have no point in common; never of nan."""
    return np.asarray(((high < other_low) | (other_high < low)).any(-1))
