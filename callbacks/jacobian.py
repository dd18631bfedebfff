"""Watches the Jacobian of a map at its data or at its fixed points."""

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
from fpstab.fixed_points import find_fixed_points
from fpstab.jacobian import JacobianReport, jacobian_report
from fpstab.results import AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_PRODUCTS = 100  # a point; trained networks need 20 to 50, and one without a leading eigenvalue keeps its estimate
_WHOLE_VALUES = 1024  # values of a point up to which all of a Jacobian is computed: half a second there


class JacobianMonitor(Monitor[JacobianReport]):
    """Logs the spectral radius ρ(J) of a network's Jacobian at its data, or at its fixed points.

    For a network that maps a space to itself, or a part of one. At a fixed point ρ(J) < 1 means that it attracts;
    anywhere else ρ(J) describes the linearised map, and ‖J‖₂ what one step does to a small difference.

    Scalars: `fpstab/jacobian/rho_max` (on the progress bar), `rho_mean`, `rho_median`, `rho_error_max`,
    `share_expanding` (points with ρ > 1), `share_non_normal`, `share_converged`, with `sigma=True` `sigma_max` and
    `sigma_mean`; `residual_max` and `residual_mean` of ‖Φ(x) − x‖₂ at the data: a network all of whose data are
    fixed points has 0 there, so EarlyStopping may watch it (papers 1 §II and 2); `seconds`, `failed`. Before and after
    training, for up to 1,024 values a point, also `tail_verdict` of the eigenvalues of JJᵀ at the first point
    (0 too_few, 1 light, 2 light+spikes, 3 heavy, 4 not_heavy, 5 undecided). Figures: the leading eigenvalues beside
    the unit circle, and all eigenvalues at the first point where they are known. See
    `fpstab.jacobian.jacobian_spectrum`.

    Args:
        map: Path from the LightningModule to the part to study, e.g. `"net"`, `"net.decoder"`; `None`: its `forward`.
        points: Where to look: a tensor, a dataset, or `"batch"` (the first validation batch).
        size: How many of the points.
        at: `"data"`: at the points; `"fixed_points"`: at the fixed points found from them.
        sigma: Also the norm ‖J‖₂: about twice the cost.
        rtol: Relative error of ρ to reach, by an estimate on the safe side (at 0.01 the error is rarely above 0.001).
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Raises:
        ValueError: If an argument is out of range, at construction; if `map` leads nowhere, at setup.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[JacobianMonitor(map="net", size=16)], logger=False)
    """

    analysis = "jacobian"
    on_progress_bar = "rho_max"
    measures_more_at_end = True

    def __init__(
        self,
        map: str | None = None,  # noqa: A002
        points: Tensor | Dataset[Any] | Literal["batch"] = "batch",
        size: int = 32,
        at: Literal["data", "fixed_points"] = "data",
        sigma: bool = False,
        rtol: float = 1e-2,
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        strict: bool = False,
        name: str = "jacobian",
    ) -> None:
        check_size(size)
        super().__init__(every=every, budget=budget, strict=strict, name=name, probe=Probe(points, size))
        if at not in ("data", "fixed_points"):
            raise ValueError(f"at={at!r}: expected 'data' or 'fixed_points'.")
        if not 0 < rtol < 1:
            raise ValueError(f"rtol={rtol!r}: expected a relative error in (0, 1).")
        self.map, self.size, self.at, self.sigma, self.rtol = map, size, at, sigma, rtol

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.map, type(self).__name__)

    def measure(self, trainer: Trainer, module: LightningModule) -> JacobianReport:  # noqa: D102
        assert self.probe is not None
        network, x = map_and_points(module, self.map, self.probe, self.size, self.history.measured)
        at = None
        if self.at == "fixed_points":
            at = find_fixed_points(network, x, unstable="newton", throw=False).points
            if not len(at):
                raise AnalysisError(Status("no_fixed_points", "No fixed point was found from the points."))
        first_or_last = self.finishing or not self.history.records
        return jacobian_report(
            network,
            x,
            at=at,
            sigma=self.sigma,
            rtol=self.rtol,
            max_products=_MAX_PRODUCTS,
            whole=first_or_last and network.n_in <= _WHOLE_VALUES,
        )

    def figures(self, result: JacobianReport) -> Mapping[str, "Figure"]:  # noqa: D102
        figures = {"leading_eigenvalues": figure_of(result.spectrum.plot())}
        if result.cloud is not None:
            figures["eigenvalues"] = figure_of(result.cloud.plot())
        return figures

    def histograms(self, result: JacobianReport) -> Mapping[str, Tensor]:  # noqa: D102
        rho = result.spectrum.rho
        return {"rho": rho[rho.isfinite()]} if bool(rho.isfinite().any()) else {}
