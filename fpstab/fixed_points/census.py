"""What kind of fixed point each one is, from the eigenvalues of its Jacobian, and its index."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.fixed_points.newton import newton
from fpstab.fixed_points.search import chunks, rounding_floor, scale
from fpstab.jacobian import jacobian_norm, jacobian_spectrum
from fpstab.jacobian.products import JacobianProducts, jacobian_matrix
from fpstab.maps import SelfMap

KINDS = ("attracting", "marginal", "non_isolated", "saddle", "repelling")
ATTRACTING, MARGINAL, NON_ISOLATED, SADDLE, REPELLING = range(len(KINDS))

_RTOL = 1e-8
_CHUNK = 128  # points whose Krylov spaces are kept at once
_DENSE = 256  # values of a point up to which all eigenvalues are computed
_DETERMINANT = 1024  # and the sign of a determinant
_ENTRIES = 1 << 25  # of Jacobians that are kept at once
_PROBES = 8
_RANKS = (96, 256)  # of Jacobians that are looked at through their rows
_DISPLACEMENT = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """The kinds of `K` fixed points.

    Attributes:
        kind: Index into `KINDS` `[K]`.
        rho: ρ(J) `[K]`.
        rho_error: Its error `[K]`.
        sigma: ‖J‖₂ `[K]`.
        index: sign det(I − J), ±1, or 0 where it is not known `[K]`.
    """

    kind: Tensor
    rho: Tensor
    rho_error: Tensor
    sigma: Tensor
    index: Tensor


def classify(function: SelfMap, x: Tensor, error: Tensor, contracting: Tensor) -> Census:
    """Classify fixed points by ρ(J) and its error.

    Attracting if ρ < 1 by more than the error, `marginal` if |ρ − 1| is within it, else a saddle (some eigenvalue
    inside the unit circle) or repelling. A marginal one is `non_isolated` if others lie beside it: from a displaced
    point Newton's method then leads elsewhere. Where J is strongly non-normal and ρ not known well enough, the
    observed contraction decides.

    Args:
        function: A map of a space to itself.
        x: Fixed points `[K, n]`.
        error: Their error bounds `[K]`; they add to the error of ρ.
        contracting: Whether Picard iteration was seen to converge to the point at a rate below 1 `[K]`.
    """
    rho, rho_error, leading, sigma = _spectra(function, x)
    if not len(x):
        return Census(torch.zeros(0, dtype=torch.int64, device=x.device), rho, rho_error, sigma, rho.long())
    margin = rho_error.nan_to_num(math.inf) + torch.where(torch.isfinite(error), error, 0.0) + 4e-9
    kind = torch.full((len(x),), MARGINAL, dtype=torch.int64, device=x.device)
    kind[rho < 1 - margin] = ATTRACTING
    # 1 − margin may be far off where J is strongly non-normal
    kind[(kind == MARGINAL) & contracting & (rho_error > _RTOL * 10) & (rho < 1)] = ATTRACTING
    unstable = (rho > 1 + margin).nonzero()[:, 0]
    kind[unstable] = SADDLE
    index = (kind == ATTRACTING).to(torch.int64)  # all real eigenvalues are below 1
    if len(unstable):
        kind[unstable], index[unstable] = _unstable_kinds(function, x[unstable])
    marginal = (kind == MARGINAL).nonzero()[:, 0]
    if len(marginal):  # where the leading eigenvalue is −1, say, there is an index
        index[marginal] = _unstable_kinds(function, x[marginal])[1]
    touching = ((kind == MARGINAL) & ((leading - 1).abs() <= torch.clamp(margin, min=1e-6))).nonzero()[:, 0]
    if len(touching):
        kind[touching[_has_neighbours(function, x[touching], error[touching])]] = NON_ISOLATED
    return Census(kind, rho, rho_error, sigma, index)


def _spectra(function: SelfMap, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ρ, its error, the leading eigenvalue and ‖J‖₂ at points `[K, n]`, each `[K]`."""
    nothing = x.new_empty(0)
    parts = [(nothing, nothing, nothing.to(torch.complex128), nothing)]
    for chunk in chunks(x, _CHUNK):
        spectrum = jacobian_spectrum(function, chunk, rtol=_RTOL, max_products=3000, throw=False)
        norms = jacobian_norm(function, chunk, rtol=1e-3, throw=False)
        parts.append((spectrum.rho, spectrum.rho_error, spectrum.eigenvalue, norms.sigma))
    rho, rho_error, leading, sigma = (torch.cat(column).to(x.device) for column in zip(*parts, strict=True))
    return rho, rho_error, leading, sigma


