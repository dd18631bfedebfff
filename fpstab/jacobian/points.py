"""What the analyses of a Jacobian at many points share: start vectors, rows that are not finite, the status."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fpstab.maps import SelfMap, analysis_modes
from fpstab.results import OK, Status

Target = SelfMap | nn.Module | Callable[..., Any]

# Values of a point up to which all of J costs less than a Krylov space. (For one point alone it is some 128, but what
# a point gets must not depend on how many there are.)
DENSE = 40


def start_vectors(n: int, x: Tensor, generator: torch.Generator | None) -> Tensor:
    """One random vector `[B, n]` for all points: a result must not depend on the company of a point."""
    generator = generator or torch.Generator().manual_seed(0)
    v = torch.randn(n, dtype=torch.float64, generator=generator, device=generator.device)
    return v.to(x).expand(len(x), n)


def finite_rows(function: SelfMap, x: Tensor) -> Tensor:
    """Where both the point and the map's value are finite `[B]`."""
    with analysis_modes(), torch.no_grad():
        return torch.isfinite(x).all(1) & torch.isfinite(function(x)).all(1)


def spread(values: Tensor, rows: Tensor, fill: complex | bool) -> Tensor:
    """Values of some rows `[k]` at their places among all `[B]`, on the CPU."""
    everywhere = torch.full((len(rows),), fill, dtype=values.dtype)
    everywhere[rows.cpu()] = values.cpu()
    return everywhere


def status_of(name: str, finite: Tensor, converged: Tensor, rtol: float, max_products: int) -> Status:
    """Whether all points have a result, and if not, which has none and what to do."""
    b = len(finite)
    if n := int((~finite).sum()):
        return Status(
            "nonfinite",
            f"{name}: at {n} of {b} points the map or its Jacobian is not finite (the first: row "
            f"{int((~finite).nonzero()[0])}). The other points have their results (throw=False).",
        )
    if n := int((~converged).sum()):
        return Status(
            "not_converged",
            f"{name}: at {n} of {b} points the error estimate exceeds rtol={rtol:g} after {max_products} products (the "
            f"first: row {int((~converged).nonzero()[0])}). Allow more (max_products), or a larger rtol; where J is far "
            "from normal, rounding may not allow less.",
        )
    return OK


def check_arguments(method: str, methods: tuple[str, ...], rtol: float, max_products: int) -> None:
    """Refuse what no method can do."""
    if method not in methods:
        raise ValueError(f"method={method!r}: expected one of {', '.join(map(repr, methods))}.")
    if not 0 < rtol < 1:
        raise ValueError(f"rtol={rtol!r}: expected a relative error between 0 and 1.")
    if max_products < 2:
        raise ValueError(f"max_products={max_products!r}: expected 2 or more.")


def statistic(values: Tensor, of: Callable[[Tensor], Tensor]) -> float:
    """A statistic of some values `[k]`; NaN if there are none."""
    return float(of(values)) if values.numel() else float("nan")
