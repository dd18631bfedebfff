"""Watches the Lipschitz constant of a network, or of a part of it, from above and below."""

import functools
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fpstab import guard
from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.callbacks.maps import check_path, check_size
from fpstab.callbacks.pictures import figure_of
from fpstab.callbacks.probe import Probe
from fpstab.lipschitz import Feedforward, General, LipschitzBound, lipschitz_bound
from fpstab.lipschitz.attained import attained_norm
from fpstab.lipschitz.bounds import Form, Head
from fpstab.lipschitz.extraction import extract
from fpstab.lipschitz.norms import spectral_product
from fpstab.lipschitz.plots import plot_brackets
from fpstab.maps import first_tensor
from fpstab.results import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RTOL = 1e-4  # of the solver's gap; a curve over training needs no more
_SAMPLED_RTOL = 1e-2
_SOFTMAX = 0.5  # its Lipschitz constant
_OVERHEAD, _SECONDS = 0.2, 1.4e-8  # of a solution, for the size n of the matrix inequality: a + b n³
_QUANTITIES = ("optimum_lower", "slopes_lower", "rel_gap", "eclipse_fast", "exact")
_DRAWN = ("value", "spectral_product", "eclipse_fast", "slopes_lower", "sampled_lower")


@dataclass(frozen=True, slots=True, eq=False)
class LipschitzReport:
    """The Lipschitz constant of a network, from above and below.

    Attributes:
        value: A certified bound: of LipSDP, or the product of norms where the budget had no room for that.
        spectral_product: The certified product of norms.
        sampled_lower: Largest norm of a Jacobian at the points; nan if unknown.
        bound: The bound with all that is known around it, or `None`.
        status: `"ok"` if there is a bound, else that of the analysis.
    """

    value: float
    spectral_product: float
    sampled_lower: float
    bound: LipschitzBound | None
    status: Status

    def scalars(self) -> dict[str, float]:
        """What a monitor logs; nan for what is unknown."""
        scalars = dict.fromkeys(_QUANTITIES, math.nan) | ({} if self.bound is None else self.bound.scalars())
        return scalars | {
            "value": self.value,
            "spectral_product": self.spectral_product,
            "sampled_lower": self.sampled_lower,
            "certified": float(math.isfinite(self.value)),
            "solved": float(self.bound is not None),
        }


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
        if form not in ("neuron", "layer"):
            raise ValueError(f"form={form!r}: expected 'neuron' or 'layer'.")
        if head not in (None, "softmax"):
            raise ValueError(f"head={head!r}: expected None or 'softmax'.")
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"time_limit={time_limit!r}: expected a number of seconds > 0, or None.")
        self.map, self.form, self.head, self.size, self.time_limit = map, form, head, size, time_limit
        self._full_cost = 0.0  # seconds of a measurement with the semidefinite program

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        check_path(pl_module, self.map, type(self).__name__)

    def measure(self, trainer: Trainer, module: LightningModule) -> LipschitzReport:  # noqa: D102
        assert self.probe is not None
        start = time.perf_counter()
        part: Any = functools.reduce(getattr, self.map.split(".") if self.map else (), module)
        with guard.untouched(module):
            points = _inputs(module, self.map, part, first_tensor(self.probe.batch)[: self.size])
        problem = extract(part, points)
        sampled = math.nan if points is None else attained_norm(part, points, head=self.head, rtol=_SAMPLED_RTOL)
        self._full_cost = self._full_cost or _seconds_to_solve(problem)
        if not self._affords(trainer, 1 if self.finishing else 2):
            product = spectral_product(problem) * (_SOFTMAX if self.head == "softmax" else 1.0)
            said = f"{type(self).__name__} logs the product of norms until its budget has room for LipSDP."
            return LipschitzReport(product, product, sampled, None, _status(product, Status(message=said)))
        bound = lipschitz_bound(
            problem, form=self.form, head=self.head, rtol=_RTOL, time_limit=self.time_limit, throw=False
        )
        self._full_cost = time.perf_counter() - start
        return LipschitzReport(bound.value, bound.spectral_product, sampled, bound, _status(bound.value, bound.status))

    def figures(self, result: LipschitzReport) -> Mapping[str, "Figure"]:  # noqa: D102
        prefix = f"fpstab/{self.name}/"
        return {"brackets": figure_of(plot_brackets({key: self.history.series(prefix + key) for key in _DRAWN}))}

    def _measure(self, trainer: Trainer, module: LightningModule, phase: str) -> None:
        """Between the first and the last measurement only what has room for the semidefinite program."""
        between = phase in ("epoch", "step") and self.history.last(phase) is not None
        if trainer.strategy.broadcast(between and not self._affords(trainer, 2)):
            share = f"{self._budget.share:.3g} of the training time"
            self._say(trainer, f"{type(self).__name__} measures less often, to keep to its budget: {share}.")
            return
        super()._measure(trainer, module, phase)

    def _affords(self, trainer: Trainer, times: int) -> bool:
        """Whether the budget has room for the semidefinite program, so many times."""
        return self._budget.allows(times * self._full_cost + self._pictures.reserve(trainer, self._budget))


def _seconds_to_solve(problem: Feedforward | General) -> float:
    """A guess, before it is known."""
    if isinstance(problem, Feedforward):
        hidden, ends = sum(problem.sizes[1:-1]), (*problem.sizes[:2], *problem.sizes[-2:])
    else:
        hidden, ends = problem.n_hidden, (problem.n_in, problem.n_out)
    return _OVERHEAD + _SECONDS * (hidden + min(ends)) ** 3 if hidden else _OVERHEAD


def _status(value: float, status: Status) -> Status:
    """A bound is a bound, though not the best one: `rel_gap` says how good it is."""
    if not math.isfinite(value):
        return status if not status.ok else Status("not_certified", "The product of norms leaves float64.")
    if status.ok:
        return status
    return Status(message="" if status.code == "inaccurate" else f"The bound is certified, but: {status.code}.")


def _inputs(module: nn.Module, path: str | None, part: Any, x: Tensor) -> Tensor | None:
    """What the part (a module, or a method of one) gets as its input when the network maps `x`.

    The network is the outermost module on the path that can: a LightningModule need not have a forward. `None` where
    none does, or the part is not called. To be run within a guard, which restores all.
    """
    seen: list[Tensor] = []

    def look(args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            seen.append(args[0].detach())

    if isinstance(part, nn.Module):
        part.register_forward_pre_hook(lambda _, args: look(args))
    else:

        def called(*args: Any, **kwargs: Any) -> Any:
            look(args)
            return part(*args, **kwargs)

        vars(part.__self__)[part.__name__] = called
    module.eval()
    device = next((parameter.device for parameter in module.parameters()), x.device)
    for whole in _around(module, path):
        with suppress(Exception), torch.no_grad():
            whole(x.to(device))
        if seen:
            return seen[0]
    return None


def _around(module: nn.Module, path: str | None) -> Iterator[nn.Module]:
    """The modules on the path, the outermost first."""
    yield module
    for name in path.split(".") if path else ():
        module = getattr(module, name)
        if isinstance(module, nn.Module):
            yield module
