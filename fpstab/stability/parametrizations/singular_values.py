"""Weights with singular values in a range (paper 3, appendix B, after Zhang et al. 2018)."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from fpstab.results import Status
from fpstab.stability.parametrizations._checks import check_range, check_shape, check_weight
from fpstab.stability.parametrizations._ranges import into_range, range_logits, within_range
from fpstab.stability.parametrizations._rounding import defect, gamma, shrinkage, unit, working, working_dtype
from fpstab.stability.parametrizations.certificates import NormCertificate


class BoundedSVD(nn.Module):
    """W = U·diag(s)·Vᵀ, s = hi − (hi − lo)·sigmoid(s′), with orthogonal U and V (paper 3, eq. (23)): ‖W‖₂ ≤ hi.

    U `[p, k]` and V `[n, k]`, k = min(p, n), have orthonormal columns for every value of their free matrices: products
    of k Householder reflections whose vectors are the free columns. Only the directions of these matter, so none is
    too long. |s| are the singular values: the range may be negative, and the norm is max(|lo|, |hi|).

    All is computed in float64; the measured defects of U and V are divided out, and the weight is shrunk by what the
    product and the cast to its own type may add (1e-6 in float32): max(|lo|, |hi|) is never exceeded, the lower end may
    be missed by as much. Assigning a matrix keeps its singular vectors and brings its singular values into the range;
    a member of the family is unchanged. A square W keeps the orientation (the sign of the determinant) that it was
    given unless a singular value may pass 0: that sign is a buffer, so each weight needs an instance of its own.

    With `soft=True` U and V are free, and their orthogonality is the business of `orthogonality_penalty` in the loss
    (eq. (22)). It is never exact, the bound does not hold, and nothing is certified: for comparison.

    Args:
        lo: λ_min.
        hi: λ_max.
        soft: Whether U and V are free.

    Raises:
        ValueError: lo > hi, or an end is not finite.
        TypeError: An end is no number.

    >>> layer = nn.Linear(5, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", BoundedSVD(0.1, 0.9))
    >>> values = torch.linalg.svdvals(layer.weight.double())
    >>> bool((values <= 0.9).all() and (values > 0.0999).all())
    True
    """

    orientation: Tensor

    def __init__(self, lo: float, hi: float, *, soft: bool = False) -> None:
        super().__init__()
        check_range("BoundedSVD", lo, hi)
        self.lo, self.hi = float(lo), float(hi)
        self.soft = bool(soft)
        self.register_buffer("orientation", torch.ones(()))

    def forward(self, u: Tensor, s: Tensor, v: Tensor) -> Tensor:
        """The weight `[p, n]` of the free `u` `[p, k]`, `s` `[k]` and `v` `[n, k]`."""
        values = within_range(working(s), self.lo, self.hi)
        if self.soft:
            soft: Tensor = (working(u) * values) @ working(v).mT
            return soft.to(u.dtype)
        values = torch.cat((values[:-1], values[-1:] * self.orientation))
        U, V = reflections(working(u)), reflections(working(v))
        stretch = ((1.0 + defect(U)) * (1.0 + defect(V))).sqrt()
        shrunk = self._shrinkage(u, u.shape[0], v.shape[0])
        weight: Tensor = (U * (values * (shrunk / stretch))) @ V.mT
        return weight.to(u.dtype)

    def right_inverse(self, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The free `u`, `s` and `v` behind a weight `[p, n]`.

        Raises:
            ValueError: The weight is no finite matrix.
            TypeError: The weight is of no floating-point type.
        """
        check_weight("BoundedSVD", w)
        U, values, Vh = torch.linalg.svd(w.detach().double().cpu(), full_matrices=False)
        shrunk = 1.0 if self.soft else self._shrinkage(w, *w.shape)
        values = values / shrunk if shrunk else values
        V = Vh.mT
        if -self.lo > self.hi:  # the larger half of the range is negative: W = U·(−s)·(−V)ᵀ
            values, V = -values, -V
        s = range_logits(into_range(values, self.lo, self.hi), self.lo, self.hi)
        if not self.soft:
            sign = 1.0
            factors = []
            for matrix in (U, V):
                vectors, last = reflection_vectors(matrix.numpy())
                factors.append(torch.from_numpy(vectors))
                sign *= last
            U, V = factors
            with torch.no_grad():
                self.orientation.fill_(sign)
        u, s, v = (x.to(device=w.device, dtype=w.dtype).contiguous() for x in (U, s, V))
        return u, s, v

    def certificate(self) -> NormCertificate:
        """‖W‖₂ ≤ max(|lo|, |hi|); nothing if `soft`."""
        bound = max(abs(self.lo), abs(self.hi))
        if self.soft:
            status = Status(
                "uncertified", "U and V are only penalised for not being orthogonal; soft=False makes them orthogonal."
            )
            return NormCertificate("BoundedSVD", None, math.inf, "no norm is bounded", status)
        low = max(self.lo, -self.hi, 0.0)
        statement = f"‖W‖₂ ≤ {bound:g}; singular values in [{low:g}, {bound:g}]"
        return NormCertificate("BoundedSVD", "2", bound, statement)

    def extra_repr(self) -> str:
        """The range and the form."""
        return f"lo={self.lo:g}, hi={self.hi:g}, soft={self.soft}"

    def _shrinkage(self, x: Tensor, p: int, n: int) -> float:
        k = min(p, n)
        roundings = gamma(k + 24, working_dtype(x)) * k + unit(x.dtype) * math.sqrt(k)
        return shrinkage(roundings, math.sqrt(p * n), max(abs(self.lo), abs(self.hi)), x.dtype)


def orthogonality_penalty(module: nn.Module) -> Tensor:
    """Σ ‖I − UUᵀ‖₂ + ‖I − UᵀU‖₂ + the same of V, over all `BoundedSVD(soft=True)` in a module (paper 3, eq. (22)).

    Of a rectangular factor only the side that can vanish is counted, twice. A scalar, to be added to the loss.

    Args:
        module: A network.

    Raises:
        ValueError: There is no soft parametrisation in it.

    >>> layer = nn.Linear(3, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", BoundedSVD(0, 1, soft=True))
    >>> float(orthogonality_penalty(layer).detach()) < 1e-5
    True
    """
    terms = []
    for part in module.modules():
        if isinstance(part, ParametrizationList) and isinstance(part[0], BoundedSVD) and part[0].soft:
            for factor in (part.original0, part.original2):
                assert isinstance(factor, Tensor)
                eye = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device)
                terms.append(2 * torch.linalg.matrix_norm(eye - factor.mT @ factor, 2))
    if not terms:
        raise ValueError(
            "orthogonality_penalty: no weight of this module has the parametrisation BoundedSVD(soft=True)."
        )
    return torch.stack(terms).sum()


