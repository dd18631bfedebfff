"""Watches the equilibria of a network while it trains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.utils.data import Dataset

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.maps import check_path, check_size
from fpstab.callbacks.pictures import figure_of
from fpstab.callbacks.probe import Probe
from fpstab.callbacks.tally import Tally
from fpstab.equilibrium import EquilibriumReport, equilibrium_report
from fpstab.equilibrium.reports import equilibrium_layers
from fpstab.maps import first_tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EquilibriumMonitor(Monitor[EquilibriumReport]):
    """Logs how the equilibria z = f(z, x) of a network's `FixedPointLayer`s are found, and how stable they are.

    At the probe's points, in eval mode, each layer's equilibrium is solved by the layer's own solver, and its adjoint
    equation for a random gradient; there, the spectral radius ρ of ∂f/∂z is computed by Arnoldi's method (a Rayleigh
    quotient would be far off where the leading eigenvalues are a complex pair). In between, what the layers did in
    training is added up, batch by batch.

    Scalars, below `fpstab/equilibrium/` (with several layers, below `fpstab/equilibrium/<path>/`): of the probe
    `forward/…` and `backward/…`: `iterations_mean`, `iterations_max`, `unconverged` (a share), `residual_max`,
    `residual_median`, `rate_median` (the measured rate: the mean factor by which an evaluation lowers the
    residual); `fallback` and `dropped` (shares); `rho_max` (on the progress bar), `rho_median` (the predicted rate of
    plain iteration), `rho_error_max`, `share_expanding` (points with ρ ≥ 1); `predicted_iterations` of plain iteration from
    ρ, and `speedup`, ln(measured rate)/ln(predicted rate): 1 for plain iteration, above where a solver gains, nan
    where ρ ≥ 1. Of the inner weight, if f has a square one: `symmetry_defect` (0 symmetric, 0.71 independent entries, 1
    antisymmetric), `orthogonality_defect`, `sqrt_v`. Of the training since the last measurement, means over its
    batches: `train/forward_iterations`, `train/forward_unconverged`, `train/backward_iterations`,
    `train/backward_unconverged`, `train/fallback`, `train/dropped`. Also `seconds`, `failed`. Figure: measured against
    predicted rate. Histogram: ρ.

    A network without a `FixedPointLayer` is said once, and `failed` is 1.

    Args:
        layer: Path from the LightningModule to one `FixedPointLayer`, or to a part that holds some; `None`: all.
        map: Path to what the points are fed to, e.g. `"net"`; `None`: the LightningModule's `forward`.
        points: Where to look: a tensor, a dataset, or `"batch"` (the first validation batch).
        size: How many of the points.
        rtol: Relative error of ρ.
        seed: Of the random gradient, and of Arnoldi's start.
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Raises:
        ValueError: If an argument is out of range, at construction; if a path leads nowhere, at setup.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[EquilibriumMonitor(size=8)], logger=False)
    """

    analysis = "equilibrium"
    on_progress_bar = "rho_max"

    def __init__(
        self,
        layer: str | None = None,
        map: str | None = None,  # noqa: A002
        points: Tensor | Dataset[Any] | Literal["batch"] = "batch",
        size: int = 16,
        rtol: float = 1e-2,
        seed: int = 0,
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        strict: bool = False,
        name: str = "equilibrium",
    ) -> None:
        check_size(size)
        super().__init__(every=every, budget=budget, strict=strict, name=name, probe=Probe(points, size))
        if not 0 < rtol < 1:
            raise ValueError(f"rtol={rtol!r}: expected a relative error in (0, 1).")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed={seed!r}: expected an integer that is not negative.")
        self.layer, self.map, self.size, self.rtol, self.seed = layer, map, size, rtol, seed
        self._tallies: dict[str, Tally] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.layer, type(self).__name__)
        check_path(pl_module, self.map, type(self).__name__)
        layers = equilibrium_layers(pl_module, self.layer)
        self._tallies = {name: Tally(each) for name, each in layers.items()}

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return super().state_dict() | {"tallies": {name: each.state_dict() for name, each in self._tallies.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        super().load_state_dict(state_dict)
        for name in self._tallies.keys() & state_dict.get("tallies", {}).keys():
            self._tallies[name].load_state_dict(state_dict["tallies"][name])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: D102
        for tally in self._tallies.values():
            tally.add()
        super().on_train_batch_end(trainer, pl_module, *_)

    def measure(self, trainer: Trainer, module: LightningModule) -> EquilibriumReport:  # noqa: D102
        assert self.probe is not None
        points = first_tensor(self.probe.batch)[: self.size]
        report = equilibrium_report(module, points, layer=self.layer, map=self.map, rtol=self.rtol, seed=self.seed)
        layers = {
            name: replace(each, training=self._tallies[name].take()) if name in self._tallies else each
            for name, each in report.layers.items()
        }
        return replace(report, layers=layers)

    def figures(self, result: EquilibriumReport) -> Mapping[str, "Figure"]:  # noqa: D102
        return {"rates": figure_of(result.plot())}

    def histograms(self, result: EquilibriumReport) -> Mapping[str, Tensor]:  # noqa: D102
        return {
            f"{prefix}rho": each.rho[each.rho.isfinite()]
            for prefix, each in result.prefixed()
            if bool(each.rho.isfinite().any())
        }
