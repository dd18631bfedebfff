"""A picture of equilibria: what a solver gains over plain iteration."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fpstab.equilibrium.reports import EquilibriumReport


def plot_rates(report: "EquilibriumReport", ax: "Axes | None" = None) -> "Axes":
    """Draw the measured rate against ρ, point by point; on the diagonal is plain iteration.

    Args:
        report: Of one or more layers; each has a colour.
        ax: Where to draw; by default on a new figure.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4.5, 4), layout="constrained").subplots()
    top = 1.05
    for name, layer in report.layers.items():
        ax.scatter(layer.rho, layer.forward.rate, s=12, label=name)
        finite = layer.rho[layer.rho.isfinite()]
        top = max(top, float(finite.max())) if len(finite) else top
    ax.plot([0, top], [0, top], "-", lw=0.8, color="0.5")
    ax.axvline(1, ls=":", lw=0.8, color="0.5")
    ax.set_xlabel("predicted rate of plain iteration, ρ(∂f/∂z)")
    ax.set_ylabel("measured rate of the solver")
    ax.legend(fontsize="small")
    return ax
