"""The blocks that a reduced problem is made of, and exact operations on them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpstab.rounding import TINY, Array, Ball

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A weight: from the entries `columns` of z = (x, y) to the neurons (or outputs) `rows`.

    Attributes:
        rows: A slice of the neurons.
        columns: A slice of z.
        weight: `[len(rows), len(columns)]`.
    """

    rows: slice
    columns: slice
    weight: Ball


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """y = σ(G z), out = C z with z = (x, y): what is solved and certified.

    Attributes:
        n_in: Number of inputs x.
        blocks: G, block by block.
        out: C, on some columns of z (zero on the others).
        alpha: `[m]` least slopes.
        beta: `[m]` largest slopes, above alpha.
        layer: `[m]` which layer a neuron is in, 0, 1, …; in the form "layer" its multiplier is that of the layer
        share: `[m]` times this share (neurons have been rescaled).
        magnification: `[m]` how many times larger a neuron is here than, up to a common factor of its layer, in the
            network.
        implicit: Whether y is defined by an equation.
        transposed: Whether this is the transposed network, whose Jacobians have the same norms.
        exponent: The network's constant is the one of this problem times 2**exponent.
        neurons: `[m]` the neurons' places among all of the network, layer after layer.
        multiplier_exponent: `[m]` a network's multiplier is one of this problem times 2**multiplier_exponent.
    """

    n_in: int
    blocks: tuple[Block, ...]
    out: Block
    alpha: Array
    beta: Array
    layer: Integers
    share: Array
    magnification: Array
    implicit: bool
    transposed: bool
    exponent: int
    neurons: Integers
    multiplier_exponent: Integers

    @property
    def n_neurons(self) -> int:
        """The number m of neurons."""
        return len(self.alpha)

    @property
    def n(self) -> int:
        """The length of z = (x, y): the size of the matrix inequality."""
        return self.n_in + self.n_neurons

    @property
    def chain(self) -> bool:
        """Whether each block feeds on the one before, as in a feedforward network."""
        return is_chain(self.n_in, self.blocks, self.out)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A network that is a linear map: `weight` times 2**exponent; `exact` if no rounding went into it."""

    weight: Ball
    exponent: int


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """The fields of a `Reduced` before scaling; `units` `[m]` are exponents: neurons are the network's times 2**units."""

    n_in: int
    blocks: tuple[Block, ...]
    out: Block
    alpha: Array
    beta: Array
    layer: Integers
    neurons: Integers
    units: Integers
    exponent: int


def is_chain(n_in: int, blocks: tuple[Block, ...], out: Block) -> bool:
    """Whether each block feeds on the one before, and the outputs on the last."""
    last = slice(0, n_in)
    for block in blocks:
        if block.columns != last:
            return False
        last = slice(n_in + block.rows.start, n_in + block.rows.stop)
    return out.columns == last


def normalised(weight: Array) -> tuple[Ball, int]:
    """The weight divided by the power of two near its spectral norm, and that power's exponent."""
    exponent = int(np.frexp(np.abs(weight).max())[1])
    scaled = np.ldexp(weight, -exponent)
    short = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    norm = float(np.sqrt(np.abs(short @ short.T).sum(1).max()))  # between the norm and √rows times it
    exponent += int(np.frexp(norm)[1])
    return times_power(Ball(weight), -exponent), exponent


def times_power(ball: Ball, exponent: int) -> Ball:
    """The ball times 2**exponent."""
    p, n = ball.mid.shape
    return times_powers(ball, np.full(p, exponent), np.zeros(n, dtype=np.int64))


def times_powers(ball: Ball, rows: Integers, columns: Integers) -> Ball:
    """Rows and columns times powers of two; what underflows goes into the radius."""
    powers = np.clip(rows[:, None] + columns[None, :], -5000, 5000).astype(np.int32)
    mid = np.ldexp(ball.mid, powers)
    radius = None if ball.radius is None else np.ldexp(ball.radius, powers) + TINY
    if radius is None and not np.array_equal(np.ldexp(mid, -powers), ball.mid):
        radius = np.where(np.ldexp(mid, -powers) != ball.mid, TINY, 0.0)
    return Ball(mid, radius)


def beside(left: Ball, right: Ball) -> Ball:
    """Two matrices side by side."""
    if left.radius is None and right.radius is None:
        return Ball(np.hstack([left.mid, right.mid]))
    radii = [np.zeros(one.mid.shape) if one.radius is None else one.radius for one in (left, right)]
    return Ball(np.hstack([left.mid, right.mid]), np.hstack(radii))


def split(ball: Ball, n: int) -> tuple[Ball, Ball]:
    """The first n columns, and the others."""
    if ball.radius is None:
        return Ball(ball.mid[:, :n]), Ball(ball.mid[:, n:])
    return Ball(ball.mid[:, :n], ball.radius[:, :n]), Ball(ball.mid[:, n:], ball.radius[:, n:])


def part(ball: Ball, rows: slice | NDArray[np.bool_], columns: slice | NDArray[np.bool_]) -> Ball:
    """A copy of some rows and columns (one of the two may be a mask)."""
    return Ball(ball.mid[rows, columns].copy(), None if ball.radius is None else ball.radius[rows, columns].copy())


def without_column(ball: Ball, j: int) -> Ball:
    """A copy with zeros in column j."""
    copy = part(ball, slice(None), slice(None))
    copy.mid[:, j] = 0.0
    if copy.radius is not None:
        copy.radius[:, j] = 0.0
    return copy
