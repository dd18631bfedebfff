"""The certified candidates for a network's constant: LipSDP by some solver, closed forms, products of norms."""

import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from fpstab.lipschitz import brackets, certificates, closed_forms, conic, first_order, interior_point
from fpstab.lipschitz.blocks import Linear, Reduced
from fpstab.lipschitz.inequality import Inequality
from fpstab.lipschitz.norms import spectral_product
from fpstab.lipschitz.problem import Problem
from fpstab.lipschitz.reduction import reduce
from fpstab.results import OK, Status
from fpstab.rounding import Array, Ball, ldexp_up, spectral_norm

Form = Literal["neuron", "layer"]

LARGEST_NATIVE = 2000
"""Size of the matrix inequality up to which the interior-point method is used (it takes minutes there)."""
LARGEST_CERTIFIED = 9000
"""Size up to which a matrix inequality is formed at all (650 MB a matrix); beyond, the product of norms remains."""


@dataclass(slots=True, eq=False)
class Search:
    """Candidates as they come in.

    Attributes:
        candidates: Certified bounds by where they come from.
        product: The product of spectral norms.
        eclipse: ECLipsE-Fast; inf if there is none.
        lipsdp: LipSDP; inf if there is none.
        lower: A lower bound of LipSDP's optimum.
        slopes_lower: The largest norm of a Jacobian that the slopes allow, as far as it was found.
        multipliers: Of the least candidate that has some.
        status: How the solver did.
        closed: Whether nothing is left to optimise.
        linear: What the network is if it is linear.
    """

    candidates: dict[str, float]
    product: float
    eclipse: float = math.inf
    lipsdp: float = math.inf
    lower: float = 0.0
    slopes_lower: float = 0.0
    multipliers: tuple[Tensor, ...] = ()
    status: Status = OK
    closed: bool = False
    linear: Linear | None = None


def search(problem: Problem, form: Form, backend: str, rtol: float, deadline: float | None) -> Search:
    """Every candidate that there is; `deadline` is a `time.monotonic()` at which the solver stops."""
    product = spectral_product(problem)
    found = Search({} if math.isinf(product) else {"spectral_product": product}, product)
    reduced = reduce(problem)
    if reduced is None:
        found.candidates, found.closed, found.eclipse, found.lipsdp = {"zero": 0.0}, True, 0.0, 0.0
        return found
    if isinstance(reduced, Linear):
        value = certificates.linear_bound(reduced)
        found.candidates["linear"] = value
        found.linear, found.closed, found.eclipse, found.lipsdp = reduced, True, value, value
        found.slopes_lower = min(value, found.product) * (1.0 - 1e-9)
        if math.isinf(value):
            found.slopes_lower = 0.0
        return found
    if reduced.n > LARGEST_CERTIFIED:
        found.status = Status(
            "too_large",
            f"The matrix inequality has size {reduced.n}, above {LARGEST_CERTIFIED}: only the product of norms is given.",
        )
        return found
    found.slopes_lower = _shift(brackets.attained(reduced) * (1.0 - 1e-10), reduced.exponent)
    nonnegative = _nonnegative(reduced)
    if nonnegative < math.inf:
        found.candidates["nonnegative"], found.closed = nonnegative, True
    strict = _closed_forms(problem, reduced, found, deadline)
    if strict is None:
        return found
    _solve(problem, reduced, found, strict, form, backend, rtol, deadline)
    return found


def _shift(x: float, exponent: int) -> float:
    """X · 2**exponent; 0 where it would overflow (of a lower bound)."""
    try:
        return math.ldexp(x, exponent)
    except OverflowError:
        return 0.0


def _nonnegative(problem: Reduced) -> float:
    """The exact constant of a chain of nonnegative weights whose largest slopes are the positive ones; else inf.

    Every Jacobian is then entrywise at most the one with all slopes at β, so its norm is.
    """
    if not problem.chain or not (problem.beta >= np.abs(problem.alpha)).all():
        return math.inf
    balls = [block.weight for block in problem.blocks] + [problem.out.weight]
    if any((ball.mid < 0.0).any() for ball in balls):
        return math.inf
    total = balls[0]
    for block, ball in zip(problem.blocks, balls[1:], strict=True):
        total = ball @ Ball(problem.beta[block.rows, None] * total.mid, _scaled_radius(problem, block.rows, total))
    return ldexp_up(spectral_norm(total), problem.exponent)


def _scaled_radius(problem: Reduced, rows: slice, ball: Ball) -> Array:
    return ball.T.scale_columns(problem.beta[rows]).T.radius  # type: ignore[return-value]


