"""Orbits of images through a network's blocks, and their g-expansive and g-shadowing constants (paper 5)."""

from fpstab.orbits.expansive import Constant, Expansivity, Pair, expansivity
from fpstab.orbits.heads import head_constants, head_of
from fpstab.orbits.observations import Orbits, observe
from fpstab.orbits.plots import plot_chains, plot_dots, plot_matrix, plot_pairs, plot_shadowing
from fpstab.orbits.probes import Probe, fit_probes
from fpstab.orbits.reports import (
    PRESETS,
    OrbitReport,
    Preset,
    StabilityEstimate,
    orbit_report,
    stability_estimate,
)
from fpstab.orbits.shadows import Shadowing, shadowing

__all__ = [
    "PRESETS",
    "Constant",
    "Expansivity",
    "OrbitReport",
    "Orbits",
    "Pair",
    "Preset",
    "Probe",
    "Shadowing",
    "StabilityEstimate",
    "expansivity",
    "fit_probes",
    "head_constants",
    "head_of",
    "observe",
    "orbit_report",
    "plot_chains",
    "plot_dots",
    "plot_matrix",
    "plot_pairs",
    "plot_shadowing",
    "shadowing",
    "stability_estimate",
]
