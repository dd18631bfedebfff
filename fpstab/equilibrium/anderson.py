"""Anderson acceleration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.equilibrium.configs import Solver, accurate, check_count, check_damping, check_number, products


@dataclass(frozen=True)
class Anderson(Solver):
    """Anderson acceleration (Walker and Ni 2011): mixes the last evaluations so that their residuals nearly cancel.

    The weights α of the last `memory` residuals R solve min ‖αᵀR‖², Σα = 1. Their Gram matrix gains one row a step
    and is scaled to a unit diagonal before the ridge is added, so that the ridge means the same at a residual of 1
    and of 1e-6; the system of `memory` unknowns is solved in float64.

    Attributes:
        memory: Evaluations that are mixed, at most.
        max_iter: Evaluations of f, at most.
        damping: Share of the mixed residual that is added to the mixed iterate, in (0, 1].
        ridge: Added to the unit diagonal; `None` for 4 eps of the state's dtype.

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If it is of another type.
    """

    memory: int = 5
    max_iter: int = 50
    damping: float = 1.0
    ridge: float | None = None

    def __post_init__(self) -> None:
        check_count("memory", self.memory)
        check_count("max_iter", self.max_iter)
        check_damping(self.damping)
        if self.ridge is not None:
            check_number("ridge", self.ridge)
            if not 0 <= self.ridge < 1:
                raise ValueError(f"ridge={self.ridge}: expected a number in [0, 1), or None for 4 eps.")

    def start(self, z: Tensor) -> "AndersonState":  # noqa: D102
        return AndersonState(self, z)


class AndersonState:
    """Rings of the last evaluations and residuals `[B, m, d]`, and the Gram matrix of the residuals `[B, m, m]`."""

    def __init__(self, config: Anderson, z: Tensor) -> None:
        b, d = z.shape
        m = min(config.memory, config.max_iter)
        self.damping = config.damping
        self.ridge = 4 * torch.finfo(z.dtype).eps if config.ridge is None else config.ridge
        self.mixed = z.new_empty(b, m, d)  # z + damping·r of each evaluation
        self.residuals = z.new_empty(b, m, d)
        self.gram = accurate(z.new_zeros(b, m, m))
        self.seen = 0

    def step(self, z: Tensor, fz: Tensor, r: Tensor) -> Tensor:  # noqa: D102
        m = self.gram.shape[1]
        slot = self.seen % m
        self.seen += 1
        n = min(self.seen, m)
        newest = fz if self.damping == 1 else torch.add(z, r, alpha=self.damping)
        self.mixed[:, slot] = newest
        self.residuals[:, slot] = r
        row = products(self.residuals[:, :n], r)
        self.gram[:, slot, :n] = self.gram[:, :n, slot] = row.to(self.gram.dtype)
        if n == 1:
            return newest
        weights = self._weights(n, slot).to(z.dtype).contiguous()  # else bmm takes the samples one by one
        return torch.bmm(weights.unsqueeze(1), self.mixed[:, :n]).squeeze(1)

    def _weights(self, n: int, slot: int) -> Tensor:
        """α `[B, n]`; the newest evaluation alone where the system says nothing."""
        gram = self.gram[:, :n, :n]
        scale = gram.diagonal(dim1=1, dim2=2).rsqrt()
        system = gram * scale.unsqueeze(1) * scale.unsqueeze(2)
        system.diagonal(dim1=1, dim2=2).add_(self.ridge)
        solution, _ = torch.linalg.solve_ex(system, scale / scale.amax(1, keepdim=True))
        weights = solution * scale
        weights = weights / weights.sum(1, keepdim=True)
        lost = ~weights.isfinite().all(1, keepdim=True)
        alone = torch.zeros_like(weights)
        alone[:, slot] = 1
        return torch.where(lost, alone, weights)

    def keep(self, rows: Tensor) -> None:  # noqa: D102
        self.mixed = self.mixed.index_select(0, rows)
        self.residuals = self.residuals.index_select(0, rows)
        self.gram = self.gram.index_select(0, rows)
