"""Equilibria z = f(z, x): batched solvers, and a layer with exact gradients."""

from fpstab.equilibrium.anderson import Anderson
from fpstab.equilibrium.automatic import Auto
from fpstab.equilibrium.broyden import Broyden
from fpstab.equilibrium.configs import Solver
from fpstab.equilibrium.layers import FixedPointLayer, LayerStatistics, PhantomGradient, SolveStatistics
from fpstab.equilibrium.losses import corrected_loss, jacobian_penalty
from fpstab.equilibrium.picard import Picard
from fpstab.equilibrium.reports import EquilibriumReport, LayerEquilibrium, equilibrium_report
from fpstab.equilibrium.solving import Solution, solve

__all__ = [
    "Anderson",
    "Auto",
    "Broyden",
    "EquilibriumReport",
    "FixedPointLayer",
    "LayerEquilibrium",
    "LayerStatistics",
    "PhantomGradient",
    "Picard",
    "Solution",
    "SolveStatistics",
    "Solver",
    "corrected_loss",
    "equilibrium_report",
    "jacobian_penalty",
    "solve",
]
