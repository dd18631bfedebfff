"""The empirical spectral distribution (ESD) of one weight: the squared singular values of its matrices."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpstab.results import OK, AnalysisError, Status

Conv = Literal["flatten", "slices"]

_SMALL = 32  # rows below which a batch of matrices is quicker than one after the other
_CHUNK = 1 << 22  # elements that are held in float64 at a time while a Gram matrix is summed: 32 MiB


@dataclass(frozen=True, slots=True, eq=False)
class WeightSpectrum:
    """The eigenvalues of WᵀW, the squared singular values of a weight.

    Attributes:
        eigenvalues: Positive eigenvalues, ascending, float64 `[n]`; those of several matrices (slices of a
            convolution, groups) are pooled.
        n_zero: Eigenvalues that were dropped because they are zero to rounding (see `threshold`).
        matrix_shape: `(p, n)`, the shape of one matrix.
        n_matrices: How many matrices were pooled.
        threshold: Eigenvalues at or below λ_max · max(p, n) · eps(float64) count as zero.
        status: `"ok"`; `"rank_deficient"` (there are eigenvalues, some were dropped: usable);
            `"constant"` (all eigenvalues are equal to the precision of the weight's dtype, as of an
            orthogonal matrix); or, with no eigenvalues, `"all_zero"`, `"empty"`, `"not_finite"`, `"meta"`,
            `"quantized"`, `"out_of_range"`, `"no_convergence"`.
    """

    eigenvalues: Tensor
    n_zero: int
    matrix_shape: tuple[int, int]
    n_matrices: int
    threshold: float
    status: Status


def weight_spectrum(
    weight: Tensor | NDArray[np.generic], *, conv: Conv = "flatten", groups: int = 1, throw: bool = True
) -> WeightSpectrum:
    """Compute the eigenvalues of WᵀW of a weight in float64, whatever its dtype.

    The smaller of the two Gram matrices is summed in float64 and diagonalised: about twice as fast as a
    singular value decomposition, and exact to rounding where it matters. (A float32 Gram matrix is not: it
    shifts the exponent of a heavy tail by up to 0.2.) Defined in papers 1 §III and 2 §II.

    A weight with more than two dimensions is read as that of a convolution, `[out, in/groups, *kernel]`. A
    transposed convolution, `[in, out/groups, *kernel]`, is the adjoint of the convolution that its weight
    describes, and adjoints share their singular values: pass it as it is.

    Args:
        weight: `[p, n]`, or `[out, in/groups, *kernel]`. Quantised and sparse weights are expanded.
        conv: `"flatten"`: one matrix out × (in · kernel); `"slices"`: one matrix out × in for each kernel
            position, their eigenvalues pooled.
        groups: Groups of a convolution: matrices of their own, pooled.
        throw: Raise where there are no eigenvalues to return; otherwise say so in the status.

    Raises:
        ValueError: If `conv` is unknown, `weight` has fewer than two dimensions, or `groups` does not
            divide its first one.
        AnalysisError: If `throw` and the weight has no spectrum (see `WeightSpectrum.status`).

    >>> weight_spectrum(torch.diag(torch.tensor([1.0, 2.0, 3.0]))).eigenvalues.tolist()
    [1.0, 4.0, 9.0]
    """
    if conv not in ("flatten", "slices"):
        raise ValueError(f"conv={conv!r} is unknown: expected 'flatten' or 'slices'.")
    # NumPy arrays are copied: torch takes neither read-only ones nor negative strides
    tensor = weight.detach() if isinstance(weight, Tensor) else torch.as_tensor(np.array(weight, order="C"))
    if tensor.ndim < 2:
        raise ValueError(f"A weight of shape {tuple(tensor.shape)} is not a matrix: expected at least 2 dimensions.")
    if groups < 1 or tensor.shape[0] % groups:
        raise ValueError(f"groups={groups} does not divide the first dimension of {tuple(tensor.shape)}.")
    with torch.no_grad():
        spectrum = _spectrum(tensor, conv, groups)
    if throw and not spectrum.eigenvalues.numel():
        raise AnalysisError(spectrum.status)
    return spectrum


def _spectrum(tensor: Tensor, conv: Conv, groups: int) -> WeightSpectrum:
    dtype = tensor.dtype
    status, tensor = _readable(tensor)
    matrices = _matrices(tensor, conv, groups)
    k, p, n = matrices.shape
    if status.ok and not tensor.numel():
        status = Status("empty", f"The weight has shape {tuple(tensor.shape)}: no elements, no spectrum.")
    if not status.ok:
        return WeightSpectrum(_none(), 0, (p, n), k, 0.0, status)

    size = float(max(map(abs, torch.aminmax(torch.view_as_real(tensor) if tensor.is_complex() else tensor))))
    if not np.isfinite(size):
        status = Status("not_finite", _count_not_finite(tensor))
        return WeightSpectrum(_none(), 0, (p, n), k, 0.0, status)
    if size == 0.0:
        status = Status("all_zero", f"All {tensor.numel()} weights are zero: the spectrum is a point at 0.")
        return WeightSpectrum(_none(), k * min(p, n), (p, n), k, 0.0, status)

    # A power of two: exact, and no square over- or underflows (of the smallest weights the inverse would).
    scale = 2.0 ** -max(int(np.frexp(size)[1]), -1000)
    try:
        pooled = _eigenvalues(matrices, scale)
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        status = Status("no_convergence", f"The eigenvalue solver failed: {error}")
        return WeightSpectrum(_none(), 0, (p, n), k, 0.0, status)
    values = pooled.sort().values if k > 1 else pooled
    threshold = float(values[-1]) * max(p, n) * torch.finfo(torch.float64).eps
    positive = values[values > threshold]
    n_zero = values.numel() - positive.numel()
    status = _shape_of(positive, n_zero, dtype, min(p, n), max(p, n))
    positive, threshold = positive / scale / scale, threshold / scale / scale
    if not (float(positive[0]) >= torch.finfo(torch.float64).tiny and np.isfinite(float(positive[-1]))):
        status = Status("out_of_range", f"The squares of weights of size {size:g} leave float64: rescale them.")
        positive = _none()
    return WeightSpectrum(positive, n_zero, (p, n), k, threshold, status)


def _readable(tensor: Tensor) -> tuple[Status, Tensor]:
    """A dense tensor of real or complex floats, or the reason why there is none."""
    if tensor.is_meta:
        return Status("meta", "The weight is on the meta device: it has a shape but no values yet."), tensor
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return (
            Status(
                "quantized",
                f"The weight is stored as {tensor.dtype}, integers without their scale: dequantise it first.",
            ),
            tensor,
        )
    if tensor.element_size() == 1:  # float8: no arithmetic is defined on it
        tensor = tensor.float()
    if tensor.device.type == "mps":  # has no float64
        tensor = tensor.cpu()
    return OK, tensor.resolve_conj()


def _matrices(tensor: Tensor, conv: Conv, groups: int) -> Tensor:
    """View a weight as matrices `[k, p, n]`."""
    grouped = tensor.reshape(groups, tensor.shape[0] // groups, *tensor.shape[1:])
    if tensor.ndim == 2 or conv == "flatten":
        return grouped.flatten(2)
    slices = grouped.flatten(3)  # [groups, out/groups, in/groups, kernel]
    return slices.permute(0, 3, 1, 2).flatten(0, 1)


def _eigenvalues(matrices: Tensor, scale: float) -> Tensor:
    """Eigenvalues of the smaller Gram matrices of `scale * matrices` in float64, pooled, on the CPU."""
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    if wide.device.type != "cpu" or wide.shape[1] < _SMALL:
        pooled: Tensor = torch.linalg.eigvalsh(_gram(wide, scale)).flatten().cpu()
        return pooled
    # numpy knows a product with the own transpose, and takes half the time that torch does
    return torch.from_numpy(np.concatenate([np.linalg.eigvalsh(_gram_on_cpu(matrix, scale)) for matrix in wide]))


def _gram(wide: Tensor, scale: float) -> Tensor:
    """Sum the Gram matrices `[k, p, p]` of `wide` `[k, p, n]`, a chunk of columns at a time."""
    k, rows, columns = wide.shape
    gram = torch.zeros(k, rows, rows, dtype=_double(wide), device=wide.device)
    step = max(1, _CHUNK // (k * rows))
    for start in range(0, columns, step):
        chunk = wide[:, :, start : start + step].to(gram.dtype, copy=True).mul_(scale)
        gram.baddbmm_(chunk, chunk.mH)
    return gram


def _gram_on_cpu(wide: Tensor, scale: float) -> NDArray[Any]:
    """Sum the Gram matrix `[p, p]` of `wide` `[p, n]`, a chunk of columns at a time."""
    rows, columns = wide.shape
    step = max(1, _CHUNK // rows)
    gram: NDArray[Any] | None = None
    for start in range(0, columns, step):
        chunk = wide[:, start : start + step].to(_double(wide), copy=True, memory_format=torch.contiguous_format)
        array = chunk.mul_(scale).numpy()
        if gram is None:
            gram = array @ array.conj().T
        else:
            gram += array @ array.conj().T  # without a name: it would be kept beside the next one
    assert gram is not None
    return gram


def _double(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _shape_of(positive: Tensor, n_zero: int, dtype: torch.dtype, short: int, long: int) -> Status:
    # The squared singular values of an orthogonal matrix spread by 1.2 eps √(short/long) when it is rounded to
    # its dtype (those of a Gaussian one by 4 √(short/long)), by up to some short · eps when it is computed in
    # float32, or float64; the Gram matrix adds long · eps of float64.
    float64 = torch.finfo(torch.float64).eps
    eps = torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0
    tolerance = 4 * eps * (short / long) ** 0.5 + 4 * short * min(eps, torch.finfo(torch.float32).eps) + long * float64
    if positive.numel() > 1 and float(positive[-1] / positive[0]) - 1 <= tolerance:
        return Status(
            "constant",
            f"All {positive.numel()} positive eigenvalues are equal to {dtype} precision (an orthogonal matrix "
            "or a multiple of one): there is no tail.",
        )
    if n_zero:
        return Status("rank_deficient", f"{n_zero} of {n_zero + positive.numel()} eigenvalues are zero to rounding.")
    return OK


def _count_not_finite(tensor: Tensor) -> str:
    n_nan, n_bad = int(torch.isnan(tensor).sum()), int((~torch.isfinite(tensor)).sum())
    return f"{n_nan} NaN and {n_bad - n_nan} infinite values among {tensor.numel()} weights."


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.float64, device="cpu")
