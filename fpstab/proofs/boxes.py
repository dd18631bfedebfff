"""Branch and prune: all fixed points of a chain in a box, each in an enclosure, and the boxes that stay unknown."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fpstab.proofs.krawczyk import apart, contains, krawczyk
from fpstab.proofs.networks import Layer, enclose
from fpstab.rounding import Array, Bools

Integers = NDArray[np.int64]

_CHUNK = 512  # boxes at a time: their 100 neurons fit into a cache
_SLOPES = 2**22  # slopes in a layer at a time, at most
_CUT = 0.4871  # not the middle, where symmetric networks have fixed points
_PROMISING = 0.9  # rate of Krawczyk's operator below which a box is tried as a whole, a little wider
_WIDER = 0.25  # by this share of its half-width, so that fixed points on its edge lie inside
_LEAST = 4e-15  # and by this, relative to 1 + |x|: above rounding
_LEVELS = 4  # how often a box is tried
_SHRUNK = 0.6  # a box that has lost so much of its width is looked at again before it is cut
_DOUBLINGS = 10
_ROUNDS = 10  # that a box is looked at where none is cut
_FINEST = 1e-10  # width below which a box is unknown for good; less in domains below 1, at least _DIGITS·|x|
_DIGITS = 1e-13


@dataclass(slots=True, eq=False)
class Search:
    """State and outcome of a search.

    Attributes:
        low, high: Enclosures of distinct fixed points `[K, n]`.
        unique_low, unique_high: Boxes in which they are the only ones.
        stuck: Boxes that no rule decides `[S, 2, n]`: too fine to be cut.
        left: Boxes that were not reached `[L, 2, n]`.
        n_boxes: Boxes that were evaluated.
        seconds: What it took.
    """

    low: Array
    high: Array
    unique_low: Array
    unique_high: Array
    stuck: list[Array] = field(default_factory=list)
    left: Array = field(default_factory=lambda: np.empty((0, 2, 0)))
    n_boxes: int = 0
    seconds: float = 0.0

    @classmethod
    def empty(cls, n: int) -> "Search":
        """Nothing found yet."""
        none = np.empty((0, n))
        return cls(none, none, none, none, left=np.empty((0, 2, n)))

    def covers(self, low: Array, high: Array) -> Bools:
        """Which boxes `[B, n]` lie in one whose only fixed point is known."""
        if not len(self.low):
            return np.zeros(len(low), dtype=bool)
        return np.asarray(contains(self.unique_low, self.unique_high, low[:, None], high[:, None]).any(1))


def search(
    layers: Sequence[Layer], low: Array, high: Array, *, max_boxes: int, max_seconds: float, divide: bool = True
) -> Search:
    """Look for all fixed points in the box [low, high], `[n]` each.

    Every box X is replaced by X ∩ Φ(X) ∩ K(X), which holds all its fixed points, until that is empty, or shown (in a slightly wider
    box) to hold exactly one, or too fine; and cut where this stops to shrink it.

    Args:
        layers: The chain, from R^n to itself.
        low: Lower corner.
        high: Upper corner, nowhere below.
        max_boxes: Evaluations at most.
        max_seconds: Seconds at most.
        divide: Whether boxes are cut; else only the box as a whole is tried.
    """
    start = time.perf_counter()
    found = Search.empty(len(low))
    finest = _FINEST * np.clip(high - low, 1e-3, 1.0)
    lows, highs = low[None], high[None]
    levels = np.full(len(lows), int(not divide))
    rounds = 0
    chunk = max(1, min(_CHUNK, _SLOPES // (len(low) * max(len(layer.weight) for layer in layers))))
    with np.errstate(all="ignore"):
        while len(lows):
            rounds += 1
            take = min(chunk, len(lows), max_boxes - found.n_boxes)
            if (
                take <= 0
                or (rounds > 1 and time.perf_counter() - start > max_seconds)
                or (not divide and rounds > _ROUNDS)
            ):
                break
            some = _step(layers, found, lows[-take:], highs[-take:], levels[-take:], finest, divide)
            found.n_boxes += take
            lows, highs, levels = (
                np.concatenate((old[:-take], new)) for old, new in zip((lows, highs, levels), some, strict=True)
            )
            if len(found.low) and take < len(lows):  # what waits may be known by now
                keep = ~found.covers(lows, highs)
                lows, highs, levels = lows[keep], highs[keep], levels[keep]
    found.left = np.stack((lows, highs), 1)
    found.seconds = time.perf_counter() - start
    return found


def _step(
    layers: Sequence[Layer], found: Search, low: Array, high: Array, level: Integers, finest: Array, divide: bool
) -> tuple[Array, Array, Integers]:
    """Evaluate boxes; returns what is left to do of them."""
    wide_low, wide_high = _widened(low, high, level)
    image = enclose(layers, wide_low, wide_high)
    K = krawczyk(image)
    one = np.asarray(((wide_low < K.low) & (K.high < wide_high)).all(1))
    if one.any():
        some = _record(layers, found, K.low[one], K.high[one], wide_low[one], wide_high[one])
        one[np.flatnonzero(one)[~some]] = False
    # all fixed points of the box lie in what follows; nan says nothing
    new_low = np.fmax(np.fmax(low, image.low), K.low)
    new_high = np.fmin(np.fmin(high, image.high), K.high)
    open_ = ~one & ~(new_low > new_high).any(1)
    if found.low.size:
        open_ &= ~found.covers(new_low, new_high)
    old_width, width = (high - low)[open_], (new_high - new_low)[open_]
    low, high, level, rate = new_low[open_], new_high[open_], level[open_], K.rate[open_]
    fine = (width <= np.maximum(finest, _DIGITS * np.maximum(np.abs(low), np.abs(high)))).all(1)
    done = fine | K.blurred[open_]
    again = (width.max(1) <= _SHRUNK * old_width.max(1)) & ~done
    # as a whole: what promises to hold one fixed point or none, and what cannot be cut; in ever wider boxes
    promising = rate < _PROMISING
    attempt = (promising & (again | (level < _LEVELS))) | (done & (level == 0)) | (not divide)
    give_up = done & ~attempt
    if give_up.any():
        found.stuck.append(np.stack((low, high), 1)[give_up])
    whole = attempt | again
    cut = ~whole & ~give_up
    level = np.where(attempt, np.where(again, np.maximum(level, 1), np.minimum(level + 1, _LEVELS)), 0)[whole]
    radius, slope_radius = 0.5 * width[cut], image.slope_radius[open_][cut]
    halves = _halves(low[cut], high[cut], radius, slope_radius)
    return (
        np.concatenate((low[whole], halves[0])),
        np.concatenate((high[whole], halves[1])),
        np.concatenate((level, np.zeros(len(halves[0]), dtype=np.int64))),
    )


def _widened(low: Array, high: Array, level: Integers) -> tuple[Array, Array]:
    """Boxes that are tried as a whole, made wider, the more the oftener it was in vain; the others as they are."""
    size = 1.0 + np.maximum(np.abs(low), np.abs(high))
    power = (level - 1.0)[:, None]
    by = np.where(level[:, None] > 0, 0.5 * _WIDER * 2.0**power * (high - low) + _LEAST * 32.0**power * size, 0.0)
    return low - by, high + by


def _halves(low: Array, high: Array, radius: Array, slope_radius: Array) -> tuple[Array, Array]:
    """Cut boxes across the side along which the slopes differ most, among sides that are not much shorter than others."""
    score = radius * (slope_radius.sum(1) + 1e-3)
    score[~(radius >= 0.05 * radius.max(1, initial=0.0, keepdims=True)) | np.isnan(score)] = -1.0
    side = np.argmax(score, axis=1)
    rows = np.arange(len(low))
    at = low[rows, side] + _CUT * (high[rows, side] - low[rows, side])
    left_high, right_low = high.copy(), low.copy()
    left_high[rows, side] = at
    right_low[rows, side] = at
    return np.concatenate((low, right_low)), np.concatenate((left_high, high))


def _record(
    layers: Sequence[Layer], found: Search, low: Array, high: Array, unique_low: Array, unique_high: Array
) -> Bools:
    """Add fixed points that are proved, once each; returns which boxes are settled by that `[B]`.

    Two enclosures hold the same point if one of them lies in the box where the other's is the only one, and different
    ones if they are apart. Else, and it takes two boxes that overlap at their very edges, the box stays to be cut.
    """
    low, high = refined(layers, low, high)
    settled: Bools = np.ones(len(low), dtype=bool)
    for k in range(len(low)):
        same = contains(found.unique_low, found.unique_high, low[k], high[k]) | contains(
            unique_low[k], unique_high[k], found.low, found.high
        )
        if same.any():
            continue
        if not apart(found.low, found.high, low[k], high[k]).all():
            settled[k] = False
            continue
        for name, row in (("low", low), ("high", high), ("unique_low", unique_low), ("unique_high", unique_high)):
            setattr(found, name, np.concatenate((getattr(found, name), row[k : k + 1])))
    return settled


def refined(
    layers: Sequence[Layer], low: Array, high: Array, *, rounds: int = 60, precise: bool = False
) -> tuple[Array, Array]:
    """Enclosures `[K, n]` of fixed points that are known to lie in them, made as narrow as rounding allows."""
    for _ in range(rounds):
        image = enclose(layers, low, high, precise=precise)
        K = krawczyk(image)
        new_low, new_high = np.fmax(np.fmax(low, image.low), K.low), np.fmin(np.fmin(high, image.high), K.high)
        done = bool((new_high - new_low >= 0.97 * (high - low)).all())
        low, high = new_low, new_high
        if done:
            break
    return low, high


def enlarged(
    layers: Sequence[Layer], low: Array, high: Array, unique_low: Array, unique_high: Array
) -> tuple[Array, Array]:
    """Boxes `[K, n]` in which the points in the enclosures are the only ones, made larger as long as that can be proved."""
    unique_low, unique_high = unique_low.copy(), unique_high.copy()
    growing = np.arange(len(low))
    for _ in range(_DOUBLINGS):
        middle = 0.5 * (low + high)[growing]
        half = np.maximum(unique_high[growing] - middle, middle - unique_low[growing])
        half = np.maximum(2.0 * half, 0.1 * half.max(1, keepdims=True))
        wide_low, wide_high = middle - half, middle + half
        K = krawczyk(enclose(layers, wide_low, wide_high))
        good = ((wide_low < K.low) & (K.high < wide_high)).all(1)
        good &= contains(wide_low, wide_high, unique_low[growing], unique_high[growing])
        growing = growing[good]
        if not len(growing):
            break
        unique_low[growing], unique_high[growing] = wide_low[good], wide_high[good]
    return unique_low, unique_high
