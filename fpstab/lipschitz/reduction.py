"""From a network to the small, well-scaled problem that is solved and certified in its place.

Every step either keeps the norms of all Jacobians exactly (powers of two, transposition, dropping neurons that do
nothing) or enlarges them by what rounding may have lost, which is carried along as a radius: a bound for the reduced
problem is a bound for the network.
"""

from dataclasses import replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fpstab.lipschitz.blocks import (
    Block,
    Integers,
    Linear,
    Raw,
    Reduced,
    beside,
    is_chain,
    normalised,
    part,
    split,
    times_power,
    times_powers,
    without_column,
)
from fpstab.lipschitz.problem import Feedforward, General, Problem
from fpstab.lipschitz.scaling import balanced
from fpstab.rounding import (
    TINY,
    UNIT,
    Array,
    Ball,
    gamma,
    gram,
    gram_roundings,
    product_up,
)


def reduce(problem: Problem, transposed: bool | None = None) -> Reduced | Linear | None:
    """Prune, fold, transpose, shrink and scale; None if the network is constant.

    Args:
        problem: The network.
        transposed: Which orientation; None for the one with the smaller matrix inequality.
    """
    raw = _feedforward(problem) if isinstance(problem, Feedforward) else _general(problem)
    if not isinstance(raw, Raw):
        return raw
    implicit = isinstance(problem, General) and problem.implicit
    chain = is_chain(raw.n_in, raw.blocks, raw.out)
    if transposed is None:
        first, last = raw.blocks[0].weight.mid.shape, raw.out.weight.mid.shape
        transposed = (min(last) < min(first)) if chain else (last[0] < raw.n_in)
    if transposed:
        raw = _transpose_chain(raw) if chain else _transpose_general(raw)
    if chain and raw.n_in > raw.blocks[0].weight.mid.shape[0]:
        raw = _shrink_inputs(raw)
    return balanced(raw, implicit, transposed)


# ---------------------------------------------------------------------------------------------- networks to blocks


def _feedforward(net: Feedforward) -> Raw | Linear | None:
    weights = [weight.numpy() for weight in net.weights]
    slopes = [(alpha.numpy(), beta.numpy()) for alpha, beta in net.slopes]
    ends = np.cumsum([0, *net.sizes[1:-1]])
    neurons = [np.arange(*ends[index : index + 2]) for index in range(len(slopes))]
    changed = True
    while changed:
        changed = False
        for index, (alpha, beta) in enumerate(slopes):
            live = weights[index].any(1) & weights[index + 1].any(0) & ((alpha != 0.0) | (beta != 0.0))
            if not live.all():
                weights[index], weights[index + 1] = weights[index][live], weights[index + 1][:, live]
                slopes[index], neurons[index] = (alpha[live], beta[live]), neurons[index][live]
                changed = True
    if not all(weight.any() for weight in weights):
        return None
    balls, exponents = map(list, zip(*map(normalised, weights), strict=True))
    units = [np.full(len(alpha), -int(sum(exponents[: index + 1]))) for index, (alpha, _) in enumerate(slopes)]
    layers = list(range(len(slopes)))
    exponent = int(sum(exponents))
    for index in reversed(range(len(slopes))):
        alpha, beta = slopes[index]
        if _linear(alpha, beta).all():  # a linear layer
            balls[index : index + 2] = [_scale_columns(balls[index + 1], alpha, beta) @ balls[index]]
            del slopes[index], neurons[index], layers[index], units[index]
    if not slopes:
        return Linear(balls[0], exponent)
    n_in = balls[0].mid.shape[1]
    blocks, start, columns = [], 0, slice(0, n_in)
    for ball in balls[:-1]:
        rows = slice(start, start + len(ball.mid))
        blocks.append(Block(rows, columns, ball))
        start, columns = rows.stop, slice(n_in + rows.start, n_in + rows.stop)
    raw = Raw(
        n_in,
        tuple(blocks),
        Block(slice(0, len(balls[-1].mid)), columns, balls[-1]),
        np.concatenate([alpha for alpha, _ in slopes]),
        np.concatenate([beta for _, beta in slopes]),
        np.concatenate([np.full(len(alpha), index) for index, (alpha, _) in zip(layers, slopes, strict=True)]),
        np.concatenate(neurons),
        np.concatenate(units),
        exponent,
    )
    return _eliminate(_dense(raw)) if _linear(raw.alpha, raw.beta).any() else raw


