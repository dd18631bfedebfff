"""Table 1 of paper 3: the networks of its figures, each drawn and measured anew, and what is false of its theorem."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fpstab.experiments.claims import Claim, Study
from fpstab.experiments.dynamics.attractor_types import TYPES
from fpstab.experiments.dynamics.counterexamples import theorem_findings
from fpstab.experiments.dynamics.layers import FIGURE_2, FIGURE_5
from fpstab.experiments.dynamics.measures import Draw, draw_model, values_of
from fpstab.experiments.dynamics.models import GRID, Model
from fpstab.experiments.dynamics.regions import FIGURE_3, FIGURE_4

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE: tuple[tuple[str, Model], ...] = (
    *(("Figure 2", model) for _, model in FIGURE_2),
    *(("Figure 3", FIGURE_3[i]) for i in (0, 1, 3, 2)),
    *(("Figure 4", model) for model in FIGURE_4),
    *(("Figure 5", Model(linear, depth, "GELU", bias)) for _, linear, bias in FIGURE_5 for depth in (1, 4, 8)),
    *(("Figures 6–8", model) for model in TYPES.values()),
)
"""The rows of Table 1, in its order."""

MEMBERS = Claim(
    3, "Table 1", "The networks of the figures are selected from the 828 of the grid.",
    "every row of the table is one of them (reproduced), or not",
)  # fmt: skip

_COLOURS = {"single": "#3b6ea8", "multiple": "#64b5cd", "line": "#8172b3", "cycle": "#55a868", "unstable": "#c8373f"}


def dynamics_table1(*, seed: int = 0, draws: int = 3, activated: bool = True) -> Study:
    """Table 1: what its networks end in, and their ρ(A*); with inequality (10) and theorem 6 put to the test.

    Args:
        seed: The first.
        draws: Networks of each row.
        activated: Whether the output is.

    Raises:
        ValueError: If there is no draw.
    """
    drawn: dict[Model, list[Draw]] = {}
    for _, model in TABLE:
        if model not in drawn:
            drawn[model] = draw_model(model, seed=seed, draws=draws, activated=activated)
    rows: list[dict[str, Any]] = [{"figure": figure} | draw.row() for figure, model in TABLE for draw in drawn[model]]
    strangers = [model for _, model in TABLE if model not in GRID]
    findings = (
        MEMBERS.found("not reproduced" if strangers else "reproduced", f"{len(TABLE) - len(strangers)} of {len(TABLE)} are.",
                      float(len(strangers)), None, len(TABLE)),
        *theorem_findings(seed),
    )  # fmt: skip
    values: dict[str, float] = {}
    for number, (_, model) in enumerate(TABLE):
        values |= values_of(drawn[model], f"row_{number + 1}")
    return Study(tuple(rows), findings, partial(_draw, [(figure, drawn[model]) for figure, model in TABLE]), values)


def _draw(table: Sequence[tuple[str, list[Draw]]]) -> "Figure":
    """Least to largest ρ(A*) of each draw, in the colour of its label."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9.5, 0.29 * len(table) + 1.1), layout="constrained")
    ax = figure.subplots()
    for place, (_, draws) in enumerate(table):
        for k, draw in enumerate(draws):
            y = place + 0.5 * (k - (len(draws) - 1) / 2) / len(draws)
            low, high = max(-float((-draw.rho).nan_to_num(-1e300).max()), 1e-4), max(min(draw.rho_max, 1e4), 1e-4)
            ax.plot([low, high], [y, y], lw=2.2, solid_capstyle="butt", color=_COLOURS.get(draw.label, "#222222"))
    ax.axvline(1, lw=0.8, color="#222222")
    ax.set_xscale("log")
    ax.set_yticks(range(len(table)), [f"{figure_of}: {draws[0].model}" for figure_of, draws in table], fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel("ρ(A*(x)) on [−6, 6]², Λ = σ(z)/z (cut at 10⁻⁴ and 10⁴): a diagnostic")
    handles = [Line2D([], [], color=colour, lw=2.2, label=label) for label, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=5, fontsize=7, frameon=False)
    return figure
