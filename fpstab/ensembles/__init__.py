"""Families of random weights, parametrisations that keep a family in training, and batches of random networks."""

from fpstab.ensembles import init
from fpstab.ensembles.networks import RandomNetworkBatch, RandomNetworks
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
    "RandomNetworkBatch",
    "RandomNetworks",
    "Symmetric",
    "init",
    "orthogonality_defect",
    "symmetry_defect",
]
