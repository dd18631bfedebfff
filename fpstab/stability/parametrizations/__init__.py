"""Structured weights (paper 3, appendix B) as parametrisations that keep a bound while a network trains.

Registered by `torch.nn.utils.parametrize.register_parametrization(layer, "weight", BoundedSVD(0.0, 0.9))`, or on all
linear layers of a network by `constrain(net, BoundedSVD(0.0, 0.9))`. `.certificate()` says which norm is bounded.
"""

from fpstab.stability.parametrizations.certificates import NormCertificate
from fpstab.stability.parametrizations.constraining import certificates, constrain
from fpstab.stability.parametrizations.gershgorin import Gershgorin
from fpstab.stability.parametrizations.perron_frobenius import PerronFrobenius
from fpstab.stability.parametrizations.singular_values import BoundedSVD, orthogonality_penalty
from fpstab.stability.parametrizations.skew import BlockSkew, Skew

__all__ = [
    "BlockSkew",
    "BoundedSVD",
    "Gershgorin",
    "NormCertificate",
    "PerronFrobenius",
    "Skew",
    "certificates",
    "constrain",
    "orthogonality_penalty",
]
