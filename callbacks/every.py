"""When to measure."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)  # no slots: jsonargparse reads the fields of a default with vars()
class Every:
    """A schedule: once every `n` epochs or optimiser steps, starting with the first.

    Epochs are counted where validation runs: `Every(2)` with a validation every fifth epoch measures at each
    of them; with several validations an epoch, at the first of every second epoch.

    Attributes:
        n: At least so many epochs or steps lie between two measurements.
        unit: `"epoch"` or `"step"` (optimiser steps).

    Raises:
        ValueError: If `n` is less than 1 or `unit` unknown.
    """

    n: int = 1
    unit: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Every(n={self.n!r}): expected a whole number of at least 1.")
        if self.unit not in ("epoch", "step"):
            raise ValueError(f"Every(unit={self.unit!r}): expected 'epoch' or 'step'.")

    def due(self, now: int, last: int | None) -> bool:
        """Whether epoch or step `now` is due when the last measurement was at `last`.

        >>> Every(2).due(0, None), Every(2).due(1, 0), Every(2).due(2, 0)
        (True, False, True)
        """
        return last is None or now - last >= self.n
