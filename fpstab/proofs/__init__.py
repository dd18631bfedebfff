"""Proofs about networks: statements that hold for every input, whatever rounding did on the way."""

from fpstab.proofs.contractions import Certificate, certify_contraction

__all__ = ["Certificate", "certify_contraction"]
