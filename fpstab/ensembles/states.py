"""The states of many orbits of many networks: evaluated together, and equal ones followed once."""

import math

import torch
from torch import Tensor

from fpstab.ensembles.networks import RandomNetworkBatch

_ROWS = 1024  # points that go through the layers together, padding included: their values stay in the cache
_NEAR = 1e-6  # distance below which one state stands for another
_RAGGED = 2  # how many times more points the fullest network of such a piece may have than the emptiest


class LiveStates:
    """States that are still on their way, sorted by network: the rows of a batch of points of unequal number.

    Attributes:
        rows: Which orbit each state stands for, ascending `[R]`.
        net: Its network `[R]`.
        x: The state `[R, n]`.
        anchor: An earlier one `[R, n]`.
    """

    def __init__(self, networks: RandomNetworkBatch, starts: Tensor) -> None:
        """From the same starts `[S, n]` for every network."""
        self._networks = networks
        count = len(networks)
        self.rows = torch.arange(count * len(starts), device=starts.device)
        self.net = self.rows // max(len(starts), 1)
        self.x = self.anchor = starts.repeat(count, 1)
        self._pieces: list[tuple[RandomNetworkBatch, Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self) -> Tensor:
        """Φ of every state `[R, n]`."""
        if self._pieces is None:
            self._pieces = self._layout()
        y = torch.empty_like(self.x)
        for networks, index, mask in self._pieces:
            y[index[mask]] = networks(self.x[index])[mask]
        return y

    def keep(self, stay: Tensor) -> None:
        """Drop the states where `stay` `[R]` is false."""
        if not bool(stay.all()):
            self.rows, self.net = self.rows[stay], self.net[stay]
            self.x, self.anchor = self.x[stay], self.anchor[stay]
            self._pieces = None

    def duplicates(self) -> tuple[Tensor, Tensor]:
        """States that equal another one of their network, bit by bit: their places `[D]` and the other's `[D]`.

        The other one is the first of its kind, and no duplicate itself.
        """
        x = self.x + 0.0  # 0.0 for −0.0
        key = self.net * 0x9E3779B9
        for column in x.view(torch.int64).unbind(1):
            key = (key ^ (column >> 29) ^ column) * 0x5851F42D4C957F2D + 0x14057B7EF767814F
        order = key.argsort(stable=True)
        same = (x[order[1:]] == x[order[:-1]]).all(1) & (self.net[order[1:]] == self.net[order[:-1]])
        if not bool(same.any()):
            return order[:0], order[:0]
        # with a collision of keys, equal states may stand apart and are then followed twice: no harm
        first = torch.cat((~same.new_ones(1), same)).logical_not()
        leader = order[first.nonzero()[:, 0][first.cumsum(0) - 1]]
        return order[~first], leader[~first]

    def neighbours(self, most: int) -> tuple[Tensor, Tensor]:
        """States that others stand for: their places `[D]`, and the place of the nearest one that stays `[D]`.

        Of each network at most `most` stay: each in turn the farthest from those before, until none is farther than
        1e-6. Orbits that have come to their attractors then have one near them on the same attractor.
        """
        twins, others = [], []
        places = torch.arange(len(self), device=self.x.device)
        for place in torch.split(places, torch.bincount(self.net).tolist()):
            if len(place) < 2:
                continue
            x = self.x[place]
            distance = torch.full_like(x[:, 0], torch.inf)
            nearest = torch.zeros_like(place)
            chosen = 0
            for i in range(most):
                d = (x - x[chosen]).square().sum(1)
                closer = d < distance
                distance, nearest = torch.where(closer, d, distance), torch.where(closer, chosen, nearest)
                chosen = int(distance.argmax())
                if i + 1 == most or float(distance[chosen]) <= _NEAR**2:
                    break
            itself = nearest == torch.arange(len(place), device=x.device)
            twins.append(place[~itself])
            others.append(place[nearest[~itself]])
        return (torch.cat(twins), torch.cat(others)) if twins else (places[:0], places[:0])

    def _layout(self) -> list[tuple[RandomNetworkBatch, Tensor, Tensor]]:
        """Networks with about equally many states side by side: pieces, the state of each place, where there is one."""
        count = torch.bincount(self.net, minlength=len(self._networks))
        begin = count.cumsum(0) - count
        order = count.argsort(descending=True, stable=True)
        sizes = count[order].tolist()
        pieces = []
        i = 0
        while i < len(sizes) and sizes[i]:
            most, j = sizes[i], i + 1
            while j < len(sizes) and sizes[j] * _RAGGED >= most and (j - i + 1) * most <= _ROWS:
                j += 1
            nets = order[i:j]
            place = torch.arange(most, device=self.x.device)
            mask = place < count[nets, None]
            index = begin[nets, None] + place.clamp(max=most - 1).minimum(count[nets, None] - 1)
            neighbours = bool((nets[1:] == nets[:-1] + 1).all())
            taken = self._networks.take(slice(int(nets[0]), int(nets[0]) + len(nets)) if neighbours else nets)
            parts = math.ceil(most / _ROWS)
            pieces += [(taken, *part) for part in zip(index.chunk(parts, 1), mask.chunk(parts, 1), strict=True)]
            i = j
        return pieces
