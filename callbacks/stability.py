"""Watches what is proved of a network's stability, and what its orbits end in."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.utils.data import Dataset

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.maps import check_path, check_size, map_and_points
from fpstab.callbacks.pictures import figure_of
from fpstab.callbacks.probe import Probe
from fpstab.maps import first_tensor, part_of
from fpstab.results import AnalysisError, Status
from fpstab.stability.reports import DynamicsReport, dynamics_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class StabilityMonitor(Monitor[DynamicsReport]):
    """Logs what is proved of a network as the system x⁺ = f(x), what is a diagnostic, and what its orbits end in.

    For a network that maps a space to itself, or a part of one. A certificate is proved for all inputs, of the network
    in evaluation mode with its weights as they are stored; that none holds says nothing against the network. What
    stands below `diagnostic/` proves nothing: paper 3's theorem 6 is false in both directions.

    Scalars, below `fpstab/stability/`: `certified` (1: one fixed point is proved to attract all orbits; on the progress
    bar); `value` (the least value of a global certificate: below 1 − 1e-4 it holds, and is then the proved rate in its
    norm) and `value/R1-1` … `value/R4-contraction`, one each of those that could be attempted; `n_local` (fixed points with a
    region that they are proved to attract); `diagnostic/rho_affine_max`, `diagnostic/rho_affine_min`,
    `diagnostic/norm_affine_max` of the pointwise affine map at the points, up to 256 values; `attractor`
    (0 single, 1 multiple, 2 line, 3 cycle, 4 chaotic, 5 unstable, 6 undetermined), `lyapunov`, `lyapunov_error`, `period`,
    and shares of the starts `share_fixed`, `share_line`, `share_cycle`, `share_chaotic`, `share_unstable`; `seconds`,
    `failed`. Figures: the certificates' values, ρ(A) beside ‖A‖₂, and of a map of the plane its phase portrait. See
    `fpstab.stability.stability_criteria` and `classify_attractor`.

    Args:
        map: Path from the LightningModule to the part to study, e.g. `"net"`; `None`: its `forward`.
        points: Where to look: a tensor, a dataset, or `"batch"` (the first validation batch).
        size: How many of the points; orbits start there, and at as many uniform starts from the box of their values.
        quadratic: Whether to solve the semidefinite programs: a second for 784-128-32-128-784.
        time_limit: Seconds for the program of `R3-lipsdp`, which is left out where it would need more; `None`: no limit.
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Raises:
        ValueError: If an argument is out of range, at construction; if `map` leads nowhere, at setup.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[StabilityMonitor(map="net")], logger=False)
    """

    analysis = "stability"
    on_progress_bar = "certified"

    def __init__(
        self,
        map: str | None = None,  # noqa: A002
        points: Tensor | Dataset[Any] | Literal["batch"] = "batch",
        size: int = 12,
        quadratic: bool = True,
        time_limit: float | None = 1.5,
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        strict: bool = False,
        name: str = "stability",
    ) -> None:
        check_size(size)
        super().__init__(every=every, budget=budget, strict=strict, name=name, probe=Probe(points, size))
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"time_limit={time_limit!r}: expected a number of seconds > 0, or None.")
        self.map, self.size, self.quadratic, self.time_limit = map, size, quadratic, time_limit

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.map, type(self).__name__)

    def measure(self, trainer: Trainer, module: LightningModule) -> DynamicsReport:  # noqa: D102
        assert self.probe is not None
        part = part_of(module, self.map)
        if not isinstance(part, nn.Module):
            raise AnalysisError(Status("unsupported", f"map={self.map!r} is a {type(part).__name__}, not a module."))
        network, _ = map_and_points(module, self.map, self.probe, self.size, self.history.measured)
        points = first_tensor(self.probe.batch)[: self.size]
        return dynamics_report(part, points, map=network, quadratic=self.quadratic, time_limit=self.time_limit)

    def figures(self, result: DynamicsReport) -> Mapping[str, "Figure"]:  # noqa: D102
        figures = {"certificates": figure_of(result.plot())}
        if len(result.criteria.diagnostics.rho):
            figures["diagnostics"] = figure_of(result.criteria.diagnostics.plot())
        if result.portrait is not None:
            figures["phase_portrait"] = figure_of(result.portrait.plot())
        return figures

    def histograms(self, result: DynamicsReport) -> Mapping[str, Tensor]:  # noqa: D102
        rho = result.criteria.diagnostics.rho
        rho = rho[rho.isfinite()]
        return {"diagnostic/rho_affine": rho} if len(rho) else {}
