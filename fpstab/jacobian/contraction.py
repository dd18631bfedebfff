"""The contraction constant of a map, from below by points and pairs of points, from above by a bound."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpstab.jacobian.norms import jacobian_norm
from fpstab.jacobian.points import Target
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import OK, AnalysisError, Status

_PAIRS = 2**22  # that are in memory at a time
_CANCELLATION = 1e-8  # share of |x|² + |y|² below which |x − y|² by Gram products has lost half its digits


@dataclass(frozen=True, slots=True, eq=False)
class ContractionBracket:
    """The Lipschitz constant of a map, bracketed.

    Attributes:
        pairwise: max ‖Φ(x) − Φ(y)‖ / ‖x − y‖ over the pairs of points: paper 2, eq. (8). NaN if there is no pair.
        pair: The two rows that have it; (−1, −1) if there is no pair.
        jacobian_norm: max ‖J(x)‖₂ over the points.
        point: The row that has it; −1 if there is none.
        lower: The larger of both: the Lipschitz constant on a convex set around the points is at least that, but for
            the rounding of the map itself.
        upper: The bound that was given, else `None`.
        status: `"ok"`; `"nonfinite"`: some points were left out; `"not_converged"`: ‖J‖₂ was not found to rtol at some
            points (`lower` stays a lower bound); `"no_double_backward"`: only pairs could be used;
            `"contradiction"`: `lower` exceeds `upper`, which is then no bound.
    """

    pairwise: float
    pair: tuple[int, int]
    jacobian_norm: float
    point: int
    lower: float
    upper: float | None
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log."""
        numbers = {"pairwise": self.pairwise, "jacobian_norm": self.jacobian_norm, "lower": self.lower}
        return numbers if self.upper is None else numbers | {"upper": self.upper}


def contraction_bracket(
    map: Target,  # noqa: A002
    points: Any,
    *,
    upper: float | None = None,
    rtol: float = 1e-3,
    max_products: int = 300,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> ContractionBracket:
    """Bracket the Lipschitz constant of a map: over pairs of points, over Jacobians at points, by a bound.

    The largest ‖J‖₂ costs far less than all pairs of a grid and is at least as large, but for the spacing of the grid.
    Both are lower bounds: what no point has seen may be larger, so a value below 1 proves no contraction. `upper`
    may be a certified bound or a product of norms.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches, also between spaces of different sizes.
        points: `[N, *shape]` or `[N, n]`, e.g. a grid.
        upper: A bound from above.
        rtol: Relative error of each ‖J‖₂.
        max_products: Products at most for each point.
        generator: Draws the start vector of ‖J‖₂; by default one with seed 0.
        throw: Raise on any status but `"ok"`; otherwise return with it.

    Raises:
        ValueError: If `upper` is negative or NaN.
        AnalysisError: If `throw`, and the status is not `"ok"`.

    >>> bracket = contraction_bracket(torch.tanh, torch.linspace(-1, 1, 5).reshape(5, 1), upper=1.0)
    >>> bracket.pair, round(bracket.pairwise, 4), bracket.jacobian_norm
    ((1, 2), 0.9242, 1.0)
    """
    if upper is not None and not upper >= 0:
        raise ValueError(f"upper={upper!r}: expected a bound ≥ 0 from above.")
    function = as_map(map, points)
    x = function.flatten(points)
    with analysis_modes(), torch.no_grad():
        y = function(x)
    good = (torch.isfinite(x).all(1) & torch.isfinite(y).all(1)).nonzero()[:, 0]
    pairwise, pair = _pairwise(x[good], y[good])
    norm = jacobian_norm(function, x, rtol=rtol, max_products=max_products, generator=generator, throw=False)
    sigma = torch.where(torch.isfinite(norm.sigma), norm.sigma, -torch.inf)
    known = len(sigma) > 0 and float(sigma.max()) >= 0
    largest, point = (float(sigma.max()), int(sigma.argmax())) if known else (float("nan"), -1)
    values = [value for value in (pairwise, largest) if value == value]
    lower = max(values) if values else float("nan")
    status = _judge(function, norm.status, lower, upper)
    if throw and not status.ok:
        raise AnalysisError(status)
    rows = (int(good[pair[0]]), int(good[pair[1]])) if pair[0] >= 0 else pair
    return ContractionBracket(pairwise, rows, largest, point, lower, upper, status)


def _pairwise(x: Tensor, y: Tensor) -> tuple[float, tuple[int, int]]:
    """The largest ratio of distances over all pairs of distinct points, and the pair."""
    x_mid, y_mid = x - x.mean(0), y - y.mean(0)  # less cancellation
    xx, yy = (x_mid**2).sum(1), (y_mid**2).sum(1)
    best, pair = -1.0, (-1, -1)
    step = max(1, _PAIRS // max(1, len(x)))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        below = torch.arange(start, rows.stop, device=x.device)[:, None] > torch.arange(len(x), device=x.device)
        dx, dy = _squared_distances(x_mid, xx, rows), _squared_distances(y_mid, yy, rows)
        close = below & ((dx < _CANCELLATION * _sums(xx, rows)) | (dy < _CANCELLATION * _sums(yy, rows)))
        i, j = close.nonzero(as_tuple=True)
        for some in torch.split(torch.arange(len(i), device=x.device), max(1, _PAIRS // x.shape[1])):
            a, b = i[some] + start, j[some]
            dx[i[some], j[some]] = ((x[a] - x[b]) ** 2).sum(1)
            dy[i[some], j[some]] = ((y[a] - y[b]) ** 2).sum(1)
        ratio = torch.where(below & (dx > 0), dy / dx, -1.0)
        at = int(ratio.argmax())
        if float(ratio.flatten()[at]) > best:
            best = float(ratio.flatten()[at])
            pair = (at % len(x), at // len(x) + start)
    if pair[0] < 0:
        return float("nan"), pair
    # the pair that won, without the rounding of Gram products
    length = [torch.linalg.vector_norm(z[pair[0]] - z[pair[1]]) for z in (x, y)]
    return float(length[1] / length[0]), pair


def _squared_distances(x: Tensor, squares: Tensor, rows: slice) -> Tensor:
    return torch.addmm(_sums(squares, rows), x[rows], x.T, alpha=-2)


def _sums(squares: Tensor, rows: slice) -> Tensor:
    return squares[rows, None] + squares


def _judge(function: SelfMap, status: Status, lower: float, upper: float | None) -> Status:
    if upper is not None and lower > upper * (1 + 1e-9):
        return Status(
            "contradiction",
            f"{function.name}: its Lipschitz constant is at least {lower:.6g} by its values at the points, so "
            f"upper={upper:.6g} is no bound from above.",
        )
    return status
