"""Where the eigenvalues of all matrices in a ball lie: proofs that a fixed point attracts, or does not, and its index."""

from typing import Literal

import numpy as np
import scipy.linalg

from fpstab.rounding import TINY, UNIT, Array, Ball, Bools, down, gamma, multiply_up, spectral_norm, up

Kind = Literal["stable", "unstable", "unknown"]

_SQUARINGS = 14
_SMALL = 128  # where a spectral norm costs little


def stability(J: Ball, *, smooth: bool = True) -> Kind:
    """Whether all matrices J `[n, n]` of a ball have ρ(J) < 1, or all ρ(J) > 1.

    Where a map is not smooth, its slope matrices change from step to step, and their spectral radii prove nothing of their products:
    then it is `"stable"` only if all have a norm below 1, and never `"unstable"`.

    Jury's test in interval arithmetic for n ≤ 2. Else discs around the eigenvalues (Gershgorin's, in the basis of computed
    eigenvectors), and where these are too far from normal, a power with a norm below 1.
    """
    if not np.isfinite(J.magnitude).all():
        return "unknown"
    n = len(J.mid)
    if not smooth:
        return "stable" if _norm(J) < 1.0 else "unknown"
    if n <= 2:
        return _jury(J)
    discs = eigenvalue_discs(J)
    if discs is not None:
        centre, radius = discs
        least, largest = np.abs(centre) * (1.0 - 4 * UNIT) - radius, np.abs(centre) * (1.0 + 4 * UNIT) + radius
        if (largest * (1.0 + 4 * UNIT) < 1.0).all():
            return "stable"
        if _some_outside(centre, radius, least * (1.0 - 4 * UNIT) > 1.0):
            return "unstable"
    return "stable" if power_decays(J) else "unknown"


def index(J: Ball) -> int:
    """The sign of det(I − J) that all matrices `[n, n]` of a ball have; 0 if that is not proved.

    With I − J = P L U in floating point, M = U⁻¹L⁻¹Pᵀ has a known sign, and ‖I − M(I − J)‖ < 1 that of the inverse.
    """
    A = Ball(np.eye(len(J.mid))) + Ball(-J.mid, J.radius)
    if not np.isfinite(A.magnitude).all():
        return 0
    if len(J.mid) <= 2:
        low, high = _determinant(A)
        return 1 if low > 0.0 else -1 if high < 0.0 else 0
    P, L, U = scipy.linalg.lu(A.mid)
    try:
        lower, upper = (scipy.linalg.solve_triangular(T, np.eye(len(T)), lower=k == 0) for k, T in enumerate((L, U)))
    except np.linalg.LinAlgError:
        return 0
    diagonal = np.concatenate((np.tril(lower).diagonal(), np.triu(upper).diagonal()))
    M = Ball(np.triu(upper)) @ Ball(np.tril(lower)) @ Ball(P.T)
    rest = Ball(np.eye(len(P))) + _negative(M @ A)
    if not _norm(rest) < 1.0 or not (diagonal != 0.0).all():
        return 0
    return int(np.prod(np.sign(diagonal)) * _sign_of_permutation(P))


def eigenvalue_discs(J: Ball) -> tuple[Array, Array] | None:
    """Discs (complex centres `[n]`, radii `[n]`) that hold all eigenvalues of every matrix in a ball.

    A group of discs that is apart from the others holds as many eigenvalues as it has discs. `None` if eigenvectors are
    too nearly dependent. With V computed and X ≈ V⁻¹: V⁻¹JV = (XV)⁻¹XJV, and with ε = ‖I − XV‖ < 1 it differs from XJV by at
    most ε‖XJV‖/(1 − ε).
    """
    n = len(J.mid)
    _, V = np.linalg.eig(J.mid)
    try:
        X = np.linalg.inv(V)
    except np.linalg.LinAlgError:
        return None
    g = gamma(4 * n + 16)  # products of complex numbers are sums of 2n products
    if not (np.isfinite(V).all() and np.isfinite(X).all()):
        return None
    size_V, size_X, size_J = np.abs(V), np.abs(X), np.abs(J.mid)
    spread = np.zeros_like(J.mid) if J.radius is None else J.radius
    epsilon = _row_sums(np.abs(np.eye(n) - X @ V) + g * (size_X @ size_V + np.eye(n)))
    if not epsilon < 0.5:
        return None
    M = X @ (J.mid @ V)
    error = size_X @ ((3.0 * g * size_J + spread) @ size_V) * (1.0 + 4.0 * g) + TINY
    off = (np.abs(M) + error).copy()
    norm = _row_sums(off)
    np.fill_diagonal(off, 0.0)
    radius = off.sum(1) + error.diagonal() + up(multiply_up(epsilon, norm) / down(1.0 - epsilon, 2), 2)
    return M.diagonal().copy(), radius * (1.0 + 8.0 * g) + TINY


