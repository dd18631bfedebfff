"""Multipliers without a solver: ECLipsE-Fast for chains, elimination for residual networks, a search for implicit ones.

They start the solvers, repair multipliers that are not quite feasible, and each of them is a bound of its own.
"""

import numpy as np
import scipy.linalg
from numpy.linalg import LinAlgError

from fpstab.lipschitz import interior_point
from fpstab.lipschitz.blocks import Integers, Reduced
from fpstab.lipschitz.inequality import Inequality, least_rho
from fpstab.rounding import Array


def strict_point(
    problem: Reduced, inequality: Inequality, deadline: float | None = None, per_layer: bool = False
) -> tuple[float, Array] | None:
    """(ρ, T) well inside the inequality, or None if none was found (only an implicit layer may have none).

    Args:
        problem: The problem.
        inequality: Its inequality.
        deadline: A `time.monotonic()` at which to stop looking.
        per_layer: T must be `share` times one number a layer.
    """
    if problem.implicit:
        candidates = [_implicit_point(problem, inequality, deadline, per_layer)]
    elif problem.chain and not per_layer:
        # in the units of the network, where it is the published bound, and in the balanced ones
        candidates = [eclipse_fast(problem, problem.magnification), eclipse_fast(problem, np.ones(problem.n_neurons))]
    else:
        candidates = [_elimination_point(problem, per_layer)]
        if per_layer and candidates[0] is None:  # neurons of a layer that depend on each other
            candidates = [_implicit_point(problem, inequality, deadline, per_layer)]
    best: tuple[float, Array] | None = None
    for T in candidates:
        if T is None or not np.isfinite(T).all():
            continue
        for factor in (1.0, 1.02, 2.0, 8.0, 64.0):
            rho = least_rho(inequality, factor * T)
            if rho is not None and np.isfinite(rho):
                rho = max(1.5 * rho, 1e-3 * float(inequality.K.diagonal().max()), 1e-30)
                if (best is None or rho < best[0]) and _inside(inequality, rho, factor * T):
                    best = (rho, factor * T)
    return best


def _inside(inequality: Inequality, rho: float, T: Array) -> bool:
    try:
        scipy.linalg.cholesky(inequality.matrix(rho, T), lower=True)
    except (LinAlgError, ValueError):
        return False
    return True


def eclipse_fast(problem: Reduced, magnification: Array) -> Array | None:
    """The closed-form multipliers of ECLipsE-Fast (Xu, Sivaranjani 2024), with general slopes, `[m]`.

    Forward through the layers with P, the Schur complement on the layer before (P = I for the inputs, where ρ = 1):
    for k = λ_max(W P⁻¹ Wᵀ), slopes in [a, b] and multipliers λ on the whole layer, the eigenvalues of the next
    complement are at least (2s − (a+b)²s²/(1+2ab·s))/k, s = λk, which is largest at s = 1/((b−a)·max(|a|, |b|)).
    A neuron with slopes inside [a, b] takes λ times the factor that the S-lemma gives.

    Args:
        problem: A chain.
        magnification: `[m]` by what the neurons are divided first: the bound depends on their units.
    """
    T = np.zeros(problem.n_neurons)
    P, before = np.eye(problem.n_in), np.ones(problem.n_in)
    try:
        for block in problem.blocks:
            rows = block.rows
            unit = magnification[rows]
            W = block.weight.mid * before / unit[:, None]
            alpha, beta = problem.alpha[rows], problem.beta[rows]
            a, b = float(alpha.min()), float(beta.max())
            V = scipy.linalg.solve_triangular(scipy.linalg.cholesky(P, lower=True), W.T, lower=True)
            k = float(np.linalg.norm(V, 2)) ** 2
            s = (1.0 - 1e-6) / ((b - a) * max(abs(a), abs(b)))
            lam = s / k
            inside = ((alpha + beta) * (a + b) - 2.0 * a * b - 2.0 * alpha * beta) / (beta - alpha) ** 2
            T[rows] = lam * np.maximum(inside, 1.0) / unit**2
            # the complement with slopes [a, b]: 2λ − (a+b)²λ² W (P + 2abλ WᵀW)⁻¹ Wᵀ
            Q = P + 2.0 * a * b * lam * (W.T @ W) if a * b != 0.0 else P
            half = scipy.linalg.solve_triangular(scipy.linalg.cholesky(Q, lower=True), W.T, lower=True)
            P = 2.0 * lam * np.eye(len(W)) - (a + b) ** 2 * lam**2 * (half.T @ half)
            before = unit
        V = scipy.linalg.solve_triangular(
            scipy.linalg.cholesky(P, lower=True), (problem.out.weight.mid * before).T, lower=True
        )
        # so far ρ = 1; all is homogeneous
        return T * float(np.linalg.norm(V, 2)) ** 2 * (1.0 + 1e-6)
    except (LinAlgError, ValueError, ArithmeticError):
        return None


