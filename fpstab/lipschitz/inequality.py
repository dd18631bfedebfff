"""The matrix inequality of LipSDP for a reduced problem (Fazlyab et al. 2019, Theorem 2, LipSDP-Neuron).

With z = (x, y), e_i the neuron's own unit vector in z and g_i its weights, the difference quotients in [α_i, β_i] say
(e_i − α_i g_i)ᵀδz · (e_i − β_i g_i)ᵀδz ≤ 0. So if for some multipliers T ≥ 0

    M(ρ, T) = ρ E₀ + Σ T_i (u_i v_iᵀ + v_i u_iᵀ) − CᵀC ⪰ 0,   u_i = e_i − α_i g_i,  v_i = e_i − β_i g_i,

E₀ the identity on x, then ‖C δz‖² ≤ ρ ‖δx‖² for any two inputs: the constant is at most √ρ.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from fpstab.lipschitz.blocks import Block, Reduced
from fpstab.rounding import TINY, UNIT, Array, gamma, gram, gram_roundings, positive_definite, product_up


@dataclass(frozen=True, slots=True, eq=False)
class Inequality:
    """M(ρ, T) = ρ diag(e0) + Σ T_i (u_i v_iᵀ + v_i u_iᵀ) − K, all in floating point.

    Attributes:
        e0: `[n]` zeros and ones.
        K: `[n, n]` symmetric.
        n_in: Where the neurons begin in z.
        blocks: The weights g, block by block.
        alpha: `[m]`.
        beta: `[m]`.
    """

    e0: Array
    K: Array
    n_in: int
    blocks: tuple[Block, ...]
    alpha: Array
    beta: Array

    @classmethod
    def of(cls, problem: Reduced) -> "Inequality":
        """The inequality of a problem."""
        K = np.zeros((problem.n, problem.n))
        columns = problem.out.columns
        K[columns, columns] = gram(problem.out.weight.mid.T)
        e0 = np.zeros(problem.n)
        e0[: problem.n_in] = 1.0
        return cls(e0, K, problem.n_in, problem.blocks, problem.alpha, problem.beta)

    @property
    def signed(self) -> bool:
        """Whether some α_i β_i ≠ 0: then there are quadratic terms in the weights."""
        return bool((self.alpha * self.beta).any())

    def linear(self, rho: float, T: Array) -> Array:
        """M(ρ, T) + K, `[n, n]`: the part that is linear in (ρ, T)."""
        n_in = self.n_in
        M = np.zeros(self.K.shape)
        diagonal = rho * self.e0
        diagonal[n_in:] += 2.0 * T
        s, p = T * (self.alpha + self.beta), 2.0 * T * self.alpha * self.beta
        for block in self.blocks:
            W, rows = block.weight.mid, block.rows
            own = slice(n_in + rows.start, n_in + rows.stop)
            scaled = s[rows, None] * W
            M[own, block.columns] -= scaled
            M[block.columns, own] -= scaled.T
            if p[rows].any():
                M[block.columns, block.columns] += W.T @ (p[rows, None] * W)
        M[np.diag_indices_from(M)] += diagonal
        return M

    def matrix(self, rho: float, T: Array) -> Array:
        """M(ρ, T)."""
        return self.linear(rho, T) - self.K

    def times_weights(self, X: Array) -> Array:
        """X G^T, `[n, m]`: column i is X g_i."""
        XG = np.zeros((len(X), len(self.alpha)))
        for block in self.blocks:
            XG[:, block.rows] = X[:, block.columns] @ block.weight.mid.T
        return XG

    def from_weights(self, XG: Array) -> Array:
        """G XGᵀ, `[m, m]`, of `XG = times_weights(X)`: entry ij is g_iᵀ X g_j."""
        GXG = np.zeros((len(self.alpha), len(self.alpha)))
        for block in self.blocks:
            GXG[block.rows] = block.weight.mid @ XG[block.columns]
        return GXG

    def diagonal_forms(self, X: Array, XG: Array) -> Array:
        """2 u_iᵀ X v_i, `[m]`: the derivative of <X, M> with respect to T_i, for symmetric X."""
        n_in = self.n_in
        own = np.arange(len(self.alpha))
        gXg = np.zeros(len(self.alpha))
        for block in self.blocks:
            gXg[block.rows] = np.einsum("ij,ji->i", block.weight.mid, XG[block.columns, block.rows])
        s, p = self.alpha + self.beta, self.alpha * self.beta
        values: Array = 2.0 * (X.diagonal()[n_in:] - s * XG[n_in + own, own] + p * gXg)
        return values

    def times_linear(self, X: Array, XG: Array, rho: float, T: Array) -> Array:
        """X @ linear(rho, T), at the cost of the blocks, given `XG = times_weights(X)`."""
        n_in = self.n_in
        product = X * (rho * self.e0)
        s, p = T * (self.alpha + self.beta), 2.0 * T * self.alpha * self.beta
        product[:, n_in:] += X[:, n_in:] * (2.0 * T) - XG * s
        for block in self.blocks:
            rows = block.rows
            own = slice(n_in + rows.start, n_in + rows.stop)
            left = X[:, own] * -s[rows]
            if p[rows].any():
                left += XG[:, rows] * p[rows]
            product[:, block.columns] += left @ block.weight.mid
        return product


def least_rho(inequality: Inequality, T: Array) -> float | None:
    """The least ρ with M(ρ, T) ⪰ 0 up to rounding; None if no ρ makes it so."""
    n = inequality.n_in
    M = inequality.matrix(0.0, T)
    try:
        factor = scipy.linalg.cholesky(M[n:, n:], lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    half = scipy.linalg.solve_triangular(factor, M[n:, :n], lower=True, check_finite=False)
    schur = half.T @ half - M[:n, :n]
    if not np.isfinite(schur).all():
        return None
    return float(scipy.linalg.eigvalsh(schur, subset_by_index=[n - 1, n - 1])[0])


def proves(problem: Reduced, inequality: Inequality, rho: float, T: Array) -> bool:
    """Whether it is proved, whatever rounding does, that M(ρ, T) ⪰ 0 for the exact weights.

    The rounding errors of all entries are bounded by their row sums; then a Cholesky factorisation of the scaled
    matrix minus these succeeds (see `rounding.positive_definite`). The diagonal scaling is by powers of two.
    """
    if not (np.isfinite(rho) and rho >= 0.0 and np.isfinite(T).all() and (T >= 0.0).all()):
        return False
    M = inequality.matrix(rho, T)
    diagonal = M.diagonal()
    if not (np.isfinite(diagonal).all() and (diagonal > 2.0**-500).all()):  # so that D · underflow < TINY
        return False
    exponents = -(np.frexp(diagonal)[1] // 2)
    D = np.ldexp(1.0, exponents)
    slack = _entry_errors(problem, rho, T, D)
    return positive_definite(np.ldexp(M, exponents[:, None] + exponents[None, :]), D * slack * (1.0 + 4.0 * UNIT))


def _entry_errors(problem: Reduced, rho: float, T: Array, D: Array) -> Array:
    """An upper bound of Σ_j |M_ij computed − M_ij exact| D_j, `[n]`."""
    n_in = problem.n_in
    few = gamma(16)
    s = T * (np.abs(problem.alpha) + np.abs(problem.beta)) * (1.0 + few)  # (α + β may cancel, but is rounded once)
    p = 2.0 * T * np.abs(problem.alpha * problem.beta) * (1.0 + few) + TINY * (1.0 + T) * (
        (problem.alpha != 0.0) & (problem.beta != 0.0)
    )
    errors = np.zeros(problem.n)
    errors[:n_in] += few * rho * D[:n_in]
    errors[n_in:] += few * 2.0 * T * D[n_in:]
    for block in problem.blocks:
        rows, columns = block.rows, block.columns
        own = slice(n_in + rows.start, n_in + rows.stop)
        size, radius = block.weight.magnitude, block.weight.radius
        seen = product_up(size, D[columns])
        errors[own] += few * s[rows] * seen
        errors[columns] += few * product_up(size.T, s[rows] * D[own])
        quadratic = p[rows].any()
        if quadratic:
            # W.T @ (p W) is summed over the rows
            errors[columns] += gamma(len(size) + 16) * product_up(size.T, p[rows] * seen)
        if radius is not None:
            seen_radius = product_up(radius, D[columns])
            errors[own] += s[rows] * seen_radius
            errors[columns] += product_up(radius.T, s[rows] * D[own])
            if quadratic:
                errors[columns] += product_up(radius.T, p[rows] * seen) + product_up(size.T, p[rows] * seen_radius)
    out = problem.out
    size, radius = out.weight.magnitude, out.weight.radius
    seen = product_up(size, D[out.columns])
    errors[out.columns] += gamma(gram_roundings(len(size)) + 16) * product_up(size.T, seen)
    if radius is not None:
        errors[out.columns] += product_up(radius.T, seen) + product_up(size.T, product_up(radius, D[out.columns]))
    total: Array = errors * (1.0 + gamma(64)) + TINY
    return total
