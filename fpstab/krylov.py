"""Krylov methods for many operators at once: row b of a batch is a problem of its own, with its own operator.

An operator is a function of batches `[B, n] -> [B, m]` that acts on each row by itself. No row knows of another: one
that is done, breaks down or holds a NaN leaves the others as they are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

Operator = Callable[[Tensor], Tensor]

NON_NORMAL = 50.0  # condition of an eigenvalue from which on a matrix is called far from normal
_SAFETY = 10.0  # of residuals as errors
# Of a residual: how far a Ritz value that has not settled is expected to grow yet. All of it is asked for where the
# space may grow to the whole; elsewhere, disks full of eigenvalues would hardly ever be called converged.
_OPEN = 0.5
WHOLE = 128  # dimension up to which a Krylov space may grow to the whole space: then its eigenvalues are all there


@dataclass(frozen=True, slots=True, eq=False)
class LinearSolution:
    """What `gmres` found.

    Attributes:
        x: The solutions `[B, n]`; of a row that has not converged, its best iterate.
        residual: ‖b − Ax‖ `[B]`, computed from the iterate itself.
        converged: Whether the residual is at most `tol`·‖b‖ `[B]`.
        n_products: Products with the whole batch.
    """

    x: Tensor
    residual: Tensor
    converged: Tensor
    n_products: int


def gmres(
    matvec: Operator,
    b: Tensor,
    *,
    tol: float = 1e-8,
    max_iter: int = 100,
    restart: int = 30,
) -> LinearSolution:
    """Solve A x = b for every row by restarted GMRES, from x = 0.

    `matvec` always gets the whole batch; rows that are done are zero in it. The operator may be singular or
    indefinite: a row that makes no progress ends as not converged.

    Args:
        matvec: Maps `[B, n]` to `[B, n]`, each row by its own matrix.
        b: Right-hand sides `[B, n]`.
        tol: Residual to reach, relative to ‖b‖; one for all rows, or `[B]`.
        max_iter: Products at most, the checks of the residual not counted.
        restart: Size of the Krylov space.

    >>> A = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]], dtype=torch.float64)
    >>> solution = gmres(lambda v: (A @ v[:, :, None])[:, :, 0], torch.ones(2, 2, dtype=torch.float64))
    >>> solution.converged, solution.x[1]
    (tensor([True, True]), tensor([ 1., -1.], dtype=torch.float64))
    """
    n = b.shape[1]
    target = tol * torch.linalg.vector_norm(b, dim=1)
    x, r = torch.zeros_like(b), b.clone()
    residual = torch.linalg.vector_norm(b, dim=1)
    working = residual > target  # false for NaN
    products = iterations = 0
    while iterations < max_iter and bool(working.any()):
        k = min(restart, n, max_iter - iterations)
        step, used = _gmres_cycle(matvec, r, working, target, k)
        iterations += used
        candidate = x + step
        r_new = b - matvec(torch.where(working[:, None], candidate, 0.0))
        products += used + 1
        residual_new = torch.linalg.vector_norm(r_new, dim=1)
        better = working & (residual_new < residual)
        # a cycle that gains nothing would be repeated for ever
        working = better & (residual_new > target) & (residual_new < 0.999 * residual)
        x = torch.where(better[:, None], candidate, x)
        r = torch.where(better[:, None], r_new, r)
        residual = torch.where(better, residual_new, residual)
    return LinearSolution(x, residual, residual <= target, products)


def _gmres_cycle(matvec: Operator, r: Tensor, working: Tensor, target: Tensor, k: int) -> tuple[Tensor, int]:
    """The correction `[B, n]` of one cycle of at most `k` products, and how many there were."""
    rows, n = r.shape
    beta = torch.linalg.vector_norm(r, dim=1)
    basis = r.new_zeros(rows, k + 1, n)
    basis[:, 0] = torch.where(working[:, None], r / beta[:, None], 0.0)
    H = r.new_zeros(rows, k + 1, k)
    # u is orthogonal to the columns of H, with first entry 1: the residual is beta / ‖u‖
    u = r.new_zeros(rows, k + 1)
    u[:, 0] = 1.0
    running = working.clone()
    j = 0
    for j in range(k):
        w, h, norm, size = _expand(matvec, basis, j)
        broken = ~(norm > 4 * torch.finfo(r.dtype).eps * size)
        numerator = (u[:, : j + 1] * h).sum(1)
        H[:, : j + 1, j] = torch.where(running[:, None], h, 0.0)
        H[:, j + 1, j] = torch.where(running, torch.where(broken, 0.0, norm), 1.0)
        u[:, j + 1] = torch.where(running & ~broken, -numerator / norm, 0.0)
        estimate = beta / torch.linalg.vector_norm(u[:, : j + 2], dim=1)
        running = running & ~broken & (estimate > 0.5 * target)
        if not bool(running.any()):
            break
        basis[:, j + 1] = torch.where(running[:, None], w / norm[:, None], 0.0)
    used = j + 1
    Q, R = torch.linalg.qr(H[:, : used + 1, :used].nan_to_num(0.0, 0.0, 0.0))
    diagonal = torch.diagonal(R, dim1=1, dim2=2)
    # only a breakdown on a singular operator leaves a zero: that direction has no say
    dead = diagonal.abs() <= 1e-14 * diagonal.abs().amax(1, keepdim=True).clamp_min(torch.finfo(r.dtype).tiny)
    rhs = torch.where(dead, 0.0, beta[:, None] * Q[:, 0, :])
    diagonal.masked_fill_(dead, 1.0)
    y = torch.linalg.solve_triangular(R, rhs[:, :, None], upper=True)
    step = torch.bmm(y.mT, basis[:, :used])[:, 0]
    return torch.where(working[:, None], step, 0.0), used


def _expand(matvec: Operator, basis: Tensor, j: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Apply the operator to the `j`-th basis vector and project the product off the first j + 1.

    Returns the rest `[B, n]`, the coefficients `[B, j + 1]`, the norm of the rest `[B]`, and that of the product.
    """
    w = matvec(basis[:, j])
    size = torch.linalg.vector_norm(w, dim=1)
    w, h, norm = orthogonalize(basis[:, : j + 1], w)
    return w, h, norm, size


