"""What the orbits of a map end in: a fixed point, several, a line of them, a cycle, a torus, chaos, infinity (paper 3)."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fpstab.fixed_points import OUTCOMES, FixedPoints, find_fixed_points
from fpstab.jacobian import jacobian_matrix, lyapunov_exponents
from fpstab.lipschitz.extraction import sample_shape
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = ("single", "multiple", "line", "cycle", "chaotic", "unstable", "undetermined")

_REACH, _STARTS = 6.0, 24  # paper 3: starts in [−6, 6]²
_ORBITS = 4  # without a limit that are followed for their Lyapunov exponents
_DENSE = 64  # values of a point up to which whole Jacobians along an orbit are taken
_BLOCKS = 20
_SIGNIFICANT = 4.0  # standard errors
_ZERO = 3e-3  # a finite-time exponent within this of 0 may be 0
_CLOSED = 1e-8  # relative; an orbit that comes back by this is a cycle
_ONE, _BESIDE = 1e-9, 1e-3  # an eigenvalue this close to 1 may be 1; relative displacement that tells
_STEADY = 0.02  # relative; of the extents of two stretches of an orbit on one attractor


@dataclass(frozen=True, slots=True, eq=False)
class Attractor:
    """What the orbits from S starts end in.

    Attributes:
        label: `"single"` (one fixed point), `"multiple"` (several attractors, fixed points among them, or several cycles
            that attract), `"line"` (fixed points that are not isolated), `"cycle"` (a period, or quasi-periodic),
            `"chaotic"` (a positive Lyapunov exponent by four standard errors), `"unstable"` (more than half of the orbits
            leave all bounds), `"undetermined"`.
        fixed_points: The search behind it, with the fixed points, cycles, and the fate of each start.
        period: Of the cycle that most starts go to; `None` if there is none, or it is quasi-periodic.
        lyapunov: The largest Lyapunov exponent on the attractor that most starts go to (of a chaotic one if there is
            one), in natural logarithms a step; NaN if it is not known. At a fixed point log ρ(J), −inf if ρ = 0.
        lyapunov_error: Its standard error, from 20 stretches of the orbit; 0 at fixed points and cycles.
        counts: How many starts go to what, by label of what they go to.
        status: `"ok"`, or `"undetermined"`.
    """

    label: str
    fixed_points: FixedPoints
    period: int | None
    lyapunov: float
    lyapunov_error: float
    counts: dict[str, int]
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log: the exponent, the period, and the share of starts by what they go to."""
        n = max(sum(self.counts.values()), 1)
        return {
            "lyapunov": self.lyapunov,
            "lyapunov_error": self.lyapunov_error,
            "period": math.nan if self.period is None else float(self.period),
            **{
                f"share_{name}": self.counts.get(name, 0) / n
                for name in ("fixed", "line", "cycle", "chaotic", "unstable")
            },
        }

    def plot(self, ax: "Axes | None" = None) -> "Any":
        """Draw the fixed points that were found."""
        return self.fixed_points.plot(ax)


