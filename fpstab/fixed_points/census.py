"""What kind of fixed point each one is, from the eigenvalues of its Jacobian, and its index."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fpstab.fixed_points.kinks import has_kink
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
_ONE = 1e-6  # distance to 1 from which an eigenvalue at a marginal point is known not to be 1
_DIFFERENCED = 1e-6  # error of ρ from differences


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """The kinds of `K` fixed points.

    Attributes:
        kind: Index into `KINDS` `[K]`.
        rho: ρ(J) `[K]`.
        rho_error: Its error `[K]`.
        sigma: ‖J‖₂ `[K]`.
        index: sign det(I − J), ±1, or 0 where it is not known `[K]`.
        kink: Whether the map has a kink there, so that J says nothing `[K]`.
        touching: Whether 1 is an eigenvalue of J, to 1e-6 `[K]`.
    """

    kind: Tensor
    rho: Tensor
    rho_error: Tensor
    sigma: Tensor
    index: Tensor
    kink: Tensor
    touching: Tensor

    def take(self, rows: Tensor) -> "Census":
        """The kinds of some of the points."""
        return Census(*(getattr(self, field.name)[rows] for field in fields(self)))


def classify(function: SelfMap, x: Tensor, error: Tensor, contracting: Tensor) -> Census:
    """Classify fixed points by ρ(J) and its error.

    Attracting if ρ < 1 by more than the error, `marginal` if |ρ − 1| is within it, else a saddle (some eigenvalue
    inside the unit circle) or repelling. A marginal one is `non_isolated` if others lie beside it: from a displaced
    point Newton's method then leads elsewhere. Where J is strongly non-normal and ρ not known well enough, the
    observed contraction decides. At a kink of the map the Jacobian decides nothing: the point is marginal (or not
    isolated), without an index. The index of a marginal point is known only where no eigenvalue is near 1.

    Args:
        function: A map of a space to itself.
        x: Fixed points `[K, n]`.
        error: Their error bounds `[K]`; relative to 1 + ‖x‖ they add to the error of ρ.
        contracting: Whether Picard iteration was seen to converge to the point at a rate below 1 `[K]`.
    """
    rho, rho_error, leading, sigma = _spectra(function, x)
    if not len(x):
        none = rho.long()
        return Census(none, rho, rho_error, sigma, none, none.bool(), none.bool())
    relative = torch.where(torch.isfinite(error), error / scale(x), 0.0)
    margin = rho_error.nan_to_num(math.inf) + relative + 4e-9
    kind = torch.full((len(x),), MARGINAL, dtype=torch.int64, device=x.device)
    kind[rho < 1 - margin] = ATTRACTING
    # 1 − margin may be far off where J is strongly non-normal
    kind[(kind == MARGINAL) & contracting & (rho_error > _RTOL * 10) & (rho < 1)] = ATTRACTING
    kink = has_kink(function, x)
    kind[kink] = MARGINAL
    unstable = ((rho > 1 + margin) & ~kink).nonzero()[:, 0]
    kind[unstable] = SADDLE
    index = (kind == ATTRACTING).to(torch.int64)  # all real eigenvalues are below 1
    if len(unstable):
        kind[unstable], index[unstable] = _unstable_kinds(function, x[unstable])
    known = (margin <= _ONE) & (error <= _ONE * scale(x))  # not where I − J is singular to rounding
    marginal = ((kind == MARGINAL) & ~kink & known).nonzero()[:, 0]
    if len(marginal):  # where the leading eigenvalue is −1, say, there is an index
        index[marginal] = _unstable_kinds(function, x[marginal], gap=_ONE)[1]
    near_one = (leading - 1).abs() <= torch.clamp(margin, min=_ONE)
    candidates = ((kind == MARGINAL) & (near_one | kink)).nonzero()[:, 0]
    if len(candidates):
        kind[candidates[_has_neighbours(function, x[candidates], error[candidates])]] = NON_ISOLATED
    index[kind == NON_ISOLATED] = 0
    return Census(kind, rho, rho_error, sigma, index, kink, (leading - 1).abs() <= _ONE)


def _spectra(function: SelfMap, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ρ, its error, the leading eigenvalue and ‖J‖₂ at points `[K, n]`, each `[K]`."""
    nothing = x.new_empty(0)
    parts = [(nothing, nothing, nothing.to(torch.complex128), nothing)]
    for chunk in chunks(x, _CHUNK):
        odd = ~torch.isfinite(JacobianProducts(function, chunk).vjp(torch.ones_like(chunk))).all(1)
        if bool(odd.any()):
            parts.append(_spectra_by_differences(function, chunk, odd))
            continue
        spectrum = jacobian_spectrum(function, chunk, rtol=_RTOL, max_products=3000, throw=False)
        norms = jacobian_norm(function, chunk, rtol=1e-3, throw=False)
        parts.append((spectrum.rho, spectrum.rho_error, spectrum.eigenvalue, norms.sigma))
    rho, rho_error, leading, sigma = (torch.cat(column).to(x.device) for column in zip(*parts, strict=True))
    return rho, rho_error, leading, sigma


