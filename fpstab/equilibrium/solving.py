"""Solve a fixed-point equation for every sample of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from fpstab.equilibrium.anderson import Anderson
from fpstab.equilibrium.configs import Solver, check_number
from fpstab.equilibrium.iterations import CONVERGED, OVERFLOWED, RUNNING, STAGNATED, Run, iterate
from fpstab.equilibrium.maps import RowMap, full_precision
from fpstab.equilibrium.states import Layout, StateLike, check_args
from fpstab.results import OK, AnalysisError, Status


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Where the solve ended, sample by sample.

    Attributes:
        z: The best iterates, always finite: a tensor or a tuple of tensors like z0, of its dtype and device, detached.
        converged: ‖f(z) − z‖ ≤ tol·(‖f(z)‖ + √d) `[B]`, on the device of z like all that follows.
        residual: ‖f(z) − z‖ of these iterates, float64 `[B]`; infinite if f never gave a finite value.
        iterations: Evaluations of f that the sample took part in, int64 `[B]`.
        rate: Mean factor by which the residual fell from one evaluation to the next, float64 `[B]`; nan after only one.
        n_evals: Evaluations of f.
        tol: The tolerance.
        status: `"ok"`; `"overflow"` (f(z) is not finite for some sample), `"max_iter"` (some sample is not there after
            `max_iter` evaluations), `"stagnated"` (some sample is as close as the rounding of f allows, and the
            tolerance asks for more). The worst of these, in this order.
    """

    z: StateLike
    converged: Tensor
    residual: Tensor
    iterations: Tensor
    rate: Tensor
    n_evals: int
    tol: float
    status: Status

    def scalars(self) -> dict[str, float]:
        """The numbers that are logged."""
        return solve_scalars(self.converged, self.residual, self.iterations, self.rate)


def solve(
    f: Callable[..., Any],
    z0: StateLike,
    args: Sequence[object] = (),
    *,
    solver: Solver = Anderson(memory=5, max_iter=50),  # noqa: B008
    tol: float = 1e-5,
    compact: bool = True,
    throw: bool = True,
) -> Solution:
    """Solve z = f(z, *args) for every sample of a batch, without gradients (`FixedPointLayer` has them).

    A sample is done when ‖f(z) − z‖ ≤ tol·(‖f(z)‖ + √d), d its number of coordinates; it is then left alone, and
    leaves the batch together with others. One whose f(z) overflows ends with its best iterate and leaves the
    others as they are. If f draws random numbers (dropout), they are drawn once and stay the same in every evaluation;
    then nobody leaves the batch.

    Args:
        f: Maps a state and `args`, of a batch of any size, to the next state. No sample may depend on another.
        z0: The start: `[B, ...]`, or a tuple of such tensors.
        args: Further arguments of f. Tensors are `[B, ...]` and leave the batch with their samples; anything else
            is handed on.
        solver: `Picard`, `Anderson`, `Broyden` or `Auto`.
        tol: Relative tolerance, and absolute per coordinate.
        compact: Let samples that are done leave the batch; with `False` f always sees the whole batch.
        throw: Raise if not all samples have converged; otherwise say so in the status.

    Raises:
        ValueError: If a shape or `tol` makes no sense, or f holds BatchNorm in training mode.
        TypeError: If an argument is of the wrong type.
        AnalysisError: If `throw` and a sample has not converged.

    >>> solution = solve(torch.cos, torch.zeros(1, 1, dtype=torch.float64), tol=1e-12)
    >>> solution.z.item(), solution.n_evals < 15
    (0.739085133215..., True)
    """
    layout, rows = prepare(z0, args, solver, tol)
    equation = RowMap(f, layout, args, rows.device, trace=False)
    run = run_solver(equation, rows, args, solver, tol, compact=compact)
    status = judge(run, solver, tol)
    if throw and not status.ok:
        raise AnalysisError(status)
    return Solution(
        layout.unpack(run.z),
        run.code == CONVERGED,
        run.residual.double(),
        run.iterations,
        mean_rate(run),
        run.n_evals,
        tol,
        status,
    )


