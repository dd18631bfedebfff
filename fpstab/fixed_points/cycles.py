"""Cycles: points that come back after p > 1 steps, verified and polished as fixed points of the p-fold function."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.fixed_points.capture import captured
from fpstab.fixed_points.grouping import group, tolerant_order
from fpstab.fixed_points.newton import newton, newton_error
from fpstab.fixed_points.search import Map, scale
from fpstab.jacobian import jacobian_spectrum
from fpstab.maps import SelfMap

_LONGEST = 64  # period up to which Newton's method polishes
_CLOSED = 1e-8  # relative distance after one turn
_APART = 1e-6  # relative distance from which points of a cycle differ
MAX_CYCLES = 64  # that are described one by one


@dataclass(frozen=True, slots=True, eq=False)
class Cycle:
    """A cycle x₀ → x₁ → … → x₀ of the function.

    Attributes:
        period: Its smallest period, 2 or more.
        points: Its points in their order `[period, n]`, beginning with the first in lexicographic order.
        rho: Spectral radius of the Jacobian of the p-fold map: below 1 the cycle attracts.
        rho_error: Its error.
        residual: ‖Φᵖ(x₀) − x₀‖.
        error_bound: Distance to the true cycle, to first order; infinite where it is not isolated.
        n_starts: How many starts went to it.
    """

    period: int
    points: Tensor
    rho: float
    rho_error: float
    residual: float
    error_bound: float
    n_starts: int

    @property
    def attracting(self) -> bool:
        """Whether ρ is below 1 by more than its error."""
        return self.rho < 1 - self.rho_error


def find_cycles(
    function: SelfMap, x: Tensor, period: Tensor, sure: Tensor, batch_size: int
) -> tuple[list[Cycle], Tensor]:
    """Verify that orbits run in cycles.

    Args:
        function: A map of a space to itself.
        x: Last iterates `[C, n]` of orbits.
        period: What seems to be their period `[C]`.
        sure: Whether they have come back exactly `[C]`; the others must be captured by a cycle that attracts.
        batch_size: Rows that are solved together.

    Returns:
        At most `MAX_CYCLES` cycles, and of each orbit its cycle `[C]`: −1 if there is none, −2 if it is not listed.
    """
    label = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
    points: list[Tensor] = []  # of each cycle [p, n]
    for p in sorted(set(period.tolist())):
        if p < 2 or (p > _LONGEST and not bool(sure[period == p].any())):
            continue
        rows = (period == p).nonzero()[:, 0]
        _assign(function, x, rows, sure, int(p), points, label, batch_size)
    # near returns of chaotic orbits lead to cycles that repel them: nobody goes there
    visited = [i for i in range(len(points)) if bool((label == i).any())]
    for i, j in enumerate(visited):
        label[label == j] = i
    cycles = [_describe(function, points[j], int((label == i).sum())) for i, j in enumerate(visited)]
    order = sorted(range(len(cycles)), key=lambda i: cycles[i].period)
    by_period = torch.tensor([cycle.period for cycle in cycles], dtype=torch.int64)
    if cycles:
        heads = torch.stack([cycle.points[0] for cycle in cycles])
        order = tolerant_order(heads, by_period.to(heads.device)).tolist()
        rank = torch.empty(len(order), dtype=torch.int64, device=x.device)
        rank[torch.tensor(order, device=x.device)] = torch.arange(len(order), device=x.device)
        label = torch.where(label >= 0, rank[label.clamp_min(0)], label)
    return [cycles[i] for i in order], label


def iterate(function: Map, times: int) -> Map:
    """The map applied several times."""

    def power(x: Tensor) -> Tensor:
        for _ in range(times):
            x = function(x)
        return x

    return power


def _assign(
    function: SelfMap,
    x: Tensor,
    rows: Tensor,
    sure: Tensor,
    p: int,
    points: list[Tensor],
    label: Tensor,
    batch_size: int,
) -> None:
    """Add the cycles that orbits of one seeming period run in, and label these orbits."""
    power = iterate(function, p)
    leaders, member = group(x[rows], torch.full_like(x[rows, 0], 1e-8))
    head = x[rows][leaders]
    if p <= _LONGEST:
        roots = newton(power, head, batch_size=batch_size)
        near = torch.linalg.vector_norm(roots.x - head, dim=1) <= 1e-2 * scale(head)
        head = torch.where((roots.converged & near)[:, None], roots.x, head)
    orbits = _orbit(function, head, p + 1)  # [L, p + 1, n]
    closed = torch.linalg.vector_norm(orbits[:, p] - orbits[:, 0], dim=1) <= _CLOSED * scale(head)
    number = torch.full((len(head),), -1, dtype=torch.int64, device=x.device)
    for i in closed.nonzero()[:, 0].tolist():
        cycle = _smallest_period(orbits[i, :p])
        if len(cycle) < 2:  # a fixed point that attracts slowly
            continue
        if len(points) >= MAX_CYCLES:
            number[i] = -2
            continue
        known = [j for j, other in enumerate(points) if len(other) == len(cycle) and _same(other, cycle)]
        if not known:
            points.append(_from_first(cycle))
        number[i] = known[0] if known else len(points) - 1
    found = number[member.clamp_min(0)]
    found = torch.where((member < 0) | ((found == -2) & ~sure[rows]), -1, found)
    for i in sorted(set(found.tolist())):
        orbit_rows = rows[(found == i) & ~sure[rows]]
        if i >= 0 and len(orbit_rows):
            found[torch.isin(rows, orbit_rows[~_captured_by(function, x[orbit_rows], points[i])])] = -1
    label[rows] = found


def _captured_by(function: SelfMap, x: Tensor, cycle: Tensor) -> Tensor:
    power = iterate(function, len(cycle))
    nearest = cycle[torch.cdist(x, cycle).argmin(1)]
    rho = jacobian_spectrum(SelfMap(power, cycle), cycle[:1], rtol=1e-8, throw=False).rho.to(x.device)
    return captured(power, x, nearest, rho.expand(len(x)))


def _describe(function: SelfMap, cycle: Tensor, n_starts: int) -> Cycle:
    power = iterate(function, len(cycle))
    spectrum = jacobian_spectrum(SelfMap(power, cycle), cycle[:1], rtol=1e-8, throw=False)
    residual, _, error = newton_error(power, cycle[:1])
    return Cycle(
        period=len(cycle),
        points=cycle.cpu(),
        rho=float(spectrum.rho),
        rho_error=float(spectrum.rho_error),
        residual=float(residual),
        error_bound=float(error),
        n_starts=n_starts,
    )


def _orbit(function: Map, x: Tensor, length: int) -> Tensor:
    """`[B, length, n]`, beginning with x."""
    orbit = [x]
    with torch.no_grad():
        for _ in range(length - 1):
            orbit.append(function(orbit[-1]))
    return torch.stack(orbit, 1)


def _smallest_period(cycle: Tensor) -> Tensor:
    """The cycle `[p, n]` run through once."""
    p = len(cycle)
    tolerance = _APART * float(scale(cycle[:1]))
    for d in range(1, p):
        if p % d == 0 and float(torch.linalg.vector_norm(cycle[d] - cycle[0])) <= tolerance:
            return cycle[:d]
    return cycle


def _same(one: Tensor, other: Tensor) -> bool:
    distance = torch.linalg.vector_norm(one - other[0], dim=1).min()
    return bool(distance <= _APART * scale(other[:1])[0])


def _from_first(cycle: Tensor) -> Tensor:
    first = int(tolerant_order(cycle, torch.zeros(len(cycle), dtype=torch.int64, device=cycle.device))[0])
    return torch.roll(cycle, -first, 0)
