"""A first-order method for problems beyond the interior-point method's reach.

    minimise over θ  λ_max(S(exp θ)),   S the Schur complement of M(0, T) on the inputs, with the sign that makes
                                        M(ρ, T) ⪰ 0 the same as ρ ≥ λ_max(S),

by L-BFGS on a smoothed λ_max, (1/κ)·log Σ exp(κ λ_i), for growing κ. S is small (the inputs only); what is large, the
neurons, is eliminated layer after layer. Every iterate has positive pivots and so is a bound for the certificate.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
from numpy.linalg import LinAlgError

from fpstab.lipschitz.blocks import Reduced
from fpstab.lipschitz.inequality import Inequality
from fpstab.rounding import Array

_SHARPNESS = (10.0, 100.0, 1000.0, 10000.0)
_MEMORY = 12


@dataclass(frozen=True, slots=True, eq=False)
class Descent:
    """What the first-order method found.

    Attributes:
        T: `[m]`.
        rho: λ_max(S(T)), not certified.
        Z: `[n, k]`; ZZᵀ is the dual matrix that goes with the smoothed λ_max, nearly feasible at the optimum.
        iterations: Gradients that were computed.
        stopped: `"converged"` (no more progress), `"time_limit"` or `"iterations"`.
    """

    T: Array
    rho: float
    Z: Array
    iterations: int
    stopped: Literal["converged", "time_limit", "iterations"]


def minimise(
    problem: Reduced,
    inequality: Inequality,
    start: Array,
    *,
    shares: Array | None = None,
    max_iterations: int = 600,
    deadline: float | None = None,
) -> Descent:
    """Descend from multipliers that are strictly feasible.

    Args:
        problem: The problem.
        inequality: Its inequality.
        start: `[m]` (or `[k]` with shares).
        shares: P, `[m, k]`: T = P t.
        max_iterations: In total.
        deadline: A `time.monotonic()` at which to stop.
    """
    theta = np.log(np.maximum(start, 1e-300))
    expand: Callable[[Array], Array] = (lambda t: t) if shares is None else (lambda t: shares @ t)
    collect: Callable[[Array], Array] = (lambda a: a) if shares is None else (lambda a: shares.T @ a)
    best_rho, best_theta = math.inf, theta
    used = 0
    stopped: Literal["converged", "time_limit", "iterations"] = "converged"

    def value(theta: Array, kappa: float) -> tuple[float, float, Array] | None:
        t = np.exp(theta)
        found = _smoothed(problem, inequality, expand(t), kappa)
        return None if found is None else (found[0], found[1], collect(found[2]) * t)

    for sharpness in _SHARPNESS:
        first = value(theta, 1.0)
        if first is None:
            break
        kappa = sharpness / first[1]
        now = value(theta, kappa)
        if now is None:
            break
        pairs: list[tuple[Array, Array]] = []
        slow = 0
        while True:
            if now[1] < best_rho:
                best_rho, best_theta = now[1], theta
            if used >= max_iterations * (1 + _SHARPNESS.index(sharpness)) / len(_SHARPNESS):
                stopped = "iterations"
                break
            if deadline is not None and time.monotonic() > deadline:
                stopped = "time_limit"
                break
            direction = -_two_loop(now[2], pairs)
            slope = float(direction @ now[2])
            if slope >= 0.0:
                direction, slope, pairs = -now[2], -float(now[2] @ now[2]), []
            if slope > -1e-12 * abs(now[0]):
                stopped = "converged"
                break
            length = min(1.0, 2.0 / max(float(np.abs(direction).max()), 1e-300))
            after = None
            for _ in range(20):
                after = value(theta + length * direction, kappa)
                used += 1
                if after is not None and after[0] <= now[0] + 1e-4 * length * slope:
                    break
                after = None
                length *= 0.4
            if after is None:
                stopped = "converged"
                break
            s, y = length * direction, after[2] - now[2]
            if float(s @ y) > 1e-10 * float(np.linalg.norm(s) * np.linalg.norm(y)):
                pairs = [*pairs[-_MEMORY + 1 :], (s, y)]
            slow = slow + 1 if now[0] - after[0] < 1e-6 * abs(now[0]) else 0
            theta, now = theta + s, after
            if slow >= 5:
                stopped = "converged"
                break
        if stopped == "time_limit":
            break
        theta = best_theta
    T = expand(np.exp(best_theta))
    last = _smoothed(problem, inequality, T, _SHARPNESS[-1] / best_rho)
    return Descent(T, best_rho, np.zeros((problem.n, 0)) if last is None else last[3], used, stopped)


def _two_loop(gradient: Array, pairs: list[tuple[Array, Array]]) -> Array:
    """The L-BFGS direction (up to its sign)."""
    q = gradient.copy()
    weights = []
    for s, y in reversed(pairs):
        a = float(s @ q) / float(s @ y)
        q -= a * y
        weights.append(a)
    if pairs:
        s, y = pairs[-1]
        q *= float(s @ y) / float(y @ y)
    else:
        q /= max(float(np.abs(q).max()), 1e-300) * 4.0
    for (s, y), a in zip(pairs, reversed(weights), strict=True):
        q += (a - float(y @ q) / float(s @ y)) * s
    return q


def _smoothed(
    problem: Reduced, inequality: Inequality, T: Array, kappa: float
) -> tuple[float, float, Array, Array] | None:
    """Smoothed λ_max, λ_max, the gradient of the former in T, and its dual factor; None outside the domain."""
    eliminated = _eliminate_chain(problem, inequality, T) if problem.chain else _eliminate_dense(inequality, T)
    if eliminated is None:
        return None
    S, respond = eliminated
    try:
        values, vectors = scipy.linalg.eigh(S)
    except (LinAlgError, ValueError):
        return None
    top = float(values[-1])
    if not (math.isfinite(top) and top > 0.0):
        return None
    weights = np.exp(kappa * (values - top))
    smoothed = top + math.log(float(weights.sum())) / kappa
    weights = weights / weights.sum()
    kept = weights > 1e-9
    z = respond(vectors[:, kept] * np.sqrt(weights[kept]))
    y = z[problem.n_in :]
    w = np.empty_like(y)
    for block in problem.blocks:
        w[block.rows] = block.weight.mid @ z[block.columns]
    gradient = -2.0 * ((y - problem.alpha[:, None] * w) * (y - problem.beta[:, None] * w)).sum(1)
    return smoothed, top, gradient, z


_Eliminated = tuple[Array, Callable[[Array], Array]]


def _eliminate_dense(inequality: Inequality, T: Array) -> _Eliminated | None:
    n = inequality.n_in
    M = inequality.matrix(0.0, T)
    try:
        factor = scipy.linalg.cholesky(M[n:, n:], lower=True, check_finite=False)
    except LinAlgError:
        return None
    half = scipy.linalg.solve_triangular(factor, M[n:, :n], lower=True, check_finite=False)

    def respond(x: Array) -> Array:
        return np.vstack([x, -scipy.linalg.solve_triangular(factor, half @ x, lower=True, trans=1)])

    return half.T @ half - M[:n, :n], respond


def _eliminate_chain(problem: Reduced, inequality: Inequality, T: Array) -> _Eliminated | None:
    """The last layer first; each pivot is as large as a layer."""
    last = problem.out.columns
    Q = -inequality.K[last, last]
    factors, halves = [], []
    for block in reversed(problem.blocks):
        W, rows = block.weight.mid, block.rows
        t = T[rows]
        a, b = problem.alpha[rows], problem.beta[rows]
        try:
            factor = scipy.linalg.cholesky(Q + np.diag(2.0 * t), lower=True, check_finite=False)
        except LinAlgError:
            return None
        if not np.isfinite(factor.diagonal()).all():
            return None
        half = scipy.linalg.solve_triangular(factor, (-t * (a + b))[:, None] * W, lower=True, check_finite=False)
        Q = -(half.T @ half)
        if (a * b).any():
            Q += W.T @ ((2.0 * t * a * b)[:, None] * W)
        factors.append(factor)
        halves.append(half)

    def respond(x: Array) -> Array:
        parts = [x]
        for factor, half in zip(reversed(factors), reversed(halves), strict=True):
            parts.append(-scipy.linalg.solve_triangular(factor, half @ parts[-1], lower=True, trans=1))
        return np.vstack(parts)

    return -Q, respond
