"""All that is known of a network as the system x⁺ = f(x): what is proved, what only looks so, what its orbits end in."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fpstab.maps import SelfMap, as_map
from fpstab.results import OK, Status
from fpstab.stability.attractors import LABELS, Attractor, classify_attractor
from fpstab.stability.criteria import StabilityReport, stability_criteria
from fpstab.stability.portraits import PhasePortrait, phase_portrait

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ARROWS, _STEPS = 16, 30  # of a portrait, which is kept with every measurement


@dataclass(frozen=True, slots=True, eq=False)
class DynamicsReport:
    """A network as the system x⁺ = f(x).

    Attributes:
        criteria: What is proved, and the diagnostics, which prove nothing.
        attractor: What the orbits from the starts end in: seen, not proved.
        portrait: Of a map of the plane, on a square that holds the points; else `None`.
        status: `"ok"`, with what could not be attempted; that of the criteria is kept in them.
    """

    criteria: StabilityReport
    attractor: Attractor
    portrait: PhasePortrait | None
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """What a monitor logs: the criteria's scalars, each global certificate's value, and the attractor's scalars.

        `attractor` is the place of its label in `fpstab.stability.LABELS`. Values and diagnostics that could not be computed
        are left out.
        """
        values = {f"value/{each.name}": each.value for each in self.criteria.certificates if each.scope == "global"}
        known = {name: value for name, value in (self.criteria.scalars() | values).items() if math.isfinite(value)}
        label = {"attractor": float(LABELS.index(self.attractor.label))}
        return {"value": math.nan} | known | label | self.attractor.scalars()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the values of the certificates, with the line below which they prove something."""
        from fpstab.stability.plots import plot_certificates

        return plot_certificates(self.criteria.certificates, ax)

    def __str__(self) -> str:
        return f"{self.criteria}\nSeen from {sum(self.attractor.counts.values())} starts: {self.attractor.label}."


def dynamics_report(
    net: nn.Module,
    points: Any,
    *,
    map: SelfMap | None = None,  # noqa: A002
    quadratic: bool = True,
    time_limit: float | None = None,
) -> DynamicsReport:
    """Try to prove that a network is stable, look at it, and follow its orbits (paper 3, repaired).

    The diagnostics look, and the orbits start, at the points and at as many uniform ones from the box of their values.

    Args:
        net: A module that maps a space to itself.
        points: Data `[B, *shape]`, one or more.
        map: The network as a `SelfMap`, if there is one already.
        quadratic: See `stability_criteria`.
        time_limit: See `stability_criteria`.

    Raises:
        TypeError: If `net` is no module.
        ValueError: If it does not map a space to itself, or a weight is not finite.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(0.5 * torch.eye(2)), net[0].bias.zero_()
    >>> report = dynamics_report(net, torch.ones(4, 2))
    >>> report.criteria.certified, report.attractor.label
    (True, 'single')
    """
    function = as_map(net, points) if map is None else map
    function.require_square("Stability criteria")
    x = function.flatten(points)
    starts = torch.cat((x, _uniform(x)))
    criteria = stability_criteria(net, points, points=starts, quadratic=quadratic, time_limit=time_limit, throw=False)
    attractor = classify_attractor(function, starts, throw=False)
    said = " ".join(each.message for each in (criteria.status, criteria.diagnostics.status) if each.message)
    portrait = None
    if function.n_in == 2:
        portrait = phase_portrait(function, attractor=attractor, steps=_STEPS, arrows=_ARROWS, reach=_reach(x))
    return DynamicsReport(criteria, attractor, portrait, Status(message=said))


def _reach(x: Tensor) -> float:
    """Half the side of a square around the origin that holds the points, with some room."""
    largest = x[x.isfinite()].abs()
    return 1.5 * float(largest.max()) if len(largest) and bool(largest.any()) else 1.0


def _uniform(x: Tensor) -> Tensor:
    """As many starts as there are points, uniform in the box of all their values; always the same ones."""
    finite = x[x.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (-1.0, 1.0)
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (low + (high - low) * draws).to(x.device)
