"""Networks that are chains of dense layers and activations, read off one run of their `forward`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fpstab.jacobian.elementwise import Elementwise, match

_RESHAPES = ("flatten", "reshape", "view", "contiguous", "clone", "unflatten")
_DROPOUTS = ("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d")
_VALUES = (
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__array__",
    "item",
    "tolist",
    "numpy",
    "data_ptr",
    "__dlpack__",
)


class NotAChain(ValueError):  # noqa: N818  # no failure: most networks are none
    """The network is no chain of dense layers and elementwise activations; the message says where it ceases to be."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """x ↦ σ(Wx + b).

    Attributes:
        weight: W `[p, n]`, float64.
        bias: b `[p]`, float64, on W's device; zeros if there is none.
        activation: σ, `None` for the identity.
    """

    weight: Tensor
    bias: Tensor
    activation: Elementwise | None

    @property
    def name(self) -> str:
        """σ's name."""
        return "Identity" if self.activation is None else self.activation.info.name

    def slopes(self) -> tuple[Tensor, Tensor]:
        """Least and largest slope of each neuron `[p]`."""
        n = len(self.weight)
        if self.activation is None:
            return torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
        return self.activation.info.slopes((n,))


def read_chain(call: Callable[[Tensor], Any], x: Tensor) -> tuple[Dense, ...]:
    """The layers of a network, if it is a chain x ↦ σ_L(W_L … σ_1(W_1 x + b_1) … + b_L) of flat samples.

    The network is run once at `x`, and every operation on its way is seen, also functional ones and those of hooks.
    Flattening and dropout out of training are passed over; two dense layers in a row keep the identity between them.

    Args:
        call: A module or method, in eval mode.
        x: One or more samples `[B, *shape]` in the network's dtype.

    Raises:
        NotAChain: If the network does anything else; names it.

    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> [layer.name for layer in read_chain(net, torch.zeros(1, 2))]
    ['Tanh', 'Identity']
    """
    recorder = _Recorder(x)
    with torch.no_grad(), recorder:
        out = call(x)
    if out is not recorder.current:
        raise NotAChain("it returns something else than the output of its last layer")
    return recorder.finish()


def evaluate_chain(layers: Sequence[Dense], x: Tensor) -> Tensor:
    """The value of a chain `[B, m]` at `x` `[B, n]`, in x's dtype."""
    for layer in layers:
        x = torch.addmm(layer.bias.to(x), x, layer.weight.to(x).T)
        x = x if layer.activation is None else layer.activation(x)
    return x


class _Recorder(TorchFunctionMode):
    """Follows the one tensor that a chain hands from layer to layer."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.current = x
        self._rows = len(x)
        self._seen: dict[int, Tensor] = {id(x): x}
        self._layers: list[tuple[Tensor, Tensor, Elementwise | None]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        used = [each for each in _tensors((args, kwargs)) if id(each) in self._seen]
        result = func(*args, **kwargs)
        if not used:
            return result
        name = getattr(func, "__name__", str(func))
        if not isinstance(result, Tensor):
            if name in _VALUES or any(isinstance(each, Tensor) for each in _tensors(result)):
                raise NotAChain(f"it uses {name}")
            return result
        if len(used) > 1 or used[0] is not self.current:
            raise NotAChain(f"{name} uses more than the output of the layer before it")
        self._step(func, name, args, kwargs, result)
        self._seen[id(result)] = self.current = result
        return result

    def _step(self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], result: Tensor) -> None:
        z = self.current
        found = match(func, args, kwargs)
        if found is not None:
            self._activate(found[0])
        elif func is torch.nn.functional.linear:
            weight, bias = _arguments(args, kwargs, ("weight", "bias"))
            if z.ndim != 2:
                raise NotAChain(f"linear acts on samples of shape {list(z.shape[1:])}")
            if any(id(each) in self._seen for each in (weight, bias)):
                raise NotAChain("linear has a weight that depends on the input")
            W = weight.detach().double()
            self._layers.append((W, W.new_zeros(len(W)) if bias is None else bias.detach().double(), None))
        elif name in _DROPOUTS:
            if _arguments(args, kwargs, ("p", "training"))[1] is not False:
                raise NotAChain(f"{name} is random")
        elif name not in _RESHAPES or len(result) != self._rows or result.numel() != z.numel():
            raise NotAChain(f"it uses {name}")

    def _activate(self, activation: Elementwise) -> None:
        info = activation.info
        if info.random:
            raise NotAChain(f"{info.name} is random")
        if info.channel_slopes is not None and self.current.ndim != 2:
            raise NotAChain(f"{info.name} has slopes by channel")
        if info.name == "Identity":
            return
        if self._layers and self._layers[-1][2] is None:
            self._layers[-1] = (*self._layers[-1][:2], activation)
            return
        n = math.prod(self.current.shape[1:])
        eye = torch.eye(n, dtype=torch.float64, device=self.current.device)
        self._layers.append((eye, eye.new_zeros(n), activation))

    def finish(self) -> tuple[Dense, ...]:
        if not self._layers:
            raise NotAChain("it has no layers")
        return tuple(Dense(*layer) for layer in self._layers)


def _arguments(args: Sequence[Any], kwargs: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """Arguments after the input, by position or by name."""
    given = dict(zip(names, args[1:] if "input" not in kwargs else args, strict=False)) | kwargs
    return [given.get(name) for name in names]


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        return [each for value in values for each in _tensors(value)]
    return []
