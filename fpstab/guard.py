"""Leave no trace: run an analysis on a network in training and find the network as it was."""

from __future__ import annotations

import random
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_Undo = Callable[[], object]


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Run the body of the ``with`` and leave no trace of it, also when it raises.

    Afterwards these are bit for bit what they were, and the same objects:

    * every random state: Python, NumPy, torch's CPU and accelerator generators (CUDA is never initialised
      by this), and the generators that the module owns;
    * of every submodule: class, train/eval flag, parameters, buffers, children, hooks and plain attributes.
      Buffers and plain tensors have their values back too, wherever they lie in (nested) lists, tuples,
      dictionaries and sets;
    * of every parameter: memory, dtype and device (``module.double()`` is undone), ``requires_grad``,
      ``.grad`` and tensor hooks. Inside the body every ``.grad`` is None, so that nothing adds to it;
    * grad mode, inference mode and autocast. The body itself always sees the same world: gradients enabled,
      no inference mode, no autocast.

    **The values of the parameters are not copied** (it would double the memory of the network): an analysis
    is pure and never writes to a parameter. A write that autograd counts is reported; one through ``.data``
    goes unseen. Also out of reach is what a module holds through other objects: the results that a Trainer
    collects, files, global hooks. Under DistributedDataParallel call the network inside the wrapper, and do
    not convert it: torch drops the wrapper's hooks on the gradients of a parameter that changes its type.

    Guards nest. The cost is a copy of the buffers and of the tensors in attributes, and some microseconds a
    submodule.

    Args:
        module: The network. What occurs in it twice is handled once.

    Raises:
        RuntimeError: If a part could not be restored; all others are. An exception of the body comes first,
            and has this as a note.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
        >>> with untouched(net):
        ...     _ = net.double()(torch.randn(8, 2, dtype=torch.float64))
        >>> net[0].running_mean, net[0].num_batches_tracked
        (tensor([0., 0.]), tensor(0))
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        tensors, undo = _snapshot(module)
        for device in sorted({"cpu", *(state.tensor.device.type for state in tensors)}):
            if torch.amp.is_autocast_available(device):
                # without the cache, which an autocast around us shares with one inside the body
                modes.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        try:
            for state in tensors:
                if state.grad is not None:
                    state.tensor.grad = None
            yield
        except BaseException as error:
            for failure in _restore(undo):
                error.add_note(f"fpstab.guard.untouched could not restore all: {failure}")
            raise
        if failures := _restore(undo):
            name = type(module).__name__
            raise RuntimeError(f"untouched({name}) could not restore all: {'; '.join(failures)}")


def _restore(undo: list[_Undo]) -> list[str]:
    """Run every undo, the last first, whatever becomes of the others; returns what went wrong."""
    failures: list[str] = []
    interrupt: BaseException | None = None
    while undo:
        try:
            while undo:
                undo[-1]()
                undo.pop()
        except Exception as error:
            failures.append(f"{error} ({type(error).__name__})")
            undo.pop()
        except BaseException as error:
            # Ctrl-C meanwhile: what it interrupted is repeated (every undo may be), then it has its way
            interrupt = error
    if interrupt is not None:
        raise interrupt
    return failures


# Most attributes are of these types: nothing in them changes or leads further (and a proxy may be dead)
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType)
_PLAIN = frozenset({NoneType, bool, int, float, str, type, *_FUNCTIONS, *weakref.ProxyTypes})


