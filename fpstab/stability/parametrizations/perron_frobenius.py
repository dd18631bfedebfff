"""Nonnegative weights with rows that sum to numbers in a range (paper 3, appendix B, after Tuor et al. 2020)."""

import torch
from torch import Tensor, nn

from fpstab.stability.parametrizations._checks import check_range, check_shape, check_weight
from fpstab.stability.parametrizations._ranges import into_range, range_logits, within_range
from fpstab.stability.parametrizations._rounding import gamma, shrinkage, unit, working, working_dtype
from fpstab.stability.parametrizations.certificates import NormCertificate


class PerronFrobenius(nn.Module):
    """W = softmax(A′) ⊙ (hi − (hi − lo)·sigmoid(M′)), row by row (paper 3, eq. (21)): ‖W‖_∞ ≤ hi.

    Every row sum lies in [lo, hi], so (Perron, Frobenius) the dominant eigenvalue of a square W does, and all
    eigenvalues are within hi of 0. Rectangles have the norm, and no eigenvalues.

    Row sums are computed in float64 and shrunk by what the cast to the weight's type may add, a few 1e-7 in float32:
    hi is never exceeded, lo may be missed by as much. Assigning a matrix keeps the absolute values of its entries and
    brings the row sums into range; a member of the family is unchanged.

    Args:
        lo: λ_min ≥ 0.
        hi: λ_max ≥ lo.

    Raises:
        ValueError: 0 ≤ lo ≤ hi does not hold.
        TypeError: An end is no number.

    >>> layer = nn.Linear(3, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", PerronFrobenius(0.5, 0.9))
    >>> bool((layer.weight >= 0).all()), bool((layer.weight.double().sum(1) <= 0.9).all())
    (True, True)
    """

    def __init__(self, lo: float, hi: float) -> None:
        super().__init__()
        check_range("PerronFrobenius", lo, hi)
        if lo < 0:
            raise ValueError(
                f"PerronFrobenius: lo must be ≥ 0, got {lo!r}: the theorem is about nonnegative matrices. "
                "Gershgorin and BoundedSVD take negative ranges."
            )
        self.lo, self.hi = float(lo), float(hi)

    def forward(self, a: Tensor, m: Tensor) -> Tensor:
        """The weight `[p, n]` of A′ `[p, n]` and M′ `[p, n]`."""
        check_shape("PerronFrobenius", a)
        shares = torch.softmax(working(a), dim=1)
        weight = shares * within_range(working(m), self.lo, self.hi) * self._shrinkage(a)
        return weight.to(a.dtype)

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """A′ and M′ behind a weight `[p, n]`.

        Raises:
            ValueError: The weight is no finite matrix.
            TypeError: The weight is of no floating-point type.
        """
        check_weight("PerronFrobenius", w)
        size = working(w.detach()).abs()
        sums = size.sum(1, keepdim=True)
        a = (size + torch.finfo(size.dtype).tiny).log()
        shrunk = self._shrinkage(w)
        m = range_logits(into_range(sums / shrunk if shrunk else sums, self.lo, self.hi), self.lo, self.hi)
        return a.to(w.dtype), m.expand_as(a).to(w.dtype).contiguous()

    def certificate(self) -> NormCertificate:
        """‖W‖_∞ ≤ hi."""
        statement = (
            f"‖W‖_∞ ≤ {self.hi:g}; W ≥ 0, and the dominant eigenvalue of a square W is in [{self.lo:g}, {self.hi:g}]"
        )
        return NormCertificate("PerronFrobenius", "inf", self.hi, statement)

    def extra_repr(self) -> str:
        """The range."""
        return f"lo={self.lo:g}, hi={self.hi:g}"

    def _shrinkage(self, x: Tensor) -> float:
        n = x.shape[1]
        return shrinkage(gamma(n + 12, working_dtype(x)) + unit(x.dtype), n, self.hi, x.dtype)
