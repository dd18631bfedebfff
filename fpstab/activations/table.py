"""The table: which modules and functions are known, and by which formula."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fpstab.activations import formulas, functional, parametric
from fpstab.activations.info import ActivationInfo
from fpstab.activations.modules import APLU, BLU, PELU, SoftExponential

_MODULES: dict[type[nn.Module], Callable[..., ActivationInfo]] = {
    nn.Identity: formulas.identity,
    nn.Threshold: formulas.threshold,
    nn.ReLU: formulas.relu,
    nn.RReLU: formulas.rrelu,
    nn.Hardtanh: functools.partial(formulas.clamp, "Hardtanh"),
    nn.ReLU6: functools.partial(formulas.clamp, "ReLU6"),
    nn.Sigmoid: formulas.sigmoid,
    nn.Hardsigmoid: formulas.hardsigmoid,
    nn.Tanh: formulas.tanh,
    nn.SiLU: formulas.silu,
    nn.Mish: formulas.mish,
    nn.Hardswish: formulas.hardswish,
    nn.ELU: formulas.elu,
    nn.CELU: formulas.celu,
    nn.SELU: formulas.selu,
    nn.GELU: formulas.gelu,
    nn.Hardshrink: formulas.hardshrink,
    nn.LeakyReLU: formulas.leaky_relu,
    nn.LogSigmoid: formulas.logsigmoid,
    nn.Softplus: formulas.softplus,
    nn.Softshrink: formulas.softshrink,
    nn.PReLU: formulas.prelu,
    nn.Softsign: formulas.softsign,
    nn.Tanhshrink: formulas.tanhshrink,
    SoftExponential: parametric.soft_exponential,
    BLU: parametric.blu,
    APLU: parametric.aplu,
    PELU: parametric.pelu,
}

_ATTRIBUTES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Threshold: ("threshold", "value"),
    nn.RReLU: ("lower", "upper", "training"),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.ReLU6: ("min_val", "max_val"),
    nn.ELU: ("alpha",),
    nn.CELU: ("alpha",),
    nn.GELU: ("approximate",),
    nn.Hardshrink: ("lambd",),
    nn.LeakyReLU: ("negative_slope",),
    nn.Softplus: ("beta", "threshold"),
    nn.Softshrink: ("lambd",),
    nn.PReLU: ("weight",),
    SoftExponential: ("alpha",),
    BLU: ("beta",),
    APLU: ("a", "b"),
    PELU: ("a", "b"),
}

_NOT_ELEMENTWISE = (nn.GLU, nn.Softmin, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.MultiheadAttention)


def known_info(activation: nn.Module | Callable[..., Any], *args: Any, **kwargs: Any) -> ActivationInfo:
    """The table's row of an activation, of which everything can be proved.

    Args:
        activation: See `activation_info`.
        args: Arguments of the function after its input.
        kwargs: Its named arguments.

    Raises:
        TypeError: If it is not in the table.
        ValueError: If a parameter makes no sense (nan, β = 0).

    >>> known_info(nn.PReLU(init=0.5)).slope_range
    (0.5, 1.0)
    """
    activation, args, kwargs = unwrapped(activation, args, kwargs)
    if isinstance(activation, nn.Module):
        cls = _class_of(activation)
        if cls is None:
            raise TypeError(
                f"{type(activation).__name__} is no elementwise activation that is known: {_why(activation)}."
            )
        return _MODULES[cls](*(getattr(activation, name) for name in _ATTRIBUTES.get(cls, ())))
    if not is_activation(activation):
        raise TypeError(f"{getattr(activation, '__name__', activation)!s} is no elementwise activation that is known.")
    entry = _FUNCTIONS[_key(activation)]
    return entry.make(*entry.bind(args, kwargs))


def is_activation(activation: Any) -> bool:
    """Whether the table has this module or function (a function by identity, a method of tensors by name).

    >>> is_activation(nn.ReLU()), is_activation(torch.softmax), is_activation("tanh")
    (True, False, True)
    """
    if isinstance(activation, nn.Module):
        return _class_of(activation) is not None
    return _key(activation) in _FUNCTIONS


def require_elementwise(activation: Any) -> None:
    """Refuse what is known not to be elementwise, and what cannot be called.

    Raises:
        TypeError: Names it.
    """
    if isinstance(activation, _NOT_ELEMENTWISE):
        raise TypeError(f"{type(activation).__name__} is no elementwise activation: {_why(activation)}.")
    if not callable(activation):
        raise TypeError(f"{activation!r} is no elementwise activation: it is neither a module nor a function.")


def unwrapped(
    activation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The function in a `functools.partial`, with all its arguments."""
    while isinstance(activation, functools.partial):
        args, kwargs = (*activation.args, *args), activation.keywords | kwargs
        activation = activation.func
    return activation, args, kwargs


def _class_of(module: nn.Module) -> type[nn.Module] | None:
    """The class in the table whose `forward` the module has."""
    for cls in type(module).__mro__:
        if cls in _MODULES:
            return cls if type(module).forward is cls.forward and "forward" not in vars(module) else None
    return None


