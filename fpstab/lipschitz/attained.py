"""Norms of Jacobians that a network attains at points: its Lipschitz constant is not below."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fpstab.jacobian import jacobian_norm
from fpstab.maps import SelfMap

_POINTS = 24
_SIZES = (0.1, 1.0, 10.0)


def attained_norm(
    target: nn.Module | Callable[..., Any], points: Tensor, *, head: str | None = None, rtol: float = 1e-3
) -> float:
    """The largest norm ‖J‖₂ of a network's Jacobian at some points, in float64, from below but for rounding.

    Args:
        target: A module or a bound method of one.
        points: `[B, *shape]`, in the network's own shape.
        head: `"softmax"`: with a softmax on top.
        rtol: Relative error of each norm.

    Returns:
        The norm; nan where the network cannot be evaluated or differentiated at any point.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = layer.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> attained_norm(layer, torch.zeros(1, 2))
    4.0
    """
    try:
        network = SelfMap(target, points)
        x = network.flatten(points)
        map_ = (lambda z: torch.softmax(network(z), dim=1)) if head == "softmax" else network
        return jacobian_norm(map_, x, rtol=rtol, throw=False).scalars()["sigma_max"]
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return math.nan


def gaussian_points(shape: Sequence[int]) -> Tensor:
    """Points `[24, *shape]` of three sizes (standard deviations 0.1, 1 and 10), always the same."""
    x = torch.randn((_POINTS, *shape), generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor(_SIZES).repeat(_POINTS // len(_SIZES))
    return x * sizes.reshape(-1, *[1] * len(shape))
