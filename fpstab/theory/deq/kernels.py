"""The kernels of a wide deep-equilibrium model at initialisation: NNGP and NTK (paper 4, appendix B.1)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fpstab.results import OK, AnalysisError, Status
from fpstab.theory.deq.cavity import CavitySolution, cavity_solution
from fpstab.theory.deq.families import Family
from fpstab.theory.deq.moments import linear_moments
from fpstab.theory.deq.nonlinearities import Activation, Floats, Nonlinearity, nonlinearity
from fpstab.theory.deq.quadrature import Field, pair_nodes


@dataclass(frozen=True, slots=True, eq=False)
class WideKernels:
    """The kernels of f(x) = vᵀz*(x), v of independent entries of variance 1/N, as N → ∞; `None` without an equilibrium.

    Attributes:
        nngp: E f(x)f(x') = E z*(x)·z*(x')/N, float64 `[B, B]`.
        ntk: (1/N)·E ∂f(x)/∂W·∂f(x')/∂W, float64 `[B, B]`. With the weights scaled as √(V/N)·W₀ the derivative by W₀
            gives V times as much.
        status: `"ok"`, `"no_equilibrium"` or `"diverges"`, where the derivative has no finite mean square.
    """

    nngp: Tensor | None
    ntk: Tensor | None
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """Means of the diagonals."""
        named = {"nngp": self.nngp, "ntk": self.ntk}
        return {name: float(kernel.diagonal().mean()) for name, kernel in named.items() if kernel is not None}


def wide_kernels(
    family: Family,
    V: float,
    activation: Activation,
    gram: Tensor | ArrayLike,
    *,
    throw: bool = True,
) -> WideKernels:
    """The NNGP kernel and the NTK of z* = φ(Wz*) + x for some inputs.

    By paper 4's (90)–(95), with D = diag φ'(Wz*), where the paper has φ'(z*): NNGP K = E z·z'/N and NTK N·K·T with
    T = tr_N (D⁻¹ − W)⁻¹(D'⁻¹ − W)⁻ᵀ. In the cavity theory T = κ/(1 − Vκ), κ = E[γγ'] with the gains γ = φ'/(1 − aφ')
    of the two inputs; for iid and orthogonal weights γ = φ', for the linear model K = m2·x·x'/N and T = m2.

    Args:
        family: The family of W; `"haar_disc"` for the linear activation only.
        V: Mean eigenvalue of WᵀW.
        activation: Of the model.
        gram: x·x'/N of the inputs, `[B, B]`, which have independent, jointly Gaussian entries of mean 0 (for iid and
            orthogonal weights it matters only that they are uncorrelated with φ(h)).
        throw: Raise where there is no equilibrium; otherwise say so in the status.

    Raises:
        ValueError: If the Gram matrix is not square, symmetric and positive semidefinite with a positive diagonal, or
            a number or name is not known.
        AnalysisError: If the family has no theory (always), or, if `throw`, there is no equilibrium.

    >>> kernels = wide_kernels("goe", 0.2, "linear", [[1.0, 0.5], [0.5, 1.0]])
    >>> [[round(value, 4) for value in row] for row in kernels.nngp.tolist()]
    [[3.0902, 1.5451], [1.5451, 3.0902]]
    """
    phi = nonlinearity(activation)
    x = _checked(gram)
    if phi.name == "linear":
        moments = linear_moments(family, V, throw=throw)
        if moments.m2 is None:
            return WideKernels(None, None, moments.status)
        return WideKernels(torch.from_numpy(moments.m2 * x), torch.from_numpy(moments.m2**2 * x))
    solutions: dict[float, CavitySolution] = {}
    for sigma_x2 in np.diag(x).tolist():
        if sigma_x2 not in solutions:
            solutions[sigma_x2] = cavity_solution(family, V, phi.name, sigma_x2, throw=throw)
            if not solutions[sigma_x2].status.ok:
                return WideKernels(None, None, solutions[sigma_x2].status)
    fields = [_field(phi, solutions[sigma_x2]) for sigma_x2 in np.diag(x).tolist()]
    n = len(fields)
    nngp, ntk = np.empty((n, n)), np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            z2, gains = _pair(fields[i], fields[j], V, x[i, j], same=i == j)
            if V * gains >= 1:
                status = Status(
                    "diverges", f"the NTK diverges at V = {V:g}: V·E φ'φ' is {V * gains:.6g}. Choose a smaller V."
                )
                if throw:
                    raise AnalysisError(status)
                return WideKernels(None, None, status)
            nngp[i, j] = nngp[j, i] = z2
            ntk[i, j] = ntk[j, i] = z2 * gains / (1 - V * gains)
    return WideKernels(torch.from_numpy(nngp), torch.from_numpy(ntk))


def _checked(gram: Tensor | ArrayLike) -> Floats:
    values = gram.detach().cpu().numpy() if isinstance(gram, Tensor) else gram
    x = np.array(values, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] != x.shape[1] or not x.size:
        raise ValueError(f"the Gram matrix has the shape {x.shape}; expected [B, B], the products x·x'/N of B inputs.")
    if not np.isfinite(x).all() or not np.allclose(x, x.T, rtol=1e-9):
        raise ValueError("the Gram matrix is not symmetric, or not finite.")
    if np.diag(x).min() <= 0 or np.linalg.eigvalsh(x)[0] < -1e-9 * np.trace(x):
        raise ValueError(
            "the Gram matrix is not one: it has a negative eigenvalue, or a diagonal that is not positive."
        )
    return np.asarray((x + x.T) / 2, dtype=np.float64)


def _field(phi: Nonlinearity, solution: CavitySolution) -> Field:
    assert solution.echo is not None and solution.field_variance is not None  # noqa: PT018 (the status was looked at)
    return Field(phi, solution.echo, solution.field_variance)


def _pair(one: Field, two: Field, V: float, overlap: float, same: bool) -> tuple[float, float]:
    """E z·z'/N and E γγ' of two inputs with x·x'/N = `overlap`.

    The covariance of the two fields is V·E zz' + aa'·x·x', a fixed point found by Newton's method: its derivative by
    itself is V·E γγ' < 1.
    """
    limit = (one.variance * two.variance) ** 0.5
    echoes = 1.0
    for field in (one, two):  # E φ(h)x' = a·(x·x')·E γ, by Stein's lemma
        h, w = field.nodes()
        echoes += field.a * float(w @ field.gain(h))
    # beyond the critical V two like inputs have, besides their own, a solution that has forgotten that they are one
    covariance = limit if same else overlap * limit / max(abs(overlap), limit)
    for _ in range(100):
        nodes = pair_nodes(one, two, covariance)
        phi = one.phi
        z2 = nodes.expect(phi.value(nodes.first), phi.value(nodes.second)) + overlap * echoes
        gains = nodes.expect(one.gain(nodes.first), two.gain(nodes.second))
        step = (V * z2 + one.a * two.a * overlap - covariance) / max(1 - V * gains, 1e-3)
        new = min(max(covariance + step, -limit), limit)
        if same or abs(new - covariance) <= 1e-11 * limit:
            break
        covariance = new
    return z2, gains
