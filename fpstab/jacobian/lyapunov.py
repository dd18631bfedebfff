"""Finite-time Lyapunov exponents: how fast neighbouring orbits of a map part or meet."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpstab.jacobian.points import Target, statistic
from fpstab.jacobian.products import JacobianProducts
from fpstab.maps import as_map
from fpstab.results import OK, AnalysisError, Status

_BLOCKS = 20  # of steps, whose means are taken as independent


@dataclass(frozen=True, slots=True, eq=False)
class LyapunovExponents:
    """Lyapunov exponents along B orbits, in natural logarithms a step.

    Attributes:
        exponents: `[B, k]`, the largest first; −inf where J has a kernel, NaN where the orbit left the finite numbers.
        standard_error: Of each `[B, k]`, from the means of 20 blocks of steps; of a finite time, not of the limit.
        points: Where the orbits ended `[B, n]`.
        steps: Steps that were averaged.
        status: `"ok"`, or `"nonfinite"`: some orbits.
    """

    exponents: Tensor
    standard_error: Tensor
    points: Tensor
    steps: int
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log: of the largest exponent of each orbit, and the share that is positive by two errors."""
        largest, error = self.exponents[:, 0], self.standard_error[:, 0]
        good = ~torch.isnan(largest)
        return {
            "lyapunov_max": statistic(largest[good], torch.max),
            "lyapunov_mean": statistic(largest[good], torch.mean),
            "share_chaotic": statistic((largest > 2 * error)[good].double(), torch.mean),
        }


def lyapunov_exponents(
    map: Target,  # noqa: A002
    x: Any,
    *,
    k: int = 1,
    steps: int = 1000,
    transient: int = 200,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> LyapunovExponents:
    """The k largest Lyapunov exponents along the orbits x, Φ(x), Φ(Φ(x)), … by QR of k tangent vectors (paper 3).

    A step costs about four evaluations of B·k points.

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        x: Where the orbits start `[B, *shape]` or `[B, n]`.
        k: Exponents to compute, 1 to n.
        steps: Steps to average over, 20 or more.
        transient: Steps before them, in which orbits reach their attractor and tangent vectors their directions.
        generator: Draws the first tangent vectors, the same for all orbits; by default one with seed 0.
        throw: Raise where an orbit has no result; otherwise say so in the status.

    Raises:
        ValueError: If the map is not from a space to itself, or an argument is out of range.
        AnalysisError: If `throw`, and an orbit left the finite numbers, or the map cannot be differentiated twice.

    >>> doubling = lyapunov_exponents(lambda x: torch.remainder(2 * x, 1.0), torch.full((1, 1), 0.3), steps=40, transient=0)
    >>> doubling.exponents
    tensor([[0.6931]], dtype=torch.float64)
    """
    function = as_map(map, x)
    function.require_square("Lyapunov exponents")
    points = function.flatten(x)
    b, n = points.shape
    if not 1 <= k <= n:
        raise ValueError(f"k={k}: expected 1 to {n} exponents, the size of a point.")
    if steps < _BLOCKS or transient < 0:
        raise ValueError(f"steps={steps}, transient={transient}: expected steps ≥ {_BLOCKS} and transient ≥ 0.")
    generator = generator or torch.Generator().manual_seed(0)
    first = torch.randn(n, k, dtype=torch.float64, generator=generator, device=generator.device).to(points)
    frame = torch.linalg.qr(first)[0].expand(b, n, k)
    alive = torch.isfinite(points).all(1)
    growth = points.new_empty(steps, b, k)
    for step in range(transient + steps):
        points = torch.where(alive[:, None], points, 0.0)
        operator = JacobianProducts(function, points.repeat_interleave(k, dim=0), check=step == 0)
        pushed = operator.jvp(frame.mT.reshape(b * k, n)).reshape(b, k, n).mT
        points = operator.value[::k]
        alive = alive & torch.isfinite(points).all(1) & torch.isfinite(pushed).all(2).all(1)
        frame, R = torch.linalg.qr(torch.where(alive[:, None, None], pushed, first))
        if step >= transient:
            growth[step - transient] = torch.diagonal(R, dim1=1, dim2=2).abs().log()
    blocks = torch.stack([part.mean(0) for part in torch.tensor_split(growth, _BLOCKS)])
    exponents, order = growth.mean(0).sort(dim=1, descending=True)
    error = (blocks.std(0) / _BLOCKS**0.5).gather(1, order)
    nan = ~alive[:, None]
    status = OK
    if lost := int((~alive).sum()):
        first_lost = int((~alive).nonzero()[0])
        status = Status(
            "nonfinite", f"{function.name}: {lost} of {b} orbits left the finite numbers (the first: row {first_lost})."
        )
        if throw:
            raise AnalysisError(status)
    return LyapunovExponents(
        exponents=exponents.masked_fill(nan, torch.nan).cpu(),
        standard_error=error.masked_fill(nan, torch.nan).cpu(),
        points=points.masked_fill(nan, torch.nan).cpu(),
        steps=steps,
        status=status,
    )
