"""Watches the Lipschitz constant of a network, or of a part of it, from above and below."""

import functools
import time
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
from fpstab.lipschitz import LipschitzReport, lipschitz_report
from fpstab.lipschitz.attained import part_inputs
from fpstab.lipschitz.bounds import Form, Head, check_arguments
from fpstab.lipschitz.plots import plot_brackets
from fpstab.maps import first_tensor
from fpstab.results import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = ("value", "spectral_product", "eclipse_fast", "slopes_lower", "sampled_lower")


class LipschitzMonitor(Monitor[LipschitzReport]):
    """Logs a certified bound of a network's Lipschitz constant in l2, and how far the true one may be below.

    The bound holds for the network in evaluation mode, in real arithmetic with its weights; it is proved, whatever the
    solver did (LipSDP with a certificate; see `fpstab.lipschitz.lipschitz_bound`).

    The semidefinite program takes about a second for 784-128-32-128-784, half a minute for two layers of 512. Where the
    budget has no room for it, the first measurements are the product of norms (`solved` = 0), and nothing is
    measured until there is room, the last measurement's being kept. `budget=None` lifts that.

    Scalars: `fpstab/lipschitz/value` (the bound, on the progress bar); from below `sampled_lower` (largest norm of a
    Jacobian at the points), `slopes_lower` (largest one that a search over the activations' slopes found) and
    `optimum_lower` (what this form of the bound could reach); from above `spectral_product` and `eclipse_fast`
    (cheaper bounds); `certified` (1, or 0 where there is no bound), `solved`, `exact`, `rel_gap`, `seconds`, `failed`. Figure:
    the brackets over training, at every tenth measurement and the last. A bound below 1 on a map of a space to itself
    proves that it is a contraction (`fpstab.proofs.certify_contraction`).

    Args:
        map: Path from the LightningModule to the part to bound, e.g. `"net"`, `"net.encoder"`, a head
            `"net.head"`; `None`: its `forward`.
        form: `"neuron"`, or `"layer"`: looser.
        head: `"softmax"`: the part with a softmax on top.
        points: Where to look at Jacobians: a tensor, a dataset, or `"batch"` (the first validation batch). They are
            inputs of the whole network; a part is looked at where they lead.
        size: How many of the points.
        time_limit: Seconds for the solver; what it has by then is certified. `None`: no limit.
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Raises:
        ValueError: If an argument is out of range, at construction; if `map` leads nowhere, at setup.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[LipschitzMonitor(map="net")], logger=False)
    """

    analysis = "lipschitz"
    on_progress_bar = "value"
    gathers = True

    def __init__(
        self,
        map: str | None = None,  # noqa: A002
        form: Form = "neuron",
        head: Head | None = None,
        points: Tensor | Dataset[Any] | Literal["batch"] = "batch",
        size: int = 16,
        time_limit: float | None = 10.0,
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        strict: bool = False,
        name: str = "lipschitz",
    ) -> None:
        check_size(size)
        super().__init__(every=every, budget=budget, strict=strict, name=name, probe=Probe(points, size))
        check_arguments(form, head, time_limit=time_limit)
        self.map, self.form, self.head, self.size, self.time_limit = map, form, head, size, time_limit
        self._full_cost = 0.0  # seconds of a measurement with the semidefinite program

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.map, type(self).__name__)

    def measure(self, trainer: Trainer, module: LightningModule) -> LipschitzReport:  # noqa: D102
        assert self.probe is not None
        start = time.perf_counter()
        part: Any = functools.reduce(getattr, self.map.split(".") if self.map else (), module)
        report = lipschitz_report(
            part,
            part_inputs(module, self.map, first_tensor(self.probe.batch)[: self.size]),
            form=self.form,
            head=self.head,
            time_limit=self.time_limit,
            affords=lambda seconds: self._has_room(trainer, seconds),
        )
        if report.bound is not None:
            self._full_cost = time.perf_counter() - start
        elif report.status.ok:
            said = f"{type(self).__name__} logs the product of norms until its budget has room for LipSDP."
            report = replace(report, status=Status(message=said))
        return report

    def price(self) -> float:
        """Seconds that a measurement with the semidefinite program is taken to cost: one without has no use of its own."""
        return self._full_cost

    def figures(self, result: LipschitzReport) -> Mapping[str, "Figure"]:  # noqa: D102
        prefix = f"fpstab/{self.name}/"
        return {"brackets": figure_of(plot_brackets({key: self.history.series(prefix + key) for key in _DRAWN}))}

    def _has_room(self, trainer: Trainer, expected: float) -> bool:
        """Whether the budget has room for the semidefinite program; what is `expected` stands until one was solved."""
        self._full_cost = self._full_cost or expected
        return self.affords(trainer)
