"""Pictures of spectra: log–log densities with the power law in their tail, bulks with their Marchenko–Pastur law.

Axes are linear in the logarithms, and margins are fixed: matplotlib draws that several times faster than its log
scales and its automatic layout, and a monitor draws while a network trains.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fpstab.esd.samples import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpstab.esd.layers import LayerESD
    from fpstab.esd.reports import ESDReport

_MAX_PANELS = 24
_BLUE, _RED, _GREEN = "#4c72b0", "#c44e52", "#55a868"


def plot_layer(layer: "LayerESD", ax: "Axes | None" = None) -> "Axes":
    """Draw the density of a layer's eigenvalues against their size, both logarithmic, with its power law and bulk.

    Args:
        layer: A layer of an `ESDReport`; one without a spectrum gives an empty panel that says why.
        ax: Where to draw; by default on a new figure.
    """
    ax = _panel(layer, ax)
    if layer.spectrum is None or not layer.n:
        return ax
    logs = np.log10(layer.spectrum.eigenvalues.numpy())
    ax.plot(*_log_density(logs), "o", ms=3.5, color=_BLUE, label=f"{layer.n} eigenvalues")
    if layer.bulk is not None and layer.bulk.law is not None:
        x, density = _bulk_density(layer)
        inside = density > 0
        ax.plot(np.log10(x[inside]), np.log10(density[inside]), "--", lw=1.2, color=_GREEN, label="Marchenko–Pastur")
    if layer.fit is not None and layer.fit.alpha is not None and layer.fit.xmin is not None:
        start = math.log10(layer.fit.xmin)
        x = np.array([start, logs[-1]])
        # the law's density at λ ≥ xmin, weighted by the share of the sample in the tail
        height = math.log10((layer.fit.alpha - 1) * layer.fit.n_tail / layer.n) - start
        label = f"α = {layer.fit.alpha:.2f} ± {layer.fit.sigma:.2f},  D = {layer.fit.ks_distance:.3f}"
        ax.plot(x, height - layer.fit.alpha * (x - start), "-", lw=2, color=_RED, label=label)
        ax.axvline(start, ls=":", lw=1, color=_RED)
    elif not layer.status.ok:
        ax.plot([], [], " ", label=layer.status.code)
    ax.set_xlabel("log₁₀ λ")
    ax.set_ylabel("log₁₀ density")
    ax.legend(fontsize="small", loc="lower left")
    return ax


def plot_bulk(layer: "LayerESD", ax: "Axes | None" = None) -> "Axes":
    """Draw the histogram of a layer's bulk with its Marchenko–Pastur law; spikes beyond the panel are counted.

    Args:
        layer: A layer of an `ESDReport`; one without a bulk gives an empty panel that says why.
        ax: Where to draw; by default on a new figure.
    """
    ax = _panel(layer, ax)
    if layer.spectrum is None or not layer.n:
        return ax
    values = layer.spectrum.eigenvalues.numpy()
    if layer.bulk is None or layer.bulk.law is None or layer.bulk.spike_edge is None:
        top, label = float(values[-1]), f"{layer.n} eigenvalues"
    else:
        top = min(1.5 * layer.bulk.spike_edge, max(float(values[-1]), 1.05 * layer.bulk.spike_edge))
        label = f"n·KS = {layer.bulk.n_ks:.2f} (light below {layer.bulk.n_ks_threshold:.2f})"
        x, density = _bulk_density(layer)
        ax.plot(x, density, lw=1.5, color=_GREEN, label="Marchenko–Pastur")
        ax.axvline(layer.bulk.spike_edge, ls=":", lw=1, color=_RED, label=f"{layer.spikes} spikes beyond")
    bins = int(np.clip(2 * values.size ** (1 / 2), 5, 60))
    counts, edges = np.histogram(values, bins=bins, range=(0.0, top))
    ax.stairs(counts / values.size / np.diff(edges), edges, fill=True, alpha=0.5, color=_BLUE, label=label)
    ax.set_xlim(0, top)
    ax.set_ylim(0, 1.15 * max(float(counts.max()) / values.size / (top / bins), 1e-300))
    ax.set_xlabel("λ")
    ax.set_ylabel("density")
    ax.legend(fontsize="small", loc="upper right")
    return ax


def plot_report(report: "ESDReport", plot: Callable[["LayerESD", "Axes"], "Axes"] = plot_layer) -> "Figure":
    """Draw every layer of a report, up to 24, one panel each, by `plot_layer` or `plot_bulk`."""
    from matplotlib.figure import Figure

    layers = report.layers[:_MAX_PANELS]
    columns = max(1, min(4, len(layers)))
    rows = max(1, math.ceil(len(layers) / columns))
    width, height = 4.2 * columns, 3.2 * rows
    figure = Figure(figsize=(width, height))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    figure.subplots_adjust(
        left=0.85 / width, right=1 - 0.1 / width, bottom=0.5 / height, top=1 - 0.45 / height, wspace=0.3, hspace=0.4
    )
    for layer, ax in zip(layers, axes, strict=False):
        plot(layer, ax)
    for ax in axes[len(layers) :]:
        ax.set_axis_off()
    if len(report.layers) > len(layers):
        figure.suptitle(f"the first {len(layers)} of {len(report.layers)} layers", y=1 - 0.02 / rows)
    if not layers:
        figure.suptitle(textwrap.fill(report.status.message, 50), fontsize="medium", parse_math=False)
    return figure


def plot_exponents(exponents: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> "Figure":
    """Draw the exponent of each layer over training.

    Args:
        exponents: By layer, the steps and the exponents; nan leaves a gap.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.08, right=0.72, bottom=0.13, top=0.97)
    for name, (steps, values) in list(exponents.items())[:_MAX_PANELS]:
        ax.plot(steps, np.log10(values), ".-", lw=1.2, label=name)
    low, high = ax.get_ylim()
    ticks = [tick for tick in (1.2, 1.5, 2, 3, 4, 6, 10, 20, 50, 100, 200, 500) if low <= math.log10(tick) <= high]
    ax.set_yticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    ax.set_xlabel("step")
    ax.set_ylabel("exponent α of the tail")
    if exponents:
        ax.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _panel(layer: "LayerESD", ax: "Axes | None") -> "Axes":
    """An axes with the layer's name, shape and verdict; with its status, if there is nothing to draw."""
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(4.2, 3.2), layout="constrained").subplots()
    title = f"{layer.name}  {'×'.join(map(str, layer.shape))}"
    if layer.verdict is not None:
        title += f"\n{layer.verdict}"
    ax.set_title(title, fontsize="medium", parse_math=False)
    if layer.spectrum is None or not layer.n:
        ax.text(0.5, 0.5, layer.status.code, ha="center", va="center", transform=ax.transAxes)
        ax.set_xticks([])
        ax.set_yticks([])
    return ax


def _bulk_density(layer: "LayerESD") -> tuple[Floats, Floats]:
    """Points over the bulk of a layer, and the law's density there, weighted by the bulk's share of the sample."""
    bulk = layer.bulk
    assert bulk is not None
    assert bulk.law is not None
    assert bulk.bulk_upper is not None
    scale = bulk.bulk_upper / bulk.law.upper
    x = np.linspace(bulk.law.lower, bulk.law.upper, 201)[1:]
    share = 1 - bulk.n_spikes / layer.n
    return x * scale, bulk.law.density(x) / scale * share


def _log_density(logs: Floats) -> tuple[Floats, Floats]:
    """Centres in log₁₀ λ of the filled ones of bins of equal width, and log₁₀ of the density per unit of λ there."""
    bins = int(np.clip(2 * logs.size**0.5, 5, 60))
    counts, edges = np.histogram(logs, bins=bins, range=(logs[0], max(logs[-1], logs[0] + 1e-3)))
    filled = counts > 0
    left, right = edges[:-1][filled], edges[1:][filled]
    widths = left + np.log10(np.expm1((right - left) * np.log(10)))  # log₁₀ of them in λ
    return (left + right) / 2, np.log10(counts[filled] / logs.size) - widths
