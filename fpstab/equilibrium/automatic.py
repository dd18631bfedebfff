"""Plain iteration while it is fast, Anderson acceleration when it is not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.equilibrium.anderson import Anderson, AndersonState
from fpstab.equilibrium.configs import Solver, check_count, check_number


@dataclass(frozen=True)
class Auto(Solver):
    """Plain iteration first; Anderson acceleration from where the measured rate exceeds `switch_rate`.

    The rate is that of the slower half: the median, over the samples not yet done, of the last residual's ratio to
    the one before. It is first judged after `patience` evaluations, since the first ones are faster or slower
    than the rest.

    Attributes:
        max_iter: Evaluations of f, at most.
        memory: Evaluations that Anderson acceleration mixes, at most.
        switch_rate: Plain iteration at a slower rate than this ends; positive.
        patience: Evaluations before the rate is judged.

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If it is of another type.
    """

    max_iter: int = 50
    memory: int = 5
    switch_rate: float = 0.8
    patience: int = 4

    def __post_init__(self) -> None:
        check_count("max_iter", self.max_iter)
        check_count("memory", self.memory)
        check_count("patience", self.patience)
        check_number("switch_rate", self.switch_rate)
        if not self.switch_rate > 0:
            raise ValueError(f"switch_rate={self.switch_rate}: expected a positive number.")

    def start(self, z: Tensor) -> "AutoState":  # noqa: D102
        return AutoState(self)


class AutoState:
    """The last residual norms, or the state of Anderson acceleration."""

    def __init__(self, config: Auto) -> None:
        self.config = config
        self.accelerated: AndersonState | None = None
        self.norm: Tensor | None = None
        self.seen = 0

    def step(self, z: Tensor, fz: Tensor, r: Tensor) -> Tensor:  # noqa: D102
        if self.accelerated is None:
            norm, last = torch.linalg.vector_norm(r, dim=1), self.norm
            self.norm = norm
            self.seen += 1
            if last is None or self.seen < self.config.patience:
                return fz
            if not float((norm / last).nanmedian()) > self.config.switch_rate:
                return fz
            self.norm = None
            self.accelerated = Anderson(self.config.memory, self.config.max_iter).start(z)
        return self.accelerated.step(z, fz, r)

    def keep(self, rows: Tensor) -> None:  # noqa: D102
        if self.accelerated is not None:
            self.accelerated.keep(rows)
        elif self.norm is not None:
            self.norm = self.norm.index_select(0, rows)
