"""Samples of positive numbers, as eigenvalues come: sorted, and checked at the door; and the weights themselves."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fpstab.results import OK, Status

MIN_EIGENVALUES = 20  # below this no exponent and no verdict is given

Floats = NDArray[np.float64]


def float_array(values: Tensor | ArrayLike) -> Floats:
    """Values of any shape and real dtype as float64.

    Raises:
        TypeError: If they are complex.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().resolve_conj()
        values = (values if values.is_complex() else values.double()).numpy()
    array = np.asarray(values)
    if np.iscomplexobj(array):
        raise TypeError(f"{array.dtype} values have no order: pass their absolute values.")
    return array.astype(np.float64, copy=False)


def dense(weight: Tensor | NDArray[np.generic]) -> Tensor:
    """A weight as a strided tensor that NumPy can share: read-only arrays are copied, other storage is expanded."""
    tensor = weight.detach() if isinstance(weight, Tensor) else torch.as_tensor(np.array(weight, order="C"))
    tensor = tensor.dequantize() if tensor.is_quantized else tensor
    tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
    return tensor.resolve_conj().resolve_neg()


def sorted_sample(values: Tensor | ArrayLike) -> Floats:
    """A one-dimensional sample, ascending.

    Raises:
        ValueError: If it has another number of dimensions.
        TypeError: If it is complex.
    """
    array = float_array(values)
    if array.ndim != 1:
        raise ValueError(f"Expected a one-dimensional sample, got shape {array.shape}.")
    return np.sort(array)


def positive_sample(values: Floats) -> Status:
    """Whether a sorted sample is finite and positive: `"ok"`, `"not_finite"` or `"not_positive"`."""
    if not np.isfinite(values).all():
        return Status("not_finite", f"{int((~np.isfinite(values)).sum())} of {values.size} values are not finite.")
    if values.size and values[0] <= 0:
        return Status(
            "not_positive",
            f"{int((values <= 0).sum())} of {values.size} values are not positive: pass the positive eigenvalues.",
        )
    return OK
