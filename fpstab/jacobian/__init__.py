"""Jacobians of maps: products, spectra, norms, Lyapunov exponents, contraction; pointwise affine maps."""

from fpstab.jacobian.affine import AffineMap, affine_map
from fpstab.jacobian.clouds import (
    EigenvalueCloud,
    SingularValueCloud,
    jacobian_eigenvalues,
    jacobian_singular_values,
    jacobian_tails,
)
from fpstab.jacobian.contraction import ContractionBracket, contraction_bracket
from fpstab.jacobian.lyapunov import LyapunovExponents, lyapunov_exponents
from fpstab.jacobian.norms import JacobianNorm, jacobian_norm
from fpstab.jacobian.products import JacobianProducts, jacobian_matrix
from fpstab.jacobian.reports import JacobianReport, jacobian_report
from fpstab.jacobian.spectra import JacobianSpectrum, jacobian_spectrum

__all__ = [
    "AffineMap",
    "ContractionBracket",
    "EigenvalueCloud",
    "JacobianNorm",
    "JacobianProducts",
    "JacobianReport",
    "JacobianSpectrum",
    "LyapunovExponents",
    "SingularValueCloud",
    "affine_map",
    "contraction_bracket",
    "jacobian_eigenvalues",
    "jacobian_matrix",
    "jacobian_norm",
    "jacobian_report",
    "jacobian_singular_values",
    "jacobian_spectrum",
    "jacobian_tails",
    "lyapunov_exponents",
]