@dataclass(frozen=True, slots=True, eq=False)
class LeadingEigenvalue:
    """What `arnoldi` found: of each row, the eigenvalue of largest modulus.

    Attributes:
        eigenvalue: `[B]`, complex, the one of a conjugate pair with positive imaginary part; NaN where a product was
            not finite.
        error: Estimate of its error `[B]`: the residual and rounding, times ten times `condition`; or how far the
            modulus of another Ritz value and its residual (half of it, where `basis_size` < n) together reach above this
            one's, if that is more. Not a bound: an eigenvalue of larger modulus may not have shown at all.
        residual: ‖Av − λv‖ `[B]`, for the unit vector v.
        condition: What scales a residual to an error `[B]`: the condition number of the eigenvalue in the Krylov space,
            1/|⟨left, right⟩| of its unit eigenvectors; or, if that of any eigenvalue there exceeds 50, the condition of
            the matrix of all eigenvectors. It is 1 for a normal matrix, infinite for a defective one.
        converged: Whether the error is at most `tol` times the modulus `[B]`.
        n_products: Products that the row took part in until it was done `[B]`.
    """

    eigenvalue: Tensor
    error: Tensor
    residual: Tensor
    condition: Tensor
    converged: Tensor
    n_products: Tensor


def arnoldi(
    operator: Operator,
    start: Tensor,
    *,
    tol: float = 1e-3,
    max_products: int = 300,
    basis_size: int | None = None,
    keep: int = 20,
    take: Callable[[Tensor], Operator] | None = None,
) -> LeadingEigenvalue:
    """The eigenvalue of largest modulus of every row's operator, by Arnoldi's method with Krylov–Schur restarts.

    Works for complex pairs and for several eigenvalues of one modulus (any of them is returned). A Krylov space that
    closes gives its eigenvalues to rounding.

    Args:
        operator: Maps `[B, n]` to `[B, n]`, each row by its own matrix.
        start: Start vectors `[B, n]`, with parts in all eigenvectors, as random ones have.
        tol: Relative error to reach.
        max_products: Products of a row at most.
        basis_size: Dimension of the Krylov space at which it is restarted; by default 60, or n, where n is at most 128.
        keep: Dimension of the invariant subspace that a restart keeps; one more where it would split a pair.
        take: The operator of some of the rows, by their indices `[k]`; with it, rows that are done leave the batch.

    Raises:
        ValueError: If `keep` is not below `basis_size` − 1.

    >>> turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    >>> found = arnoldi(lambda v: 2 * v @ turn.T, torch.ones(1, 2, dtype=torch.float64))
    >>> found.eigenvalue
    tensor([1.2000+1.6000j], dtype=torch.complex128)
    """
    rows, n = start.shape
    if basis_size is None:
        basis_size = max(n, keep + 2) if n <= WHOLE else max(60, 3 * keep)
    if not 1 <= keep < basis_size - 1:
        raise ValueError(f"keep={keep}: expected 1 ≤ keep < basis_size - 1, with basis_size={basis_size}.")
    nan = start.new_full((rows,), torch.nan)
    eigenvalue = torch.complex(nan, nan)
    error, residual, condition = nan.clone(), nan.clone(), nan.clone()
    converged = torch.zeros(rows, dtype=torch.bool, device=start.device)
    products = torch.zeros(rows, dtype=torch.int64, device=start.device)

    m = min(basis_size, n, max_products)
    basis = start.new_empty(rows, m + 1, n)
    basis[:, 0] = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    H = start.new_zeros(rows, m + 1, m)
    scale = start.new_zeros(rows)
    members = torch.arange(rows, device=start.device)  # which row of the batch each row at work is
    working = torch.ones(rows, dtype=torch.bool, device=start.device)
    j = used = 0
    while used < max_products and bool(working.any()):
        w, h, norm, size = _expand(operator, basis, j)
        used += 1
        scale = torch.maximum(scale, size)
        closed = (norm <= 10 * torch.finfo(start.dtype).eps * scale) | (j + 1 == n)
        H[:, : j + 1, j], H[:, j + 1, j] = h, norm.masked_fill(closed, 0.0)
        basis[:, j + 1] = w / norm.masked_fill_(closed, torch.inf)[:, None]
        j += 1
        # when a row is looked at must not depend on the others: what it ends with would, too
        judged = working if j == m or used == max_products or _is_check(j) else working & closed
        if bool(judged.any()):
            finite = torch.isfinite(H[:, : j + 1, :j]).all(2).all(1)
            H[~finite], basis[~finite, : j + 1], scale[~finite] = 0.0, 0.0, 0.0
            judged = judged & finite
            final = closed | (used == max_products)
            limit = torch.where(final, torch.inf, tol)[judged]
            theta, err, res, kappa = leading_eigenvalue(
                H[judged, : j + 1, :j], limit, 1.0 if basis_size >= n else _OPEN
            )
            at = members[judged]
            eigenvalue[at], error[at], residual[at], condition[at] = theta, err, res, kappa
            converged[at] = err <= tol * theta.abs()
            products[members[working]] = used
            # a closed space has no more to tell
            working = working & finite & ~converged[members] & ~closed
            left = int(working.sum())
            if take is not None and 0 < left <= 0.75 * len(members):
                members, scale, H = members[working], scale[working], H[working]
                basis = _rows(basis, working, j + 1)
                operator, working = take(members), working[working]
        if j == m and used < max_products and bool(working.any()):
            j = _restart(basis, H, keep)
    return LeadingEigenvalue(eigenvalue, error, residual, condition, converged, products)


