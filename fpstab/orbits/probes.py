"""One linear head for each state, fitted with the network frozen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fpstab import guard
from fpstab.orbits.batches import batches
from fpstab.orbits.streams import Stream


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A linear head of a state: `[B, …]` to logits `[B, C]`, in float64.

    Attributes:
        weight: `[C, n]`.
        bias: `[C]`.
        accuracy: On the images that it was fitted to, in the last pass over them.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float

    def __call__(self, state: Tensor) -> Tensor:
        """The logits."""
        return nn.functional.linear(state.detach().flatten(1).to("cpu", torch.float64), self.weight, self.bias)


def fit_probes(
    target: nn.Module | Callable[[Tensor], Tensor],
    data: Any,
    *,
    blocks: str | Sequence[str] = "blocks.*",
    steps: int | None = None,
    max_images: int | None = None,
    batch_size: int = 128,
    epochs: int = 10,
    learning_rate: float = 1e-2,
) -> tuple[Probe, ...]:
    """Fit a linear probe to every state: multinomial logistic regression, the network frozen.

    Adam, over the batches as they come; only the probes and one batch of states are in memory. States are divided by
    their root mean square in the first batch while fitting, so one learning rate does for all.

    Args:
        target: As in `observe`.
        data: As in `observe`, and to be gone through several times: no one-way iterator.
        blocks: As in `observe`.
        steps: As in `observe`.
        max_images: As in `observe`.
        batch_size: As in `observe`.
        epochs: Passes over the data.
        learning_rate: Of Adam.

    Returns:
        One probe for each state, to be given to `observe` as `head`. Labels are classes 0 … C - 1.

    Raises:
        ValueError: If an argument is out of range, or a label is negative.
    """
    if epochs < 1:
        raise ValueError(f"epochs={epochs!r}: expected a positive integer.")
    if isinstance(data, Iterator):
        raise ValueError("data: a one-way iterator cannot be gone through twice; give a loader, a dataset or tensors.")
    with guard.untouched(nn.Module()):  # a shuffled loader draws random numbers
        y = torch.cat([labels for _, labels in batches(data, batch_size, max_images)])
    if int(y.min()) < 0:
        raise ValueError(f"labels: expected classes from 0 on, got {int(y.min())}.")
    classes = int(y.max()) + 1
    stream = Stream(target, blocks, steps)
    fits: list[_Fit] = []
    for epoch in range(epochs):
        last = epoch == epochs - 1

        def look(states: list[Tensor], labels: Tensor, last: bool = last) -> None:
            if not fits:
                fits.extend(_Fit(state, classes, learning_rate) for state in states)
            for fit, state in zip(fits, states, strict=True):
                fit.step(state, labels, count=last)

        stream.run(batches(data, batch_size, max_images), look)
    return tuple(fit.probe() for fit in fits)


class _Fit:
    def __init__(self, state: Tensor, classes: int, learning_rate: float) -> None:
        n = state[0].numel()
        self.scale = float(state.double().square().mean().sqrt()) * n**0.5 or 1.0
        self.weight, self.bias = (
            torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((classes, n), (classes,))
        )
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=learning_rate * 10)
        self.right, self.seen = 0, 0

    def step(self, state: Tensor, labels: Tensor, count: bool) -> None:
        x = state.detach().flatten(1).to("cpu", torch.float64) / self.scale
        with torch.enable_grad():
            logits = nn.functional.linear(x, self.weight, self.bias)
            loss = nn.functional.cross_entropy(logits, labels)
            self.weight.grad, self.bias.grad = torch.autograd.grad(loss, (self.weight, self.bias))
        self.optimizer.step()
        if count:
            self.right += int((logits.argmax(1) == labels).sum())
            self.seen += len(labels)

    def probe(self) -> Probe:
        return Probe((self.weight / self.scale).detach(), self.bias.detach(), self.right / self.seen)
