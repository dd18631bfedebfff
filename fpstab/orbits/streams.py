"""Runs a network over batches and looks at its states, leaving no trace in it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fpstab import guard
from fpstab.maps import first_tensor
from fpstab.orbits.recording import Recording, find_blocks, same_values
from fpstab.results import OK, Status

R = TypeVar("R")
Heads = Sequence[Callable[[Tensor], Tensor]]

_HALF = (torch.bfloat16, torch.float16)


class Stream:
    """The states of a network, or of an iterated map, batch by batch.

    Args:
        target: A network with blocks, or, with `steps`, a map to be iterated.
        blocks: Patterns of the blocks' names.
        steps: How often the map is iterated; `None`: the target has blocks.

    Attributes:
        names: The blocks in the order of their calls, after a run.
        status: `"ok"`; the message says if the network was observed in another precision.

    Raises:
        ValueError: If a pattern matches nothing or `steps` is out of range.
        TypeError: If the target is of another kind.
    """

    def __init__(self, target: Any, blocks: str | Sequence[str], steps: int | None) -> None:
        target = getattr(target, "_orig_mod", target)  # what torch.compile has wrapped: hooks do not run in it
        if not callable(target):
            raise TypeError(f"target: expected a network or a callable, got {type(target).__name__}.")
        if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
            raise ValueError(f"steps={steps!r}: expected a positive integer.")
        if steps is None and not isinstance(target, nn.Module):
            raise TypeError("target: a callable is iterated, and steps= says how often; a network has blocks.")
        self.names: list[str] = []
        self.status = OK
        self.steps = steps
        self.target = target
        self.module = target if isinstance(target, nn.Module) else nn.Module()
        self.recording = Recording(self.module, find_blocks(self.module, blocks) if steps is None else {})
        tensors = [*self.module.parameters(), *self.module.buffers()]
        self.device = tensors[0].device if tensors else None
        self.dtype = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), None)
        self._dummy_rows: int | None = 1

    def run(
        self,
        source: Iterable[tuple[Tensor, Tensor]],
        look: Callable[[list[Tensor], Tensor], R] | None,
        heads: Iterable[object] = (),
    ) -> list[tuple[R | list[Tensor], Tensor]]:
        """What `look(states, labels)` makes of each batch, with the batch's labels.

        Args:
            source: Batches `(x, y)`.
            look: Sees the T + 1 states, each `[B, …]`. `None`: the final head's outputs at them, each `[B, m]`.
            heads: Modules that `look` calls; they are in evaluation mode meanwhile.

        Raises:
            ValueError: If an orbit cannot be followed; see `observe`.
        """
        found: list[tuple[R | list[Tensor], Tensor]] = []
        with ExitStack() as stack:
            for module in (self.module, *(head for head in heads if isinstance(head, nn.Module))):
                stack.enter_context(guard.untouched(module))
                module.eval()
                if any(parameter.dtype in _HALF for parameter in module.parameters()):
                    module.float()
            stack.enter_context(torch.no_grad())
            if self.dtype in _HALF:
                self.status = Status("ok", f"The network is in {self.dtype}; it was observed in float32.")
            for x, y in source:
                x = self._cast(x)
                states, output = self._states(x)
                found.append((self._final(x, states, output) if look is None else look(states, y), y))
                self.names = list(self.recording.calls)
        return found

    def _states(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        if self.steps is None:
            output = self.recording.run(x.clone())
            if self.names and self.names != self.recording.calls:
                raise ValueError(
                    f"the blocks are called {len(self.names)} times for one batch and {len(self.recording.calls)} times "
                    "(or in another order) for the next: an orbit needs the same states for every image."
                )
            return self.recording.states, first_tensor(output)
        states = [x]
        for _ in range(self.steps):
            image = self.target(states[-1].clone())
            if not isinstance(image, Tensor) or image.shape != x.shape:
                got = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
                raise ValueError(
                    f"target: an iterated map gives a batch of its input's shape {list(x.shape)}, this one gives {got}."
                )
            states.append(image)
        return states, image

    def _cast(self, x: Tensor) -> Tensor:
        x = x.detach().to(self.device or x.device)
        if not x.is_floating_point() or self.dtype is None:
            return x
        return x.to(torch.float32 if self.dtype in _HALF else self.dtype)

    def _final(self, x: Tensor, states: list[Tensor], output: Tensor) -> list[Tensor]:
        sizes = [state[0].numel() for state in states]
        if len(set(sizes)) > 1:
            raise ValueError(
                f"head='final': the states have {' → '.join(map(str, sizes))} values, and the final head takes those of "
                "the last one only. Use head='probes' (a head for each state), or name blocks of equal width."
            )
        if not self.names:
            self._check(x, output)
        return [self._continue(t, x) for t in range(len(sizes) - 1)] + [output]

    def _continue(self, t: int, x: Tensor) -> Tensor:
        return first_tensor(self.recording.continue_from(t, x[: self._dummy_rows].clone()))

    def _check(self, x: Tensor, output: Tensor) -> None:
        """One row is enough for what comes before the state, unless the network counts the rows there."""
        last = len(self.recording.states) - 1
        problem = ""
        for self._dummy_rows in (1, None):
            kept = self.recording.states[last].clone()
            try:
                again = self._continue(last, x)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if same_values(again, output):
                    self.recording.states[last] = kept
                    return
                problem = (
                    f"its outputs differ by up to {float((again - output).abs().max()):.3g}"
                    if again.shape == output.shape
                    else f"its outputs have the shape {list(again.shape)} instead of {list(output.shape)}"
                )
            self.recording.states[last] = kept
        raise ValueError(
            f"head='final': with its own last state put in its place, {type(self.module).__name__} does not give its "
            f"output ({problem}). Something beside the blocks depends on more than their state; use head='probes' or "
            "a callable."
        )
