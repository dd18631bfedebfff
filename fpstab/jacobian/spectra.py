"""Spectral radius of the Jacobian of a map at many points, each with its error."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from fpstab.jacobian.norms import JacobianNorm, jacobian_norm
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
from fpstab.krylov import NON_NORMAL, WHOLE, LeadingEigenvalue, Operator, arnoldi, leading_eigenvalue
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Method = Literal["auto", "dense", "arnoldi", "bottleneck"]


@dataclass(frozen=True, slots=True, eq=False)
class JacobianSpectrum:
    """The leading eigenvalue of the Jacobian J of a map at B points, and its norm where asked for.

    Attributes:
        rho: Spectral radius ρ(J) `[B]`; NaN where the map or a product is not finite.
        rho_error: Estimate of its error `[B]`.
        eigenvalue: The eigenvalue of that modulus `[B]`, complex128; of a pair, the one with positive imaginary part.
        converged: Whether `rho_error` ≤ `rtol`·`rho` `[B]`.
        non_normal: Whether an eigenvalue's condition number exceeds 50 `[B]`, as far as the Krylov space shows: J is far
            from normal, ‖Jᵏ‖ may grow long before it follows ρᵏ, and ρ is known with less certainty.
        condition: What scales residuals to errors `[B]`: the condition number of the leading eigenvalue; where
            `non_normal`, that of the matrix of all eigenvectors.
        sigma: ‖J‖₂ `[B]`, never above the true one but for rounding; `None` if not asked for.
        sigma_error: Estimate of its error `[B]`.
        n_products: Products with J or Jᵀ that each point took part in `[B]`.
        method: How it was computed: `"dense"`, `"arnoldi"` or `"bottleneck"`.
        rtol: The relative error that was asked for.
        status: `"ok"`; `"nonfinite"`: at some points; `"not_converged"`: at some points, within the products allowed.
    """

    rho: Tensor
    rho_error: Tensor
    eigenvalue: Tensor
    converged: Tensor
    non_normal: Tensor
    condition: Tensor
    sigma: Tensor | None
    sigma_error: Tensor | None
    n_products: Tensor
    method: str
    rtol: float
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log: statistics over the finite points, NaN if there are none."""
        rho = self.rho[torch.isfinite(self.rho)]
        numbers = {
            "rho_max": statistic(rho, torch.max),
            "rho_mean": statistic(rho, torch.mean),
            "rho_median": statistic(rho, torch.median),
            "rho_error_max": statistic(self.rho_error[torch.isfinite(self.rho)], torch.max),
            "share_expanding": statistic((rho > 1).double(), torch.mean),
            "share_non_normal": statistic(self.non_normal.double(), torch.mean),
            "share_converged": statistic(self.converged.double(), torch.mean),
        }
        if self.sigma is not None:
            sigma = self.sigma[torch.isfinite(self.sigma)]
            numbers |= {"sigma_max": statistic(sigma, torch.max), "sigma_mean": statistic(sigma, torch.mean)}
        return numbers

    def table(self) -> list[dict[str, float | int | bool]]:
        """One row a point."""
        rows: list[dict[str, float | int | bool]] = []
        for i, value in enumerate(self.eigenvalue.tolist()):
            row: dict[str, float | int | bool] = {
                "point": i,
                "rho": float(self.rho[i]),
                "rho_error": float(self.rho_error[i]),
                "eigenvalue_real": value.real,
                "eigenvalue_imag": value.imag,
                "converged": bool(self.converged[i]),
                "condition": float(self.condition[i]),
                "n_products": int(self.n_products[i]),
            }
            if self.sigma is not None and self.sigma_error is not None:
                row |= {"sigma": float(self.sigma[i]), "sigma_error": float(self.sigma_error[i])}
            rows.append(row)
        return rows

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the leading eigenvalues in the complex plane, with the unit circle."""
        from fpstab.jacobian.plots import plot_leading

        return plot_leading(self, ax)


def jacobian_spectrum(
    map: Target,  # noqa: A002
    x: Any,
    *,
    sigma: bool = False,
    method: Method = "auto",
    rtol: float = 1e-3,
    max_products: int = 300,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> JacobianSpectrum:
    """The spectral radius of a map's Jacobian at every point, with its error (papers 1 §V, 2 §V, 3).

    By Arnoldi's method on Jᵀ, all points at once, from products of a kept autograd graph; points that are done leave
    the batch. Rayleigh quotients of a power iteration, which others use, are wrong where the leading eigenvalues are a
    complex pair. The error is the Ritz residual times ten times the eigenvalue's condition number (of all
    eigenvectors, where J is far from normal): a residual alone is no error. Other Ritz values that have not settled and
    may yet grow above it are part of the error. It is an estimate: as with every Krylov method, that no larger eigenvalue
    has stayed unseen is likely, not certain.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        x: Points `[B, *shape]` or `[B, n]`.
        sigma: Also compute ‖J‖₂, to the same relative error.
        method: `"dense"`: all of J, by n products; `"arnoldi"`; `"bottleneck"`: Arnoldi in the code of an autoencoder,
            whose eigenvalues J_enc J_dec are those of J but for zeros (needs `SelfMap.split`); `"auto"`: the cheapest.
            Points at which that does not converge are done again densely, if n ≤ `max_products`.
        rtol: Relative error of ρ (and of ‖J‖₂) to reach: 1e-3 to log, 1e-8 to tell attracting from repelling.
        max_products: Products at most for each point, by each method. Below n, points whose leading moduli cluster may
            be left without a result.
        generator: Draws the start vector, one for all points; by default one with seed 0.
        throw: Raise where a point has no result; otherwise say so in the status.

    Raises:
        ValueError: If the map is not from a space to itself (see `jacobian_norm`), or an argument is out of range.
        AnalysisError: If `throw`, and at some point the Jacobian is not finite or the method does not converge.

    >>> spiral = torch.tensor([[0.0, -0.9], [0.9, 0.0]], dtype=torch.float64)
    >>> spectrum = jacobian_spectrum(lambda x: torch.tanh(x @ spiral.T), torch.zeros(1, 2))
    >>> spectrum.rho, spectrum.eigenvalue
    (tensor([0.9000], dtype=torch.float64), tensor([0.+0.9000j], dtype=torch.complex128))
    """
    check_arguments(method, get_args(Method), rtol, max_products)
    function = as_map(map, x)
    function.require_square("Eigenvalues of the Jacobian")
    if method == "bottleneck" and function.split is None:
        raise ValueError(
            f"method='bottleneck': {function.name} has no known split. It takes a module that is the composition of its "
            "methods encode and decode; use method='arnoldi'."
        )
    points = function.flatten(x)
    finite = finite_rows(function, points)
    found, used = _leading(function, points[finite], method, rtol, max_products, generator)
    rho = spread(found.eigenvalue.abs(), finite, torch.nan)
    norm: JacobianNorm | None = None
    if sigma:
        norm = jacobian_norm(function, points, rtol=rtol, max_products=max_products, generator=generator, throw=False)
    n_products = spread(found.n_products, finite, 0)
    converged = spread(found.converged, finite, False)
    status = status_of(function.name, torch.isfinite(rho), converged, rtol, max_products)
    if status.ok and norm is not None:
        status = norm.status
    if throw and not status.ok:
        raise AnalysisError(status)
    condition = spread(found.condition, finite, torch.nan)
    return JacobianSpectrum(
        rho=rho,
        rho_error=spread(found.error, finite, torch.nan),
        eigenvalue=spread(found.eigenvalue, finite, complex(torch.nan, torch.nan)),
        converged=converged,
        non_normal=condition > NON_NORMAL,
        condition=condition,
        sigma=norm.sigma if norm else None,
        sigma_error=norm.sigma_error if norm else None,
        n_products=n_products + (norm.n_products if norm else 0),
        method=used,
        rtol=rtol,
        status=status,
    )


@dataclass(frozen=True, slots=True)
class _Operator:
    """Jᵀ at points `x`; or, with their codes `z`, (J_enc J_dec)ᵀ, which has the same eigenvalues but for zeros."""

    function: SelfMap
    x: Tensor
    z: Tensor | None

    @property
    def size(self) -> int:
        return (self.x if self.z is None else self.z).shape[1]

    def product(self) -> Operator:
        if self.z is None or self.function.split is None:
            return JacobianProducts(self.function, self.x).vjp
        encode, decode = self.function.split
        outer, inner = JacobianProducts(encode, self.x), JacobianProducts(decode, self.z)
        return lambda w: inner.vjp(outer.vjp(w))

    def matrix(self) -> Tensor:
        if self.z is None or self.function.split is None:
            return jacobian_matrix(self.function, self.x)
        encode, decode = self.function.split
        return torch.bmm(jacobian_matrix(encode, self.x), jacobian_matrix(decode, self.z))

    def take(self, rows: Tensor) -> "_Operator":
        return _Operator(self.function, self.x[rows], None if self.z is None else self.z[rows])


def _leading(
    function: SelfMap, x: Tensor, method: Method, rtol: float, max_products: int, generator: torch.Generator | None
) -> tuple[LeadingEigenvalue, str]:
    """The leading eigenvalues at finite points, and the method that was used."""
    z: Tensor | None = None
    if method in ("auto", "bottleneck") and function.split is not None:
        with torch.no_grad(), analysis_modes():
            z = function.split[0](x) if len(x) else x
        if method == "auto" and z.shape[1] >= x.shape[1]:
            z = None
    operator = _Operator(function, x, z)
    n = operator.size
    if method == "dense" or (method != "arnoldi" and n <= DENSE):
        return _dense(operator, rtol), "dense" if z is None else "bottleneck"
    may_be_dense = method == "auto" and n <= max_products
    found = arnoldi(
        operator.product(),
        start_vectors(n, x, generator),
        tol=rtol,
        max_products=n if n <= WHOLE else n // 2 if may_be_dense else max_products,
        take=lambda rows: operator.take(rows).product(),
    )
    open_rows = (~found.converged & torch.isfinite(found.error)).nonzero()[:, 0]
    if may_be_dense and len(open_rows):
        dense = _dense(operator.take(open_rows), rtol)
        found.n_products[open_rows] += dense.n_products
        for name in ("eigenvalue", "error", "residual", "condition", "converged"):
            getattr(found, name)[open_rows] = getattr(dense, name)
    return found, "arnoldi" if z is None else "bottleneck"


def _dense(operator: _Operator, rtol: float) -> LeadingEigenvalue:
    J = operator.matrix()
    finite = torch.isfinite(J).all(2).all(1)
    J = torch.where(finite[:, None, None], J, 0.0)
    value, error, residual, condition = leading_eigenvalue(torch.cat((J, torch.zeros_like(J[:, :1])), 1))
    nan = torch.full_like(error, torch.nan)
    return LeadingEigenvalue(
        eigenvalue=torch.where(finite, value, torch.complex(nan, nan)),
        error=torch.where(finite, error, nan),
        residual=torch.where(finite, residual, nan),
        condition=torch.where(finite, condition, nan),
        converged=finite & (error <= rtol * value.abs()),
        n_products=torch.full_like(finite, J.shape[1], dtype=torch.int64),
    )
