"""Picard iteration of many starts at once: each ends with an outcome, an observed rate and an error bound."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
Rule = Literal["paper"]

OUTCOMES = ("fixed", "cycle", "slow", "bounded", "diverged", "nonfinite")
FIXED, CYCLE, SLOW, BOUNDED, DIVERGED, NONFINITE = range(len(OUTCOMES))

PAPER_STEP, PAPER_ITERATIONS, PAPER_GROUP = 1e-5, 50, 1e-3
TRACED = 32  # starts whose residuals are kept for a picture

_WINDOW = 8  # iterations between two looks at the batch; a rate is observed over as many
_ASYMPTOTIC = 1e-5  # relative residual from which on a rate tells the distance to the limit
_RETURN = 1e-9  # relative distance at which an orbit has come back to its anchor
_NEAR_RETURN = 1e-2  # relative to a step: perhaps a cycle that attracts slowly
_STREAK = 8  # windows in which the residual fell, one after the other: slow convergence
_FAR = 1e12  # times the size of the start: gone


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Where the orbits of `S` starts went, in the order of the starts, on the map's device.

    Attributes:
        outcome: Index into `OUTCOMES` `[S]`.
        x: The last iterate `[S, n]`; of an orbit that is gone, the last one looked at.
        residual: ‖x_k − x_{k−1}‖ at the last iterate `[S]`.
        rate: Observed contraction rate q `[S]`, nan if none was.
        error_bound: 2·residual·q/(1−q) plus what rounding may leave `[S]`: how far the limit is, to first order.
            Infinite if q ≥ 1 or unknown.
        period: Of a return `[S]`, else 0. For orbits that are `bounded`, the period of the closest return.
        passed: The iterate of the orbit's smallest local minimum of the residual `[S, n]`, where it passes a
            fixed point that repels it; nan if there was none or nobody asked.
        n_iterations: Of each orbit `[S]`.
        n_evals: Evaluations of the function, counted in rows.
        history: Residuals of the traced starts `[T, iterations]`, nan after the end of an orbit.
    """

    outcome: Tensor
    x: Tensor
    residual: Tensor
    rate: Tensor
    error_bound: Tensor
    period: Tensor
    passed: Tensor
    n_iterations: Tensor
    n_evals: int
    history: Tensor


def scale(x: Tensor) -> Tensor:
    """1 + ‖x‖ `[B]`: what relative tolerances refer to."""
    size: Tensor = torch.linalg.vector_norm(x, dim=1)
    return 1.0 + size


def rounding_floor(x: Tensor) -> Tensor:
    """The residual `[B]` below which rounding alone may be seen, at points `x` `[B, n]`."""
    return 32 * torch.finfo(x.dtype).eps * scale(x)


def chunks(x: Tensor, size: int) -> list[Tensor]:
    """The rows of `x`, at most `size` at a time."""
    return [x[i : i + size] for i in range(0, len(x), size)]


def picard(
    function: Map,
    starts: Tensor,
    *,
    tol: float,
    max_iter: int,
    batch_size: int,
    rule: Rule | None = None,
    minima: bool = False,
    compact: bool = True,
) -> Search:
    """Iterate x ← Φ(x) from every start until its fate is known, at most `max_iter` times.

    A row is `fixed` when its residual is below 1e-5 relative to 1 + ‖x‖ (only then a rate tells the distance) and
    its error bound below `tol`, in the same measure. A return to the anchor of Brent's method is a `cycle` (yet to
    be verified). Finished rows leave the batch. With the rule of the papers a row is `fixed` when a step is
    shorter than 1e-5 within 50 iterations (paper 1 §IV; paper 2, eq. (5)), and cycles are not looked for.

    Args:
        function: Maps `[B, n]` to `[B, n]`, each row on its own.
        starts: `[S, n]`.
        tol: Error to reach, relative to 1 + ‖x‖.
        max_iter: Iterations at most.
        batch_size: Rows that are iterated together.
        rule: `"paper"` for the papers' stopping rule.
        minima: Whether to keep where orbits pass repelling fixed points.
        compact: Whether finished rows leave the batch (for comparison; the outcome is the same).
    """
    parts, traced = [], TRACED
    with torch.no_grad():
        for chunk in chunks(starts, batch_size) or [starts]:
            iterate = _iterate_paper if rule == "paper" else _iterate
            parts.append(iterate(function, chunk, tol, max_iter, minima, compact, min(traced, len(chunk))))
            traced -= min(traced, len(chunk))
    return _concatenate(parts)


