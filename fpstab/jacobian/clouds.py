"""All eigenvalues and singular values of the Jacobian of a map, and the tail of their distribution."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.esd import TailVerdict, tail_verdict
from fpstab.jacobian.points import Target, finite_rows, statistic, status_of
from fpstab.jacobian.products import jacobian_matrix
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ENTRIES = 2**23  # of the Jacobians that are in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class EigenvalueCloud:
    """All eigenvalues of the Jacobian of a map at B points.

    Attributes:
        eigenvalues: `[B, n]`, complex128, the largest moduli first; NaN where the map is not finite.
        status: `"ok"`, or `"nonfinite"`: at some points.
    """

    eigenvalues: Tensor
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log: spectral radii, and the mean number of eigenvalues outside the unit circle."""
        moduli = self.eigenvalues.abs()
        moduli = moduli[torch.isfinite(moduli).all(1)]
        return {
            "rho_max": statistic(moduli[:, :1], torch.max),
            "rho_mean": statistic(moduli[:, :1], torch.mean),
            "n_expanding_mean": statistic((moduli > 1).sum(1).double(), torch.mean),
        }

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the eigenvalues in the complex plane, with the unit circle."""
        from fpstab.jacobian.plots import plot_cloud

        return plot_cloud(self.eigenvalues, ax)


def jacobian_eigenvalues(map: Target, x: Any, *, throw: bool = True) -> EigenvalueCloud:  # noqa: A002
    """All eigenvalues of a map's Jacobian at every point, for pictures (paper 3).

    Of an autoencoder (`SelfMap.split`) those of J_enc J_dec are computed, of the code's size; the others are zero.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        x: Points `[B, *shape]` or `[B, n]`.
        throw: Raise where a point has no result; otherwise say so in the status.

    Raises:
        ValueError: If the map is not from a space to itself.
        AnalysisError: If `throw`, and the map or its Jacobian is not finite at some point.

    >>> turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> sorted(jacobian_eigenvalues(lambda x: x @ turn.T, torch.zeros(1, 2)).eigenvalues[0].imag.tolist())
    [-1.0, 1.0]
    """
    function = as_map(map, x)
    function.require_square("Eigenvalues of the Jacobian")
    points = function.flatten(x)
    finite = finite_rows(function, points)
    n = function.n_in
    found = torch.full((len(points), n), complex(torch.nan, torch.nan), dtype=torch.complex128)
    parts = [_eigenvalues(matrices) for matrices in _matrices(function, points[finite], through_code=True)]
    if parts:
        values = torch.cat(parts)
        found[finite.cpu()] = torch.nn.functional.pad(values, (0, n - values.shape[1]))
    good = torch.isfinite(found.real).all(1)
    return EigenvalueCloud(found, _finish(function, good, throw))


@dataclass(frozen=True, slots=True, eq=False)
class SingularValueCloud:
    """All singular values of the Jacobian of a map at B points.

    Attributes:
        singular_values: `[B, min(m, n)]`, the largest first; NaN where the map is not finite.
        shape: `(m, n)`, of J.
        status: `"ok"`, or `"nonfinite"`: at some points.
    """

    singular_values: Tensor
    shape: tuple[int, int]
    status: Status = OK

    @property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues of JJᵀ `[B, m]`, the largest first."""
        m, n = self.shape
        return torch.nn.functional.pad(self.singular_values**2, (0, max(m - n, 0)))

    def scalars(self) -> dict[str, float]:
        """The numbers to log: largest singular values, and the mean share of those that expand."""
        values = self.singular_values[torch.isfinite(self.singular_values).all(1)]
        return {
            "sigma_max": statistic(values[:, :1], torch.max),
            "sigma_mean": statistic(values[:, :1], torch.mean),
            "n_expanding_mean": statistic((values > 1).sum(1).double(), torch.mean),
        }

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the density of the eigenvalues of JJᵀ, logarithmic, all points together."""
        from fpstab.jacobian.plots import plot_squared_singular_values

        return plot_squared_singular_values(self, ax)


def jacobian_singular_values(map: Target, x: Any, *, throw: bool = True) -> SingularValueCloud:  # noqa: A002
    """All singular values of a map's Jacobian at every point: the ESD of JJᵀ is that of their squares (paper 1 §V).

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches, also between spaces of different sizes.
        x: Points `[B, *shape]` or `[B, n]`.
        throw: Raise where a point has no result; otherwise say so in the status.

    Raises:
        AnalysisError: If `throw`, and the map or its Jacobian is not finite at some point.

    >>> jacobian_singular_values(lambda x: 2 * x[:, :1] - x[:, 1:], torch.zeros(1, 2)).eigenvalues
    tensor([[5.0000]], dtype=torch.float64)
    """
    function = as_map(map, x)
    points = function.flatten(x)
    finite = finite_rows(function, points)
    parts = [_or_nan(torch.linalg.svdvals, matrices) for matrices in _matrices(function, points[finite])]
    size = min(function.n_in, function.n_out)
    values = torch.cat(parts) if parts else torch.empty(0, size, dtype=torch.float64)
    found = torch.full((len(points), size), torch.nan, dtype=torch.float64)
    found[finite.cpu()] = values
    status = _finish(function, torch.isfinite(found).all(1), throw)
    return SingularValueCloud(found, (function.n_out, function.n_in), status)


def jacobian_tails(map: Target, x: Any, *, generator: torch.Generator | None = None) -> tuple[TailVerdict, ...]:  # noqa: A002
    """The verdict on the tail of the spectrum of JJᵀ at every point: light, or heavy as papers 1 and 2 have it.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches, also between spaces of different sizes.
        x: Points `[B, *shape]` or `[B, n]`; each costs a full decomposition of its Jacobian.
        generator: Shuffles the entries for the cause of a heavy tail; by default one with seed 0.

    Returns:
        What `fpstab.esd.tail_verdict` says of each J; where it is not finite, its status says so.

    >>> W = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> [str(verdict) for verdict in jacobian_tails(lambda x: x @ W.T, torch.zeros(1, 60))]
    ['light']
    """
    function = as_map(map, x)
    return tuple(
        tail_verdict(matrix, generator=generator, throw=False)
        for matrices in _matrices(function, function.flatten(x))
        for matrix in matrices
    )


def _matrices(function: SelfMap, x: Tensor, through_code: bool = False) -> Iterator[Tensor]:
    """The Jacobians at the points, some at a time; of an autoencoder, if asked for, J_enc J_dec."""
    if through_code and function.split is not None and len(x):
        encode, decode = function.split
        with analysis_modes(), torch.no_grad():
            z = encode(x)
        if z.shape[1] < x.shape[1]:
            for some, codes in zip(_chunks(x, z.shape[1]), _chunks(z, x.shape[1]), strict=True):
                yield torch.bmm(jacobian_matrix(encode, some), jacobian_matrix(decode, codes))
            return
    for some in _chunks(x, function.n_out):
        yield jacobian_matrix(function, some)


def _chunks(x: Tensor, m: int) -> tuple[Tensor, ...]:
    return torch.split(x, max(1, _ENTRIES // max(1, m * x.shape[1]))) if len(x) else ()


def _eigenvalues(matrices: Tensor) -> Tensor:
    values = _or_nan(torch.linalg.eigvals, matrices)
    return values.gather(1, values.abs().argsort(dim=1, descending=True, stable=True))


def _or_nan(decompose: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    """A decomposition, which would refuse the whole batch for one matrix that is not finite; on the CPU."""
    finite = torch.isfinite(matrices).all(2).all(1)
    values = decompose(torch.where(finite[:, None, None], matrices, 0.0))
    return torch.where(finite[:, None], values, torch.nan).cpu()


def _finish(function: SelfMap, good: Tensor, throw: bool) -> Status:
    status = status_of(function.name, good, torch.ones_like(good), 0.0, 0)
    if throw and not status.ok:
        raise AnalysisError(status)
    return status
