"""The constant of a linear head, alone or with softmax on top: exact, without a semidefinite program (paper 5)."""

import math
import time

from numpy.typing import ArrayLike
from torch import Tensor

from fpstab.lipschitz.bounds import LipschitzBound
from fpstab.lipschitz.norms import affinely_independent, softmax_constant
from fpstab.lipschitz.problem import matrix
from fpstab.results import OK, AnalysisError, Status
from fpstab.rounding import Ball, multiply_up, spectral_norm, up

_EXACT = 1.0 - 1e-9


def head_lipschitz(
    W: ArrayLike | Tensor, softmax: bool = False, temperature: float = 1.0, *, throw: bool = True
) -> LipschitzBound:
    """The Lipschitz constant in l2 of x ↦ Wx + b, or of x ↦ softmax((Wx + b)/temperature).

    For the linear head it is σ_max(W), computed in float64 whatever the dtype (a float32 singular value
    decomposition can come out below the truth) and rounded outward: never below, some 1e-13 above. LipSDP-Neuron
    on (identity, W) with slopes in [α, β], as in paper 5 §III, equals max(|α|, |β|)·σ_max(W).

    With softmax it is at most (√2/4)·D/temperature, D = max_{i<j} ‖w_i − w_j‖₂ over the rows of W. The Jacobian of
    softmax takes a = Wv to p_i (a_i − ā), ā = Σ p_i a_i; its squared norm is convex in a, so largest where every a_i is
    one of two values D apart, of probabilities q and 1−q: at most 2D²q²(1−q)² ≤ D²/8. The bound is the supremum if
    the two classes can share the probability, which they always can when the rows are affinely independent: then
    `exact`. It is never above σ_max(W)/(2·temperature).

    Args:
        W: `[classes, features]`.
        softmax: Whether a softmax follows.
        temperature: Logits are divided by it before softmax. It does not apply without one.
        throw: Raise where the bound leaves float64; otherwise say so in the status.

    Raises:
        ValueError: If W is not a finite matrix, or the temperature is not positive and finite.
        TypeError: If W is not of real floating-point numbers.
        AnalysisError: If `throw` and the bound leaves float64.

    >>> 4.0 <= head_lipschitz([[3.0, 0.0], [0.0, 4.0]]).value < 4.0 + 1e-12
    True
    """
    begun = time.perf_counter()
    if not (0.0 < temperature < math.inf):
        raise ValueError(f"temperature={temperature!r} is out of range: expected a positive number.")
    array = matrix(W, "the weight of the head").numpy()
    norm = spectral_norm(array)
    product = norm
    if softmax:
        product = multiply_up(0.5, up(norm / temperature)) if norm else 0.0
        value = min(softmax_constant(Ball(array), temperature), product)
        method = "softmax"
    else:
        value, method = norm, "linear"
    if value == 0.0:
        method = "zero"
    status = OK if value < math.inf else Status("overflow", "The constant leaves float64: rescale the weight.")
    if throw and not status.ok:
        raise AnalysisError(status)
    lower = value * _EXACT if value < math.inf else 0.0
    exact = value < math.inf and (not softmax or value == 0.0 or affinely_independent(array))
    return LipschitzBound(
        value=value,
        exact=exact,
        certified=value < math.inf,
        optimum_lower=lower,
        sampled_lower=math.nan,
        slopes_lower=lower if exact else 0.0,
        method=method if value < math.inf else "none",
        status=status,
        rel_gap=0.0 if value < math.inf else math.inf,
        lipsdp=product,
        multipliers=(),
        spectral_product=product,
        eclipse_fast=value,
        head=0.5 if softmax else 1.0,
        seconds=time.perf_counter() - begun,
    )
