"""One table of activations: what is true of the real function that a module computes, from its actual parameters.

Slopes are those of chords, (σ(a) − σ(b))/(a − b): where σ is differentiable the same range as that of its derivative.
Every range is rounded outward. A module is seen in the mode it is in; only `RReLU` then differs.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ActivationInfo", "activation_info", "is_activation"]


@dataclass(frozen=True, slots=True, eq=False)
class ActivationInfo:
    """What is true of an elementwise activation σ.

    Attributes:
        name: Class in `torch.nn`, or name of the function.
        value_at_zero: σ(0).
        slope_range: Least and largest slope of a chord, rounded outward; infinite where σ jumps.
        sector: An upper bound of sup |σ(z)/z| over z ≠ 0; inf if σ(0) ≠ 0.
        bounded: Whether the values of σ are.
        continuous: Whether σ is.
        homogeneous: Whether σ(cz) = cσ(z) for all c > 0.
        random: Whether σ draws random numbers (`RReLU` in training mode; `slope_range` then covers every draw).
        channel_slopes: Slope range of each channel `[C, 2]` of dimension 1, where they differ (`PReLU`); else `None`.
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

    @property
    def lipschitz(self) -> float:
        """An upper bound of the Lipschitz constant: the largest slope in size, inf where σ jumps."""
        return max(map(abs, self.slope_range))

    @property
    def verdict(self) -> str:
        """What the numbers allow to say, the strongest first.

        `"contractive"` (Lipschitz constant < 1), `"nonexpansive"` (≤ 1), `"sector"` (expansive somewhere, but
        |σ(z)| ≤ |z|), `"expansive"` (neither), `"discontinuous"`.
        """
        if not self.continuous:
            return "discontinuous"
        if self.lipschitz <= 1:
            return "contractive" if self.lipschitz < 1 else "nonexpansive"
        return "sector" if self.sector <= 1 else "expansive"

    @property
    def paper_class(self) -> str | None:
        """Where paper 3, Figure 1, puts it, right or wrong; `None` if it does not occur there."""
        return _PAPER_CLASS.get(self.name)

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


def activation_info(activation: nn.Module | Callable[..., Any], *args: Any, **kwargs: Any) -> ActivationInfo:
    """Look up an elementwise activation.

    Args:
        activation: A module of `torch.nn` (or a subclass that keeps its `forward`), a function
            (`torch.tanh`, `torch.nn.functional.elu`, …), or a `functools.partial` of one.
        args: Arguments of the function after its input.
        kwargs: Its named arguments.

    Raises:
        TypeError: If it is no elementwise activation of torch (a softmax, a pooling, a function of one's own).
        ValueError: If a parameter makes no sense (nan, β = 0).

    >>> activation_info(nn.LeakyReLU(0.1)).slope_range
    (0.1, 1.0)
    >>> activation_info(torch.sigmoid).lipschitz, activation_info(nn.Hardshrink()).verdict
    (0.25, 'discontinuous')
    """
    while isinstance(activation, functools.partial):
        args, kwargs = (*activation.args, *args), activation.keywords | kwargs
        activation = activation.func
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
    """Whether `activation_info` knows this module or function (a function by identity, a method of tensors by name).

    >>> is_activation(nn.ReLU()), is_activation(torch.softmax), is_activation("tanh")
    (True, False, True)
    """
    if isinstance(activation, nn.Module):
        return _class_of(activation) is not None
    return _key(activation) in _FUNCTIONS


# The formulas. Each has the parameters that torch gives them; constants are extrema of the exact derivative,
# rounded outward in the last digit.


def _up(value: float) -> float:
    return math.nextafter(value, math.inf)


def _down(value: float) -> float:
    return math.nextafter(value, -math.inf)


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name}={value!r}: expected a number.")
    return number


def _identity() -> ActivationInfo:
    return ActivationInfo("Identity", 0.0, (1.0, 1.0), 1.0, homogeneous=True)


