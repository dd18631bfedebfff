"""The search for the fixed points of a map: iterate, group, polish, look for what repels, classify, count."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fpstab.fixed_points.capture import captured
from fpstab.fixed_points.census import KINDS, MARGINAL, NON_ISOLATED, Census, classify
from fpstab.fixed_points.coverage import coverage_by_source
from fpstab.fixed_points.cycles import Cycle, find_cycles
from fpstab.fixed_points.grouping import MAX_GROUPS, SAME, canonical_order, group, tolerant_order
from fpstab.fixed_points.newton import newton, newton_error
from fpstab.fixed_points.points import FixedPoints
from fpstab.fixed_points.search import (
    BOUNDED,
    CYCLE,
    FIXED,
    PAPER_GROUP,
    PAPER_ITERATIONS,
    PAPER_STEP,
    SLOW,
    Rule,
    Search,
    chunks,
    picard,
    rounding_floor,
    scale,
)
from fpstab.fixed_points.seeds import Seeds
from fpstab.fixed_points.units import in_units, length_unit, out_of_units
from fpstab.fixed_points.verdicts import judge, sum_of_indices
from fpstab.jacobian import jacobian_spectrum
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import AnalysisError

Target = SelfMap | nn.Module | Callable[..., Any]

_STEP, _NOISE_STEP = 1e-7, 1e-4  # relative Newton steps at an accepted point, as a rule and where only rounding is left
_STRAY = 1e-5  # relative distance that polishing may move a limit beyond its error
_MORE_STEPS = 64  # of Picard iteration that confirm a limit at which Newton's method fails
_LATE = 16  # of them that tell the rate
_NUDGE = 1e-5  # relative displacement from which iteration must come back
_SLOW_ROWS, _SLOW_ROUNDS = 64, 4  # orbits out of time that are polished together, and how often
_BATCH_ROWS, _BATCH_VALUES = 4096, 1 << 22


def find_fixed_points(
    map: Target,  # noqa: A002
    starts: Any,
    *,
    unstable: Literal["newton"] | None = None,
    rule: Rule | None = None,
    tol: float = 1e-8,
    max_iter: int = 1000,
    sources: Sequence[Hashable] | None = None,
    seeds: Any = None,
    max_seeds: int = 512,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> FixedPoints:
    """Find the fixed points Φ(x) = x that iteration from the starts leads to, and unstable ones (papers 1 §IV, 2 §III).

    All starts are iterated together in float64 until the fate of each is known. A residual is not an error: a row
    ends when its observed contraction rate says that the limit is within `tol`. Limits are grouped by their error
    bounds, polished by Newton's method, and each is checked by its residual and a Newton step. The papers' rule
    (a step below 1e-5 within 50 iterations, limits grouped at 1e-3) is there as a preset; its limits are checked
    and polished too, and those that are no fixed points are not reported as such (`rule_count` counts them).

    Iteration sees attracting fixed points only. With `unstable="newton"` Newton–Krylov also starts from the starts
    themselves, from where orbits pass repelling points, and from midpoints between the points found.

    The result does not depend on the order of the starts, and on batch size and threads only by rounding.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        starts: `[S, *shape]` or `[S, n]`, one or more. Rows that are not finite end as `nonfinite`.
        unstable: `"newton"` to look for fixed points that do not attract, too.
        rule: `"paper"` for the stopping rule and the grouping of the papers; `tol` and `max_iter` are then theirs.
        tol: Error to which orbits are followed, relative to 1 + ‖x‖; the 1 is the largest norm among starts and the
            first iterates where that is below 1e-3 (not with the papers' rule). Fixed points are then polished to rounding.
        max_iter: Iterations at most for each start.
        sources: Where each start came from, one name a start: coverage is estimated per source, each of which must
            be independent draws from one law (training images and noise are two sources).
        seeds: Points `[P, *shape]` or `[P, n]` that Newton's method polishes first, such as the fixed points of an
            earlier epoch: those that still lead to fixed points are found whatever their kind. They are no starts.
        max_seeds: Further Newton starts at most, in the search for unstable points.
        batch_size: Rows that are evaluated together; by default 4096, fewer in high dimension.
        generator: Draws midpoints where there are too many; by default one with seed 0.
        throw: Raise where nothing was found; otherwise say so in the status.

    Raises:
        ValueError: If the map is not from a space to itself, there are no starts, or an argument is out of range.
        AnalysisError: If `throw`, and no fixed point was found and no start settled in a cycle.

    >>> found = find_fixed_points(lambda x: torch.tanh(2 * x), torch.tensor([[0.5], [-0.1]]), unstable="newton")
    >>> found.kind, found.points[:, 0].round(decimals=4)
    (['attracting', 'attracting', 'repelling'], tensor([-0.9575,  0.9575,  0.0000], dtype=torch.float64))
    >>> found.label, found.index_sum
    (tensor([1, 0]), 1)
    """
    if unstable not in (None, "newton"):
        raise ValueError(f"unstable={unstable!r}: expected 'newton' or None.")
    if rule not in (None, "paper"):
        raise ValueError(f"rule={rule!r}: expected 'paper' or None.")
    if not 0 < tol <= 1e-2:
        raise ValueError(f"tol={tol!r}: expected a relative error above 0, at most 0.01.")
    if max_iter < 1 or max_seeds < 0 or (batch_size is not None and batch_size < 1):
        raise ValueError(
            f"max_iter={max_iter!r}, max_seeds={max_seeds!r}, batch_size={batch_size!r}: expected positive numbers."
        )
    with analysis_modes():
        if not len(starts):
            raise ValueError("starts: expected one or more, [S, *shape] or [S, n], got none.")
        function = as_map(map, starts)
        function.require_square("Fixed points")
        x = function.flatten(starts)
        if sources is not None and len(sources) != len(x):
            raise ValueError(f"sources: expected one for each of the {len(x)} starts, got {len(sources)}.")
        if rule == "paper":
            tol, max_iter = PAPER_STEP, PAPER_ITERATIONS
        settings = _Settings(
            unstable=unstable is not None,
            rule=rule,
            tol=tol,
            max_iter=max_iter,
            max_seeds=max_seeds,
            batch_size=batch_size or max(64, min(_BATCH_ROWS, _BATCH_VALUES // function.n_in)),
            generator=generator or torch.Generator().manual_seed(0),
        )
        given = x[:0] if seeds is None or not len(seeds) else function.flatten(seeds)
        unit = 1.0 if rule == "paper" else length_unit(function, x, given)
        if unit < 1.0:
            scaled = in_units(function, x, unit)
            result = out_of_units(_Finder(scaled, x / unit, sources, settings).run(given / unit), unit, function.shape)
        else:
            result = _Finder(function, x, sources, settings).run(given)
    if throw and not len(result) and not result.cycles:
        raise AnalysisError(result.status)
    return result


@dataclass(frozen=True, slots=True)
class _Settings:
    unstable: bool
    rule: Rule | None
    tol: float
    max_iter: int
    max_seeds: int
    batch_size: int
    generator: torch.Generator


class _Finder:
    """One search. Rows are in canonical order throughout; the result puts them back."""

    def __init__(
        self, function: SelfMap, starts: Tensor, sources: Sequence[Hashable] | None, settings: _Settings
    ) -> None:
        self.map, self.settings = function, settings
        self.order = canonical_order(starts)
        self.starts = starts[self.order]
        self.sources = None if sources is None else [str(sources[i]) for i in self.order.tolist()]
        self.points = starts.new_empty(0, starts.shape[1])  # accepted fixed points
        self.step = starts.new_empty(0)  # Newton step at each
        self.contracting = torch.zeros(0, dtype=torch.bool, device=starts.device)
        self.n_evals = 0
        self.n_doubtful = 0  # candidates that are not told from places where orbits crawl
        self.truncated = False

    def run(self, given: Tensor) -> FixedPoints:
        settings = self.settings
        self._accept(given, torch.full_like(given[:, 0], math.inf), from_picard=False)
        search = picard(
            self.map,
            self.starts,
            tol=settings.tol,
            max_iter=settings.max_iter,
            batch_size=settings.batch_size,
            rule=settings.rule,
            minima=settings.unstable,
        )
        self.n_evals += search.n_evals
        self.outcome, self.label = search.outcome.clone(), torch.full_like(search.outcome, -1)
        rule_count = self._settle_limits(search)
        if settings.rule is None:
            self._settle_slow(search)
        cycles, cycle_label = self._find_cycles(search)
        if settings.unstable:
            self._find_unstable(search)
        error = self._errors()
        census = classify(self.map, self.points, error, self.contracting)
        error = torch.where(census.kind == NON_ISOLATED, 2 * self.step + rounding_floor(self.points), error)
        census, error = self._sift(census, error)
        return self._result(search, census, error, cycles, cycle_label, rule_count)

    def _settle_limits(self, search: Search) -> int | None:
        """Group the limits of Picard iteration, polish and check each; returns how many groups there were."""
        rows = (search.outcome == FIXED).nonzero()[:, 0]
        x, error = search.x[rows], search.error_bound[rows]
        leaders, member = group(x, error, threshold=PAPER_GROUP if self.settings.rule else None)
        self.truncated |= len(leaders) == MAX_GROUPS and bool((member < 0).any())
        place = self._accept(x[leaders], error[leaders], from_picard=True)
        self._label(rows, torch.where(member >= 0, place[member.clamp_min(0)], -1), keep=member < 0)
        return len(leaders) if self.settings.rule else None

    def _accept(self, x: Tensor, error: Tensor, *, from_picard: bool) -> Tensor:
        """Polish candidates `[C, n]`, keep the true fixed points, and return the place of each `[C]`, −1 if none."""
        roots = newton(self.map, x, batch_size=self.settings.batch_size)
        self.n_evals += roots.n_evals
        y, step, residual, good = roots.x, roots.step, roots.residual, roots.converged
        if from_picard:
            slack = 10 * error + _STRAY * scale(x)
            good = good & (torch.linalg.vector_norm(y - x, dim=1) <= slack)
            lost = (~good).nonzero()[:, 0]
            if len(lost):
                y, step, residual = y.clone(), step.clone(), residual.clone()
                y[lost], step[lost], residual[lost], good[lost] = self._confirm(x[lost])
        here, floor = scale(y), rounding_floor(y)
        good = good & (residual <= 1e3 * floor)
        good = good & ((step <= _STEP * here) | ((residual <= floor) & (step <= _NOISE_STEP * here)))
        place = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        place[good] = self._merge(y[good], step[good], from_picard)
        return place

    def _confirm(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Iterate on from limits `[C, n]` at which Newton's method fails (kinks): points, errors, residuals, verdicts."""
        first = late = last = torch.full_like(x[:, 0], math.inf)
        with torch.no_grad():
            for k in range(_MORE_STEPS):
                y = self.map(x)
                last = torch.linalg.vector_norm(y - x, dim=1)
                first = last if k == 0 else first
                late = last if k == _MORE_STEPS - _LATE - 1 else late
                x = y
        self.n_evals += _MORE_STEPS * len(x)
        floor = rounding_floor(x)
        # an orbit that has come to crawl has a rate of 1 at the end
        q = torch.maximum((last / first) ** (1 / (_MORE_STEPS - 1)), (last / late) ** (1 / _LATE))
        q = torch.where(last > floor, q, 0.0)
        error = torch.where(q < 1, (last * q + floor) / (1 - q), math.inf)
        return x, error, last, (q < 0.999) & (error <= _STEP * scale(x))

    def _merge(self, x: Tensor, step: Tensor, from_picard: bool) -> Tensor:
        """Add fixed points `[C, n]` that are not known yet; returns the place of each."""
        leaders, member = group(x, 2 * step)
        number = self._known(x[leaders], step[leaders])
        new = (number < 0).nonzero()[:, 0][: MAX_GROUPS - len(self.points)]
        number[new] = len(self.points) + torch.arange(len(new), device=x.device)
        self.points = torch.cat((self.points, x[leaders[new]]))
        self.step = torch.cat((self.step, step[leaders[new]]))
        self.contracting = torch.cat((self.contracting, torch.full_like(new, from_picard, dtype=torch.bool)))
        if from_picard:
            self.contracting[number[number >= 0]] = True
        return torch.where(member >= 0, number[member.clamp_min(0)], -1)

    def _known(self, x: Tensor, step: Tensor) -> Tensor:
        """The known fixed point that each of `x` `[C, n]` is `[C]`, −1 if it is none."""
        number = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        if not len(self.points):
            return number
        for i in range(len(x)):
            distance = torch.linalg.vector_norm(self.points - x[i], dim=1)
            j = int(distance.argmin())
            if bool(distance[j] <= 2 * (self.step[j] + step[i]) + SAME * scale(x[i : i + 1])[0]):
                number[i] = j
        return number

    def _label(self, rows: Tensor, place: Tensor, keep: Tensor | None = None) -> None:
        """Rows went to the fixed point at their place; without one they are undecided (unless to be kept)."""
        self.label[rows] = place
        undone = place < 0 if keep is None else (place < 0) & ~keep
        self.outcome[rows] = torch.where(undone, SLOW, FIXED)

    def _settle_slow(self, search: Search) -> None:
        """Orbits that ran out of iterations: polish some, and see which are captured by a point that attracts."""
        for _ in range(_SLOW_ROUNDS):
            rows = (self.outcome == SLOW).nonzero()[:, 0]
            rows = rows[torch.isfinite(search.residual[rows])]
            if not len(rows):
                return
            rows = self._capture(search, rows)
            if not len(rows):
                return
            chosen = rows[torch.argsort(search.residual[rows], stable=True)[:_SLOW_ROWS]]
            before = len(self.points)
            self._accept(search.x[chosen], search.error_bound[chosen], from_picard=False)
            if len(self.points) == before:
                return
        self._capture(search, (self.outcome == SLOW).nonzero()[:, 0])

    def _capture(self, search: Search, rows: Tensor) -> Tensor:
        """Label slow orbits that the nearest fixed point has captured; returns the others."""
        if not len(self.points) or not len(rows):
            return rows
        spectrum = jacobian_spectrum(self.map, self.points, rtol=1e-8, max_products=3000, throw=False)
        rho = (spectrum.rho + spectrum.rho_error).to(rows.device)
        free = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for part in chunks(torch.arange(len(rows), device=rows.device), self.settings.batch_size):
            x = search.x[rows[part]]
            nearest = torch.cdist(x, self.points).argmin(1)
            taken = captured(self.map, x, self.points[nearest], rho[nearest])
            self.label[rows[part][taken]] = nearest[taken]
            self.outcome[rows[part][taken]] = FIXED
            free[part] = ~taken
        return rows[free]

    def _find_cycles(self, search: Search) -> tuple[list[Cycle], Tensor]:
        cycle_label = torch.full_like(self.outcome, -1)
        claimed = (self.outcome == CYCLE) | (((self.outcome == BOUNDED) | (self.outcome == SLOW)) & (search.period > 1))
        rows = claimed.nonzero()[:, 0]
        if not len(rows) or self.settings.rule is not None:
            return [], cycle_label
        sure = self.outcome[rows] == CYCLE
        cycles, found = find_cycles(self.map, search.x[rows], search.period[rows], sure, self.settings.batch_size)
        missed = torch.where(sure, BOUNDED, self.outcome[rows])
        self.outcome[rows] = torch.where(found == -1, missed, CYCLE)
        cycle_label[rows] = found.clamp_min(-1)
        self.truncated |= bool((found == -2).any())
        return cycles, cycle_label

    def _find_unstable(self, search: Search) -> None:
        seeds = Seeds(self.starts, self.sources, search, self.settings.max_seeds, self.settings.generator)
        before = 0
        for batch in seeds.rounds():
            if len(batch):
                self._accept(batch, torch.full_like(batch[:, 0], math.inf), from_picard=False)
            seeds.learn(self.points[before:], self.points)
            before = len(self.points)

    def _errors(self) -> Tensor:
        errors = [newton_error(self.map, chunk)[2] for chunk in chunks(self.points, self.settings.batch_size)]
        error = torch.cat([self.points.new_empty(0), *errors])
        lost = (torch.isinf(error) & self.contracting).nonzero()[:, 0]
        if len(lost):  # no Jacobian: does iteration come back?
            x = self.points[lost]
            way = torch.randn(1, x.shape[1], generator=torch.Generator().manual_seed(0), dtype=x.dtype).to(x.device)
            y, bound, _, good = self._confirm(x + _NUDGE * scale(x)[:, None] * way / way.norm())
            distance = torch.linalg.vector_norm(y - x, dim=1)
            error[lost] = torch.where(good & (distance <= _STEP * scale(x)), bound + distance, math.inf)
        return error

    def _sift(self, census: Census, error: Tensor) -> tuple[Census, Tensor]:
        """Keep those whose place is known, one of those that their errors do not tell apart; the rest is doubtful.

        A point without an error bound may be a place where orbits crawl. It stays only where 1 is an eigenvalue: then it
        is marginal, a multiple root, and known as well as can be.
        """
        isolated = census.kind != NON_ISOLATED
        unbounded = isolated & ~torch.isfinite(error)
        kept = ~unbounded | ((census.kind == MARGINAL) & census.touching)
        self.n_doubtful = int((~kept).sum())
        apart = (kept & isolated).nonzero()[:, 0]
        leaders, member = group(self.points[apart], torch.where(unbounded, 2 * self.step, error)[apart])
        stay = torch.cat((apart[leaders], (kept & ~isolated).nonzero()[:, 0]))
        place = torch.full_like(census.kind, -1)
        place[stay] = torch.arange(len(stay), device=stay.device)
        place[apart] = member
        labelled = (self.label >= 0).nonzero()[:, 0]
        self._label(labelled, place[self.label[labelled]])
        self.points, self.step = self.points[stay], self.step[stay]
        return census.take(stay), error[stay]

    def _result(
        self,
        search: Search,
        census: Census,
        error: Tensor,
        cycles: list[Cycle],
        cycle_label: Tensor,
        rule_count: int | None,
    ) -> FixedPoints:
        order = tolerant_order(self.points, census.kind)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        label = torch.where(self.label >= 0, rank[self.label.clamp_min(0)], -1) if len(order) else self.label
        with torch.no_grad():
            residual = torch.linalg.vector_norm(self.map(self.points) - self.points, dim=1)
        kinds = [KINDS[code] for code in census.kind[order].tolist()]
        index = census.index[order]
        index_sum, reason = sum_of_indices(kinds, index, census.kink[order])
        unresolved = bool(torch.isinf(error).any())
        coverage = coverage_by_source(label.tolist(), self.sources)
        status, count = judge(
            kinds, self.outcome, coverage, len(cycles), self.settings.max_iter, self.n_doubtful, unresolved
        )
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(len(back), device=back.device)
        undecided = (self.outcome == SLOW) | (self.outcome == BOUNDED)
        return FixedPoints(
            points=self.points[order].cpu(),
            shape=self.map.shape,
            kind=kinds,
            rho=census.rho[order].cpu(),
            rho_error=census.rho_error[order].cpu(),
            sigma=census.sigma[order].cpu(),
            residual=residual[order].cpu(),
            error_bound=error[order].cpu(),
            index=index.cpu(),
            n_starts=torch.bincount(label[label >= 0], minlength=len(order)).cpu(),
            label=label[back].cpu(),
            outcome=self.outcome[back].cpu(),
            n_iterations=search.n_iterations[back].cpu(),
            cycles=tuple(cycles),
            cycle_label=cycle_label[back].cpu(),
            index_sum=index_sum,
            index_defect=None if index_sum is None else 1 - index_sum,
            index_reason=reason,
            n_missing=0 if index_sum is None else abs(1 - index_sum),
            coverage=coverage,
            count=count,
            truncated=self.truncated or bool(undecided.any()) or self.n_doubtful > 0,
            rule_count=rule_count,
            history=search.history.cpu(),
            n_evals=self.n_evals,
            tol=self.settings.tol,
            max_iter=self.settings.max_iter,
            status=status,
        )