def _snapshot(module: nn.Module) -> tuple[list[_TensorState], list[_Undo]]:
    """Everything that can be reached from the module through modules and built-in containers.

    A module is its ``__dict__``, which holds parameters, buffers, children and hooks in dictionaries: one
    walk over dictionaries covers them all.
    """
    tensors: list[_TensorState] = []
    undo = _random_states()
    todo: list[Any] = [module, *_queued_seeds()]
    seen: set[int] = set()
    empty: list[dict[Any, Any]] = []  # most dictionaries are: the hooks
    while todo:
        thing = todo.pop()
        if type(thing) in _PLAIN or id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            if thing:
                undo.append(partial(_refill_dict, thing, mapping := dict(thing)))
                todo.extend(mapping.values())
            else:
                empty.append(thing)
        elif isinstance(thing, list | deque | set):
            undo.append(partial(_refill, thing, items := list(thing)))
            todo.extend(items)
        elif isinstance(thing, tuple):
            todo.extend(thing)
        elif isinstance(thing, Tensor):
            tensors.append(state := _TensorState.of(thing))
            undo.append(state.restore)
            todo.extend((state.backward_hooks, state.accumulate_hooks))
        elif isinstance(thing, nn.Module):
            undo.append(partial(_reclass, thing, type(thing)))
            todo.append(vars(thing))
            if isinstance(thing, torch.jit.ScriptModule):
                # it lives in C++: its flag and its buffers stand in no dictionary
                held = {"training": thing.training, **dict(thing.named_buffers(recurse=False))}
                undo.append(partial(_reassign, thing, held))
                todo.extend((*held.values(), *thing.parameters(recurse=False), *thing.children()))
        else:
            undo.extend(_owned(thing))
    undo += [partial(_clear, empty), partial(_report_writes, module, tensors)]
    return tensors, undo


def _clear(mappings: list[dict[Any, Any]]) -> None:
    for mapping in mappings:
        if mapping:
            mapping.clear()


def _refill_dict(mapping: dict[Any, Any], old: dict[Any, Any]) -> None:
    """Give a dictionary its old content in place: hook handles and optimisers know the dictionary itself."""
    if len(mapping) != len(old) or not all(map(is_, mapping, old)):  # also the order of the keys
        mapping.clear()
    elif all(map(is_, mapping.values(), old.values())):
        return
    mapping.update(old)


def _refill(container: Any, old: list[Any]) -> None:
    """The same for a list, a deque or a set."""
    if len(container) != len(old) or not all(map(is_, container, old)):
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(old)


def _reclass(thing: object, kind: type) -> None:
    """Undo what a registered parametrization, or the first call of a lazy module, does to the class."""
    if type(thing) is not kind:
        object.__setattr__(thing, "__class__", kind)


def _reassign(module: nn.Module, held: dict[str, Any]) -> None:
    for name, value in held.items():
        if getattr(module, name) is not value:
            setattr(module, name, value)


@dataclass(slots=True, eq=False)
class _TensorState:
    """What a tensor was: its memory, values, place in autograd, and hooks."""

    tensor: Tensor
    kind: type[Tensor]
    data: Tensor  # the same memory, and not the same tensor: keeps it when `tensor.data` is replaced
    value: Tensor | None  # a copy; None for a parameter
    version: int | None  # for a parameter, autograd's count of the writes to it
    is_leaf: bool
    requires_grad: bool
    grad: Tensor | None
    backward_hooks: Any
    accumulate_hooks: Any

    @classmethod
    def of(cls, tensor: Tensor) -> _TensorState:
        lazy, parameter, data = is_lazy(tensor), isinstance(tensor, nn.Parameter), tensor.data
        return cls(
            tensor=tensor,
            kind=type(tensor),
            data=data,
            value=None if parameter or lazy else data.clone(),
            version=tensor._version if parameter and not lazy and not tensor.is_inference() else None,
            is_leaf=tensor.is_leaf,
            requires_grad=tensor.requires_grad,
            grad=tensor.grad if tensor.is_leaf else None,
            backward_hooks=tensor._backward_hooks,
            accumulate_hooks=tensor._post_accumulate_grad_hooks,
        )

    @property
    def moved(self) -> bool:
        """Whether `tensor.data` has been replaced."""
        if self.tensor.dtype != self.data.dtype or self.tensor.device != self.data.device:
            return True
        try:
            return not self.tensor.is_set_to(self.data)
        except (RuntimeError, ValueError):
            # nobody can tell (sparse, quantised, meta, lazy), and to a plain tensor its own data do no harm
            return type(self.tensor) is Tensor

    @property
    def written(self) -> bool:
        """Whether the values of a parameter, of which there is no copy, were written to."""
        return self.version is not None and not self.moved and self.tensor._version != self.version

    def restore(self) -> None:
        tensor = self.tensor
        if self.moved:
            tensor.data = self.data
            _reclass(tensor, self.kind)
        if self.value is not None:
            _write_back(self.data, self.value)
        if self.is_leaf:
            if not tensor.is_leaf:  # an operation in place has made it part of a graph
                tensor.detach_()
            if tensor.requires_grad != self.requires_grad:
                tensor.requires_grad_(self.requires_grad)
            if tensor.grad is not self.grad:
                tensor.grad = self.grad
        # assigning tells the C++ side, so only if there is something to tell
        if tensor._backward_hooks is not self.backward_hooks:
            tensor._backward_hooks = self.backward_hooks
        if tensor._post_accumulate_grad_hooks is not self.accumulate_hooks:
            tensor._post_accumulate_grad_hooks = self.accumulate_hooks


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """In bits NaN is NaN, and 0.0 is not -0.0. False also where bits cannot be compared."""
    if one.layout != torch.strided or one.is_quantized:  # to view a quantised tensor crashes the process
        return False
    bits = _BITS.get(one.element_size(), torch.int64)
    try:
        return torch.equal(one.view(bits), other.view(bits))
    except RuntimeError:  # meta, conjugated, or wider than 64 bits and not contiguous
        return False