def classify_attractor(
    map: SelfMap | nn.Module | Callable[..., Any],  # noqa: A002
    starts: Any = None,
    *,
    max_iter: int = 1000,
    transient: int = 1000,
    steps: int = 2000,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> Attractor:
    """Say what the orbits x, f(x), f(f(x)), … end in (paper 3, Figure 6), from many starts.

    All orbits are followed as in `find_fixed_points`: limits are fixed points only if they are confirmed there. Orbits
    without a limit or a short period are followed on: one that comes back is a cycle; one of steady extent with a
    Lyapunov exponent of zero is quasi-periodic; one with an exponent above zero by four standard errors is chaotic.
    What none of that fits is undetermined. All of this is seen, not proved.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        starts: `[S, *shape]` or `[S, n]`; by default 24, uniform in [−6, 6]^n.
        max_iter: Iterations of the search.
        transient: Further iterations before an exponent is measured, for orbits that are not decided.
        steps: Over which it is measured, 100 or more.
        generator: Draws the starts; by default one with seed 0.
        throw: Raise if the label is `"undetermined"`; otherwise say so in the status.

    Raises:
        ValueError: If the map is not from a space to itself, starts are missing for a callable, or an argument is out
            of range.
        AnalysisError: If `throw`, and nothing could be determined.

    >>> logistic = classify_attractor(lambda x: 3.5 * x * (1 - x), torch.tensor([[0.2], [0.4]]))
    >>> logistic.label, logistic.period, round(logistic.lyapunov, 2)
    ('cycle', 4, -0.87)
    """
    if steps < 100 or transient < 0:
        raise ValueError(f"steps={steps}, transient={transient}: expected steps ≥ 100 and transient ≥ 0.")
    function, x = _starts(map, starts, generator)
    function.require_square("Attractors")
    found = find_fixed_points(function, x, max_iter=max_iter, generator=generator, throw=False)
    lines = _continued(function, found)
    fates = [_fate(found, row, lines) for row in range(len(x))]
    open_rows = [row for row, fate in enumerate(fates) if fate == "open"]
    exponent, error, period = math.nan, math.nan, None
    if open_rows:
        orbits = _Orbits(function, x[open_rows[:_ORBITS]], transient, steps)
        verdicts = [orbits.verdict(i) for i in range(len(orbits.exponent))]
        rest = Counter(verdicts).most_common(1)[0][0]
        for i, row in enumerate(open_rows):
            fates[row] = verdicts[i] if i < len(verdicts) else rest
        chosen = verdicts.index("chaotic") if "chaotic" in verdicts else verdicts.index(rest)
        same = [i for i, verdict in enumerate(verdicts) if verdict == verdicts[chosen]]
        exponent = float(orbits.exponent[same].mean())
        error = float(orbits.error[same].norm()) / len(same)
        period = orbits.period[chosen] if verdicts[chosen] == "cycle" else None
    counts = Counter(fates)
    label = _label(found, counts)
    if label in ("single", "multiple", "line", "cycle") and (counts["fixed"] or counts["line"] or found.cycles):
        known = _exponent_of_most(found)
        if known is not None and (label != "cycle" or found.cycles):
            exponent, period, error = *known, 0.0
    if label == "unstable":
        exponent = error = math.nan
    status = OK
    if label == "undetermined":
        status = Status(
            "undetermined",
            f"{function.name}: {counts['undetermined']} of {len(x)} orbits could not be decided within {max_iter + transient + steps} "
            "iterations. Allow more (max_iter, steps), or give starts where orbits stay bounded.",
        )
        if throw:
            raise AnalysisError(status)
    return Attractor(label, found, period, exponent, error, dict(counts), status)


def _starts(
    target: SelfMap | nn.Module | Callable[..., Any], starts: Any, generator: torch.Generator | None
) -> tuple[SelfMap, Tensor]:
    if starts is not None:
        if not len(starts):
            raise ValueError("starts: expected one or more, [S, *shape] or [S, n], got none.")
        function = as_map(target, starts)
        return function, function.flatten(starts)
    if isinstance(target, SelfMap):
        function = target
    elif isinstance(target, nn.Module):
        function = SelfMap(target, torch.zeros(1, *sample_shape(target)))
    else:
        raise ValueError("starts: a callable does not tell the size of a point: give starts [S, n].")
    return function, function.flatten(default_starts(function.n_in, generator))


def default_starts(n: int, generator: torch.Generator | None = None) -> Tensor:
    """24 points, uniform in [−6, 6]^n, `[24, n]`; without a generator always the same."""
    generator = generator or torch.Generator().manual_seed(0)
    draw = torch.rand(_STARTS, n, generator=generator, dtype=torch.float64, device=generator.device)
    return _REACH * (2 * draw - 1)


def _fate(found: FixedPoints, row: int, lines: list[bool]) -> str:
    outcome, label = OUTCOMES[int(found.outcome[row])], int(found.label[row])
    if label >= 0:
        return "line" if found.kind[label] == "non_isolated" or lines[label] else "fixed"
    if outcome in ("diverged", "nonfinite"):
        return "unstable"
    return "cycle" if outcome == "cycle" and int(found.cycle_label[row]) >= 0 else "open"


def _continued(function: SelfMap, found: FixedPoints) -> list[bool]:
    """Which marginal fixed points lie on a straight line of them, as those of piecewise linear maps do.

    Newton's method may not see it: where 1 is an eigenvalue to the last bit but one, it leads away from all of them.
    """
    lines = [False] * len(found)
    rows = [i for i, kind in enumerate(found.kind) if kind == "marginal"]
    if not rows or function.n_in > _DENSE:
        return lines
    x = found.points[rows].to(function.device)
    values, vectors = torch.linalg.eig(jacobian_matrix(function, x))
    nearest = (values - 1).abs().argmin(1)
    every = torch.arange(len(rows), device=x.device)
    along = vectors[every, :, nearest].real
    one = ((values[every, nearest] - 1).abs() <= _ONE) & (along.norm(dim=1) > 0)
    scale = 1.0 + x.norm(dim=1)
    with analysis_modes(), torch.no_grad():
        for sign in (1.0, -1.0):
            beside = x + sign * _BESIDE * scale[:, None] * along
            one &= (function(beside) - beside).norm(dim=1) <= _ONE * _BESIDE * scale
    for row, on in zip(rows, one.tolist(), strict=True):
        lines[row] = on
    return lines


def _label(found: FixedPoints, counts: Counter[str]) -> str:
    total = counts.total()
    if counts["unstable"] > total / 2:
        return "unstable"
    if counts["undetermined"] + counts["slow"] > (total - counts["unstable"]) / 2:
        return "undetermined"
    if counts["chaotic"]:
        return "chaotic"
    if counts["line"]:
        return "line"
    attracting = [cycle for cycle in found.cycles if cycle.attracting]
    if counts["cycle"]:
        return "multiple" if counts["fixed"] or len(attracting) > 1 else "cycle"
    visited = {int(label) for label in found.label.tolist() if label >= 0}
    return "multiple" if len(visited) > 1 else "single" if visited else "undetermined"


def _exponent_of_most(found: FixedPoints) -> tuple[float, int | None] | None:
    """Exponent and period of the fixed point or cycle that most starts go to."""
    points = [(int(n), float(found.rho[i]), 1) for i, n in enumerate(found.n_starts.tolist()) if n]
    cycles = [(cycle.n_starts, cycle.rho, cycle.period) for cycle in found.cycles if cycle.n_starts]
    if not points and not cycles:
        return None
    _, rho, period = max(points + cycles, key=lambda each: each[0])
    return (math.log(rho) / period if rho > 0 else -math.inf), (period if period > 1 else None)


class _Orbits:
    """Orbits after a transient, with their largest Lyapunov exponents and their periods.

    Attributes:
        exponent: `[R]`.
        error: `[R]`, standard errors.
        period: Of each orbit, or `None`.
    """

    def __init__(self, function: SelfMap, x: Tensor, transient: int, steps: int) -> None:
        with analysis_modes(), torch.no_grad():
            for _ in range(transient):
                x = function(x)
            path = [x]
            for _ in range(steps):
                path.append(function(path[-1]))
        self.path = torch.stack(path, 1)  # [R, T + 1, n]
        if function.n_in <= _DENSE:
            self.exponent, self.error = _dense_exponents(function, self.path[:, :-1])
        else:
            found = lyapunov_exponents(function, x, steps=steps, transient=steps // 5, throw=False)
            self.exponent, self.error = found.exponents[:, 0], found.standard_error[:, 0]
        self.period = [_period(orbit) for orbit in self.path]

    def verdict(self, row: int) -> str:
        """`"cycle"`, `"chaotic"`, `"slow"` (towards a fixed point), `"unstable"` or `"undetermined"`."""
        orbit, exponent, error = self.path[row], float(self.exponent[row]), float(self.error[row])
        if not bool(torch.isfinite(orbit).all()):
            return "unstable"
        period = self.period[row]
        if period is not None:
            return "slow" if period == 1 else "cycle"
        if math.isnan(exponent):
            return "undetermined"
        steady = _is_steady(orbit)
        if exponent > max(_SIGNIFICANT * error, _ZERO):
            return "unstable" if _leaves(orbit) else "chaotic"
        if abs(exponent) <= max(_SIGNIFICANT * error, _ZERO) and steady:
            return "cycle"
        return "undetermined"


def _leaves(orbit: Tensor) -> bool:
    """Whether an orbit `[T, n]` grows without coming back: all of its last third is outside of all of its first."""
    third = len(orbit) // 3
    size = orbit.norm(dim=1)
    return bool(size[-third:].min() > 1.5 * size[:third].max())


def _is_steady(orbit: Tensor) -> bool:
    """Whether an orbit `[T, n]` neither shrinks, nor grows, nor drifts: three stretches of it have one place and extent."""
    third = len(orbit) // 3
    parts = (orbit[:third], orbit[third : 2 * third], orbit[-third:])
    extents = torch.stack([(part.amax(0) - part.amin(0)).norm() for part in parts])
    drift = (parts[0].mean(0) - parts[-1].mean(0)).norm()
    return bool(extents.min() >= (1 - _STEADY) * extents.max()) and bool(drift <= 3 * _STEADY * extents.max())


def _period(orbit: Tensor) -> int | None:
    """The smallest p by which the end of an orbit `[T, n]` repeats, up to a third of its length."""
    scale = 1.0 + float(orbit[-1].norm())
    distance = (orbit[:-1] - orbit[-1]).norm(dim=1).flip(0)  # to one step before, two steps before, …
    for p in ((distance[: len(distance) // 3] <= _CLOSED * scale).nonzero()[:, 0] + 1).tolist():
        stretch = min(3 * p, len(orbit) - p)
        if float((orbit[-stretch:] - orbit[-stretch - p : -p]).norm(dim=1).max()) <= _CLOSED * scale:
            return int(p)
    return None


def _dense_exponents(function: SelfMap, path: Tensor) -> tuple[Tensor, Tensor]:
    """Mean logarithmic growth of one tangent vector along paths `[R, T, n]`, and its standard error."""
    r, t, n = path.shape
    finite = torch.isfinite(path).all(2).all(1)
    points = torch.where(finite[:, None, None], path, 0.0).reshape(r * t, n)
    J = jacobian_matrix(function, points).reshape(r, t, n, n)
    v = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(path)
    v = (v / v.norm()).expand(r, n)
    growth = path.new_empty(t, r)
    for step in range(t):
        v = torch.bmm(J[:, step], v[:, :, None])[:, :, 0]
        length = v.norm(dim=1)
        growth[step] = length.log()
        v = torch.where(length[:, None] > 0, v / length[:, None].clamp_min(1e-300), v)
    growth = growth[t // 20 :]  # while the vector turns into its direction
    blocks = torch.stack([part.mean(0) for part in torch.tensor_split(growth, _BLOCKS)])
    mean = torch.where(finite, growth.mean(0), torch.nan)
    return mean.cpu(), (blocks.std(0) / _BLOCKS**0.5).cpu()
