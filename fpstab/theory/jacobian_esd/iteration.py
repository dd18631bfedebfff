"""Paper 1's own iteration, eqs. (20)–(22), with its faults in sight."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fpstab.results import OK, AnalysisError, Status
from fpstab.theory.jacobian_esd.layers import Layers, as_layers
from fpstab.theory.jacobian_esd.newton import Root
from fpstab.theory.jacobian_esd.slopes import Complexes, Floats

_BASE, _STEPS = 10 ** (1 / 12), 60  # the paper's b and N, of which it says b > 1 and N ≫ 1: y from 1e5 to 1e-5
_EPS, _MAX_ITER = 1e-5, 50  # eq. (21)


@dataclass(frozen=True, slots=True, eq=False)
class PaperIteration:
    """Where the iteration ended, converged or not.

    Attributes:
        lam: λ, float64 `[K]`.
        w: Last iterate at the last z = λ + iy, complex128 `[K]`.
        rho: −Im((1 + w)/z)/π of it, float64 `[K]` (paper 1, eq. (23)).
        converged: Whether |w_n − w_{n−1}| < ε was reached at the last z, bool `[K]`.
        n_evals: Evaluations of m_K, over all λ.
        status: `"ok"`, or `"not_converged"`: at some λ.
    """

    lam: Tensor
    w: Tensor
    rho: Tensor
    converged: Tensor
    n_evals: int
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The share of the λ at which it converged, and its cost."""
        return {"converged": float(self.converged.double().mean()), "n_evals": float(self.n_evals)}


def paper_iteration(
    lam: ArrayLike | Tensor,
    activation: str,
    depth: int,
    *,
    q: float,
    sigma_w: float = 1.0,
    start: Literal["asymptotic", "zero"] = "asymptotic",
    damping: float = 0.0,
    throw: bool = True,
) -> PaperIteration:
    """Iterate w ← m_K(z^(−1/L)·(1 + w)^(1/L)·w^(1−1/L)) at z = λ + iy, y falling from 10⁵ to 10⁻⁵ (paper 1, (20)–(22)).

    As in the paper: at every z at most 50 iterations, until a step is below 10⁻⁵; the last iterate, converged or not,
    is the first one of the next z. **From `start="zero"`, the paper's, nothing ever moves for L ≥ 2, since w = 0 solves
    the equation**; `"asymptotic"` begins at μ₁ᴸ/z. For L = 1 inside the support the iterates circle about the
    solution, and at most λ the steps do not fall below 10⁻⁵; `damping=0.5` helps.

    Args:
        lam: λ > 0, `[K]`.
        activation: `"linear"`, `"relu"`, `"hardtanh"`, `"erf"` (erf(√π·x/2)) or `"tanh"`.
        depth: L.
        q: Variance of the pre-activations, the same in all layers: (20) knows a single K.
        sigma_w: √N times the standard deviation of the weights.
        start: First iterate.
        damping: Share of the old iterate that is kept, in [0, 1).
        throw: Raise where it has not converged; otherwise say so in the status.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If a number is out of range or a name unknown.
        AnalysisError: If `throw`, and it has not converged at some λ.

    >>> stuck = paper_iteration([0.5], "linear", 2, q=1.0, start="zero")
    >>> float(stuck.rho) < 1e-4, stuck.status.ok  # it is .318310
    (True, True)
    """
    array = lam.detach().cpu().double().numpy() if isinstance(lam, Tensor) else lam
    values = np.atleast_1d(np.array(array, dtype=np.float64))
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError("lam has values that are not positive and finite; the iteration divides by z.")
    if start not in ("asymptotic", "zero") or not 0 <= damping < 1:
        raise ValueError(
            f'start = {start!r}, damping = {damping}; expected "asymptotic" or "zero", and 0 ≤ damping < 1.'
        )
    layers = as_layers(activation, depth, q, 1.0, sigma_w, 0.0)
    w, converged, n_evals = _iterate(values, layers, start, damping)
    z = values + 1j * _BASE**-_STEPS
    status = OK
    if not converged.all():
        status = Status(
            "not_converged",
            f"the iteration has not converged within {_MAX_ITER} steps at {int((~converged).sum())} of {len(values)} "
            f'values of lam (L = {depth}). Use solver="newton", or a damping of 0.5 for L = 1.',
        )
    if throw and not status.ok:
        raise AnalysisError(status)
    rho = -((1 + w) / z).imag / math.pi
    arrays = [torch.from_numpy(array) for array in (values, w, rho, converged)]
    return PaperIteration(arrays[0], arrays[1], arrays[2], arrays[3], n_evals, status)


def solve_paper(lam: Floats, layers: Layers) -> Root:
    """The iteration in the form of the other solvers: an infinite residual where it has not converged.

    Raises:
        ValueError: If the layers differ.
    """
    if len(layers.distinct) > 1:
        differ: Sequence[float] = layers.q
        raise ValueError(
            f'solver="paper" knows a single K, but q differs between the layers ({differ}): pass q=, or use "newton".'
        )
    w, converged, _ = _iterate(lam, layers, "asymptotic", 0.0)
    u = _argument(w, np.asarray(lam + 1j * _BASE**-_STEPS), layers)
    return Root(np.log(u)[:, None], 1 + w, w, np.where(converged, _EPS, np.inf))


def _iterate(lam: Floats, layers: Layers, start: str, damping: float) -> tuple[Complexes, NDArray[np.bool_], int]:
    (law,) = layers.laws()
    mean, n_evals = float(law.moments(1)[0]), 0
    w: Complexes = np.zeros(len(lam), np.complex128)
    if start == "asymptotic":
        w += math.exp(layers.log_scale) * mean**layers.depth / (lam + 1j * _BASE**_STEPS)
    converged = np.zeros(len(lam), bool)
    with np.errstate(all="ignore"):  # whatever becomes of an iteration that runs away, it is no solution
        for k in range(2 * _STEPS + 1):
            z = np.asarray(lam + 1j * _BASE ** (_STEPS - k), dtype=np.complex128)
            todo = np.arange(len(lam))
            for _ in range(_MAX_ITER):
                new = law.generating(_argument(w[todo], z[todo], layers))[0]
                n_evals += todo.size
                new = damping * w[todo] + (1 - damping) * new
                moved = np.abs(new - w[todo])
                w[todo] = new
                todo = todo[~(moved < _EPS)]
                if not todo.size:
                    break
            converged[:] = True
            converged[todo] = False
    return w, converged, n_evals


def _argument(w: Complexes, z: Complexes, layers: Layers) -> Complexes:
    """The argument (z/σ_w²ᴸ)^(−1/L)·(1 + w)^(1/L)·w^(1−1/L) of m_K, principal powers, each for itself."""
    L = layers.depth
    scaled = (z * math.exp(-layers.log_scale)) ** (-1 / L)
    return np.asarray(scaled * (1 + w) ** (1 / L) * w ** (1 - 1 / L), dtype=np.complex128)