def _general(net: General) -> Raw | Linear | None:
    A, B, C, D = (matrix.numpy() for matrix in (net.A, net.B, net.C, net.D))
    alpha, beta = net.alpha.numpy(), net.beta.numpy()
    layer = np.repeat(np.arange(len(net.layers)), net.layers)
    neurons = np.arange(len(alpha))
    while True:
        live = (A.any(1) | B.any(1)) & (A.any(0) | C.any(0)) & ((alpha != 0.0) | (beta != 0.0))
        if live.all():
            break
        A, B, C = A[np.ix_(live, live)], B[live], C[:, live]
        alpha, beta, layer, neurons = alpha[live], beta[live], layer[live], neurons[live]
    if not len(alpha) or not B.any() or not C.any():
        return Linear(*normalised(D)) if D.any() else None
    (b, in_exponent), (c, out_exponent) = normalised(B), normalised(C)
    exponent = in_exponent + out_exponent
    if D.any():
        exponent = max(exponent, normalised(D)[1])
    d, c = times_power(Ball(D), -exponent), times_power(Ball(C), in_exponent - exponent)
    m, n_in = B.shape
    raw = Raw(
        n_in,
        (Block(slice(0, m), slice(0, n_in + m), beside(b, Ball(A))),),
        Block(slice(0, len(C)), slice(0, n_in + m), beside(d, c)),
        alpha,
        beta,
        layer,
        neurons,
        np.full(m, -in_exponent),
        exponent,
    )
    return _eliminate(raw) if _linear(alpha, beta).any() else raw


def _eliminate(raw: Raw) -> Raw | Linear:
    """Substitute the neurons that are linear (alpha = beta) in a general problem, one after the other.

    y_j = α (a_jj y_j + the others) is y_j = α/(1 − α a_jj) · (the others).
    """
    G, C, n_in = raw.blocks[0].weight, raw.out.weight, raw.n_in
    alpha, beta = raw.alpha.copy(), raw.beta.copy()
    linear = _linear(alpha, beta)
    for k in np.flatnonzero(linear):
        j = n_in + int(k)
        factor = _loop_gain(
            float(alpha[k]), float(beta[k]), float(G.mid[k, j]), 0.0 if G.radius is None else float(G.radius[k, j])
        )
        if factor is None:  # a singular loop: leave the neuron a little slope
            width = 1e-9 * max(abs(float(alpha[k])), 1e-3)
            alpha[k], beta[k], linear[k] = alpha[k] - width, beta[k] + width, False
            continue
        row = part(G, slice(k, k + 1), slice(None))
        row.mid[:, j] = 0.0
        if row.radius is not None:
            row.radius[:, j] = 0.0
        row = factor @ row
        G, C = (without_column(one, j) + part(one, slice(None), slice(j, j + 1)) @ row for one in (G, C))
    live = ~linear
    keep = np.concatenate([np.ones(n_in, dtype=bool), live])
    G, C = part(part(G, live, slice(None)), slice(None), keep), part(C, slice(None), keep)
    m = int(live.sum())
    if not m:
        return Linear(C, raw.exponent)
    columns = slice(0, n_in + m)
    return replace(
        _reordered(replace(raw, alpha=alpha, beta=beta), np.flatnonzero(live)),
        blocks=(Block(slice(0, m), columns, G),),
        out=Block(raw.out.rows, columns, C),
    )


def _linear(alpha: Array, beta: Array) -> NDArray[np.bool_]:
    """Which neurons are linear, or as good as: their slope is known to ten digits, and the rest goes into a radius."""
    return beta - alpha <= 1e-10 * np.maximum(np.abs(alpha), np.abs(beta))


def _slope_ball(alpha: Array, beta: Array) -> tuple[Array, Array]:
    """Middle and radius of [alpha, beta], the radius 0 where they are equal."""
    middle = alpha + (beta - alpha) / 2.0
    radius = np.nextafter(np.maximum(beta - middle, middle - alpha), np.inf)
    return np.where(alpha == beta, alpha, middle), np.where(alpha == beta, 0.0, radius)


def _scale_columns(ball: Ball, alpha: Array, beta: Array) -> Ball:
    """A ball that holds the products with diag(f) on the right, for all f between alpha and beta."""
    middle, radius = _slope_ball(alpha, beta)
    scaled = ball.scale_columns(middle)
    if not radius.any():
        return scaled
    extra = ball.magnitude * radius * (1.0 + 4.0 * UNIT) + TINY
    lost = extra if scaled.radius is None else (scaled.radius + extra) * (1.0 + 4.0 * UNIT)
    return Ball(scaled.mid, lost)


def _loop_gain(alpha: float, beta: float, a: float, radius: float) -> Ball | None:
    """A ball, `[1, 1]`, around f/(1 − f a) for f from alpha to beta, a within the radius; None if 1 − f a may vanish."""
    if a == 0.0 and radius == 0.0:
        middle, half = _slope_ball(np.array([[alpha]]), np.array([[beta]]))
        return Ball(middle, half if half.any() else None)
    largest = max(abs(alpha), abs(beta))
    spread = (beta - alpha) * (1.0 + 4.0 * UNIT)
    below = 1.0 - alpha * a
    slack = 4.0 * UNIT * (1.0 + abs(alpha * a)) + (largest * radius + spread * (abs(a) + radius)) * (1.0 + 8.0 * UNIT)
    if abs(below) <= 2.0 * slack:
        return None
    mid = alpha / below
    least = abs(below) - slack
    lost = (abs(mid) * (slack / least + 8.0 * UNIT) + spread / least) * (1.0 + 16.0 * UNIT)
    return Ball(np.array([[mid]]), np.array([[lost]]))


