"""The norm ‖J‖₂ of the Jacobian of a map at many points, with its error."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fpstab.jacobian.points import (
    DENSE,
    Target,
    check_arguments,
    finite_rows,
    spread,
    start_vectors,
    statistic,
    status_of,
)
from fpstab.jacobian.products import JacobianProducts, jacobian_matrix
from fpstab.krylov import golub_kahan
from fpstab.maps import SelfMap, as_map
from fpstab.results import OK, AnalysisError, Status

NormMethod = Literal["auto", "dense", "golub_kahan"]


@dataclass(frozen=True, slots=True, eq=False)
class JacobianNorm:
    """The norm ‖J‖₂ of the Jacobian of a map at B points, its largest singular value.

    Attributes:
        sigma: `[B]`, never above the true one but for rounding; NaN where the map or a product is not finite.
        sigma_error: Estimate of its error `[B]`.
        converged: Whether `sigma_error` ≤ `rtol`·`sigma` `[B]`.
        n_products: Products with J or Jᵀ that each point took part in `[B]`.
        method: `"dense"` or `"golub_kahan"`.
        rtol: The relative error that was asked for.
        status: As for `JacobianSpectrum`; `"no_double_backward"`: there are no products Jv.
    """

    sigma: Tensor
    sigma_error: Tensor
    converged: Tensor
    n_products: Tensor
    method: str
    rtol: float
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log: statistics over the finite points, NaN if there are none."""
        sigma = self.sigma[torch.isfinite(self.sigma)]
        return {
            "sigma_max": statistic(sigma, torch.max),
            "sigma_mean": statistic(sigma, torch.mean),
            "share_converged": statistic(self.converged.double(), torch.mean),
        }


def jacobian_norm(
    map: Target,  # noqa: A002
    x: Any,
    *,
    method: NormMethod = "auto",
    rtol: float = 1e-3,
    max_products: int = 300,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> JacobianNorm:
    """‖J‖₂ of a map's Jacobian at every point, also between spaces of different sizes.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches.
        x: Points `[B, *shape]` or `[B, n]`.
        method: `"dense"`: all of J; `"golub_kahan"`: by products; `"auto"`: the cheaper one, or the one that can be had.
        rtol: Relative error to reach.
        max_products: Products at most for each point.
        generator: Draws the start vector, one for all points; by default one with seed 0.
        throw: Raise where a point has no result; otherwise say so in the status.

    Raises:
        ValueError: If an argument is out of range.
        AnalysisError: If `throw`, and at some point there is no result.

    >>> jacobian_norm(lambda x: 3 * x[:, :2] + 4 * x[:, 1:], torch.zeros(1, 3)).sigma
    tensor([6.0828], dtype=torch.float64)
    """
    check_arguments(method, get_args(NormMethod), rtol, max_products)
    function = as_map(map, x)
    points = function.flatten(x)
    finite = finite_rows(function, points)
    inside = points[finite]
    smaller = min(function.n_in, function.n_out)
    status = OK
    used = "dense" if method == "dense" or (method == "auto" and smaller <= DENSE) else "golub_kahan"
    if used == "golub_kahan":
        try:
            products = JacobianProducts(function, inside)
            found = golub_kahan(
                products.jvp,
                products.vjp,
                start_vectors(function.n_in, inside, generator),
                tol=rtol,
                max_products=max_products,
                take=lambda rows: (lambda p: (p.jvp, p.vjp))(products.take(rows)),
            )
            values, errors, converged, counts = found.sigma, found.error, found.converged, found.n_products
        except AnalysisError as error:
            status = error.status
            if method == "auto" and function.n_out <= max_products:
                used, status = "dense", OK
    if used == "dense":
        values, errors, counts = _dense_norm(function, inside)
        converged = torch.isfinite(values)
    elif not status.ok:
        values = errors = inside.new_full((len(inside),), torch.nan)
        converged, counts = torch.zeros(len(inside), dtype=torch.bool), torch.zeros(len(inside), dtype=torch.int64)
    sigma = spread(values, finite, torch.nan)
    everywhere = spread(converged, finite, False)
    if status.ok:
        status = status_of(function.name, torch.isfinite(sigma), everywhere, rtol, max_products)
    if throw and not status.ok:
        raise AnalysisError(status)
    return JacobianNorm(
        sigma=sigma,
        sigma_error=spread(errors, finite, torch.nan),
        converged=everywhere,
        n_products=spread(counts, finite, 0),
        method=used,
        rtol=rtol,
        status=status,
    )


def _dense_norm(function: SelfMap, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    J = jacobian_matrix(function, x)
    finite = torch.isfinite(J).all(2).all(1)
    sigma = torch.linalg.matrix_norm(torch.where(finite[:, None, None], J, 0.0), 2)
    sigma = torch.where(finite, sigma, torch.nan)
    error = 10 * max(J.shape[1:]) * torch.finfo(J.dtype).eps * sigma
    return sigma, error, torch.full_like(finite, min(J.shape[1:]), dtype=torch.int64)
