"""Which fixed points of now are which of before: the births and deaths between two measurements."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fpstab.results import OK, Status


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The fixed points of two moments, matched.

    Attributes:
        matched: Pairs (index before, index after) `[M, 2]`, by the index before.
        distance: How far each pair moved `[M]`.
        births: Indices after, without one before.
        deaths: Indices before, without one after.
        tolerance: The distance that was allowed, `None` if it depended on the points.
        status: `"ok"`.
    """

    matched: Tensor
    distance: Tensor
    births: Tensor
    deaths: Tensor
    tolerance: float | None
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """Numbers of survivors, births and deaths, and how far survivors moved; nan if there are none."""
        return {
            "n_survivors": float(len(self.matched)),
            "n_births": float(len(self.births)),
            "n_deaths": float(len(self.deaths)),
            "moved_max": float(self.distance.max()) if len(self.distance) else math.nan,
        }


def track(before: Any, after: Any, *, tolerance: float | None = None) -> Track:
    """Match the fixed points of two moments, nearest pairs first, each at most once.

    Warm start: give the points of before as further starts (with a source of their own) to the search of now.

    Args:
        before: `[K, n]` or `[K, *shape]`.
        after: `[L, n]` or `[L, *shape]`.
        tolerance: Largest distance of a pair. By default half the distance that either point has to the nearest other
            one of its own moment: within it there is no doubt which is which. A point that is alone matches any.

    Raises:
        ValueError: If the points differ in size, or the tolerance is negative.

    >>> moved = track(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [0.1]]))
    >>> moved.matched, moved.births, moved.deaths
    (tensor([[0, 1]]), tensor([0]), tensor([1]))
    """
    old, new = _flat(before), _flat(after)
    if len(old) and len(new) and old.shape[1] != new.shape[1]:
        raise ValueError(f"track: the points before have {old.shape[1]} values, those after {new.shape[1]}.")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance!r}: expected a distance, 0 or more.")
    pairs: list[tuple[int, int]] = []
    moved: list[float] = []
    if len(old) and len(new):
        distance = torch.cdist(old, new, compute_mode="donot_use_mm_for_euclid_dist")
        if tolerance is None:
            reach = torch.minimum(_clearance(old)[:, None], _clearance(new)[None]) / 2
        else:
            reach = torch.full_like(distance, tolerance)
        candidates = (distance <= reach).nonzero()
        order = torch.argsort(distance[candidates[:, 0], candidates[:, 1]], stable=True)
        free_old, free_new = set(range(len(old))), set(range(len(new)))
        for i, j in candidates[order].tolist():
            if i in free_old and j in free_new:
                free_old.remove(i)
                free_new.remove(j)
                pairs.append((i, j))
                moved.append(float(distance[i, j]))
    by_old = sorted(range(len(pairs)), key=lambda k: pairs[k][0])
    matched = torch.tensor([pairs[k] for k in by_old], dtype=torch.int64).reshape(-1, 2)
    return Track(
        matched=matched,
        distance=torch.tensor([moved[k] for k in by_old], dtype=torch.float64),
        births=_others(len(new), matched[:, 1]),
        deaths=_others(len(old), matched[:, 0]),
        tolerance=tolerance,
    )


def _flat(points: Any) -> Tensor:
    x = torch.as_tensor(points).detach().to("cpu", torch.float64)
    if x.ndim < 2:
        raise ValueError(f"track: expected points [K, n], got shape {list(x.shape)}.")
    return x.reshape(len(x), -1) if len(x) else x.reshape(0, 1)


def _clearance(x: Tensor) -> Tensor:
    """Distance of each point `[K, n]` to its nearest other one, infinite if it is alone."""
    if len(x) == 1:
        return torch.full((1,), math.inf, dtype=x.dtype)
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(math.inf)
    return distance.amin(1)


def _others(n: int, taken: Tensor) -> Tensor:
    mask = torch.ones(n, dtype=torch.bool)
    mask[taken] = False
    return mask.nonzero()[:, 0]