def _why(module: nn.Module) -> str:
    if isinstance(module, _NOT_ELEMENTWISE):
        return "each of its outputs depends on several inputs"
    if isinstance(module, tuple(_MODULES)):
        return "it has a forward of its own"
    return f"known are {', '.join(sorted(cls.__name__ for cls in _MODULES))}"


@dataclass(frozen=True, slots=True)
class _Function:
    """An entry for a function: its parameters after the input, with their defaults, and the formula."""

    make: Callable[..., ActivationInfo]
    parameters: tuple[tuple[str, Any], ...] = ()

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        given = dict(zip((name for name, _ in self.parameters), args, strict=False))
        given |= {name: value for name, value in kwargs.items() if name not in ("inplace", "out")}
        unknown = set(given) - {name for name, _ in self.parameters}
        if unknown or len(args) > len(self.parameters) + 1:  # one more may be `inplace`
            raise TypeError(f"unexpected arguments {sorted(unknown) or args!r}.")
        return [given.get(name, default) for name, default in self.parameters]


def _entry(make: Callable[..., ActivationInfo], **parameters: Any) -> _Function:
    return _Function(make, tuple(parameters.items()))


_ABSOLUTE = _entry(formulas.fixed("abs", 0.0, -1.0, 1.0, 1.0, homogeneous=True))
_CLAMP = _entry(functools.partial(formulas.clamp, "clamp"), min=None, max=None)
_BOUNDED_BELOW = _entry(lambda low: formulas.clamp("clamp", low, None), min=None)
_BOUNDED_ABOVE = _entry(lambda high: formulas.clamp("clamp", None, high), max=None)

# By name in torch.nn.functional, in torch, or among the methods of tensors (with `_` behind it: in place).
_NAMED: dict[str, _Function] = {
    "relu": _entry(formulas.relu),
    "relu6": _entry(lambda: formulas.clamp("ReLU6", 0.0, 6.0)),
    "hardtanh": _entry(functools.partial(formulas.clamp, "Hardtanh"), min_val=-1.0, max_val=1.0),
    "threshold": _entry(formulas.threshold, threshold=math.nan, value=math.nan),
    "rrelu": _entry(formulas.rrelu, lower=1 / 8, upper=1 / 3, training=False),
    "sigmoid": _entry(formulas.sigmoid),
    "hardsigmoid": _entry(formulas.hardsigmoid),
    "tanh": _entry(formulas.tanh),
    "silu": _entry(formulas.silu),
    "mish": _entry(formulas.mish),
    "hardswish": _entry(formulas.hardswish),
    "elu": _entry(formulas.elu, alpha=1.0),
    "celu": _entry(formulas.celu, alpha=1.0),
    "selu": _entry(formulas.selu),
    "gelu": _entry(formulas.gelu, approximate="none"),
    "hardshrink": _entry(formulas.hardshrink, lambd=0.5),
    "leaky_relu": _entry(formulas.leaky_relu, negative_slope=0.01),
    "logsigmoid": _entry(formulas.logsigmoid),
    "softplus": _entry(formulas.softplus, beta=1.0, threshold=20.0),
    "softshrink": _entry(formulas.softshrink, lambd=0.5),
    "prelu": _entry(formulas.prelu, weight=None),
    "softsign": _entry(formulas.softsign),
    "tanhshrink": _entry(formulas.tanhshrink),
    "abs": _ABSOLUTE,
    "absolute": _ABSOLUTE,
    "clamp": _CLAMP,
    "clip": _CLAMP,
    "clamp_min": _BOUNDED_BELOW,
    "clamp_max": _BOUNDED_ABOVE,
    "sin": _entry(formulas.fixed("sin", 0.0, -1.0, 1.0, 1.0, bounded=True)),
    "cos": _entry(formulas.fixed("cos", 1.0, -1.0, 1.0, math.inf, bounded=True)),
    "atan": _entry(formulas.fixed("atan", 0.0, 0.0, 1.0, 1.0, bounded=True)),
    "arctan": _entry(formulas.fixed("atan", 0.0, 0.0, 1.0, 1.0, bounded=True)),
    "erf": _entry(formulas.fixed("erf", 0.0, 0.0, 1.1283791670955128, 1.1283791670955128, bounded=True)),  # 2/√π
}


def _key(function: Any) -> Any:
    if isinstance(function, str):
        return function
    try:
        hash(function)
    except TypeError:
        return None
    return function


def _functions() -> dict[Any, _Function]:
    table: dict[Any, _Function] = {}
    for name, entry in _NAMED.items():
        table[name] = table[f"{name}_"] = entry
        for home in (nn.functional, torch, torch.special, torch._C._nn):
            for spelling in (name, f"{name}_"):
                if (function := getattr(home, spelling, None)) is not None:
                    table[function] = entry
    table[torch.special.expit] = _NAMED["sigmoid"]
    table[functional.soft_exponential] = _entry(parametric.soft_exponential, alpha=None)
    table[functional.blu] = _entry(parametric.blu, beta=None)
    table[functional.aplu] = _entry(parametric.aplu, a=None, b=None)
    table[functional.pelu] = _entry(parametric.pelu, a=None, b=None)
    table[abs] = _ABSOLUTE  # as fx has it: operator.abs is builtins.abs
    return table


_FUNCTIONS = _functions()
