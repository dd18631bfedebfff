"""The entries of a weight: what can be said where there are too few eigenvalues for a spectrum."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fpstab.esd.bulk import tracy_widom_edge
from fpstab.esd.samples import Floats, dense
from fpstab.esd.tails import hill
from fpstab.results import OK, AnalysisError, Status

_SAMPLE = 1 << 14  # entries that are looked at: standard errors of one or two per cent
_GAUSSIAN_MAD = 0.6744897501960817  # median |x| of a standard normal x


@dataclass(frozen=True, slots=True, eq=False)
class EntryTail:
    """How heavy the tail of a weight's entries is.

    Attributes:
        mcculloch_ratio: (q95 − q05)/(q75 − q25): 1.8 for a uniform law, 2.4 for a Gaussian, 6.3 for a Cauchy law.
        hill_index: Hill's tail index μ of the entries' sizes, from the largest tenth; large for light tails.
        largest_over_edge: Largest eigenvalue over the 99 % Tracy–Widom edge of a matrix whose entries have the
            variance (1.4826 · MAD)². That is the variance of Gaussian entries; of uniform ones (the default of
            `nn.Linear`) it is 1.65 times the variance, and the number 0.61 times what it should be.
        cauchy_minus_gaussian: Log-likelihood of the best Cauchy law minus that of the best Gaussian, per entry.
        n: Entries that were looked at.
        status: `"ok"`, `"too_few"` (fewer than 20 entries), `"constant"` (about half of them are equal) or `"not_finite"`.
    """

    mcculloch_ratio: float | None
    hill_index: float | None
    largest_over_edge: float | None
    cauchy_minus_gaussian: float | None
    n: int
    status: Status

    def scalars(self) -> dict[str, float]:
        """The four statistics; nan where there is none."""
        names = ("mcculloch_ratio", "hill_index", "largest_over_edge", "cauchy_minus_gaussian")
        values = {name: getattr(self, name) for name in names}
        return {name: math.nan if value is None else value for name, value in values.items()}


def entry_tail(
    weight: Tensor | NDArray[np.generic],
    *,
    largest: float | None = None,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> EntryTail:
    """Describe the tail of a weight's entries (papers 1 and 2 draw them from Cauchy laws).

    Args:
        weight: Any shape; of more than 16,384 entries, so many are drawn.
        largest: Largest eigenvalue of WᵀW of a matrix; without it there is no `largest_over_edge`.
        generator: Draws the entries; by default one with seed 0.
        throw: Raise if an entry is not finite; otherwise say so in the status.

    Raises:
        AnalysisError: If `throw` and an entry is not finite.

    >>> g = torch.Generator().manual_seed(0)
    >>> entry_tail(torch.empty(100, 2).cauchy_(generator=g)).cauchy_minus_gaussian > 0
    True
    """
    tensor = dense(weight)
    entries = _sample(tensor, generator)
    status = _describable(entries)
    if throw and status.code == "not_finite":
        raise AnalysisError(status)
    if not status.ok:
        return EntryTail(None, None, None, None, entries.size, status)
    q05, q25, median, q75, q95 = np.quantile(entries, (0.05, 0.25, 0.5, 0.75, 0.95))
    mad = float(np.median(np.abs(entries - median)))
    over_edge = None
    if tensor.ndim == 2 and largest is not None:
        over_edge = largest / ((mad / _GAUSSIAN_MAD) ** 2 * tracy_widom_edge((tensor.shape[0], tensor.shape[1])))
    k = max(entries.size // 10, 5)
    return EntryTail(
        float((q95 - q05) / (q75 - q25)),
        hill(entries - median, k) if k < entries.size else None,
        over_edge,
        _cauchy_minus_gaussian(entries, float(median), float(q75 - q25) / 2),
        entries.size,
        OK,
    )


def _sample(tensor: Tensor, generator: torch.Generator | None) -> Floats:
    flat = tensor.flatten()
    if flat.numel() > _SAMPLE:
        generator = generator or torch.Generator().manual_seed(0)
        chosen = torch.randint(flat.numel(), (_SAMPLE,), generator=generator, device=generator.device)
        flat = flat[chosen.to(flat.device)]
    flat = flat.abs() if flat.is_complex() else flat
    return np.asarray(flat.to("cpu", torch.float64).numpy())


def _describable(entries: Floats) -> Status:
    if entries.size < 20:
        return Status("too_few", f"{entries.size} entries; their tail needs at least 20.")
    if not np.isfinite(entries).all():
        return Status("not_finite", f"{int((~np.isfinite(entries)).sum())} of {entries.size} entries are not finite.")
    q25, median, q75 = np.quantile(entries, (0.25, 0.5, 0.75))
    if q25 == q75 or np.median(np.abs(entries - median)) == 0:
        return Status("constant", f"About half of the {entries.size} entries are equal to {median:g}.")
    return OK


def _cauchy_minus_gaussian(entries: Floats, location: float, scale: float) -> float:
    """Difference of the maximal log-likelihoods per entry; Cauchy's is found from the quartiles onwards."""
    x = np.clip((entries - location) / scale, -1e100, 1e100)  # their squares are finite

    def negative(theta: Floats) -> tuple[float, Floats]:
        z = (x - theta[0]) * math.exp(-theta[1])
        weight = 2 / (1 + z * z)
        gradient = np.array([-(weight * z).mean() * math.exp(-theta[1]), 1 - (weight * z * z).mean()])
        return float(np.log1p(z * z).mean() + theta[1] + math.log(math.pi)), gradient

    best = minimize(negative, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-7})
    gaussian = -0.5 * math.log(2 * math.pi * math.e * float(x.var()))
    return -float(best.fun) - gaussian