def _elimination_point(problem: Reduced, per_layer: bool) -> Array | None:
    """Backward, the last neurons first: enough multiplier to dominate what the later ones left on them.

    Neurons that depend on each other are in different levels; a level is eliminated at once.
    """
    n_in, m = problem.n_in, problem.n_neurons
    G = np.zeros((m, problem.n))
    for block in problem.blocks:
        G[block.rows, block.columns] = block.weight.mid
    C = np.zeros((problem.out.rows.stop, problem.n))
    C[:, problem.out.columns] = problem.out.weight.mid
    Q = -(C.T @ C)
    T = np.zeros(m)
    levels = depths(G[:, n_in:])
    if per_layer:
        levels = _merge(levels, problem.layer)
    p, s = problem.alpha * problem.beta, problem.alpha + problem.beta
    floor = 1e-9 * max(float(np.abs(Q).max()), 1e-300)
    for level in range(int(levels.max()), -1, -1):
        here = np.flatnonzero(levels == level)
        own = n_in + here
        share = problem.share[here] if per_layer else np.ones(len(here))
        root = 1.0 / np.sqrt(share)
        top = float(scipy.linalg.eigvalsh(-Q[np.ix_(own, own)] * root * root[:, None])[-1])
        tau = max(1.05 * top, floor)
        T[here] = tau * share
        g = G[here]
        Q += 2.0 * (g.T @ ((T[here] * p[here])[:, None] * g))
        cross = Q[own] - (T[here] * s[here])[:, None] * g
        pivot = Q[np.ix_(own, own)] + np.diag(2.0 * T[here])
        try:
            factor = scipy.linalg.cholesky(pivot, lower=True)
        except (LinAlgError, ValueError):
            return None
        half = scipy.linalg.solve_triangular(factor, cross, lower=True)
        Q -= half.T @ half
        Q[own], Q[:, own] = 0.0, 0.0
    return T


def depths(A: Array) -> Integers:
    """The depth of each neuron in the graph of A (acyclic), `[m]`."""
    m = len(A)
    depends = A != 0.0
    levels = np.zeros(m, dtype=np.int64)
    for _ in range(m):
        deeper: Integers = np.where(depends, levels + 1, 0).max(1)
        if (deeper == levels).all():
            return levels
        levels = deeper
    return levels


def _merge(levels: Integers, layer: Integers) -> Integers:
    """One level a layer (they depend on each other in one direction only), in the order of the levels."""
    first = {int(index): float(levels[layer == index].mean()) for index in np.unique(layer)}
    order = {index: place for place, index in enumerate(sorted(first, key=lambda index: first[index]))}
    return np.array([order[int(index)] for index in layer], dtype=np.int64)


def _implicit_point(problem: Reduced, inequality: Inequality, deadline: float | None, per_layer: bool) -> Array | None:
    """T with Σ T_i (u_i v_iᵀ + v_i u_iᵀ) ≻ K on the neurons, by minimising s in s·I + Σ … ⪰ I until s < 0."""
    n_in, m = problem.n_in, problem.n_neurons
    (block,) = problem.blocks
    A = block.weight.mid[:, block.columns][:, n_in:] if block.columns.start == 0 else block.weight.mid
    own = type(block)(slice(0, m), slice(0, m), type(block.weight)(A))
    hidden = Inequality(np.ones(m), np.eye(m), 0, (own,), problem.alpha, problem.beta)
    shares = layer_shares(problem) if per_layer else None
    t = np.ones(m if shares is None else shares.shape[1])
    T = t if shares is None else shares @ t
    least = float(scipy.linalg.eigvalsh(hidden.linear(0.0, T))[0])
    if least <= 1e-6:
        found = interior_point.solve(
            hidden, (2.0 + 2.0 * abs(least), t), shares=shares, tolerance=1e-6, deadline=deadline, below=-1.0
        )
        rho, T = found.points[-1]
        if rho >= 0.9:
            return None
    H = hidden.linear(0.0, T)
    K = inequality.K[n_in:, n_in:]
    try:
        top = float(scipy.linalg.eigh(K, H, eigvals_only=True)[-1])
    except LinAlgError:
        return None
    result: Array = T * max(2.0 * top, 1e-9)
    return result


def layer_shares(problem: Reduced) -> Array:
    """P, `[m, k]`: T = P t for one multiplier a layer."""
    P = np.zeros((problem.n_neurons, int(problem.layer.max()) + 1))
    P[np.arange(problem.n_neurons), problem.layer] = problem.share
    return P
