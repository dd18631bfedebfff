"""What a trained network does with its exemplars and with other points: are they stored, and who ends at which."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fpstab.fixed_points import OUTCOMES, FixedPoints, find_fixed_points
from fpstab.jacobian import jacobian_spectrum

IMAGE_TOLERANCE = 0.05
"""How far, at most, the attractor of an image lies from it: root mean square over the pixels, which are in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Recall:
    """What became of the exemplars and of the starts.

    An exemplar ψ is *stored* if iteration from ψ leads to an attracting fixed point within the tolerance of ψ. A start
    is *recalled* as the exemplar near which its own orbit ends, in the same sense. Distances are root mean squares over
    the coordinates.

    Attributes:
        exemplars: ψ `[K, n]`.
        residual: ‖Φ(ψ) − ψ‖ `[K]`.
        rho: ρ(J) at ψ `[K]`, nan where it could not be computed.
        rho_error: Its error `[K]`.
        distance: From ψ to the fixed point that iteration from it leads to `[K]`; infinite if it leads to none.
        stored: Whether that is near, and attracts `[K]`.
        recalled: The exemplar of each start, −1 if its orbit ends at none `[S]`.
        limit: The fixed point that the orbit of each start goes to, −1 if it is none `[S]`.
        fixed_points: All that were found, from exemplars and starts.
        tolerance: How near is near.
    """

    exemplars: Tensor
    residual: Tensor
    rho: Tensor
    rho_error: Tensor
    distance: Tensor
    stored: Tensor
    recalled: Tensor
    limit: Tensor
    fixed_points: FixedPoints
    tolerance: float

    @property
    def n_stored(self) -> int:
        """How many exemplars are stored."""
        return int(self.stored.sum())

    @property
    def n_attractors(self) -> int:
        """How many attracting fixed points were found, near an exemplar or not."""
        return len(self.fixed_points.attracting)

    @property
    def settled(self) -> float:
        """Share of the starts whose orbit ends at a fixed point; nan without starts."""
        return share(self.limit >= 0)

    @property
    def unsettled(self) -> str:
        """How the orbits of the other starts end, for a message."""
        outcome = self.fixed_points.outcome[len(self.exemplars) :]
        counts = torch.bincount(outcome[self.limit < 0], minlength=len(OUTCOMES)).tolist()
        return ", ".join(f"{count} {name}" for name, count in zip(OUTCOMES, counts, strict=True) if count)

    def ends(self, labels: Tensor) -> Tensor:
        """The fixed points with these numbers `[B]`, in the shape of samples `[B, *shape]`; nan where it is −1."""
        points = torch.cat((self.fixed_points.points, torch.full((1, self.exemplars.shape[1]), torch.nan).double()))
        return points[labels].reshape(len(labels), *self.fixed_points.shape)

    def scalars(self) -> dict[str, float]:
        """How many are stored, the largest ρ, residual and distance of exemplars, and what else attracts."""
        return {
            "n_exemplars": float(len(self.exemplars)),
            "n_stored": float(self.n_stored),
            "rho_max": float(self.rho.max()),
            "residual_max": float(self.residual.max()),
            "distance_max": float(self.distance.max()),
            "n_attractors": float(self.n_attractors),
            "n_cycles": float(len(self.fixed_points.cycles)),
            "settled": self.settled,
        }

    def table(self) -> list[dict[str, Any]]:
        """One row an exemplar."""
        return [
            {
                "exemplar": k,
                "residual": float(self.residual[k]),
                "rho": float(self.rho[k]),
                "rho_error": float(self.rho_error[k]),
                "distance": float(self.distance[k]),
                "stored": bool(self.stored[k]),
            }
            for k in range(len(self.exemplars))
        ]


def recall(net: nn.Module, exemplars: Tensor, starts: Tensor, *, tolerance: float = IMAGE_TOLERANCE) -> Recall:
    """Iterate from exemplars and starts to the end, and compare.

    Args:
        net: A map of a space to itself.
        exemplars: ψ `[K, *shape]`, one or more.
        starts: `[S, *shape]`, may be none.
        tolerance: Root mean square over the coordinates, above 0.

    Raises:
        ValueError: If there are no exemplars, shapes differ, or the tolerance is not positive.

    >>> double = nn.Linear(1, 1).requires_grad_(False)
    >>> double.weight[:], double.bias[:] = 2.0, 0.0
    >>> found = recall(nn.Sequential(double, nn.Tanh()), torch.tensor([[-0.95], [0.0]]), torch.tensor([[-0.3], [0.3]]))
    >>> found.stored, found.recalled
    (tensor([ True, False]), tensor([ 0, -1]))
    """
    if not len(exemplars) or exemplars.shape[1:] != starts.shape[1:]:
        raise ValueError(
            "expected one or more exemplars [K, *shape] and starts [S, *shape], "
            f"got {list(exemplars.shape)} and {list(starts.shape)}."
        )
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance!r}: expected a positive number.")
    found = find_fixed_points(net, torch.cat((exemplars, starts)), throw=False)
    spectrum = jacobian_spectrum(net, exemplars, throw=False)
    psi = exemplars.detach().to("cpu", torch.float64).flatten(1)
    k, root = len(psi), math.sqrt(psi.shape[1])
    with torch.no_grad():
        passed = one_pass(net, exemplars)
    ends = torch.full_like(psi, math.inf)
    ends[found.label[:k] >= 0] = found.points[found.label[:k].clamp_min(0)][found.label[:k] >= 0] if len(found) else 0.0
    distance = torch.linalg.vector_norm(ends - psi, dim=1) / root
    # the exemplar at each attractor, and then at the end of each orbit: the last entry is for those without
    at = torch.full((len(found) + 1,), -1)
    attracting = found.attracting
    if len(attracting):
        apart, nearest = (torch.cdist(found.points[attracting], psi) / root).min(1)
        at[attracting] = torch.where(apart <= tolerance, nearest, -1)
    return Recall(
        exemplars=psi,
        residual=torch.linalg.vector_norm(passed - psi, dim=1) / root,
        rho=spectrum.rho,
        rho_error=spectrum.rho_error,
        distance=distance,
        stored=at[found.label[:k]] == torch.arange(k),
        recalled=at[found.label[k:]],
        limit=found.label[k:],
        fixed_points=found,
        tolerance=tolerance,
    )


def one_pass(net: nn.Module, x: Tensor) -> Tensor:
    """Φ(x) `[B, n]` in float64 on the CPU, for x `[B, *shape]`."""
    from fpstab.maps import SelfMap

    function = SelfMap(net, x)
    with torch.no_grad():
        return function(function.flatten(x)).cpu()


def share(which: Tensor) -> float:
    """The share that is true, nan of none.

    >>> share(torch.tensor([True, False, False, True]))
    0.5
    """
    return float(which.double().mean()) if which.numel() else math.nan
