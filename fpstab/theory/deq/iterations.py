"""How many iterations the theory expects until an equilibrium is reached."""

import math

from fpstab.results import AnalysisError, Status
from fpstab.theory.deq.cavity import spectral_radius
from fpstab.theory.deq.families import Family, elliptic_tau
from fpstab.theory.deq.nonlinearities import Activation, nonlinearity


def predicted_iterations(
    family: Family,
    V: float,
    activation: Activation,
    sigma_x2: float = 1.0,
    *,
    tol: float = 1e-5,
    accelerated: bool = False,
) -> float:
    """Expected iterations until the residual has fallen by `tol`: ln(tol)/ln(rate).

    Plain iteration has the rate λ, the spectral radius. The best method of Krylov's kind (which Anderson's and
    Broyden's approach) has (A + B)/(1 + √(1 − A² + B²)) for a spectrum that fills the ellipse of semi-axes A (real) and
    B (imaginary): λ for the disc of iid and orthogonal weights, so that nothing beats plain iteration;
    λ/(1 + √(1 − λ²)) for the real interval of the GOE; λ/(1 + √(1 + λ²)) for the imaginary one of antisymmetric
    weights, which such a method solves even where plain iteration diverges.

    Args:
        family: The family of W.
        V: Mean eigenvalue of WᵀW.
        activation: Of the model.
        sigma_x2: σ_x² = x·x/N.
        tol: By what factor the residual shall fall, between 0 and 1.
        accelerated: The rate of the best Krylov method instead of that of plain iteration.

    Raises:
        ValueError: If a number is out of range or a name is unknown.
        AnalysisError: If there is no equilibrium, plain iteration diverges, or the family has no theory; also for the
            accelerated rate where the spectrum is neither a disc, an interval nor an ellipse (0 < |τ| < 1, unless the
            activation is linear or hard-tanh).

    >>> round(predicted_iterations("orthogonal", 0.81, "linear"), 1)
    109.3
    >>> round(predicted_iterations("goe", 0.2025, "linear", accelerated=True), 1)
    24.6
    """
    if not 0 < tol < 1:
        raise ValueError(f"tol is {tol}; expected a number between 0 and 1.")
    radius = spectral_radius(family, V, activation, sigma_x2)
    if radius == 0:
        return 1.0
    rate = _krylov_rate(family, radius, activation) if accelerated else radius
    if rate >= 1:
        raise AnalysisError(
            Status(
                "diverges", f"iteration diverges: its rate is {rate:.6g} at sqrt(V) = {math.sqrt(V):.6g}, not below 1."
            )
        )
    return math.log(tol) / math.log(rate)


def _krylov_rate(family: Family, radius: float, activation: Activation) -> float:
    tau = elliptic_tau(family) or 0.0  # orthogonal and haar_disc spectra are centred discs
    if abs(tau) not in (0.0, 1.0) and nonlinearity(activation).name not in ("linear", "hardtanh"):
        raise AnalysisError(
            Status(
                "no_theory",
                f"there is no accelerated rate for {family} weights with {activation}: the spectrum is not an ellipse. "
                "Linear and hard-tanh have one, and so have the families iid, orthogonal, goe and antisymmetric.",
            )
        )
    longer, shorter = radius, radius * (1 - abs(tau)) / (1 + abs(tau))
    real, imaginary = (longer, shorter) if tau >= 0 else (shorter, longer)
    if real >= 1:
        return real
    return (real + imaginary) / (1 + math.sqrt(1 - real**2 + imaginary**2))
