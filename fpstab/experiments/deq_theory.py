"""Figures 1–4 of paper 4: what the theory of deep-equilibrium models says, corrected and as printed, and what is measured.

Each function draws weights, measures, and sets both theories beside the measurement. The defaults are small (half a
minute for all four); `FULL` holds the paper's sizes.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import update_wrapper
from inspect import getdoc
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Generator, Tensor

from fpstab.results import OK, Status
from fpstab.theory import deq

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_FAMILIES: tuple[deq.FamilyName, ...] = ("iid", "orthogonal", "goe")

FULL: dict[str, dict[str, Any]] = {
    "length_variance": {"width": 5000, "draws": 1},
    "field_variance": {"width": 1000, "draws": 8, "inputs": 8},
    "largest_eigenvalue": {"width": 1000, "draws": 8},
    "residual": {"width": 1000, "draws": 100, "inputs": 10, "iterations": 1000},
}
"""The paper's sizes, by function: keyword arguments. Figure 4's 1,000 samples are 100 weights with 10 inputs each."""

_DELTAS = tuple(10 ** (-0.2 * k) for k in range(11))
_SQRT_VS = tuple(round(0.15 * k, 2) for k in range(1, 14))
_COLOURS = ("#4c72b0", "#55a868", "#c44e52", "#8172b3", "#ccb974", "#64b5cd")


@dataclass(frozen=True, slots=True)
class Point:
    """One family at one place of a figure.

    Attributes:
        family: The family of W.
        x: δ = 1 − V/V_c in figure 1, √V in the others.
        sqrt_v: √V.
        theory: What the corrected theory says; `None` where it says nothing.
        printed: What paper 4 prints; `None` where it prints nothing.
        measured: Median over the draws.
        low: Least of the draws.
        high: Greatest of the draws.
        unconverged: Share of the draws in which iteration did not converge.
    """

    family: str
    x: float
    sqrt_v: float
    theory: float | None
    printed: float | None
    measured: float
    low: float
    high: float
    unconverged: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class TheoryFigure:
    """A figure of paper 4.

    Attributes:
        name: What it is called here.
        x_label: Of its abscissa.
        y_label: Of its ordinate.
        points: Its points, family after family, in the order of the abscissa.
        thresholds: √V where the theory sees the equilibrium become unstable: family → (corrected, as printed).
        scale: `"log-log"`, `"log-y"` or `"linear"`.
        status: `"ok"`.
    """

    name: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]
    thresholds: dict[str, tuple[float, float | None]]
    scale: Literal["log-log", "log-y", "linear"] = "linear"
    status: Status = OK

    def table(self) -> list[dict[str, Any]]:
        """A row per point."""
        return [asdict(point) for point in self.points]

    def scalars(self) -> dict[str, float]:
        """The largest relative deviation of the measured median from each theory, per family, where iteration converged."""
        found: dict[str, float] = {}
        for point in self.points:
            for name, value in (("theory", point.theory), ("printed", point.printed)):
                if value and not point.unconverged:
                    key = f"{point.family}/{name}"
                    found[key] = max(found.get(key, 0.0), abs(point.measured / value - 1))
        return found

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the measured points with their range, the corrected theory as a line, the printed one dashed."""
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6, 4), layout="constrained").subplots()
        for family, colour in zip(dict.fromkeys(point.family for point in self.points), _COLOURS, strict=False):
            points = [point for point in self.points if point.family == family]
            x = [point.x for point in points]
            spread = [[p.measured - p.low for p in points], [p.high - p.measured for p in points]]
            ax.errorbar(x, [p.measured for p in points], spread, fmt="o", ms=3, lw=0.8, color=colour, label=family)
            lines: tuple[tuple[list[float | None], str], ...] = (
                ([p.theory for p in points], "-"),
                ([p.printed for p in points], "--"),
            )
            for values, style in lines:
                drawn = [math.nan if value is None else value for value in values]
                ax.plot(x, drawn, style, lw=1.2, color=colour)
            if family in self.thresholds:
                corrected, printed = self.thresholds[family]
                ax.axvline(corrected, ls="-", lw=0.6, color=colour)
                if printed is not None and printed != corrected:
                    ax.axvline(printed, ls="--", lw=0.6, color=colour)
        if self.scale == "log-log":
            ax.set_xscale("log")
        if self.scale != "linear":
            ax.set_yscale("log")
        ax.set_xlabel(self.x_label)
        ax.set_ylabel(self.y_label)
        ax.set_title("points: measured, lines: theory, dashed: as printed", fontsize="small")
        ax.legend(fontsize="small")
        return ax


