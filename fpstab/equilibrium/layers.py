"""The equilibrium of a map as a layer."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo  # torch.compiler.disable would import the compiler

from fpstab.equilibrium.adjoints import AdjointRun
from fpstab.equilibrium.anderson import Anderson
from fpstab.equilibrium.configs import Solver, check_count, check_damping
from fpstab.equilibrium.gradients import Implicit, attach
from fpstab.equilibrium.iterations import CONVERGED, FLOOR, OVERFLOWED, RUNNING, STAGNATED, Run
from fpstab.equilibrium.maps import RowMap
from fpstab.equilibrium.solving import (
    check_solver,
    check_tol,
    judge,
    mean_rate,
    prepare,
    run_solver,
    solve_scalars,
)
from fpstab.equilibrium.states import StateLike
from fpstab.results import AnalysisError, Status

OnFailure = Literal["warn", "raise", "mask"]


@dataclass(frozen=True)
class PhantomGradient:
    """The cheap gradient: of a few damped steps from the equilibrium, as if it were a constant (Geng et al. 2021).

    Not the gradient of the equilibrium: one step leaves out all but the first term of (1 − J)⁻¹ = 1 + J + J² + …,
    and the more is missing the closer the spectral radius of J is to 1.

    Attributes:
        steps: How many; each costs as much memory as one evaluation of f.
        damping: Share of each step that is taken, in (0, 1].
    """

    steps: int = 1
    damping: float = 1.0

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        check_damping(self.damping)


@dataclass(frozen=True, slots=True, eq=False)
class SolveStatistics:
    """How a solve went, sample by sample: on the CPU, detached.

    Attributes:
        converged: `[B]`, bool.
        residual: float64 `[B]`; of an adjoint solve relative to √d-th of the gradient.
        iterations: int64 `[B]`.
        rate: Mean factor by which the residual fell in one evaluation, float64 `[B]`.
        n_evals: Evaluations of f, or products with its Jacobian, those of the fallbacks included.
        status: As of `Solution`.
    """

    converged: Tensor
    residual: Tensor
    iterations: Tensor
    rate: Tensor
    n_evals: int
    status: Status


@dataclass(frozen=True, slots=True, eq=False)
class LayerStatistics:
    """How the last solves of a layer went.

    Attributes:
        forward: The equilibrium.
        backward: The adjoint equation of the first derivative; None before a backward pass.
        fallback: Samples whose adjoint equation went to another solver than the layer's.
        dropped: Samples without a gradient: their adjoint equation has not been solved, f overflowed, or the policy
            is `"mask"`.
    """

    forward: SolveStatistics
    backward: SolveStatistics | None = None
    fallback: int = 0
    dropped: int = 0

    def scalars(self) -> dict[str, float]:
        """The numbers that are logged."""
        numbers = {"dropped": float(self.dropped), "fallback": float(self.fallback)}
        for name, solve in (("forward", self.forward), ("backward", self.backward)):
            if solve is not None:
                found = solve_scalars(solve.converged, solve.residual, solve.iterations, solve.rate)
                numbers |= {f"{name}/{key}": value for key, value in found.items()}
        return numbers


class FixedPointLayer(nn.Module):
    """The solution of z = f(z, *args) as a layer, differentiable in the args and in the parameters of f.

    The gradient is that of the equilibrium (implicit function theorem), to any order, in training and in eval mode,
    and takes as much memory as one evaluation of f, however many iterations there were. If f draws random numbers
    (dropout), they are drawn once a call and stay the same for all its evaluations, backward included.

    Args:
        f: A module or function from a state and `args` to the next state, of a batch of any size; no sample may depend
            on another (BatchNorm only in eval mode).
        solver: `Picard`, `Anderson`, `Broyden` or `Auto`: for the equilibrium.
        backward: A solver for the adjoint equation (by default the same), or a `PhantomGradient`.
        tol: Tolerance of the equilibrium, as in `solve`.
        backward_tol: Tolerance of the adjoint equation relative to the gradient; by default `tol`.
        on_failure: If samples have not converged: `"warn"` (once; the best iterate and its gradient are used),
            `"raise"` an AnalysisError, or `"mask"`: they get no gradient (`layer.last.forward.converged` says which,
            for the loss). The gradient of a sample whose adjoint equation resists Anderson acceleration and
            GMRES is dropped, whatever the policy.
        compact: Let samples that are done leave the batch; with `False` f always sees the whole batch.

    Attributes:
        last: `LayerStatistics` of the last call, or None.

    Raises:
        ValueError: If a value is out of its range, or names nothing.
        TypeError: If it is of another type.

    >>> layer = FixedPointLayer(lambda z, x: -2 * z + x)  # z = x/3; plain iteration diverges
    >>> x = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    >>> z = layer(torch.zeros(1, 1, dtype=torch.float64), x)
    >>> z.sum().backward()
    >>> round(z.item(), 6), round(x.grad.item(), 6)
    (0.333333, 0.333333)
    """

    def __init__(
        self,
        f: Callable[..., Any],
        solver: Solver = Anderson(),  # noqa: B008
        backward: Solver | PhantomGradient | None = None,
        *,
        tol: float = 1e-5,
        backward_tol: float | None = None,
        on_failure: OnFailure = "warn",
        compact: bool = True,
    ) -> None:
        super().__init__()
        if not callable(f):
            raise TypeError(f"f is {type(f).__name__}: expected a module or a function.")
        check_solver("solver", solver)
        if backward is not None and not isinstance(backward, PhantomGradient):
            check_solver("backward", backward)
        check_tol("tol", tol)
        if backward_tol is not None:
            check_tol("backward_tol", backward_tol)
        if on_failure not in get_args(OnFailure):
            raise ValueError(f"on_failure={on_failure!r}: expected one of {', '.join(get_args(OnFailure))}.")
        self.f = f
        self.solver = solver
        self.backward: Solver | PhantomGradient = solver if backward is None else backward
        self.tol = tol
        self.backward_tol = tol if backward_tol is None else backward_tol
        self.on_failure = on_failure
        self.compact = compact
        self.last: LayerStatistics | None = None
        self._said: set[str] = set()

    def forward(self, z0: StateLike, *args: object) -> StateLike:
        """Solve, from z0.

        Args:
            z0: The start: `[B, ...]` or a tuple of such tensors. The equilibrium does not depend on it: it gets no
                gradient.
            args: Further arguments of f; tensors are `[B, ...]`.

        Returns:
            The equilibria, like z0.

        Raises:
            AnalysisError: If a sample has not converged and the policy is `"raise"`.
            ValueError: If a shape makes no sense, or f holds BatchNorm in training mode.
            TypeError: If an argument is of the wrong type.
        """
        return _solver_of(self)(z0, args, ())[-1]

    def trajectory(self, z0: StateLike, *args: object, at: Sequence[int]) -> list[StateLike]:
        """The best iterates after some evaluations and, last, the equilibrium: for a fixed-point correction.

        Each iterate has the gradient of one step from it (`PhantomGradient`), the equilibrium that of the layer. See
        `corrected_loss`.

        Args:
            z0: The start.
            args: Further arguments of f.
            at: Numbers of evaluations, ascending.

        Raises:
            ValueError: If `at` is not ascending and positive; and as `forward`.
        """
        for number in at:
            check_count("at", number)
        if list(at) != sorted(set(at)):
            raise ValueError(f"at={tuple(at)}: expected ascending numbers of evaluations.")
        return _solver_of(self)(z0, args, at)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"solver={self.solver}, backward={self.backward}, tol={self.tol}, backward_tol={self.backward_tol}, "
            f"on_failure={self.on_failure!r}, compact={self.compact}"
        )

    def _solve(self, z0: StateLike, args: tuple[object, ...], at: Sequence[int]) -> list[StateLike]:
        layout, rows = prepare(z0, args, self.solver, self.tol)
        equation = RowMap(self.f, layout, args, rows.device, trace=torch.is_grad_enabled())
        run = run_solver(equation, rows, args, self.solver, self.tol, compact=self.compact, snapshots=at)
        if equation.random:
            self._say(
                "random",
                "f draws random numbers (dropout): they are drawn once a call and stay the same for all of its "
                "evaluations, and no sample leaves the batch before the last.",
            )
        idle, z = self._judge(run), run.refined()
        inputs = [arg for arg in args if isinstance(arg, Tensor)]
        if not torch.is_grad_enabled() or not any(x.requires_grad for x in (*inputs, *equation.theta)):
            return [layout.unpack(z) for z in (*run.snapshots, z)]
        states = [self._steps(equation, snapshot, inputs, PhantomGradient()) for snapshot in run.snapshots]
        if isinstance(self.backward, PhantomGradient):
            states.append(self._steps(equation, z, inputs, self.backward, idle))
        else:
            implicit = Implicit(
                self.backward, self.backward_tol, self.compact, self._report, self._checker(equation, run, z, idle)
            )
            states.append(attach(z, equation, inputs, implicit, idle))
        return [layout.unpack(z) for z in states]

    def _steps(
        self,
        equation: RowMap,
        z: Tensor,
        inputs: Sequence[Tensor],
        phantom: PhantomGradient,
        idle: Tensor | None = None,
    ) -> Tensor:
        keep = None if idle is None else (~idle).nonzero().squeeze(1)
        start, inputs = (z, inputs) if keep is None else (z[keep], [x[keep] for x in inputs])
        if keep is not None and (equation.random or not len(keep)):
            return z  # the random numbers belong to places in the batch
        following = start
        for _ in range(phantom.steps):
            value = equation.value(following, inputs)
            following = value if phantom.damping == 1 else torch.lerp(following, value, phantom.damping)
        return following if keep is None else z.index_copy(0, keep, following)

    def _judge(self, run: Run) -> Tensor | None:
        """Record how the solve went; the samples `[B]` without a gradient."""
        status = judge(run, self.solver, self.tol)
        self.last = LayerStatistics(_statistics(run, status))
        if status.ok:
            return None
        failed = (run.code == RUNNING) | (run.code == OVERFLOWED)
        if self.on_failure == "raise" and bool(failed.any()):
            raise AnalysisError(status)
        self._say(status.code, f"{status.message} Said once; layer.last counts them.")
        # f is finite at the best iterate, unless it never was
        idle = failed if self.on_failure == "mask" else run.residual.isinf()
        dropped = int(idle.sum())
        self.last = replace(self.last, dropped=dropped)
        return idle if dropped else None

    def _report(self, adjoint: AdjointRun, order: int) -> None:
        lost = int((~adjoint.solved).sum())
        if lost:
            self._say(
                "adjoint",
                f"The adjoint equation of {lost} of {len(adjoint.solved)} samples could not be solved, not by "
                "GMRES either: their gradients are dropped. Said once; layer.last counts them.",
            )
        if order > 1 or self.last is None:
            return
        run = adjoint.run
        converged = run.code == CONVERGED
        status = judge(run, self.backward, self.backward_tol)  # type: ignore[arg-type]
        statistics = replace(_statistics(run, status), n_evals=adjoint.n_products, converged=converged.cpu())
        self.last = replace(self.last, backward=statistics, fallback=adjoint.fallback, dropped=self.last.dropped + lost)

    def _checker(self, equation: RowMap, run: Run, z: Tensor, idle: Tensor | None) -> Callable[[Tensor], None] | None:
        """Notice that f is another function in the backward pass."""
        if "changed" in self._said or idle is not None:
            return None

        residual, code = run.residual, run.code

        def check(y: Tensor) -> None:
            now = torch.linalg.vector_norm(y - z, dim=1)
            slack = FLOOR * equation.eps * (torch.linalg.vector_norm(y, dim=1) + z.shape[1] ** 0.5)
            settled = (code == CONVERGED) | (code == STAGNATED)
            if bool((settled & (now > 10 * (residual + slack))).any()):
                self._say(
                    "changed",
                    f"f has changed since the forward pass: the residual was {float(residual.amax()):.2g} and is "
                    f"{float(now.amax()):.2g}. Its parameters, a buffer that it updates, or a generator of its own? "
                    "The gradient is not that of the equilibrium.",
                )

        return check

    def _say(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warnings.warn(f"FixedPointLayer: {message}", stacklevel=2)


def _solver_of(layer: FixedPointLayer) -> Callable[..., list[StateLike]]:
    """The loop depends on data: torch.compile of a network goes round it (f may be compiled by itself)."""
    return partial(_not_traced, layer) if torch.compiler.is_compiling() else layer._solve


@_disable_dynamo
def _not_traced(layer: FixedPointLayer, z0: StateLike, args: tuple[object, ...], at: Sequence[int]) -> list[StateLike]:
    return layer._solve(z0, args, at)


def _statistics(run: Run, status: Status) -> SolveStatistics:
    return SolveStatistics(
        (run.code == CONVERGED).cpu(),
        run.residual.double().cpu(),
        run.iterations.cpu(),
        mean_rate(run).cpu(),
        run.n_evals,
        status,
    )