def _relu() -> ActivationInfo:
    return ActivationInfo("ReLU", 0.0, (0.0, 1.0), 1.0, homogeneous=True)


def _clamp(name: str, low: Any, high: Any) -> ActivationInfo:
    low = -math.inf if low is None else _number("min", low)
    high = math.inf if high is None else _number("max", high)
    low = min(low, high)  # torch: the upper one wins
    zero = min(max(0.0, low), high)
    slopes = (0.0, 1.0) if low < high else (0.0, 0.0)
    if (low, high) == (-math.inf, math.inf):
        slopes = (1.0, 1.0)
    return ActivationInfo(
        name,
        zero,
        slopes,
        1.0 if zero == 0 else math.inf,
        bounded=math.isfinite(low) and math.isfinite(high),
        homogeneous=all(bound == 0 or math.isinf(bound) for bound in (low, high)),
    )


def _threshold(threshold: Any, value: Any) -> ActivationInfo:
    at, below = _number("threshold", threshold), _number("value", value)
    zero = 0.0 if at < 0 else below
    low, high = (0.0, 1.0) if at == below else (0.0, math.inf) if below < at else (-math.inf, 1.0)
    sector = math.inf if zero else max(1.0, _up(abs(below / at))) if at < 0 and below != at else 1.0
    return ActivationInfo("Threshold", zero, (low, high), sector, continuous=at == below, homogeneous=at == 0 == below)


def _leaky(name: str, low: float, high: float, random: bool = False) -> ActivationInfo:
    """1 for z > 0, a slope within [low, high] for z < 0."""
    slopes = (min(low, 1.0), max(high, 1.0))
    sector = max(1.0, abs(low), abs(high))
    return ActivationInfo(name, 0.0, slopes, sector, homogeneous=True, random=random)


def _leaky_relu(negative_slope: Any) -> ActivationInfo:
    slope = _number("negative_slope", negative_slope)
    return _leaky("LeakyReLU", slope, slope)


def _rrelu(lower: Any, upper: Any, training: bool) -> ActivationInfo:
    low, high = _number("lower", lower), _number("upper", upper)
    if not training:
        mean = (low + high) / 2
        low, high = (_down(mean), _up(mean)) if low != high else (low, high)
    return _leaky("RReLU", low, high, random=bool(training))


def _prelu(weight: Tensor) -> ActivationInfo:
    slopes = weight.detach().to("cpu", torch.float64).flatten()
    if not slopes.isfinite().all():
        raise ValueError("PReLU: a slope is not finite.")
    low, high = (float(each) for each in slopes.aminmax())
    info = _leaky("PReLU", low, high)
    if len(slopes) == 1:
        return info
    channels = torch.stack((slopes.clamp(max=1), slopes.clamp(min=1)), dim=1)
    return ActivationInfo("PReLU", 0.0, info.slope_range, info.sector, homogeneous=True, channel_slopes=channels)


def _elu(alpha: Any) -> ActivationInfo:
    a = _number("alpha", alpha)
    return ActivationInfo("ELU", 0.0, (min(a, 0.0), max(a, 1.0)), max(abs(a), 1.0), homogeneous=a == 0)


def _celu(alpha: Any) -> ActivationInfo:
    a = _number("alpha", alpha)
    if a == 0:
        raise ValueError("alpha=0: CELU divides by it.")
    if a < 0:  # exp(z/α) grows without bound for z < 0
        return ActivationInfo("CELU", 0.0, (1.0, math.inf), math.inf)
    return ActivationInfo("CELU", 0.0, (0.0, 1.0), 1.0)


def _selu() -> ActivationInfo:
    # scale·α is 1.75809934084…; in float32, where both are rounded first, 1.75809934639…
    return ActivationInfo("SELU", 0.0, (0.0, 1.7580993464), 1.7580993464)


def _gelu(approximate: str) -> ActivationInfo:
    """At z = ±√2, and for the tanh form ±1.41850….

    References: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """
    if approximate == "none":
        return ActivationInfo("GELU", 0.0, (-0.1289041451851548, 1.128904145185155), 1.0)
    if approximate == "tanh":
        return ActivationInfo("GELU", 0.0, (-0.12899306865877178, 1.128993068658772), 1.0)
    raise ValueError(f"approximate={approximate!r}: expected 'none' or 'tanh'.")