def length_variance(
    families: Sequence[deq.Family] = PAPER_FAMILIES,
    *,
    width: int = 300,
    draws: int = 5,
    deltas: Sequence[float] = _DELTAS,
    seed: int = 0,
) -> TheoryFigure:
    """Figure 1: N/2 times the length variance of the linear model against δ = 1 − V/V_c.

    As in the paper one weight is drawn and then scaled, so that a draw is a curve. tr_N (MᵀM)² of a single weight may
    be anything near the transition, where an eigenvalue comes close to 1.

    Args:
        families: Those with a finite V_c, 1/4 for the GOE and 1 for iid and orthogonal weights.
        width: N.
        draws: Weights per family.
        deltas: δ, in (0, 1].
        seed: Of the weights.

    Raises:
        ValueError: If a number is out of range, or a family's moments never diverge.
    """
    if draws < 1 or not all(0 < delta <= 1 for delta in deltas):
        raise ValueError(f"draws = {draws}, deltas = {tuple(deltas)}; expected a draw, and numbers in (0, 1].")
    points = []
    for family in families:
        critical = deq.linear_critical_v(family)
        if critical == math.inf:
            raise ValueError(f"the moments of {family} weights never diverge: there is no delta.")
        weights = [
            deq.sample_weight(family, 1.0, width, generator=Generator().manual_seed(seed + k)) for k in range(draws)
        ]
        for delta in sorted(deltas):
            V = (1 - delta) * critical
            found = [deq.weight_moments(V**0.5 * weight).m4 for weight in weights]
            values = [math.inf if value is None else value for value in found]
            printed = None
            if family in PAPER_FAMILIES:
                printed = deq.linear_moments(family, V, as_printed=True).m4
            points.append(_point(family, delta, V**0.5, deq.linear_moments(family, V).m4, printed, values))
    return TheoryFigure(
        "length_variance", "δ = 1 − V/V_c", "tr (MᵀM)²/N", tuple(points), thresholds={}, scale="log-log"
    )


