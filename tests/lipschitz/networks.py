"""Random networks, and what is known of them by other means."""

import warnings
from fractions import Fraction
from itertools import pairwise

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = tuple[Array, Array]

# ten pairs of slopes: ReLU, sigmoid, leaky ReLU, GELU, Hardswish, sine, a strictly increasing one, SELU, SiLU, a falling
SLOPES = [
    (0.0, 1.0),
    (0.0, 0.25),
    (0.01, 1.0),
    (-0.1289042, 1.1289042),
    (-0.5, 1.5),
    (-1.0, 1.0),
    (0.5, 2.0),
    (0.0, 1.7580994),
    (-0.0998394, 1.0998394),
    (-0.7, -0.1),
]


def gaussian(*sizes: int, seed: int = 0) -> list[Array]:
    """He-scaled Gaussian weights."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, m)) * (2 / m) ** 0.5 for m, n in pairwise(sizes)]


def random_case(seed: int) -> tuple[list[Array], list[Pair]]:
    """2–4 layers, widths 1–19, scales 10^±1, one of the ten slopes; some special structures."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, size=rng.integers(3, 6))
    weights = [rng.normal(size=(n, m)) * 10 ** rng.uniform(-1, 1) for m, n in pairwise(sizes)]
    kind = seed % 8
    if kind == 1:
        weights[0] = np.outer(rng.normal(size=sizes[1]), rng.normal(size=sizes[0]))
    elif kind == 2:
        weights = [weight * (rng.random(weight.shape) < 0.5) for weight in weights]
    elif kind == 3:
        weights = [np.round(weight) for weight in weights]
    elif kind == 4:
        weights = [10.0 ** rng.uniform(-2, 2, size=(len(weight), 1)) * weight for weight in weights]
    if kind == 5:
        slopes = [(rng.uniform(-1, 0.5, size=n), rng.uniform(0.5, 1.5, size=n)) for n in sizes[1:-1]]
    else:
        alpha, beta = SLOPES[seed % 10]
        slopes = [(np.full(n, alpha), np.full(n, beta)) for n in sizes[1:-1]]
    return weights, slopes


def jacobian(weights: list[Array], slopes: list[Array]) -> Array:
    J = weights[0]
    for weight, slope in zip(weights[1:], slopes, strict=True):
        J = weight @ (slope[:, None] * J)
    return J


def norm(matrix: Array) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


def attack(weights: list[Array], slopes: list[Pair], seed: int = 0, starts: int = 5) -> float:
    """The largest norm of a Jacobian with slopes at their ends that coordinate ascent finds, neuron by neuron."""
    rng = np.random.default_rng(seed)
    best = 0.0
    for start in range(starts):
        chosen = [np.where(rng.random(len(a)) < start / max(starts - 1, 1), b, a) for a, b in slopes]
        value = norm(jacobian(weights, chosen))
        for _ in range(20):
            for layer, (alpha, beta) in enumerate(slopes):
                before = jacobian(weights[: layer + 1], chosen[:layer])
                after = jacobian(weights[layer + 1 :], chosen[layer + 1 :])
                u, _, vt = np.linalg.svd((after * chosen[layer]) @ before, full_matrices=False)
                chosen[layer] = np.where((u[:, 0] @ after) * (before @ vt[0]) > 0, beta, alpha)
            new = norm(jacobian(weights, chosen))
            if new <= value * (1 + 1e-12):
                break
            value = new
        best = max(best, value)
    return best


def all_patterns(weights: list[Array], slopes: list[Pair]) -> float:
    """The largest norm of a Jacobian over all choices of slopes at their ends: the norm is convex in each slope."""
    ends = np.concatenate([np.stack(pair, 1) for pair in slopes])
    cuts = np.cumsum([len(alpha) for alpha, _ in slopes])[:-1]
    best = 0.0
    for pattern in range(2 ** len(ends)):
        bits = (pattern >> np.arange(len(ends))) & 1
        best = max(best, norm(jacobian(weights, np.split(ends[np.arange(len(ends)), bits], cuts))))
    return best


