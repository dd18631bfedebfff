"""Pictures of Jacobians: eigenvalues in the complex plane, and the distribution of the squared singular values."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fpstab.jacobian.clouds import SingularValueCloud
    from fpstab.jacobian.spectra import JacobianSpectrum

_BLUE, _RED, _GREY = "#4c72b0", "#c44e52", "#777777"
_MAX_DOTS = 20_000
_ZERO = 1e-26  # share of the largest eigenvalue of JJᵀ below which one is zero but for rounding


def plot_leading(spectrum: "JacobianSpectrum", ax: "Axes | None" = None) -> "Axes":
    """Draw the leading eigenvalue of every point, with its conjugate; those outside the unit circle in red.

    Args:
        spectrum: Of B points; those that are not finite are left out.
        ax: Where to draw; by default on a new figure.
    """
    values = spectrum.eigenvalue[torch.isfinite(spectrum.rho)]
    values = torch.cat((values, values[values.imag != 0].conj().resolve_conj()))
    ax = _complex_plane(values, ax, size=16.0)
    n, b = int((spectrum.rho > 1).sum()), len(spectrum.rho)
    ax.set_title(f"leading eigenvalues of J: {n} of {b} points expand", fontsize="medium")
    return ax


def plot_cloud(eigenvalues: Tensor, ax: "Axes | None" = None) -> "Axes":
    """Draw eigenvalues in the complex plane, with the unit circle; those outside it in red.

    Args:
        eigenvalues: Of any shape, complex; NaN is left out, and of more than 20,000 every k-th is drawn.
        ax: Where to draw; by default on a new figure.
    """
    values = eigenvalues.flatten()
    values = values[torch.isfinite(values.real)]
    return _complex_plane(values, ax, size=4.0)


def plot_squared_singular_values(cloud: "SingularValueCloud", ax: "Axes | None" = None) -> "Axes":
    """Draw the density of the eigenvalues of JJᵀ of all points, in log₁₀; those that are zero are counted apart.

    Args:
        cloud: Of B points; those that are not finite are left out.
        ax: Where to draw; by default on a new figure.
    """
    ax = _axes(ax)
    values = cloud.eigenvalues
    values = values[torch.isfinite(values).all(1)]
    positive = values[values > _ZERO * values.amax(1, keepdim=True)].numpy() if values.numel() else np.empty(0)
    ax.set_xlabel("log₁₀ λ of JJᵀ")
    ax.set_ylabel("density")
    if not positive.size:
        ax.set_title("JJᵀ = 0" if values.numel() else "no finite point", fontsize="medium")
        return ax
    bins = int(np.clip(2 * positive.size**0.5, 5, 60))
    counts, edges = np.histogram(np.log10(positive), bins=bins)
    density = counts / values.numel() / np.diff(edges)
    label = f"{len(values)} points"
    ax.stairs(density, edges, fill=True, alpha=0.5, color=_BLUE, label=label)
    ax.axvline(0.0, lw=1, ls=":", color=_RED)
    zeros = values.numel() - positive.size
    ax.set_title(f"λ_max = {positive.max():.3g},  {100 * zeros / values.numel():.0f} % zero", fontsize="medium")
    ax.legend(fontsize="small")
    return ax


def _complex_plane(values: Tensor, ax: "Axes | None", size: float) -> "Axes":
    ax = _axes(ax)
    step = max(1, -(-len(values) // _MAX_DOTS))
    dots = values[::step].numpy()
    angle = np.linspace(0, 2 * np.pi, 361)
    ax.plot(np.cos(angle), np.sin(angle), lw=1, color=_GREY)
    outside = np.abs(dots) > 1
    for mask, color in ((~outside, _BLUE), (outside, _RED)):
        ax.scatter(dots.real[mask], dots.imag[mask], s=size, color=color, linewidths=0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xlabel("Re λ")
    ax.set_ylabel("Im λ")
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(4.6, 4.0), layout="constrained").subplots()
