"""How many fixed points random networks have: the papers' search, on thousands of networks at once."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fpstab.ensembles.networks import RandomNetworkBatch
from fpstab.ensembles.states import LiveStates
from fpstab.fixed_points.grouping import group
from fpstab.fixed_points.search import (
    BOUNDED,
    CYCLE,
    DIVERGED,
    FIXED,
    NONFINITE,
    OUTCOMES,
    PAPER_GROUP,
    PAPER_ITERATIONS,
    PAPER_STEP,
    SLOW,
)
from fpstab.results import OK, Status

MAX_PERIOD = 24
"""The longest cycle that is told from chaos."""

_ROUNDS = 10  # of MAX_PERIOD iterations each, in which orbits may settle
_FAR = 1e12  # times the size of the start: gone
_MERGE_ALWAYS, _MERGE_EVERY = 4, 8  # when equal states are looked for
_ANCHORS = (6, 12, 18, 24, 36)  # iterations to which orbits are seen to return
_LONG, _CLOSED = 1e-3, 1e-6  # a step, and the distance of a return, that make a cycle
_REPRESENTATIVES = 64  # unconverged states of a network that are followed further


@dataclass(frozen=True, slots=True, eq=False)
class FixedPointCensus:
    """What the papers' search finds in N networks from S common starts. Networks without a fixed point count, too.

    Attributes:
        points: The limits of all networks `[K, n]`, network after network: all that the papers' rule calls a fixed point.
        network: The network of each `[K]`, ascending.
        n_starts: How many starts went to each `[K]`: the size of its basin.
        rho: ρ(J) at each `[K]`; below 1 it is stable.
        label: Index into `points` for each start `[N, S]`, −1 if it went to none.
        outcome: Index into `fpstab.fixed_points.OUTCOMES` for each start `[N, S]`. `fixed`: by the papers' rule, a step
            below 1e-5 within 50 iterations; `slow`: later; `cycle`: of period 2 to 24; `bounded`: none of these, chaos or a
            long period; `diverged`; `nonfinite`.
        period: Of the cycle that each start went to `[N, S]`, else 0.
        status: Always `"ok"`.
    """

    points: Tensor
    network: Tensor
    n_starts: Tensor
    rho: Tensor
    label: Tensor
    outcome: Tensor
    period: Tensor
    status: Status = OK

    def __len__(self) -> int:
        return len(self.label)

    @property
    def q(self) -> Tensor:
        """How many fixed points were found in each network `[N]`, 0 included."""
        return torch.bincount(self.network, minlength=len(self))

    @property
    def q_stable(self) -> Tensor:
        """How many of them have ρ(J) < 1 `[N]`."""
        return torch.bincount(self.network[self.rho < 1], minlength=len(self))

    def share(self, outcome: str) -> Tensor:
        """The share of each network's starts that ended so `[N]`.

        Raises:
            ValueError: If there is no such outcome.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"share: outcome={outcome!r}; expected one of {OUTCOMES}.")
        return (self.outcome == OUTCOMES.index(outcome)).double().mean(1)

    def basin_sizes(self, i: int) -> list[int]:
        """The sizes of the basins of network i, in starts, the largest first."""
        return sorted(self.n_starts[self.network == i].tolist(), reverse=True)

    def periods(self, i: int) -> list[int]:
        """The periods of cycles that starts of network i went to."""
        return [period for period in torch.unique(self.period[i]).tolist() if period]

    def scalars(self) -> dict[str, float]:
        """Mean Q with its standard error, shares of networks by Q, and of starts by outcome."""
        q, n = self.q.double(), len(self)
        shares = {f"share_{name}": float(self.share(name).mean()) for name in OUTCOMES}
        return {
            "q_mean": float(q.mean()),
            "q_error": float(q.std() / math.sqrt(n)) if n > 1 else math.nan,
            "q_stable_mean": float(self.q_stable.double().mean()),
            **{f"p_q{k}": float((q == k).double().mean()) for k in range(4)},
            "any_cycle": float((self.outcome == CYCLE).any(1).double().mean()),
            **shares,
        }

    def table(self) -> list[dict[str, Any]]:
        """One row a network."""
        shares = {name: self.share(name).tolist() for name in OUTCOMES}
        q, stable = self.q.tolist(), self.q_stable.tolist()
        return [
            {
                "network": i,
                "q": q[i],
                "q_stable": stable[i],
                "basins": " ".join(map(str, self.basin_sizes(i))),
                "periods": " ".join(map(str, self.periods(i))),
            }
            | {f"share_{name}": values[i] for name, values in shares.items()}
            for i in range(len(self))
        ]


