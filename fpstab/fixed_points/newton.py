"""Newton's method for Φ(x) = x at many points at once: it polishes fixed points and finds those that repel."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpstab.fixed_points.search import Map, chunks, rounding_floor, scale
from fpstab.jacobian.products import JacobianProducts, jacobian_matrix
from fpstab.krylov import gmres
from fpstab.results import AnalysisError

_DENSE = 32  # values of a point up to which I − J is solved directly
_KRYLOV, _PRODUCTS = 60, 180  # restart length of GMRES, products of one solve
_STEP = 1e-10  # relative length of a Newton step at which a root is reached
_NOISE_STEP = 1e-4  # the same where the residual is rounding: a root of higher order is known no better
_ARMIJO, _HALVINGS = 1e-4, 12
_GIVE_UP = 0.5  # share of its residual that an iteration must have removed after some tries


@dataclass(frozen=True, slots=True, eq=False)
class Roots:
    """Where Newton's method went from `S` starts, in their order.

    Attributes:
        x: The last iterates `[S, n]`.
        residual: ‖Φ(x) − x‖ `[S]`.
        step: Length of the last Newton step `[S]`.
        converged: Whether the step is negligible `[S]`.
        n_evals: Evaluations of the map and products with its Jacobian, counted in rows.
    """

    x: Tensor
    residual: Tensor
    step: Tensor
    converged: Tensor
    n_evals: int


def newton(function: Map, starts: Tensor, *, batch_size: int, max_iter: int = 40) -> Roots:
    """Solve Φ(x) = x by Newton–Krylov with Armijo's rule, from every start; rows that are done leave the batch.

    The linear systems (I − J) s = Φ(x) − x are solved by GMRES (directly for up to 32 values). A row ends as not
    converged when the residual cannot be lowered: at a local minimum of the residual that is no fixed point.

    Args:
        function: Maps `[B, n]` to `[B, n]`, each row on its own.
        starts: `[S, n]`.
        batch_size: Rows that are solved together.
        max_iter: Newton steps at most.
    """
    parts = [_newton(function, chunk, max_iter) for chunk in chunks(starts, batch_size)]
    if not parts:
        none = starts.new_empty(0)
        return Roots(starts.clone(), none, none, none.bool(), 0)
    return Roots(
        torch.cat([part.x for part in parts]),
        torch.cat([part.residual for part in parts]),
        torch.cat([part.step for part in parts]),
        torch.cat([part.converged for part in parts]),
        sum(part.n_evals for part in parts),
    )


def newton_error(function: Map, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Residual, Newton step and error bound, each `[B]`, at points `x` `[B, n]` that are taken for fixed points.

    The bound is 2‖s‖ + ‖(I − J)⁻¹‖·δ to first order, s the Newton step and δ what rounding may add to the residual;
    beyond 32 values the norm is estimated from a random vector, on the safe side. It is infinite where I − J is
    singular to rounding or not finite; the step is infinite where the system for it has no solution.
    """
    step, value, solved, _ = _newton_step(function, x, torch.full_like(x[:, 0], 1e-6))
    residual = torch.linalg.vector_norm(value - x, dim=1)
    length = torch.where(solved, torch.linalg.vector_norm(step, dim=1), math.inf)
    floor, n = rounding_floor(x), x.shape[1]
    if n <= _DENSE:
        A = torch.eye(n, dtype=x.dtype, device=x.device) - jacobian_matrix(function, x)
        smallest = torch.linalg.svdvals(_finite(A))[:, -1]
        regular = torch.isfinite(A).all((1, 2)) & (smallest > n * torch.finfo(x.dtype).eps)
        amplification = torch.where(regular, 1 / smallest, math.inf)
    else:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(1, n, generator=generator, dtype=x.dtype).to(x.device)
        probe = (probe / probe.norm()).expand_as(x).contiguous()
        solution = gmres(_products(function, x)[0], probe, tol=1e-2, max_iter=_PRODUCTS, restart=_KRYLOV)
        size = torch.linalg.vector_norm(solution.x, dim=1)
        amplification = torch.where(solution.converged, math.sqrt(n) * size, math.inf)
    return residual, length, 2 * length + amplification * floor


