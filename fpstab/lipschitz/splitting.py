"""The computations of paper 5 and of the original LipSDP code: a head as (identity, W), and networks in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fpstab.lipschitz.bounds import Form, LipschitzBound, lipschitz_bound
from fpstab.lipschitz.problem import Feedforward, Slopes, feedforward, matrix
from fpstab.results import Status
from fpstab.rounding import multiply_up


@dataclass(frozen=True, slots=True, eq=False)
class SplitBound:
    """A bound of a network from bounds of its pieces.

    Attributes:
        value: The product of the pieces' bounds and of the factors, rounded up.
        parts: The bounds of the pieces, in order.
        factors: max|slope| of the activations between two pieces.
        status: `"ok"`, or that of the first piece that is not.
    """

    value: float
    parts: tuple[LipschitzBound, ...]
    factors: tuple[float, ...]
    status: Status

    def scalars(self) -> dict[str, float]:
        """The product and the pieces."""
        return {"value": self.value} | {f"part_{index}": part.value for index, part in enumerate(self.parts)}


def split_bound(
    weights: Sequence[ArrayLike | Tensor] | Feedforward,
    slopes: str | Slopes | Sequence[Slopes] = "auto",
    size: int = 2,
    *,
    form: Form = "neuron",
    backend: str = "native",
    throw: bool = True,
) -> SplitBound:
    """Bound a deep network as the product of bounds of pieces of `size` weights each.

    The activations between two pieces change distances by up to max|slope|, a factor that the original code leaves
    out: with GELU or Hardswish its product is not a bound.

    Args:
        weights: As for `lipschitz_bound`.
        slopes: As for `lipschitz_bound`.
        size: Weights a piece; the last piece has what remains.
        form: As for `lipschitz_bound`.
        backend: As for `lipschitz_bound`.
        throw: As for `lipschitz_bound`.

    Raises:
        ValueError: If size < 1, and as `lipschitz_bound`.
        AnalysisError: If `throw` and a piece has no finite bound.
    """
    if size < 1:
        raise ValueError(f"size={size} is out of range: expected at least 1 weight a piece.")
    net = weights if isinstance(weights, Feedforward) else feedforward(list(weights), slopes)
    starts = range(0, len(net.weights), size)
    pieces = [
        Feedforward(
            net.weights[start : start + size],
            net.slopes[start : min(start + size, len(net.weights)) - 1],
            net.names[start : start + size],
        )
        for start in starts
    ]
    parts = tuple(lipschitz_bound(piece, form=form, backend=backend, throw=throw) for piece in pieces)
    between = [net.slopes[start - 1] for start in starts if start > 0]
    factors = tuple(float(max(alpha.abs().max(), beta.abs().max())) for alpha, beta in between)
    status = next((part.status for part in parts if not part.status.ok), parts[0].status)
    return SplitBound(multiply_up(*(part.value for part in parts), *factors), parts, factors, status)


def head_by_lipsdp(
    W: ArrayLike | Tensor, slopes: Slopes = (0.0, 1.0), backend: str = "cvxpy", **options: Any
) -> LipschitzBound:
    """What paper 5 (§III) computes for a linear head: LipSDP-Neuron on the two weights (identity, W), through cvxpy.

    Its optimum is max(|α|, |β|)·σ_max(W) exactly, so `head_lipschitz` gives the same without a semidefinite program.
    This is here to show it; look at `LipschitzBound.lipsdp`.

    Args:
        W: `[classes, features]`; as many neurons as features, so a solver's limits are soon reached.
        slopes: Of the activations between.
        backend: As for `lipschitz_bound`.
        options: Others of `lipschitz_bound`.

    Raises:
        ValueError: As `lipschitz_bound`.
    """
    weight = matrix(W, "the weight of the head")
    identity = torch.eye(weight.shape[1], dtype=torch.float64)
    return lipschitz_bound((identity, weight), slopes=slopes, backend=backend, **options)
