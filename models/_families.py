"""Inner weights from a family of random matrices, by the family's name, so that a YAML file can hold it."""

import math
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from fpstab.ensembles import Antisymmetric, Orthogonal, Symmetric, init
from fpstab.models._checks import is_number, require

Family = Literal["random", "orthogonal", "goe", "antisymmetric", "elliptic", "haar_normal"]
"""Families of `fpstab.ensembles.init`, by the names of their functions."""

_KEPT = ("orthogonal", "goe", "antisymmetric")


def check_family(family: str, sqrt_v: float, tau: float, keep_family: bool) -> None:
    """Refuse a family that there is not, or one that cannot be kept.

    Raises:
        ValueError: An argument is not of its kind; the message names it.
    """
    require(family in get_args(Family), "family", family, f"one of {', '.join(get_args(Family))}")
    require(is_number(sqrt_v) and sqrt_v >= 0, "sqrt_v", sqrt_v, "a finite number ≥ 0")
    require(is_number(tau) and -1 <= tau <= 1, "tau", tau, "a number from -1 to 1")
    require(isinstance(keep_family, bool), "keep_family", keep_family, "True or False")
    if keep_family and family not in _KEPT:
        raise ValueError(
            f"keep_family=True does not go with family={family!r}: a trained matrix of independent entries is any "
            f"matrix. There are parametrisations for {', '.join(_KEPT)}."
        )


def draw_(weight: Tensor, family: str, sqrt_v: float, tau: float, generator: Generator | None) -> Tensor:
    """Fill a weight in place, by `fpstab.ensembles.init`."""
    if family == "elliptic":
        return init.elliptic_(weight, tau, sqrt_v, generator=generator)
    functions = {
        "random": init.random_,
        "orthogonal": init.orthogonal_,
        "goe": init.goe_,
        "antisymmetric": init.antisymmetric_,
        "haar_normal": init.haar_normal_,
    }
    return functions[family](weight, sqrt_v, generator=generator)


def inner_linear(
    width: int, family: str, sqrt_v: float, tau: float, keep_family: bool, generator: Generator | None
) -> nn.Linear:
    """W and b of an equilibrium, `[B, width] -> [B, width]`: W from its family, b zero."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, width, width)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        draw_(layer.weight, family, sqrt_v, tau, generator)
        layer.bias.zero_()
    if keep_family:
        kept = {"goe": Symmetric, "antisymmetric": Antisymmetric}
        parametrization = kept[family]() if family in kept else Orthogonal(width, width)
        parametrize.register_parametrization(layer, "weight", parametrization)
    return layer


def outer_linear(inputs: int, outputs: int, generator: Generator | None) -> nn.Linear:
    """A linear layer initialised as torch does, but by this generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    fill_uniform_(layer, inputs, generator)
    return layer


def outer_conv(inputs: int, outputs: int, stride: int, generator: Generator | None) -> nn.Conv2d:
    """A 3×3 convolution initialised as torch does, but by this generator."""
    layer: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, inputs, outputs, 3, stride=stride, padding=1
    )
    fill_uniform_(layer, 9 * inputs, generator)
    return layer


def fill_uniform_(layer: nn.Linear | nn.Conv2d, fan_in: int, generator: Generator | None) -> None:
    """Weight and bias uniform in ±1/√fan_in, torch's default."""
    bound = 1 / math.sqrt(fan_in)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
