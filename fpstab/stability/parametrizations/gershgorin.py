"""Weights with eigenvalues in a disc, by the size of their rows (paper 3, appendix B)."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from fpstab.stability.parametrizations._checks import check_range, check_shape, check_weight
from fpstab.stability.parametrizations._rounding import (
    cast_number,
    centre_and_radius,
    gamma,
    shrinkage,
    unit,
    working,
    working_dtype,
)
from fpstab.stability.parametrizations.certificates import NormCertificate


class Gershgorin(nn.Module):
    """W = λI + M with Σ_j |m_ij| ≤ r in every row: all eigenvalues in the disc around λ of radius r (Gershgorin).

    [lo, hi] is the disc's real diameter: λ = (lo + hi)/2, r = (hi − lo)/2. M has no diagonal. Free rows above the
    budget r are scaled down to it, those below are as they are.

    - `eigenvalues="complex"`: M of any signs, eigenvalues anywhere in the disc. ‖W‖_∞ ≤ |λ| + r.
    - `eigenvalues="real"`: M symmetric, m_ij scaled by the larger of its two rows: eigenvalues in [lo, hi], and
      ‖W‖₂ ≤ |λ| + r as well.
    - `literal=True`: the form that paper 3, eq. (26), prints: m_ij = r·|x_ij|/Σ_k |x_ik|. With two rows it has no
      freedom ([[λ, r], [r, λ]]), and cannot be complex.

    Rows are summed in float64 and the budget is shrunk by what the cast to the weight's type may add. Assigning a
    matrix keeps its entries off the diagonal (`"real"`: their symmetric part), scaled to the budget.

    Args:
        lo: λ_min.
        hi: λ_max.
        eigenvalues: `"complex"` or `"real"`.
        literal: The form as printed; not with `eigenvalues="real"`, which it does not keep.

    Raises:
        ValueError: lo > hi, or another value of an argument.
        TypeError: An end is no number.

    >>> layer = nn.Linear(3, 3)
    >>> structure = Gershgorin(0.0, 0.9, eigenvalues="real")
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", structure)
    >>> spectrum = torch.linalg.eigvalsh(layer.weight.double())
    >>> bool((spectrum >= 0.0).all() and (spectrum <= 0.9).all())
    True
    """

    def __init__(
        self, lo: float, hi: float, *, eigenvalues: Literal["complex", "real"] = "complex", literal: bool = False
    ) -> None:
        super().__init__()
        check_range("Gershgorin", lo, hi)
        if eigenvalues not in ("complex", "real"):
            raise ValueError(f"Gershgorin: eigenvalues must be 'complex' or 'real', got {eigenvalues!r}.")
        if literal and eigenvalues == "real":
            raise ValueError(
                "Gershgorin: the printed form (literal=True) is not symmetric, its eigenvalues need not be real; "
                "leave out eigenvalues='real', or literal."
            )
        self.lo, self.hi = float(lo), float(hi)
        self.centre, self.radius = centre_and_radius(self.lo, self.hi)
        self.eigenvalues = eigenvalues
        self.literal = bool(literal)

    def forward(self, x: Tensor) -> Tensor:
        """The weight `[n, n]` of a free matrix `x` `[n, n]`."""
        check_shape("Gershgorin", x, square=True)
        n = len(x)
        diagonal = cast_number(self.centre, x.dtype, towards_zero=True)
        # the disc is about the exact centre, so what the diagonal is off is taken from the radius
        budget = max(0.0, self.radius - abs(self.centre - diagonal)) * (1.0 - 2.0**-50)
        budget *= shrinkage(gamma(n + 12, working_dtype(x)) + unit(x.dtype), n, budget, x.dtype)
        largest = torch.finfo(working_dtype(x)).max / (4 * n)
        free = working(x).clamp(-largest, largest)
        free = free - torch.diag(free.diagonal())
        if self.eigenvalues == "real":
            free = free / 2 + free.mT / 2
        off = self._printed(free, budget) if self.literal else self._within(free, budget)
        weight = off.to(x.dtype)
        return weight + diagonal * torch.eye(n, dtype=x.dtype, device=x.device)

    def right_inverse(self, w: Tensor) -> Tensor:
        """The free matrix behind a weight `[n, n]`: the weight itself.

        Raises:
            ValueError: The weight is not finite, or not square.
            TypeError: The weight is of no floating-point type.
        """
        check_weight("Gershgorin", w, square=True)
        return w.detach().clone()

    def certificate(self) -> NormCertificate:
        """‖W‖ ≤ |λ| + r = max(|lo|, |hi|): of the ∞-norm, and of the 2-norm where the eigenvalues are real."""
        bound = max(abs(self.lo), abs(self.hi))
        if self.eigenvalues == "real":
            return NormCertificate(
                "Gershgorin",
                "2",
                bound,
                f"‖W‖₂ ≤ {bound:g} and ‖W‖_∞ ≤ {bound:g}; symmetric, eigenvalues in [{self.lo:g}, {self.hi:g}]",
            )
        disc = f"eigenvalues within {self.radius:g} of {self.centre:g}"
        return NormCertificate("Gershgorin", "inf", bound, f"‖W‖_∞ ≤ {bound:g}; {disc}")

    def extra_repr(self) -> str:
        """The range and the form."""
        return f"lo={self.lo:g}, hi={self.hi:g}, eigenvalues={self.eigenvalues!r}, literal={self.literal}"

    def _within(self, free: Tensor, budget: float) -> Tensor:
        sums = free.abs().sum(1, keepdim=True)
        if self.eigenvalues == "real":
            sums = torch.maximum(sums, sums.mT)
        return free * (budget / sums.clamp_min(budget or math.inf))

    def _printed(self, free: Tensor, budget: float) -> Tensor:
        n = len(free)
        size = free.abs()
        # relative to the largest of the row, so that no sum overflows; a row of zeros is a row of equal entries
        top = size.amax(1, keepdim=True).detach()
        size = torch.where(top > 0, size / torch.where(top > 0, top, 1.0), 1.0)
        size = size - torch.diag(size.diagonal())
        return size * (budget / size.sum(1, keepdim=True).clamp_min(1.0 if n > 1 else math.inf))
