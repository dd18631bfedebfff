"""From below: the optimum of the semidefinite program, and the norms of Jacobians that the slopes allow."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from fpstab.lipschitz import closed_forms
from fpstab.lipschitz.blocks import Integers, Reduced
from fpstab.lipschitz.inequality import Inequality
from fpstab.rounding import Array


def dual_bound(problem: Reduced, inequality: Inequality, Z: Array, per_layer: bool = False) -> float:
    """A lower bound of the optimal ρ from an approximate dual matrix X = ZZᵀ, corrected by its residual.

    <K, X> bounds the optimum from below only if <E₀, X> = 1 and <A_i, X> ≤ 0 hold. A solver's X violates them a
    little, and its raw value can be wrong by a percent. Where y is explicit the rows of Z are put right one level
    after the other, each neuron's part outside its sector shrunk until <A_i, X> ≤ 0; where it is implicit X is mixed
    with a point that satisfies all of them strictly.

    Args:
        problem: The problem.
        inequality: Its inequality.
        Z: `[n, k]`.
        per_layer: For the form "layer": the constraints are summed over each layer, by shares.
    """
    if not Z.size or not np.isfinite(Z).all():
        return 0.0
    mixed = 0.0
    if problem.implicit or (per_layer and not problem.chain):
        mixed = _mixed(problem, inequality, Z @ Z.T, per_layer)
        if problem.implicit:
            return mixed
    Z = _feasible(problem, Z, per_layer)
    inputs = float((Z[: problem.n_in] ** 2).sum())
    outputs = float(((problem.out.weight.mid @ Z[problem.out.columns]) ** 2).sum())
    return max(mixed, outputs / inputs * (1.0 - 1e-12)) if inputs > 0.0 else mixed


def factor(X: Array) -> Array:
    """Z with ZZᵀ = X, or its nearest positive semidefinite matrix."""
    X = 0.5 * (X + X.T)
    if not np.isfinite(X).all():
        return np.zeros((len(X), 0))
    try:
        return scipy.linalg.cholesky(X, lower=True)
    except np.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(X)
        Z: Array = vectors * np.sqrt(np.maximum(values, 0.0))
        return Z


def _feasible(problem: Reduced, Z: Array, per_layer: bool) -> Array:
    Z = Z.copy()
    n_in = problem.n_in
    middle, half = 0.5 * (problem.alpha + problem.beta), 0.5 * (problem.beta - problem.alpha)
    for here, W, columns in levels(problem):
        own = n_in + here
        w = W @ Z[columns]
        off = Z[own] - middle[here, None] * w
        inside, outside = half[here] ** 2 * (w * w).sum(1), (off * off).sum(1)
        if per_layer:
            # one sum for all that stands here: less than what a layer's single constraint allows, if it has levels
            share = problem.share[here]
            inside, outside = np.full_like(inside, share @ inside), np.full_like(outside, share @ outside)
        with np.errstate(divide="ignore", invalid="ignore"):
            shrink = np.where(outside > inside, np.sqrt(inside / outside), 1.0)
        Z[own] = middle[here, None] * w + shrink[:, None] * off
    return Z


def levels(problem: Reduced) -> Iterator[tuple[Integers, Array, slice]]:
    """Explicit neurons in an order of dependence: (which, their weights, the columns that these act on)."""
    if problem.chain:
        for block in problem.blocks:
            yield np.arange(block.rows.start, block.rows.stop), block.weight.mid, block.columns
        return
    (block,) = problem.blocks
    depth = closed_forms.depths(block.weight.mid[:, problem.n_in :])
    for level in range(int(depth.max()) + 1):
        here = np.flatnonzero(depth == level)
        yield here, block.weight.mid[here], block.columns


def _mixed(problem: Reduced, inequality: Inequality, X: Array, per_layer: bool) -> float:
    strict = _strict_dual(problem)
    trace = float(inequality.e0 @ X.diagonal())
    if strict is None or not trace > 0.0:
        return 0.0
    X = X / trace
    shares = closed_forms.layer_shares(problem) if per_layer else None

    def forms(Y: Array) -> Array:
        values = inequality.diagonal_forms(Y, inequality.times_weights(Y))
        return values if shares is None else shares.T @ values

    wrong, right = forms(X), forms(strict)
    # what rounding may hide
    wrong = wrong + 4.0 * len(X) * 2.0**-53 * _forms_size(inequality, X, shares)
    bad = wrong > 0.0
    if (right[bad] >= 0.0).any():
        return 0.0
    mix = float(np.max(wrong[bad] / (wrong[bad] - right[bad]), initial=0.0))
    value = (1.0 - mix) * float(np.vdot(inequality.K, X)) + mix * float(np.vdot(inequality.K, strict))
    return max(value, 0.0)


def _forms_size(inequality: Inequality, X: Array, shares: Array | None) -> Array:
    """The magnitudes that cancel in <A_i, X>, `[m]` (or `[k]`)."""
    n_in = inequality.n_in
    root = np.sqrt(np.maximum(X.diagonal(), 0.0))
    seen = np.zeros(len(inequality.alpha))
    for block in inequality.blocks:
        seen[block.rows] = np.abs(block.weight.mid) @ root[block.columns]
    own = root[n_in:]
    size: Array = 2.0 * (own + np.abs(inequality.alpha) * seen) * (own + np.abs(inequality.beta) * seen)
    return size if shares is None else shares.T @ size


def _strict_dual(problem: Reduced) -> Array | None:
    """Σ z zᵀ over inputs pushed through random slopes inside (α, β): <A_i, ·> < 0 wherever a neuron sees anything."""
    rng = np.random.default_rng(0)
    m, n_in = problem.n_neurons, problem.n_in
    total = np.zeros((problem.n, problem.n))
    for _ in range(4):
        where = rng.uniform(0.15, 0.85, size=m)
        slopes = problem.alpha + where * (problem.beta - problem.alpha)
        Y = responses(problem, slopes)
        if Y is None:
            return None
        Z = np.vstack([np.eye(n_in), Y])
        total += Z @ Z.T
    return total / (4 * n_in) if np.isfinite(total).all() else None


def responses(problem: Reduced, slopes: Array) -> Array | None:
    """dy/dx `[m, n_in]` for given slopes of all neurons; None if an implicit layer has none."""
    n_in, m = problem.n_in, problem.n_neurons
    if problem.chain:
        Y = np.zeros((m, n_in))
        seen: Array | None = None
        for block in problem.blocks:
            W = block.weight.mid
            seen = slopes[block.rows, None] * (W if seen is None else W @ seen)
            Y[block.rows] = seen
        return Y
    (block,) = problem.blocks
    G = slopes[:, None] * block.weight.mid
    try:
        with np.errstate(all="ignore"):
            solved = np.asarray(np.linalg.solve(np.eye(m) - G[:, n_in:], G[:, :n_in]), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return solved if np.isfinite(solved).all() else None


def attained(problem: Reduced, starts: int = 4, sweeps: int = 12, seed: int = 0) -> float:
    """The largest norm of a Jacobian over slopes in {α, β} that a local search finds; a lower bound of any bound.

    For singular vectors u, v of the Jacobian, uᵀJv is linear in the slopes of one layer, so that choosing the best
    of them never decreases the norm. An implicit layer changes all at once, and only keeps what is better.

    Args:
        problem: The problem.
        starts: Random slopes to start from, besides α and β themselves.
        sweeps: Rounds over the layers for each start.
        seed: Of the random starts.
    """
    rng = np.random.default_rng(seed)
    alpha, beta = problem.alpha, problem.beta
    firsts = [beta.copy(), alpha.copy()]
    firsts += [np.where(rng.random(len(alpha)) < 0.5, alpha, beta) for _ in range(starts)]
    out = problem.out.weight.mid
    if problem.chain and out.shape[0] > out.shape[1]:
        out = np.asarray(np.linalg.qr(out, mode="r"))
    best = 0.0
    for slopes in firsts:
        value = 0.0
        for _ in range(sweeps):
            found = _climb_chain(problem, out, slopes) if problem.chain else _climb_general(problem, slopes)
            if found is None:
                break
            new_value, slopes = found
            if new_value <= value * (1.0 + 1e-10):
                break
            value = new_value
        best = max(best, value)
    return best


def _climb_chain(problem: Reduced, out: Array, slopes: Array) -> tuple[float, Array] | None:
    """One round over the layers, and the norm after it."""
    slopes = slopes.copy()
    weights = [block.weight.mid for block in problem.blocks]
    after = [out]  # the maps from each layer's neurons to the outputs, built from the end
    for block, W in zip(reversed(problem.blocks[1:]), reversed(weights[1:]), strict=True):
        after.append((after[-1] * slopes[block.rows]) @ W)
    before = np.eye(problem.n_in)
    v = None
    for block, W, back in zip(problem.blocks, weights, reversed(after), strict=True):
        seen = W @ before
        _, u, v = _top((back * slopes[block.rows]) @ seen, v)
        if not np.isfinite(u).all():
            return None
        gain = (u @ back) * (seen @ v)
        slopes[block.rows] = np.where(gain > 0.0, problem.beta[block.rows], problem.alpha[block.rows])
        before = slopes[block.rows, None] * seen
    value, _, _ = _top(out @ before, v)
    return (value, slopes) if np.isfinite(value) else None


def _climb_general(problem: Reduced, slopes: Array) -> tuple[float, Array] | None:
    n_in, m = problem.n_in, problem.n_neurons
    G, C = problem.blocks[0].weight.mid, problem.out.weight.mid
    Y = responses(problem, slopes)
    if Y is None:
        return None
    value, u, v = _top(C[:, n_in:] @ Y + C[:, :n_in])
    if not (np.isfinite(value) and np.isfinite(u).all()):
        return None
    try:
        back = np.linalg.solve(np.eye(m) - (slopes[:, None] * G[:, n_in:]).T, C[:, n_in:].T @ u)
    except np.linalg.LinAlgError:
        return None
    gain = back * (G[:, :n_in] @ v + G[:, n_in:] @ (Y @ v))
    return value, np.where(gain > 0.0, problem.beta, problem.alpha)


def _top(J: Array, v: Array | None = None) -> tuple[float, Array, Array]:
    """A singular value and its vectors, the largest or nearly: ‖Jv‖ of a unit vector, so never too large."""
    if min(J.shape) <= 16 and np.isfinite(J).all():
        left, values, right = np.linalg.svd(J, full_matrices=False)
        return float(values[0]), left[:, 0], right[0]
    if v is None:
        v = np.cos(1.7 * np.arange(J.shape[1]) ** 2 + 0.3)
        v /= np.linalg.norm(v)
    with np.errstate(all="ignore"):
        for _ in range(12):
            w = J.T @ (J @ v)
            size = float(np.linalg.norm(w))
            if size == 0.0 or not np.isfinite(size):
                break
            v = w / size
        u = J @ v
        value = float(np.linalg.norm(u))
    return value, u / value if value > 0.0 else u, v