def _iterate(
    function: Map, starts: Tensor, tol: float, max_iter: int, minima: bool, compact: bool, traced: int
) -> Search:
    out = _empty(starts)
    history: list[Tensor] = []
    begun_finite = torch.isfinite(starts).all(1)
    out.outcome[~begun_finite] = NONFINITE
    rows = begun_finite.nonzero()[:, 0]  # which start each row of the batch is
    # of the batch, cut down together with it
    x = starts[rows]
    size = scale(x)
    anchor, anchor_size, earlier_size = x, size, torch.zeros_like(size)
    streak = torch.zeros_like(rows)  # of windows in which the residual fell
    last, rate = torch.full_like(size, math.nan), torch.full_like(size, math.nan)
    closest, closest_period = torch.full_like(size, math.inf), torch.zeros_like(rows)
    before, before2 = last, last  # residuals one and two steps ago
    x_before = x
    lowest = torch.full((len(starts),), math.inf, dtype=starts.dtype, device=starts.device)
    k, anchored, next_anchor, n_evals = 0, 0, _WINDOW, 0
    while k < max_iter and len(rows):
        steps = min(_WINDOW, max_iter - k)
        residuals, returns = [], []
        for _ in range(steps):
            y = function(x)
            r = torch.linalg.vector_norm(y - x, dim=1)
            if minima:
                passing = (before < before2) & (before < r) & (before < lowest[rows])
                if bool(passing.any()):
                    out.passed[rows[passing]] = x_before[passing]
                    lowest[rows[passing]] = before[passing]
                x_before, before, before2 = x, r, before
            x = y
            residuals.append(r)
            returns.append(torch.linalg.vector_norm(x - anchor, dim=1))
        n_evals += steps * len(rows)
        R, D = torch.stack(residuals), torch.stack(returns)
        if traced:
            history.append(_trace(R, rows, traced))
        here, floor = scale(x), rounding_floor(x)
        now = R[-1]
        observed = (now / last) ** (1 / steps)
        observed = torch.where((now > floor) & (last > floor), observed, math.nan)
        q = torch.fmax(observed, rate)  # of two windows: residuals along spirals swing
        error = torch.where(q < 1, 2 * now * q / (1 - q) + floor / (1 - q), math.inf)
        error = torch.where((now <= floor) & ~(q < 1), floor, error)  # it was there before a rate could be seen
        fixed = (now <= floor) | ((k >= _WINDOW) & (now <= _ASYMPTOTIC * here) & (error <= tol * here))

        periods = torch.arange(k - anchored + 1, k - anchored + steps + 1, device=x.device)
        D = torch.where((periods > 1)[:, None], D / R, math.inf).nan_to_num(math.inf, math.inf)
        nearest, at = D.min(0)
        closer = nearest < closest
        closest = torch.where(closer, nearest, closest)
        closest_period = torch.where(closer, periods[at], closest_period)
        back = (D <= 1e-3) & (_RETURN * here >= (D * R))
        cycle = back.any(0) & ~fixed

        gone = ~torch.isfinite(now) | (here > _FAR * size)
        outcome = torch.where(fixed, FIXED, torch.where(cycle, CYCLE, -1))
        outcome = torch.where(gone, torch.where(_has_nan_first(R), NONFINITE, DIVERGED), outcome)
        k += steps
        streak = torch.where(observed < 1, streak + 1, 0)
        if k >= max_iter:
            shrinking = streak >= min(_STREAK, max(1, k // _WINDOW // 2))
            growing = (here > 1.5 * anchor_size) & (anchor_size > 1.5 * earlier_size) & (here > 10 * size)
            undecided = torch.where(shrinking, SLOW, torch.where(growing, DIVERGED, BOUNDED))
            outcome = torch.where(outcome < 0, undecided, outcome)
        ended = outcome >= 0
        if bool(ended.any()):
            fresh = ended if compact else ended & (out.outcome[rows] < 0)
            which = rows[fresh]
            out.outcome[which] = outcome[fresh]
            finite = fresh & torch.isfinite(x).all(1)
            out.x[rows[finite]] = x[finite]
            out.residual[which], out.rate[which], out.error_bound[which] = now[fresh], q[fresh], error[fresh]
            first = periods[back.to(torch.int8).argmax(0)]
            found = torch.where(cycle, first, torch.where(closest <= _NEAR_RETURN, closest_period, 0))
            out.period[which] = torch.where((outcome == CYCLE) | (outcome >= SLOW), found, 0)[fresh]
            out.n_iterations[which] = k
        last, rate = now, torch.where(torch.isnan(observed), rate, observed)
        if k == next_anchor:
            anchor, earlier_size, anchor_size = x, anchor_size, here
            closest = torch.full_like(closest, math.inf)
            anchored, next_anchor = k, 2 * k
        if compact and bool(ended.any()):
            stay = (~ended).nonzero()[:, 0]
            rows, x, size, anchor, anchor_size = rows[stay], x[stay], size[stay], anchor[stay], anchor_size[stay]
            earlier_size, last, rate, streak = earlier_size[stay], last[stay], rate[stay], streak[stay]
            closest, closest_period = closest[stay], closest_period[stay]
            if minima:
                x_before, before, before2 = x_before[stay], before[stay], before2[stay]
        elif not compact and bool((out.outcome >= 0).all()):
            break
    return replace(out, n_evals=n_evals, history=_join(history, traced, starts))


def _iterate_paper(
    function: Map, starts: Tensor, tol: float, max_iter: int, minima: bool, compact: bool, traced: int
) -> Search:
    del tol, max_iter, minima, compact  # the rule says all
    out = _empty(starts)
    history: list[Tensor] = []
    finite = torch.isfinite(starts).all(1)
    out.outcome[~finite] = NONFINITE
    rows = finite.nonzero()[:, 0]
    x = starts[rows]
    size = scale(x)
    waiting = torch.ones_like(rows, dtype=torch.bool)
    last: list[Tensor] = []  # residuals of some steps
    n_evals, left = 0, len(rows)
    for k in range(1, PAPER_ITERATIONS + 1):
        y = function(x)
        r = torch.linalg.vector_norm(y - x, dim=1)
        x = y
        n_evals += left
        last = [*last[-_WINDOW:], r]
        if traced:
            history.append(_trace(torch.where(waiting, r, math.nan)[None], rows, traced))
        done = waiting if k == PAPER_ITERATIONS else waiting & (r < PAPER_STEP)
        at = done.nonzero()[:, 0]
        if not len(at):
            continue
        _settle_paper(out, rows[at], x[at], torch.stack([each[at] for each in last]), size[at], k)
        waiting = waiting & ~done
        left -= len(at)
        if not left:
            break
        if left < 0.8 * len(rows):
            stay = waiting.nonzero()[:, 0]
            rows, x, size, waiting = rows[stay], x[stay], size[stay], waiting[stay]
            last = [each[stay] for each in last]
    return replace(out, n_evals=n_evals, history=_join(history, traced, starts))


def _settle_paper(out: Search, which: Tensor, x: Tensor, R: Tensor, size: Tensor, k: int) -> None:
    """Note how rows ended that have iterates `[d, n]` and last residuals `[w, d]` after `k` steps."""
    r = R[-1]
    q = (r / R[0]) ** (1 / (len(R) - 1)) if len(R) > 1 else torch.zeros_like(r)
    floor, here = rounding_floor(x), scale(x)
    q = torch.where(r <= floor, 0.0, q)
    fixed = r < PAPER_STEP
    out.outcome[which] = FIXED
    if not bool(fixed.all()):
        shrinking = (torch.diff(R, dim=0) < 0).all(0)
        missed = torch.where(here > _FAR * size, DIVERGED, torch.where(shrinking, SLOW, BOUNDED))
        gone = torch.where(_has_nan_first(R), NONFINITE, DIVERGED)
        out.outcome[which] = torch.where(fixed, FIXED, torch.where(torch.isfinite(r), missed, gone))
    finite = torch.isfinite(x).all(1)
    out.x[which[finite]] = x[finite]
    out.residual[which], out.rate[which] = r, q
    out.error_bound[which] = torch.where(q < 1, (2 * r * q + floor) / (1 - q), math.inf)
    out.n_iterations[which] = k


def _empty(starts: Tensor) -> Search:
    def vector(value: float) -> Tensor:
        return torch.full((len(starts),), value, dtype=starts.dtype, device=starts.device)

    counts = torch.zeros(len(starts), dtype=torch.int64, device=starts.device)
    return Search(
        outcome=counts - 1,
        x=starts.clone(),
        residual=vector(math.nan),
        rate=vector(math.nan),
        error_bound=vector(math.inf),
        period=counts.clone(),
        passed=torch.full_like(starts, math.nan),
        n_iterations=counts.clone(),
        n_evals=0,
        history=starts.new_empty(0, 0),
    )


def _has_nan_first(R: Tensor) -> Tensor:
    """Whether the first residual `[w, B]` that is not finite is nan: overflow goes by way of infinity."""
    first = (~torch.isfinite(R)).to(torch.int8).argmax(0)
    return torch.isnan(R.gather(0, first[None])[0])


def _trace(R: Tensor, rows: Tensor, traced: int) -> Tensor:
    """The residuals `[w, B]` of the first starts, as `[traced, w]` with nan for those no longer in the batch."""
    trace = R.new_full((traced, len(R)), math.nan)
    mask = rows < traced
    trace[rows[mask]] = R[:, mask].T
    return trace


def _join(history: list[Tensor], traced: int, starts: Tensor) -> Tensor:
    return torch.cat(history, 1) if history else starts.new_empty(traced, 0)


def _concatenate(parts: list[Search]) -> Search:
    if len(parts) == 1:
        return parts[0]
    length = max(part.history.shape[1] for part in parts)
    histories = [
        torch.nn.functional.pad(part.history, (0, length - part.history.shape[1]), value=math.nan) for part in parts
    ]
    joined = {
        field.name: torch.cat([getattr(part, field.name) for part in parts])
        for field in fields(Search)
        if field.name not in ("n_evals", "history")
    }
    return Search(**joined, n_evals=sum(part.n_evals for part in parts), history=torch.cat(histories))
