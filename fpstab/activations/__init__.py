"""One table of activations: what is true of the real function that a module computes, from its actual parameters.

Slopes are those of chords, (σ(a) − σ(b))/(a − b): where σ is differentiable the same range as that of its derivative.
Every range of the table is rounded outward. Functions that are not in it are scanned; such a row is marked as estimated,
and nothing is ever certified with it.
"""

from fpstab.activations.info import ActivationInfo
from fpstab.activations.lookup import activation_info
from fpstab.activations.modules import APLU, BLU, PELU, SoftExponential
from fpstab.activations.table import is_activation, known_info

__all__ = [
    "APLU",
    "BLU",
    "PELU",
    "ActivationInfo",
    "SoftExponential",
    "activation_info",
    "is_activation",
    "known_info",
]
