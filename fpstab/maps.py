"""A network, a part of it, or any callable, seen as a map of flat float64 batches.

The analyses know only this: `[B, n] -> [B, m]`, deterministic, every row on its own, differentiable.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from fpstab import guard

_PROBE_ROWS = 4
_REPEATED = 1e-13  # relative; what atomic additions of an accelerator may change between two equal evaluations
_ROUNDING = 1e-9  # relative; what the order of a sum may change, and company exceeds
_STEP = 1e-8  # relative, of the differences that the derivative is compared with: less than float32 can resolve


class SelfMap:
    """A map of flat float64 batches `[B, n_in] -> [B, n_out]`, made from a network or any callable.

    A module is copied, and the copy is evaluated: in float64, in eval mode, without gradients of its
    parameters, whatever mode, dtype or compilation the original is in. The original is never touched; the map
    is the network as it was when the map was made. Hooks on the network are part of it and run.

    Most analyses need a map of a space to itself (`is_square`); the others take any sizes.

    Args:
        target: An `nn.Module`, a bound method of one (`autoencoder.decode`), or any callable that maps
            float64 batches `[B, *shape]`. A callable is used as it is: it must accept float64.
        example: A batch in the target's own shape, `[B, *shape]` with B ≥ 1; of a batch like `(x, y)` the first tensor is
            taken, of one like `{"label": …, "image": …}` the first of floats. Fixes `shape`.
        path: Dotted path from the module to the part or method to study, e.g. `"net"`, `"net.decoder"`.
        output: Which entry of a tuple (index), dictionary (key) or dataclass (name) is the value. By default the only tensor in it
            with as many values a sample as the input.
        args: Further arguments of the target, the same for every row.
        kwargs: Further named arguments.
        checked: Whether the same target, with other weights, has been made a map before: the evaluations that test
            whether it is one (some four forwards of a small batch) are then left out.

    Attributes:
        shape: Shape of one sample of the target, `(*shape,)`.
        n_in: Values of a sample.
        n_out: Values of the target's output for a sample.
        device: Where points are evaluated (where the module is; float64 must exist there, else the CPU).
        name: What messages call it.
        split: `(encode, decode)`, maps of flat batches, where the target has methods of these names and is
            `decode(encode(x))`; else `None`.

    Raises:
        TypeError: If the target, the example or the output is not of a kind that is understood.
        ValueError: If the example is empty, the path leads nowhere, the target cannot be evaluated there, the output is
            ambiguous or below float64, the map is random, its rows influence one another, or what autograd says of
            it is not its derivative (numpy or a cast to float32 within, a straight-through estimator).

    >>> halve = SelfMap(nn.Linear(2, 2, bias=False), torch.zeros(1, 2))
    >>> halve.is_square, halve(torch.zeros(3, 2, dtype=torch.float64)).dtype
    (True, torch.float64)
    """

    def __init__(
        self,
        target: nn.Module | Callable[..., Any],
        example: Any,
        *,
        path: str | None = None,
        output: int | str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        checked: bool = False,
    ) -> None:
        x = first_tensor(example)
        if x.ndim < 2 or not x.numel():
            raise ValueError(f"example: expected a batch [B, …] with one row or more, got shape {list(x.shape)}.")
        with analysis_modes():
            owner, self._call, self.name = _resolve(target, path)
            self.device = _device(owner, x)
            if owner is not None:
                owner.to(self.device)
            self.shape, self.n_in = tuple(x.shape[1:]), math.prod(x.shape[1:])
            self._output = output
            self._args = [self._cast(argument) for argument in args]
            self._kwargs = {name: self._cast(argument) for name, argument in (kwargs or {}).items()}
            probe = self.flatten(x[:_PROBE_ROWS])
            with guard.untouched(owner if owner is not None else nn.Module()):
                with torch.no_grad():
                    self.n_out = self(probe).shape[1] if checked else self._check(probe)
                    self.split = self._find_split(owner, probe)
                if not checked:
                    self._check_derivative(probe)

    @property
    def is_square(self) -> bool:
        """Whether input and output have the same number of values."""
        return self.n_in == self.n_out

    def require_square(self, quantity: str) -> None:
        """Refuse a map between different spaces.

        Raises:
            ValueError: If input and output differ in size; `quantity` is what was asked for.
        """
        if not self.is_square:
            raise ValueError(
                f"{quantity} need a map of a space to itself, but {self.name} maps {list(self.shape)} "
                f"({self.n_in} values) to {self.n_out} values. Singular values of its Jacobian exist; "
                f"or name a part that maps a space to itself (path=…)."
            )

    def flatten(self, points: Any) -> Tensor:
        """Points `[B, *shape]` or `[B, n_in]`, of any dtype and device, as a float64 batch `[B, n_in]` to evaluate.

        Raises:
            ValueError: If the points have another shape.
        """
        x = points if isinstance(points, Tensor) else torch.as_tensor(first_tensor(points))
        if x.ndim < 2 or (tuple(x.shape[1:]) != self.shape and tuple(x.shape[1:]) != (self.n_in,)):
            raise ValueError(
                f"points: {self.name} takes [B, {', '.join(map(str, self.shape))}] or [B, {self.n_in}], "
                f"got {list(x.shape)}."
            )
        return x.detach().to(self.device, torch.float64, copy=True).reshape(len(x), self.n_in)

    def unflatten(self, x: Tensor) -> Tensor:
        """A flat batch `[B, n_in]` in the target's own shape `[B, *shape]`."""
        return x.reshape(len(x), *self.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """The values `[B, n_out]` at `x` `[B, n_in]`, differentiable in `x`."""
        if not len(x):
            return x.new_empty(0, self.n_out)
        # a copy: the target's first operation may work in place
        return self._value(self._call(self.unflatten(x).clone(), *self._args, **self._kwargs), len(x))

    def _check(self, x: Tensor) -> int:
        """Two equal forwards, and one in other company; returns the number of values of a row."""
        if len(x) == 1:
            x = torch.cat((x, torch.zeros_like(x)))
        try:
            first = self(x)
        except RuntimeError as error:
            raise ValueError(
                f"{self.name} cannot be evaluated at a float64 batch {list(self.unflatten(x).shape)}: {error}. A module is "
                "converted to float64 by itself: pass it (or path=… in it) rather than a function around it; an input of "
                "another shape needs an example of that shape."
            ) from error
        if not _close(first, self(x), _REPEATED):
            raise ValueError(
                f"{self.name} is random: two evaluations at the same points differ. Fixed points, orbits and Jacobians "
                "need a deterministic map: fix what is drawn in its forward, or name a part without it (path=…)."
            )
        company = torch.cat((3 * x + 1, x)).flip(0)
        if not _close(first, self(company)[: len(x)].flip(0), _ROUNDING):
            raise ValueError(
                f"{self.name}: the rows of a batch influence one another (a batch statistic? a recurrent layer without "
                "batch_first?), so it is no map of single points. Give layers like BatchNorm running statistics, or name "
                "another part (path=…)."
            )
        return first.shape[1]

    def _check_derivative(self, x: Tensor) -> None:
        """Compare autograd with differences, beside the probe: at data themselves there may be kinks (black pixels)."""
        draw = torch.Generator().manual_seed(0)

        def noise(n: int) -> Tensor:
            return torch.randn(len(x), n, generator=draw, dtype=torch.float64).to(x.device)

        scale = float(x.abs().nan_to_num(0, 0, 0).max()) or 1.0
        x = (x + 0.1 * scale * noise(self.n_in)).requires_grad_()
        w, d, step = noise(self.n_out), noise(self.n_in), _STEP * scale
        y = self(x)
        slope = torch.zeros_like(y[:, 0])
        if y.requires_grad:
            (gradient,) = torch.autograd.grad((w * y).sum(), x, allow_unused=True)
            slope = slope if gradient is None else (gradient * d).sum(1)
        with torch.no_grad():
            difference = (w * (self(x + step * d) - self(x - step * d))).sum(1) / (2 * step)
            # within, values of the points' size are rounded, however small y is: in the tail of a GELU, say
            rounding = (w.abs() * (1e-12 * y.abs() + 1e-14 * scale)).sum(1) / step
        wrong = (slope - difference).abs() > 0.1 * torch.maximum(slope.abs(), difference.abs()) + rounding
        comparable = slope.isfinite() & difference.isfinite()
        if bool(comparable.any()) and bool(wrong[comparable].all()):
            raise ValueError(
                f"{self.name}: what autograd gives is not its derivative. Within it something is computed outside autograd "
                "(numpy, detach, no_grad), below float64 (.float(), autocast), or with a gradient of its own (a "
                "straight-through estimator). Jacobians and kinds of fixed points would be wrong: take that out, or name "
                "a part without it (path=…)."
            )

    def _find_split(
        self, owner: nn.Module | None, x: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None:
        if owner is not self._call or self._args or self._kwargs:
            return None
        encode, decode = getattr(owner, "encode", None), getattr(owner, "decode", None)
        if not callable(encode) or not callable(decode):
            return None
        try:
            code = encode(self.unflatten(x).clone())
            decoded = decode(code.clone()).flatten(1)
            if not isinstance(code, Tensor) or len(code) != len(x) or not torch.equal(decoded, self(x)):
                return None
        except Exception:  # methods of these names that mean something else
            return None
        shape = code.shape[1:]
        return (
            lambda x: encode(self.unflatten(x).clone()).flatten(1),
            lambda z: decode(z.reshape(len(z), *shape).clone()).flatten(1),
        )

    def _cast(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor):
            return argument
        return argument.detach().to(self.device, torch.float64 if argument.is_floating_point() else argument.dtype)

    def _value(self, out: Any, rows: int) -> Tensor:
        """The tensor that is the value, flat."""
        value: Tensor = out if isinstance(out, Tensor) else self._select(out)
        if value.ndim < 1 or len(value) != rows:
            raise ValueError(
                f"{self.name} maps a batch of {rows} to {list(value.shape)}: expected an output [B, …] with B = {rows}."
            )
        if value.dtype != torch.float64:
            raise ValueError(
                f"{self.name} returns {value.dtype} for a float64 batch: results would be those of the rounding. Take the cast "
                "out of its forward, or name a part before it (path=…)."
            )
        return value.reshape(rows, -1)

    def _select(self, out: Any) -> Tensor:
        if dataclasses.is_dataclass(out) and not isinstance(out, type):
            out = {field.name: getattr(out, field.name) for field in dataclasses.fields(out)}
        entries = dict(out.items() if isinstance(out, Mapping) else enumerate(out)) if _is_container(out) else {}
        tensors = {key: entry for key, entry in entries.items() if isinstance(entry, Tensor) and entry.ndim}
        shapes = ", ".join(f"{key!r}: {list(entry.shape)}" for key, entry in tensors.items())
        if self._output is not None:
            key = self._output
            if isinstance(key, int) and key < 0 and not isinstance(out, Mapping):
                key += len(entries)
            if key not in tensors:
                raise ValueError(f"output={self._output!r}: {self.name} returns no such tensor, but {{{shapes}}}.")
            return tensors[key]
        if not tensors:
            raise TypeError(
                f"{self.name} returns a {type(out).__name__}: expected a tensor, or some in a tuple or dict."
            )
        fitting = [entry for entry in tensors.values() if entry[0].numel() == self.n_in]
        if len(fitting) != 1:
            raise ValueError(f"{self.name} returns {{{shapes}}}: say which is its value with output=….")
        return fitting[0]


def as_map(target: SelfMap | nn.Module | Callable[..., Any], points: Any) -> SelfMap:
    """The target as a `SelfMap`, with `points` `[B, *shape]` as the example if it is none yet."""
    return target if isinstance(target, SelfMap) else SelfMap(target, points)


def part_of(module: Any, path: str | None) -> Any:
    """The part, or the method, of a module at a dotted path, without what `torch.compile` has wrapped around it.

    Args:
        module: Where the path begins; returned for an empty path or `None`.
        path: E.g. `"net.encoder"`, `"net.decode"`.

    Raises:
        ValueError: If the path leads nowhere; the message lists the parts that there are where it ends.

    >>> part_of(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "1")
    Tanh()
    """
    name = type(module).__name__
    for step in path.split(".") if path else ():
        if not hasattr(module, step):
            children = [child for child, _ in module.named_children()] if isinstance(module, nn.Module) else []
            raise ValueError(f"{name} has no {step!r}. It has: {', '.join(children) or 'no parts'}.")
        module = getattr(module, step)
        module = getattr(module, "_orig_mod", module)
        name = f"{name}.{step}"
    return module


def first_tensor(batch: Any) -> Tensor:
    """The first tensor of a batch: of `(x, y)` it is `x`, of `{"label": y, "image": x}` the first of floats.

    Arrays become tensors.

    Raises:
        TypeError: If there is none.
    """
    entry = batch
    while _is_container(entry) and len(entry):
        values = list(entry.values() if isinstance(entry, Mapping) else entry)
        floats = [each for each in values if isinstance(each, Tensor) and each.is_floating_point()]
        entry = floats[0] if isinstance(entry, Mapping) and floats else values[0]
    if isinstance(entry, Tensor):
        return entry
    if hasattr(entry, "__array__"):
        return torch.as_tensor(entry)
    raise TypeError(f"expected a tensor, or a batch that begins with one, got {type(batch).__name__}.")


@contextmanager
def analysis_modes() -> Iterator[None]:
    """Gradients enabled, no inference mode, no autocast, and attention by the kernel that can be differentiated twice."""
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda", "xpu"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        modes.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def _resolve(target: Any, path: str | None) -> tuple[nn.Module | None, Callable[..., Any], str]:
    """The copied module (if there is one), what is called, and its name."""
    name = type(target).__name__ if isinstance(target, nn.Module) else getattr(target, "__name__", "the map")
    target = getattr(target, "_orig_mod", target)
    if path:
        try:
            target, name = part_of(target, path), f"{name}.{path}"
        except ValueError as error:
            raise ValueError(f"path={path!r}: {error}") from None
    if isinstance(target, nn.Module):
        module = _evaluation_copy(target, name)
        return module, module, name
    owner = getattr(target, "__self__", None)
    if isinstance(owner, nn.Module):
        module = _evaluation_copy(owner, name)
        return module, getattr(module, target.__name__), name
    if not callable(target):
        raise TypeError(f"{name}: expected a module or a callable, got {type(target).__name__}.")
    return None, target, name


def _evaluation_copy(module: nn.Module, name: str) -> nn.Module:
    """A float64 copy in eval mode, of which no parameter asks for gradients."""
    for parameter_name, parameter in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(parameter):
            raise ValueError(f"{name}: {parameter_name} of a lazy layer has no shape yet. Call the network once.")
        if hasattr(parameter, "full_tensor"):
            raise ValueError(
                f"{name}: its parameter {parameter_name} is sharded over processes. Gather the weights into a "
                "plain network first (a shard alone is another map)."
            )
    memo: dict[int, Any] = {}
    for each in module.modules():
        for attribute in vars(each).values():  # what a hook has computed, e.g. a normalised weight
            if isinstance(attribute, Tensor) and not attribute.is_leaf:
                memo[id(attribute)] = attribute.detach().clone()
    replica = copy.deepcopy(module, memo)
    for parent in replica.modules():
        for child_name, child in parent.named_children():
            if hasattr(child, "_orig_mod"):
                setattr(parent, child_name, child._orig_mod)
    replica = replica.double().eval()
    for parameter in replica.parameters():
        parameter.requires_grad_(False)
    return replica


def _device(owner: nn.Module | None, x: Tensor) -> torch.device:
    tensors = [*owner.parameters(), *owner.buffers()] if owner is not None else []
    device = tensors[0].device if tensors else x.device
    return torch.device("cpu") if device.type == "mps" else device  # there is no float64


def _is_container(value: Any) -> bool:
    return isinstance(value, Mapping | tuple | list)


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    scale = float(one.abs().nan_to_num(0, 0, 0).max())
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
