"""Families of random weights: initialisations in place, and parametrisations that keep a family in training."""

from fpstab.ensembles import init
from fpstab.ensembles.parametrizations import (
    Antisymmetric,
    Orthogonal,
    Symmetric,
    orthogonality_defect,
    symmetry_defect,
)

__all__ = [
    "Antisymmetric",
    "Orthogonal",
    "Symmetric",
    "init",
    "orthogonality_defect",
    "symmetry_defect",
]
