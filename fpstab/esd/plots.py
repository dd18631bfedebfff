"""Pictures of spectra: log–log densities with the power law in their tail."""

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpstab.esd.reports import ESDReport, LayerESD

_MAX_PANELS = 24


def plot_layer(layer: "LayerESD", ax: "Axes | None" = None) -> "Axes":
    """Draw the density of a layer's eigenvalues against their size, both logarithmic, with its power law.

    The axes are linear in the logarithms, which matplotlib draws several times faster than its log scale.

    Args:
        layer: A layer of an `ESDReport`; one without a spectrum gives an empty panel that says why.
        ax: Where to draw; by default on a new figure.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4.2, 3.2), layout="constrained").subplots()
    ax.set_title(f"{layer.name}  {'×'.join(map(str, layer.shape))}", fontsize="medium", parse_math=False)
    if layer.spectrum is None or not layer.n:
        ax.text(0.5, 0.5, layer.status.code, ha="center", va="center", transform=ax.transAxes)
        ax.set_xticks([])
        ax.set_yticks([])
        return ax
    logs = np.log10(layer.spectrum.eigenvalues.numpy())
    ax.plot(*_log_density(logs), "o", ms=3.5, color="#4c72b0", label=f"{layer.n} eigenvalues")
    if layer.fit is not None and layer.fit.alpha is not None and layer.fit.xmin is not None:
        start = math.log10(layer.fit.xmin)
        x = np.array([start, logs[-1]])
        # the law's density at λ ≥ xmin, weighted by the share of the sample in the tail
        height = math.log10((layer.fit.alpha - 1) * layer.fit.n_tail / layer.n) - start
        label = f"α = {layer.fit.alpha:.2f} ± {layer.fit.sigma:.2f},  D = {layer.fit.ks_distance:.3f}"
        ax.plot(x, height - layer.fit.alpha * (x - start), "-", lw=2, color="#c44e52", label=label)
        ax.axvline(start, ls=":", lw=1, color="#c44e52")
    elif not layer.status.ok:
        ax.plot([], [], " ", label=layer.status.code)
    ax.set_xlabel("log₁₀ λ")
    ax.set_ylabel("log₁₀ density")
    ax.legend(fontsize="small", loc="lower left")
    return ax


def plot_report(report: "ESDReport") -> "Figure":
    """Draw every layer of a report, up to 24, one panel each."""
    from matplotlib.figure import Figure

    layers = report.layers[:_MAX_PANELS]
    columns = max(1, min(4, len(layers)))
    rows = max(1, math.ceil(len(layers) / columns))
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for layer, ax in zip(layers, axes, strict=False):
        plot_layer(layer, ax)
    for ax in axes[len(layers) :]:
        ax.set_axis_off()
    if len(report.layers) > len(layers):
        figure.suptitle(f"the first {len(layers)} of {len(report.layers)} layers")
    if not layers:
        figure.suptitle(textwrap.fill(report.status.message, 50), fontsize="medium", parse_math=False)
    return figure


def _log_density(logs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres in log₁₀ λ of the filled ones of bins of equal width, and log₁₀ of the density per unit of λ there."""
    bins = int(np.clip(2 * logs.size**0.5, 5, 60))
    counts, edges = np.histogram(logs, bins=bins, range=(logs[0], max(logs[-1], logs[0] + 1e-3)))
    filled = counts > 0
    left, right = edges[:-1][filled], edges[1:][filled]
    widths = left + np.log10(np.expm1((right - left) * np.log(10)))  # log₁₀ of them in λ
    return (left + right) / 2, np.log10(counts[filled] / logs.size) - widths
