"""Basins of attraction on a window of the plane, or on a plane in a space of any dimension."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fpstab.fixed_points.finder import find_fixed_points
from fpstab.fixed_points.points import FixedPoints
from fpstab.fixed_points.search import Rule
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Window = tuple[tuple[float, float], tuple[float, float]]

_Z = 1.959963984540054  # 95 %


@dataclass(frozen=True, slots=True, eq=False)
class Basins:
    """Which fixed point each node of a grid goes to.

    Attributes:
        label: The fixed point of each node `[R, R]`, first index the second coordinate (ascending), second index the
            first one, as in a picture; −1 for a node that goes to none. Cycles are labelled K, K + 1, … after the K
            fixed points.
        outcome: Index into `OUTCOMES` of each node `[R, R]`.
        fixed_points: What the search from the nodes found.
        window: `((x0, x1), (y0, y1))`, the ends of the grid in both coordinates.
        plane: `(origin [n], u [n], v [n])`: node (s, t) is origin + s·u + t·v; `None` for a map of the plane.
        fractions: Share of the nodes that go to each fixed point, then to each cycle `[K + C]`.
        intervals: 95 % intervals of these shares of the window `[K + C, 2]` (Wilson), as if the nodes had been drawn
            at random: a grid does better where basins have smooth boundaries, and no better where they are fractal.
        undecided: Share of the nodes that go to none.
        boundary: Share of pairs of neighbouring nodes that go to different places.
        status: That of the search.
    """

    label: Tensor
    outcome: Tensor
    fixed_points: FixedPoints
    window: Window
    plane: tuple[Tensor, Tensor, Tensor] | None
    fractions: Tensor
    intervals: Tensor
    undecided: float
    boundary: float
    status: Status

    def scalars(self) -> dict[str, float]:
        """The shares of the window by kind, and what the search counts."""
        scalars = self.fixed_points.scalars()
        kinds = self.fixed_points.kind
        attracting = [float(self.fractions[i]) for i, kind in enumerate(kinds) if kind == "attracting"]
        return scalars | {
            "largest_basin": max(attracting, default=math.nan),
            "share_attracted": sum(attracting),
            "share_boundary": self.boundary,
        }

    def table(self) -> list[dict[str, Any]]:
        """One row a fixed point, with its basin's share of the window."""
        return [
            row
            | {
                "fraction": float(self.fractions[i]),
                "fraction_low": float(self.intervals[i, 0]),
                "fraction_high": float(self.intervals[i, 1]),
            }
            for i, row in enumerate(self.fixed_points.table())
        ]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the basins, filled, and the fixed points in the window by their kind (paper 2, Figures 1 and 3)."""
        from fpstab.fixed_points.plots import plot_basins

        return plot_basins(self, ax)


def basins(
    map: SelfMap | nn.Module | Callable[..., Any],  # noqa: A002
    window: Window = ((-1.0, 1.0), (-1.0, 1.0)),
    resolution: int = 41,
    *,
    plane: tuple[Any, Any, Any] | None = None,
    rule: Rule | None = None,
    unstable: Literal["newton"] | None = None,
    tol: float = 1e-8,
    max_iter: int = 1000,
    batch_size: int | None = None,
    throw: bool = True,
) -> Basins:
    """Find the basins of attraction of a map on a window (papers 1 §IV, 2 §III).

    The default window and resolution are the papers' grid, [−1, 1]² with step 0.05 (paper 2, eq. (4)).

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches. Without `plane`, of the plane to itself.
        window: `((x0, x1), (y0, y1))`, ends included.
        resolution: Nodes along each side, 2 or more.
        plane: `(origin, u, v)`, each `[n]` or of a sample's shape: the plane origin + s·u + t·v in a space of n
            dimensions, with (s, t) in the window.
        rule: `"paper"` for the papers' stopping rule and grouping.
        unstable: See `find_fixed_points`.
        tol: See `find_fixed_points`.
        max_iter: See `find_fixed_points`.
        batch_size: See `find_fixed_points`.
        throw: Raise where nothing was found; otherwise say so in the status.

    Raises:
        ValueError: If the window, the resolution or the plane make no sense, or the map is not from the plane (or
            the space of `plane`) to itself.
        AnalysisError: If `throw`, and neither a fixed point nor a cycle was found.

    >>> halves = basins(lambda x: torch.tanh(2 * x) * torch.tensor([1.0, 0.1]), resolution=10)
    >>> halves.fixed_points.points.round(decimals=3)
    tensor([[-0.9580,  0.0000],
            [ 0.9580,  0.0000]], dtype=torch.float64)
    >>> halves.label[0]
    tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    """
    (x0, x1), (y0, y1) = window
    if not (math.isfinite(x1 - x0) and math.isfinite(y1 - y0) and x0 < x1 and y0 < y1):
        raise ValueError(f"window={window!r}: expected ((x0, x1), (y0, y1)) with x0 < x1 and y0 < y1.")
    if resolution < 2:
        raise ValueError(f"resolution={resolution!r}: expected 2 nodes or more along each side.")
    steps = torch.arange(resolution, dtype=torch.float64)
    # linspace rounds: 0 must be a node of [−1, 1], where maps without bias have a fixed point
    first, second = (low + (high - low) * steps / (resolution - 1) for low, high in window)
    nodes = torch.cartesian_prod(second, first).flip(1)  # the second coordinate varies slowest
    with analysis_modes():
        frame, function = _frame(map, plane, nodes)
    starts = nodes if frame is None else frame[0] + nodes[:, :1] * frame[1] + nodes[:, 1:] * frame[2]
    found = find_fixed_points(
        function,
        starts,
        unstable=unstable,
        rule=rule,
        tol=tol,
        max_iter=max_iter,
        sources=["grid"] * len(starts),
        batch_size=batch_size,
        throw=False,
    )
    if throw and not len(found) and not found.cycles:
        raise AnalysisError(found.status)
    label = torch.where(found.cycle_label >= 0, len(found) + found.cycle_label, found.label)
    counts = torch.bincount(label[label >= 0], minlength=len(found) + len(found.cycles)).to(torch.float64)
    picture = label.reshape(resolution, resolution)
    across, along = picture[:, 1:] != picture[:, :-1], picture[1:] != picture[:-1]
    return Basins(
        label=picture,
        outcome=found.outcome.reshape(resolution, resolution),
        fixed_points=found,
        window=((float(x0), float(x1)), (float(y0), float(y1))),
        plane=frame,
        fractions=counts / len(label),
        intervals=_wilson(counts, len(label)),
        undecided=float((label < 0).double().mean()),
        boundary=float(torch.cat((across.flatten(), along.flatten())).double().mean()),
        status=found.status,
    )


def _frame(
    map: SelfMap | nn.Module | Callable[..., Any],  # noqa: A002
    plane: tuple[Any, Any, Any] | None,
    nodes: Tensor,
) -> tuple[tuple[Tensor, Tensor, Tensor] | None, SelfMap]:
    """The plane as flat float64 vectors on the CPU, and the function."""
    if plane is None:
        try:
            function = as_map(map, nodes)
        except ValueError as error:
            if not isinstance(error.__cause__, RuntimeError):  # torch's, about shapes
                raise
            raise ValueError(
                f"basins: the map does not take points of the plane [B, 2] ({error}). "
                "Give a plane in its space: plane=(origin, u, v)."
            ) from error
        if function.n_in != 2:
            raise ValueError(
                f"{function.name} is a map of {function.n_in} values: basins on the plane need 2. "
                "Give a plane in its space: plane=(origin, u, v)."
            )
        return None, function
    vectors = [torch.as_tensor(vector) for vector in plane]
    function = as_map(map, vectors[0][None])
    sizes = [vector.numel() for vector in vectors]
    if sizes != [function.n_in] * 3:
        raise ValueError(f"plane: expected three vectors of {function.n_in} values each, got {sizes}.")
    origin, u, v = (vector.detach().to("cpu", torch.float64, copy=True).reshape(-1) for vector in vectors)
    if float(torch.linalg.svdvals(torch.stack((u, v)))[-1]) <= 1e-12 * float(u.norm()):
        raise ValueError("plane: u and v are parallel (or zero); they span no plane.")
    return (origin, u, v), function


def _wilson(counts: Tensor, n: int) -> Tensor:
    """95 % intervals `[K, 2]` of shares, from counts `[K]` of n."""
    p, z2 = counts / n, _Z**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * torch.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    return torch.stack(((middle - half).clamp_min(0), (middle + half).clamp_max(1)), 1)
