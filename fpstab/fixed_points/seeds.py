"""Where Newton's method starts to look for fixed points that iteration does not lead to."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fpstab.fixed_points.search import Search

_ROUNDS = 4


class Seeds:
    """Newton starts in rounds: first from the starts and their orbits, then between the points found so far.

    First come the iterates where orbits pass a point that repels them, and the starts, evenly from each source;
    then the midpoints of all pairs of points in which one is new, as long as there are new ones.

    Args:
        starts: `[S, n]` in canonical order.
        sources: Name of the source of each.
        search: The orbits.
        limit: Seeds at most, over all rounds.
        generator: Draws pairs where there are too many.
    """

    def __init__(
        self,
        starts: Tensor,
        sources: Sequence[str] | None,
        search: Search,
        limit: int,
        generator: torch.Generator,
    ) -> None:
        self.left, self.generator = limit, generator
        passed = search.passed[torch.isfinite(search.passed).all(1)]
        finite = torch.isfinite(starts).all(1)
        groups = [starts[finite]]
        if sources is not None:
            names = sorted(set(sources))
            number = torch.tensor([names.index(name) for name in sources], device=starts.device)
            groups = [starts[finite & (number == i)] for i in range(len(names))]
        # half of the seeds for the midpoints
        share = max(1, limit // (2 * (len(groups) + 1)))
        self.first = torch.cat([_evenly(passed, share), *(_evenly(each, share) for each in groups)])
        self.next = starts[:0]

    def rounds(self) -> Iterator[Tensor]:
        """Batches of seeds `[s, n]`; after each, `learn` must be told what came of it."""
        yield self._take(self.first)
        for _ in range(_ROUNDS):
            if not len(self.next) or self.left <= 0:
                return
            yield self._take(self.next)

    def learn(self, new: Tensor, points: Tensor) -> None:
        """Prepare the next round from the new points `[a, n]` and all points `[K, n]`."""
        self.next = points[:0]
        k, a = len(points), len(new)
        if not a or self.left <= 0:
            return
        number = torch.arange(k, device=points.device)
        i, j = torch.meshgrid(number, number[k - a :], indexing="ij")
        pairs = torch.stack((i[i < j], j[i < j]), 1)
        if len(pairs) > self.left:
            distance = torch.linalg.vector_norm(points[pairs[:, 0]] - points[pairs[:, 1]], dim=1)
            # half of them the closest, half of them any: saddles lie between neighbours, as a rule
            closest = torch.argsort(distance, stable=True)
            rest = closest[self.left // 2 :]
            drawn = torch.randperm(len(rest), generator=self.generator)[: self.left - self.left // 2]
            pairs = pairs[torch.cat((closest[: self.left // 2], rest[drawn.to(rest.device)]))]
        self.next = (points[pairs[:, 0]] + points[pairs[:, 1]]) / 2

    def _take(self, seeds: Tensor) -> Tensor:
        seeds = seeds[: max(self.left, 0)]
        self.left -= len(seeds)
        return seeds


def _evenly(rows: Tensor, count: int) -> Tensor:
    """At most `count` rows, evenly over their order."""
    if len(rows) <= count:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, count, device=rows.device).round().long()]