def _softplus(beta: Any, threshold: Any) -> ActivationInfo:
    b, at = _number("beta", beta), _number("threshold", threshold)
    if b == 0:
        raise ValueError("beta=0: Softplus divides by it.")
    # torch goes over to the identity where βz > threshold. By default that is 2e-9 at z = 20, a rounding of
    # float32; a low threshold makes a step down that is part of the function.
    smooth = at > 0 and math.log1p(math.exp(-at)) <= at * 2.0**-24
    slopes = (0.0 if smooth else -math.inf, 1.0)
    zero = 0.0 if at < 0 else math.log(2) / b
    sector = math.inf if zero else max(1.0, _up(math.log1p(math.exp(at)) / -at))
    return ActivationInfo("Softplus", zero, slopes, sector, continuous=smooth)


def _hardshrink(lambd: Any) -> ActivationInfo:
    step = _number("lambd", lambd) > 0
    return ActivationInfo(
        "Hardshrink", 0.0, (0.0, math.inf) if step else (1.0, 1.0), 1.0, continuous=not step, homogeneous=not step
    )


def _softshrink(lambd: Any) -> ActivationInfo:
    width = _number("lambd", lambd)
    if width < 0:
        raise ValueError(f"lambd={lambd!r}: expected a number ≥ 0.")
    return ActivationInfo("Softshrink", 0.0, (0.0 if width else 1.0, 1.0), 1.0, homogeneous=width == 0)


def _fixed(
    name: str, zero: float, low: float, high: float, sector: float, **traits: bool
) -> Callable[[], ActivationInfo]:
    return lambda: ActivationInfo(name, zero, (low, high), sector, **traits)  # type: ignore[arg-type]


_SIXTH = _up(1 / 6)
_sigmoid = _fixed("Sigmoid", 0.5, 0.0, 0.25, math.inf, bounded=True)
_hardsigmoid = _fixed("Hardsigmoid", 0.5, 0.0, _SIXTH, math.inf, bounded=True)
_tanh = _fixed("Tanh", 0.0, 0.0, 1.0, 1.0, bounded=True)
_silu = _fixed("SiLU", 0.0, -0.09983932012886693, 1.099839320128867, 1.0)  # at z = ±2.39935…
_mish = _fixed("Mish", 0.0, -0.11252612238946257, 1.088498161251728, 1.0)  # at z = −2.25637…, 1.49057…
_hardswish = _fixed("Hardswish", 0.0, -0.5, 1.5, 1.0)
_logsigmoid = _fixed("LogSigmoid", -math.log(2), 0.0, 1.0, math.inf)
_softsign = _fixed("Softsign", 0.0, 0.0, 1.0, 1.0, bounded=True)
_tanhshrink = _fixed("Tanhshrink", 0.0, 0.0, 1.0, 1.0)

_MODULES: dict[type[nn.Module], Callable[..., ActivationInfo]] = {
    nn.Identity: _identity,
    nn.Threshold: _threshold,
    nn.ReLU: _relu,
    nn.RReLU: _rrelu,
    nn.Hardtanh: functools.partial(_clamp, "Hardtanh"),
    nn.ReLU6: functools.partial(_clamp, "ReLU6"),
    nn.Sigmoid: _sigmoid,
    nn.Hardsigmoid: _hardsigmoid,
    nn.Tanh: _tanh,
    nn.SiLU: _silu,
    nn.Mish: _mish,
    nn.Hardswish: _hardswish,
    nn.ELU: _elu,
    nn.CELU: _celu,
    nn.SELU: _selu,
    nn.GELU: _gelu,
    nn.Hardshrink: _hardshrink,
    nn.LeakyReLU: _leaky_relu,
    nn.LogSigmoid: _logsigmoid,
    nn.Softplus: _softplus,
    nn.Softshrink: _softshrink,
    nn.PReLU: _prelu,
    nn.Softsign: _softsign,
    nn.Tanhshrink: _tanhshrink,
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
}

