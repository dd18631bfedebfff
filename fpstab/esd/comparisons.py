"""The power law against other laws of the same tail, by their likelihoods.

In y = ln(λ/xmin) ≥ 0 all of them are simple: the power law is exponential with rate α − 1; the lognormal law is
a normal law cut off at 0, the truncated power law has density ∝ exp(−(α − 1)y − λ'(eʸ − 1)). The last two
contain the power law at the edge of their parameters, and the best of them is often just there.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import chdtrc, erfc, erfcx, log_ndtr
from torch import Tensor

from fpstab.esd.samples import Floats, sorted_sample
from fpstab.esd.tails import PowerLawFit, fit_power_law
from fpstab.results import OK, Status

Alternative = Literal["exponential", "lognormal", "truncated_power_law"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_FAR = 50.0  # beyond so many standard deviations a normal tail is computed by its asymptotic series
_NEGLIGIBLE = 45.0  # exp(-45) < 3e-20


@dataclass(frozen=True, slots=True, eq=False)
class TailComparison:
    """The power law against one alternative.

    Attributes:
        alternative: The other law.
        log_likelihood_ratio: Log-likelihood of the power law minus that of the alternative on the tail: above
            zero the power law is the likelier.
        p_value: Probability of a ratio at least as far from zero if neither law were the better one: Vuong's
            (1989) test; for the truncated power law, which contains the power law, the likelihood-ratio test
            with one degree of freedom.
        parameters: Of the alternative: `rate`; `mu`, `sigma` of ln λ; or `alpha`, `rate` (this `alpha` may be of any sign).
        at_edge: Whether the best law of the alternative's kind is the power law itself.
    """

    alternative: Alternative
    log_likelihood_ratio: float
    p_value: float
    parameters: dict[str, float]
    at_edge: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TailComparisons:
    """The power law against each alternative; all `None` where there is no power law (see `status`)."""

    exponential: TailComparison | None
    lognormal: TailComparison | None
    truncated_power_law: TailComparison | None
    status: Status

    def scalars(self) -> dict[str, float]:
        """`<alternative>/ratio` and `<alternative>/p` of each."""
        found = [each for each in (self.exponential, self.lognormal, self.truncated_power_law) if each]
        return {f"{each.alternative}/ratio": each.log_likelihood_ratio for each in found} | {
            f"{each.alternative}/p": each.p_value for each in found
        }


def compare_tails(eigenvalues: Tensor | ArrayLike, fit: PowerLawFit | None = None) -> TailComparisons:
    """Compare the power law in the tail of a spectrum with other laws of the same tail.

    At the sizes of weight matrices only the exponential law tells light tails from heavy ones; the lognormal and
    the truncated power law are reported and decide nothing.

    Args:
        eigenvalues: Positive values `[n]` in any order.
        fit: Their power law, if it is known already.

    Raises:
        AnalysisError: If a value is not finite or not positive.

    >>> compare_tails([2.0**k for k in range(40)]).exponential.p_value < 0.05
    True
    """
    values = sorted_sample(eigenvalues)
    fit = fit or fit_power_law(values)
    if fit.alpha is None or fit.xmin is None:
        return TailComparisons(None, None, None, fit.status)
    tail = values[-fit.n_tail :]
    logs = np.log1p(_excess(tail, fit.xmin))
    return TailComparisons(
        against_exponential(tail, fit), _against_lognormal(logs, fit), _against_truncated(logs, fit), OK
    )


def against_exponential(tail: Floats, fit: PowerLawFit) -> TailComparison:
    """Compare with the exponential law, whose rate is 1/mean(λ − xmin)."""
    assert fit.alpha is not None
    assert fit.xmin is not None
    excess = _excess(tail, fit.xmin)
    mean = float(excess.mean())
    power = math.log(fit.alpha - 1) - fit.alpha * np.log1p(excess)
    ratio, p = _vuong(power - (-math.log(mean) - excess / mean))
    return TailComparison("exponential", ratio, p, {"rate": 1 / mean / fit.xmin})


def _excess(tail: Floats, xmin: float) -> Floats:
    """λ/xmin − 1, exact between nearly equal values; finite, and so is its square."""
    with np.errstate(over="ignore"):
        return np.minimum((tail - xmin) / xmin, 1e150)


def _vuong(differences: Floats) -> tuple[float, float]:
    ratio, spread = float(differences.sum()), float(differences.std())
    if spread == 0:
        return ratio, 1.0
    return ratio, float(erfc(abs(ratio) / (math.sqrt(2 * differences.size) * spread)))


def _power_law(logs: Floats, fit: PowerLawFit) -> Floats:
    assert fit.alpha is not None
    return np.asarray(math.log(fit.alpha - 1) - (fit.alpha - 1) * logs)


def _against_lognormal(logs: Floats, fit: PowerLawFit) -> TailComparison:
    """The cut-off normal law is that with the sample's first two moments."""
    assert fit.xmin is not None
    mean, ratio = float(logs.mean()), float((logs**2).mean() / logs.mean() ** 2)
    far = 1e4
    if ratio >= _moment_ratio(far):  # 2 is the exponential law's: no normal law has more
        edge = {"mu": -math.inf, "sigma": math.inf}
        return TailComparison("lognormal", 0.0, 1.0, edge, at_edge=True)
    h = float(brentq(lambda h: _moment_ratio(h) - ratio, -10 * math.sqrt(logs.size) - 10, far, xtol=1e-12, rtol=1e-14))
    sigma = mean / _mean_excess(h)
    z = logs / sigma
    # ln ∫ of the density above the cut, together with the square that z leaves out
    normaliser = math.log(erfcx(h / math.sqrt(2)) / 2) if h > 0 else h * h / 2 + float(log_ndtr(-h))
    density = -z * z / 2 - z * h - math.log(sigma) - math.log(2 * math.pi) / 2 - normaliser
    likelihood_ratio, p = _vuong(_power_law(logs, fit) - density)
    parameters = {"mu": math.log(fit.xmin) - h * sigma, "sigma": sigma}
    return TailComparison("lognormal", likelihood_ratio, p, parameters)


