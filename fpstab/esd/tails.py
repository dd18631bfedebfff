"""Power-law tails: the exponent by maximum likelihood, its cut-off by the Kolmogorov–Smirnov distance."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fpstab.results import OK, AnalysisError, Status

MIN_EIGENVALUES = 20  # below this no exponent and no verdict is given

Floats = NDArray[np.float64]

# Where the distance of a candidate's tail is probed first, as a fraction of the way from its cut-off to the
# largest value. Any choice gives the same result; this one leaves few candidates to compute in full.
_PROBES = np.array([0.0, 0.03, 0.08, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.92, 0.97, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class PowerLawFit:
    """The tail of a sample, fitted by the density ∝ λ^(−alpha) for λ ≥ xmin.

    Attributes:
        alpha: The exponent of the density, greater than 1; `None` if there is none (see `status`).
        xmin: Where the tail begins; one of the values.
        ks_distance: Kolmogorov–Smirnov distance of the tail to the law.
        n_tail: Values in the tail.
        sigma: Standard error of `alpha`: (alpha − 1)/√n_tail.
        n: Values in the sample.
        status: `"ok"`; `"too_few"` (fewer than 20 values); `"constant"` (fewer than three distinct values, or
            all equal to rounding); `"not_finite"`; `"not_positive"`.
    """

    alpha: float | None
    xmin: float | None
    ks_distance: float | None
    n_tail: int
    sigma: float | None
    n: int
    status: Status


def fit_power_law(eigenvalues: Tensor | ArrayLike, *, throw: bool = True) -> PowerLawFit:
    """Fit a power law to the upper tail of positive values, after Clauset, Shalizi and Newman (2009).

    Every distinct value but the last two is tried as `xmin`; `alpha` is the maximum-likelihood exponent
    1 + n_tail / Σ ln(λ/xmin) and `xmin` the candidate whose tail has the smallest Kolmogorov–Smirnov distance
    to its law. The result is that of an exhaustive search, and that of the package `powerlaw` opened with
    `parameter_ranges={"alpha": [1, None]}` (which by default caps `alpha` at 3). Used in papers 1 §III, 2 §II.

    An exponent alone does not tell a light spectrum from a heavy one: Gaussian matrices of a few hundred rows
    give any `alpha` from 3 to 30.

    Args:
        eigenvalues: Positive values `[n]` in any order.
        throw: Raise if a value is not finite or not positive; otherwise say so in the status. That there is
            no exponent (too few values, all equal) is an answer and never raises.

    Raises:
        ValueError: If the input is not one-dimensional.
        AnalysisError: If `throw` and a value is not finite or not positive.

    >>> fit_power_law([2.0**k for k in range(40)]).alpha
    2.0...
    >>> fit_power_law(range(1, 11)).status.code
    'too_few'
    """
    values = _sorted(eigenvalues)
    status = _fittable(values)
    if throw and status.code.startswith("not_"):
        raise AnalysisError(status)
    if not status.ok:
        return PowerLawFit(None, None, None, 0, None, values.size, status)
    start, distance = _closest_tail(values)
    tail, xmin = values[start:], float(values[start])
    alpha = 1 + tail.size / float(np.log(tail / xmin).sum())
    sigma = (alpha - 1) / float(np.sqrt(tail.size))
    return PowerLawFit(alpha, xmin, distance, tail.size, sigma, values.size, OK)


def hill(values: Tensor | ArrayLike, k: int) -> float:
    """Hill's estimate of the tail index μ, P(X > x) ∝ x^(−μ), from the k largest of the values' sizes.

    The exponent of the density is 1 + μ. Entries with tail index μ < 4 give their matrix an ESD with
    exponent 1 + μ/2.

    Args:
        values: Any shape; signs are ignored.
        k: How many of the largest values enter; 1 ≤ k < number of values.

    Raises:
        ValueError: If `k` is out of range, or the (k+1)-th largest value is zero or not finite.

    >>> hill([1.0, 2.0, 4.0, 8.0], k=2)  # 1 / mean(ln 4/2, ln 8/2)
    0.961...
    """
    sizes = np.sort(np.abs(_array(values)).ravel())
    if not 1 <= k < sizes.size:
        raise ValueError(f"k={k} is out of range: expected 1 ≤ k < {sizes.size}, the number of values.")
    if not (sizes[-k - 1] > 0 and np.isfinite(sizes[-1])):
        raise ValueError(
            f"The {k + 1} largest sizes must be positive and finite; they run from {sizes[-k - 1]} to {sizes[-1]}."
        )
    return float(1 / np.log(sizes[-k:] / sizes[-k - 1]).mean())


def _array(values: Tensor | ArrayLike) -> Floats:
    if isinstance(values, Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def _sorted(values: Tensor | ArrayLike) -> Floats:
    array = _array(values)
    if array.ndim != 1:
        raise ValueError(f"Expected a one-dimensional sample, got shape {array.shape}.")
    return np.sort(array)


def _fittable(values: Floats) -> Status:
    if not np.isfinite(values).all():
        return Status("not_finite", f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite.")
    if values.size and values[0] <= 0:
        return Status(
            "not_positive",
            f"{int((values <= 0).sum())} of {values.size} values are not positive: pass the positive eigenvalues.",
        )
    if values.size < MIN_EIGENVALUES:
        return Status(
            "too_few",
            f"{values.size} eigenvalues; an exponent needs at least {MIN_EIGENVALUES} positive ones.",
        )
    if values[-1] / values[0] - 1 <= values.size * np.finfo(np.float64).eps or np.unique(values).size < 3:
        return Status("constant", f"The {values.size} eigenvalues take fewer than three distinct values: no tail.")
    return OK


def _closest_tail(values: Floats) -> tuple[int, float]:
    """Find the candidate with the smallest distance, the first of equals: its index in `values`, its distance.

    One reversed cumulative sum gives every exponent. The distance at a few probes bounds the distance of a
    candidate from below; in the order of the bounds, candidates are computed in full until no bound is below
    the best distance found.
    """
    logs = np.log(values)
    first = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))  # of each distinct value
    u = logs[first] - logs[-1]  # measured from the largest, so that the sums below do not cancel
    candidates = first.size - 2
    n_tail = (values.size - first[:candidates]).astype(np.float64)
    sums = np.cumsum((logs - logs[-1])[::-1])[::-1][first[:candidates]]
    rate = n_tail / (sums - n_tail * u[:candidates])  # alpha − 1
    rank = first.astype(np.float64)

    k = np.arange(candidates)[:, None]
    probe = k + np.rint(_PROBES * (first.size - 1 - k)).astype(np.intp)
    law = 1 - np.exp(rate[:, None] * (u[k] - u[probe]))
    bound = np.abs(law - (rank[probe] - rank[k]) / n_tail[:, None]).max(axis=1)

    best, best_distance = -1, np.inf
    for i in np.argsort(bound, kind="stable"):
        if bound[i] > best_distance:
            break
        difference = np.exp(rate[i] * (u[i] - u[i:]))
        difference += (rank[i:] - rank[i]) / n_tail[i]
        difference -= 1
        distance = max(float(difference.max()), -float(difference.min()))
        if distance < best_distance or (distance == best_distance and i < best):
            best, best_distance = int(i), distance
    return int(first[best]), best_distance
