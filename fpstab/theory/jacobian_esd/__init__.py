"""The limiting spectrum of JJᵀ of deep random networks, J the input-output Jacobian (paper 1, section V), corrected.

`density` with its atom and edges, `edges`, `atom`, `moments`, `q_recursion`; paper 1's own `paper_iteration`; and the
same measured, `sample_spectrum`. **`"erf"` is the activation erf(√π·x/2)**, of slope 1 at 0.
"""

from fpstab.theory.jacobian_esd.densities import Density, Solver, density
from fpstab.theory.jacobian_esd.iteration import PaperIteration, paper_iteration
from fpstab.theory.jacobian_esd.layers import q_recursion
from fpstab.theory.jacobian_esd.samples import Distribution, SampledSpectrum, ks_distance, sample_spectrum
from fpstab.theory.jacobian_esd.series import moments
from fpstab.theory.jacobian_esd.slopes import ACTIVATIONS, Activation, SlopeLaw, slope_law
from fpstab.theory.jacobian_esd.supports import Edges, atom, edges

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Density",
    "Distribution",
    "Edges",
    "PaperIteration",
    "SampledSpectrum",
    "SlopeLaw",
    "Solver",
    "atom",
    "density",
    "edges",
    "ks_distance",
    "moments",
    "paper_iteration",
    "q_recursion",
    "sample_spectrum",
    "slope_law",
]
