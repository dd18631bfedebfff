"""Pictures of the studies of JJᵀ: histograms of drawn networks, the limiting laws as lines."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fpstab.theory import jacobian_esd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#4c72b0", "#c44e52", "#55a868", "#8172b3", "#ccb974", "#64b5cd", "#8c8c8c")


def linear_picture(rows: Sequence[dict[str, Any]], law: jacobian_esd.Density) -> "Figure":
    """Figure 5: histogram and density, with a logarithmic ordinate."""
    figure, (ax,) = _panels(1)
    _stairs(ax, rows, "measured", color=_COLOURS[1], label="drawn")
    inside = law.lam > rows[0]["high"] / 20
    ax.plot(law.lam[inside].numpy(), law.rho[inside].numpy(), lw=1.2, color="black", label="limit, N → ∞")
    ax.axvline(law.edge, ls=":", lw=1, color="black", label=f"λ₊ = {law.edge:.4g}")
    _label(ax, "linear, L = 2")
    ax.set_yscale("log")
    return figure


def depth_picture(
    rows: Sequence[dict[str, Any]], laws: Mapping[tuple[jacobian_esd.Activation, int], jacobian_esd.Density]
) -> "Figure":
    """Figure 6: a panel for each reading, a colour for each depth."""
    names = list(dict.fromkeys(name for name, _ in laws))
    depths = list(dict.fromkeys(L for _, L in laws))
    figure, axes = _panels(len(names))
    said = {"linear": "linear (the text's reading)", "hardtanh": "hard-tanh (the caption's)"}
    for ax, name in zip(axes, names, strict=True):
        for L, colour in zip(depths, _cycle(len(depths)), strict=True):
            law = laws[name, L]
            inside = law.lam >= 1e-3
            ax.plot(law.lam[inside].numpy(), law.rho[inside].numpy(), lw=1.3, color=colour, label=f"L = {L}")
            drawn = [row for row in rows if row["reading"] == name and row["L"] == L and row["measured"] > 0]
            middles = [math.sqrt(row["low"] * row["high"]) for row in drawn]
            ax.plot(middles, [row["measured"] for row in drawn], "o", ms=2.5, color=colour)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(1e-4, 2e2)
        _label(ax, said[name])
    return figure


def cauchy_picture(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Figure 7: histograms of log λ; the exact zeros in the legend."""
    figure, (ax,) = _panels(1)
    depths = list(dict.fromkeys(row["L"] for row in rows))
    for L, colour in zip(depths, _cycle(len(depths)), strict=True):
        these = [row for row in rows if row["L"] == L]
        edges = [row["log10_low"] for row in these] + [these[-1]["log10_high"]]
        heights = [row["share"] / (row["log10_high"] - row["log10_low"]) for row in these]
        ax.stairs(heights, edges, color=colour, lw=1.2, label=f"L = {L}: {these[0]['atom']:.0%} exact zeros")
    ax.axvline(0, ls=":", lw=1, color="black")
    ax.set_yscale("log")
    ax.set_xlabel("log₁₀ λ, eigenvalue of JJᵀ")
    ax.set_ylabel("share of all eigenvalues per decade")
    ax.set_title("hard-tanh, Cauchy weights", fontsize="medium")
    ax.legend(fontsize="small")
    return figure


def iteration_picture(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Eqs. (20)–(22): what the iteration finds where it has converged, against the solution, a panel a case."""
    cases = list(dict.fromkeys((row["activation"], row["L"]) for row in rows))
    figure, axes = _panels(len(cases), width=3.2)
    looks = {("zero", 0.0): (":", "from w₀ = 0"), ("asymptotic", 0.0): ("--", "from w₀ = μ₁ᴸ/z"),
             ("asymptotic", 0.5): ("-.", "and damping ½")}  # fmt: skip
    for ax, (name, L) in zip(axes, cases, strict=True):
        for colour, ((start, damping), (style, label)) in zip(_COLOURS, looks.items(), strict=False):
            these = [row for row in rows if (row["activation"], row["L"], row["start"], row["damping"])
                     == (name, L, start, damping)]  # fmt: skip
            lam = [row["lam"] for row in these]
            ax.plot(lam, [row["exact"] for row in these], lw=3, color="#d0d0d0", zorder=0)
            found = [row["found"] if row["converged"] else math.nan for row in these]
            ax.plot(lam, np.clip(found, 1e-8, 1e3), style, lw=1.2, color=colour, label=label)
        ax.set_yscale("log")
        _label(ax, f"{name}, L = {L}; grey: the solution")
    return figure


def generating_picture(q: float) -> "Figure":
    """Erf's density with the constant as printed, which is √2 too small, and as it is."""
    figure, (ax,) = _panels(1)
    law = jacobian_esd.slope_law("erf", q)
    u = np.linspace(0.01, 0.95, 80)
    m = law.generating(u.astype(complex))[0].real
    ax.plot(u, m, lw=1.5, color=_COLOURS[0], label="E[uK/(1 − uK)]")
    ax.plot(u, m / math.sqrt(2), "--", lw=1.2, color=_COLOURS[1], label="as printed, 1/√(2πq)")
    ax.set_xlabel("u")
    ax.set_ylabel("m_K(u)")
    ax.set_title(f"erf(√π·x/2), q = {q:g}", fontsize="medium")
    ax.legend(fontsize="small")
    return figure


def _panels(count: int, width: float = 5.0) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count if count > 1 else 6.4, 4.2), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _cycle(count: int) -> list[str]:
    return [_COLOURS[k % len(_COLOURS)] for k in range(count)]


def _stairs(ax: "Axes", rows: Sequence[dict[str, Any]], key: str, **style: Any) -> None:
    ax.stairs([row[key] for row in rows], [row["low"] for row in rows] + [rows[-1]["high"]], lw=1.2, **style)


def _label(ax: "Axes", title: str) -> None:
    ax.set_xlabel("λ, eigenvalue of JJᵀ")
    ax.set_ylabel("density")
    ax.set_title(title, fontsize="medium")
    ax.legend(fontsize="small")
