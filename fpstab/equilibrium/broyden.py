"""Broyden's method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fpstab.equilibrium.configs import Solver, check_count, products


@dataclass(frozen=True)
class Broyden(Solver):
    """Broyden's good method with limited memory: a quasi-Newton step on r(z) = f(z) − z.

    The inverse Jacobian starts at −1 (the first step is plain iteration) and gains a term of rank one a step; beyond
    `memory` terms the oldest is overwritten.

    Attributes:
        memory: Terms of rank one that are kept, at most.
        max_iter: Evaluations of f, at most.

    Raises:
        ValueError: If a value is out of its range.
        TypeError: If it is of another type.
    """

    memory: int = 20
    max_iter: int = 50

    def __post_init__(self) -> None:
        check_count("memory", self.memory)
        check_count("max_iter", self.max_iter)

    def start(self, z: Tensor) -> "BroydenState":  # noqa: D102
        return BroydenState(self, z)


class BroydenState:
    """The inverse Jacobian H = −1 + Σ u vᵀ as rings of u and v `[B, m, d]`."""

    def __init__(self, config: Broyden, z: Tensor) -> None:
        self.memory = min(config.memory, max(config.max_iter - 1, 1))
        self.u = z.new_empty(z.shape[0], self.memory, z.shape[1])
        self.v = torch.empty_like(self.u)
        self.seen = 0
        self.last: tuple[Tensor, Tensor] | None = None  # the residual before, and the step −H r from there

    def step(self, z: Tensor, fz: Tensor, r: Tensor) -> Tensor:  # noqa: D102
        if self.last is None:
            self.last = (r, r)
            return fz
        r_last, s = self.last
        slot = self.seen % self.memory
        n = min(self.seen, self.memory)
        self.seen += 1
        h_last = -s  # H times the residual before
        if n == self.memory:
            # the term that makes room leaves H first, and with it what it gave to that product
            h_last = h_last - self.u[:, slot] * _dot(self.v[:, slot], r_last)
            self.u[:, slot] = 0
        h_r, v = -r, -s
        if n:
            us, vs = self.u[:, :n], self.v[:, :n]
            h_r = torch.baddbmm(h_r.unsqueeze(1), products(vs, r).unsqueeze(1), us).squeeze(1)
            v = torch.baddbmm(v.unsqueeze(1), products(us, s).unsqueeze(1), vs).squeeze(1)
        h_y = h_r - h_last
        denominator = _dot(v, r - r_last)
        u = (s - h_y) / denominator
        # no term where the secant says nothing (0/0) or overflows
        sound = (torch.linalg.vector_norm(u, dim=1) * torch.linalg.vector_norm(v, dim=1)).isfinite().unsqueeze(1)
        u, v = torch.where(sound, u, 0), torch.where(sound, v, 0)
        self.u[:, slot], self.v[:, slot] = u, v
        step = -torch.addcmul(h_r, u, _dot(v, r))
        self.last = (r, step)
        return z + step

    def keep(self, rows: Tensor) -> None:  # noqa: D102
        self.u, self.v = self.u.index_select(0, rows), self.v.index_select(0, rows)
        if self.last is not None:
            self.last = (self.last[0].index_select(0, rows), self.last[1].index_select(0, rows))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a, b)
    return product.unsqueeze(1)
