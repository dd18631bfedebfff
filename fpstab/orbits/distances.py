"""Distances between observations: found by matrix products, decided by direct differences.

A matrix product gives the squares of many distances at once, but with an absolute error: two outputs 4e-5 apart can
come out at 0. So products only *screen*. Their error is bounded, everything within the bound of a minimum is computed
again from the differences, and that value decides. All in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_UNIT = 2.0**-53
_ROWS, _COLUMNS = 128, 512  # a tile and its accumulators fit in a second-level cache
_SPARE = 8  # neighbours beyond those asked for, so that ties are seen
_PAIRS_AT_ONCE = 1 << 15


def direct(a: Floats, b: Floats) -> Floats:
    """Euclidean distances over the last axis, `[..., m]` and `[..., m]` broadcast to `[...]`.

    Differences first, squares added in the order of the coordinates: the value that decides everywhere in
    `fpstab.orbits`, the same for (a, b) and (b, a).

    >>> direct(np.array([1.0, 0.0]), np.array([[1.0, 3e-9], [4.0, 4.0]]))
    array([3.e-09, 5.e+00])
    """
    difference = a[..., 0] - b[..., 0]
    total = difference * difference
    for k in range(1, a.shape[-1]):
        np.subtract(a[..., k], b[..., k], out=difference)
        np.multiply(difference, difference, out=difference)
        total += difference
    root: Floats = np.sqrt(total, out=total)
    return root


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """Squares of distances between rows of `a` `[S, N, m]` and `b` `[S, M, m]`, for each of S states, by products.

    `left[s, i] @ right[s, :, j]` is at least the square of the direct distance, and exceeds it by at most `slack[s]`.
    """

    left: Floats  # [S, N, m + 2]
    right: Floats  # [S, m + 2, M]
    slack: Floats  # [S]

    @classmethod
    def of(cls, a: Floats, b: Floats) -> "Screen":
        """The factors, of points centred at each state: rounding grows with the distance from the centre."""
        m = a.shape[-1]
        centre = b.mean(1, keepdims=True)
        a, b = a - centre, b - centre
        a2, b2 = (np.einsum("snm,snm->sn", x, x)[..., None] for x in (a, b))
        # Rounding, in units of |a|² + |b|²: 3m + 9 of the norms and the product, 2m + 4 of the direct distance, 8 of the
        # centring; 6m + 24 leaves room for their second order.
        error = (6 * m + 24) * _UNIT * (a2.max((1, 2)) + b2.max((1, 2)))
        one = np.ones_like
        left = np.concatenate((-2 * a, a2 + error[:, None, None], one(a2)), 2)
        right = np.concatenate((b, one(b2), b2), 2).transpose(0, 2, 1)
        return cls(left, np.ascontiguousarray(right), 2 * error)

    def squares(self, s: int, rows: slice, columns: slice, out: Floats) -> Floats:
        """The squares `[rows, columns]` at state `s`, in `out`."""
        return np.matmul(self.left[s, rows], self.right[s, :, columns], out=out)


def tiles(n_rows: int, n_columns: int, upper: bool = False) -> Iterator[tuple[slice, slice]]:
    """Tiles that cover `[n_rows, n_columns]`; with `upper`, the entries above the diagonal."""
    for i in range(0, n_rows, _ROWS):
        rows = slice(i, min(i + _ROWS, n_rows))
        for j in range(i if upper else 0, n_columns, _COLUMNS):
            yield rows, slice(j, min(j + _COLUMNS, n_columns))


def buffers(count: int) -> Floats:
    """Memory for `count` tiles, each to be viewed by `view`."""
    return np.empty((count, _ROWS * _COLUMNS))


def view(buffer: Floats, rows: slice, columns: slice) -> Floats:
    """A buffer as a tile's array."""
    shape = rows.stop - rows.start, columns.stop - columns.start
    return buffer[: shape[0] * shape[1]].reshape(shape)