def power_decays(J: Ball) -> bool:
    """Whether some power Jᵏ, k = 1, 2, 4, …, of all matrices in a ball is proved to have a norm below 1."""
    for _ in range(_SQUARINGS):
        if _norm(J) < 1.0:
            return True
        if not J.magnitude.max() < 1e100:
            return False
        if J.radius is not None and J.radius.max() > 0.5 * max(1.0, float(np.abs(J.mid).max())):
            return False
        J = J @ J
    return False


def _norm(A: Ball) -> float:
    """An upper bound of the row-sum norm or, where that is not below 1 and the matrix small, of the spectral norm."""
    rows = _row_sums(A.magnitude)
    return rows if rows < 1.0 or len(A.mid) > _SMALL or not np.isfinite(rows) else min(rows, spectral_norm(A))


def _row_sums(size: Array) -> float:
    return float(size.sum(1).max() * (1.0 + 2.0 * gamma(size.shape[1] + 8)))


def _negative(A: Ball) -> Ball:
    return Ball(-A.mid, A.radius)


def _some_outside(centre: Array, radius: Array, outside: Bools) -> bool:
    """Whether a group of discs apart from all others lies outside the unit circle."""
    n = len(centre)
    distance = np.abs(centre[:, None] - centre[None]) * (1.0 - 8 * UNIT)
    touch = ~(distance > (radius[:, None] + radius[None]) * (1.0 + 4 * UNIT))
    group = np.arange(n)
    for _ in range(n):
        spread = np.where(touch, group[None], n).min(1)
        if (spread == group).all():
            break
        group = spread
    return any(bool(outside[group == k].all()) for k in np.unique(group))


def _sign_of_permutation(P: Array) -> int:
    order = np.argmax(P, axis=0)
    seen = np.zeros(len(order), dtype=bool)
    sign = 1
    for start in range(len(order)):
        length, k = 0, start
        while not seen[k]:
            seen[k] = True
            k, length = int(order[k]), length + 1
        if length and length % 2 == 0:
            sign = -sign
    return sign


def _ends(A: Ball) -> tuple[Array, Array]:
    radius = np.zeros_like(A.mid) if A.radius is None else A.radius
    return np.nextafter(A.mid - radius, -np.inf), np.nextafter(A.mid + radius, np.inf)


def _times(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    products = [x * y for x in a for y in b]
    return down(min(products)) - TINY, up(max(products)) + TINY


def _plus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return down(a[0] + b[0]), up(a[1] + b[1])


def _minus(a: tuple[float, float]) -> tuple[float, float]:
    return -a[1], -a[0]


def _determinant(A: Ball) -> tuple[float, float]:
    low, high = _ends(A)
    entry = [[(float(low[i, j]), float(high[i, j])) for j in range(len(low))] for i in range(len(low))]
    if len(low) == 1:
        return entry[0][0]
    return _plus(_times(entry[0][0], entry[1][1]), _minus(_times(entry[0][1], entry[1][0])))


def _jury(J: Ball) -> Kind:
    """λ² − tλ + d has both roots inside the unit circle iff |t| < 1 + d and d < 1; strictly the other way is outside."""
    low, high = _ends(J)
    if len(low) == 1:
        largest = max(abs(low[0, 0]), abs(high[0, 0]))
        crosses = low[0, 0] <= 0.0 <= high[0, 0]
        least = 0.0 if crosses else min(abs(low[0, 0]), abs(high[0, 0]))
        return "stable" if largest < 1.0 else "unstable" if least > 1.0 else "unknown"
    t = _plus((float(low[0, 0]), float(high[0, 0])), (float(low[1, 1]), float(high[1, 1])))
    d = _determinant(J)
    conditions = [_plus(_plus((1.0, 1.0), d), _minus(t)), _plus(_plus((1.0, 1.0), d), t), _plus((1.0, 1.0), _minus(d))]
    if all(low > 0.0 for low, _ in conditions):
        return "stable"
    return "unstable" if any(high < 0.0 for _, high in conditions) else "unknown"
