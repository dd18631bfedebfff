"""Which layers and functions of torch are read, as what, and which are refused."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fpstab.activations import APLU, BLU, PELU, ActivationInfo, SoftExponential, is_activation, known_info
from fpstab.activations.functional import aplu, blu, pelu, soft_exponential
from fpstab.lipschitz.affine import Affine
from fpstab.lipschitz.operations import Operations, UnsupportedLayer, constant

_PLANES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity)
_MOVING = (
    nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d,
    nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d,
)  # fmt: skip
_PADDING = (
    nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
)  # fmt: skip
_AVERAGING = (
    nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip
_LEAVES = (
    nn.Linear, _ConvNd, _BatchNorm, nn.Upsample, *_PLANES, *_MOVING, *_PADDING, *_AVERAGING,
)  # fmt: skip

_WHY = {
    nn.LayerNorm: "divides by the standard deviation of its input, so it has no global Lipschitz constant of use",
    nn.GroupNorm: "divides by the standard deviation of its input, so it has no global Lipschitz constant of use",
    nn.MultiheadAttention: "multiplies its inputs with one another: attention has no global Lipschitz constant",
    nn.Softmax: "is not elementwise; leave a final one away and pass head='softmax' to lipschitz_bound",
    nn.Softmax2d: "is not elementwise",
    nn.LogSoftmax: "is not elementwise; bound the logits before it",
}


def supported_leaf(module: nn.Module) -> bool:
    """Whether a module is read as one layer, its `forward` being torch's own."""
    cls: Any = type(module)
    if is_activation(module):
        return True
    for each in _LEAVES:
        if isinstance(module, each):
            base = next(c for c in cls.__mro__ if c.__module__.startswith("torch.nn.modules") and "forward" in vars(c))
            return cls.forward is base.forward and "forward" not in vars(module)
    return False


def apply_layer(
    operations: Operations, module: nn.Module, name: str, args: Sequence[Any], kwargs: dict[str, Any]
) -> Affine:
    """Apply a module that is a leaf.

    Raises:
        UnsupportedLayer: If it is of no kind that is known.
        ValueError: If a weight is not finite.
        TypeError: If a weight is not real.
    """
    kind = type(module).__name__.removeprefix("Parametrized")
    if not supported_leaf(module):
        raise UnsupportedLayer(name, kind, _why(module))
    if len(args) != 1 or kwargs or not isinstance(args[0], Affine):
        raise UnsupportedLayer(name, kind, "is called with other arguments than one tensor")
    x = args[0]
    if is_activation(module):
        out = operations.activation(x, _info(name, kind, module), _function(module), name, kind)
        return _written(x, out, bool(getattr(module, "inplace", False)))
    if isinstance(module, _PLANES):
        return x
    if isinstance(module, _MOVING):
        return operations.move(x, module, name, kind)
    if isinstance(module, _PADDING):
        return operations.pad(x, module.padding, module.value if hasattr(module, "value") else 0.0, name, kind)
    if isinstance(module, _AVERAGING):
        return operations.average(x, module, name, kind)
    if isinstance(module, nn.Upsample):
        return operations.interpolate(x, module, module.mode, name, kind)
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm | WeightNorm | BasePruningMethod):
            hook(module, ())  # computes the weight
    if isinstance(module, _BatchNorm):
        return operations.batch_norm(
            x, module.running_mean, module.running_var, module.weight, module.bias, module.eps, name, kind
        )
    weight, bias = constant(module.weight, name, "weight"), constant(module.bias, name, "bias")
    assert weight is not None
    if isinstance(module, nn.Linear):
        return operations.linear(x, functional.linear, (weight,), bias, name, kind)
    assert isinstance(module, _ConvNd)
    transposed = isinstance(module, _ConvTransposeNd)
    convolve = getattr(functional, f"conv{'_transpose' * transposed}{len(module.kernel_size)}d")
    padding: Any = module.padding
    if module.padding_mode != "zeros":
        pads = list(module._reversed_padding_repeated_twice)
        x = operations.move(x, lambda v: functional.pad(v, pads, mode=module.padding_mode), name, kind)
        padding = 0
    rest = (module.output_padding, module.groups, module.dilation) if transposed else (module.dilation, module.groups)
    rest = (weight, None, module.stride, padding, *rest)
    return operations.linear(x, convolve, rest, bias, name, kind, channels=weight)


