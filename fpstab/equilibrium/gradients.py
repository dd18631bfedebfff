"""Gradients of an equilibrium by the implicit function theorem, to any order.

z = F(z, θ) has dz = (1 − J)⁻¹ ∂F/∂θ dθ, J = ∂F/∂z. A cotangent g of z becomes u = Jᵀu + g, and u the cotangents of the
inputs, (∂F/∂θ)ᵀu. Both depend on z, on the inputs and on g. The first is again an equilibrium and has its gradient by
the same rule; the second is a product with a Jacobian, whose gradient is another. So the derivatives of every order are
right, and none of them needs the iterates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fpstab.equilibrium.adjoints import AdjointEquation, AdjointRun, Equation, solve_adjoint, transposed_product
from fpstab.equilibrium.configs import Solver


@dataclass(frozen=True, slots=True, eq=False)
class Implicit:
    """How the adjoint equation is solved.

    Attributes:
        solver: Its config.
        tol: Its relative tolerance.
        compact: Let samples that are done leave the batch.
        report: Is told how a solve went, and for a derivative of which order.
        check: Is told of f at the equilibrium `[B, d]`, evaluated once more (idle samples: somebody else's).
        order: Of the derivative.
    """

    solver: Solver
    tol: float
    compact: bool
    report: Callable[[AdjointRun, int], None]
    check: Callable[[Tensor], None] | None = None
    order: int = 1


def attach(
    z: Tensor, equation: Equation, inputs: Sequence[Tensor], implicit: Implicit, idle: Tensor | None = None
) -> Tensor:
    """The equilibrium z `[B, d]` of an equation, as a differentiable function of its inputs and of theta.

    Args:
        z: Its value.
        equation: The equation.
        inputs: Its inputs, connected to whatever they come from.
        implicit: How to solve the adjoint equation.
        idle: Samples `[B]` that get no gradient.
    """
    problem = _Problem(equation, implicit, z, len(inputs), idle)
    output: Tensor = _Equilibrium.apply(problem, *inputs, *equation.theta)
    return output


@dataclass(slots=True, eq=False)
class _Problem:
    equation: Equation
    implicit: Implicit
    z: Tensor | None  # until it is the output
    n_inputs: int
    idle: Tensor | None


class _Equilibrium(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: _Problem, *tensors: Tensor) -> Tensor:
        z, problem.z = problem.z, None
        assert z is not None
        ctx.problem = problem
        ctx.save_for_backward(z, *tensors)
        return z

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        problem: _Problem = ctx.problem
        z, *tensors = ctx.saved_tensors
        inputs, theta = tensors[: problem.n_inputs], tensors[problem.n_inputs :]
        pull = _pull_differentiably if torch.is_grad_enabled() else _pull
        return None, *pull(problem, z, inputs, theta, g, ctx.needs_input_grad[1:])


def _pull(
    problem: _Problem, z: Tensor, inputs: list[Tensor], theta: list[Tensor], g: Tensor, needs: Sequence[bool]
) -> list[Tensor | None]:
    """Cotangents of the inputs and of theta, by one graph of F that serves all products."""
    implicit, idle = problem.implicit, problem.idle
    if (graph := _graph(problem, z, inputs, needs, idle)) is None:
        return _zeros((*inputs, *theta), needs)
    y, at, leaves = graph
    if implicit.check is not None:
        implicit.check(y.detach())
    adjoint = solve_adjoint(
        problem.equation,
        at,
        leaves,
        _masked(g, idle),
        implicit.solver,
        implicit.tol,
        compact=implicit.compact,
        product=lambda u: transposed_product(y, at, u),
    )
    implicit.report(adjoint, implicit.order)
    if not bool(adjoint.solved.all()):
        # once more without them: zero times what is not finite in their graph is not zero
        idle = _or(idle, ~adjoint.solved)
        if (graph := _graph(problem, z, inputs, needs, idle)) is None:
            return _zeros((*inputs, *theta), needs)
    y, at, leaves = graph
    wanted = [x for x, need in zip((*leaves, *theta), needs, strict=True) if need]
    found = iter(_products([y], wanted, [adjoint.u], create_graph=False))
    return _of_samples([next(found) if need else None for need in needs], len(inputs), idle)


def _graph(
    problem: _Problem, z: Tensor, inputs: list[Tensor], needs: Sequence[bool], idle: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]] | None:
    """F at the equilibrium with its graph, z and the inputs as its leaves; None if all samples are idle."""
    places = _substitutes(idle)
    if places is not None and not len(places):
        return None
    at, leaves = _select(z, inputs, places)
    at = at.detach().requires_grad_()
    leaves = [x.detach().requires_grad_(need) for x, need in zip(leaves, needs[: len(inputs)], strict=True)]
    with torch.enable_grad():
        return problem.equation.value(at, leaves), at, leaves


def _pull_differentiably(
    problem: _Problem, z: Tensor, inputs: list[Tensor], theta: list[Tensor], g: Tensor, needs: Sequence[bool]
) -> list[Tensor | None]:
    """The same, with a graph: as functions of z, the inputs, theta and g."""
    equation, implicit, idle = problem.equation, problem.implicit, problem.idle
    places = _substitutes(idle)
    if places is not None and not len(places):
        return _zeros((*inputs, *theta), needs)
    at, rest = _select(z, inputs, places)
    adjoint = solve_adjoint(
        equation, at.detach(), rest, _masked(g, idle).detach(), implicit.solver, implicit.tol, compact=implicit.compact
    )
    implicit.report(adjoint, implicit.order)
    if not bool(adjoint.solved.all()):
        idle = _or(idle, ~adjoint.solved)
        places = _substitutes(idle)
        if places is not None and not len(places):
            return _zeros((*inputs, *theta), needs)
        at, rest = _select(z, inputs, places)
    inner = replace(implicit, check=None, order=implicit.order + 1)
    u = attach(adjoint.u, AdjointEquation(equation), [at, *rest, _masked(g, idle)], inner, idle)

    def value(z: Tensor, *inputs: Tensor) -> list[Tensor]:
        return [equation.value(z, inputs)]

    pulled: Sequence[Tensor] = _Pullback.apply(value, 1 + len(rest), len(theta), at, *rest, *theta, u)
    return _of_samples([x if need else None for x, need in zip(pulled[1:], needs, strict=True)], len(inputs), idle)


class _Pullback(torch.autograd.Function):
    """Cotangents of all inputs of a function, and of the leaves that it uses, given those of its values.

    Partial derivatives: inputs that depend on each other, or on those leaves, count as independent.
    """

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., list[Tensor]], n: int, m: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.n, ctx.m = function, n, m
        ctx.save_for_backward(*tensors)
        inputs, theta, cotangents = tensors[:n], tensors[n : n + m], tensors[n + m :]
        leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
        with torch.enable_grad():
            values = function(*leaves)
        return tuple(_products(values, [*leaves, *theta], cotangents, create_graph=False))

    @staticmethod
    def backward(ctx: Any, *gs: Tensor) -> tuple[Tensor | None, ...]:
        function, n, m = ctx.function, ctx.n, ctx.m
        tensors = ctx.saved_tensors
        inputs, theta, cotangents = tensors[:n], tensors[n : n + m], tensors[n + m :]

        def pulled(*leaves: Tensor) -> list[Tensor]:
            return _products(function(*leaves[:n]), [*leaves[:n], *theta], leaves[n:], create_graph=True)

        grads = _Pullback.apply(pulled, n + len(cotangents), m, *inputs, *cotangents, *theta, *gs)
        of_inputs, of_cotangents, of_theta = grads[:n], grads[n : n + len(cotangents)], grads[n + len(cotangents) :]
        return None, None, None, *of_inputs, *of_theta, *of_cotangents


def _products(
    values: Sequence[Tensor], wanted: Sequence[Tensor], cotangents: Sequence[Tensor], *, create_graph: bool
) -> list[Tensor]:
    """Σ (∂value/∂wanted)ᵀ cotangent for each wanted; zero where nothing depends on it."""
    live = [(value, cotangent) for value, cotangent in zip(values, cotangents, strict=True) if value.requires_grad]
    targets = [x for x in wanted if x.requires_grad]
    if not live or not targets:
        return [torch.zeros_like(x) for x in wanted]
    # The graph stays: it may run into one that was made outside of f, which is not ours to free
    found = torch.autograd.grad(
        [value for value, _ in live],
        targets,
        [cotangent for _, cotangent in live],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )
    grads = iter(found)
    return [torch.zeros_like(x) if not x.requires_grad or (grad := next(grads)) is None else grad for x in wanted]


def _substitutes(idle: Tensor | None) -> Tensor | None:
    """For each sample itself, or for an idle one the first that is not: `[B]`; empty if all are idle.

    An idle sample may hold what is not finite, and f may draw random numbers by place: so somebody else takes its
    place, with a cotangent of zero.
    """
    if idle is None or not bool(idle.any()):
        return None
    places = torch.arange(len(idle), device=idle.device)
    busy = places[~idle]
    return busy if not len(busy) else torch.where(idle, busy[0], places)


def _select(z: Tensor, inputs: list[Tensor], places: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    if places is None:
        return z, inputs
    return z.index_select(0, places), [x.index_select(0, places) for x in inputs]


def _masked(g: Tensor, idle: Tensor | None) -> Tensor:
    return g if idle is None else torch.where(idle.unsqueeze(1), 0, g)


def _or(idle: Tensor | None, more: Tensor) -> Tensor:
    return more if idle is None else idle | more


def _zeros(tensors: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor | None]:
    """Not None: somebody (DistributedDataParallel) may wait for the gradient of every parameter."""
    return [torch.zeros_like(x) if need else None for x, need in zip(tensors, needs, strict=True)]


def _of_samples(grads: list[Tensor | None], n_inputs: int, idle: Tensor | None) -> list[Tensor | None]:
    """Zero for the idle samples: what is there belongs to the one that took their place."""
    if idle is None:
        return grads
    return [
        grad if grad is None or i >= n_inputs else torch.where(idle.reshape(-1, *(1 for _ in grad.shape[1:])), 0, grad)
        for i, grad in enumerate(grads)
    ]
