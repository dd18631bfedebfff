"""The state of a fixed-point equation, a tensor or a tuple of tensors, as one row a sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

StateLike = Tensor | tuple[Tensor, ...]

COMPACTION = (
    "f must map a batch of any size: samples that have converged leave it. Hand what belongs to the samples over as "
    "args, which leave with them, or pass compact=False."
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a state lies in rows `[B, d]`.

    Attributes:
        shapes: Of each tensor of the state, without the batch.
        single: Whether the state is a tensor and not a tuple.
        dtype: Of the rows.
    """

    shapes: tuple[torch.Size, ...]
    single: bool
    dtype: torch.dtype

    @classmethod
    def of(cls, z0: StateLike) -> "Layout":
        """Read the layout from an initial state.

        Raises:
            TypeError: If it is not a floating tensor or a tuple of those, of one dtype and device.
            ValueError: If there is no batch dimension, or the parts disagree about it, or there is nothing in it.
        """
        parts = _parts(z0)
        if not parts or not all(isinstance(part, Tensor) and part.is_floating_point() for part in parts):
            kinds = ", ".join(f"{p.dtype}" if isinstance(p, Tensor) else type(p).__name__ for p in parts)
            raise TypeError(
                f"z0 is {type(z0).__name__} ({kinds}): expected a real floating tensor [B, ...] or a tuple of those."
            )
        if len({(part.dtype, part.device) for part in parts}) > 1:
            kinds = ", ".join(f"{part.dtype} on {part.device}" for part in parts)
            raise TypeError(f"The parts of z0 are {kinds}: expected one dtype and one device.")
        if any(part.ndim == 0 for part in parts) or len({len(part) for part in parts}) > 1:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"z0 has shape {shapes}: expected a batch dimension first, the same in all parts.")
        if not len(parts[0]) or not sum(part.numel() for part in parts):
            raise ValueError(f"z0 has shape {tuple(parts[0].shape)}: there is nothing to solve for.")
        return cls(tuple(part.shape[1:] for part in parts), isinstance(z0, Tensor), parts[0].dtype)

    def pack(self, state: StateLike) -> Tensor:
        """Rows `[B, d]` of a state in this layout, in this dtype."""
        rows = [part.flatten(1) if part.ndim > 1 else part.unsqueeze(1) for part in _parts(state)]
        return (rows[0] if len(rows) == 1 else torch.cat(rows, 1)).to(self.dtype)

    def unpack(self, rows: Tensor) -> StateLike:
        """The state whose rows these are."""
        if self.single:
            if rows.shape[1:] == self.shapes[0]:
                return rows
            return rows.reshape(rows.shape[0], *self.shapes[0])
        sizes = [shape.numel() for shape in self.shapes]
        return tuple(
            part.reshape(rows.shape[0], *shape)
            for part, shape in zip(torch.split(rows, sizes, 1), self.shapes, strict=True)
        )

    def check(self, state: object, rows: int) -> None:
        """Refuse what f returned if it has not this layout.

        Raises:
            TypeError: If it is not a tensor, or a tuple of as many tensors as the state.
            ValueError: If a shape differs.
        """
        if isinstance(state, Tensor) is not self.single or not all(isinstance(part, Tensor) for part in _parts(state)):
            what = "a tensor" if self.single else f"a tuple of {len(self.shapes)} tensors"
            raise TypeError(f"f returned {type(state).__name__}: expected {what}, like z0.")
        shapes = [tuple(part.shape) for part in _parts(state)]
        expected = [(rows, *shape) for shape in self.shapes]
        if shapes != expected:
            raise ValueError(
                f"f returned the shapes {shapes} for a state of shapes {expected}: expected the same. {COMPACTION}"
            )


def check_args(args: Sequence[object], batch: int) -> None:
    """Refuse arguments of f that are tensors without the batch dimension.

    Raises:
        TypeError: If `args` is not a tuple or list.
        ValueError: If a tensor in it has another first dimension than the state.
    """
    if not isinstance(args, tuple | list):
        raise TypeError(f"args is {type(args).__name__}: expected a tuple; write args=(x,).")
    for i, arg in enumerate(args):
        if isinstance(arg, Tensor) and (arg.ndim == 0 or len(arg) != batch):
            raise ValueError(
                f"args[{i}] has shape {tuple(arg.shape)} and the batch is {batch}: expected [{batch}, ...]. Tensors "
                "that all samples share belong into f (a parameter, a buffer, a closure)."
            )


def _parts(state: object) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
