"""What a network's head says of every state of an image on its way through the blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fpstab.maps import first_tensor
from fpstab.orbits.batches import batches
from fpstab.orbits.streams import Stream
from fpstab.results import OK, AnalysisError, Status

Space = Literal["prob", "logit"]
Head = Literal["final", "probes"] | Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]]

_LARGEST = 1e150  # squares must not overflow


@dataclass(frozen=True, slots=True, eq=False)
class Orbits:
    """Observed orbits: Y[i, t] = g(φᵗ(x_i)), what the head g says of image i after t blocks.

    Can be made from any arrays; `observe` makes them from a network.

    Attributes:
        outputs: Y, float64 `[N, T+1, m]`; state 0 is the input of the first block, state t the output of the t-th.
        labels: Class of each image, int64 `[N]`; any integers.
        space: `"prob"` (softmax) or `"logit"`: what the outputs are.
        head: Which head observed: `"final"` (the network's own, at every state), `"probes"` (one for each state) or
            `"callable"`.
        blocks: The name of the block that each state but the first comes from; empty if there are no names.
        status: `"ok"`, with a message if something is worth knowing.

    Raises:
        ValueError: If shapes do not fit, there are fewer than two images or two states, an output is not finite, or
            a label is no integer.
        TypeError: If something is no array of numbers.

    >>> Orbits([[[1.0, 0.0], [0.9, 0.1]], [[0.0, 1.0], [0.2, 0.8]]], [3, 7])
    Orbits: 2 images of 2 classes, 1 block, 2 probabilities each
    """

    outputs: Tensor
    labels: Tensor
    space: Space = "prob"
    head: str = "final"
    blocks: tuple[str, ...] = ()
    status: Status = OK

    def __post_init__(self) -> None:
        outputs, labels = _tensor(self.outputs, "outputs"), _tensor(self.labels, "labels")
        if outputs.ndim != 3 or outputs.shape[2] < 1:
            raise ValueError(f"outputs: expected [N, T+1, m], got {list(outputs.shape)}.")
        n, states, _ = outputs.shape
        if n < 2 or states < 2:
            raise ValueError(f"outputs: expected two images or more and two states or more, got {n} and {states}.")
        if labels.shape != (n,):
            raise ValueError(f"labels: expected one for each of the {n} images, [{n}], got {list(labels.shape)}.")
        if labels.is_floating_point() and not bool((labels == labels.round()).all()):
            raise ValueError(f"labels: expected integers, got {labels[labels != labels.round()][0].item():g}.")
        if self.space not in ("prob", "logit"):
            raise ValueError(f"space={self.space!r}: expected 'prob' or 'logit'.")
        outputs = outputs.detach().to("cpu", torch.float64).contiguous()
        bad = ~(outputs.abs() < _LARGEST)
        if bool(bad.any()):
            i, t, k = (int(index) for index in bad.nonzero()[0])
            raise ValueError(
                f"outputs: image {i}, state {t}, value {k} is {outputs[i, t, k].item():g}; "
                f"{int(bad.any(2).any(1).sum())} of {n} images have values that are not finite (or beyond {_LARGEST:g})."
            )
        object.__setattr__(self, "outputs", outputs)
        object.__setattr__(self, "labels", labels.detach().to("cpu", torch.int64).contiguous())

    @property
    def n_images(self) -> int:
        """N."""
        return len(self.outputs)

    @property
    def n_blocks(self) -> int:
        """T."""
        return self.outputs.shape[1] - 1

    @property
    def predictions(self) -> Tensor:
        """The class of the largest output at the last state, int64 `[N]`."""
        return self.outputs[:, -1].argmax(1)

    def __repr__(self) -> str:
        n, states, m = self.outputs.shape
        kind = "probabilities" if self.space == "prob" else "logits"
        blocks = "1 block" if states == 2 else f"{states - 1} blocks"
        return f"Orbits: {n} images of {len(set(self.labels.tolist()))} classes, {blocks}, {m} {kind} each"


def observe(
    target: nn.Module | Callable[[Tensor], Tensor],
    data: Any,
    *,
    blocks: str | Sequence[str] = "blocks.*",
    head: Head = "final",
    space: Space = "prob",
    steps: int | None = None,
    max_images: int | None = None,
    batch_size: int = 128,
) -> Orbits:
    """Observe the states of images on their way through a network's blocks (paper 5, §3–4).

    The network runs as it is (its own dtype and device; half precision in float32) in evaluation mode without
    autocast, and is left untouched; softmax and all that follows are float64. Batches are streamed: only the
    observations are kept. The last observation is the network's own output.

    The final head can be applied at any state, wherever the network has more than the head after it: the blocks still
    to come are skipped and all else runs (permutations between stages, pooling, norms, the head). That this is the
    network is checked on the first batch: its last state, put in its place, must give its output bit for bit.

    Args:
        target: A network with named blocks, or, with `steps`, any map φ of a batch to one of the same shape, to be
            iterated.
        data: `(x, y)` with images `[N, …]` and labels `[N]`; a dataset of such pairs; or an iterable of batches
            `(x, y)`, e.g. a DataLoader.
        blocks: Names of the blocks, by patterns where `*` stands for one part of a dotted name; they may come in any
            order, and one module may be called several times: states follow the calls.
        head: `"final"`, the network's own head at every state; `"probes"`, a linear one for each state, fitted to these
            data (`fit_probes` fits them to others); a callable of a state `[B, …]` that gives logits `[B, m]`; or a
            sequence of T + 1 such callables, one for each state.
        space: `"prob"`, softmax of the head's output, or `"logit"`, the output itself.
        steps: How often `target` is iterated; `None`: it is a network with blocks.
        max_images: Stop after so many images.
        batch_size: Images at a time, where `data` is no iterable of batches.

    Raises:
        ValueError: If a pattern matches nothing, blocks are called a varying number of times or lie in one another,
            states differ in size or the network cannot be continued from a state (and the head is `"final"`), or the
            data have no labels.
        TypeError: If an argument is of another kind.
        AnalysisError: `"not_finite"`: outputs are nan or infinite; the message names the image and the state.

    >>> from collections import OrderedDict
    >>> net = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), b=nn.Linear(4, 4), head=nn.Linear(4, 3)))
    >>> x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> orbits = observe(net, (x, y), blocks=["a", "b"], space="logit")
    >>> orbits.outputs.shape, torch.equal(orbits.outputs[:, 2], net(x).double())
    (torch.Size([5, 3, 3]), True)
    >>> torch.equal(orbits.outputs[:, 1], net.head(net.a(x)).double())
    True
    """
    if space not in ("prob", "logit"):
        raise ValueError(f"space={space!r}: expected 'prob' or 'logit'.")
    if max_images is not None and max_images < 2:
        raise ValueError(f"max_images={max_images!r}: expected an integer ≥ 2, or None.")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: expected a positive integer.")
    if isinstance(head, str) and head == "probes":
        from fpstab.orbits.probes import fit_probes

        head = fit_probes(target, data, blocks=blocks, steps=steps, max_images=max_images, batch_size=batch_size)
        kind = "probes"
    else:
        kind = _kind(head)
    if kind == "final" and steps is not None:
        raise ValueError("head='final': an iterated map has no head; give one, e.g. head=torch.nn.Flatten().")
    stream = Stream(target, blocks, steps)
    source = batches(data, batch_size, max_images)
    if kind == "final":
        found = stream.run(source, None)
    else:
        heads = [head] if callable(head) else list(head)
        found = stream.run(source, lambda states, _: _apply(head, states), heads)
    outputs = torch.cat([_stack(logits, y) for logits, y in found])
    if not bool(outputs.isfinite().all()):
        i, t, _ = (int(index) for index in (~outputs.isfinite()).nonzero()[0])
        count = int((~outputs.isfinite()).any(2).any(1).sum())
        message = (
            f"the head's output is not finite at image {i}, state {t} of {outputs.shape[1] - 1}, and in {count} of "
            f"{len(outputs)} images. Look at the weights (they may have diverged), or at the images."
        )
        raise AnalysisError(Status("not_finite", message))
    if space == "prob":
        if outputs.shape[2] == 1:
            raise ValueError("space='prob': the head has one output, whose softmax is 1. Use space='logit'.")
        outputs = outputs.softmax(2)
    return Orbits(outputs, torch.cat([y for _, y in found]), space, kind, tuple(stream.names), stream.status)


def _kind(head: Any) -> str:
    if isinstance(head, str):
        if head != "final":
            raise ValueError(f"head={head!r}: expected 'final', 'probes', a callable or a sequence of callables.")
        return head
    if callable(head):
        return "callable"
    if not isinstance(head, Sequence) or not head or not all(callable(each) for each in head):
        raise TypeError(f"head: expected 'final', 'probes', a callable or a sequence of callables, got {head!r}.")
    return "probes"


def _apply(head: Any, states: list[Tensor]) -> list[Tensor]:
    if callable(head):
        return [head(state) for state in states]
    if len(head) != len(states):
        raise ValueError(f"head: there are {len(states)} states, but {len(head)} heads.")
    return [each(state) for each, state in zip(head, states, strict=True)]


def _stack(logits: list[Tensor], y: Tensor) -> Tensor:
    """Outputs of a batch at every state as `[B, T+1, m]`, float64 on the CPU."""
    values = [first_tensor(value) for value in logits]
    if any(value.ndim < 2 or len(value) != len(y) or value.shape != values[0].shape for value in values):
        raise ValueError(f"head: expected [{len(y)}, m] at every state, got {[list(value.shape) for value in values]}.")
    return torch.stack([value.detach().flatten(1).to("cpu", torch.float64) for value in values], 1)


def _tensor(value: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(np.ascontiguousarray(value) if not isinstance(value, Tensor) else value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__}.") from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}.")
    return tensor
