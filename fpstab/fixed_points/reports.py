"""A network's fixed points beside its data: what is stored, what is recovered, what has changed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from fpstab.fixed_points.finder import find_fixed_points
from fpstab.fixed_points.points import FixedPoints
from fpstab.fixed_points.regions import Basins, basins
from fpstab.fixed_points.tracking import Track, track
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import Status

if TYPE_CHECKING:
    from fpstab.proofs import Proof

_SEEDS, _SEED_VALUES = 64, 4096  # starts of Newton's method at most; their values altogether, if there are few points
_PROOF_SECONDS = 1.0
_UNSETTLED = ("none", "undecided", "non_isolated", "not_countable")  # outcomes, not failures


@dataclass(frozen=True, slots=True, eq=False)
class FixedPointReport:
    """The fixed points of a network, and its data.

    Attributes:
        found: What the search found. Its starts are the points, then as many uniform ones.
        residual: ‖Φ(x) − x‖₂ at the points `[B]`.
        stored: Whether a fixed point of any kind lies within the tolerance of each point `[B]`.
        recovered: Whether iteration from each point leads to one within the tolerance `[B]`.
        change: What became of the earlier fixed points, `None` if there were none to compare with.
        basins: Of a map of the plane, on the box of the points; else `None`.
        proof: How many there are, proved, if that was asked for; else `None`. Where it failed its status says why.
        status: `"ok"`, also where nothing was found or nothing can be counted (the message says so).
    """

    found: FixedPoints
    residual: Tensor
    stored: Tensor
    recovered: Tensor
    change: Track | None
    basins: Basins | None
    status: Status
    proof: "Proof | None" = None

    def scalars(self) -> dict[str, float]:
        """What the search counts, shares of the points, their residuals, what is proved; nan where there is none."""
        scalars = self.found.scalars()
        residual = self.residual[self.residual.isfinite()]
        scalars |= {
            "n_missing": float(self.found.n_missing),
            "share_stored": float(self.stored.double().mean()),
            "share_recovered": float(self.recovered.double().mean()),
            "residual_max": float(residual.max()) if len(residual) else math.nan,
            "residual_mean": float(residual.mean()) if len(residual) else math.nan,
            "n_births": 0.0,
            "n_deaths": 0.0,
        }
        if self.change is not None:
            scalars |= {key: value for key, value in self.change.scalars().items() if key in ("n_births", "n_deaths")}
        return scalars if self.proof is None else scalars | self.proof.scalars()


def fixed_point_report(
    map: SelfMap | nn.Module | Callable[..., Any],  # noqa: A002
    points: Any,
    *,
    previous: Tensor | None = None,
    unstable: Literal["newton"] | None = "newton",
    tolerance: float = 0.1,
    max_iter: int = 1000,
    resolution: int = 41,
    prove: bool = False,
) -> FixedPointReport:
    """Find the fixed points of a network from its data and from noise, and compare (papers 1 §II, 2 §I and §III).

    Iterates the points and as many uniform starts from the box of all their values; with `unstable`, Newton's method
    starts from a quarter as many. Coverage is estimated for each of the two sources of starts.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        points: Data `[B, *shape]` or `[B, n]`, one or more.
        previous: Fixed points of an earlier moment `[K, n]`, to be polished first and compared with.
        unstable: See `find_fixed_points`.
        tolerance: How near a fixed point must be to count as a point, relative to the points' root-mean-square distance
            from their mean (from 0, if there is only one).
        max_iter: See `find_fixed_points`.
        resolution: Nodes a side of the basins of a map of the plane; the papers' grid has 41.
        prove: Also prove how many fixed points there are (`fpstab.proofs.prove_fixed_points`), everywhere if the values of the
            network are bounded, else in the box of all values of the points. For chains of few dimensions; takes a second at most.

    Raises:
        ValueError: If the map is not from a space to itself, or an argument is out of range.

    >>> report = fixed_point_report(lambda x: torch.tanh(2 * x), torch.tensor([[0.9575], [-0.3]]), tolerance=0.01)
    >>> report.recovered, report.scalars()["n_attracting"], report.scalars()["n_repelling"]
    (tensor([ True, False]), 2.0, 1.0)
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance!r}: expected a relative distance above 0.")
    with analysis_modes():
        function = as_map(map, points)
        function.require_square("Fixed points")
        x = function.flatten(points)
        found = find_fixed_points(
            function,
            torch.cat((x, _uniform(x))),
            unstable=unstable,
            max_iter=max_iter,
            max_seeds=min(_SEEDS, max(len(x) // 4, _SEED_VALUES // function.n_in)),
            sources=["data"] * len(x) + ["uniform"] * len(x),
            seeds=previous,
            throw=False,
        )
        with torch.no_grad():
            residual = torch.linalg.vector_norm(function(x) - x, dim=1).cpu()
    near = torch.cdist(x.cpu(), found.points, compute_mode="donot_use_mm_for_euclid_dist") <= tolerance * _spread(x)
    label = found.label[: len(x)]
    recovered = (label >= 0) & near.gather(1, label.clamp_min(0)[:, None])[:, 0] if len(found) else label >= 0
    settled = found.status.ok or found.status.code in _UNSETTLED
    return FixedPointReport(
        found=found,
        residual=residual,
        stored=near.any(1),
        recovered=recovered,
        change=None if previous is None else track(previous, found.points),
        basins=basins(function, _box(x), resolution=resolution, throw=False) if function.n_in == 2 else None,
        status=Status(message=found.status.message) if settled else found.status,
        proof=_proof(function, x) if prove else None,
    )


def _proof(function: SelfMap, x: Tensor) -> "Proof":
    """Everywhere, or on the box of the points."""
    from fpstab.proofs import prove_fixed_points

    proof = prove_fixed_points(function, (-math.inf, math.inf), max_seconds=_PROOF_SECONDS, throw=False)
    if proof.status.code != "unbounded":
        return proof
    return prove_fixed_points(function, _box(x)[0], max_seconds=_PROOF_SECONDS, throw=False)


def _box(x: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """The square that holds all values of all points; a single value gets some room."""
    finite = x[x.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (-1.0, 1.0)
    side = (low, high) if low < high else (low - 1.0, high + 1.0)
    return side, side


def _uniform(x: Tensor) -> Tensor:
    """As many starts as there are points, uniform in the box of all their values; always the same ones."""
    (low, high), _ = _box(x)
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (low + (high - low) * draws).to(x.device)


def _spread(x: Tensor) -> float:
    """Root-mean-square distance of the finite points from their mean; of a single one, from 0."""
    finite = x[x.isfinite().all(1)]
    if not len(finite):
        return 0.0
    centre = finite.mean(0) if len(finite) > 1 else torch.zeros_like(finite[0])
    return float((finite - centre).square().sum(1).mean().sqrt())
