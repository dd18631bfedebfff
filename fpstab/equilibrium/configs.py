"""What every solver is: a small frozen config, and a private state that proposes the next iterate."""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor


class State(Protocol):
    """The memory of one solve. Rows are samples; none looks at another."""

    def step(self, z: Tensor, fz: Tensor, r: Tensor) -> Tensor:
        """Propose the next iterate `[B, d]` from the last one, f of it, and r = f(z) − z."""

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these (indices `[K]`)."""


class Solver(ABC):
    """A solver's settings. `max_iter` counts evaluations of f.

    A class, so that a YAML can name the solver where a signature says `Solver`.
    """

    max_iter: int

    @abstractmethod
    def start(self, z: Tensor) -> State:
        """Begin a solve from `z` `[B, d]`."""


def check_count(name: str, value: object) -> None:
    """Refuse what is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: expected a whole number, got {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name}={value}: expected at least 1.")


def check_damping(value: object) -> None:
    """Refuse a damping factor outside (0, 1]."""
    check_number("damping", value)
    if not 0 < value <= 1:  # type: ignore[operator]
        raise ValueError(f"damping={value}: expected a number in (0, 1]; 1 is the full step.")


def check_number(name: str, value: object) -> None:
    """Refuse what is not a real number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: expected a number, got {type(value).__name__}.")


def accurate(tensor: Tensor) -> Tensor:
    """The small systems of a solver in float64, where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.to(torch.float64)


def products(ring: Tensor, x: Tensor) -> Tensor:
    """Inner products `[B, m]` of the vectors of a ring `[B, m, d]` with x `[B, d]`.

    Written as a row times a matrix: as a matrix times a column it takes ten times as long on a CPU.
    """
    return torch.bmm(x.unsqueeze(1), ring.mT).squeeze(1)
