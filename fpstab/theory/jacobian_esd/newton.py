"""Newton's method along z = λ + iy, y from large to 0: the default solver.

With m_g of the group g of n_g layers, w = m_g(u_g) for all g and z = σ_w²ᴸ·(1 + w)·wᴸ⁻¹/∏ u_g^{n_g}. The unknowns are
b_g = log u_g. In the half-plane Im z > 0 the solution that begins as w ≈ μ/z is analytic with Im w, Im(1 + w) and
Im u_g < 0, so that principal logarithms never jump, and it can be followed; a step that leaves the half-plane is
shortened.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpstab.theory.jacobian_esd.layers import Layers
from fpstab.theory.jacobian_esd.slopes import Complexes, Floats, SlopeLaw

TOL = 1e-13
_STEPS_PER_DECADE = 12
_FOLLOW_TOL = 1e-5
_MAX_ITER = 60


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """Solutions at P points z.

    Attributes:
        b: log u_g, complex128 `[P, G]`.
        one_plus_w: 1 + w, complex128 `[P]`.
        w: complex128 `[P]`.
        residual: Of the logarithmic equations, `[P]`.
    """

    b: Complexes
    one_plus_w: Complexes
    w: Complexes
    residual: Floats


def solve_newton(lam: Floats, layers: Layers, edge: float) -> Root:
    """Solve at λ + i0 for every λ `[P]` inside the support (0, edge)."""
    laws, start = layers.laws(coarse=True), 1e4 * edge
    means = np.array([law.moments(1)[0] for law in laws])
    end = 1e-9 * lam
    steps = math.ceil(_STEPS_PER_DECADE * math.log10(start / float(end.min())))
    counts = np.array(layers.counts)
    log_w = layers.log_scale + float(counts @ np.log(means)) - np.log(lam + 1j * start)
    now = log_w[:, None] - np.log(means)
    before = now
    for step in range(steps + 1):
        y = start * (end / start) ** (step / steps)
        guess = now if step < 2 else 2 * now - before  # the ladder is uniform in log y
        outside = ~_inside(guess)
        guess = np.where(outside[:, None], now, guess)
        before, (now, _) = now, _iterate(guess, np.log(lam + 1j * y), layers, laws, _FOLLOW_TOL)
    fine = layers.laws()
    now, residual = _iterate(now, np.log(lam).astype(complex), layers, fine, TOL)
    w, one_plus_w, _ = fine[0].generating(np.exp(now[:, 0]))
    return Root(now, one_plus_w, w, residual)


def _iterate(
    b: Complexes, log_z: Complexes, layers: Layers, laws: list[SlopeLaw], tol: float
) -> tuple[Complexes, Floats]:
    """Newton's iteration at fixed z, on the points that have not converged."""
    b = b.copy()
    residual = np.full(len(b), np.inf)
    todo, rounding = np.arange(len(b)), 4e-16 * (layers.depth + 10)
    for _ in range(_MAX_ITER):
        delta, found = _step(b[todo], log_z[todo], layers, laws)
        residual[todo] = found
        size = np.abs(delta).max(1)
        delta *= np.minimum(1.0, 1.0 / np.maximum(size, 1e-300))[:, None]
        new = b[todo] + delta
        for _ in range(30):
            bad = ~_inside(new)
            if not bad.any():
                break
            delta[bad] /= 2
            new[bad] = b[todo][bad] + delta[bad]
        b[todo] = new
        # a small step or a small residual: near the edge, where two roots merge, steps stay larger than residuals
        todo = todo[~((size <= tol) | (found <= rounding)) & np.isfinite(size)]
        if not todo.size:
            break
    residual[todo] = np.maximum(residual[todo], 2 * tol)  # a rounding error may keep the step above, not the residual
    return b, residual


def _step(b: Complexes, log_z: Complexes, layers: Layers, laws: list[SlopeLaw]) -> tuple[Complexes, Floats]:
    """Newton's correction of b `[P, G]`, and the residual `[P]`."""
    u = np.exp(b)
    log_m, slope = np.empty_like(b), np.empty_like(b)
    for g, law in enumerate(laws):
        m, one_plus_m, um = law.generating(u[:, g])
        log_m[:, g], slope[:, g] = np.log(m), um / m
        if g == 0:
            log_one_plus_w, slope_one_plus = np.log(one_plus_m), um / one_plus_m
    counts = np.array(layers.counts)
    mismatch = log_m - log_m[:, :1]
    equation = layers.log_scale + log_one_plus_w + (layers.depth - 1) * log_m[:, 0] - b @ counts.astype(complex) - log_z
    gain = counts / slope
    first = -(equation + (gain * mismatch).sum(1)) / (slope_one_plus + slope[:, 0] * (layers.depth - 1 - gain.sum(1)))
    delta = (slope[:, :1] * first[:, None] - mismatch) / slope
    return delta, np.maximum(np.abs(equation), np.abs(mismatch).max(1))


def _inside(b: Complexes) -> NDArray[np.bool_]:
    """Whether every u_g of a point lies below the real axis, `[P]`."""
    return np.asarray(((b.imag < 0) & (b.imag > -math.pi)).all(1))
