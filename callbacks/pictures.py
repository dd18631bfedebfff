"""Figures that wait until the budget allows to draw them."""

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from fpstab.callbacks._lightning import Trainer
from fpstab.callbacks.budget import Budget
from fpstab.callbacks.sinks import Sinks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

R = TypeVar("R")

_EVERY = 10  # measurements
_FIRST_COST = 0.5  # seconds that the first figure is taken to cost, matplotlib's import included
_SLACK = 1.25  # on what the last ones will cost: the last measurement is made whatever it costs


class Pictures(Generic[R]):
    """Results that are due to be drawn, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[int, R] = {}
        self._cost = _FIRST_COST

    def reserve(self, trainer: Trainer, budget: Budget, measurement: float = 0.0) -> float:
        """Seconds to hold back by now, so that at the end of training the budget has room for the last ones.

        They grow with the share of the training that is done; none where the last ones would not fit anyway. The last
        measurement, which takes `measurement` seconds, is held room for as well: for all of it where nobody knows how
        long the training is.
        """
        try:
            total = trainer.estimated_stepping_batches
        except Exception:  # Lightning cannot tell, e.g. where gradients are accumulated by a schedule
            total = math.inf
        done = trainer.global_step / total if total else 0.0
        reserve = _SLACK * self._cost * done
        drawing = reserve if trainer.loggers and budget.allows(reserve - budget.spent) else 0.0
        return drawing + measurement * (done if math.isfinite(total) else 1.0)

    def only(self, step: int, result: R) -> None:
        """Have nothing drawn but this."""
        self._waiting = {step: result}

    def queue(self, step: int, result: R, number: int) -> None:
        """Have the result of a step drawn at the next occasion, if its number is the first of every ten."""
        if number % _EVERY == 1:
            self._waiting[step] = result

    def draw(
        self,
        trainer: Trainer,
        prefix: str,
        render: Callable[[R], Mapping[str, "Figure"]],
        sinks: Sinks,
        budget: Budget,
        reserve: float,
    ) -> bool:
        """Draw what waits, as far as the budget goes beyond the reserve; returns whether nothing waits any more."""
        while self._waiting and trainer.is_global_zero and trainer.loggers:
            if not budget.allows(self._cost + reserve):
                return False
            start = time.perf_counter()
            step = next(iter(self._waiting))
            try:
                for tag, figure in render(self._waiting.pop(step)).items():
                    sinks.figure(trainer, prefix + tag, figure, step)
            finally:
                self._cost = time.perf_counter() - start
                budget.spent += self._cost
        return True


def figure_of(drawn: "Axes | Figure") -> "Figure":
    """The whole figure that holds what was drawn."""
    from matplotlib.figure import Figure

    figure = drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)
    assert figure is not None
    return figure
