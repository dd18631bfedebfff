"""Pictures of stability: ρ(A) over a plane, eigenvalue clouds, phase portraits, and what activations allow to say."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fpstab import activations
from fpstab.activations import ActivationInfo, activation_info
from fpstab.activations.info import ESTIMATED, PAPER_CLASS
from fpstab.jacobian import AffineMap, affine_map
from fpstab.jacobian.elementwise import Mode
from fpstab.maps import SelfMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fpstab.stability.certificates import StabilityCertificate
    from fpstab.stability.criteria import Diagnostics
    from fpstab.stability.portraits import PhasePortrait

_BLUE, _RED, _GREY = "#4c72b0", "#c44e52", "#777777"
_VERDICTS = {"contractive": "#2c7a3f", "nonexpansive": "#79b486", "sector": "#e0c04c", "expansive": _RED, "discontinuous": _GREY}  # fmt: skip


def plane(size: int = 121, reach: float = 6.0) -> Tensor:
    """The points of a square grid on [−reach, reach]², `[size², 2]`, row by row from below.

    >>> plane(2, 1.0)
    tensor([[-1., -1.],
            [ 1., -1.],
            [-1.,  1.],
            [ 1.,  1.]], dtype=torch.float64)
    """
    if size < 2 or not reach > 0:
        raise ValueError(f"size={size}, reach={reach}: expected two points or more a side, and a reach above 0.")
    side = torch.linspace(-reach, reach, size, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), 1)


def plot_regions(
    map: SelfMap | Any,  # noqa: A002
    ax: "Axes | None" = None,
    *,
    mode: Mode = "shifted",
    size: int = 121,
    reach: float = 6.0,
) -> "Axes":
    """Draw ρ(A(x)) over [−reach, reach]², with the line where it is 1 (paper 3, Figures 3 to 5). A diagnostic.

    Args:
        map: A map of the plane to itself.
        ax: Where to draw; by default on a new figure.
        mode: Of A.
        size: Points a side.
        reach: Half the side.
    """
    ax = _axes(ax)
    rho = affine_map(map, plane(size, reach), mode=mode, throw=False).spectral_radius().reshape(size, size).numpy()
    side = np.linspace(-reach, reach, size)
    mesh = ax.pcolormesh(side, side, rho, shading="nearest", cmap="viridis", rasterized=True)
    ax.get_figure(root=True).colorbar(mesh, ax=ax, label="ρ(A(x))")  # type: ignore[union-attr]
    finite = rho[np.isfinite(rho)]
    if finite.size and finite.min() < 1 < finite.max():
        ax.contour(side, side, rho, levels=[1.0], colors=[_RED], linewidths=1)
    ax.set_title("diagnostic: ρ(A(x))", fontsize="medium")
    return _plane_axes(ax)


def plot_eigenvalues(affine: AffineMap, ax: "Axes | None" = None) -> "Axes":
    """Draw the eigenvalues of A at all points, with the unit circle (paper 3, Figures 2 to 5)."""
    return affine.plot(ax)


def plot_portrait(portrait: "PhasePortrait", ax: "Axes | None" = None) -> "Axes":
    """Draw a map of the plane: directions of f(x) − x, orbits, and fixed points (paper 3, Figure 6)."""
    ax = _axes(ax)
    where, step, reach = portrait.grid.numpy(), portrait.step.numpy(), portrait.reach
    length = np.linalg.norm(step, axis=1, keepdims=True)
    unit = np.divide(step, length, out=np.zeros_like(step), where=length > 0)
    ax.quiver(where[:, 0], where[:, 1], unit[:, 0], unit[:, 1], color=_GREY, alpha=0.5, width=0.002)
    for orbit in portrait.orbits.numpy():
        inside = np.isfinite(orbit).all(1) & (np.abs(orbit) <= 10 * reach).all(1)
        stop = len(orbit) if inside.all() else int(np.argmin(inside))
        ax.plot(orbit[:stop, 0], orbit[:stop, 1], lw=0.7, marker=".", ms=2, color=_BLUE)
    attracting = set(portrait.attracting.tolist())
    for index, point in enumerate(portrait.fixed_points.numpy()):
        ax.plot(*point, marker="o", ms=6, mfc=_RED if index in attracting else "none", mec=_RED, ls="none")
    ax.set_title(portrait.label, fontsize="medium")
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    return _plane_axes(ax)


def plot_certificates(certificates: "Sequence[StabilityCertificate]", ax: "Axes | None" = None) -> "Axes":
    """Draw the value of each global certificate that has one: left of the line it holds."""
    ax = _axes(ax)
    known = [each for each in certificates if each.scope == "global" and np.isfinite(each.value)]
    for row, each in enumerate(known):
        colour = _VERDICTS["contractive"] if each.holds else _GREY
        ax.plot([each.value], [row], marker="o", color=colour, ls="none")
        ax.annotate(
            f"{each.value:.3g}", (each.value, row), (0, 6), textcoords="offset points", ha="center", fontsize="small"
        )
    ax.axvline(1.0, lw=1, ls=":", color=_RED)
    ax.set_yticks(range(len(known)), [each.name for each in known], fontsize="small")
    ax.set_ylim(-0.7, max(len(known), 1) - 0.3)
    if known and min(each.value for each in known) > 0:
        ax.set_xscale("log")
    ax.set_xlabel("value (below 1: proved)")
    held = [each.name for each in known if each.holds]
    ax.set_title(f"stable: proved by {', '.join(held)}" if held else "nothing is proved", fontsize="medium", wrap=True)
    return ax


def plot_activations(infos: Sequence[ActivationInfo] | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw the range of slopes of each activation, in the colour of its verdict (paper 3, Figure 1, corrected).

    A cross marks where the paper calls the activation unstable. Slopes without bound are cut off at ±2. Estimated ones
    stand above a line, as open bars.

    Args:
        infos: By default the activations of the paper's figure, with the parameters they start with.
        ax: Where to draw; by default on a new figure.
    """
    infos = _of_figure_one() if infos is None else infos
    ax = _axes(ax)
    known, estimated = ([info for info in infos if info.estimated == apart] for apart in (False, True))
    for row, info in enumerate([*known, *estimated]):
        low, high = (float(np.clip(slope, -2, 2)) for slope in info.slope_range)
        color = _VERDICTS[info.verdict.removesuffix(ESTIMATED)]
        if info.estimated:
            ax.barh([row], [high - low], 0.3, left=[low], color="none", edgecolor=color, linestyle="--")
        else:
            ax.plot([low, high], [row, row], lw=5, solid_capstyle="butt", color=color)
        if info.slope_range[0] == info.slope_range[1]:  # no width: one slope
            ax.plot([low], [row], marker="s", ms=5, color=color, ls="none")
        if info.paper_class is not None and info.paper_class.startswith("unstable"):
            ax.plot([high + 0.08], [row], marker="x", color=_RED, ls="none")
    if known and estimated:
        ax.axhline(len(known) - 0.5, lw=1, color=_GREY)
    names = [f"{info.name}: {info.verdict}" for info in (*known, *estimated)]
    ax.set_yticks(range(len(names)), names, fontsize="small")
    for slope in (-1.0, 1.0):
        ax.axvline(slope, lw=1, ls=":", color=_GREY)
    ax.set_xlabel("slope")
    return ax


def _of_figure_one() -> list[ActivationInfo]:
    classes = (getattr(nn, name, None) or getattr(activations, name) for name in PAPER_CLASS)
    return [activation_info(cls().eval()) for cls in classes]


def plot_diagnostics(diagnostics: "Diagnostics", ax: "Axes | None" = None) -> "Axes":
    """Draw ρ(A(x)) against ‖A(x)‖₂ at the points that were looked at."""
    ax = _axes(ax)
    ax.scatter(diagnostics.norm.numpy(), diagnostics.rho.numpy(), s=10, color=_BLUE)
    ax.axhline(1.0, lw=1, ls=":", color=_RED)
    ax.axvline(1.0, lw=1, ls=":", color=_RED)
    ax.set_xlabel("‖A(x)‖₂")
    ax.set_ylabel("ρ(A(x))")
    ax.set_title(f"diagnostic: paper 3's criterion is {diagnostics.paper_criterion}", fontsize="medium")
    return ax


def _plane_axes(ax: "Axes") -> "Axes":
    ax.set_aspect("equal")
    ax.set_xlabel("x₁")
    ax.set_ylabel("x₂")
    return ax


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(4.6, 4.0), layout="constrained").subplots()
