"""States of a network between named blocks, and what the network makes of a state put in at its place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fpstab.maps import first_tensor


def find_blocks(module: nn.Module, patterns: str | Sequence[str]) -> dict[str, nn.Module]:
    """The modules whose dotted name matches one of the patterns, each module once, by its first name.

    `*` stands for one part of a name (`"blocks.*"` are the children of `blocks`, not theirs).

    Raises:
        ValueError: If a pattern matches nothing.
    """
    found: dict[str, nn.Module] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = [name for name, _ in module.named_modules() if name and _matches(name, pattern)]
        if not names:
            lists = [
                f"{name}.*" for name, each in module.named_modules() if isinstance(each, nn.ModuleList | nn.Sequential)
            ]
            some = [name for name, _ in module.named_modules() if name][:20]
            advice = (
                f"Lists of modules: {', '.join(lists[:20])}." if lists else f"Modules: {', '.join(some) or 'none'}."
            )
            raise ValueError(f"blocks={pattern!r} matches no module of {type(module).__name__}. {advice}")
        found |= {name: module.get_submodule(name) for name in names}
    return found


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


class Recording:
    """The states of one forward: the first block's input, and the output of every call of a block, in order.

    Args:
        module: The network.
        blocks: Its blocks, by name; one that is called several times gives as many states.
    """

    def __init__(self, module: nn.Module, blocks: dict[str, nn.Module]) -> None:
        self.module, self.blocks = module, blocks
        self.states: list[Tensor] = []
        self.calls: list[str] = []
        self._outputs: list[Any] = []
        self._open: list[str] = []

    def run(self, x: Tensor) -> Any:
        """The network's output for a batch; its states are kept until the next call.

        Raises:
            ValueError: If a block lies in another, or is not a map of tensors `[B, …]`, or none is called.
        """
        self.states, self.calls, self._outputs, self._open = [], [], [], []
        with ExitStack() as hooks:
            for name, block in self.blocks.items():
                before = block.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
                after = block.register_forward_hook(partial(self._leave, name))
                hooks.callback(before.remove)
                hooks.callback(after.remove)
            output = self.module(x)
        if not self.calls:
            raise ValueError(f"none of the blocks {', '.join(self.blocks)} is called by {type(self.module).__name__}.")
        for name, state in zip(("input", *self.calls), self.states, strict=True):
            if state.ndim < 2 or len(state) != len(x):
                raise ValueError(
                    f"the state at block {name} has the shape {list(state.shape)}: expected [{len(x)}, …], one row "
                    "for each input."
                )
        return output

    def _enter(self, name: str, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._open:
            raise ValueError(f"block {name} is called inside block {self._open[-1]}: name only one of them.")
        self._open.append(name)
        if not self.states:
            # Cloned, here and below: a later layer may write in place
            self.states.append(first_tensor(args or kwargs).detach().clone())

    def _leave(self, name: str, block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._open.pop()
        self.calls.append(name)
        self.states.append(first_tensor(output).detach().clone())
        self._outputs.append(output)

    def continue_from(self, t: int, x: Tensor) -> Any:
        """The network's output if its state `t` is what was recorded, and the later blocks change nothing.

        What lies between the blocks and after them runs as ever: so a state is brought to the layout of the last
        one, and meets the head that was made for that one. The blocks themselves are not computed.

        Args:
            t: From 0 to the number of calls.
            x: Input for what comes before the state; its values do not matter.
        """
        counter = iter(range(len(self.calls)))
        with _forwards_replaced(self.blocks.values(), lambda args, kwargs: self._skip(next(counter), t, args, kwargs)):
            return self.module(x)

    def _skip(self, call: int, t: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        here = (t == 0 and call == 0) or call == t - 1
        state = self.states[t] if here else first_tensor(args or kwargs)
        return _with_first_tensor(self._outputs[call], state)


@contextmanager
def _forwards_replaced(blocks: Any, forward: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    with ExitStack() as undo:
        for block in blocks:
            previous = vars(block).get("forward")
            block.forward = lambda *args, **kwargs: forward(args, kwargs)
            undo.callback(_set_back, block, previous)
        yield


def _set_back(block: nn.Module, previous: Any) -> None:
    if previous is None:
        del block.forward
    else:
        block.forward = previous


def _with_first_tensor(output: Any, state: Tensor) -> Any:
    """The output with its first tensor replaced."""
    if isinstance(output, Tensor):
        return state
    if isinstance(output, dict):
        name = next(iter(output))
        return {**output, name: _with_first_tensor(output[name], state)}
    return type(output)([_with_first_tensor(output[0], state), *output[1:]])


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether shapes and values are equal, nan being nan."""
    return one.shape == other.shape and bool(torch.all((one == other) | (one.isnan() & other.isnan())))
