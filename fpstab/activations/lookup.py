"""What is known, or can be estimated, of an activation."""

from collections.abc import Callable
from typing import Any

from torch import nn

from fpstab.activations.info import ActivationInfo
from fpstab.activations.scan import scan
from fpstab.activations.table import is_activation, known_info, require_elementwise, unwrapped


def activation_info(activation: nn.Module | Callable[..., Any], *args: Any, **kwargs: Any) -> ActivationInfo:
    """What is true of an elementwise activation, from the table; of a function that is not in it, what a scan finds.

    A scan evaluates the function in float64 on a grid of ±[1e-6, 1e8] and finer where its slopes are extreme. Its row is
    marked `estimated`, and its verdict says so. An estimate is no bound: `fpstab.lipschitz`, `fpstab.stability` and
    `fpstab.jacobian` do not use it, and refuse such a function by name.

    Args:
        activation: A module of `torch.nn` or `fpstab.activations` (or a subclass that keeps its `forward`), a function
            (`torch.tanh`, `torch.nn.functional.elu`, …), a `functools.partial` of one, or any module or function that maps
            float64 tensors `[B, n]` entry by entry. A module is seen in the mode it is in.
        args: Arguments of the function after its input.
        kwargs: Its named arguments.

    Raises:
        TypeError: If it is not elementwise (a softmax, a pooling), random, or cannot be evaluated.
        ValueError: If a parameter makes no sense (nan, β = 0), or no value is finite.

    >>> activation_info(nn.LeakyReLU(0.1)).slope_range
    (0.1, 1.0)
    >>> import torch
    >>> activation_info(torch.sigmoid).lipschitz, activation_info(nn.Hardshrink()).verdict
    (0.25, 'discontinuous')
    >>> info = activation_info(lambda z: 3 * torch.tanh(z))
    >>> info.slope_range, info.verdict
    ((0.0, 3.0), 'expansive (estimated)')
    """
    activation, args, kwargs = unwrapped(activation, args, kwargs)
    if is_activation(activation):
        return known_info(activation, *args, **kwargs)
    require_elementwise(activation)
    return scan(activation, *args, **kwargs)
