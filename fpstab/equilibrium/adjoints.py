"""The linear equation behind the gradient of an equilibrium: u = Jᵀu + g, and what is done when it resists."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fpstab.equilibrium.anderson import Anderson
from fpstab.equilibrium.configs import Solver
from fpstab.equilibrium.iterations import CONVERGED, STAGNATED, Run, iterate
from fpstab.equilibrium.maps import full_precision
from fpstab.equilibrium.picard import Picard
from fpstab.krylov import gmres

# The last resort, of which every product costs as much as an iteration
GMRES_PRODUCTS = 100


class Equation(Protocol):
    """z = F(z, inputs), row by row; F may use further leaf tensors, `theta`."""

    @property
    def theta(self) -> tuple[Tensor, ...]: ...  # noqa: D102
    @property
    def random(self) -> bool: ...  # noqa: D102
    @property
    def eps(self) -> float: ...  # noqa: D102

    def value(self, z: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """F `[B, d]` in the grad mode of the caller."""


class AdjointEquation:
    """u = Jᵀu + g with the Jacobian J of another equation: inputs are (z, *its inputs, g)."""

    def __init__(self, base: Equation) -> None:
        self.base = base

    @property
    def theta(self) -> tuple[Tensor, ...]:
        """Those of the other equation."""
        return self.base.theta

    @property
    def random(self) -> bool:
        """As the other equation."""
        return self.base.random

    @property
    def eps(self) -> float:
        """As the other equation."""
        return self.base.eps

    def value(self, z: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Jᵀz + g `[B, d]`, differentiable in z, in the inputs (leaves) and in theta."""
        at, *rest, g = inputs
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            leaf = at if at.is_leaf and at.requires_grad else at.detach().requires_grad_()
            y = self.base.value(leaf, rest)
            return transposed_product(y, leaf, z, create_graph=create) + g


def transposed_product(y: Tensor, z: Tensor, u: Tensor, *, create_graph: bool = False) -> Tensor:
    """Jᵀu for the Jacobian J of y in z; the graph of y stays."""
    if not y.requires_grad:
        return torch.zeros_like(u)
    (product,) = torch.autograd.grad(y, z, u, retain_graph=True, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(u) if product is None else product


@dataclass(frozen=True, slots=True, eq=False)
class AdjointRun:
    """u `[B, d]` and how it was found.

    Attributes:
        u: The solution; zero for the samples that have none.
        solved: Whether it has `[B]`.
        run: Of the solver, for g scaled to one per coordinate.
        n_products: Products with Jᵀ, those of the fallbacks included.
        fallback: Samples that the fallbacks were tried on.
    """

    u: Tensor
    solved: Tensor
    run: Run
    n_products: int
    fallback: int


def solve_adjoint(
    equation: Equation,
    z: Tensor,
    inputs: Sequence[Tensor],
    g: Tensor,
    solver: Solver,
    tol: float,
    *,
    compact: bool,
    product: Callable[[Tensor], Tensor] | None = None,
) -> AdjointRun:
    """Solve u = Jᵀu + g at z, row by row, without gradients.

    Samples that the solver leaves unsolved go to Anderson acceleration (from plain iteration) and then to GMRES.

    Args:
        equation: Whose Jacobian it is.
        z: Where `[B, d]`.
        inputs: Its inputs.
        g: Right-hand sides `[B, d]`.
        solver: For the linear equation.
        tol: Relative tolerance.
        compact: Let samples that are done leave the batch.
        product: u ↦ Jᵀu of the whole batch, if it is there already.
    """
    # A gradient has any size, and the tolerance an absolute part: solve for one per coordinate
    size = torch.linalg.vector_norm(g, dim=1, keepdim=True) / math.sqrt(g.shape[1])
    sound = size.isfinite() & (size > 0)
    size = torch.where(sound, size, 1)
    scaled = torch.where(sound, g / size, 0)
    compact = compact and not equation.random

    def products(rows: Tensor | None) -> Callable[[Tensor], Tensor]:
        if rows is None and product is not None:
            return product
        at, rest = (z, inputs) if rows is None else (z[rows], [x[rows] for x in inputs])
        with torch.enable_grad():
            leaf = at.detach().requires_grad_()
            y = equation.value(leaf, [x.detach() for x in rest])
        return lambda u: transposed_product(y, leaf, u)

    def bind(rows: Tensor | None) -> Callable[[Tensor], Tensor]:
        times, right = products(rows), scaled if rows is None else scaled[rows]
        return lambda u: times(u) + right

    with torch.no_grad(), full_precision(g.device):
        run = iterate(bind, scaled, solver, tol, eps=lambda: equation.eps, compact=lambda: compact)
        u, solved, n = run.refined(), (run.code == CONVERGED) | (run.code == STAGNATED), run.n_evals
        fallback = int((~solved).sum())
        if fallback:
            u, solved, more = _fall_back(products, scaled, u, solved, solver, tol, equation, compact)
            n += more
        solved = solved & (sound | (g == 0).all(1, keepdim=True)).squeeze(1)
        return AdjointRun(torch.where(solved.unsqueeze(1), u * size, 0), solved, run, n, fallback)


def _fall_back(
    products: Callable[[Tensor | None], Callable[[Tensor], Tensor]],
    g: Tensor,
    u: Tensor,
    solved: Tensor,
    solver: Solver,
    tol: float,
    equation: Equation,
    compact: bool,
) -> tuple[Tensor, Tensor, int]:
    """Anderson acceleration after plain iteration, then GMRES, for the samples that are left."""
    rows = None if equation.random else (~solved).nonzero().squeeze(1)
    left = g if rows is None else g[rows]
    times = products(rows)
    found, n = torch.zeros_like(solved if rows is None else solved[rows]), 0
    best = u if rows is None else u[rows]
    if isinstance(solver, Picard):
        config = Anderson(max_iter=solver.max_iter)
        run = iterate(
            lambda _: lambda v: times(v) + left, best, config, tol, eps=lambda: equation.eps, compact=lambda: False
        )
        best, found, n = run.refined(), (run.code == CONVERGED) | (run.code == STAGNATED), run.n_evals
    if not bool(found.all()):
        right = torch.where(found.unsqueeze(1), 0, left)
        linear = gmres(lambda v: v - times(v), right, tol=tol, max_iter=GMRES_PRODUCTS)
        close = linear.converged & linear.x.isfinite().all(1)
        best = torch.where((~found & close).unsqueeze(1), linear.x, best)
        found, n = found | close, n + linear.n_products
    if rows is None:
        return torch.where(solved.unsqueeze(1), u, best), solved | found, n
    return u.index_copy(0, rows, best), solved.index_copy(0, rows, found), n
