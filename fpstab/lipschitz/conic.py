"""The same matrix inequality through cvxpy, for whatever conic solver is installed.

One sparse linear map takes (ρ, T) to the entries of M: cvxpy compiles it in no time, where the textbook's products of
diagonal and block matrices take seconds.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from fpstab.lipschitz.inequality import Inequality
from fpstab.rounding import Array

if TYPE_CHECKING:
    import cvxpy as cp

# The conic solvers of cvxpy that take semidefinite constraints, and the largest size of the matrix that each is given.
# Clarabel factorises a dense system in all n(n+1)/2 entries (4.7 GB at n = 210); SCS takes minutes beyond its limit.
_MOST = {
    "CLARABEL": 100,
    "CVXOPT": 150,
    "SDPA": 300,
    "SCS": 400,
    "MOSEK": 400,
    "COPT": 400,
    "COSMO": 300,
    "CUCLARABEL": 100,
}
_PACKAGES = {"SDPA": "sdpa-python", "COSMO": "cosmo-python", "CUCLARABEL": "cuclarabel"}  # others: extras of cvxpy


@dataclass(frozen=True, slots=True, eq=False)
class ConicSolution:
    """What a conic solver said; none of it is certified.

    Attributes:
        T: `[m]` multipliers.
        rho: The solver's value.
        X: `[n, n]` its dual matrix, or None.
        solver: Its name.
        status: cvxpy's status.
    """

    T: Array
    rho: float
    X: Array | None
    solver: str
    status: str


def choose_solver(backend: str, n: int) -> str:
    """The solver that `backend`, "cvxpy" or "cvxpy:SOLVER", means for a matrix of size n.

    Raises:
        ModuleNotFoundError: If the solver is not installed; says what to install.
        ValueError: If the solver cannot solve semidefinite programs, or the problem is too large for it.
    """
    import cvxpy as cp

    installed = cp.installed_solvers()  # type: ignore[no-untyped-call]
    _, _, name = backend.partition(":")
    name = name.upper()
    if not name:
        name = "CLARABEL" if "CLARABEL" in installed and n <= _MOST["CLARABEL"] else "SCS"
    if name not in _MOST:
        raise ValueError(
            f"backend={backend!r}: {name!r} is none of cvxpy's semidefinite solvers: {', '.join(sorted(_MOST))}."
        )
    if name not in installed:
        package = _PACKAGES.get(name, f"cvxpy[{name.lower()}]")
        raise ModuleNotFoundError(
            f"backend={backend!r}: the solver {name} is not installed. Install it with: pip install '{package}', "
            "or use backend='native'."
        )
    if n > _MOST[name]:
        raise ValueError(
            f"backend={backend!r}: a matrix inequality of size {n} is too large for {name} (up to {_MOST[name]}): it would "
            "run out of memory or time. Use backend='native'."
        )
    return name


def solve(
    inequality: Inequality,
    solver: str,
    *,
    shares: Array | None = None,
    time_limit: float | None = None,
    options: dict[str, Any] | None = None,
) -> ConicSolution:
    """Minimise ρ with a conic solver at its own tolerances.

    Args:
        inequality: M.
        solver: The solver's name, see `choose_solver`.
        shares: P, where T = P t; the identity if None.
        time_limit: Seconds, for the solvers that know of such.
        options: Passed to the solver.

    Raises:
        cvxpy.SolverError: If the solver failed and left nothing.
    """
    import cvxpy as cp

    problem, variables, constraint, unit = build(inequality, shares)
    options = dict(options or {})
    if time_limit is not None and solver in ("SCS", "CLARABEL"):
        options["time_limit" if solver == "CLARABEL" else "time_limit_secs"] = time_limit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Solution may be inaccurate": that is what the certificate is for
        problem.solve(solver=solver, **options)  # type: ignore[no-untyped-call]
    values = variables.value
    if values is None or not np.isfinite(values).all():
        raise cp.SolverError(f"{solver} ended with status {problem.status!r} and no multipliers.")
    values = values * unit
    T = np.maximum(values[1:], 0.0)
    X = constraint.dual_value
    return ConicSolution(
        T if shares is None else shares @ T,
        float(values[0]),
        None if X is None else np.asarray(X, dtype=float),
        solver,
        str(problem.status),
    )


def build(
    inequality: Inequality, shares: Array | None = None
) -> "tuple[cp.Problem, cp.Variable, cp.Constraint, float]":
    """The cvxpy problem, its variable (ρ, t)/unit, its matrix constraint, and the unit."""
    import cvxpy as cp

    n = len(inequality.K)
    linear_map = _linear_map(inequality, shares)
    unit = float(np.abs(inequality.K).max()) or 1.0
    variables = cp.Variable(linear_map.shape[1])
    M = (linear_map @ variables).reshape((n, n), order="F") - inequality.K / unit
    constraint: Any = M >> 0
    problem = cp.Problem(cp.Minimize(variables[0]), [constraint, variables[1:] >= 0])
    return problem, variables, constraint, unit


def _linear_map(inequality: Inequality, shares: Array | None) -> scipy.sparse.csc_array:
    """(ρ, t) -> vec(linear(ρ, P t)), `[n², 1 + k]`, sparse."""
    n, n_in, m = len(inequality.K), inequality.n_in, len(inequality.alpha)
    G = np.zeros((m, n))
    for block in inequality.blocks:
        G[block.rows, block.columns] = block.weight.mid
    columns = [scipy.sparse.csc_array(np.diag(inequality.e0).reshape(-1, 1))]
    rows, places, values = [], [], []
    for i in range(m):
        e = np.zeros(n)
        e[n_in + i] = 1.0
        u, v = e - inequality.alpha[i] * G[i], e - inequality.beta[i] * G[i]
        seen = np.flatnonzero((u != 0.0) | (v != 0.0))
        piece = np.outer(u[seen], v[seen])
        piece = piece + piece.T
        r, c = np.meshgrid(seen, seen, indexing="ij")
        nonzero = piece != 0.0
        rows.append((r + n * c)[nonzero])
        places.append(np.full(int(nonzero.sum()), i))
        values.append(piece[nonzero])
    T_map = scipy.sparse.csc_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(places))), shape=(n * n, m)
    )
    if shares is not None:
        T_map = scipy.sparse.csc_array(T_map @ scipy.sparse.csc_array(shares))
    return scipy.sparse.csc_array(scipy.sparse.hstack([*columns, T_map]))
