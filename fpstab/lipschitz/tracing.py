"""Follows one affine tensor through a network's `forward`, with torch.fx and concrete shapes."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from fpstab.lipschitz.affine import Affine
from fpstab.lipschitz.dispatch import apply_function, apply_layer, supported_leaf
from fpstab.lipschitz.operations import BATCH, Operations, UnsupportedLayer
from fpstab.results import AnalysisError

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def trace(
    module: nn.Module, call: Callable[[Any], Any], x: Affine, operations: Operations, dtype: torch.dtype
) -> Affine:
    """What `call`, a method of `module` or the module itself, makes of the input `x`.

    Args:
        module: The network, in eval mode. Names of layers are relative to it.
        call: Takes the batch.
        x: The input.
        operations: What is done at each layer.
        dtype: What the network is told of its input's type.

    Raises:
        UnsupportedLayer: If a layer or a function is not supported, or `forward` cannot be traced.
        ValueError: If a weight is not finite, or the input's shape does not fit.
        TypeError: If a weight is not real.
    """
    tracer = _Tracer(x, operations, dtype)
    try:
        tracer.trace(_Whole(module, call))
    except Exception as error:  # the network's own forward runs here, on what is no tensor: it may raise anything
        of_a_weight = isinstance(error, TypeError) and str(error).startswith("layer ")
        if isinstance(error, AnalysisError) or of_a_weight:
            raise
        if isinstance(error, ValueError) and not isinstance(error, fx.proxy.TraceError):
            raise  # what the network says to its input's shape, say
        raise UnsupportedLayer(
            tracer.place, tracer.kind or type(module).__name__, f"cannot be traced: {error or type(error).__name__}"
        ) from error
    if not isinstance(tracer.output, Affine):
        raise UnsupportedLayer(
            "", type(module).__name__, f"returns a {type(tracer.output).__name__}, expected a tensor that is computed "
            "from the input"
        )  # fmt: skip
    return tracer.output


class _Whole(nn.Module):
    """The network, one level down, so that it is a module that is called like any other."""

    def __init__(self, net: nn.Module, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net = net
        self.call = [call]  # in a list, so as not to be a child of another name

    def forward(self, x: Any) -> Any:
        return self.call[0](x)


class _Tracer(fx.Tracer):
    """Evaluates each operation when it is met; the graph itself is of no further use."""

    def __init__(self, x: Affine, operations: Operations, dtype: torch.dtype) -> None:
        super().__init__()
        self.input, self.operations, self.dtype = x, operations, dtype
        self.values: dict[fx.Node, Any] = {}
        self.output: Any = None
        self.failed: tuple[str, str] | None = None

    @property
    def place(self) -> str:
        """Path of the module that is being called."""
        return self.failed[0] if self.failed else _name(str(self.scope.module_path))

    @property
    def kind(self) -> str:
        """Its class."""
        return self.failed[1] if self.failed else str(getattr(self.scope.module_type, "__name__", ""))

    def proxy(self, node: fx.Node) -> "_Shaped":
        return _Shaped(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val  # parameters are constants here: what is computed from them alone is just computed

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return supported_leaf(m) or (
            m.__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not isinstance(m, nn.Sequential)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not _any_proxy((args, kwargs)):  # a parametrisation, say
            return forward(*args, **kwargs)
        if isinstance(m, torch.jit.ScriptModule):
            raise UnsupportedLayer(_name(self.path_of_module(m)), "ScriptModule", "is compiled: give the module itself")
        if hasattr(m, "_orig_mod"):  # torch.compile's wrapper
            original: Any = m._orig_mod
            return original(*args, **kwargs)
        if isinstance(m, _WRAPPERS):
            return m.module(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:  # goes on its way: only where it happened is noted
            if self.failed is None:  # the innermost one
                self.failed = (_name(self.path_of_module(m)), type(m).__name__)
            raise

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        if kind == "placeholder":
            value: Any = self.input
        else:
            args_, kwargs_ = self._values(args), self._values(kwargs)
            if kind == "call_module":
                value = apply_layer(self.operations, self.root.get_submodule(target), _name(target), args_, kwargs_)
            else:
                value = apply_function(self.operations, target, _name(str(self.scope.module_path)), args_, kwargs_)
        # the graph need not know the constants
        args, kwargs = (map_aggregate(each, _forget) for each in (args, kwargs))
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        self.values[proxy.node] = value
        return proxy

    def create_node(self, kind: str, target: Any, args: Any, *rest: Any, **more: Any) -> fx.Node:
        if kind == "output":
            self.output = self.values.get(args[0], args[0]) if isinstance(args[0], fx.Node) else args[0]
        return super().create_node(kind, target, args, *rest, **more)

    def _values(self, arguments: Any) -> Any:
        """The arguments with the affine tensors in place of proxies."""
        if isinstance(arguments, fx.Proxy):
            return self.values[arguments.node]
        if isinstance(arguments, tuple | list):
            return type(arguments)(map(self._values, arguments)) if not hasattr(arguments, "_fields") else arguments
        if isinstance(arguments, dict):
            return {key: self._values(value) for key, value in arguments.items()}
        return arguments


class _Shaped(fx.Proxy):
    """A tensor in the trace, of which shape and type are known, but not the values."""

    tracer: _Tracer

    @property
    def _value(self) -> Affine:
        value: Affine = self.tracer.values[self.node]
        return value

    @property
    def shape(self) -> torch.Size:
        return torch.Size((BATCH, *self._value.shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tracer.dtype

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def requires_grad(self) -> bool:
        return False

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    ndimension = dim

    def numel(self) -> int:
        return math.prod(self.shape)

    nelement = numel

    def is_floating_point(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.shape[0]

    def __hash__(self) -> int:
        return id(self)

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


def _name(path: str) -> str:
    parts = [part for part in path.split(".") if part not in ("_orig_mod",)]
    return ".".join(parts[1:] if parts[:1] == ["net"] else parts)


def _forget(argument: Any) -> Any:
    return argument if isinstance(argument, fx.Proxy | fx.Node | str | int | float | bool | None) else None


def _any_proxy(values: Any) -> bool:
    if isinstance(values, dict):
        return any(map(_any_proxy, values.values()))
    if isinstance(values, list | tuple):
        return any(map(_any_proxy, values))
    return isinstance(values, fx.Proxy)