def _along_sqrt_v(
    y_label: str,
    scale: Literal["log-y", "linear"],
    predict: Callable[[deq.CavitySolution], float | None] | None,
    *,
    inputs: int = 4,
) -> Callable[[Callable[[deq.SampledEquilibrium], Tensor]], Callable[..., TheoryFigure]]:
    """Make of a function that measures sampled equilibria, one number an input, a figure of it along √V.

    Args:
        y_label: What is measured.
        scale: Of the figure.
        predict: The same by the theory; `None`: the theory only says where it ceases to vanish.
        inputs: Per weight, by default.
    """

    def decorate(measure: Callable[[deq.SampledEquilibrium], Tensor]) -> Callable[..., TheoryFigure]:
        def figure(
            families: Sequence[deq.Family] = PAPER_FAMILIES,
            activation: deq.Activation = "hardtanh",
            *,
            width: int = 300,
            draws: int = 4,
            inputs: int = inputs,
            sqrt_vs: Sequence[float] = _SQRT_VS,
            iterations: int = 300,
            seed: int = 0,
        ) -> TheoryFigure:
            """Args:
                families: Of the weights.
                activation: The paper has hard-tanh.
                width: N.
                draws: Weights per family and √V.
                inputs: Inputs per weight.
                sqrt_vs: √V.
                iterations: At most; beyond the critical V the last iterate is measured, as in the paper.
                seed: Of the weights and inputs.

            Raises:
                ValueError: If a number is out of range or a name is unknown.
                AnalysisError: If a family has no theory.
            """  # noqa: D205 (the rest of what each figure's own begins)
            if draws < 1:
                raise ValueError(f"draws = {draws}; expected at least one.")
            points, thresholds = [], {}
            for family in families:
                thresholds[str(family)] = _thresholds(family, activation)
                for sqrt_v in sorted(sqrt_vs):
                    samples = [
                        deq.sample_equilibrium(
                            family,
                            sqrt_v**2,
                            activation,
                            width=width,
                            inputs=inputs,
                            tol=1e-9 if predict else 1e-15,
                            max_iter=iterations,
                            generator=Generator().manual_seed(seed + draw),
                        )
                        for draw in range(draws)
                    ]
                    values = torch.cat([measure(sample) for sample in samples]).tolist()
                    residuals = torch.cat([sample.residual for sample in samples])
                    unconverged = float((residuals > 1e-6).double().mean())
                    theory, printed = _theories(predict, family, sqrt_v, activation) if predict else (None, None)
                    points.append(_point(family, sqrt_v, sqrt_v, theory, printed, values, unconverged))
            return TheoryFigure(measure.__name__, "√V", y_label, tuple(points), thresholds, scale)

        figure.__doc__ = f"{getdoc(measure)}\n\n{getdoc(figure)}"
        update_wrapper(figure, measure, assigned=("__name__", "__qualname__"))
        del figure.__wrapped__  # type: ignore[attr-defined]  # the signature is its own
        return figure

    return decorate


@_along_sqrt_v("σ_h²", "linear", lambda solution: solution.sigma_h2)
def field_variance(sample: deq.SampledEquilibrium) -> Tensor:
    """Figure 2: σ_h², the mean square of h = Wz*, against √V."""
    return sample.h.square().mean(1)


@_along_sqrt_v("λ", "linear", lambda solution: solution.spectral_radius, inputs=1)
def largest_eigenvalue(sample: deq.SampledEquilibrium) -> Tensor:
    """Figure 3: the largest modulus of the eigenvalues of DW, D = diag φ'(Wz*), against √V."""
    return sample.spectral_radius()


@_along_sqrt_v("‖h_{t+1} − h_t‖/√N", "log-y", None)
def residual(sample: deq.SampledEquilibrium) -> Tensor:
    """Figure 4: the residual ‖h_{t+1} − h_t‖/√N after long plain iteration, against √V.

    The theories give the √V where it ceases to vanish, `TheoryFigure.thresholds`; it falls at the rate λ, so that
    after a finite time it is not small just below.
    """
    value = deq.nonlinearity(sample.activation).value
    following = (torch.from_numpy(value(sample.h.numpy())) + sample.x) @ sample.weight.T
    return (following - sample.h).square().mean(1).sqrt().clamp(min=1e-17)  # logarithmic axes know no 0


def _thresholds(family: deq.Family, activation: deq.Activation) -> tuple[float, float | None]:
    printed = deq.critical_sqrt_v(family, activation, as_printed=True) if family in PAPER_FAMILIES else None
    return deq.critical_sqrt_v(family, activation), printed


def _theories(
    predict: Callable[[deq.CavitySolution], float | None], family: deq.Family, sqrt_v: float, activation: deq.Activation
) -> tuple[float | None, float | None]:
    """What the corrected theory says, and what the paper prints."""
    corrected = predict(deq.cavity_solution(family, sqrt_v**2, activation, throw=False))
    if family not in PAPER_FAMILIES:
        return corrected, None
    return corrected, predict(deq.cavity_solution(family, sqrt_v**2, activation, as_printed=True, throw=False))


def _point(
    family: deq.Family,
    x: float,
    sqrt_v: float,
    theory: float | None,
    printed: float | None,
    values: Iterable[float],
    unconverged: float = 0.0,
) -> Point:
    values = sorted(values)
    median = statistics.median(values)
    return Point(str(family), x, sqrt_v, theory, printed, median, values[0], values[-1], unconverged)