def _spectra_by_differences(function: SelfMap, x: Tensor, odd: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same where autograd's Jacobian of the `odd` rows is not finite, as that of 0·∞ is not; nan if it is large."""
    rho, rho_error = torch.full_like(x[:, 0], math.nan), torch.full_like(x[:, 0], math.inf)
    leading, sigma = rho.to(torch.complex128), rho.clone()
    for target, part in zip((rho, rho_error, leading, sigma), _spectra(function, x[~odd]), strict=True):
        target[~odd] = part
    n = x.shape[1]
    if n > _DENSE:
        return rho, rho_error, leading, sigma
    for i in odd.nonzero()[:, 0].tolist():
        h = torch.finfo(x.dtype).eps ** (1 / 3) * float(scale(x[i : i + 1])) * torch.eye(n, dtype=x.dtype).to(x.device)
        with torch.no_grad():
            J = (function(x[i] + h) - function(x[i] - h)).T / (2 * h[0, 0])
        if bool(torch.isfinite(J).all()):
            eigenvalues = torch.linalg.eigvals(J)
            leading[i] = eigenvalues[eigenvalues.abs().argmax()]
            rho[i], rho_error[i], sigma[i] = leading[i].abs(), _DIFFERENCED, torch.linalg.matrix_norm(J, 2)
    return rho, rho_error, leading, sigma


def _unstable_kinds(function: SelfMap, x: Tensor, gap: float = 4e-9) -> tuple[Tensor, Tensor]:
    """Of unstable points `[U, n]`: `SADDLE` or `REPELLING` `[U]`, and the index `[U]`.

    The index is 0, not known, if an eigenvalue is within `gap` of 1, or the Jacobian is not finite.
    """
    finite = torch.isfinite(JacobianProducts(function, x).vjp(torch.ones_like(x))).all(1)
    if not bool(finite.all()):
        kinds = torch.full((len(x),), SADDLE, dtype=torch.int64, device=x.device)
        indices = torch.zeros_like(kinds)
        if bool(finite.any()):
            kinds[finite], indices[finite] = _unstable_kinds(function, x[finite], gap)
        return kinds, indices
    kind, index = [], []
    for chunk in chunks(x, max(1, _ENTRIES // x.shape[1] ** 2)):
        kind_of, index_of = _kinds_of_chunk(function, chunk, gap)
        kind.append(kind_of)
        index.append(index_of)
    return torch.cat(kind), torch.cat(index)


def _kinds_of_chunk(function: SelfMap, x: Tensor, gap: float) -> tuple[Tensor, Tensor]:
    n = x.shape[1]
    if function.split is not None:
        encode, decode = function.split
        with torch.no_grad():
            code = encode(x)
        if code.shape[1] <= min(n, _DETERMINANT):
            # det(I − J_dec J_enc) = det(I − J_enc J_dec), and but for zeros the eigenvalues are the same
            small = jacobian_matrix(encode, x) @ jacobian_matrix(decode, code)
            return _from_eigenvalues(torch.linalg.eigvals(small), zeros=n > code.shape[1], gap=gap)
    if n <= _DENSE:
        return _from_eigenvalues(torch.linalg.eigvals(jacobian_matrix(function, x)), zeros=False, gap=gap)
    for rank in _RANKS:
        if 3 * rank <= n and (compressed := _compress(function, x, rank)) is not None:
            return _from_eigenvalues(torch.linalg.eigvals(compressed), zeros=True, gap=gap)
    kind = torch.full((len(x),), SADDLE, dtype=torch.int64, device=x.device)
    index = torch.zeros_like(kind)
    # |det J|² ≤ (‖J‖_F²/n)ⁿ: if that is below 1, not all eigenvalues can lie outside the unit circle
    doubtful = _frobenius(function, x) >= 0.8 * n
    if n <= _DETERMINANT:
        J = jacobian_matrix(function, x)
        index = torch.linalg.det(torch.eye(n, dtype=x.dtype, device=x.device) - J).sign().to(torch.int64)
    for i in doubtful.nonzero()[:, 0].tolist():
        eigenvalues = torch.linalg.eigvals(jacobian_matrix(function, x[i : i + 1]))
        kind[i] = _from_eigenvalues(eigenvalues, zeros=False, gap=gap)[0][0]
    return kind, index


def _from_eigenvalues(eigenvalues: Tensor, zeros: bool, gap: float) -> tuple[Tensor, Tensor]:
    """Kind and index `[U]` from all eigenvalues `[U, m]` (but for zeros)."""
    repelling = (eigenvalues.abs() > 1).all(1)
    if zeros:
        repelling = torch.zeros_like(repelling)
    kind = torch.where(repelling, REPELLING, SADDLE)
    to_one = 1 - eigenvalues
    sign = (to_one / to_one.abs()).prod(1).real.round().nan_to_num(0.0).to(torch.int64)  # pairs cancel
    return kind, torch.where(to_one.abs().amin(1) > gap, sign, 0)


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
