"""Lipschitz constants that can be trusted: LipSDP by a fast solver, and a certificate on every number."""

from fpstab.lipschitz.bounds import LipschitzBound, lipschitz_bound
from fpstab.lipschitz.certificates import certify, verify
from fpstab.lipschitz.extraction import UnsupportedLayer, extract
from fpstab.lipschitz.heads import head_lipschitz
from fpstab.lipschitz.problem import Feedforward, General
from fpstab.lipschitz.reports import LipschitzReport, lipschitz_report
from fpstab.lipschitz.splitting import SplitBound, head_by_lipsdp, split_bound

__all__ = [
    "Feedforward",
    "General",
    "LipschitzBound",
    "LipschitzReport",
    "SplitBound",
    "UnsupportedLayer",
    "certify",
    "extract",
    "head_by_lipsdp",
    "head_lipschitz",
    "lipschitz_bound",
    "lipschitz_report",
    "split_bound",
    "verify",
]
