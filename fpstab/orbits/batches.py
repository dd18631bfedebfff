"""Images with labels, from whatever holds them."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fpstab.maps import first_tensor


def batches(data: Any, batch_size: int, max_images: int | None = None) -> Iterator[tuple[Any, Tensor]]:
    """Batches `(x, y)` of whatever holds images and labels; labels int64 `[B]` on the CPU.

    Raises:
        ValueError: If there are no images or no labels, or they do not match.
        TypeError: If the data are of another kind.
    """
    remaining = math.inf if max_images is None else max_images
    empty = True
    for batch in _raw_batches(data, batch_size):
        x, y = _split(batch)
        take = int(min(len(x), remaining))
        remaining -= take
        if take:
            empty = False
            yield x[:take], y[:take]
        if remaining <= 0:
            break
    if empty:
        raise ValueError("data: there are no images.")


def _raw_batches(data: Any, batch_size: int) -> Iterator[Any]:
    if isinstance(data, tuple | list) and len(data) >= 2 and _is_array(data[0]) and _is_array(data[1]):
        x, y = (torch.as_tensor(part) for part in data[:2])
        if len(x) != len(y):
            raise ValueError(f"data: {len(x)} images, but {len(y)} labels.")
        for start in range(0, len(x), batch_size):
            yield x[start : start + batch_size], y[start : start + batch_size]
    elif isinstance(data, Dataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        for start in range(0, len(data), batch_size):
            yield torch.utils.data.default_collate([data[i] for i in range(start, min(start + batch_size, len(data)))])
    elif isinstance(data, Iterable) and not _is_array(data) and not isinstance(data, str | bytes):
        yield from data
    else:
        raise TypeError(
            f"data: expected (images, labels), a dataset or an iterable of batches, got {type(data).__name__}."
        )


def _split(batch: Any) -> tuple[Tensor, Tensor]:
    parts = list(batch.values() if isinstance(batch, dict) else batch) if not _is_array(batch) else [batch]
    if len(parts) < 2 or not _is_array(parts[1]):
        raise ValueError("data: a batch has no labels; expected (images, labels).")
    x, y = first_tensor(parts[0]), torch.as_tensor(parts[1]).detach().cpu()
    if y.ndim > 1 and y.shape[1:].numel() == 1:
        y = y.flatten()
    if y.shape != (len(x),):
        raise ValueError(f"labels: expected one class for each of {len(x)} images, [{len(x)}], got {list(y.shape)}.")
    if y.is_complex() or (y.is_floating_point() and not bool((y == y.round()).all())):
        raise ValueError(f"labels: expected integers, got {y.dtype} such as {y[y != y.round()][0].item():g}.")
    return x, y.to(torch.int64)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)