def grid(resolution: int = 41) -> Tensor:
    """The papers' grid of [−1, 1]² `[resolution², 2]`, the second coordinate varying fastest (paper 2, eq. (4)).

    Nodes are −1 + 2k/(resolution − 1), so that 0 is one of an odd number.

    Raises:
        ValueError: If the resolution is below 2.

    >>> grid(3)[:4].tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]]
    """
    if resolution < 2:
        raise ValueError(f"grid: resolution={resolution}; expected 2 or more.")
    nodes = (2 * torch.arange(resolution, dtype=torch.float64) - (resolution - 1)) / (resolution - 1)
    return torch.cartesian_prod(nodes, nodes)


def fixed_point_census(
    networks: RandomNetworkBatch, *, starts: Tensor | None = None, merge: bool = True, block: int = 64
) -> FixedPointCensus:
    """Count the fixed points of many networks by the papers' search (papers 1, §IV, and 2, §III, eqs. (4)–(6)).

    From every start x ← Φ(x) until a step is shorter than 1e-5, within 50 iterations; limits within 1e-3 are one. Starts
    that have not converged are followed for some hundred iterations more, to tell cycles from the rest. Finished
    starts leave, and states that have become equal bit by bit, as those of saturating activations do, are followed
    once: the result is the same but for rounding.

    Args:
        networks: From a space to itself.
        starts: `[S, n]`, the same for all; by default the papers' grid, 41×41 nodes of [−1, 1]².
        merge: Whether equal states are followed once.
        block: Networks at a time.

    Raises:
        ValueError: If the networks are not from a space to itself, or starts do not fit or are missing (they have a
            default in the plane only).

    >>> double = RandomNetworkBatch((2 * torch.eye(2, dtype=torch.float64)[None],), (), "hardtanh")
    >>> census = fixed_point_census(double)
    >>> census.q.tolist(), census.q_stable.tolist(), census.basin_sizes(0)
    ([9], [4], [400, 400, 400, 400, 20, 20, 20, 20, 1])
    """
    widths = networks.widths
    if widths[0] != widths[-1]:
        raise ValueError(f"fixed_point_census: the networks map {widths[0]} values to {widths[-1]}; expected as many.")
    if starts is None:
        if widths[0] != 2:
            raise ValueError(f"fixed_point_census: give starts [S, {widths[0]}]; only in the plane is there a default.")
        starts = grid()
    if starts.ndim != 2 or not len(starts) or starts.shape[1] != widths[0]:
        raise ValueError(f"fixed_point_census: starts of shape {tuple(starts.shape)}; expected [S, {widths[0]}].")
    if block < 1:
        raise ValueError(f"fixed_point_census: block={block}; expected 1 or more.")
    points = starts.detach().to(networks.weights[0])
    parts = [_block(networks.take(slice(i, i + block)), points, merge, first=i) for i in range(0, len(networks), block)]
    shift = 0
    labels = []
    for part in parts:
        labels.append(torch.where(part.label >= 0, part.label + shift, -1))
        shift += len(part.points)
    joined: dict[str, Any] = {
        field.name: torch.cat([getattr(part, field.name) for part in parts]).cpu()
        for field in fields(FixedPointCensus)
        if field.name not in ("label", "status")
    }
    return FixedPointCensus(**joined, label=torch.cat(labels).cpu())


def _block(networks: RandomNetworkBatch, starts: Tensor, merge: bool, first: int) -> FixedPointCensus:
    orbits = _Orbits(networks, starts, merge)
    orbits.search()
    orbits.settle()
    outcome, period, limit = orbits.results()
    label, points, network = _limits(outcome, limit)
    rho = _spectral_radii(networks, points, network)
    return FixedPointCensus(
        points=points,
        network=network + first,
        n_starts=torch.bincount(label[label >= 0], minlength=len(points)),
        rho=rho,
        label=label,
        outcome=outcome,
        period=period,
    )


