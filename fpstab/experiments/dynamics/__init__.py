"""Paper 3: every figure and table anew, and its grid of 828 networks of the plane."""

from typing import Any

from fpstab.experiments.dynamics.activation_chart import dynamics_fig1
from fpstab.experiments.dynamics.attractor_types import dynamics_fig6, dynamics_fig7, dynamics_fig8
from fpstab.experiments.dynamics.grid import dynamics_grid828
from fpstab.experiments.dynamics.layers import dynamics_fig2, dynamics_fig5
from fpstab.experiments.dynamics.regions import dynamics_fig3, dynamics_fig4
from fpstab.experiments.dynamics.table import dynamics_table1

__all__ = [
    "FULL",
    "dynamics_fig1",
    "dynamics_fig2",
    "dynamics_fig3",
    "dynamics_fig4",
    "dynamics_fig5",
    "dynamics_fig6",
    "dynamics_fig7",
    "dynamics_fig8",
    "dynamics_grid828",
    "dynamics_table1",
]

FULL: dict[str, dict[str, Any]] = {
    "dynamics_fig1": {},
    "dynamics_fig2": {"draws": 50},
    "dynamics_fig3": {"draws": 50, "size": 121},
    "dynamics_fig4": {"draws": 50},
    "dynamics_fig5": {"draws": 50},
    "dynamics_fig6": {"draws": 50},
    "dynamics_fig7": {"draws": 50, "size": 121},
    "dynamics_fig8": {"draws": 50},
    "dynamics_table1": {"draws": 20},
    "dynamics_grid828": {"quadratic": True},
}
"""By function: keyword arguments. The paper has one draw of each network; these are for shares."""
