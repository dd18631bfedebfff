"""Proofs about networks: statements that hold for every input, whatever rounding did on the way."""

from fpstab.proofs.contractions import Certificate, certify_contraction
from fpstab.proofs.counts import Proof, prove_fixed_points
from fpstab.proofs.points import PointCertificate, certify_fixed_point

__all__ = [
    "Certificate",
    "PointCertificate",
    "Proof",
    "certify_contraction",
    "certify_fixed_point",
    "prove_fixed_points",
]
