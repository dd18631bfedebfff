"""The oracle for K ∈ {0, 1}: w·z = σ_w²ᴸ·(1 + w)·∏(p_l + w) is a polynomial in w, and all its roots can be had.

Linear, ReLU and hard-tanh layers have such K, each layer its own p. Nothing is followed here: the roots at z = λ + i0
are eigenvalues of a companion matrix, and of those below the real axis one alone obeys the equation with principal
logarithms, log z = log(1 + w) + Σ log(p_l + w) − log w, and not only up to a multiple of 2πi.
"""

import math

import numpy as np

from fpstab.theory.jacobian_esd.layers import Layers
from fpstab.theory.jacobian_esd.newton import Root
from fpstab.theory.jacobian_esd.slopes import Floats


def solve_polynomial(lam: Floats, layers: Layers) -> Root:
    """Solve at λ + i0 for every λ `[P]` inside the support.

    Raises:
        ValueError: If K of some layer has more than the values 0 and 1.
    """
    laws = layers.laws(coarse=True)
    if not all(law.two_point for law in laws):
        raise ValueError(
            f'solver="polynomial" needs slopes that are 0 or 1, and {layers.activation} has others; use "newton".'
        )
    shifts = np.array([1.0] + [law.positive for law, n in zip(laws, layers.counts, strict=True) for _ in range(n)])
    scale = math.exp(layers.log_scale)
    product = np.poly(-shifts)
    z = lam / scale
    degree = len(shifts)
    companion = np.zeros((len(z), degree, degree))
    companion[:, 1:, :-1] = np.eye(degree - 1)
    companion[:, 0, :] = -product[1:]
    companion[:, 0, -2] += z
    roots = np.linalg.eigvals(companion)
    for _ in range(3):  # eigenvalues err by the norm of the matrix, roots need not
        factors = roots[:, :, None] + shifts
        value = factors.prod(2) - z[:, None] * roots
        slope = factors.prod(2) * (1 / np.where(factors == 0, 1, factors)).sum(2) - z[:, None]
        roots = roots - np.where(slope == 0, 0, value / np.where(slope == 0, 1, slope))
    log_w = np.log(np.where(roots == 0, 1, roots))
    factors = roots[:, :, None] + shifts
    factors = np.log(np.where(factors == 0, 1, factors))
    mismatch = np.abs(factors.sum(2) - log_w - np.log(z)[:, None])
    mismatch = np.where(roots.imag < 0, mismatch, np.inf)
    rows, best = np.arange(len(z)), mismatch.argmin(1)
    w = roots[rows, best]
    ranks = np.array([law.positive for law in laws])
    return Root(np.log(w)[:, None] - np.log(w[:, None] + ranks), 1 + w, w, mismatch[rows, best])
