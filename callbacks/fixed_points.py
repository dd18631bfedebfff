"""Watches the fixed points of a map while it is learned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.maps import check_path, check_size, map_and_points
from fpstab.callbacks.pictures import figure_of
from fpstab.callbacks.probe import Probe
from fpstab.fixed_points import Basins, FixedPoints, Track, basins, find_fixed_points, track
from fpstab.results import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SEEDS, _SEED_VALUES = 64, 4096  # starts of Newton's method at most; their values altogether, if there are few points
_RESOLUTION = 41  # nodes a side of the basins of a map of the plane, as in the papers
_UNSETTLED = ("none", "undecided", "non_isolated", "not_countable")  # outcomes, not failures


@dataclass(frozen=True, slots=True, eq=False)
class FixedPointReport:
    """The fixed points of a network at one moment of its training.

    Attributes:
        found: What the search found. Its starts are the points, then as many uniform ones.
        residual: ‖Φ(x) − x‖₂ at the points `[B]`.
        stored: Whether a fixed point of any kind lies within the tolerance of each point `[B]`.
        recovered: Whether iteration from each point leads to one within the tolerance `[B]`.
        change: What became of last time's fixed points, `None` at the first measurement.
        basins: Of a map of the plane, on the box of the points; else `None`.
        status: `"ok"`, also where nothing was found or nothing can be counted (the message says so).
    """

    found: FixedPoints
    residual: Tensor
    stored: Tensor
    recovered: Tensor
    change: Track | None
    basins: Basins | None
    status: Status

    def scalars(self) -> dict[str, float]:
        """What a monitor logs."""
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
        return scalars


class FixedPointMonitor(Monitor[FixedPointReport]):
    """Logs how many fixed points a network has, of which kind, which data are among them, and how complete the count is.

    For a network that maps a space to itself, or a part of one. Every measurement iterates the points and as many
    uniform starts from the box that they span, polishes the fixed points of last time, and looks with Newton's method
    for fixed points that do not attract.

    Scalars: `fpstab/fixed_points/n_attracting` (on the progress bar), `n_saddle`, `n_repelling`, `n_marginal`,
    `n_non_isolated`, `n_cycles`; `count` (all kinds; nan where fixed points are not isolated or not countable);
    `data/coverage`, `data/chao1`, `uniform/coverage`, `uniform/chao1`: what share of the starts of each kind goes to a
    known limit, and how many limits there may be; `index_defect` (not 0: some were missed, if the network is bounded),
    `n_missing`; `n_births`, `n_deaths` since last time; `share_recovered` (points from which iteration leads back to
    within the tolerance), `share_stored` (points with a fixed point of any kind within it); `residual_max`,
    `residual_mean` of ‖Φ(x) − x‖₂ at the points; `rho_max_attracting`, `sigma_max_attracting`; the shares of the starts
    that ended `fixed`, in a `cycle`, `slow`, `bounded`, `diverged`, `nonfinite`, and `share_undecided`; `n_evals`,
    `seconds`, `failed`. Figures: the fixed points (images, where a point is one; the basins, in the plane) and the
    convergence of some starts. See `fpstab.fixed_points.find_fixed_points`.

    Args:
        map: Path from the LightningModule to the part to study, e.g. `"net"`; `None`: its `forward`.
        points: The data: a tensor, a dataset, or `"batch"` (the first validation batch).
        size: How many of them, and how many uniform starts; a quarter as many starts for Newton's method, which finds
            new unstable points at every measurement and keeps those of last time.
        unstable: `"newton"`: also find fixed points that do not attract; `None`: only follow the starts, at half the
            cost.
        tolerance: How near a fixed point must be to count as a point, relative to the points' root-mean-square distance
            from their mean (from 0, if there is only one).
        max_iter: Iterations at most for each start.
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Raises:
        ValueError: If an argument is out of range, at construction; if `map` leads nowhere, at setup.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[FixedPointMonitor(map="net", every=Every(5))], logger=False)
    """

    analysis = "fixed_points"
    on_progress_bar = "n_attracting"

    def __init__(
        self,
        map: str | None = None,  # noqa: A002
        points: Tensor | Dataset[Any] | Literal["batch"] = "batch",
        size: int = 32,
        unstable: Literal["newton"] | None = "newton",
        tolerance: float = 0.1,
        max_iter: int = 1000,
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        strict: bool = False,
        name: str = "fixed_points",
    ) -> None:
        check_size(size)
        super().__init__(every=every, budget=budget, strict=strict, name=name, probe=Probe(points, size))
        if unstable not in (None, "newton"):
            raise ValueError(f"unstable={unstable!r}: expected 'newton' or None.")
        if not tolerance > 0:
            raise ValueError(f"tolerance={tolerance!r}: expected a relative distance above 0.")
        if not isinstance(max_iter, int) or max_iter < 1:
            raise ValueError(f"max_iter={max_iter!r}: expected a positive number of iterations.")
        self.map, self.size, self.unstable, self.tolerance, self.max_iter = map, size, unstable, tolerance, max_iter
        self._previous: Tensor | None = None  # [K, n]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.map, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if trainer.global_step == 0:
            self._previous = None
        super().on_train_start(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return super().state_dict() | {"points": self._previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        super().load_state_dict(state_dict)
        self._previous = state_dict["points"]

    def measure(self, trainer: Trainer, module: LightningModule) -> FixedPointReport:  # noqa: D102
        assert self.probe is not None
        network, x = map_and_points(module, self.map, self.probe, self.size, self.history.measured)
        network.require_square("Fixed points")
        previous = None if self._previous is None else self._previous.to(x.device)
        found = find_fixed_points(
            network,
            torch.cat((x, _uniform(x))),
            unstable=self.unstable,
            max_iter=self.max_iter,
            max_seeds=min(_SEEDS, max(self.size // 4, _SEED_VALUES // network.n_in)),
            sources=["data"] * len(x) + ["uniform"] * len(x),
            seeds=previous,
            throw=False,
        )
        with torch.no_grad():
            residual = torch.linalg.vector_norm(network(x) - x, dim=1).cpu()
        near = torch.cdist(x.cpu(), found.points) <= self.tolerance * _spread(x)
        label = found.label[: len(x)]
        recovered = (label >= 0) & near.gather(1, label.clamp_min(0)[:, None])[:, 0] if len(found) else label >= 0
        change = None if previous is None else track(previous, found.points)
        self._previous = found.points
        settled = found.status.ok or found.status.code in _UNSETTLED
        return FixedPointReport(
            found=found,
            residual=residual,
            stored=near.any(1),
            recovered=recovered,
            change=change,
            basins=basins(network, _box(x), resolution=_RESOLUTION, throw=False) if network.n_in == 2 else None,
            status=Status(message=found.status.message) if settled else found.status,
        )

    def figures(self, result: FixedPointReport) -> Mapping[str, "Figure"]:  # noqa: D102
        figures = {
            "fixed_points": figure_of(result.found.plot()),
            "convergence": figure_of(result.found.plot_convergence()),
        }
        if result.basins is not None:
            figures["basins"] = figure_of(result.basins.plot())
        return figures

    def histograms(self, result: FixedPointReport) -> Mapping[str, Tensor]:  # noqa: D102
        return {"rho": result.found.rho} if len(result.found) else {}


def _box(x: Tensor) -> tuple[tuple[float, float], tuple[float, float]]:
    """The square that holds all values of all points."""
    finite = x[x.isfinite()]
    side = (float(finite.min()), float(finite.max())) if len(finite) else (-1.0, 1.0)
    return side, side


def _uniform(x: Tensor) -> Tensor:
    """As many starts as there are points, uniform in the box of all their values; the same at every measurement."""
    (low, high), _ = _box(x)
    draws = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (low + (high - low) * draws).to(x.device)


def _spread(x: Tensor) -> float:
    centre = x.mean(0) if len(x) > 1 else torch.zeros_like(x[0])
    return float((x - centre).square().sum(1).mean().sqrt())
