"""Norms of Jacobians that a network attains at points: its Lipschitz constant is not below."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from fpstab import guard
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
    except (TypeError, ValueError, RuntimeError):  # it is no map (the first two), or autograd has no derivative of it
        return math.nan


def gaussian_points(shape: Sequence[int]) -> Tensor:
    """Points `[24, *shape]` of three sizes (standard deviations 0.1, 1 and 10), always the same."""
    x = torch.randn((_POINTS, *shape), generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor(_SIZES).repeat(_POINTS // len(_SIZES))
    return x * sizes.reshape(-1, *[1] * len(shape))


def part_inputs(module: nn.Module, path: str | None, x: Tensor) -> Tensor | None:
    """What a part of a network, a module or a method of one, gets as its input when the network maps `x`.

    The network is the outermost module on the path that maps it: a LightningModule need not have a forward. It is left
    as it was.

    Args:
        module: Where the path begins.
        path: E.g. `"net.encoder"`; `None`: the module itself.
        x: `[B, *shape]`, in the network's own shape.

    Returns:
        `[B, *shape]` in the part's own shape; `None` where no module on the path maps `x`, or the part is not called.

    >>> network = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> part_inputs(network, "1", torch.zeros(4, 3)).shape
    torch.Size([4, 2])
    """
    part: Any = functools.reduce(getattr, path.split(".") if path else (), module)
    seen: list[Tensor] = []

    def look(args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            seen.append(args[0].detach())

    def called(*args: Any, **kwargs: Any) -> Any:
        look(args)
        return part(*args, **kwargs)

    device = next((parameter.device for parameter in module.parameters()), x.device)
    with guard.untouched(module), torch.no_grad():
        if isinstance(part, nn.Module):
            part.register_forward_pre_hook(lambda _, args: look(args))
        else:
            vars(part.__self__)[part.__name__] = called
        module.eval()
        for whole in _around(module, path):
            with suppress(Exception):  # whatever a forward that is not made for `x` raises: the next one is tried
                whole(x.to(device))
            if seen:
                return seen[0]
    return None


def _around(module: nn.Module, path: str | None) -> Iterator[nn.Module]:
    """The modules on the path, the outermost first."""
    yield module
    for name in path.split(".") if path else ():
        module = getattr(module, name)
        if isinstance(module, nn.Module):
            yield module
