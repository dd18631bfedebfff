"""Watches the fixed points of a map while it is learned."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.maps import check_path, check_size, map_and_points
from fpstab.callbacks.pictures import figure_of
from fpstab.callbacks.probe import Probe
from fpstab.fixed_points import FixedPointReport, fixed_point_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    convergence of some starts, and what is proved in the plane. See `fpstab.fixed_points.find_fixed_points`.

    Args:
        map: Path from the LightningModule to the part to study, e.g. `"net"`; `None`: its `forward`.
        points: The data: a tensor, a dataset, or `"batch"` (the first validation batch).
        size: How many of them, and how many uniform starts; a quarter as many starts for Newton's method, which finds
            new unstable points at every measurement and keeps those of last time.
        unstable: `"newton"`: also find fixed points that do not attract; `None`: only follow the starts, at half the
            cost.
        prove: Also prove how many fixed points there are, if the network is a chain of dense layers and few dimensions (2 or
            3, say). Where nothing is proved `proof_complete` is 0, and the status in `fpstab.jsonl` says why.
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
        prove: bool = False,
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
        if not isinstance(prove, bool):
            raise TypeError(f"prove={prove!r}: expected True or False.")
        if not tolerance > 0:
            raise ValueError(f"tolerance={tolerance!r}: expected a relative distance above 0.")
        if not isinstance(max_iter, int) or max_iter < 1:
            raise ValueError(f"max_iter={max_iter!r}: expected a positive number of iterations.")
        self.map, self.size, self.unstable, self.tolerance, self.max_iter = map, size, unstable, tolerance, max_iter
        self.prove = prove
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
        report = fixed_point_report(
            network,
            x,
            previous=self._previous,
            unstable=self.unstable,
            tolerance=self.tolerance,
            max_iter=self.max_iter,
            prove=self.prove,
        )
        self._previous = report.found.points
        return report

    def figures(self, result: FixedPointReport) -> Mapping[str, "Figure"]:  # noqa: D102
        figures = {
            "fixed_points": figure_of(result.found.plot()),
            "convergence": figure_of(result.found.plot_convergence()),
        }
        if result.basins is not None:
            figures["basins"] = figure_of(result.basins.plot())
        if result.proof is not None and result.proof.box.shape[1] == 2:
            figures["proof"] = figure_of(result.proof.plot())
        return figures

    def histograms(self, result: FixedPointReport) -> Mapping[str, Tensor]:  # noqa: D102
        return {"rho": result.found.rho} if len(result.found) else {}
