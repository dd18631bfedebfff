"""How the networks of paper 3 are drawn: phase portraits, eigenvalue clouds and regions of ρ(A*)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fpstab.experiments.dynamics.measures import Panel
from fpstab.experiments.dynamics.models import Model
from fpstab.stability.plots import plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY, DARK = "#3b6ea8", "#c8373f", "#8a8a8a", "#222222"
_REACH = 6.0

Painter = Callable[["Axes", Panel], Any]


def draw_panels(panels: Sequence[Panel], painters: Sequence[Painter], *, columns: int, title: str = "") -> "Figure":
    """Each panel by each painter, one below the other; more panels than columns go on below."""
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    bands = -(-len(panels) // columns)
    figure = Figure(
        figsize=(2.9 * columns + 0.4, 2.8 * bands * len(painters) + (0.4 if title else 0.1)), layout="constrained"
    )
    axes = figure.subplots(bands * len(painters), columns, squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    for place, panel in enumerate(panels):
        for row, painter in enumerate(painters):
            ax = axes[place // columns * len(painters) + row, place % columns]
            ax.set_visible(True)
            painter(ax, panel)
            if row == 0:
                ax.set_title(panel.title, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def paint_portrait(ax: "Axes", panel: Panel) -> None:
    """Lengths of steps as shades, their directions, orbits, where these have settled, and fixed points."""
    grid, step = plane(24).numpy(), panel.step.numpy()
    length = np.linalg.norm(step, axis=1)
    box = (-_REACH, _REACH, -_REACH, _REACH)
    shades = np.log10(length.reshape(24, 24) + 1e-3)
    ax.imshow(shades, origin="lower", extent=box, cmap="Blues", alpha=0.55, interpolation="bicubic")
    unit = np.divide(step, length[:, None], out=np.zeros_like(step), where=length[:, None] > 0)
    some = np.arange(576).reshape(24, 24)[::2, ::2].ravel()
    ax.quiver(*grid[some].T, *unit[some].T, color="white", scale=22, width=0.006, pivot="mid")
    for orbit in panel.orbits.numpy():
        inside = np.isfinite(orbit).all(1) & (np.abs(orbit) <= 20 * _REACH).all(1)
        stop = len(orbit) if inside.all() else int(np.argmin(inside))
        ax.plot(*orbit[:stop].T, lw=0.7, marker=".", ms=1.8, color=BLUE, alpha=0.7)
    tails = panel.tails.numpy().reshape(-1, 2)
    tails = tails[np.isfinite(tails).all(1)]
    if panel.draw.label in ("cycle", "chaotic", "line", "multiple"):
        ax.plot(*tails.T, ".", ms=2.5, color=RED)
    attracting = panel.draw.rho_at.numpy() < 1 + 1e-6
    for point, attracts in zip(panel.draw.points.numpy(), attracting, strict=True):
        ax.plot(*point, "o", ms=6, mfc=RED if attracts else "none", mec=RED)
    ax.text(0.03, 0.03, _label(panel), transform=ax.transAxes, fontsize=7, color=DARK,
            bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5})  # fmt: skip
    _plane(ax)


def paint_cloud(ax: "Axes", panel: Panel) -> None:
    """The eigenvalues of A* at 576 points, by where the point is, with the unit circle."""
    values = panel.draw.eigenvalues
    far = plane(24).norm(dim=1)[:, None].expand(-1, 2)[torch.isfinite(values.real)].numpy()
    shown = values[torch.isfinite(values.real)].numpy()
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
    ax.plot(circle.real, circle.imag, lw=0.9, color=GREY)
    ax.axhline(0, lw=0.4, color=GREY)
    ax.axvline(0, lw=0.4, color=GREY)
    ax.scatter(shown.real, shown.imag, s=5, c=far, cmap="plasma", lw=0, alpha=0.8, rasterized=True)
    reach = max(1.25, min(float(np.quantile(np.abs(shown), 0.98)) if len(shown) else 1.0, 1e6) * 1.15)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=6)
    ax.set_xlabel("Re λ", fontsize=7)
    ax.set_ylabel("Im λ", fontsize=7)


def paint_regions(ax: "Axes", panel: Panel) -> None:
    """ρ(A*) over the plane: white is 1, blue below, red above; shades of its own where it is nowhere above. A diagnostic."""
    from matplotlib.colors import TwoSlopeNorm

    rho = panel.rho.reshape(panel.size, panel.size).numpy()
    finite = rho[np.isfinite(rho)]
    side = np.linspace(-_REACH, _REACH, panel.size)
    if finite.size and finite.max() <= 1:  # nothing to set apart: its own scale
        mesh = ax.pcolormesh(side, side, rho, cmap="Blues_r", shading="nearest", rasterized=True)
    else:
        top = max(1.05, float(np.quantile(finite, 0.99)) if finite.size else 1.05)
        low = min(0.0, float(finite.min())) if finite.size else 0.0
        norm = TwoSlopeNorm(1.0, low, min(top, 10.0))
        mesh = ax.pcolormesh(side, side, rho, norm=norm, cmap="RdBu_r", shading="nearest", rasterized=True)
    ax.get_figure(root=True).colorbar(mesh, ax=ax, shrink=0.75).ax.tick_params(labelsize=6)  # type: ignore[union-attr]
    if finite.size and finite.min() < 1 < finite.max():
        ax.contour(side, side, np.where(np.isfinite(rho), rho, 10.0), levels=[1.0], colors=[DARK], linewidths=0.6)
    _plane(ax)


def caption(model: Model, above: str = "") -> str:
    """A title of a panel in two lines, with a line above."""
    layers = f"{model.depth} layer{'s' * (model.depth > 1)}"
    lines = [above, str(model.map), f"{model.activation}, {layers}{', bias' * model.bias}"]
    return "\n".join(line for line in lines if line)


def _label(panel: Panel) -> str:
    draw = panel.draw
    if draw.label == "cycle":
        return "cycle, quasi-periodic" if draw.period is None else f"cycle of period {draw.period}"
    if draw.label == "single" and len(draw.points) == 1:
        return "one fixed point, ({:.2g}, {:.2g})".format(*(draw.points[0] + 0.0).tolist())
    return {"single": "one fixed point", "multiple": "several attractors", "line": "line of fixed points"}.get(
        draw.label, draw.label
    )


def _plane(ax: "Axes") -> None:
    ax.set_xlim(-_REACH, _REACH)
    ax.set_ylim(-_REACH, _REACH)
    ax.set_aspect("equal")
    ax.set_xticks([-5, 0, 5])
    ax.set_yticks([-5, 0, 5])
    ax.tick_params(labelsize=6)
