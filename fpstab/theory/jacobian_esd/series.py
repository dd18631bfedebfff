"""The moments of the limiting spectrum, from power series."""

import math

import numpy as np
import torch
from torch import Tensor

from fpstab.theory.jacobian_esd.layers import Layers, Variances, as_layers
from fpstab.theory.jacobian_esd.slopes import Floats, SlopeLaw


def moments(
    activation: str,
    depth: int,
    count: int = 4,
    *,
    q: Variances | None = None,
    q0: float = 1.0,
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
) -> Tensor:
    """The moments ∫λᵏ of the limiting spectrum of JJᵀ, k = 1, …, count, float64 `[count]`.

    By Lagrange's inversion of 1/z as a power series in w. For the linear activation they are the Fuss–Catalan numbers
    C((L + 1)k, k)/(Lk + 1). For the other arguments see `density`.

    Args:
        activation: φ; `"erf"` is erf(√π·x/2).
        depth: L.
        count: How many, at most 20: rounding errors grow with k for erf and tanh (at k = 8 about 1e-9).
        q: Variance of the pre-activations, one number or one for each layer.
        q0: That of the first layer, if `q` is not given.
        sigma_w: √N times the standard deviation of the weights.
        sigma_b: Standard deviation of the biases.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If a number is out of range or the activation unknown.

    >>> moments("linear", 2).round(decimals=9).tolist()
    [1.0, 3.0, 12.0, 55.0]
    """
    if not 1 <= count <= 20:
        raise ValueError(f"count is {count}; expected from 1 to 20 moments.")
    return torch.from_numpy(_moments(as_layers(activation, depth, q, q0, sigma_w, sigma_b), count))


def _moments(layers: Layers, count: int) -> Floats:
    laws = layers.laws()
    if min(law.positive for law in laws) == 0:
        return np.zeros(count)
    step = np.zeros(count)  # w·z as a series in w, but for the scale
    step[0] = 1.0
    step[1:2] = 1.0
    for law, n in zip(laws, layers.counts, strict=True):
        factor = _over_inverse(law, count)
        for _ in range(n):
            step = np.convolve(step, factor)[:count]
    power, found = np.eye(1, count)[0], []
    for k in range(1, count + 1):
        power = np.convolve(power, step)[:count]
        found.append(power[k - 1] / k * math.exp(layers.log_scale * k))
    return np.array(found)


def _over_inverse(law: SlopeLaw, count: int) -> Floats:
    """w/χ(w) as a power series, χ the inverse function of m_K; p + w for K ∈ {0, 1}."""
    mu = law.moments(count + 1)
    # χ's coefficients one after the other, from the powers of χ in m(χ(w)) = w
    chi = np.zeros(count + 1)
    chi[0] = 1 / mu[0]  # of w¹
    for n in range(1, count + 1):
        rest, power = 0.0, chi.copy()
        for k in range(2, n + 2):
            power = np.concatenate([[0.0], np.convolve(power, chi)[:count]])  # χᵏ from w¹ on
            rest += mu[k - 1] * power[n] if k <= len(mu) else 0.0
        chi[n] = -rest / mu[0]
    inverse = np.zeros(count)
    for n in range(count):  # 1/(χ/w)
        inverse[n] = ((n == 0) - (inverse[:n] * chi[n:0:-1]).sum()) / chi[0]
    return inverse
