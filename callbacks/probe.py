"""The points at which a monitor looks at a network."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset


class Probe:
    """A fixed batch: given, or cloned from the first batch that the loop brings. No loader is ever iterated.

    Args:
        points: A tensor, a map-style dataset (its first `size` items, collated), or `"batch"`: the first
            batch of validation, or of training where there is none.
        size: How many points of a dataset.

    Raises:
        ValueError: If `points` is another string.
        TypeError: If `points` is something else.
    """

    def __init__(self, points: Tensor | Dataset[Any] | Literal["batch"] = "batch", size: int = 128) -> None:
        self.batch: Any = None
        if isinstance(points, Tensor):
            self.batch = points.detach().clone()
        elif isinstance(points, Dataset):
            count = min(size, len(points))  # type: ignore[arg-type]
            self.batch = torch.utils.data.default_collate([points[i] for i in range(count)])
        elif isinstance(points, str):
            if points != "batch":
                raise ValueError(f"points={points!r}: expected a tensor, a dataset or 'batch'.")
        else:
            raise TypeError(f"points: expected a tensor, a dataset or 'batch', got {type(points).__name__}.")

    @property
    def ready(self) -> bool:
        """Whether there is a batch."""
        return self.batch is not None

    def offer(self, batch: Any) -> None:
        """Clone a batch of the loop, if none is kept yet."""
        if not self.ready:
            self.batch = tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, batch)
