"""Power-law tails: the exponent by maximum likelihood, its cut-off by the Kolmogorov–Smirnov distance."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fpstab.esd.samples import MIN_EIGENVALUES, Floats, float_array, positive_sample, sorted_sample
from fpstab.results import OK, AnalysisError, Status


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
        TypeError: If it is complex.
        AnalysisError: If `throw` and a value is not finite or not positive.

    >>> fit_power_law([1000 / (k + 0.5) for k in range(1000)]).alpha  # the quantiles of the density λ^(−2)
    2.0...
    >>> fit_power_law(range(1, 11)).status.code
    'too_few'
    """
    values = sorted_sample(eigenvalues)
    status = _fittable(values)
    if throw and status.code.startswith("not_"):
        raise AnalysisError(status)
    if not status.ok:
        return PowerLawFit(None, None, None, 0, None, values.size, status)
    start, alpha, distance = _closest_tail(values, _log_ratios(values))
    n_tail = values.size - start
    return PowerLawFit(alpha, float(values[start]), distance, n_tail, (alpha - 1) / n_tail**0.5, values.size, OK)


def power_law_p_value(
    eigenvalues: Tensor | ArrayLike,
    fit: PowerLawFit | None = None,
    *,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> float | None:
    """Bootstrap the goodness of a power-law fit, after Clauset, Shalizi and Newman (2009), §4.1.

    Each resample draws the tail from the fitted law and the rest from the values below `xmin`, and is fitted
    anew, its cut-off included. The p-value is the share of resamples whose distance is at least the sample's:
    small speaks against a power law. Its standard error is at most 1/(2√resamples). Eigenvalues repel each other
    and so lie closer to any smooth law than the independent values of a resample: the p-value is too large for
    them, and only a small one means something.

    Args:
        eigenvalues: Positive values `[n]` in any order.
        fit: Their power law, if it is known already.
        resamples: How many resamples.
        generator: Draws them; by default one with seed 0.

    Returns:
        The p-value, or `None` where there is no power law.

    Raises:
        ValueError: If `resamples` is less than 1.
        AnalysisError: If a value is not finite or not positive.
    """
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: expected at least 1.")
    values = sorted_sample(eigenvalues)
    fit = fit or fit_power_law(values)
    if fit.alpha is None or fit.xmin is None or fit.ks_distance is None:
        return None
    generator = generator or torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    rng = np.random.default_rng(seed)
    logs = _log_ratios(values)
    n, below = logs.size, logs[: -fit.n_tail]
    further = 0
    for drawn in rng.binomial(n, fit.n_tail / n, size=resamples):
        n_tail = max(int(drawn), 3)  # fewer have no law
        tail = logs[-fit.n_tail] + rng.exponential(1 / (fit.alpha - 1), n_tail)
        rest = rng.choice(below, n - n_tail) if below.size else np.empty(0)
        resample = np.sort(np.concatenate((rest, tail)))
        _, _, distance = _closest_tail(resample, resample)
        further += distance >= fit.ks_distance
    return further / resamples


def hill(values: Tensor | ArrayLike, k: int) -> float:
    """Hill's estimate of the tail index μ, P(X > x) ∝ x^(−μ), from the k largest of the values' sizes.

    The exponent of the density is 1 + μ; entries with tail index μ < 4 give their matrix an ESD with exponent
    1 + μ/2. Infinite if the k + 1 largest sizes are equal.

    Args:
        values: Any shape; signs are ignored.
        k: How many of the largest values enter; 1 ≤ k < number of values.

    Raises:
        ValueError: If `k` is out of range, or the (k+1)-th largest value is zero or not finite.

    >>> hill([1.0, 2.0, 4.0, 8.0], k=2)  # 1 / mean(ln 4/2, ln 8/2)
    0.961...
    """
    sizes = np.sort(np.abs(float_array(values)).ravel())
    if not 1 <= k < sizes.size:
        raise ValueError(f"k={k} is out of range: expected 1 ≤ k < {sizes.size}, the number of values.")
    if not (sizes[-k - 1] > 0 and np.isfinite(sizes[-1])):
        raise ValueError(
            f"The {k + 1} largest sizes must be positive and finite; they run from {sizes[-k - 1]} to {sizes[-1]}."
        )
    mean = float((np.log(sizes[-k:]) - np.log(sizes[-k - 1])).mean())
    return 1 / mean if mean > 0 else math.inf


def _fittable(values: Floats) -> Status:
    if not (status := positive_sample(values)).ok:
        return status
    if values.size < MIN_EIGENVALUES:
        return Status(
            "too_few",
            f"{values.size} eigenvalues; an exponent needs at least {MIN_EIGENVALUES} positive ones.",
        )
    if values[0] >= values[-1] * (1 - values.size * np.finfo(np.float64).eps) or np.unique(values).size < 3:
        return Status("constant", f"The {values.size} eigenvalues take fewer than three distinct values: no tail.")
    return OK


def _closest_tail(values: Floats, logs: Floats) -> tuple[int, float, float]:
    """Find the candidate with the smallest distance, the first of equals: its index, exponent and distance.

    The logarithms are those of the values up to a constant.

    One reversed cumulative sum gives every exponent. The deviation at any one value bounds the distance of a
    candidate from below. The candidate with the lowest bound is computed in full, and the value where it
    deviates most raises the bounds of all others, until none is left below the smallest distance found: ten or
    twenty rounds, where an exhaustive search has `n`.
    """
    first = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))  # of each distinct value
    u, rank = logs[first], first.astype(np.float64)
    candidates = first.size - 2
    n_tail = values.size - rank[:candidates]
    sums = np.cumsum(logs[::-1])[::-1][first[:candidates]]
    rate = n_tail / (sums - n_tail * u[:candidates])  # alpha − 1

    def deviation(i: int | slice, j: int | slice) -> Floats:
        """Between the law and the tail of candidate `i` at the distinct value `j`, its ties left out."""
        return np.abs(np.exp(rate[i] * (u[i] - u[j])) + (rank[j] - rank[i]) / n_tail[i] - 1)

    bound = np.zeros(candidates)
    best = (np.inf, 0)
    for _ in range(candidates):
        i = int(bound.argmin())
        if bound[i] > best[0]:
            break
        deviations = deviation(i, slice(i, None))
        j = int(deviations.argmax())
        best = min(best, (float(deviations[j]), i))
        below = slice(min(i + j, candidates))
        np.maximum(bound[below], deviation(below, i + j), out=bound[below])
        bound[i] = np.inf
    distance, i = best
    return int(first[i]), 1 + float(rate[i]), distance


def _log_ratios(values: Floats) -> Floats:
    """ln(λ/λ_max): of the quotient, exact between nearly equal values, unless that leaves float64."""
    ratios = values / values[-1]
    logs: Floats = np.log(values) - np.log(values[-1])
    np.log(ratios, out=logs, where=ratios > np.finfo(np.float64).tiny)
    return logs
