"""The monitor: the only place that knows Lightning's phases. What to measure is left to its subclasses."""

import math
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor

from fpstab.callbacks._lightning import Callback, LightningModule, Trainer, log
from fpstab.callbacks.attempts import attempt, sharded_weight
from fpstab.callbacks.budget import Budget
from fpstab.callbacks.every import Every
from fpstab.callbacks.history import History
from fpstab.callbacks.notices import Notices
from fpstab.callbacks.pictures import Pictures
from fpstab.callbacks.probe import Probe
from fpstab.callbacks.resumes import left_out
from fpstab.callbacks.sinks import Sinks
from fpstab.callbacks.watchers import Watchers
from fpstab.results import AnalysisError, Result, Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure

R = TypeVar("R", bound=Result)


class Monitor(Callback, Generic[R]):
    """Calls an analysis on a schedule, within a budget, and brings its results to every log.

    Scalars are logged as `fpstab/<name>/<quantity>` with `LightningModule.log`, so that EarlyStopping and
    ModelCheckpoint can watch them wherever they stand in the list of callbacks. The untrained network is
    measured first; that baseline goes to the loggers at step 0, the history and `fpstab.jsonl`, never where
    EarlyStopping would judge it. Training is not changed by a single bit, and an analysis that fails is said
    once, logged as missing (`fpstab/<name>/failed` = 1), and does not stop it.

    A subclass names its `analysis` and implements `measure`; `figures`, `histograms`, `price` as it needs. It may set
    `measures_more_at_end` (and look at `finishing`), and `gathers`: its analysis gathers sharded weights.

    Args:
        every: When to measure; epochs are counted at validation, or at the end of a training epoch where
            there is no validation.
        budget: Largest share of the training time; beyond it the monitor measures and draws less often, and holds
            something back for the last figures. `None`: no limit.
        strict: Raise an `AnalysisError` where an analysis fails, instead of going on.
        name: Stands in the keys `fpstab/<name>/…`; two monitors of a Trainer need two names.
        probe: Points to measure at, if the analysis needs any.

    Attributes:
        history: Every measurement's scalars, kept through resumes.
        initial: Full result of the untrained network (first process; `None` after a resume).
        result: Full result of the last measurement that succeeded (first process).
        finishing: Whether training has ended.
    """

    analysis: ClassVar[str]
    on_progress_bar: ClassVar[str | None] = None
    measures_more_at_end: ClassVar[bool] = False
    gathers: ClassVar[bool] = False
    initial: R | None
    result: R | None

    def __init__(
        self,
        *,
        every: Every,
        budget: float | None,
        strict: bool,
        name: str | None = None,
        probe: Probe | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(every, Every):
            raise TypeError(f"every={every!r}: expected fpstab.callbacks.Every, e.g. Every(2, 'epoch').")
        self.name = self.analysis if name is None else name
        if not self.name.replace("-", "_").isidentifier():
            raise ValueError(f"name={name!r}: expected letters, digits, '_' and '-'.")
        self.every, self.strict, self.probe = every, strict, probe
        self._budget, self._notices, self._watchers = Budget(budget), Notices(), Watchers()
        self._sinks = Sinks(self.analysis, self._notices)
        self._cost, self.finishing = 0.0, False  # seconds of the last measurement
        self._forget()

    @abstractmethod
    def measure(self, trainer: Trainer, module: LightningModule) -> R:
        """Analyse the network. Runs inside `untouched`, on the first process (on all, if it gathers sharded weights)."""

    def figures(self, result: R) -> Mapping[str, "Figure"]:
        """Pictures of a result, by the tag below which they are logged."""
        return {}

    def histograms(self, result: R) -> Mapping[str, Tensor]:
        """Values whose distribution is logged, by tag."""
        return {}

    def price(self) -> float:
        """Seconds that a measurement is taken to cost: those of the last one."""
        return self._cost

    def affords(self, trainer: Trainer) -> bool:
        """Whether the budget has room for a measurement beside what the end of training will need."""
        last = 0.0 if self.finishing else self.price()
        return self._budget.allows(self.price() + self._pictures.reserve(trainer, self._budget, last))

    # Lightning's phases

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        names = [each.name for each in trainer.callbacks if isinstance(each, Monitor)]  # type: ignore[attr-defined]
        if names.count(self.name) > 1:
            raise ValueError(f"Two monitors log below fpstab/{self.name}/: give one of them another name=….")
        if stage == "fit" and self.probe is not None:
            self.probe.forget()  # this callback may have seen another training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if trainer.global_step == 0:  # this callback may have seen another training
            self._forget()
        self.finishing = False
        self.history.run = self._sinks.open(trainer, pl_module)
        self._budget.start()
        if self.probe is None or self.probe.ready:
            self._baseline(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: D102
        if self.probe is not None and not self.probe.ready:
            self.probe.offer(batch)
            self._baseline(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:  # noqa: D102
        if self.probe is not None:
            self.probe.offer(batch)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: D102
        step = trainer.global_step  # still 0 while the first gradients are accumulated
        if self.every.unit == "step" and step and self.every.due(step, self.history.last("step")):
            self._measure(trainer, pl_module, "step")
            self._draw(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._at_epoch(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if not trainer.enable_validation:
            self._at_epoch(trainer, pl_module)
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        self.finishing = True
        records = self.history.records
        if self.measures_more_at_end or not records or records[-1]["step"] != trainer.global_step:
            self._measure(trainer, pl_module, "end")
        if self.result is not None:
            self._pictures.only(trainer.global_step, self.result)
        if not self._draw(trainer, last=True):
            self._say(trainer, f"{type(self).__name__} draws no figures: they would exceed its budget.")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: D102
        self._watchers.release()

    @property
    def state_key(self) -> str:  # noqa: D102
        return f"{type(self).__qualname__}[{self.name}]"

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        probe = None if self.probe is None else self.probe.state_dict()
        return {"history": self.history.state_dict(), "budget": self._budget.state_dict(), "probe": probe}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        self.history.load_state_dict(state_dict["history"])
        self._budget.load_state_dict(state_dict["budget"])
        if self.probe is not None:
            self.probe.load_state_dict(state_dict.get("probe"))

    # One measurement

    def _forget(self) -> None:
        self.history, self.initial, self.result = History(), None, None
        self._pictures: Pictures[R] = Pictures()

    def _baseline(self, trainer: Trainer, module: LightningModule) -> None:
        if not self.history.records:
            self._measure(trainer, module, "baseline")
            self.initial = self.result
        elif (epoch := left_out(trainer, self.every, self.history)) is not None:
            self._measure(trainer, module, self.every.unit, epoch)

    def _at_epoch(self, trainer: Trainer, module: LightningModule) -> None:
        if self.every.unit == "epoch" and self.every.due(trainer.current_epoch, self.history.last("epoch")):
            self._measure(trainer, module, "epoch")
        for notice in self._watchers.update(trainer, f"fpstab/{self.name}/", self.history):
            self._say(trainer, notice)

    def _measure(self, trainer: Trainer, module: LightningModule, phase: str, late: int | None = None) -> None:
        """Measure, if the budget allows, and publish; the first process decides for all. `late`: of an earlier epoch."""
        start = time.perf_counter()
        free = phase in ("baseline", "end") or self.history.last(phase) is None
        if not trainer.strategy.broadcast(free or self.affords(trainer)):
            self._say(trainer, f"{type(self).__name__} measures less often, to keep to its budget: {self._budget}.")
            return
        outcome: tuple[str, dict[str, float], float] = ("", {}, 0.0)
        if trainer.is_global_zero or (self.gathers and sharded_weight(module)):
            who = type(self).__name__ if self.name == self.analysis else self.state_key
            message, result, scalars = attempt(who, module, lambda: self.measure(trainer, module), self.gathers)
            self.result = self.result if result is None else result
            outcome = (message, scalars, time.perf_counter() - start)
        message, scalars, seconds = trainer.strategy.broadcast(outcome)
        if self.strict and not scalars:
            raise AnalysisError(Status("failed", message))
        self._say(trainer, message)
        self._publish(trainer, module, phase, late, scalars, message, seconds)
        self._cost = time.perf_counter() - start
        self._budget.spent += self._cost

    def _publish(
        self, trainer: Trainer, module: LightningModule, phase: str, late: int | None,
        scalars: dict[str, float], why: str, seconds: float,
    ) -> None:  # fmt: skip
        step, failed, prefix = trainer.global_step, not scalars, f"fpstab/{self.name}/"
        where, epoch = (phase, trainer.current_epoch) if late is None else ("late", late)
        keyed = {prefix + key: value for key, value in scalars.items()} or dict.fromkeys(self.history.keys, math.nan)
        keyed |= {f"{prefix}failed": float(failed), f"{prefix}seconds": seconds}
        if scalars and not self.history.measured:
            log.info("%s logs, ready for monitor=…:\n  %s", type(self).__name__, "\n  ".join(keyed))
        self.history.append(step=step, epoch=epoch, phase=phase, failed=failed, scalars=keyed)
        self._sinks.scalars(trainer, module, where, keyed, bar=f"{prefix}{self.on_progress_bar}")
        if self.result is not None and not failed:
            self._sinks.histograms(trainer, prefix, self._sinks.attempt(self.histograms, self.result) or {}, step)
            self._pictures.queue(step, self.result, len(self.history.records))
        record = {"run": self.history.run, "monitor": self.state_key, "time": time.time()} | self.history.records[-1]
        self._sinks.line(record | {"message": why, "result": None if failed else self.result})

    def _draw(self, trainer: Trainer, last: bool = False) -> bool:
        """Draw what the budget allows; returns whether nothing is left to draw."""
        try:
            kept = 0.0 if last else self._pictures.reserve(trainer, self._budget)
            return self._pictures.draw(trainer, f"fpstab/{self.name}/", self.figures, self._sinks, self._budget, kept)
        except Exception as error:  # a picture is not worth a training
            self._say(trainer, f"{type(self).__name__} cannot draw: {type(error).__name__}: {error}")
            return True

    def _say(self, trainer: Trainer, message: str) -> None:
        if trainer.is_global_zero:
            self._notices.once(message)
