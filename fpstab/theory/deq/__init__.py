"""The theory of deep-equilibrium models at initialisation (paper 4), corrected and as printed.

The linear model z* = Wz* + x: `linear_moments`, `untied_moments`. The nonlinear one, z* = φ(Wz*) + x: `sigma_h2`,
`spectral_radius`, `critical_sqrt_v` and all together in `cavity_solution`; `predicted_iterations`; the kernels of the
wide limit, `wide_kernels`. And the same measured: `sample_linear_moments`, `sample_equilibrium`,
`gaussianity_by_width`.
"""

from fpstab.theory.deq.cavity import CavitySolution, cavity_solution, critical_sqrt_v, sigma_h2, spectral_radius
from fpstab.theory.deq.families import Elliptic, Family, FamilyName
from fpstab.theory.deq.gaussianity import GaussianityByWidth, gaussianity_by_width
from fpstab.theory.deq.iterations import predicted_iterations
from fpstab.theory.deq.kernels import WideKernels, wide_kernels
from fpstab.theory.deq.moments import (
    LinearMoments,
    UntiedMoments,
    linear_critical_v,
    linear_moments,
    untied_moments,
)
from fpstab.theory.deq.nonlinearities import Activation, Nonlinearity, nonlinearity
from fpstab.theory.deq.samples import (
    SampledEquilibrium,
    gaussian_ks_distance,
    sample_equilibrium,
    sample_inputs,
    sample_linear_moments,
    sample_weight,
    weight_moments,
)

__all__ = [
    "Activation",
    "CavitySolution",
    "Elliptic",
    "Family",
    "FamilyName",
    "GaussianityByWidth",
    "LinearMoments",
    "Nonlinearity",
    "SampledEquilibrium",
    "UntiedMoments",
    "WideKernels",
    "cavity_solution",
    "critical_sqrt_v",
    "gaussian_ks_distance",
    "gaussianity_by_width",
    "linear_critical_v",
    "linear_moments",
    "nonlinearity",
    "predicted_iterations",
    "sample_equilibrium",
    "sample_inputs",
    "sample_linear_moments",
    "sample_weight",
    "sigma_h2",
    "spectral_radius",
    "untied_moments",
    "weight_moments",
    "wide_kernels",
]
