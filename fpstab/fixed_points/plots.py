"""Pictures of fixed points: basins, the images that are stored, and how orbits converge."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpstab.fixed_points.points import FixedPoints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fpstab.fixed_points.regions import Basins

Floats = NDArray[np.float64]

_MARKERS = {
    "attracting": ("o", "black"),
    "marginal": ("D", "0.5"),
    "non_isolated": (".", "0.5"),
    "saddle": ("x", "black"),
    "repelling": ("^", "white"),
}
_MAX_IMAGES, _MAX_COLOURED = 40, 20
_NOWHERE = (0.93, 0.93, 0.93)


def plot_basins(basins: "Basins", ax: "Axes | None" = None) -> "Axes":
    """Draw basins as filled areas, with the fixed points in the window (on a plane: near it) marked by kind.

    Nodes that go to no fixed point and no cycle are grey; cycles have the colours after those of the fixed points.

    Args:
        basins: What `fpstab.fixed_points.basins` found.
        ax: Where to draw; by default on a new figure.
    """
    from matplotlib import colormaps

    ax = _axes(ax, (4.4, 4.4))
    (x0, x1), (y0, y1) = basins.window
    r = len(basins.label)
    half = ((x1 - x0) / (r - 1) / 2, (y1 - y0) / (r - 1) / 2)
    label = basins.label.numpy()
    found = basins.fixed_points
    # the largest basins have colours of their own
    size = np.bincount(label[label >= 0], minlength=len(found) + len(found.cycles))
    coloured = np.flatnonzero(size)[np.argsort(-size[size > 0], kind="stable")]
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    light_first = [palette[i] for i in (*range(1, 20, 2), *range(0, 20, 2))]
    table = np.tile(np.array(_NOWHERE), (len(size) + 1, 1))
    for place, number in enumerate(np.sort(coloured[:_MAX_COLOURED])):
        table[number] = light_first[place]
    ax.imshow(
        table[label],  # −1 is the last row
        origin="lower",
        extent=(x0 - half[0], x1 + half[0], y0 - half[1], y1 + half[1]),
        interpolation="nearest",
        aspect="auto",
    )
    where = _coordinates(basins)
    inside = (where[:, 0] >= x0 - half[0]) & (where[:, 0] <= x1 + half[0])
    inside &= (where[:, 1] >= y0 - half[1]) & (where[:, 1] <= y1 + half[1])
    _mark(ax, where, found.kind, inside)
    names = ("x₁", "x₂") if basins.plane is None else ("s", "t")
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.set_title(_title(found), fontsize="medium")
    return ax


def plot_points(found: FixedPoints, ax: "Axes | None" = None) -> "Axes":
    """Draw fixed points by their first two coordinates (one: against their spectral radius), marked by kind.

    Args:
        found: What `find_fixed_points` found.
        ax: Where to draw; by default on a new figure.
    """
    ax = _axes(ax, (4.4, 4.4))
    flat = found.points.shape[1] < 2
    where = torch.stack((found.points[:, 0], found.rho), 1) if flat else found.points[:, :2]
    _mark(ax, where.numpy(), found.kind, np.ones(len(found), dtype=bool))
    for cycle in () if flat else found.cycles:
        ax.plot(*cycle.points[:, :2].T.numpy(), "+", ms=6, color="tab:blue")
    ax.set_xlabel("x₁")
    ax.set_ylabel("ρ(J)" if flat else "x₂")
    ax.set_title(_title(found), fontsize="medium")
    return ax


def plot_images(found: FixedPoints) -> "Figure":
    """Draw fixed points as images, up to 40: attracting ones first, each with its ρ and its number of starts.

    Args:
        found: What `find_fixed_points` found, of a map of images `[H, W]`, `[1, H, W]` or `[3, H, W]`.

    Raises:
        ValueError: If a sample of the map is no image.
    """
    from matplotlib.figure import Figure

    if len(found.shape) not in (2, 3):
        raise ValueError(f"plot_images: a sample of the map has shape {list(found.shape)}, which is no image.")
    n = min(len(found), _MAX_IMAGES)
    columns = max(1, min(8, n))
    rows = max(1, math.ceil(n / columns))
    figure = Figure(figsize=(1.3 * columns, 1.65 * rows + 0.4))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.75 / (1.65 * rows + 0.4), hspace=0.35)
    for ax in axes:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes, found.images()[:n], strict=False)):
        ax.imshow(_picture(image), cmap="gray", interpolation="nearest")
        starts = int(found.n_starts[i])
        ax.set_title(
            f"{found.kind[i]}\nρ {float(found.rho[i]):.3g}, {starts} start{'' if starts == 1 else 's'}", fontsize=6
        )
    more = f" (the first {n})" if n < len(found) else ""
    figure.suptitle(f"{_title(found)}{more}", fontsize="medium", y=1 - 0.05 / rows)
    return figure


def plot_convergence(found: FixedPoints, ax: "Axes | None" = None) -> "Axes":
    """Draw the residual of some starts against the iteration, on a logarithmic scale.

    Args:
        found: What `find_fixed_points` found.
        ax: Where to draw; by default on a new figure.
    """
    ax = _axes(ax, (5.0, 3.4))
    residuals = found.history.numpy()
    tiny = np.finfo(np.float64).tiny
    for line in residuals:
        here = np.isfinite(line)
        ax.plot(np.flatnonzero(here) + 1, np.log10(np.maximum(line[here], tiny)).clip(-17), lw=0.9, alpha=0.7)
    ax.set_xlabel("iteration")
    ax.set_ylabel("log₁₀ residual ‖Φ(x) − x‖")
    ax.set_title(f"{len(residuals)} of {len(found.label)} starts", fontsize="medium")
    return ax


def _axes(ax: "Axes | None", size: tuple[float, float]) -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()


def _mark(ax: "Axes", where: Floats, kinds: list[str], mask: NDArray[np.bool_]) -> None:
    for kind, (marker, colour) in _MARKERS.items():
        chosen = mask & np.array([each == kind for each in kinds], dtype=bool)
        if chosen.any():
            edge = None if marker == "x" else "black"
            points = where[chosen]
            ax.scatter(points[:, 0], points[:, 1], s=36, marker=marker, c=colour, edgecolors=edge, label=kind, zorder=3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize="small", loc="upper right")


def _coordinates(basins: "Basins") -> Floats:
    """Of the fixed points on the plane `[K, 2]`, projected onto it."""
    points: Tensor = basins.fixed_points.points
    if basins.plane is None:
        return points.numpy()
    origin, u, v = basins.plane
    frame = torch.stack((u, v), 1)
    where: Floats = torch.linalg.lstsq(frame, (points - origin).T).solution.T.numpy()
    return where


def _picture(image: Tensor) -> Floats:
    if image.ndim == 3:
        image = image.permute(1, 2, 0).clamp(0, 1) if len(image) == 3 else image[0]
    return image.numpy()


def _title(found: FixedPoints) -> str:
    parts = [f"{found.kind.count(kind)} {kind.replace('_', '-')}" for kind in _MARKERS if kind in found.kind]
    if found.cycles:
        parts.append(f"{len(found.cycles)} cycle{'s' if len(found.cycles) > 1 else ''}")
    return ", ".join(parts) or "no fixed point found"
