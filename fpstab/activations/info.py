"""What is true of an activation: the row that the table has of it, or that a scan estimates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ESTIMATED = " (estimated)"
"""Ends the verdict of a scan."""


@dataclass(frozen=True, slots=True, eq=False)
class ActivationInfo:
    """What is true of an elementwise activation σ.

    Attributes:
        name: Class in `torch.nn`, or name of the function.
        value_at_zero: σ(0); of channels that differ the largest in size.
        slope_range: Least and largest slope of a chord, rounded outward; infinite where σ jumps.
        sector: An upper bound of sup |σ(z)/z| over z ≠ 0; inf if σ(0) ≠ 0.
        bounded: Whether the values of σ are.
        continuous: Whether σ is, where it is defined.
        homogeneous: Whether σ(cz) = cσ(z) for all c > 0.
        random: Whether σ draws random numbers (`RReLU` in training mode; `slope_range` then covers every draw).
        channel_slopes: Slope range of each channel `[C, 2]` of dimension 1, where they may differ (`PReLU`, `APLU`); else
            `None`.
        estimated: Whether all this was found by a scan: then the ranges are no bounds, and the traits are guesses.
    """

    name: str
    value_at_zero: float
    slope_range: tuple[float, float]
    sector: float
    bounded: bool = False
    continuous: bool = True
    homogeneous: bool = False
    random: bool = False
    channel_slopes: Tensor | None = None
    estimated: bool = False

    @property
    def lipschitz(self) -> float:
        """An upper bound of the Lipschitz constant (an estimate, if `estimated`): the largest slope in size, inf where σ jumps."""
        return max(map(abs, self.slope_range))

    @property
    def verdict(self) -> str:
        """What the numbers allow to say, the strongest first.

        `"contractive"` (Lipschitz constant < 1), `"nonexpansive"` (≤ 1), `"sector"` (expansive somewhere, but
        |σ(z)| ≤ |z|), `"expansive"` (neither), `"discontinuous"`; followed by `" (estimated)"` if it is.
        """
        return self._judged() + ESTIMATED * self.estimated

    def _judged(self) -> str:
        if not self.continuous:
            return "discontinuous"
        if self.lipschitz <= 1:
            return "contractive" if self.lipschitz < 1 else "nonexpansive"
        return "sector" if self.sector <= 1 else "expansive"

    @property
    def paper_class(self) -> str | None:
        """Where paper 3, Figure 1, puts it, right or wrong; `None` if it does not occur there."""
        return None if self.estimated else PAPER_CLASS.get(self.name)

    def slopes(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Least and largest slope of each neuron of a sample of this shape, both `[prod(shape)]`, float64.

        Raises:
            ValueError: If σ has slopes by channel and the first dimension has another size.
        """
        if self.channel_slopes is None:
            n = math.prod(shape)
            return tuple(torch.full((n,), slope, dtype=torch.float64) for slope in self.slope_range)  # type: ignore[return-value]
        if not shape or shape[0] != len(self.channel_slopes):
            raise ValueError(
                f"{self.name} has {len(self.channel_slopes)} channels, the sample's shape is {list(shape)}."
            )
        each = self.channel_slopes.repeat_interleave(math.prod(shape[1:]), dim=0)
        return each[:, 0].contiguous(), each[:, 1].contiguous()


_STABLE, _UNSTABLE = "asymptotically stable", "unstable regions"
PAPER_CLASS = dict.fromkeys(
    ("SoftExponential", "BLU", "PReLU", "ReLU", "GELU", "RReLU", "Hardtanh", "ReLU6", "Tanh", "ELU", "CELU", "Hardshrink",
     "LeakyReLU", "Softshrink", "Softsign", "Tanhshrink"), _STABLE
) | dict.fromkeys(("APLU", "PELU", "Hardswish", "SELU", "LogSigmoid", "Softplus"), _UNSTABLE)  # fmt: skip
PAPER_CLASS |= dict.fromkeys(("Sigmoid", "Hardsigmoid"), f"{_UNSTABLE}, BIBO stable")
"""Where paper 3, Figure 1, puts each of its activations."""
