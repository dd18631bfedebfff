"""The bulk of a spectrum: the Marchenko–Pastur law of a matrix of independent entries, and the spikes above it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import gammaincinv
from torch import Tensor

from fpstab.esd.samples import MIN_EIGENVALUES, Floats, positive_sample, sorted_sample
from fpstab.results import OK, AnalysisError, Status

_LEVEL = 0.99  # of the Tracy–Widom edge
_HIDDEN = 6  # spikes that may hide each other


@dataclass(frozen=True, slots=True)
class MarchenkoPastur:
    """The limiting law of the eigenvalues of WᵀW/max(p, n), for independent entries of one variance.

    Attributes:
        ratio: min(p, n)/max(p, n), in (0, 1].
        variance: Variance σ² of the entries.

    >>> law = MarchenkoPastur(ratio=1.0, variance=1.0)
    >>> law.lower, law.upper, float(law.cdf(law.upper))
    (0.0, 4.0, 1.0)
    """

    ratio: float
    variance: float

    @property
    def lower(self) -> float:
        """Lower edge, σ²(1 − √ratio)²."""
        return self.variance * (1 - math.sqrt(self.ratio)) ** 2

    @property
    def upper(self) -> float:
        """Upper edge, σ²(1 + √ratio)²."""
        return self.variance * (1 + math.sqrt(self.ratio)) ** 2

    def density(self, x: ArrayLike) -> Floats:
        """Density at `x`, any shape."""
        x = np.asarray(x, dtype=np.float64) / self.variance
        a, b = self._unit_edges
        inside = (x > a) & (x < b)
        values = np.zeros_like(x)
        x = x[inside]
        values[inside] = np.sqrt((b - x) * (x - a)) / (2 * np.pi * self.ratio * x) / self.variance
        return values

    def cdf(self, x: ArrayLike) -> Floats:
        """Distribution function at `x`, any shape, in closed form."""
        a, b = self._unit_edges
        x = np.clip(np.asarray(x, dtype=np.float64) / self.variance, a, b)
        below, above = np.sqrt(x - a), np.sqrt(b - x)
        area = (
            below * above
            + 2 * (1 + self.ratio) * np.arctan2(below, above)
            - 2 * (1 - self.ratio) * np.arctan2(math.sqrt(b) * below, math.sqrt(a) * above)
        )
        return np.asarray(np.clip(area / (2 * np.pi * self.ratio), 0.0, 1.0), dtype=np.float64)

    @property
    def _unit_edges(self) -> tuple[float, float]:
        return (1 - math.sqrt(self.ratio)) ** 2, (1 + math.sqrt(self.ratio)) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class MarchenkoPasturFit:
    """A spectrum split into a Marchenko–Pastur bulk and the spikes above it.

    Attributes:
        law: The law, in the scale of the eigenvalues of WᵀW divided by max(p, n); `None` without eigenvalues.
        variance: σ² of the entries, from the bulk.
        bulk_lower: Lower edge of the bulk, in the scale of the eigenvalues.
        bulk_upper: Upper edge, λ₊.
        spike_edge: The 99 % Tracy–Widom edge, in the scale of the eigenvalues.
        spikes: The eigenvalues above it, ascending, float64 `[n_spikes]`; fewer where more than half of all are.
        n_ks: n·KS: number of bulk eigenvalues of one matrix times their Kolmogorov–Smirnov distance to the
            law. Eigenvalues are rigid, so that the p-values of independent samples mean nothing here.
        n_ks_threshold: What n·KS exceeds in less than 1 % of random matrices, 1.7 + 0.4 ln n.
        status: `"ok"`, `"too_few"` (a matrix with fewer than 20 eigenvalues), or `"not_finite"`, `"not_positive"`.
    """

    law: MarchenkoPastur | None
    bulk_lower: float | None
    bulk_upper: float | None
    spike_edge: float | None
    spikes: Tensor
    n_ks: float | None
    n_ks_threshold: float | None
    status: Status

    @property
    def variance(self) -> float | None:
        """Variance of the entries."""
        return self.law.variance if self.law else None

    @property
    def n_spikes(self) -> int:
        """Eigenvalues above the Tracy–Widom edge."""
        return self.spikes.numel()

    @property
    def is_bulk(self) -> bool:
        """Whether the bulk follows the law: n·KS below its threshold."""
        return self.n_ks is not None and self.n_ks_threshold is not None and self.n_ks < self.n_ks_threshold


def fit_marchenko_pastur(
    eigenvalues: Tensor | ArrayLike,
    shape: tuple[int, int],
    *,
    n_zero: int = 0,
    n_matrices: int = 1,
    throw: bool = True,
) -> MarchenkoPasturFit:
    """Fit the Marchenko–Pastur law to the bulk of a spectrum and count the spikes above it.

    σ² is the mean of the eigenvalues below the 99 % Tracy–Widom edge, iterated until no eigenvalue changes
    sides: from all eigenvalues or, if that bulk does not follow the law, without the largest one to six. Of a
    `WeightSpectrum` pass the `eigenvalues`, `matrix_shape`, `n_zero` and `n_matrices`.

    Args:
        eigenvalues: Positive eigenvalues of WᵀW `[n]`, in any order.
        shape: `(p, n)` of the matrix.
        n_zero: Eigenvalues that are zero; they belong to the bulk.
        n_matrices: How many matrices of this shape were pooled. The edge is then that of the largest of so
            many, and n·KS that of one matrix, which the pooled spectrum stays below.
        throw: Raise if an eigenvalue is not finite or not positive; otherwise say so in the status.

    Raises:
        ValueError: If the input is not one-dimensional, or its length is not that of such matrices.
        AnalysisError: If `throw` and an eigenvalue is not finite or not positive.

    >>> w = torch.randn(200, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> w[0] += 3.0
    >>> fit = fit_marchenko_pastur(torch.linalg.svdvals(w) ** 2, (200, 400))
    >>> fit.n_spikes, fit.is_bulk
    (1, True)
    """
    values = sorted_sample(eigenvalues)
    small, large = min(shape), max(shape)
    if values.size + n_zero != small * n_matrices:
        raise ValueError(
            f"{values.size} eigenvalues and {n_zero} zeros are not those of {n_matrices} matrices {shape}: "
            f"expected {small * n_matrices} in all."
        )
    status = _usable(values, small)
    if throw and status.code.startswith("not_"):
        raise AnalysisError(status)
    if not status.ok:
        nothing = torch.empty(0, dtype=torch.float64, device="cpu")
        return MarchenkoPasturFit(None, None, None, None, nothing, None, None, status)

    # In a small matrix a few equal spikes raise the mean so far that the edge lies above them: begin without them.
    fits = (_split(values, (small, large), n_zero, n_matrices, values.size - k) for k in range(_HIDDEN + 1))
    first = next(fits)
    return first if first.is_bulk else next((fit for fit in fits if fit.is_bulk), first)


def _split(values: Floats, shape: tuple[int, int], n_zero: int, n_matrices: int, below: int) -> MarchenkoPasturFit:
    """Begin with so many values below the edge and go on until none changes sides, or one would change back."""
    (small, large), n, unit = shape, values.size, float(values[-1])
    values = values / unit  # so that sums and products stay within float64 whatever the scale
    total = np.concatenate(([0.0], np.cumsum(values)))
    level = 1 - (1 - _LEVEL) / n_matrices
    step = 0
    while True:
        # what k spikes leave of a matrix is noise on their orthogonal complements: k rows and k columns less
        k = round((n - below) / n_matrices)
        bulk_shape = (small - k, large - k)
        variance = float(total[below]) / (below + n_zero) / bulk_shape[1]
        edge = variance * tracy_widom_edge(bulk_shape, level)
        move = int(np.searchsorted(values, edge, side="right")) - below
        if move * step < 0 or move == 0 or below + move <= n // 2:
            break
        below, step = below + move, move
    law = MarchenkoPastur(bulk_shape[0] / bulk_shape[1], variance)
    cdf = law.cdf(values[:below] / bulk_shape[1])
    steps = (np.arange(below + 1) + n_zero) / (below + n_zero)
    distance = float(np.maximum(steps[1:] - cdf, cdf - steps[:-1]).max())
    count = (below + n_zero) / n_matrices
    return MarchenkoPasturFit(
        MarchenkoPastur(law.ratio, law.variance * unit),
        law.lower * bulk_shape[1] * unit,
        law.upper * bulk_shape[1] * unit,
        edge * unit,
        torch.from_numpy(values[below:] * unit),
        distance * count,
        1.7 + 0.4 * math.log(count),
        OK,
    )


def tracy_widom_edge(shape: tuple[int, int], level: float = _LEVEL) -> float:
    """Quantile of the largest eigenvalue of WᵀW, for independent entries of unit variance.

    Centred and scaled as by Johnstone (2001) and Ma (2012); the quantile of the Tracy–Widom law (β = 1) from
    Chiani's (2014) shifted gamma law, which is 0.01 too low at 99 %, 0.04 at 99.99 %.

    >>> round(tracy_widom_edge((100, 100)), 1)  # the bulk ends at 400
    421.5
    """
    quantile = 0.186054 * float(gammaincinv(46.446, level)) - 9.84801
    p, n = (math.sqrt(side - 0.5) for side in shape)
    centre, width = (p + n) ** 2, (p + n) * (1 / p + 1 / n) ** (1 / 3)
    return float(centre + quantile * width)


def _usable(values: Floats, small: int) -> Status:
    if not (status := positive_sample(values)).ok:
        return status
    if small < MIN_EIGENVALUES or values.size < MIN_EIGENVALUES:
        return Status(
            "too_few",
            f"{values.size} positive eigenvalues of matrices with {small}: the law needs {MIN_EIGENVALUES} of each.",
        )
    return OK
