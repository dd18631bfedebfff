"""Networks and 200-bit arithmetic, written without the code that is tested."""

import itertools
from typing import Any

import mpmath
import numpy as np
import torch
from mpmath import mp, mpf
from torch import nn

from fpstab.rounding import Array

BITS = 200


def cauchy(seed: int, activation: str, depth: int = 2, width: int = 100, n: int = 2) -> list[tuple[Array, Array, str]]:
    """Weights and biases Cauchy of scale 1/fan-in, an activation on the last layer too: mathematics of random networks."""
    rng = np.random.default_rng(seed)
    widths = [n, *[width] * (depth - 1), n]
    return [
        (rng.standard_cauchy((m, k)) / k, rng.standard_cauchy(m) / k, activation) for k, m in itertools.pairwise(widths)
    ]


def module(layers: list[tuple[Array, Array, str]]) -> nn.Sequential:
    """The same as a torch module."""
    kinds = {
        "tanh": nn.Tanh,
        "hardtanh": nn.Hardtanh,
        "sigmoid": nn.Sigmoid,
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
    }
    parts: list[nn.Module] = []
    for W, b, activation in layers:
        linear = nn.Linear(W.shape[1], len(W), dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(W))
            linear.bias.copy_(torch.from_numpy(b))
        parts += [linear, kinds[activation]()]
    return nn.Sequential(*parts)


def sigma(name: str, z: Any) -> tuple[Any, Any]:
    """Value and slope in mpmath."""
    one, zero = mpf(1), mpf(0)
    if name == "tanh":
        t = mpmath.tanh(z)
        return t, 1 - t * t
    if name == "sigmoid":
        e = mpmath.exp(-abs(z))
        return (1 / (1 + e) if z >= 0 else e / (1 + e)), e / (1 + e) ** 2
    if name == "erf":
        return mpmath.erf(z), 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-z * z)
    if name == "unit_erf":
        return mpmath.erf(mpmath.sqrt(mpmath.pi) / 2 * z), mpmath.exp(-mpmath.pi / 4 * z * z)
    if name == "hardtanh":
        return min(max(z, -one), one), one if abs(z) < 1 else zero
    if name == "relu":
        return max(z, zero), one if z > 0 else zero
    if name == "leaky_relu":
        return (z, one) if z > 0 else (mpf(0.01) * z, mpf(0.01))
    assert name == "identity"
    return z, one


def evaluate(layers: list[tuple[Any, Any, str]], x: list[Any]) -> tuple[list[Any], Any]:
    """Φ(x) and its Jacobian at the working precision of mpmath."""
    n = len(x)
    J = [[mpf(int(i == j)) for j in range(n)] for i in range(n)]
    for W, b, activation in layers:
        z = [
            mpmath.fdot((mpf(float(w)), v) for w, v in zip(row, x, strict=True)) + mpf(float(c))
            for row, c in zip(W, b, strict=True)
        ]
        M = [[mpmath.fdot((mpf(float(w)), J[k][j]) for k, w in enumerate(row)) for j in range(n)] for row in W]
        pairs = [sigma(activation, each) for each in z]
        x = [value for value, _ in pairs]
        J = [[slope * entry for entry in row] for (_, slope), row in zip(pairs, M, strict=True)]
    return x, mpmath.matrix(J)


def root(layers: list[tuple[Any, Any, str]], start: Array) -> tuple[list[Any], Any]:
    """A fixed point to some 180 bits by Newton's method from `start`, and the Jacobian at it."""
    with mp.workprec(BITS):
        x = [mpf(float(v)) for v in start]
        for _ in range(12):
            value, J = evaluate(layers, x)
            residual = mpmath.matrix([v - u for v, u in zip(value, x, strict=True)])
            if mpmath.norm(residual, mpmath.inf) < mpf(2) ** -185:
                break
            step = mpmath.lu_solve(mpmath.eye(len(x)) - J, residual)
            x = [u + step[i] for i, u in enumerate(x)]
        assert mpmath.norm(residual, mpmath.inf) < mpf(2) ** -170, "no root near the midpoint of an enclosure"
        return x, J


def holds(low: Array, high: Array, x: list[Any]) -> bool:
    """Whether a box holds a point of many bits, but for what 200 bits do not resolve."""
    slack = mpf(2) ** -165
    return all(mpf(float(a)) - slack <= v <= mpf(float(b)) + slack for a, b, v in zip(low, high, x, strict=True))
