"""Stability of networks as dynamical systems x⁺ = f(x): what is proved, what is a diagnostic, and what attracts."""

from fpstab.activations import ActivationInfo, activation_info
from fpstab.stability.attractors import Attractor, classify_attractor
from fpstab.stability.certificates import StabilityCertificate
from fpstab.stability.criteria import Diagnostics, StabilityReport, stability_criteria

__all__ = [
    "ActivationInfo",
    "Attractor",
    "Diagnostics",
    "StabilityCertificate",
    "StabilityReport",
    "activation_info",
    "classify_attractor",
    "stability_criteria",
]
