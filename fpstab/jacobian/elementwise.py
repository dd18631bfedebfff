"""Activations as they are met while a network runs: their values, derivatives, and the factors that linearise them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fpstab.activations import ActivationInfo, is_activation, known_info

Mode = Literal["shifted", "paper", "tangent"]
Side = Literal["left", "right"]

_BESIDE = 1e-300  # a point beside 0 where a derivative is the one-sided one
_CANCELLATION = 1e-5  # |z| below which (σ(z) − σ(0))/z has lost digits, where σ(0) ≠ 0


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """An activation σ with the arguments of one call.

    Attributes:
        function: What was called.
        args: Its arguments after the input.
        kwargs: Its named arguments but the input and `inplace`.
    """

    function: Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def info(self) -> ActivationInfo:
        """What is true of σ.

        Raises:
            ValueError: If a parameter makes no sense.
        """
        return known_info(self._known, *self.args, **self.kwargs)

    @property
    def _known(self) -> Any:
        return self.function if is_activation(self.function) else getattr(self.function, "__name__", "")

    def __call__(self, z: Tensor) -> Tensor:
        """σ(z), of z's shape and dtype; never in place."""
        args = [_like(argument, z) for argument in self.args]
        kwargs = {name: _like(argument, z) for name, argument in self.kwargs.items()}
        value: Tensor = self.function(z.clone(), *args, **kwargs)
        return value

    def derivative(self, z: Tensor, side: Side) -> Tensor:
        """σ'(z); at z = 0 the derivative from the left or from the right."""
        beside = _BESIDE if side == "right" else -_BESIDE
        with torch.enable_grad():
            at = torch.where(z == 0, beside, z).detach().requires_grad_()
            (slope,) = torch.autograd.grad(self(at).sum(), at)
        return slope

    def factors(self, z: Tensor, mode: Mode, side: Side) -> tuple[Tensor, Tensor]:
        """(Λ, c) with σ(z) = Λz + c, both of z's shape.

        `"shifted"`: Λ = (σ(z) − σ(0))/z, c = σ(0). `"paper"`: Λ = σ(z)/z, c = 0. `"tangent"`: Λ = σ'(z), c = σ(z) − Λz.
        At z = 0 Λ is σ'(0) from the side; `"paper"` is infinite there if σ(0) ≠ 0.
        """
        value = self(z)
        if mode == "tangent":
            slope = self.derivative(z, side)
            return slope, value - slope * z
        zero = self(torch.zeros_like(z))
        if mode == "paper":
            at_zero = (z == 0) & (zero == 0)
            slope = value / z
            if bool(at_zero.any()):
                slope = torch.where(at_zero, self.derivative(torch.where(at_zero, z, 1.0), side), slope)
            return slope, torch.zeros_like(z)
        near = (z == 0) | ((z.abs() < _CANCELLATION) & (zero != 0))
        slope = (value - zero) / z
        if bool(near.any()):
            # the chord from 0 to z has the slope at its middle, to O(z²)
            slope = torch.where(near, self.derivative(torch.where(near, z / 2, 1.0), side), slope)
        return slope, zero


def check_mode(mode: str, side: str) -> None:
    """Refuse a mode or a side that does not exist."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, get_args(Mode)))}.")
    if side not in get_args(Side):
        raise ValueError(f"at_zero={side!r}: expected 'left' or 'right', the side whose derivative holds at z = 0.")


def match(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Elementwise, Tensor, bool] | None:
    """The activation in a call, its input, and whether it works in place; `None` if it is no activation."""
    name = getattr(function, "__name__", "")
    known = is_activation(function) or (is_activation(name) and getattr(torch.Tensor, name, None) is function)
    if not known:
        return None
    rest = dict(kwargs)
    z = args[0] if args else rest.pop("input", None)
    if not isinstance(z, Tensor):
        return None
    inplace = bool(rest.pop("inplace", False)) or (name.endswith("_") and not name.endswith("__"))
    extra = list(args[1:])
    if extra and isinstance(extra[-1], bool) and _takes_inplace_last(name, len(extra)):
        inplace = extra.pop() or inplace
    return Elementwise(function, tuple(extra), rest), z, inplace


# How many arguments follow the input of these functions, `inplace` as the last one.
_WITH_INPLACE = {
    "relu": 1,
    "relu6": 1,
    "selu": 1,
    "silu": 1,
    "mish": 1,
    "hardswish": 1,
    "hardsigmoid": 1,
    "elu": 2,
    "celu": 2,
    "leaky_relu": 2,
    "hardtanh": 3,
    "threshold": 3,
    "rrelu": 4,
}


def _takes_inplace_last(name: str, count: int) -> bool:
    return _WITH_INPLACE.get(name) == count


def _like(argument: Any, z: Tensor) -> Any:
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument.detach().to(z)
    return argument
