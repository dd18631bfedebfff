"""The loop that all solvers share: when a sample is done, and what becomes of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.equilibrium.configs import Solver

RUNNING, CONVERGED, STAGNATED, OVERFLOWED = range(4)

# Where a residual stops falling is a matter of rounding: eps of each entry, times what f's sums lose. (float32, d = 512:
# 1 to 3 eps of |f|.)
FLOOR = 16
# A sample is stuck at the floor if this many evaluations lowered its residual by less than a twentieth.
STALL = 10

# Samples that are done leave the batch when they are this share of it; earlier, copying the rest costs more.
LEAVING = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What the loop hands back, a row a sample.

    Attributes:
        z: The best iterate `[B, d]`, finite.
        fz: f of it `[B, d]`; where f never was finite, the iterate.
        residual: Norm of f(z) − z `[B]`; infinite if f(z) never was finite.
        first: The same at the start `[B]`.
        code: `CONVERGED`, `STAGNATED`, `OVERFLOWED` or, out of iterations, `RUNNING` `[B]`.
        iterations: Evaluations of f that the sample took part in `[B]`.
        n_evals: Evaluations of f.
        snapshots: The iterates `[B, d]` at the evaluations that were asked for.
    """

    z: Tensor
    fz: Tensor
    residual: Tensor
    first: Tensor
    code: Tensor
    iterations: Tensor
    n_evals: int
    snapshots: tuple[Tensor, ...]

    def refined(self) -> Tensor:
        """The last evaluations where they converged, one step nearer wherever f contracts; else the best iterates."""
        converged = self.code == CONVERGED
        return self.fz if bool(converged.all()) else torch.where(converged.unsqueeze(1), self.fz, self.z)


def iterate(
    bind: Callable[[Tensor | None], Callable[[Tensor], Tensor]],
    z: Tensor,
    solver: Solver,
    tol: float,
    *,
    eps: Callable[[], float],
    compact: Callable[[], bool],
    snapshots: Sequence[int] = (),
) -> Run:
    """Solve z = f(z) row by row, until ‖f(z) − z‖ ≤ tol·(‖f(z)‖ + √d).

    Args:
        bind: Gives f for these rows of the batch (`None` for all).
        z: The start `[B, d]`.
        solver: Its config.
        tol: Relative, and absolute per coordinate.
        eps: Rounding of f, asked after an evaluation.
        compact: Whether samples that are done may leave the batch, asked after an evaluation.
        snapshots: Evaluations after which to keep the iterate.
    """
    d = z.shape[1]
    finite = z.isfinite().all(1)
    z = torch.where(finite.unsqueeze(1), z, 0)
    f, state = bind(None), solver.start(z)
    frame = _Frame.of(z)
    out: _Frame | None = None  # of the whole batch, once somebody has left it
    rows: Tensor | None = None
    kept: list[Tensor] = []
    root = math.sqrt(d)
    tiny, mark = eps(), frame.residual
    evaluations, some_done = 0, False

    for evaluations in range(1, solver.max_iter + 1):
        fz = f(z)
        r = fz - z
        norm, size = torch.linalg.vector_norm(r, dim=1), torch.linalg.vector_norm(fz, dim=1)
        if evaluations == 1:
            norm = torch.where(finite, norm, math.inf)
            frame.first = norm
            tiny = eps()
        scale = size + root
        running = frame.code == RUNNING
        overflowed = ~norm.isfinite()
        converged = (norm <= tol * scale) & ~overflowed
        better = norm < frame.residual
        # One question to the device a round
        any_done, all_better = torch.stack(((converged | overflowed).any(), better.all())).tolist()
        if all_better and not some_done:
            frame.z, frame.fz, frame.residual, frame.scale = z, fz, norm, scale
        else:
            better &= running
            frame.z = torch.where(better.unsqueeze(1), z, frame.z)
            frame.fz = torch.where(better.unsqueeze(1), fz, frame.fz)
            frame.residual = torch.where(better, norm, frame.residual)
            frame.scale = torch.where(better, scale, frame.scale)
        if any_done or some_done:
            frame.end(running & overflowed, OVERFLOWED, evaluations)
            frame.end(running & converged, CONVERGED, evaluations)
        last = evaluations == solver.max_iter
        if evaluations % STALL == 0 or last:
            at_floor = (frame.residual <= FLOOR * tiny * frame.scale) & frame.residual.isfinite()
            stuck = at_floor if last else at_floor & (frame.residual > 0.95 * mark)
            frame.end(stuck & (frame.code == RUNNING), STAGNATED, evaluations)
            mark = frame.residual
            any_done = True
        if evaluations in snapshots:
            kept.append(_whole(out, frame, rows).z)
        if any_done:
            left = int((frame.code == RUNNING).sum())
            some_done = left < len(z)
            if not left:
                break
        if last:
            break
        following = state.step(z, fz, r)
        if some_done:
            if compact() and left <= (1 - LEAVING) * len(z):
                out = _whole(out, frame, rows)
                stay = (frame.code == RUNNING).nonzero().squeeze(1)
                rows = stay if rows is None else rows.index_select(0, stay)
                following, mark = following.index_select(0, stay), mark.index_select(0, stay)
                frame = frame.select(stay)
                state.keep(stay)
                f = bind(rows)
                some_done = False
            else:
                following = torch.where((frame.code == RUNNING).unsqueeze(1), following, frame.z)
        z = following

    frame.iterations = torch.where(frame.code == RUNNING, evaluations, frame.iterations)
    whole = _whole(out, frame, rows)
    while len(kept) < len(snapshots):
        kept.append(whole.z)
    return Run(whole.z, whole.fz, whole.residual, whole.first, whole.code, whole.iterations, evaluations, tuple(kept))


@dataclass(slots=True, eq=False)
class _Frame:
    """The samples that are in the batch: their best iterates, and how they are doing."""

    z: Tensor
    fz: Tensor
    residual: Tensor
    scale: Tensor  # ‖f(z)‖ + √d there
    first: Tensor
    code: Tensor
    iterations: Tensor

    @classmethod
    def of(cls, z: Tensor) -> "_Frame":
        infinite = z.new_full((len(z),), math.inf)
        nothing = torch.zeros(len(z), dtype=torch.int64, device=z.device)
        return cls(z, z, infinite, infinite, infinite, nothing, nothing)

    def tensors(self) -> tuple[Tensor, ...]:
        return self.z, self.fz, self.residual, self.scale, self.first, self.code, self.iterations

    def end(self, rows: Tensor, code: int, evaluations: int) -> None:
        self.code = torch.where(rows, code, self.code)
        self.iterations = torch.where(rows, evaluations, self.iterations)

    def select(self, rows: Tensor) -> "_Frame":
        return _Frame(*(tensor.index_select(0, rows) for tensor in self.tensors()))


def _whole(out: _Frame | None, frame: _Frame, rows: Tensor | None) -> _Frame:
    """The frame of the whole batch, brought up to date."""
    if out is None or rows is None:
        return _Frame(*frame.tensors())
    return _Frame(*(old.index_copy(0, rows, new) for old, new in zip(out.tensors(), frame.tensors(), strict=True)))
