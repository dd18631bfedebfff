"""Bounds from norms of weights alone, rounded outward: products over layers, and the head with softmax."""

import math

import numpy as np

from fpstab.lipschitz.problem import Feedforward, General, Problem
from fpstab.rounding import Array, Ball, gamma, ldexp_up, multiply_up, spectral_norm, sqrt_up, up


def spectral_product(problem: Problem) -> float:
    """Π ‖W_i‖ · max|slope|, rounded up; for residual and implicit networks what their equations give likewise.

    Neurons of layer l change by at most r_l = b_l (‖B_l‖ + Σ_j ‖A_lj‖ r_j) per change of the inputs, b_l the largest
    |slope|, and the outputs by ‖D‖ + Σ_l ‖C_l‖ r_l. An implicit layer with b·‖A‖ ≥ 1 has no such bound: inf.
    """
    if isinstance(problem, Feedforward):
        factors = [spectral_norm(weight.numpy()) for weight in problem.weights]
        factors += [float(max(alpha.abs().max(), beta.abs().max())) for alpha, beta in problem.slopes]
        return _product(factors)
    return _general(problem)


def _general(net: General) -> float:
    A, B, C, D = (matrix.numpy() for matrix in (net.A, net.B, net.C, net.D))
    total = spectral_norm(D)
    starts = [sum(net.layers[:index]) for index in range(len(net.layers) + 1)]
    places = [slice(*starts[index : index + 2]) for index in range(len(net.layers))]
    reach: list[float] = []
    later = any(A[here, places[index].stop :].any() for index, here in enumerate(places))
    for index, here in enumerate(places):
        slope = float(max(net.alpha[here].abs().max(), net.beta[here].abs().max()))
        seen = spectral_norm(B[here])
        for before, there in zip(reach, places[:index], strict=True):
            seen = up(seen + _product([spectral_norm(A[here, there]), before]))
        own = _product([slope, spectral_norm(A[here, here])])
        if later or own >= 1.0:
            return math.inf
        gain = up(_product([slope, seen]) / -up(own - 1.0)) if own else _product([slope, seen])
        reach.append(gain)
        total = up(total + _product([spectral_norm(C[:, here]), gain]))
    return total


def _product(factors: list[float]) -> float:
    """A product rounded up that does not overflow on the way."""
    mantissa, exponent = 1.0, 0
    for factor in factors:
        if factor == 0.0 or math.isinf(factor):
            return 0.0 if 0.0 in factors else math.inf
        part, power = math.frexp(factor)
        mantissa, extra = math.frexp(up(mantissa * part))
        exponent += power + extra

    return ldexp_up(mantissa, exponent)


def softmax_constant(W: Ball, temperature: float = 1.0) -> float:
    """(√2/4)·max_{i<j} ‖w_i − w_j‖₂/temperature for the rows of W, rounded up; see `fpstab.lipschitz.head_lipschitz`."""
    size = float(W.magnitude.max())
    if size == 0.0 or len(W.mid) == 1:
        return 0.0
    exponent = math.frexp(size)[1]
    mid = np.ldexp(W.mid, -exponent)
    lost = 0.0 if np.array_equal(np.ldexp(mid, exponent), W.mid) else 2.0**-1000
    if W.radius is not None:
        lost = up(lost + up(float(np.ldexp(W.radius, -exponent).max())))
    widest = 0.0
    for i, j in _widest_pairs(mid):
        difference = np.abs(mid[i] - mid[j]) * (1.0 + 2.0**-52) + 2.0 * lost
        top = float(difference.max())
        if top > 0.0:  # divided by its largest entry: no square underflows
            square = float(((difference / top) ** 2).sum()) * (1.0 + 2.0 * gamma(len(difference) + 8))
            widest = max(widest, multiply_up(top, sqrt_up(up(square))))
    if widest == 0.0:  # equal rows: softmax does not see what moves all logits alike
        return 0.0
    constant = up(math.sqrt(2.0) / 4.0)
    return ldexp_up(up(multiply_up(constant, widest) / temperature), exponent)


def _widest_pairs(W: Array) -> list[tuple[int, int]]:
    """The pairs of rows among which the widest is, in spite of rounding."""
    k = len(W)
    squares = np.einsum("ij,ij->i", W, W)
    distances = squares[:, None] + squares[None, :] - 2.0 * (W @ W.T)
    error = 8.0 * gamma(W.shape[1] + 8) * float(squares.max())
    first, second = np.nonzero(np.triu(distances >= distances.max() - 2.0 * error, 1))
    return list(zip(first.tolist(), second.tolist(), strict=True)) if k > 1 else []


def affinely_independent(W: Array) -> bool:
    """Whether no row is an affine combination of the others, by a margin that rounding does not matter for."""
    k, n = W.shape
    if k == 1 or n < k - 1:
        return bool(k == 1)
    size = float(np.abs(W).max())
    differences = (W[1:] - W[0]) / (size or 1.0)
    singular = np.linalg.svd(differences, compute_uv=False)
    return bool(singular[-1] > 1e-10 * singular[0])
