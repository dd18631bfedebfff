"""What Figures 1–5 of paper 4 claim, with rules, and what a run of `deq_theory` or `deq_training` makes of it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fpstab.experiments.claims import Claim, Finding, Verdict
from fpstab.experiments.deq_theory import Point, TheoryFigure
from fpstab.experiments.deq_training import ErrorByScale

_SAMPLE = "Points whose iteration converged, three or more, and three or more draws a point"
_NAMES = {"iid": "random", "orthogonal": "orthogonal", "goe": "GOE"}


@dataclass(frozen=True, slots=True)
class CurveClaim:
    """That measured medians follow a curve.

    Attributes:
        claim: The claim.
        family: Of the weights.
        tolerance: Largest relative deviation of a median from a curve that it follows.
        lowest: Least abscissa of the points that count.
        highest: Largest one.
    """

    claim: Claim
    family: str
    tolerance: float
    lowest: float = -math.inf
    highest: float = math.inf


def _curve(item: str, text: str, family: str, tolerance: float, where: str = "", *, lowest: float = -math.inf,
           highest: float = math.inf) -> CurveClaim:  # fmt: skip
    rule = (
        f"{_SAMPLE}{where}: the printed curve within {tolerance:.0%} of every median, or between the least and the greatest draw: "
        "reproduced; ours only: corrected; fewer points or draws: inconclusive."
    )
    revised = _RANGE + (_NEARER if where == _NEAR else "")
    return CurveClaim(
        Claim(4, f"{item}, {_NAMES[family]}", text, rule, revised=revised), family, tolerance, lowest, highest
    )


_NEAR = " at δ ≥ .25 (nearer, one weight of width 300 may have any value)"
_RANGE = "a curve between the least and the greatest draw counts as followed: scatter was taken for failure"
_NEARER = "; δ ≥ .25 was .1"

LENGTHS = (
    _curve("Figure 1", "The length variance follows (18).", "orthogonal", 0.1, _NEAR, lowest=0.25),
    _curve("Figure 1", "The length variance follows (19).", "iid", 0.25, _NEAR, lowest=0.25),
    _curve("Figure 1", "The length variance follows (20).", "goe", 0.25, _NEAR, lowest=0.25),
)
"""Of Figure 1."""

_BELOW = " at √V ≤ .6"

FIELDS = (
    _curve("Figure 2", "σ_h² follows (25).", "iid", 0.15),
    _curve("Figure 2", "σ_h² follows (25).", "orthogonal", 0.15),
    _curve("Figure 2", "σ_h² follows (25).", "goe", 0.15, _BELOW, highest=0.6),
)
"""Of Figure 2. Medians of a few inputs at N = 300 scatter by 5 to 10 %."""

RADII = (
    _curve("Figure 3", "The largest eigenvalue follows (30).", "iid", 0.12),
    _curve("Figure 3", "The largest eigenvalue follows (30).", "orthogonal", 0.12),
    _curve("Figure 3", "The largest eigenvalue follows 2√(Vp), p by (25).", "goe", 0.12, _BELOW, highest=0.6),
)
"""Of Figure 3."""

_VANISHES = 0.01  # a residual that does not is of order 1; just below the threshold it is not small in finite time
_MEDIAN = "the median below .01 was every residual below 1e-6: slow convergence was taken for failure"
_THRESHOLD = (
    f"The largest √V of the figure with a median residual below {_VANISHES:g}, and the least with one above, 3 draws or more: the "
    "printed threshold within 12 % of that range: reproduced; ours only: corrected; neither: not reproduced."
)
THRESHOLDS = {
    "iid": Claim(
        4, "Figure 4, random", "Plain iteration converges up to λ_max = 1 by (30).", _THRESHOLD, revised=_MEDIAN
    ),
    "orthogonal": Claim(
        4, "Figure 4, orthogonal", "Plain iteration converges up to λ_max = 1 by (30).", _THRESHOLD, revised=_MEDIAN
    ),
    "goe": Claim(
        4, "Figure 4, GOE", "Plain iteration converges up to 2√(Vp) = 1, p by (25).", _THRESHOLD, revised=_MEDIAN
    ),
}
"""Of Figure 4, by family."""

_SEEDS = 5
_FIVE = f"at least {_SEEDS} seeds of both families, otherwise inconclusive"

SMALL_SCALE = Claim(
    4,
    "Figure 5, small √V",
    "At small scales the test errors of both initialisations are similar.",
    f"Medians at the least √V within 2 points: reproduced; {_FIVE}.",
)
LARGE_SCALE = Claim(
    4,
    "Figure 5, large √V",
    "At larger scales orthogonal initialisation has the lower test error.",
    f"Median of random above orthogonal by more than 2 points at the largest √V: reproduced; {_FIVE}.",
)
UNSTABLE_LEARNING = Claim(
    4,
    "Figure 5, mean and median",
    "Learning from random initialisation is less stable: the mean test error is above the median.",
    f"Mean above median by more than 5 points at some √V for random weights, and at none for orthogonal: reproduced; {_FIVE}.",
)


def theory_findings(figure: TheoryFigure) -> tuple[Finding, ...]:
    """What a run of Figure 1, 2, 3 or 4 makes of its claims.

    Raises:
        ValueError: If the figure is another.
    """
    if figure.name == "residual":
        return tuple(_threshold(figure, family, claim) for family, claim in THRESHOLDS.items())
    curves = {"length_variance": LENGTHS, "field_variance": FIELDS, "largest_eigenvalue": RADII}
    if figure.name not in curves:
        raise ValueError(f"there are no claims of the figure {figure.name!r}; known are {', '.join(curves)}, residual.")
    return tuple(_followed(figure, claim) for claim in curves[figure.name])


def training_findings(study: ErrorByScale) -> tuple[Finding, ...]:
    """What a run of Figure 5 makes of its claims."""
    rows = {(str(row["family"]), float(row["sqrt_v"])): row for row in study.table()}
    scales = sorted({scale for _, scale in rows})
    pairs = [s for s in scales if ("random", s) in rows and ("orthogonal", s) in rows]
    if not pairs:
        said = "The run has no √V with both random and orthogonal weights."
        return tuple(claim.found("inconclusive", said) for claim in (SMALL_SCALE, LARGE_SCALE, UNSTABLE_LEARNING))
    least = min(int(rows[family, s]["seeds"]) for s in pairs for family in ("random", "orthogonal"))

    def gap(scale: float) -> float:
        return float(rows["random", scale]["median"]) - float(rows["orthogonal", scale]["median"])

    def stray(family: str) -> float:
        return max(float(rows[family, s]["mean"]) - float(rows[family, s]["median"]) for s in pairs)

    low, high = gap(pairs[0]), gap(pairs[-1])
    apart = stray("random"), stray("orthogonal")

    def by_rule(holds: bool) -> Verdict:
        return "inconclusive" if least < _SEEDS else "reproduced" if holds else "not reproduced"

    seeds = f"{least} seeds"
    return (
        SMALL_SCALE.found(
            by_rule(abs(low) <= 0.02),
            f"√V = {pairs[0]:g}: random − orthogonal {100 * low:+.1f} points, {seeds}.",
            low,
            sample=least,
        ),
        LARGE_SCALE.found(
            by_rule(high > 0.02 and len(pairs) > 1),
            f"√V = {pairs[-1]:g}: random − orthogonal {100 * high:+.1f} points, {seeds}.",
            high,
            sample=least,
        ),
        UNSTABLE_LEARNING.found(
            by_rule(apart[0] > 0.05 >= apart[1]),
            f"Mean above median by at most {100 * apart[0]:.1f} points (random), {100 * apart[1]:.1f} (orthogonal), {seeds}.",
            apart[0],
            sample=least,
        ),
    )


def _followed(figure: TheoryFigure, of: CurveClaim) -> Finding:
    points = [
        point
        for point in figure.points
        if point.family == of.family
        and of.lowest <= point.x <= of.highest
        and point.unconverged == 0
        and math.isfinite(point.measured)
    ]
    ours, printed = (
        _deviation(points, lambda point: point.theory),
        _deviation(points, lambda point: point.printed),
    )
    spread = any(point.low < point.high for point in points)
    if len(points) < 3 or not spread or ours is None or printed is None:
        return of.claim.found("inconclusive", f"{len(points)} points with a converged iteration.", sample=len(points))
    verdict: Verdict = "not reproduced"
    if printed <= of.tolerance:
        verdict = "reproduced"
    elif ours <= of.tolerance:
        verdict = "corrected"
    said = f"{len(points)} points; outside of the draws the printed curve is off by at most {_share(printed)}, ours by {_share(ours)}."
    return of.claim.found(verdict, said, printed, sample=len(points))


def _deviation(points: Sequence[Point], curve: Callable[[Point], float | None]) -> float | None:
    """The largest one where the curve is outside of the draws; `None` if the curve lacks a point."""
    largest = 0.0
    for point in points:
        value = curve(point)
        if value is None:
            return None
        if point.low <= value <= point.high:
            continue
        largest = math.inf if value == 0 else max(largest, abs(point.measured / value - 1))
    return largest


def _share(value: float) -> str:
    return f"{value:.0%}" if value < 10 else "more than tenfold"


def _threshold(figure: TheoryFigure, family: str, claim: Claim) -> Finding:
    points = sorted((point for point in figure.points if point.family == family), key=lambda point: point.x)
    below = [point.x for point in points if point.measured < _VANISHES]
    above = [point.x for point in points if point.measured >= _VANISHES]
    ours, printed = figure.thresholds.get(family, (math.nan, None))
    if not below or not above or printed is None:
        return claim.found("inconclusive", "The figure does not have both sides of a threshold.", sample=len(points))
    high = min(above)
    low = max((x for x in below if x < high), default=min(below))
    near = [0.88 * low <= value <= 1.12 * high for value in (printed, ours)]
    verdict: Verdict = "reproduced" if near[0] else "corrected" if near[1] else "not reproduced"
    said = (
        f"The median residual vanishes up to √V = {low:g}, and does not from {high:g} on; printed {printed:.3f}, by the cavity "
        f"equations {ours:.3f}."
    )
    return claim.found(verdict, said, high, sample=len(points))