def _dense(raw: Raw) -> Raw:
    """The blocks of a chain in one."""
    m, n = len(raw.alpha), raw.n_in + len(raw.alpha)
    G, R = np.zeros((m, n)), np.zeros((m, n))
    for block in raw.blocks:
        G[block.rows, block.columns] = block.weight.mid
        R[block.rows, block.columns] = 0.0 if block.weight.radius is None else block.weight.radius
    C, S = np.zeros((raw.out.rows.stop, n)), np.zeros((raw.out.rows.stop, n))
    C[:, raw.out.columns] = raw.out.weight.mid
    S[:, raw.out.columns] = 0.0 if raw.out.weight.radius is None else raw.out.weight.radius
    everything = slice(0, n)
    return replace(
        raw, blocks=(Block(slice(0, m), everything, Ball(G, R)),), out=Block(raw.out.rows, everything, Ball(C, S))
    )


# --------------------------------------------------------------------------------------- transposing and shrinking


def _transpose_chain(raw: Raw) -> Raw:
    m = len(raw.alpha)
    balls = [block.weight for block in raw.blocks] + [raw.out.weight]
    n_in = len(balls[-1].mid)
    blocks, start, columns = [], 0, slice(0, n_in)
    order = []
    for ball, block in zip(reversed(balls[1:]), reversed(raw.blocks), strict=True):
        size = block.rows.stop - block.rows.start
        rows = slice(start, start + size)
        blocks.append(Block(rows, columns, ball.T))
        order.append(np.arange(block.rows.start, block.rows.stop))
        start, columns = start + size, slice(n_in + start, n_in + start + size)
    assert start == m
    return _reordered(
        replace(
            raw,
            n_in=n_in,
            blocks=tuple(blocks),
            out=Block(slice(0, balls[0].mid.shape[1]), columns, balls[0].T),
            units=-raw.exponent - raw.units,
        ),
        np.concatenate(order),
    )


def _transpose_general(raw: Raw) -> Raw:
    G, C, n = raw.blocks[0].weight, raw.out.weight, raw.n_in
    (b, a), (d, c) = split(G, n), split(C, n)
    m, p = len(raw.alpha), len(C.mid)
    columns = slice(0, p + m)
    return replace(
        raw,
        n_in=p,
        blocks=(Block(slice(0, m), columns, beside(c.T, a.T)),),
        out=Block(slice(0, n), columns, beside(d.T, b.T)),
        units=-raw.exponent - raw.units,
    )


def _reordered(raw: Raw, order: Integers) -> Raw:
    fields = ("alpha", "beta", "layer", "neurons", "units")
    return replace(raw, **{name: getattr(raw, name)[order] for name in fields})


def _shrink_inputs(raw: Raw) -> Raw:
    """Replace a wide first weight W by a square R with RRᵀ ⪰ WWᵀ: no Jacobian J·R has a smaller norm than J·W.

    R is a Cholesky factor of the Gram matrix plus a diagonal δ that is proved to exceed all roundings.
    """
    W = raw.blocks[0].weight
    rows = len(W.mid)
    # equally long rows: else δ would be too much for the short ones
    exponents = -np.frexp(np.maximum(W.magnitude.max(1), np.finfo(float).tiny))[1].astype(np.int64)
    W = times_powers(W, exponents, np.zeros(W.mid.shape[1], dtype=np.int64))
    K = gram(W.mid)
    size, ones = np.abs(W.mid), np.ones(rows)
    lost = gamma(gram_roundings(W.mid.shape[1])) * product_up(size, product_up(size.T, ones))
    if W.radius is not None:
        lost = lost + product_up(W.radius, product_up(W.magnitude.T, ones))
        lost = lost + product_up(W.magnitude, product_up(W.radius.T, ones))
    delta = 2.0 * lost + 4.0 * gamma(rows + 8) * float(K.diagonal().max()) * rows**0.5 + TINY
    for _ in range(20):
        added = K.copy()
        diagonal = np.nextafter(K.diagonal() + delta, np.inf)
        np.fill_diagonal(added, diagonal)
        try:
            R = scipy.linalg.cholesky(added, lower=True)
        except np.linalg.LinAlgError:
            delta = 4.0 * delta
            continue
        # |RRᵀ − added| ≤ γ |R||R|ᵀ
        wrong = gamma(rows + 8) * product_up(np.abs(R), product_up(np.abs(R).T, ones))
        if ((lost + wrong) * (1.0 + 8.0 * UNIT) + 2.0 * UNIT * diagonal <= delta).all():
            break
        delta = 4.0 * delta
    else:
        return raw
    ball = times_powers(Ball(R), -exponents, np.zeros(rows, dtype=np.int64))
    shift = rows - raw.n_in

    def moved(columns: slice) -> slice:
        return slice(columns.start + shift, columns.stop + shift)

    first, *others = raw.blocks
    return replace(
        raw,
        n_in=rows,
        blocks=(
            Block(first.rows, slice(0, rows), ball),
            *(replace(block, columns=moved(block.columns)) for block in others),
        ),
        out=replace(raw.out, columns=moved(raw.out.columns)),
    )
