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
        self._size = size
        self._from_loop, self._kept = isinstance(points, str), False
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

    def offer(self, batch: Any, kept: bool = True) -> None:
        """Clone a batch of the loop, if there is none yet; checkpoints keep it, unless it can be read again."""
        if not self.ready:
            self.batch = tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, batch)
            self._kept = kept

    def forget(self) -> None:
        """Wait for a batch of the loop again, unless the points were given."""
        if self._from_loop:
            self.batch = None

    def state_dict(self) -> Any:
        """The points that a batch of the loop gave, `None` if there are none or they cannot be kept.

        A resumed training has no sanity check, whose batch was the first: without this it would look elsewhere.
        """
        if not self._from_loop or not self._kept or not self.ready:
            return None
        try:
            return _plain(self.batch, self._size)
        except TypeError:
            return None

    def load_state_dict(self, state: Any) -> None:
        """Look at the points of an earlier run, if it kept them."""
        if self._from_loop and state is not None:
            self.batch, self._kept = state, True


def _plain(value: Any, size: int) -> Any:
    """The first rows, on the CPU, in builtins, as Lightning loads them.

    Raises:
        TypeError: If there is something else in the batch.
    """
    if type(value) is Tensor:
        return (value[:size] if value.ndim else value).cpu().clone()  # of a view the whole would be saved
    if type(value) is dict:
        return {key: _plain(each, size) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(each, size) for each in value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a {type(value).__name__} is not kept")
