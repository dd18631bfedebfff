"""Plain iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.equilibrium.configs import Solver, check_count, check_damping


@dataclass(frozen=True)
class Picard(Solver):
    """Plain iteration z ← z + damping·(f(z) − z).

    Converges where the Jacobian of f at the fixed point has spectral radius below 1 (damping 1), at that rate.

    Attributes:
        max_iter: Evaluations of f, at most.
        damping: Share of the step that is taken, in (0, 1].

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If it is of another type.
    """

    max_iter: int = 50
    damping: float = 1.0

    def __post_init__(self) -> None:
        check_count("max_iter", self.max_iter)
        check_damping(self.damping)

    def start(self, z: Tensor) -> "PicardState":  # noqa: D102
        return PicardState(self.damping)


class PicardState:
    """Remembers nothing."""

    def __init__(self, damping: float) -> None:
        self.damping = damping

    def step(self, z: Tensor, fz: Tensor, r: Tensor) -> Tensor:  # noqa: D102
        return fz if self.damping == 1 else torch.add(z, r, alpha=self.damping)

    def keep(self, rows: Tensor) -> None:  # noqa: D102
        pass