def _is_check(j: int) -> bool:
    return j in (6, 11, 16, 21, 26, 30, 40, 50, 60) or (j > 60 and j % 20 == 0)


def _rows(basis: Tensor, rows: Tensor, filled: int) -> Tensor:
    """Some rows of a basis, of which `filled` vectors are in use."""
    fewer = basis.new_empty(int(rows.sum()), *basis.shape[1:])
    fewer[:, :filled] = basis[:, :filled][rows]
    return fewer


def leading_eigenvalue(
    H: Tensor, tol: Tensor | float = math.inf, growth: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The eigenvalue of largest modulus of each of many matrices, dense.

    Args:
        H: `[B, k + 1, k]`: square matrices, and below each the row that couples it to the rest of the space (zeros if
            there is no rest).
        tol: Where the error is below `tol` times the modulus by the eigenvalue's own condition, the others are looked
            at too; elsewhere the error may be far too small. One for all, or `[B]`.
        growth: Share of its residual by which the modulus of another eigenvalue is expected to grow at most.

    Returns:
        The eigenvalue, of a pair the one with positive imaginary part; the estimate of its error; its residual; and the
        condition that scales residual to error: `[B]` each.
    """
    k, eps = H.shape[2], torch.finfo(H.dtype).eps
    scale = torch.linalg.matrix_norm(H)
    H = H / torch.where(scale == 0, 1.0, scale)[:, None, None]
    values = torch.linalg.eigvals(H[:, :k])
    theta = values.gather(1, values.abs().argmax(1)[:, None])[:, 0]
    theta = torch.complex(theta.real, theta.imag.abs())
    # both eigenvectors by inverse iteration: all of them, and their inverse, would take twice the time
    A = H.to(theta.dtype)
    shifted = A[:, :k] - theta[:, None, None] * torch.eye(k, dtype=theta.dtype, device=H.device)
    factors, pivots, _ = torch.linalg.lu_factor_ex(shifted)
    diagonal = torch.diagonal(factors, dim1=1, dim2=2)
    diagonal[diagonal.abs() < eps] = eps
    right = left = torch.ones(len(H), k, 1, dtype=theta.dtype, device=H.device)
    for _ in range(2):
        right = _unit(torch.linalg.lu_solve(factors, pivots, right))
        left = _unit(torch.linalg.lu_solve(factors, pivots, left, adjoint=True))
    defect = A @ right
    defect[:, :k] -= theta[:, None, None] * right
    residual = torch.linalg.vector_norm(defect, dim=(1, 2))
    condition = 1 / (left.conj() * right).sum((1, 2)).abs().clamp_min(torch.finfo(H.dtype).tiny)
    error = _SAFETY * condition * (residual + eps)
    candidate = error <= tol * theta.abs()
    if bool(candidate.any()):
        error[candidate], condition[candidate] = _compared(
            H[candidate], theta[candidate], residual[candidate], condition[candidate], growth
        )
    return theta * scale, error * scale, residual * scale, condition


def _compared(H: Tensor, theta: Tensor, residual: Tensor, condition: Tensor, growth: float) -> tuple[Tensor, Tensor]:
    """The error of leading eigenvalues in view of all others, and the condition behind it."""
    k, eps = H.shape[2], torch.finfo(H.dtype).eps
    values, vectors = torch.linalg.eig(H[:, :k])
    inverse, info = torch.linalg.inv_ex(vectors)
    each = torch.linalg.vector_norm(inverse, dim=2)
    each = torch.where((info == 0)[:, None] & torch.isfinite(each), each, torch.inf)
    # far from normal, the eigenvalue that converges first need not be the leading one: Bauer and Fike's condition
    of_all = k**0.5 * torch.linalg.vector_norm(each, dim=1)
    condition = torch.where(each.amax(1) > NON_NORMAL, of_all, condition)
    error = _SAFETY * condition * (residual + eps)
    # of a whole matrix the errors are those of rounding: for a defective one Elsner's bound
    rounding = (_SAFETY * eps * each).clamp_max(2 * (_SAFETY * eps) ** (1 / k))
    rounded = (values.abs() + rounding).amax(1) - theta.abs()
    # of a cluster of moduli another may settle before the leading one, which then is among those that have not settled
    open_ends = torch.linalg.vecdot(H[:, k].to(vectors.dtype)[:, :, None], vectors, dim=1).abs()
    reach = (values.abs() + growth * open_ends).amax(1) - theta.abs()
    return torch.where((H[:, k] == 0).all(1), rounded, torch.maximum(error, reach)), condition


def _unit(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / length


def _restart(basis: Tensor, H: Tensor, keep: int) -> int:
    """Shrink, in place, to the span of the `keep` leading Schur vectors of each row; returns the new dimension."""
    m = H.shape[2]
    small = H.cpu().numpy()
    parts = [_leading_schur(matrix[:m], keep) for matrix in small]
    size = keep + 1  # for every row: what a row does must not depend on the others
    Q_all, H_all = np.zeros((len(H), m, size)), np.zeros(H.shape)
    for i, (Q, S) in enumerate(parts):
        p = Q.shape[1]  # it is `keep` where no pair would be split: then a vector of zeros stands in
        Q_all[i, :, :p] = Q
        H_all[i, :p, :p] = S
        H_all[i, size, :p] = small[i, m] @ Q
    vectors = torch.from_numpy(Q_all).to(basis)
    basis[:, :size], basis[:, size] = torch.bmm(vectors.mT, basis[:, :m]), basis[:, m].clone()
    H.copy_(torch.from_numpy(H_all))
    return size


def _leading_schur(matrix: NDArray[np.float64], keep: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal basis `[m, p]` of the invariant subspace of the leading eigenvalues, and the matrix `[p, p]` in it."""
    values = np.linalg.eigvals(matrix)
    moduli = np.sort(np.abs(values))[::-1]
    p = keep
    if moduli[p] >= moduli[p - 1] * (1 - 1e-10):  # most likely a pair
        p += 1
    cut = (moduli[p - 1] + moduli[p]) / 2

    def leads(re: float | complex, im: float = 0.0) -> bool:  # scipy has given both parts, or one complex number
        return bool(abs(complex(re, im)) > cut)

    S, Q, p = scipy.linalg.schur(matrix, sort=leads)
    return Q[:, :p], S[:p, :p]


def orthogonalize(basis: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project each row of `w` off its basis, by classical Gram–Schmidt in two passes.

    Args:
        basis: Orthonormal rows `[B, k, n]`; rows of zeros do no harm.
        w: Vectors `[B, n]`.

    Returns:
        The rest `[B, n]`, its coefficients `[B, k]`, and its norm `[B]`.
    """
    h = torch.bmm(w[:, None], basis.mT)  # several times faster than basis @ w
    w = torch.baddbmm(w[:, None], h, basis, alpha=-1)
    again = torch.bmm(w, basis.mT)
    w = torch.baddbmm(w, again, basis, alpha=-1)[:, 0]
    return w, (h + again)[:, 0], torch.linalg.vector_norm(w, dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class LeadingSingularValue:
    """What `golub_kahan` found: of each row, the largest singular value.

    Attributes:
        sigma: `[B]`; never above the true one, but for rounding. NaN where a product was not finite.
        error: ‖Aᵀu − σv‖ and rounding `[B]`: a singular value lies within it of `sigma`.
        converged: Whether the error is at most `tol`·σ `[B]`.
        n_products: Products that the row took part in until it was done, those with A and with Aᵀ `[B]`.
    """

    sigma: Tensor
    error: Tensor
    converged: Tensor
    n_products: Tensor


def golub_kahan(
    operator: Operator,
    adjoint: Operator,
    start: Tensor,
    *,
    tol: float = 1e-3,
    max_products: int = 300,
    basis_size: int = 20,
    keep: int = 6,
    take: Callable[[Tensor], tuple[Operator, Operator]] | None = None,
) -> LeadingSingularValue:
    """The largest singular value of every row's operator, by Golub–Kahan bidiagonalisation with thick restarts.

    Args:
        operator: Maps `[B, n]` to `[B, m]`, each row by its own matrix A.
        adjoint: Maps `[B, m]` to `[B, n]` by Aᵀ.
        start: Start vectors `[B, n]`, with a part in every singular vector, as random ones have.
        tol: Relative error to reach.
        max_products: Products of a row at most, with A and with Aᵀ.
        basis_size: Steps after which the spaces are restarted.
        keep: Singular vectors that a restart keeps.
        take: Operator and adjoint of some of the rows, by their indices `[k]`; with it, rows that are done leave the
            batch.

    >>> A = torch.tensor([[[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    >>> found = golub_kahan(lambda v: v @ A[0].T, lambda w: w @ A[0], torch.ones(1, 2, dtype=torch.float64))
    >>> found.sigma
    tensor([5.], dtype=torch.float64)
    """
    if not 1 <= keep < basis_size:
        raise ValueError(f"keep={keep}: expected 1 ≤ keep < basis_size, with basis_size={basis_size}.")
    rows, n = start.shape
    sigma, error = start.new_full((rows,), torch.nan), start.new_full((rows,), torch.nan)
    converged = torch.zeros(rows, dtype=torch.bool, device=start.device)
    products = torch.zeros(rows, dtype=torch.int64, device=start.device)
    eps = torch.finfo(start.dtype).eps

    m = min(basis_size, n)
    keep = min(keep, max(m - 1, 1))
    right = start.new_zeros(rows, m + 1, n)
    right[:, 0] = start / torch.linalg.vector_norm(start, dim=1, keepdim=True)
    left: Tensor | None = None
    B = start.new_zeros(rows, m, m)
    members = torch.arange(rows, device=start.device)
    working = torch.ones(rows, dtype=torch.bool, device=start.device)
    j = used = 0
    while used + 2 <= max_products and bool(working.any()):
        u = operator(right[:, j])
        if left is None:
            left = u.new_zeros(rows, m, u.shape[1])
        size = torch.linalg.vector_norm(u, dim=1)
        coefficients, alpha = u.new_zeros(len(u), 0), size
        if j:
            u, coefficients, alpha = orthogonalize(left[:, :j], u)
        alpha = torch.where(alpha <= 10 * eps * torch.maximum(size, torch.linalg.matrix_norm(B)), 0.0, alpha)
        B[:, :j, j], B[:, j, j] = coefficients, alpha
        left[:, j] = torch.where((alpha == 0)[:, None], 0.0, u / alpha[:, None])
        v = adjoint(left[:, j])
        used += 2
        size = torch.linalg.vector_norm(v, dim=1)
        v, _, beta = orthogonalize(right[:, : j + 1], v)
        beta = torch.where(beta <= 10 * eps * torch.maximum(size, torch.linalg.matrix_norm(B)), 0.0, beta)
        right[:, j + 1] = torch.where((beta == 0)[:, None], 0.0, v / beta[:, None])
        j += 1
        # as in `arnoldi`, when a row is looked at must not depend on the others
        check = j == m or used + 2 > max_products or j in (4, 6, 8, 11, 14, 17)
        judged = working if check else working & ~(beta > 0)
        if bool(judged.any()):
            finite = torch.isfinite(B[:, :j, :j]).all(2).all(1) & torch.isfinite(beta)
            B[~finite], right[~finite], left[~finite] = 0.0, 0.0, 0.0
            judged = judged & finite
            P, values, Qh = torch.linalg.svd(B[:, :j, :j])
            top = values[:, 0]
            err = beta * P[:, j - 1, 0].abs() + 10 * eps * top
            at = members[judged]
            sigma[at], error[at], converged[at] = top[judged], err[judged], (err <= tol * top)[judged]
            products[members[working]] = used
            working = working & finite & ~converged[members] & (beta > 0)
            if j == m and bool(working.any()):
                right[:, :keep], right[:, keep] = torch.bmm(Qh[:, :keep], right[:, :m]), right[:, m].clone()
                left[:, :keep] = torch.bmm(P[:, :, :keep].mT, left)
                B.zero_()
                B[:, :keep, :keep] = torch.diag_embed(values[:, :keep])
                j = keep
            remaining = int(working.sum())
            if take is not None and 0 < remaining <= 0.75 * len(members):
                members, right, left, B = members[working], right[working], left[working], B[working]
                (operator, adjoint), working = take(members), working[working]
    return LeadingSingularValue(sigma, error, converged, products)