def _unstable_kinds(function: SelfMap, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of unstable points `[U, n]`: `SADDLE` or `REPELLING` `[U]`, and the index `[U]`."""
    kind, index = [], []
    for chunk in chunks(x, max(1, _ENTRIES // x.shape[1] ** 2)):
        kind_of, index_of = _kinds_of_chunk(function, chunk)
        kind.append(kind_of)
        index.append(index_of)
    return torch.cat(kind), torch.cat(index)


def _kinds_of_chunk(function: SelfMap, x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.shape[1]
    if function.split is not None:
        encode, decode = function.split
        with torch.no_grad():
            code = encode(x)
        if code.shape[1] <= min(n, _DETERMINANT):
            # det(I − J_dec J_enc) = det(I − J_enc J_dec), and but for zeros the eigenvalues are the same
            small = jacobian_matrix(encode, x) @ jacobian_matrix(decode, code)
            return _from_eigenvalues(torch.linalg.eigvals(small), zeros=n > code.shape[1])
    if n <= _DENSE:
        return _from_eigenvalues(torch.linalg.eigvals(jacobian_matrix(function, x)), zeros=False)
    for rank in _RANKS:
        if 3 * rank <= n and (compressed := _compress(function, x, rank)) is not None:
            return _from_eigenvalues(torch.linalg.eigvals(compressed), zeros=True)
    kind = torch.full((len(x),), SADDLE, dtype=torch.int64, device=x.device)
    index = torch.zeros_like(kind)
    # |det J|² ≤ (‖J‖_F²/n)ⁿ: if that is below 1, not all eigenvalues can lie outside the unit circle
    doubtful = _frobenius(function, x) >= 0.8 * n
    if n <= _DETERMINANT:
        J = jacobian_matrix(function, x)
        index = torch.linalg.det(torch.eye(n, dtype=x.dtype, device=x.device) - J).sign().to(torch.int64)
    for i in doubtful.nonzero()[:, 0].tolist():
        kind[i] = _from_eigenvalues(torch.linalg.eigvals(jacobian_matrix(function, x[i : i + 1])), zeros=False)[0][0]
    return kind, index


def _from_eigenvalues(eigenvalues: Tensor, zeros: bool) -> tuple[Tensor, Tensor]:
    """Kind and index `[U]` from all eigenvalues `[U, m]` (but for zeros)."""
    repelling = (eigenvalues.abs() > 1).all(1)
    if zeros:
        repelling = torch.zeros_like(repelling)
    kind = torch.where(repelling, REPELLING, SADDLE)
    gap = 1 - eigenvalues
    sign = (gap / gap.abs()).prod(1).real.round().nan_to_num(0.0).to(torch.int64)  # pairs cancel
    return kind, torch.where(gap.abs().amin(1) > 4e-9, sign, 0)


def _compress(function: SelfMap, x: Tensor, rank: int) -> Tensor | None:
    """QᵀJQ `[B, rank, rank]`, Q an orthonormal basis of the rows of J, whose eigenvalues are those of J but for zeros.

    From `2·rank` products (Halko et al. 2011); `None` if the rank of J is larger, to 1e-9.
    """
    generator = torch.Generator().manual_seed(0)
    products = JacobianProducts(function, x)

    def rows_of_jacobian(count: int) -> Tensor:
        probes = torch.randn(count, 1, x.shape[1], generator=generator, dtype=x.dtype).to(x.device)
        return torch.stack([products.vjp(probe.expand_as(x).contiguous()) for probe in probes], 2)

    Q = torch.linalg.qr(rows_of_jacobian(rank).nan_to_num(0.0, 0.0, 0.0))[0]
    more = rows_of_jacobian(4)
    missed = torch.linalg.vector_norm(more - Q @ (Q.mT @ more), dim=1)
    if not bool((missed <= 1e-9 * (1 + torch.linalg.vector_norm(more, dim=1))).all()):
        return None
    JtQ = torch.stack([products.vjp(q.contiguous()) for q in Q.unbind(2)], 2)
    compressed: Tensor = JtQ.mT @ Q
    return compressed


def _frobenius(function: SelfMap, x: Tensor) -> Tensor:
    """‖J‖_F² `[B]`, from random vectors."""
    generator = torch.Generator().manual_seed(0)
    products = JacobianProducts(function, x)
    total = torch.zeros_like(x[:, 0])
    for _ in range(_PROBES):
        w = torch.randn(1, x.shape[1], generator=generator, dtype=x.dtype).to(x.device).expand_as(x)
        total += products.vjp(w.contiguous()).square().sum(1)
    return total / _PROBES


def _has_neighbours(function: SelfMap, x: Tensor, error: Tensor) -> Tensor:
    """Whether other fixed points lie within 1e-3 of fixed points `[B, n]`, by displacing them at random."""
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(3):
        way = torch.randn(1, x.shape[1], generator=generator, dtype=x.dtype).to(x.device)
        moved = x + _DISPLACEMENT * scale(x)[:, None] * way / way.norm()
        roots = newton(function, moved, batch_size=len(x))
        distance = torch.linalg.vector_norm(roots.x - x, dim=1)
        beside = distance > 10 * error.nan_to_num(0.0, 0.0) + 1e-2 * _DISPLACEMENT * scale(x) / math.sqrt(x.shape[1])
        near = distance <= 2 * _DISPLACEMENT * scale(x)
        found |= roots.converged & (roots.residual <= 10 * rounding_floor(x)) & beside & near
    return found