def textbook(
    weights: list[Array], alpha: float, beta: float, solver: str = "CLARABEL", layer: bool = False
) -> tuple[float, Array]:
    """LipSDP as it is printed (Fazlyab et al. 2019, Theorem 2), by cvxpy: the value, and the multipliers."""
    sizes = [weights[0].shape[1], *(len(w) for w in weights)]
    n_in, hidden = sizes[0], sum(sizes[1:-1])
    A, row, column = np.zeros((hidden, n_in + hidden)), 0, 0
    for w in weights[:-1]:
        A[row : row + len(w), column : column + w.shape[1]] = w
        row, column = row + len(w), column + w.shape[1]
    B = np.hstack([np.zeros((hidden, n_in)), np.eye(hidden)])
    E = np.diag(np.repeat([1.0, 0.0], [n_in, hidden]))
    C = np.hstack([np.zeros((sizes[-1], n_in + hidden - sizes[-2])), weights[-1]])
    rho = cp.Variable(nonneg=True)
    if layer:
        per_layer = cp.Variable(len(weights) - 1, nonneg=True)
        multipliers = np.repeat(np.eye(len(weights) - 1), sizes[1:-1], axis=0) @ per_layer
    else:
        multipliers = cp.Variable(hidden, nonneg=True)
    T = cp.diag(multipliers)
    Q = cp.bmat([[-2 * alpha * beta * T, (alpha + beta) * T], [(alpha + beta) * T, -2 * T]])
    AB = np.vstack([A, B])
    M = AB.T @ Q @ AB - rho * E + C.T @ C
    problem = cp.Problem(cp.Minimize(rho), [(M + M.T) / 2 << 0])
    tight = {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12} if solver == "CLARABEL" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "may be inaccurate": the tolerances are beyond reach
        problem.solve(solver=solver, **tight)
    return float(rho.value) ** 0.5, np.asarray(multipliers.value)


def exactly_positive(matrix: list[list[Fraction]]) -> bool:
    """Whether a symmetric matrix of rationals is positive semidefinite, by elimination without rounding."""
    rows = [list(row) for row in matrix]
    while rows:
        pivot = rows[0][0]
        if pivot < 0 or (pivot == 0 and any(rows[0])):
            return False
        rest = rows[1:]
        rows = (
            [row[1:] for row in rest]
            if pivot == 0
            else [[x - row[0] * y / pivot for x, y in zip(row[1:], rows[0][1:], strict=True)] for row in rest]
        )
    return True


def exact_inequality(
    weights: list[Array], slopes: list[Pair], multipliers: list[Array], L: float
) -> list[list[Fraction]]:
    """M(L², T) of LipSDP-Neuron in rationals."""
    sizes = [weights[0].shape[1], *(len(w) for w in weights)]
    n = sum(sizes[:-1])
    M = [[Fraction(0)] * n for _ in range(n)]
    for i in range(sizes[0]):
        M[i][i] += Fraction(L) ** 2
    start = 0
    for weight, (alpha, beta), T, size in zip(weights, slopes, multipliers, sizes, strict=False):
        for k, row in enumerate(weight):
            u = {start + j: -Fraction(float(alpha[k])) * Fraction(float(w)) for j, w in enumerate(row)}
            v = {start + j: -Fraction(float(beta[k])) * Fraction(float(w)) for j, w in enumerate(row)}
            u[start + size + k] = v[start + size + k] = Fraction(1)
            for i, ui in u.items():
                for j, vj in v.items():
                    M[i][j] += Fraction(float(T[k])) * ui * vj
                    M[j][i] += Fraction(float(T[k])) * ui * vj
        start += size
    for row in weights[-1]:
        for i, wi in enumerate(row):
            for j, wj in enumerate(row):
                M[start + i][start + j] -= Fraction(float(wi)) * Fraction(float(wj))
    return M