def apply_function(
    operations: Operations, function: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]
) -> Affine:
    """Apply a function, or a method of tensors by its name; `name` is that of the module that calls it.

    Raises:
        UnsupportedLayer: If it is none that is known, or is called in a way that is not.
    """
    kind = function if isinstance(function, str) else getattr(function, "__name__", str(function))
    plain = kind.rstrip("_") if not kind.startswith("_") else kind
    x: Any = args[0] if args else kwargs.get("input")
    rest, kwargs = tuple(args[1:]), {key: value for key, value in kwargs.items() if key != "input"}
    inplace = bool(kwargs.get("inplace")) or (kind.endswith("_") and not kind.endswith("__"))
    inplace |= function in (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    if plain in ("cat", "concat", "concatenate"):
        return operations.cat(x, kwargs.get("dim", rest[0] if rest else 0), name, kind)
    if plain == "stack" and isinstance(x, list | tuple) and all(isinstance(each, Affine) for each in x):
        dim = kwargs.get("dim", rest[0] if rest else 0)
        parts = [operations.move(each, lambda v: v.unsqueeze(dim), name, kind) for each in x]
        return operations.cat(parts, dim, name, kind)
    if plain in _ARITHMETIC and kwargs.keys() <= {"other", "alpha", "rounding_mode"}:
        other = rest[0] if rest else kwargs.get("other")
        if kwargs.get("rounding_mode") is None and kwargs.get("alpha", 1) == 1:
            out = operations.arithmetic(_ARITHMETIC[plain], x, other, name, kind)
            return _written(x, out, inplace)
    if not isinstance(x, Affine) or _any_affine((rest, kwargs)):
        raise UnsupportedLayer(name, kind, "combines tensors in a way that is not linear, or not known")
    if is_activation(function):
        if plain == "rrelu" and (kwargs.get("training") or (len(rest) > 2 and rest[2])):
            raise UnsupportedLayer(name, kind, "is random: it is called with training=True")
        inplace |= bool(rest) and rest[-1] is True
        keywords = {key: value for key, value in kwargs.items() if key not in ("inplace", "training")}
        info = _info(name, kind, function, *rest, **keywords)
        constants = [_float64(each) for each in rest]
        named = {key: _float64(value) for key, value in keywords.items()}
        return _written(x, operations.activation(x, info, _called(function, constants, named), name, kind), inplace)
    if plain in _DROPOUTS:
        if kwargs.get("training", rest[1] if len(rest) > 1 else True):
            raise UnsupportedLayer(name, kind, "is random: it is called with training=True (its default)")
        return x
    if plain in _UNCHANGED:
        if any(isinstance(each, torch.dtype) and not each.is_floating_point for each in (*rest, *kwargs.values())):
            raise UnsupportedLayer(name, kind, "makes integers of its input")
        return replace(x) if plain == "clone" else x
    if plain in _MOVES:
        return operations.move(x, _called(function, rest, kwargs), name, kind)
    if plain == "pad":
        return _functional_pad(operations, x, rest, kwargs, name, kind)
    if plain in _AVERAGES:
        return operations.average(x, _called(function, rest, kwargs), name, kind)
    if plain in ("interpolate", "upsample"):
        mode = kwargs.get("mode", rest[2] if len(rest) > 2 else "nearest")
        return operations.interpolate(x, _called(function, rest, kwargs), mode, name, kind)
    if plain == "batch_norm":
        return _functional_batch_norm(operations, x, rest, kwargs, name, kind)
    if plain == "linear" or plain.startswith("conv"):
        weight = constant(rest[0] if rest else kwargs.pop("weight", None), name, "weight")
        bias = constant(rest[1] if len(rest) > 1 else kwargs.pop("bias", None), name, "bias")
        rest = (weight, *(() if plain == "linear" else (None,)), *rest[2:])
        return operations.linear(
            x,
            _called(function, (), kwargs) if kwargs else function,
            rest,
            bias,
            name,
            kind,
            None if plain == "linear" else weight,
        )
    if plain in ("matmul", "mm", "__matmul__") and len(rest) == 1 and isinstance(rest[0], Tensor):
        weight = constant(rest[0], name, "weight")
        return operations.linear(x, torch.matmul, (weight,), None, name, kind)
    raise UnsupportedLayer(name, kind, "is no operation that is known to be affine or elementwise")


_DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_UNCHANGED = (
    "contiguous", "clone", "detach", "to", "float", "double", "half", "bfloat16", "cpu", "cuda", "type_as",
    "requires_grad",
)  # fmt: skip
_MOVES = (
    "flatten", "reshape", "view", "view_as", "reshape_as", "permute", "transpose", "swapaxes", "swapdims", "movedim",
    "moveaxis", "squeeze", "unsqueeze", "unflatten", "expand", "expand_as", "repeat", "repeat_interleave", "tile", "narrow",
    "select", "index_select", "getitem", "__getitem__", "flip", "roll", "rot90", "pixel_shuffle", "pixel_unshuffle",
    "channel_shuffle", "native_channel_shuffle", "unfold", "broadcast_to", "diagonal",
)  # fmt: skip
_AVERAGES = (
    "mean", "sum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
)  # fmt: skip
_ARITHMETIC = {
    "add": "add", "iadd": "add", "__add__": "add", "__radd__": "add",
    "sub": "sub", "isub": "sub", "subtract": "sub", "rsub": "rsub", "__sub__": "sub", "__rsub__": "rsub",
    "mul": "mul", "imul": "mul", "multiply": "mul", "__mul__": "mul", "__rmul__": "mul",
    "truediv": "div", "itruediv": "div", "div": "div", "divide": "div", "true_divide": "div",
    "neg": "neg", "negative": "neg",
}  # fmt: skip


def _functional_pad(
    operations: Operations, x: Affine, rest: Sequence[Any], kwargs: dict[str, Any], name: str, kind: str
) -> Affine:
    given = dict(zip(("pad", "mode", "value"), rest, strict=False)) | kwargs
    if given.get("mode", "constant") == "constant":
        return operations.pad(x, given["pad"], given.get("value"), name, kind)
    return operations.move(x, lambda v: functional.pad(v, list(given["pad"]), mode=given["mode"]), name, kind)


def _functional_batch_norm(
    operations: Operations, x: Affine, rest: Sequence[Any], kwargs: dict[str, Any], name: str, kind: str
) -> Affine:
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = dict(zip(names, rest, strict=False)) | kwargs
    if given.get("training") or len(rest) > len(names):
        raise UnsupportedLayer(name, kind, "is called with training=True: it would use the statistics of a batch")
    mean, variance, weight, bias = (given.get(each) for each in names[:4])
    return operations.batch_norm(x, mean, variance, weight, bias, given.get("eps", 1e-5), name, kind)


def _info(name: str, kind: str, activation: Any, *args: Any, **kwargs: Any) -> ActivationInfo:
    try:
        return known_info(activation, *args, **kwargs)
    except TypeError as error:
        raise UnsupportedLayer(name, kind, f"cannot be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {kind}: {error}") from error


def _why(module: nn.Module) -> str:
    for cls, why in _WHY.items():
        if isinstance(module, cls):
            return why
    if "Pool" in type(module).__name__:
        return "is not elementwise: each output depends on several inputs"
    return "is no layer that is known to be affine or elementwise"


def _written(x: Any, out: Affine, inplace: bool) -> Affine:
    """What is done in place is seen by all who hold the tensor."""
    if not inplace or not isinstance(x, Affine):
        return out
    x.assign(out)
    return x


def _called(function: Any, rest: Sequence[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
    if isinstance(function, str):
        return lambda v, *more: getattr(v, function)(*more, *rest, **kwargs)
    return lambda v, *more: function(v, *more, *rest, **kwargs)


def _function(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What an activation computes, in float64, without its hooks."""
    for cls, (function, *names) in _PARAMETRIC.items():
        if isinstance(module, cls):
            parameters = [_float64(getattr(module, each)) for each in names]
            return lambda z: function(z, *parameters)
    forward: Callable[[Tensor], Tensor] = module.forward
    return forward


_PARAMETRIC: dict[type[nn.Module], tuple[Any, ...]] = {
    nn.PReLU: (functional.prelu, "weight"),
    SoftExponential: (soft_exponential, "alpha"),
    BLU: (blu, "beta"),
    APLU: (aplu, "a", "b"),
    PELU: (pelu, "a", "b"),
}


def _float64(value: Any) -> Any:
    return value.detach().to("cpu", torch.float64) if isinstance(value, Tensor) else value


def _any_affine(values: Any) -> bool:
    if isinstance(values, dict):
        return _any_affine(list(values.values()))
    if isinstance(values, list | tuple):
        return any(map(_any_affine, values))
    return isinstance(values, Affine)
