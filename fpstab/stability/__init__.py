"""Stability of networks as dynamical systems x⁺ = f(x): what is proved, what is a diagnostic, and what attracts."""

from fpstab.activations import ActivationInfo, activation_info
from fpstab.stability.attractors import LABELS, Attractor, classify_attractor
from fpstab.stability.certificates import StabilityCertificate
from fpstab.stability.criteria import Diagnostics, StabilityReport, stability_criteria
from fpstab.stability.portraits import PhasePortrait, phase_portrait
from fpstab.stability.reports import DynamicsReport, dynamics_report

__all__ = [
    "LABELS",
    "ActivationInfo",
    "Attractor",
    "Diagnostics",
    "DynamicsReport",
    "PhasePortrait",
    "StabilityCertificate",
    "StabilityReport",
    "activation_info",
    "classify_attractor",
    "dynamics_report",
    "phase_portrait",
    "stability_criteria",
]
