"""The map f of an equilibrium as a function of rows: the same function at every evaluation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fpstab.equilibrium.states import COMPACTION, Layout


class RowMap:
    """f as a function of rows `[B, d]` and the tensors among its arguments, `[B, ...]` each.

    The first evaluation finds out two things. If f draws random numbers (dropout), every later evaluation sees the
    random state of the first, and so the same numbers. And, where gradients are enabled, which leaf tensors f
    depends on besides its arguments (`theta`).

    Attributes:
        theta: Leaf tensors with `requires_grad` that f uses: its parameters.
        random: Whether f draws random numbers.
        eps: Of the least accurate dtype that f is known to compute in.
    """

    def __init__(
        self, f: Callable[..., Any], layout: Layout, args: Sequence[object], device: torch.device, *, trace: bool
    ) -> None:
        refuse_coupling(f)
        self.f = f
        self.layout = layout
        self.args = list(args)
        self.places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
        self.device = device
        self.trace = trace
        self.theta: tuple[Tensor, ...] = ()
        self.random = False
        self.eps = torch.finfo(layout.dtype).eps
        self._before: list[Tensor] | None = None
        self._rows: int | None = None  # of the whole batch
        self._cache = torch.is_autocast_cache_enabled()
        self._autocast: torch.dtype | None = None
        if _autocasts(device):
            self._autocast = torch.get_autocast_dtype(device.type)
            self.eps = max(self.eps, torch.finfo(self._autocast).eps)

    def value(self, z: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """f(z) `[B, d]`, in the grad mode of the caller."""
        with self._same_autocast():
            if self._before is None:
                return self._first(z, inputs)
            if not self.random:
                return self._call(z, inputs)
            with self._same_numbers():
                return self._call(z, inputs)

    def bind(self, inputs: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """Fix the inputs, for many evaluations without gradients."""

        def evaluate(z: Tensor) -> Tensor:
            with torch.no_grad():
                return self.value(z, inputs)

        return evaluate

    def _first(self, z: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        self._before = _random_states(self.device)
        self._rows = len(z)
        # Also weights that are cached for the solve (by a parametrization, by autocast) need their graph later
        with torch.set_grad_enabled(self.trace):
            y = self._call(z, inputs)
        self.theta = _leaves(y)
        after = _random_states(self.device)
        self.random = any(not torch.equal(a, b) for a, b in zip(self._before, after, strict=True))
        return y.detach()

    def _call(self, z: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        args = self.args
        if self.places:
            args = args.copy()
            for place, tensor in zip(self.places, inputs, strict=True):
                args[place] = tensor
        try:
            state = self.f(self.layout.unpack(z), *args)
        except Exception as error:
            if self._rows not in (None, len(z)):
                error.add_note(f"f was called with {len(z)} of {self._rows} samples. {COMPACTION}")
            raise
        self.layout.check(state, z.shape[0])
        for part in (state,) if isinstance(state, Tensor) else state:
            if part.dtype != self.layout.dtype and part.is_floating_point():
                self.eps = max(self.eps, torch.finfo(part.dtype).eps)
        return self.layout.pack(state)

    @contextmanager
    def _same_autocast(self) -> Iterator[None]:
        """The autocast of the call: a solver works, and a backward pass runs, outside of it."""
        if _autocasts(self.device) == (self._autocast is not None):
            yield
            return
        enabled = self._autocast is not None
        with torch.autocast(self.device.type, dtype=self._autocast, enabled=enabled, cache_enabled=self._cache):
            yield

    @contextmanager
    def _same_numbers(self) -> Iterator[None]:
        assert self._before is not None
        outside = _random_states(self.device)
        _set_random_states(self.device, self._before)
        try:
            yield
        finally:
            _set_random_states(self.device, outside)


def refuse_coupling(f: Callable[..., Any]) -> None:
    """Refuse a map whose normalisation looks at the whole batch, or changes with every evaluation.

    Raises:
        ValueError: If f is, or holds, a module with BatchNorm (or InstanceNorm with running statistics) that is not
            in eval mode.
    """
    for root in _modules(f):
        for name, module in root.named_modules():
            batch = isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
            running = isinstance(module, _InstanceNorm) and module.training and module.track_running_stats
            if batch or running:
                raise ValueError(
                    f"f holds {type(module).__name__} ({name or 'itself'}), which "
                    + ("takes its statistics from the batch" if batch else "updates its statistics")
                    + " at every evaluation: f has no fixed point of each sample. Freeze it (.eval(), with running "
                    "statistics), or use LayerNorm or GroupNorm."
                )


def _modules(f: object) -> Iterator[nn.Module]:
    """The module that f is, or is a method of, or has bound."""
    if isinstance(f, nn.Module):
        yield f
    elif isinstance(f, partial):
        yield from _modules(f.func)
    elif isinstance(owner := getattr(f, "__self__", None), nn.Module):
        yield owner
    else:
        for cell in getattr(f, "__closure__", None) or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not yet assigned
                continue
            if isinstance(content, nn.Module):
                yield content


def _leaves(y: Tensor) -> tuple[Tensor, ...]:
    """The leaf tensors that require gradients in the graph of y."""
    found: dict[int, Tensor] = {}
    todo = [y.grad_fn]
    seen = {None}
    while todo:
        node = todo.pop()
        if node in seen or node is None:
            continue
        seen.add(node)  # type: ignore[arg-type]
        leaf = getattr(node, "variable", None)  # of AccumulateGrad alone
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf
        todo.extend(parent for parent, _ in node.next_functions)
    return tuple(found.values())


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast: it would cast the sums of a solver."""
    return torch.autocast(device.type, enabled=False) if _autocasts(device) else nullcontext()


def _autocasts(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def _random_states(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type not in ("cpu", "meta"):
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def _set_random_states(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.get_device_module(device).set_rng_state(states[1], device)