_NOT_ELEMENTWISE = (nn.GLU, nn.Softmin, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.MultiheadAttention)


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


_ABSOLUTE = _entry(_fixed("abs", 0.0, -1.0, 1.0, 1.0, homogeneous=True))
_CLAMP = _entry(functools.partial(_clamp, "clamp"), min=None, max=None)
_BOUNDED_BELOW = _entry(lambda low: _clamp("clamp", low, None), min=None)
_BOUNDED_ABOVE = _entry(lambda high: _clamp("clamp", None, high), max=None)

# By name in torch.nn.functional, in torch, or among the methods of tensors (with `_` behind it: in place).
_NAMED: dict[str, _Function] = {
    "relu": _entry(_relu),
    "relu6": _entry(lambda: _clamp("ReLU6", 0.0, 6.0)),
    "hardtanh": _entry(functools.partial(_clamp, "Hardtanh"), min_val=-1.0, max_val=1.0),
    "threshold": _entry(_threshold, threshold=math.nan, value=math.nan),
    "rrelu": _entry(_rrelu, lower=1 / 8, upper=1 / 3, training=False),
    "sigmoid": _entry(_sigmoid),
    "hardsigmoid": _entry(_hardsigmoid),
    "tanh": _entry(_tanh),
    "silu": _entry(_silu),
    "mish": _entry(_mish),
    "hardswish": _entry(_hardswish),
    "elu": _entry(_elu, alpha=1.0),
    "celu": _entry(_celu, alpha=1.0),
    "selu": _entry(_selu),
    "gelu": _entry(_gelu, approximate="none"),
    "hardshrink": _entry(_hardshrink, lambd=0.5),
    "leaky_relu": _entry(_leaky_relu, negative_slope=0.01),
    "logsigmoid": _entry(_logsigmoid),
    "softplus": _entry(_softplus, beta=1.0, threshold=20.0),
    "softshrink": _entry(_softshrink, lambd=0.5),
    "prelu": _entry(_prelu, weight=None),
    "softsign": _entry(_softsign),
    "tanhshrink": _entry(_tanhshrink),
    "abs": _ABSOLUTE,
    "absolute": _ABSOLUTE,
    "clamp": _CLAMP,
    "clip": _CLAMP,
    "clamp_min": _BOUNDED_BELOW,
    "clamp_max": _BOUNDED_ABOVE,
    "sin": _entry(_fixed("sin", 0.0, -1.0, 1.0, 1.0, bounded=True)),
    "cos": _entry(_fixed("cos", 1.0, -1.0, 1.0, math.inf, bounded=True)),
    "atan": _entry(_fixed("atan", 0.0, 0.0, 1.0, 1.0, bounded=True)),
    "arctan": _entry(_fixed("atan", 0.0, 0.0, 1.0, 1.0, bounded=True)),
    "erf": _entry(_fixed("erf", 0.0, 0.0, 1.1283791670955128, 1.1283791670955128, bounded=True)),  # 2/√π
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
    table[abs] = _ABSOLUTE  # as fx has it: operator.abs is builtins.abs
    return table


_FUNCTIONS = _functions()

_STABLE, _UNSTABLE = "asymptotically stable", "unstable regions"
_PAPER_CLASS = dict.fromkeys(
    ("PReLU", "ReLU", "GELU", "RReLU", "Hardtanh", "ReLU6", "Tanh", "ELU", "CELU", "Hardshrink", "LeakyReLU", "Softshrink",
     "Softsign", "Tanhshrink"), _STABLE
) | dict.fromkeys(("Hardswish", "SELU", "LogSigmoid", "Softplus"), _UNSTABLE)  # fmt: skip
_PAPER_CLASS |= dict.fromkeys(("Sigmoid", "Hardsigmoid"), f"{_UNSTABLE}, BIBO stable")