def _write_back(data: Tensor, value: Tensor) -> None:
    """Write only what has changed.

    To `data`, not to the tensor whose memory it is: autograd does not count that, so a graph that has saved
    the tensor stays valid.
    """
    if _same_bits(data, value):
        return
    with torch.inference_mode(data.is_inference()):  # elsewhere an inference tensor cannot be written to
        try:
            data.copy_(value)
        except RuntimeError:  # expanded: many elements in one place
            once = tuple(slice(None) if stride else slice(1) for stride in data.stride())
            data[once].copy_(value[once])


def _report_writes(module: nn.Module, tensors: list[_TensorState]) -> None:
    """Runs first, while it can be told whether a parameter was written to or given other memory."""
    if written := {id(state.tensor) for state in tensors if state.written}:
        names = [name for name, parameter in module.named_parameters() if id(parameter) in written]
        raise RuntimeError(
            f"the values of {', '.join(names) or 'a parameter'} were written to, and there is no copy: "
            "let the analysis work on a copy.deepcopy of the network"
        )


def _random_states() -> list[_Undo]:
    generators = [torch.default_generator]
    for backend in (torch.cuda, torch.xpu):
        if backend.is_initialized():  # else it has no generators, and to ask for them would start it
            generators += backend.default_generators
    undo: list[_Undo] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state(legacy=False)),  # noqa: NPY002
        *(partial(generator.set_state, generator.get_state()) for generator in generators),
    ]
    if torch.backends.mps.is_available():
        undo.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    return undo


def _queued_seeds() -> list[dict[str, Any]]:
    """Where `torch.manual_seed` leaves the seed for an accelerator that has not been started."""
    trackers = (getattr(backend, "_lazy_seed_tracker", None) for backend in (torch.cuda, torch.xpu))
    return [vars(tracker) for tracker in trackers if tracker is not None]


def _owned(thing: object) -> Iterator[_Undo]:
    """Other objects that a module may own and that change when it is called: generators and arrays."""
    match thing:
        case torch.Generator():
            yield partial(thing.set_state, thing.get_state())
        case random.Random():
            yield partial(thing.setstate, thing.getstate())
        case np.random.RandomState():
            yield partial(thing.set_state, thing.get_state(legacy=False))
        case np.random.Generator():
            yield partial(setattr, thing.bit_generator, "state", thing.bit_generator.state)
        case np.ndarray() if type(thing) is np.ndarray and thing.flags.writeable:
            yield partial(np.copyto, thing, thing.copy())
