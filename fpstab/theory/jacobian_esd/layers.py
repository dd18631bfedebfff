"""The layers of a random network as the theory sees them: variances of the pre-activations, and the laws of K."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor

from fpstab.theory.jacobian_esd.slopes import Activation, SlopeLaw, check_activation, composite, slope_law

Variances = float | Sequence[float] | Tensor
"""Variances of the pre-activations: one number for all layers, or one for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """J = ∏ DˡWˡ at infinite width; layers with the same law are together.

    Attributes:
        activation: φ.
        q: Variances of the pre-activations, L numbers.
        distinct: The different ones among them that matter for K, those with the most positive slopes first.
        counts: How many layers have each.
        log_scale: log σ_w²ᴸ.
    """

    activation: Activation
    q: tuple[float, ...]
    distinct: tuple[float, ...]
    counts: tuple[int, ...]
    log_scale: float

    @property
    def depth(self) -> int:
        """L."""
        return len(self.q)

    def laws(self, *, coarse: bool = False) -> list[SlopeLaw]:
        """The law of K for each of the distinct variances."""
        return [slope_law(self.activation, q, coarse=coarse) for q in self.distinct]


def as_layers(activation: str, depth: int, q: Variances | None, q0: float, sigma_w: float, sigma_b: float) -> Layers:
    """Check what describes a network and find its layers; for the arguments see `density`.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If a number is out of range or the activation unknown.
    """
    name = check_activation(activation)
    _check_depth(depth)
    if not 0 < sigma_w < math.inf:
        raise ValueError(f"sigma_w is {sigma_w}; expected a positive finite number, √N times the weights' deviation.")
    if q is None:
        variances = tuple(q_recursion(name, depth, q0, sigma_w=sigma_w, sigma_b=sigma_b).tolist())
    elif isinstance(q, Sequence | Tensor | np.ndarray) and not (isinstance(q, Tensor | np.ndarray) and q.ndim == 0):
        variances = tuple(float(value) for value in q)
        if len(variances) != depth:
            raise ValueError(f"q has {len(variances)} numbers; expected one, or one for each of the {depth} layers.")
    else:
        variances = (float(q),) * depth
    if not all(value >= 0 for value in variances):
        raise ValueError(f"q is {q}; expected variances from 0 on (infinity included).")
    # for these K does not depend on q
    effective = (1.0,) * depth if name in ("linear", "relu") else variances
    distinct = tuple(sorted(set(effective)))  # the smaller q, the more slopes are positive
    return Layers(
        name, variances, distinct, tuple(effective.count(value) for value in distinct), 2 * depth * math.log(sigma_w)
    )


def q_recursion(activation: str, depth: int, q0: float = 1.0, *, sigma_w: float = 1.0, sigma_b: float = 0.0) -> Tensor:
    """Variances of the pre-activations, qˡ⁺¹ = σ_w²·E φ(√qˡ g)² + σ_b², float64 `[L]`.

    Args:
        activation: φ; `"erf"` is erf(√π·x/2).
        depth: L.
        q0: q⁰ = σ_w²·|x|²/n + σ_b², of the first layer.
        sigma_w: √N times the standard deviation of the weights.
        sigma_b: Standard deviation of the biases.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If a number is out of range or the activation unknown.

    >>> q_recursion("relu", 3).tolist()
    [1.0, 0.5, 0.25]
    >>> q_recursion("hardtanh", 3).round(decimals=4).tolist()
    [1.0, 0.5161, 0.3779]
    """
    name = check_activation(activation)
    _check_depth(depth)
    if not (q0 >= 0 and 0 <= sigma_b < math.inf and 0 < sigma_w < math.inf):
        raise ValueError(
            f"q0 = {q0}, sigma_w = {sigma_w}, sigma_b = {sigma_b}; expected q0 and sigma_b from 0 on, sigma_w positive."
        )
    found = [float(q0)]
    while len(found) < depth:
        found.append(sigma_w**2 * _mean_square(name, found[-1]) + sigma_b**2)
    return torch.tensor(found, dtype=torch.float64)


def _check_depth(depth: int) -> None:
    if not isinstance(depth, int | np.integer) or isinstance(depth, bool):
        raise TypeError(f"the depth is {depth!r}; expected an integer, the number of layers.")
    if depth < 1:
        raise ValueError(f"the depth is {depth}; expected at least one layer: without layers J is the identity.")


def _mean_square(activation: Activation, q: float) -> float:
    """E φ(√q g)²."""
    if activation in ("linear", "relu"):
        return q if activation == "linear" else q / 2
    if q == math.inf:
        return 1.0
    if q == 0:
        return 0.0
    if activation == "hardtanh":
        a = 1 / math.sqrt(q)
        inside = float(erf(a / math.sqrt(2)))
        return q * (inside - a * math.sqrt(2 / math.pi) * math.exp(-(a**2) / 2)) + 1 - inside
    if activation == "erf":
        s = math.pi * q / 2
        return 2 / math.pi * math.asin(s / (1 + s))
    length = min(9 * math.sqrt(q), 20.0)  # tanh is 1 beyond 20
    h, w = composite(np.linspace(0, length, 1 + math.ceil(length / min(math.sqrt(q), 0.5))))
    density = 2 * np.exp(-(h**2) / (2 * q)) / math.sqrt(2 * math.pi * q)
    return float(w @ (np.tanh(h) ** 2 * density)) + math.erfc(length / math.sqrt(2 * q))
