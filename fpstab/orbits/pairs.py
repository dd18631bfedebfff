"""The closest pair of every pair of classes, for the three constants at once, in tiles."""

from dataclasses import dataclass

import numpy as np

from fpstab.orbits.distances import Floats, Ints, Screen, buffers, direct, tiles, view

_UNIT = 2.0**-53
_PAIRS_AT_ONCE = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class ClosestPairs:
    """By pairs of classes a ≤ b, flat: entry a·C + b. `inf` where there is no pair."""

    values: Floats  # [C·C]
    first: Ints  # [C·C], the lower of the two indices
    second: Ints  # [C·C]

    def offer(self, entries: Ints, values: Floats, i: Ints, j: Ints) -> None:
        """Keep the least by (value, i, j) for every entry."""
        order = np.lexsort((j, i, values, entries))
        best = order[np.unique(entries[order], return_index=True)[1]]
        entries, values, i, j = entries[best], values[best], i[best], j[best]
        old = self.values[entries]
        earlier = (i < self.first[entries]) | ((i == self.first[entries]) & (j < self.second[entries]))
        better = (values < old) | ((values == old) & earlier)
        entries = entries[better]
        self.values[entries], self.first[entries], self.second[entries] = values[better], i[better], j[better]


def closest_pairs(
    outputs: Floats, classes: Ints, n_classes: int, twins: Ints | None = None
) -> tuple[ClosestPairs, ...]:
    """The pairs i < j whose distances over the states have the least maximum, minimum and mean.

    Args:
        outputs: `[N, S, m]`.
        classes: Of every image, from 0 to `n_classes` - 1, `[N]`.
        n_classes: C.
        twins: Images with equal numbers make no pair, `[N]`; `None`: all do.

    Returns:
        For the maximum, the minimum and the mean; ties by (value, i, j).
    """
    search = _Search(outputs, classes, n_classes, twins)
    n = len(outputs)
    square, *accumulators = buffers(4)
    for rows, columns in tiles(n, n, upper=True):
        largest, least, total = (view(buffer, rows, columns) for buffer in accumulators)
        search.screen_tile(rows, columns, view(square, rows, columns), largest, least, total)
        search.exclude(rows, columns, (largest, least, total))
        search.take(rows, columns, (largest, least, total))
    return search.found


class _Search:
    def __init__(self, outputs: Floats, classes: Ints, n_classes: int, twins: Ints | None) -> None:
        self.order = np.argsort(classes, kind="stable")  # tiles then meet few classes
        self.outputs = np.ascontiguousarray(outputs[self.order])
        self.by_state = np.ascontiguousarray(self.outputs.transpose(1, 0, 2))
        self.classes, self.n_classes = classes[self.order], n_classes
        self.twins = None if twins is None else twins[self.order]
        self.screen = Screen.of(self.by_state, self.by_state)
        slack = self.screen.slack
        n_states = len(slack)
        self.slacks = float(slack.max()), float(slack.max()), float(np.sqrt(slack).sum())
        self.growth = 1 + (2 * n_states + 16) * _UNIT
        size = n_classes * n_classes
        self.found = tuple(
            ClosestPairs(np.full(size, np.inf), np.full(size, len(classes)), np.full(size, len(classes)))
            for _ in range(3)
        )

    def screen_tile(
        self, rows: slice, columns: slice, square: Floats, largest: Floats, least: Floats, total: Floats
    ) -> None:
        """Largest and least square of the distances over the states, and the sum of the distances, not below the true."""
        self.screen.squares(0, rows, columns, largest)
        np.copyto(least, largest)
        np.sqrt(largest, out=total)
        for s in range(1, len(self.screen.slack)):
            self.screen.squares(s, rows, columns, square)
            np.maximum(largest, square, out=largest)
            np.minimum(least, square, out=least)
            np.sqrt(square, out=square)
            np.add(total, square, out=total)

    def exclude(self, rows: slice, columns: slice, measures: tuple[Floats, Floats, Floats]) -> None:
        """What is no pair, or was met before, is infinitely far."""
        out = None
        if columns.start < rows.stop:
            out = np.arange(columns.start, columns.stop) <= np.arange(rows.start, rows.stop)[:, None]
        if self.twins is not None:
            equal = self.twins[columns] == self.twins[rows, None]
            out = equal if out is None else out | equal
        if out is not None:
            for measure in measures:
                measure[out] = np.inf

    def take(self, rows: slice, columns: slice, measures: tuple[Floats, Floats, Floats]) -> None:
        """Recheck what can be the closest pair of its classes."""
        row_starts, row_classes, row_counts = _runs(self.classes[rows])
        column_starts, column_classes, column_counts = _runs(self.classes[columns])
        entries = row_classes[:, None] * self.n_classes + column_classes
        exact: tuple[Floats, Floats, Floats] | None = None
        for k, (measure, found) in enumerate(zip(measures, self.found, strict=True)):
            lowest = np.minimum.reduceat(np.minimum.reduceat(measure, column_starts, 1), row_starts, 0)
            best = found.values[entries]
            best = best * len(self.screen.slack) if k == 2 else best * best
            slack, growth = self.slacks[k], self.growth
            limit = np.where(lowest <= (best + slack) * growth, (np.minimum(best, lowest) + slack) * growth, -np.inf)
            if np.all(limit < 0):
                continue
            wide = np.repeat(np.repeat(limit, row_counts, 0), column_counts, 1)
            line, column = np.nonzero((measure <= wide) & (measure < np.inf))
            if len(line) > _PAIRS_AT_ONCE:  # masses of ties: all of them, without gathering
                if exact is None:
                    exact = self._exact_tile(rows, columns)
                    self.exclude(rows, columns, exact)
                lowest = np.minimum.reduceat(np.minimum.reduceat(exact[k], column_starts, 1), row_starts, 0)
                wide = np.repeat(np.repeat(np.minimum(lowest, found.values[entries]), row_counts, 0), column_counts, 1)
                line, column = np.nonzero((exact[k] <= wide) & (exact[k] < np.inf))
                values = exact[k][line, column]
            else:
                distances = direct(self.outputs[rows.start + line], self.outputs[columns.start + column])
                values = (distances.max(1), distances.min(1), _mean(distances))[k]
            one, other = self.order[rows.start + line], self.order[columns.start + column]
            entry = self.classes[rows.start + line] * self.n_classes + self.classes[columns.start + column]
            found.offer(entry, values, np.minimum(one, other), np.maximum(one, other))

    def _exact_tile(self, rows: slice, columns: slice) -> tuple[Floats, Floats, Floats]:
        """Maximum, minimum and mean of the direct distances."""
        a, b = self.by_state[:, rows, None], self.by_state[:, None, columns]
        total = direct(a[0], b[0])
        largest, least = total.copy(), total.copy()
        for s in range(1, len(a)):
            distance = direct(a[s], b[s])
            np.maximum(largest, distance, out=largest)
            np.minimum(least, distance, out=least)
            total += distance
        total /= len(a)
        return largest, least, total


def _mean(distances: Floats) -> Floats:
    """The mean over the last axis, added in order."""
    total = distances[:, 0].copy()
    for s in range(1, distances.shape[1]):
        total += distances[:, s]
    total /= distances.shape[1]
    return total


def _runs(values: Ints) -> tuple[Ints, Ints, Ints]:
    """Where runs of equal values start, their values, and their lengths."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return starts, values[starts], np.diff(np.r_[starts, len(values)])