def nearest(a: Floats, b: Floats, own: Ints, k: int) -> tuple[Ints, Floats]:
    """The k nearest rows of `b` `[M, m]` to each row of `a` `[N, m]`, nearest first, the lowest index first on ties.

    Args:
        a: Where to look from.
        b: What to find.
        own: For each row of `a` the row of `b` that does not count, `[N]`.
        k: How many, below M.

    Returns:
        Indices `[N, k]` and direct distances `[N, k]`.
    """
    screen = Screen.of(a[None], b[None])
    slack = float(screen.slack[0])
    indices, distances = np.empty((len(a), k), np.int64), np.empty((len(a), k))
    kept = min(k + _SPARE, len(b))
    squares = np.empty((_ROWS, len(b)))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, min(start + _ROWS, len(a)))
        line = np.arange(rows.stop - start)
        block = screen.squares(0, rows, slice(None), squares[: len(line)])
        block[line, own[rows]] = np.inf
        if kept < len(b):
            found = np.sort(np.argpartition(block, kept - 1, axis=1)[:, :kept], 1)
        else:
            found = np.tile(np.arange(len(b)), (len(line), 1))
        approximate = np.sort(np.take_along_axis(block, found, 1), 1)
        exact = direct(a[rows, None], b[found])
        exact[found == own[rows, None]] = np.inf
        order = np.argsort(exact, 1, kind="stable")[:, :k]
        indices[rows], distances[rows] = np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1)
        # Something that was not kept may be as near as the k-th: then all are looked at
        threshold = approximate[:, k - 1] + slack
        for r in start + np.flatnonzero(approximate[:, -1] <= threshold) if kept < len(b) else ():
            whole = direct(a[r], b)
            whole[own[r]] = np.inf
            indices[r] = np.argsort(whole, kind="stable")[:k]
            distances[r] = whole[indices[r]]
    return indices, distances


def tracers(a: Floats, b: Floats) -> tuple[Ints, Floats]:
    """For each row of `a` `[S, N, m]` the row of `b` `[S, M, m]` whose largest distance over the states is least.

    Returns:
        Indices `[N]`, the lowest on ties, and those distances `[N]`.
    """
    screen = Screen.of(a, b)
    slack = float(screen.slack.max())
    n_states, n, _ = a.shape
    indices, distances = np.empty(n, np.int64), np.empty(n)
    largest, buffer = np.empty((_ROWS, b.shape[1])), buffers(1)[0]
    for rows, columns in tiles(n, b.shape[1]):
        block = largest[: rows.stop - rows.start, columns]
        square = view(buffer, rows, columns)
        screen.squares(0, rows, columns, block)
        for s in range(1, n_states):
            np.maximum(block, screen.squares(s, rows, columns, square), out=block)
        if columns.stop == b.shape[1]:
            _decide(largest[: rows.stop - rows.start], slack, a[:, rows], b, indices[rows], distances[rows])
    return indices, distances


def _decide(largest: Floats, slack: float, a: Floats, b: Floats, indices: Ints, distances: Floats) -> None:
    """Recheck what the screen leaves of a block of rows, and write the answers."""
    line, found = np.nonzero(largest <= (largest.min(1, keepdims=True) + slack) * (1 + 8 * _UNIT))
    if len(line) > largest.size // 50 + len(largest):  # masses of ties: all of them, without gathering
        for columns in range(0, b.shape[1], _COLUMNS):
            part = slice(columns, columns + _COLUMNS)
            exact = direct(a[0][:, None], b[0][None, part])
            for s in range(1, len(a)):
                np.maximum(exact, direct(a[s][:, None], b[s][None, part]), out=exact)
            largest[:, part] = exact
        indices[:] = largest.argmin(1)
        distances[:] = largest[np.arange(len(largest)), indices]
        return
    values = np.concatenate(
        [
            direct(a[:, line[k : k + _PAIRS_AT_ONCE]], b[:, found[k : k + _PAIRS_AT_ONCE]]).max(0)
            for k in range(0, len(line), _PAIRS_AT_ONCE)
        ]
    )
    order = np.lexsort((found, values, line))
    first = order[np.unique(line[order], return_index=True)[1]]
    indices[:], distances[:] = found[first], values[first]