def _newton(function: Map, starts: Tensor, max_iter: int) -> Roots:
    x_out = starts.clone()
    residual_out = torch.full((len(starts),), math.inf, dtype=starts.dtype, device=starts.device)
    step_out, converged_out = residual_out.clone(), torch.zeros_like(residual_out, dtype=torch.bool)
    rows = torch.isfinite(starts).all(1).nonzero()[:, 0]
    x = starts[rows]
    forcing = torch.full_like(x[:, 0], 0.1)
    milestone = torch.full_like(forcing, math.inf)
    n_evals = 0
    for iteration in range(max_iter):
        if not len(rows):
            break
        s, value, solved, products = _newton_step(function, x, forcing)
        r = torch.linalg.vector_norm(value - x, dim=1)
        length = torch.linalg.vector_norm(s, dim=1)
        y, r_y, trials = _line_search(function, x, s, r)
        n_evals += (products + 1) * len(rows) + trials
        here = scale(x)
        moved = r_y < r
        reached = solved & (length <= _STEP * here)
        stuck = ~moved & ~reached
        converged = reached | (stuck & (r <= rounding_floor(x)) & (length <= _NOISE_STEP * here))
        x_next, r_next = torch.where(moved[:, None], y, x), torch.where(moved, r_y, r)
        hopeless = torch.zeros_like(stuck)
        if iteration % 8 == 7:
            hopeless = (r_next > _GIVE_UP * milestone) & (r_next > rounding_floor(x))
            milestone = r_next
        ended = converged | stuck | hopeless | ~torch.isfinite(r)
        x_out[rows], residual_out[rows], step_out[rows], converged_out[rows] = x_next, r_next, length, converged
        stay = (~ended).nonzero()[:, 0]
        forcing = (r_next / here).clamp(1e-6, 0.1)[stay]
        rows, x, milestone = rows[stay], x_next[stay], milestone[stay]
    return Roots(x_out, residual_out, step_out, converged_out, n_evals)


def _line_search(function: Map, x: Tensor, s: Tensor, r: Tensor) -> tuple[Tensor, Tensor, int]:
    """The first of x + s, x + s/2, … whose residual is lower by Armijo's rule, its residual, and the evaluations.

    Where there is none the residual is that of the last trial, which is then not lower than `r`.
    """
    y, r_y = x.clone(), torch.full_like(r, math.inf)
    pending = torch.isfinite(s).all(1).nonzero()[:, 0]
    t, evaluations = 1.0, 0
    for _ in range(_HALVINGS):
        if not len(pending):
            break
        trial = x[pending] + t * s[pending]
        with torch.no_grad():
            r_trial = torch.linalg.vector_norm(function(trial) - trial, dim=1)
        evaluations += len(pending)
        good = r_trial <= (1 - _ARMIJO * t) * r[pending]
        y[pending[good]], r_y[pending[good]] = trial[good], r_trial[good]
        pending = pending[~good]
        t /= 2
    return y, r_y, evaluations


def _newton_step(function: Map, x: Tensor, forcing: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """(I − J)⁻¹ (Φ(x) − x) `[B, n]`, the value Φ(x), whether it solves the system `[B]`, and the products it took.

    Where I − J is singular and the residual not in its range, an orbit crawls past: what the step leaves of the
    residual is more than rounding, and however short the step is, it reaches nothing. Where the Jacobian is not
    finite, neither is the step.
    """
    n = x.shape[1]
    if n > _DENSE:
        matvec, value = _products(function, x)
        counted = _Counted(matvec)
        F = value - x
        solution = gmres(counted, F, tol=_per_row(forcing), max_iter=_PRODUCTS, restart=_KRYLOV)
        return solution.x, value, solution.converged | (solution.residual <= rounding_floor(x)), counted.calls
    with torch.no_grad():
        value = function(x)
    A = torch.eye(n, dtype=x.dtype, device=x.device) - jacobian_matrix(function, x)
    finite = torch.isfinite(A).all((1, 2))
    A, F = _finite(A), (value - x)[:, :, None]
    step, info = torch.linalg.solve_ex(A, F)
    size = torch.linalg.vector_norm(step[:, :, 0], dim=1)
    wild = (info != 0) | ~(size <= 1e8 * scale(x))
    solved = finite.clone()
    if bool(wild.any()):  # singular: the shortest step
        step[wild] = torch.linalg.pinv(A[wild], rtol=1e-10) @ _finite(F[wild])
        left = torch.linalg.vector_norm((F[wild] - A[wild] @ step[wild])[:, :, 0], dim=1)
        solved[wild] &= left <= rounding_floor(x[wild])
    step = torch.where(finite[:, None], step[:, :, 0], math.nan)
    return step, value, solved, n + 1


class _Counted:
    """A matvec that counts its calls."""

    def __init__(self, matvec: Callable[[Tensor], Tensor]) -> None:
        self.matvec, self.calls = matvec, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.calls += 1
        return self.matvec(v)


def _products(function: Map, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The operator v ↦ (I − J)v at the rows of `x`, and Φ(x)."""
    jacobian = JacobianProducts(function, x)
    try:
        jacobian.jvp(torch.ones_like(x))
    except AnalysisError:  # no second derivative: by central differences
        return lambda v: v - _difference(function, x, v), jacobian.value
    return lambda v: v - jacobian.jvp(v), jacobian.value


def _difference(function: Map, x: Tensor, v: Tensor) -> Tensor:
    size = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    h = torch.finfo(x.dtype).eps ** (1 / 3) * scale(x)[:, None] / size.clamp_min(torch.finfo(x.dtype).tiny)
    with torch.no_grad():
        difference: Tensor = (function(x + h * v) - function(x - h * v)) / (2 * h)
    return difference


def _per_row(tol: Tensor) -> Any:
    """A tolerance for each row, as `gmres` takes it."""
    return tol


def _finite(A: Tensor) -> Tensor:
    """LAPACK refuses batches in which one matrix holds a nan; the row's residual tells."""
    return A.nan_to_num(0.0, 0.0, 0.0)
