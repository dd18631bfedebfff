"""A primal–dual interior-point method for the matrix inequality of LipSDP.

    minimise ρ  subject to  M(ρ, T) ⪰ 0,  T = P t,  t ≥ 0,

with its dual: maximise <K, X> subject to X ⪰ 0, <E₀, X> = 1, Σ_i P_ik <A_i, X> + x_k = 0, x ≥ 0. The HKM direction
(Helmberg et al. 1996; Kojima et al. 1997; Monteiro 1997) with Mehrotra's predictor and corrector. Three things make it
quick and accurate here. Every A_i = u_i v_iᵀ + v_i u_iᵀ has rank two, so the normal equations

    H_ij = <A_i, X A_j S⁻¹>

are entrywise products of a few dense matrices. M is evaluated at (ρ, t), never updated, and the start is strictly
feasible: S = M(ρ, T) has no residual to lose. And X starts at a multiple of S⁻¹, on the central path.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.linalg import LinAlgError

from fpstab.lipschitz.inequality import Inequality
from fpstab.rounding import Array

_SMALL = 96  # size up to which step lengths come from all eigenvalues
_MAX_ITERATIONS = 80
_START = 2.0  # by how much the start is moved away from the boundary: saves a third of the iterations


@dataclass(frozen=True, slots=True, eq=False)
class Iterates:
    """What the interior-point method found.

    Attributes:
        points: The last iterates (ρ, T), the best one last; all strictly feasible up to rounding.
        X: `[n, n]` the dual matrix.
        gap: (ρ − <K, X>)/ρ at the end.
        residual: The largest violation of the dual's equations, relative.
        iterations: How many were made.
        stopped: Why it ended: `"converged"`, `"stalled"` (rounding), `"time_limit"`, `"below"` or `"iterations"`.
    """

    points: list[tuple[float, Array]]
    X: Array
    gap: float
    residual: float
    iterations: int
    stopped: Literal["converged", "stalled", "time_limit", "below", "iterations"]


def solve(
    inequality: Inequality,
    start: tuple[float, Array],
    *,
    shares: Array | None = None,
    tolerance: float = 1e-8,
    deadline: float | None = None,
    below: float | None = None,
) -> Iterates:
    """Minimise ρ from a strictly feasible point.

    Args:
        inequality: M.
        start: (ρ, t) with M(ρ, P t) ≻ 0 and t > 0.
        shares: P, `[m, k]` entries ≥ 0; the identity if None.
        tolerance: Relative gap in ρ to stop at.
        deadline: A `time.monotonic()` at which to stop.
        below: Stop as soon as ρ is below.

    Raises:
        LinAlgError: If the start is not strictly feasible.
    """
    expand: Callable[[Array], Array] = (lambda t: t) if shares is None else (lambda t: shares @ t)
    collect: Callable[[Array], Array] = (lambda a: a) if shares is None else (lambda a: shares.T @ a)
    rho, t = _START * float(start[0]), _START * np.array(start[1], dtype=float)
    S = inequality.matrix(rho, expand(t))
    L = scipy.linalg.cholesky(S, lower=True, check_finite=False)
    Sinv = _inverse(L)
    mu = 1.0 / float(inequality.e0 @ Sinv.diagonal())
    X, x = mu * Sinv, mu / t
    LX = scipy.linalg.cholesky(X, lower=True, check_finite=False)
    n, k = len(S), len(t)
    points = [(rho, expand(t))]
    gap, residual = np.inf, np.inf
    best = (np.inf, X, np.inf, np.inf)
    stopped: Literal["converged", "stalled", "time_limit", "below", "iterations"] = "iterations"
    iterations = 0
    stalls = 0
    for iterations in range(1, _MAX_ITERATIONS + 1):  # noqa: B007
        if deadline is not None and time.monotonic() > deadline:
            stopped = "time_limit"
            break
        XG, SG = inequality.times_weights(X), inequality.times_weights(Sinv)
        trace_x = float(inequality.e0 @ X.diagonal())
        forms_x = collect(inequality.diagonal_forms(X, XG))
        forms_s = collect(inequality.diagonal_forms(Sinv, SG))
        trace_s = float(inequality.e0 @ Sinv.diagonal())
        residual = max(abs(trace_x - 1.0), float(np.max(np.abs(forms_x + x) * t)) / max(rho, 1e-300))
        gap = (rho - float(np.vdot(inequality.K, X))) / rho if rho > 0 else np.inf
        score = max(abs(gap), residual)
        if score < best[0]:
            best = (score, X, gap, residual)
        if score <= tolerance:
            stopped = "converged"
            break
        mu = (float(np.vdot(X, S)) + float(x @ t)) / (n + k)

        # the normal equations in (ρ, t)
        H = _normal_matrix(inequality, X, Sinv, XG, SG, shares)
        H[np.arange(1, k + 1), np.arange(1, k + 1)] += x / t
        scale = 1.0 / np.sqrt(H.diagonal())
        try:
            solve_normal = _factored(H, scale)
        except LinAlgError:
            stopped = "stalled"
            break

        right = np.concatenate([[-1.0], np.zeros(k)])
        center = np.concatenate([[trace_s], forms_s + 1.0 / t])
        # predictor
        step = solve_normal(right)
        dX, dx = _dual_step(inequality, X, x, t, XG, Sinv, expand, step, 0.0, None, None)
        dS = inequality.linear(step[0], expand(step[1:]))
        a_dual = min(1.0, 0.98 * _step_length(LX, dX), 0.98 * _ratio(x, dx))
        a_primal = min(1.0, 0.98 * _step_length(L, dS), 0.98 * _ratio(t, step[1:]))
        after = float(np.vdot(X + a_dual * dX, S + a_primal * dS)) + float(
            (x + a_dual * dx) @ (t + a_primal * step[1:])
        )
        ratio = max(after, 0.0) / (n + k) / mu
        sigma = min(1.0, max(ratio ** (1.0 if min(a_dual, a_primal) < 0.1 else 3.0 * min(a_dual, a_primal) ** 2), 1e-6))
        # corrector: the second-order term sym(dX dS S⁻¹)
        dXG = inequality.times_weights(dX)
        second = inequality.times_linear(dX, dXG, step[0], expand(step[1:])) @ Sinv
        second = 0.5 * (second + second.T)
        second_x = dx * step[1:] / t
        second_forms = np.concatenate(
            [
                [float(inequality.e0 @ second.diagonal())],
                collect(inequality.diagonal_forms(second, inequality.times_weights(second))) + second_x,
            ]
        )
        step = solve_normal(right + sigma * mu * center - second_forms)
        dX, dx = _dual_step(inequality, X, x, t, XG, Sinv, expand, step, sigma * mu, second, second_x)
        dS = inequality.linear(step[0], expand(step[1:]))
        fraction = 0.9 + 0.09 * min(a_dual, a_primal)
        a_dual = min(1.0, fraction * _step_length(LX, dX), fraction * _ratio(x, dx))
        a_primal = min(1.0, fraction * _step_length(L, dS), fraction * _ratio(t, step[1:]))
        moved = _move(inequality, rho, t, step, a_primal, expand)
        if moved is None or not np.isfinite(dX).all():
            stopped = "stalled"
            break
        rho, t, S, L = moved
        Sinv = _inverse(L)
        a_dual, X, LX = _move_dual(X, dX, a_dual, LX)
        x = x + a_dual * dx
        points = [*points[-2:], (rho, expand(t))]
        if below is not None and rho < below:
            stopped = "below"
            break
        stalls = stalls + 1 if max(a_dual, a_primal) < 1e-2 else 0
        if stalls >= 3 or (x <= 0.0).any():
            stopped = "stalled"
            break
    _, X, gap, residual = best if best[0] < np.inf else (0.0, X, gap, residual)
    return Iterates(points, X, gap, residual, iterations, stopped)


def _normal_matrix(inequality: Inequality, X: Array, Sinv: Array, XG: Array, SG: Array, shares: Array | None) -> Array:
    """H over (ρ, t), `[1 + k, 1 + k]`."""
    n_in = inequality.n_in
    alpha, beta = inequality.alpha, inequality.beta
    own = slice(n_in, None)

    def forms(Y: Array, YG: Array) -> tuple[Array, Array, Array]:
        """UᵀYU, UᵀYV, VᵀYV for U = E − Gα, V = E − Gβ."""
        ee, eg, gg = Y[own, own], YG[own], inequality.from_weights(YG)
        uu = ee - eg * alpha - (eg * alpha).T + gg * np.outer(alpha, alpha)
        uv = ee - eg * beta - (eg * alpha).T + gg * np.outer(alpha, beta)
        vv = ee - eg * beta - (eg * beta).T + gg * np.outer(beta, beta)
        return uu, uv, vv

    xuu, xuv, xvv = forms(X, XG)
    suu, suv, svv = forms(Sinv, SG)
    # <A_i, X A_j S⁻¹>, A = u vᵀ + v uᵀ; symmetric in exact arithmetic only after both orders are averaged
    H_tt = xuu * svv + xvv * suu + xuv * suv.T + xuv.T * suv
    H_tt = 0.5 * (H_tt + H_tt.T)
    # <E₀, X A_j S⁻¹> = 2 Σ over the inputs of sym (X u_j)(S⁻¹ v_j)
    e0 = inequality.e0
    xu, xv = X[:, own] - XG * alpha, X[:, own] - XG * beta
    su, sv = Sinv[:, own] - SG * alpha, Sinv[:, own] - SG * beta
    H_rt = np.einsum("i,ij,ij->j", e0, xu, sv) + np.einsum("i,ij,ij->j", e0, xv, su)
    H_rr = float(np.einsum("i,ij,ij,j->", e0, X, Sinv, e0))
    if shares is not None:
        H_tt, H_rt = shares.T @ H_tt @ shares, shares.T @ H_rt
    H = np.empty((1 + len(H_rt),) * 2)
    H[0, 0], H[0, 1:], H[1:, 0], H[1:, 1:] = H_rr, H_rt, H_rt, H_tt
    return H


def _factored(H: Array, scale: Array) -> Callable[[Array], Array]:
    """Solve H y = r by a scaled Cholesky factorisation and one step of refinement."""
    scaled = H * scale * scale[:, None]
    shift = 0.0
    for _ in range(6):
        try:
            factor = scipy.linalg.cho_factor(scaled + shift * np.eye(len(H)), lower=True, check_finite=False)
            break
        except LinAlgError:
            shift = max(shift * 100.0, 1e-15)
    else:
        raise LinAlgError("The normal equations are singular.")
    if not np.isfinite(factor[0]).all():
        raise LinAlgError("The normal equations are not finite.")

    def apply(right: Array) -> Array:
        r = right * scale
        y: Array = scipy.linalg.cho_solve(factor, r, check_finite=False)
        for _ in range(2):
            y = y + scipy.linalg.cho_solve(factor, r - scaled @ y, check_finite=False)
        return y * scale

    return apply


def _dual_step(
    inequality: Inequality,
    X: Array,
    x: Array,
    t: Array,
    XG: Array,
    Sinv: Array,
    expand: Callable[[Array], Array],
    step: Array,
    mu: float,
    second: Array | None,
    second_x: Array | None,
) -> tuple[Array, Array]:
    """The HKM step: dX = μ S⁻¹ − X − sym(X dS S⁻¹) − second order, and the same for x."""
    product = inequality.times_linear(X, XG, step[0], expand(step[1:])) @ Sinv
    dX = mu * Sinv - X - 0.5 * (product + product.T)
    dx = mu / t - x - x * step[1:] / t
    if second is not None and second_x is not None:
        dX, dx = dX - second, dx - second_x
    return dX, dx


def _move(
    inequality: Inequality, rho: float, t: Array, step: Array, length: float, expand: Callable[[Array], Array]
) -> tuple[float, Array, Array, Array] | None:
    """The longest step up to `length` that stays inside the cone; None if there is none."""
    for _ in range(12):
        new_rho, new_t = rho + length * float(step[0]), t + length * step[1:]
        if (new_t > 0.0).all():
            S = inequality.matrix(new_rho, expand(new_t))
            try:
                L = scipy.linalg.cholesky(S, lower=True, check_finite=False)
            except (LinAlgError, ValueError):
                L = None
            if L is not None and np.isfinite(L.diagonal()).all():
                return new_rho, new_t, S, L
        length *= 0.7
    return None


def _move_dual(X: Array, dX: Array, length: float, LX: Array) -> tuple[float, Array, Array]:
    """The longest step up to `length` that a Cholesky factorisation says is inside: Lanczos may miss an eigenvalue."""
    for _ in range(12):
        new = X + length * dX
        new = 0.5 * (new + new.T)
        try:
            factor = scipy.linalg.cholesky(new, lower=True, check_finite=False)
        except LinAlgError:
            length *= 0.8
            continue
        if np.isfinite(factor.diagonal()).all():
            return length, new, factor
        length *= 0.8
    return 0.0, X, LX


def _inverse(L: Array) -> Array:
    inverse, info = scipy.linalg.lapack.dpotri(L, lower=1)
    if info != 0:
        raise LinAlgError("A matrix is singular.")
    lower = np.tril(inverse)
    full: Array = lower + np.tril(inverse, -1).T
    return full


def _ratio(x: Array, dx: Array) -> float:
    negative = dx < 0.0
    return float(np.min(-x[negative] / dx[negative])) if negative.any() else np.inf


def _step_length(L: Array, dY: Array) -> float:
    """About the largest a with LLᵀ + a dY ⪰ 0."""
    if len(L) <= _SMALL:
        half = scipy.linalg.solve_triangular(L, dY, lower=True, check_finite=False)
        full = scipy.linalg.solve_triangular(L, half.T, lower=True, check_finite=False)
        least = float(scipy.linalg.eigvalsh(0.5 * (full + full.T), check_finite=False)[0])
    else:
        least = _least_eigenvalue(L, dY)
    return -1.0 / least if least < 0.0 else np.inf


def _least_eigenvalue(L: Array, dY: Array, steps: int = 40) -> float:
    """A lower estimate of the least eigenvalue of L⁻¹ dY L⁻ᵀ by Lanczos: the Ritz value minus its residual."""
    n = len(L)
    q = np.cos(1.7 * np.arange(n) ** 2 + 0.3)  # any vector with all components
    q /= np.linalg.norm(q)
    basis = [q]
    alphas: list[float] = []
    betas: list[float] = []
    estimate = 0.0
    for k in range(min(steps, n)):
        half = scipy.linalg.blas.dtrsv(L, basis[-1], lower=1, trans=1)
        w = scipy.linalg.blas.dtrsv(L, dY @ half, lower=1)
        a = float(w @ basis[-1])
        Q = np.array(basis)
        for _ in range(2):
            w = w - Q.T @ (Q @ w)
        b = float(np.linalg.norm(w))
        alphas.append(a)
        if k % 5 == 4 or k == min(steps, n) - 1 or b < 1e-12:
            values, vectors = scipy.linalg.eigh_tridiagonal(np.array(alphas), np.array(betas))
            error = b * abs(float(vectors[-1, 0]))
            estimate = float(values[0]) - error
            if b < 1e-12 or error < 0.02 * abs(float(values[0])) or (values[0] > 0 and error < 0.1):
                return estimate
        basis.append(w / b)
        betas.append(b)
    return estimate
