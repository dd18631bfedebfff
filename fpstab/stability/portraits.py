"""Phase portraits: a map of the plane by its steps, its orbits and its fixed points (paper 3, Figure 6)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.maps import SelfMap, analysis_modes
from fpstab.stability.attractors import Attractor
from fpstab.stability.plots import plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, eq=False)
class PhasePortrait:
    """A map f of the plane on [−reach, reach]².

    Attributes:
        grid: Points `[G, 2]`.
        step: f(x) − x at them `[G, 2]`.
        orbits: `[S, T + 1, 2]`.
        fixed_points: `[K, 2]`.
        attracting: Indices of those that attract `[A]`.
        label: What the orbits end in; empty if unknown.
        reach: Half the side.
    """

    grid: Tensor
    step: Tensor
    orbits: Tensor
    fixed_points: Tensor
    attracting: Tensor
    label: str
    reach: float

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the directions of the steps, the orbits, and the fixed points, attracting ones filled."""
        from fpstab.stability.plots import plot_portrait

        return plot_portrait(self, ax)


def phase_portrait(
    map: SelfMap,  # noqa: A002
    *,
    attractor: Attractor | None = None,
    starts: Any = None,
    steps: int = 60,
    arrows: int = 24,
    reach: float = 6.0,
) -> PhasePortrait:
    """Look at a map of the plane.

    Args:
        map: A map of the plane to itself.
        attractor: Whose fixed points and label are kept.
        starts: Of orbits `[S, 2]`; by default 16 on a circle.
        steps: Of each orbit.
        arrows: A side.
        reach: Half the side.

    Raises:
        ValueError: If the map is none of the plane.

    >>> portrait = phase_portrait(SelfMap(lambda x: x / 2, torch.zeros(1, 2)), steps=3, arrows=2, reach=1.0)
    >>> portrait.step[0].tolist(), list(portrait.orbits.shape)
    ([0.5, 0.5], [16, 4, 2])
    """
    if (map.n_in, map.n_out) != (2, 2):
        raise ValueError(
            f"A phase portrait needs a map of the plane; {map.name} maps {map.n_in} values to {map.n_out}."
        )
    angle = torch.arange(16, dtype=torch.float64) * (2 * torch.pi / 16)
    first = 0.9 * reach * torch.stack((angle.cos(), angle.sin()), 1) if starts is None else starts
    grid = map.flatten(plane(arrows, reach))
    with analysis_modes(), torch.no_grad():
        step = map(grid) - grid
        path = [map.flatten(first)]
        for _ in range(steps):
            path.append(map(path[-1]))
    found = None if attractor is None else attractor.fixed_points
    return PhasePortrait(
        grid=grid.cpu(),
        step=step.cpu(),
        orbits=torch.stack(path, 1).cpu(),
        fixed_points=torch.empty(0, 2, dtype=torch.float64) if found is None else found.points,
        attracting=torch.empty(0, dtype=torch.int64) if found is None else found.attracting,
        label="" if attractor is None else attractor.label,
        reach=reach,
    )
