"""Powers of two for every neuron, so that equations are well-conditioned however the network is scaled."""

from dataclasses import replace

import numpy as np

from fpstab.lipschitz.blocks import Integers, Raw, Reduced, times_powers
from fpstab.rounding import Array

_SWEEPS = 4


def balanced(raw: Raw, implicit: bool, transposed: bool) -> Reduced:
    """Rescale every neuron by a power of two so that what comes in is about as large as what goes out.

    The norms of the Jacobians do not change, and the equations become well-conditioned however the network is scaled.
    """
    n_in, m = raw.n_in, len(raw.alpha)
    d = np.zeros(n_in + m)
    everything = (*raw.blocks, raw.out)
    logs = []
    for block in everything:
        with np.errstate(divide="ignore"):
            logs.append(np.log2(np.abs(block.weight.mid)))
    for _ in range(_SWEEPS):
        rows, columns = np.full(m, -np.inf), np.full(n_in + m, -np.inf)
        for block, log in zip(everything, logs, strict=True):
            row_exponents = d[n_in:][block.rows] if block is not raw.out else 0.0
            scaled = log + np.reshape(row_exponents, (-1, 1)) - d[block.columns]
            if block is not raw.out:
                rows[block.rows] = np.maximum(rows[block.rows], scaled.max(1))
            columns[block.columns] = np.maximum(columns[block.columns], scaled.max(0))
        change = (columns[n_in:] - rows) / 2.0
        if implicit or len(raw.blocks) == 1:
            change = change / 2.0  # a neuron's own row and column meet in A: in small steps
        d[n_in:] += np.where(np.isfinite(change), change, 0.0)
    power = np.round(d).astype(np.int64)

    # and then every weight to about 1: what that makes of the constant goes into the exponent
    def largest(log: Array, rows: Integers | float, columns: slice) -> int:
        top = float((log + np.reshape(rows, (-1, 1)) - power[columns]).max())
        return round(top) if np.isfinite(top) else 0

    for block, log in zip(raw.blocks, logs[:-1], strict=True):
        own = slice(n_in + block.rows.start, n_in + block.rows.stop)
        seen = slice(0, n_in) if len(raw.blocks) == 1 else block.columns  # what an equation feeds back stays
        power[own] -= largest(log[:, : seen.stop - seen.start], power[own], seen)
    shift = largest(logs[-1], 0.0, raw.out.columns)
    blocks = tuple(
        replace(block, weight=times_powers(block.weight, power[n_in:][block.rows], -power[block.columns]))
        for block in raw.blocks
    )
    shifts = np.full(raw.out.rows.stop, -shift, dtype=np.int64)
    out = replace(raw.out, weight=times_powers(raw.out.weight, shifts, -power[raw.out.columns]))
    exponent = raw.exponent + shift
    units = raw.units + power[n_in:]
    share, magnification = np.ones(m), np.ones(m)
    for index in np.unique(raw.layer):
        here = raw.layer == index
        magnification[here] = np.ldexp(1.0, np.clip(units[here] - int(np.median(units[here])), -300, 300))
        share[here] = 1.0 / magnification[here] ** 2
        if transposed:  # multipliers of the two orientations are inverse to each other, over (beta − alpha)²
            width = raw.beta[here] - raw.alpha[here]
            share[here] *= np.maximum(width.max() / width, 1e-100) ** 2
    return Reduced(
        n_in=n_in,
        blocks=blocks,
        out=out,
        alpha=raw.alpha,
        beta=raw.beta,
        layer=np.unique(raw.layer, return_inverse=True)[1].astype(np.int64),
        share=share,
        magnification=magnification,
        implicit=implicit,
        transposed=transposed,
        exponent=exponent,
        neurons=raw.neurons,
        multiplier_exponent=2 * (units + exponent),
    )
