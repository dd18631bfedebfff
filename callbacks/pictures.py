"""Figures that wait until the budget allows to draw them."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from fpstab.callbacks._lightning import Trainer
from fpstab.callbacks.budget import Budget
from fpstab.callbacks.sinks import Sinks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

R = TypeVar("R")

_FIRST_COST = 0.5  # seconds that the first figure is taken to cost, matplotlib's import included


class Pictures(Generic[R]):
    """Results that are due to be drawn, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[int, R] = {}
        self._cost = _FIRST_COST

    @property
    def cost(self) -> float:
        """Seconds that the next one will take; 0 if none waits."""
        return self._cost if self._waiting else 0.0

    def queue(self, step: int, result: R) -> None:
        """Have the result of a step drawn at the next occasion."""
        self._waiting[step] = result

    def draw(
        self,
        trainer: Trainer,
        prefix: str,
        render: Callable[[R], Mapping[str, "Figure"]],
        sinks: Sinks,
        budget: Budget,
        *,
        at_any_cost: bool = False,
    ) -> None:
        """Draw what waits, as far as the budget goes, and log it at the step of its result."""
        while self._waiting and trainer.is_global_zero and trainer.loggers:
            if not at_any_cost and not budget.allows(self._cost):
                return
            start = time.perf_counter()
            step = next(iter(self._waiting))
            try:
                for tag, figure in render(self._waiting.pop(step)).items():
                    sinks.figure(trainer, prefix + tag, figure, step)
            finally:
                self._cost = time.perf_counter() - start
                budget.spent += self._cost