def prepare(z0: StateLike, args: Sequence[object], solver: Solver, tol: float) -> tuple[Layout, Tensor]:
    """Check the arguments; the layout of the state and its rows, detached."""
    check_solver("solver", solver)
    check_tol("tol", tol)
    layout = Layout.of(z0)
    rows = layout.pack(z0).detach()
    check_args(args, len(rows))
    return layout, rows


def check_solver(name: str, solver: object) -> None:
    """Refuse what is not a solver's config."""
    if not isinstance(solver, Solver):
        raise TypeError(f"{name}={solver!r}: expected Picard(), Anderson(), Broyden() or Auto().")


def check_tol(name: str, tol: float) -> None:
    """Refuse a tolerance outside (0, 1)."""
    check_number(name, tol)
    if not 0 < tol < 1:
        raise ValueError(f"{name}={tol}: expected a number between 0 and 1.")


def run_solver(
    equation: RowMap,
    rows: Tensor,
    args: Sequence[object],
    solver: Solver,
    tol: float,
    *,
    compact: bool,
    snapshots: Sequence[int] = (),
) -> Run:
    """Solve without gradients; weights under a parametrization are computed once."""
    inputs = [arg.detach() for arg in args if isinstance(arg, Tensor)]

    def bind(some: Tensor | None) -> Callable[[Tensor], Tensor]:
        return equation.bind([x if some is None else x.index_select(0, some) for x in inputs])

    with torch.no_grad(), parametrize.cached(), full_precision(rows.device):
        return iterate(
            bind,
            rows,
            solver,
            tol,
            eps=lambda: equation.eps,
            compact=lambda: compact and not equation.random,
            snapshots=snapshots,
        )


def judge(run: Run, solver: Solver, tol: float) -> Status:
    """The status of a solve, in words."""
    n = len(run.code)
    counts = torch.bincount(run.code, minlength=4).tolist()
    if counts[CONVERGED] == n:
        return OK
    if counts[OVERFLOWED]:
        row = int((run.code == OVERFLOWED).nonzero()[0])
        return Status(
            "overflow",
            f"f(z) is not finite for {counts[OVERFLOWED]} of {n} samples (the first is {row}), which end at their best "
            f"iterate{_and(counts[RUNNING], 'have not converged')}. Look at their inputs, and at the norm of the "
            "weights: f should map bounded sets to bounded sets.",
        )
    worst = float(run.residual.amax())
    if counts[RUNNING]:
        return Status(
            "max_iter",
            f"{counts[RUNNING]} of {n} samples have not converged after {solver.max_iter} evaluations; the largest "
            f"residual is {worst:.2g}. Raise max_iter or tol, take another solver, or make f more contractive.",
        )
    return Status(
        "stagnated",
        f"The residual of {counts[STAGNATED]} of {n} samples has stopped falling, at {worst:.2g} or below: that is the "
        f"floor of the dtype that f computes in, and tol={tol:g} asks for less. Raise tol, or use a wider dtype.",
    )


def mean_rate(run: Run) -> Tensor:
    """Geometric mean of the residual's factors `[B]`, float64."""
    steps = (run.iterations - 1).double()
    return torch.where(steps > 0, (run.residual.double() / run.first.double()) ** (1 / steps), torch.nan)


def solve_scalars(converged: Tensor, residual: Tensor, iterations: Tensor, rate: Tensor) -> dict[str, float]:
    """What is logged of a solve."""
    return {
        "iterations_mean": float(iterations.double().mean()),
        "iterations_max": float(iterations.max()),
        "unconverged": 1 - float(converged.double().mean()),
        "residual_max": float(residual.max()),
        "residual_median": float(residual.median()),
        "rate_median": float(rate.nanmedian()),
    }


def _and(count: int, what: str) -> str:
    return f"; {count} more {what}" if count else ""