class _Orbits:
    """The orbits of all starts of some networks; one that is merged with another has its fate from it."""

    def __init__(self, networks: RandomNetworkBatch, starts: Tensor, merge: bool) -> None:
        self.shape, self.merge = (len(networks), len(starts)), merge
        self.live = LiveStates(networks, starts)
        self.leader = self.live.rows.clone()
        self.outcome = torch.full_like(self.leader, -1)
        self.period = torch.zeros_like(self.leader)
        self.limit = self.live.x.clone()
        self.far = _FAR * (1 + torch.linalg.vector_norm(starts, dim=1).repeat(len(networks)))

    def search(self) -> None:
        """The papers' iteration. Orbits that have closed to rounding, with long steps, will not converge any more."""
        anchored = 0
        for k in range(1, PAPER_ITERATIONS + 1):
            y = self.live.images()
            length = torch.linalg.vector_norm(y - self.live.x, dim=1)
            self.live.x = y
            finite, done, rows = torch.isfinite(length), length < PAPER_STEP, self.live.rows
            self.outcome[rows[done]] = FIXED
            self.limit[rows[done]] = y[done]
            self.outcome[rows[~finite]] = NONFINITE
            leave = done | ~finite
            if self.merge and 1 < k - anchored <= MAX_PERIOD and anchored:
                closed = (length > _LONG) & (torch.linalg.vector_norm(y - self.live.anchor, dim=1) < _CLOSED)
                self.outcome[rows[closed & finite]] = CYCLE
                self.period[rows[closed & finite]] = k - anchored
                leave |= closed
            self.live.keep(~leave)
            if not len(self.live):
                return
            if k in _ANCHORS:
                self.live.anchor, anchored = self.live.x, k
            if self.merge and (k <= _MERGE_ALWAYS or k % _MERGE_EVERY == 0):
                self._follow(*self.live.duplicates())

    def settle(self) -> None:
        """Follow what has not converged: to a fixed point after all, or around a cycle."""
        if self.merge and len(self.live):
            self._follow(*self.live.neighbours(_REPRESENTATIVES))
        for _ in range(_ROUNDS):
            if not len(self.live):
                return
            rows, anchor = self.live.rows, self.live.x
            closed, slow = torch.zeros_like(rows), torch.zeros_like(rows, dtype=torch.bool)
            for p in range(1, MAX_PERIOD + 1):
                self.live.x = self.live.images()
                back = torch.linalg.vector_norm(self.live.x - anchor, dim=1) < PAPER_STEP
                slow = back if p == 1 else slow
                closed = torch.where((closed == 0) & back, p, closed)
            size = torch.linalg.vector_norm(self.live.x, dim=1)
            finite = torch.isfinite(size)
            gone = ~finite | (size > self.far[rows])
            cycle = (closed > 1) & ~gone
            self.period[rows[cycle]] = closed[cycle]
            found = torch.where(slow, SLOW, torch.where(cycle, CYCLE, -1))
            self.outcome[rows] = torch.where(gone, torch.where(finite, DIVERGED, NONFINITE), found)
            self.live.keep(self.outcome[rows] < 0)
        self.outcome[self.live.rows] = BOUNDED

    def results(self) -> tuple[Tensor, Tensor, Tensor]:
        """Outcome and period of every start `[N, S]`, and its last state `[N, S, n]`."""
        while True:  # leaders may have been merged later
            further = self.leader[self.leader]
            if bool((further == self.leader).all()):
                break
            self.leader = further
        return (
            self.outcome[self.leader].reshape(self.shape),
            self.period[self.leader].reshape(self.shape),
            self.limit[self.leader].reshape(*self.shape, -1),
        )

    def _follow(self, twins: Tensor, others: Tensor) -> None:
        """From now on the states at the places `twins` `[D]` share the fate of those at `others` `[D]`."""
        if len(twins):
            self.leader[self.live.rows[twins]] = self.live.rows[others]
            stay = torch.ones_like(self.live.rows, dtype=torch.bool)
            stay[twins] = False
            self.live.keep(stay)


def _limits(outcome: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Group the limits of each network: the group of each start `[N, S]`, the points `[K, n]`, their networks `[K]`."""
    label = torch.full_like(outcome, -1)
    points, network = [limit[0, :0]], []
    count = 0
    for i, (ended, x) in enumerate(zip(outcome, limit, strict=True)):
        rows = (ended == FIXED).nonzero()[:, 0]
        if not len(rows):
            continue
        states, which = torch.unique(x[rows] + 0.0, dim=0, return_inverse=True)
        leaders, member = group(states, torch.zeros_like(states[:, 0]), threshold=PAPER_GROUP)
        label[i, rows] = member[which] + count
        points.append(states[leaders])
        network += [i] * len(leaders)
        count += len(leaders)
    return label, torch.cat(points), torch.tensor(network, dtype=torch.int64, device=limit.device)


def _spectral_radii(networks: RandomNetworkBatch, points: Tensor, network: Tensor) -> Tensor:
    """ρ(J) at points `[K, n]` of networks `[K]`, ascending."""
    if not len(points):
        return points[:, 0]
    count = torch.bincount(network, minlength=len(networks))
    begin = count.cumsum(0) - count
    place = torch.arange(int(count.max()), device=points.device)
    mask = place < count[:, None]
    padded = points.new_zeros(len(networks), len(place), points.shape[1])
    padded[mask] = points[(begin[:, None] + place)[mask]]
    J = networks.jacobian(padded)[mask]
    finite = torch.isfinite(J).all(2).all(1)
    rho = torch.full_like(points[:, 0], torch.nan)
    rho[finite] = torch.linalg.eigvals(J[finite]).abs().amax(1)
    return rho