def _mean_excess(h: float) -> float:
    """E[z] of z = N − h given N > h, N standard normal."""
    if h > _FAR:
        return (1 - 2 / h**2 + 10 / h**4 - 74 / h**6 + 706 / h**8) / h
    return math.sqrt(2 / math.pi) / float(erfcx(h / math.sqrt(2))) - h


def _moment_ratio(h: float) -> float:
    """E[z²]/E[z]²: rises from 1 to 2 with h."""
    second = 2 / h**2 - 10 / h**4 + 74 / h**6 - 706 / h**8 if h > _FAR else 1 - h * _mean_excess(h)
    return second / _mean_excess(h) ** 2


def _against_truncated(logs: Floats, fit: PowerLawFit) -> TailComparison:
    """Newton's method on the convex negative log-likelihood in (α − 1 + λ', λ').

    They multiply y and eʸ − 1 − y, which stay independent however narrow the tail.
    """
    assert fit.alpha is not None
    assert fit.xmin is not None
    bent = np.expm1(logs) - logs
    mean = np.array([logs.mean(), bent.mean()])
    a, excess = fit.alpha - 1, float(mean.sum())
    if a > 1 and excess >= 1 / (a - 1):  # the power law's own mean excess: a cut-off would only make it worse
        return TailComparison("truncated_power_law", 0.0, 1.0, {"alpha": fit.alpha, "rate": 0.0}, at_edge=True)
    rate = min(1.0, 1 / excess)
    theta = np.array([a + rate, rate])
    value, gradient, hessian = _truncated(theta, mean)
    for _ in range(200):
        step = -np.linalg.solve(hessian, gradient)
        if step[1] < -0.9 * theta[1]:  # the best step of those that keep λ' positive
            step[1] = -0.9 * theta[1]
            step[0] = -(gradient[0] + hessian[0, 1] * step[1]) / hessian[0, 0]
        decrement = float(-gradient @ step)
        if decrement < 1e-18:
            break
        while True:
            trial = theta + step
            new = _truncated(trial, mean)
            if new[0] <= value - 1e-4 * decrement or decrement < 1e-18:
                break
            step, decrement = step / 2, decrement / 2
        if new[0] >= value:
            break
        theta, (value, gradient, hessian) = trial, new
    ratio = float(_power_law(logs, fit).sum()) + logs.size * value
    p = float(chdtrc(1, 2 * abs(ratio)))
    alpha, rate = 1 + float(theta[0] - theta[1]), float(theta[1]) / fit.xmin
    return TailComparison("truncated_power_law", ratio, p, {"alpha": alpha, "rate": rate})


def _truncated(theta: Floats, mean: Floats) -> tuple[float, Floats, Floats]:
    """Negative log-likelihood per value, its gradient `[2]` and Hessian `[2, 2]`, by Gauss–Legendre panels."""
    b, rate = float(theta[0]), float(theta[1])
    # from the peak, the exponent falls by c t + r (eᵗ − 1 − t): the range is where that is not negligible
    peak = math.log1p(-b / rate) if b < 0 else 0.0
    r, c = rate * math.exp(peak), max(b, 0.0)
    above = min(math.sqrt(2 * _NEGLIGIBLE / r), max(2.0, math.log(2 * _NEGLIGIBLE / r)))
    above = min(above, _NEGLIGIBLE / c) if c > 0 else above
    below = min(peak, math.sqrt(2.72 * _NEGLIGIBLE / r) if r > 2.72 * _NEGLIGIBLE else 1 + _NEGLIGIBLE / r)
    panels = 16 + math.ceil(above + below)
    edges = np.linspace(-below, above, panels + 1)
    half = (above + below) / panels / 2
    t = (edges[:-1, None] + half * (1 + _NODES)).ravel()
    mass = np.exp(-c * t - r * (np.expm1(t) - t)) * np.tile(_WEIGHTS, panels) * half
    total = float(mass.sum())
    mass /= total
    y = peak + t
    features = np.stack([y, np.expm1(y) - y])
    expected = features @ mass
    centred = features - expected[:, None]
    top = b * peak + rate * (math.expm1(peak) - peak)
    return float(theta @ mean) - top + math.log(total), mean - expected, (centred * mass) @ centred.T