def reflections(x: Tensor) -> Tensor:
    """−H₁⋯H_k·[I; 0] `[p, k]`, with H_j the reflection along column j of the lower trapezoid of `x` `[p, k]`, p ≥ k.

    Its columns are orthonormal to rounding, whatever the lengths of the vectors; a vector of zeros reflects nothing.
    The reflections are applied together: H₁⋯H_k = I − V·T·Vᵀ, T⁻¹ the upper triangle of VᵀV for columns of norm √2
    (with 1 on its diagonal).
    """
    check_shape("BoundedSVD", x)
    k = x.shape[1]
    tiny = torch.finfo(x.dtype).tiny
    v = x.tril()
    v = v / v.detach().abs().amax(0).clamp_min(tiny)  # only directions matter; no square overflows
    v = v * (math.sqrt(2.0) / torch.linalg.vector_norm(v, dim=0).clamp_min(tiny))
    eye = torch.eye(x.shape[0], k, dtype=x.dtype, device=x.device)
    inverse = (v.mT @ v).triu(1) + eye[:k]
    product: Tensor = v @ torch.linalg.solve_triangular(inverse, v[:k].mT, upper=True)
    return product - eye


def reflection_vectors(U: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The vectors `[p, k]` of `reflections` behind a matrix `[p, k]` of orthonormal columns, and a sign.

    k reflections of a square matrix have one determinant only: the sign is −1 if the last column had to be turned.
    """
    A = U.copy()
    p, k = A.shape
    vectors = np.zeros((p, k))
    for j in range(k):
        x = A[j:, j]
        if len(x) == 1:
            vectors[j, j] = math.sqrt(2.0)
            return vectors, 1.0 if x[0] > 0 else -1.0
        norm = float(np.linalg.norm(x))
        v = x.copy()
        rest = float(x[1:] @ x[1:])
        v[0] = x[0] + norm if x[0] >= 0 else rest / (norm - x[0])  # without cancellation
        if not v.any():  # x is −e₁ already: any reflection that keeps it
            v[1] = 1.0
        v *= math.sqrt(2.0) / np.linalg.norm(v / np.abs(v).max()) / np.abs(v).max()
        A[j:, j:] -= np.outer(v, v @ A[j:, j:])
        vectors[j:, j] = v
    return vectors, 1.0
