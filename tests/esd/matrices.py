"""Random matrices with known spectra, by NumPy."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from scipy.stats import beta

Floats = NDArray[np.float64]


def squares(matrix: Floats) -> Floats:
    """Squared singular values, ascending."""
    return np.sort(np.linalg.svd(matrix, compute_uv=False) ** 2)


def orthonormal(rng: np.random.Generator, n: int, k: int) -> Floats:
    """Columns of a Haar matrix `[n, k]`."""
    q, r = np.linalg.qr(rng.standard_normal((n, k)))
    return np.asarray(q * np.sign(np.diag(r)))


def with_spectrum(rng: np.random.Generator, eigenvalues: Floats, columns: int | None = None) -> Floats:
    """A matrix with these squared singular values and Haar singular vectors."""
    n = eigenvalues.size
    return orthonormal(rng, n, n) * np.sqrt(eigenvalues) @ orthonormal(rng, columns or n, n).T


def spiked(rng: np.random.Generator, shape: tuple[int, int], sizes: Floats) -> Floats:
    """Standard Gaussian plus singular values of these sizes, in units of the bulk's largest one, √p + √n."""
    p, n = shape
    left, right = orthonormal(rng, p, sizes.size), orthonormal(rng, n, sizes.size)
    return rng.standard_normal(shape) + left * (sizes * (p**0.5 + n**0.5)) @ right.T


def wishart(rng: np.random.Generator, shape: tuple[int, int], *, largest: bool = False) -> Floats:
    """Eigenvalues of WᵀW of a standard Gaussian W, or the largest: by Dumitriu and Edelman's bidiagonal model."""
    small, large = sorted(shape)
    diagonal = np.sqrt(rng.chisquare(large - np.arange(small)))
    lower = np.sqrt(rng.chisquare(small - 1 - np.arange(small - 1)))
    square = diagonal**2
    square[1:] += lower**2
    chosen = {"select": "i", "select_range": (small - 1, small - 1)} if largest else {}
    return np.asarray(eigvalsh_tridiagonal(square, diagonal[:-1] * lower, **chosen))


def rate_at_most(count: int, n: int) -> float:
    """Upper 95 % limit (Clopper and Pearson) of a rate, of which `count` in `n` were seen."""
    return float(beta.ppf(0.95, count + 1, n - count)) if count < n else 1.0