def _closed_forms(
    problem: Problem, reduced: Reduced, search: Search, deadline: float | None
) -> tuple[Inequality, tuple[float, Array]] | None:
    """ECLipsE-Fast of both orientations, certified, and a strictly feasible point of the first."""
    first: tuple[Inequality, tuple[float, Array]] | None = None
    for transposed in (reduced.transposed, not reduced.transposed):
        one = reduced if transposed == reduced.transposed else reduce(problem, transposed)
        assert isinstance(one, Reduced)
        if one.n > LARGEST_CERTIFIED:
            continue
        inequality = Inequality.of(one)
        strict = closed_forms.strict_point(one, inequality, deadline)
        if strict is None:
            if first is None and transposed == reduced.transposed:
                return None
            continue
        if transposed == reduced.transposed:
            first = (inequality, strict)
        candidates = {"closed_form": strict[1]}
        if one.chain and (published := closed_forms.eclipse_fast(one, one.magnification)) is not None:
            candidates["eclipse_fast"] = published
        for name, T in candidates.items():
            found = certificates.certified_root(one, inequality, T, None)
            if found is None:
                continue
            value = ldexp_up(found[0], one.exponent)
            if name == "eclipse_fast":
                search.eclipse = min(search.eclipse, value)
            if value < min((search.candidates.get(other, math.inf) for other in candidates), default=math.inf):
                sizes = certificates.hidden_sizes(problem)
                search.multipliers = certificates.network_multipliers(one, found[1], sizes)
            search.candidates[name] = min(value, search.candidates.get(name, math.inf))
    return first


def _solve(
    problem: Problem,
    reduced: Reduced,
    search: Search,
    start: tuple[Inequality, tuple[float, Array]],
    form: Form,
    backend: str,
    rtol: float,
    deadline: float | None,
) -> None:
    """LipSDP itself: solve, certify, and bracket the optimum from below."""
    inequality, strict = start
    shares = None
    if form == "layer":
        shares = closed_forms.layer_shares(reduced)
        of_layer = closed_forms.strict_point(reduced, inequality, deadline, per_layer=True)
        if of_layer is None:
            search.status = Status("solver_failed", "No feasible multipliers of the form 'layer' were found.")
            return
        strict = of_layer
    try:
        points, Z, status = _run(reduced, inequality, strict, shares, backend, rtol, deadline)
    except (np.linalg.LinAlgError, ArithmeticError) as error:
        points, Z, status = [], None, Status("solver_failed", f"The solver failed: {error}")
    search.status = status
    lower = 0.0 if Z is None else math.sqrt(brackets.dual_bound(reduced, inequality, Z, form == "layer"))
    search.lower = _shift(lower * (1.0 - 1e-12), reduced.exponent)
    best: tuple[float, Array] | None = None
    for T in reversed(points):  # a few: the last one may lie too close to the boundary
        found = certificates.certified_root(reduced, inequality, T, strict)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
        if best is not None and best[0] <= lower * (1.0 + 0.3 * rtol):
            break
    if best is not None:
        value = ldexp_up(best[0], reduced.exponent)
        if value < min(search.candidates.values(), default=math.inf):
            search.multipliers = certificates.network_multipliers(reduced, best[1], certificates.hidden_sizes(problem))
        search.candidates[form] = search.lipsdp = value


def _run(
    reduced: Reduced,
    inequality: Inequality,
    strict: tuple[float, Array],
    shares: Array | None,
    backend: str,
    rtol: float,
    deadline: float | None,
) -> tuple[list[Array], Array | None, Status]:
    """Multipliers (the best last), the factor of a dual matrix if there is one, and how it went."""
    t = strict[1]
    if shares is not None:  # T = share · t of its layer
        t = np.array(
            [(strict[1][reduced.layer == k] / reduced.share[reduced.layer == k])[0] for k in range(shares.shape[1])]
        )
    if backend.startswith("cvxpy"):
        import cvxpy as cp

        solver = conic.choose_solver(backend, reduced.n)
        left = None if deadline is None else max(deadline - time.monotonic(), 1e-3)
        try:
            solution = conic.solve(inequality, solver, shares=shares, time_limit=left)
        except cp.SolverError as error:
            return [], None, Status("solver_failed", str(error))
        return [solution.T], None if solution.X is None else brackets.factor(solution.X), OK
    if backend == "first_order" or reduced.n > LARGEST_NATIVE:
        descent = first_order.minimise(reduced, inequality, t, shares=shares, deadline=deadline)
        status = Status("time_limit", "The time limit was reached.") if descent.stopped == "time_limit" else OK
        return [descent.T], descent.Z, status
    found = interior_point.solve(
        inequality, (strict[0], t), shares=shares, tolerance=max(0.1 * rtol, 1e-12), deadline=deadline
    )
    status = Status("time_limit", "The time limit was reached.") if found.stopped == "time_limit" else OK
    return [T for _, T in found.points], brackets.factor(found.X), status
